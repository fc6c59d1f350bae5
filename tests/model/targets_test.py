import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.heads_schema import RPN, Rois
from model import targets
from ops import anchors as anchor_ops
from ops import matching
from ops.atss import atss
from tests import reference

ANCHORS = np.float32(
    [[0, 0, 0, 4, 6, 8], [0, 0, 2, 4, 6, 10], [4, 8, 12, 8, 14, 20], [0, 8, 0, 4, 14, 8], [4, 0, 12, 8, 6, 20]]
)
BOXES = np.float32([[[0, 0, 0, 4, 6, 8], [5, 9, 13, 8, 14, 20], [0] * 6]])
CLASS_IDS = np.int32([[2, 1, 0]])
VALID = np.array([[True, True, False]])
SEED = tf.constant([3, 5])
SHAPE = (8, 14, 20)

# Two levels of anchors over (8, 16, 24); many reach beyond it.
GRID_SHAPE = (8, 16, 24)
LEVELS = [
    anchor_ops.level_anchors((4, 4, 6), (2, 4, 4), [[3, 5, 6], [2, 4, 4]]).numpy(),
    anchor_ops.level_anchors((2, 2, 3), (4, 8, 8), [[4, 8, 6], [6, 10, 12]]).numpy(),
]
GRID = np.concatenate(LEVELS)
PER_LEVEL = [len(level) for level in LEVELS]


def anchor_targets(
    boxes=BOXES, valid=VALID, anchors=ANCHORS, per_level=None, scores=None, shape=SHAPE, seed=SEED, **changes
):
    rpn = RPN(**{"positive_iou": 0.5, "negative_iou": 0.2, "num_samples": 10, **changes})
    per_level = [len(anchors)] if per_level is None else per_level
    scores = np.zeros((len(boxes), len(anchors)), np.float32) if scores is None else scores
    return targets.anchor_targets(anchors, per_level, boxes, valid, scores, shape=shape, rpn=rpn, seed=seed)


def grid_targets(boxes, valid=None, anchors=GRID, shape=GRID_SHAPE, **changes):
    """Targets over GRID with every anchor drawn that may be."""
    boxes = np.float32(boxes)
    valid = np.ones(boxes.shape[:2], bool) if valid is None else valid
    settings = {"per_level": PER_LEVEL, "num_samples": 2 * len(GRID), "positive_iou": 0.4, **changes}
    return anchor_targets(boxes, valid, anchors, shape=shape, **settings)


def labels_of(result):
    """[B, A]: 1 positive, 0 negative, -1 neither."""
    return np.where(result.positive, 1, np.where(result.negative, 0, -1))


def grid_truths(seed, batch=2, num=4):
    rng = np.random.default_rng(seed)
    return np.stack([reference.random_boxes(rng, num, GRID_SHAPE, smallest=2.0) for _ in range(batch)])


def sample_rois(
    proposals, proposals_valid=None, truths=(BOXES, CLASS_IDS, VALID), seed=SEED, stage_iou=None, **changes
):
    rois = Rois(**{"positive_iou": 0.5, "negative_iou": 0.5, "num_samples": 6, **changes})
    proposals = np.asarray(proposals, np.float32)
    valid = np.ones(proposals.shape[:2], bool) if proposals_valid is None else proposals_valid
    return targets.sample_rois(proposals, valid, *truths, rois=rois, positive_iou=stage_iou, seed=seed)


def assert_same(ours, theirs):
    """All is equal; the deltas but for what rounding a logarithm leaves."""
    for name in ours._fields:
        tolerance = 1e-6 if name == "deltas" else 0.0
        one, other = (np.asarray(getattr(result, name), np.float64) for result in (ours, theirs))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_finite(result):
    for name in result._fields:
        assert np.isfinite(np.asarray(getattr(result, name), np.float64)).all(), name


class AnchorTargetsTest:
    def test_hand_values(self):
        result = anchor_targets()
        # IoU with the first truth 1 and 0.6, with the second 105 / 192.
        np.testing.assert_array_equal(result.positive, [[True, True, True, False, False]])
        np.testing.assert_array_equal(result.negative, [[False, False, False, True, True]])
        np.testing.assert_array_equal(result.matched_boxes[0, :3], BOXES[0, [0, 0, 1]])
        expected = reference.encode(BOXES[0, [0, 0, 1]], ANCHORS[:3])
        np.testing.assert_allclose(result.deltas[0, :3], expected, atol=1e-6)
        np.testing.assert_allclose(result.deltas[0, 1], [0, 0, -0.25, 0, 0, 0], atol=1e-6)

    def test_counts_are_bounded(self):
        result = anchor_targets(num_samples=4, positive_fraction=0.25)
        assert result.positive.numpy().sum() == 1
        assert result.negative.numpy().sum() == 2  # there are no more
        result = anchor_targets(num_samples=2, positive_fraction=0.5)
        assert (result.positive.numpy().sum(), result.negative.numpy().sum()) == (1, 1)

    @pytest.mark.parametrize("sampling", ["balanced", "hard_negative"])
    def test_zero_samples_are_all_that_are_labelled(self, sampling):
        result = anchor_targets(num_samples=0, positive_fraction=0.25, positive_iou=0.7, sampling=sampling)
        # The anchors of IoU 1 and of the best IoU with the second truth; that of 0.6 is neither.
        np.testing.assert_array_equal(result.positive, [[True, False, True, False, False]])
        np.testing.assert_array_equal(result.negative, [[False, False, False, True, True]])

    def test_the_seed_decides_which_are_drawn(self):
        drawn = {
            tuple(anchor_targets(num_samples=1, positive_fraction=1.0, seed=[0, n]).positive.numpy()[0])
            for n in range(20)
        }
        assert len(drawn) == 3
        first, second = anchor_targets(num_samples=2), anchor_targets(num_samples=2)
        np.testing.assert_array_equal(first.positive, second.positive)

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    def test_without_a_valid_truth_all_are_negative_and_all_is_finite(self, assignment):
        for junk in (0.0, np.nan):
            boxes = np.full((1, 3, 6), junk, np.float32)
            result = anchor_targets(boxes, np.zeros((1, 3), bool), assignment=assignment)
            assert not result.positive.numpy().any()
            assert result.negative.numpy().all()
            np.testing.assert_array_equal(result.matched_boxes, np.zeros((1, 5, 6)))
            assert_finite(result)

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    def test_without_truth_slots_all_are_negative_and_all_is_finite(self, assignment):
        result = grid_targets(np.zeros((2, 0, 6)), assignment=assignment)
        np.testing.assert_array_equal(labels_of(result), np.zeros((2, len(GRID))))
        assert_finite(result)

    def test_volumes_of_a_batch_do_not_touch_each_other(self):
        boxes = np.concatenate([BOXES, BOXES[:, ::-1]])
        valid = np.concatenate([np.zeros_like(VALID), VALID[:, ::-1]])
        result = anchor_targets(boxes, valid)
        np.testing.assert_array_equal(result.positive, [[False] * 5, [True, True, True, False, False]])

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    @pytest.mark.parametrize("cross_boundary", [True, False])
    def test_a_batch_of_two_equals_two_batches_of_one_where_all_are_drawn(self, assignment, cross_boundary):
        changes = {"assignment": assignment, "cross_boundary": cross_boundary, "positive_fraction": 1.0}
        boxes, valid = grid_truths(0), np.array([[True, True, False, True], [False, True, True, True]])
        together = grid_targets(boxes, valid, **changes)
        assert together.positive.numpy().any(axis=1).all()
        for item in range(2):
            alone = grid_targets(boxes[item : item + 1], valid[item : item + 1], **changes)
            assert_same(targets.AnchorTargets(*(field[item : item + 1] for field in together)), alone)

    @pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (0, 2, 1)])
    def test_iou_equals_the_slow_match_on_permuted_axes(self, axes):
        boxes, valid = grid_truths(1), np.array([[True, True, False, True], [False, True, True, True]])
        result = grid_targets(
            reference.permute_boxes(boxes, axes), valid, reference.permute_boxes(GRID, axes), positive_fraction=1.0
        )
        labels = labels_of(result)
        for item in range(2):
            overlaps = reference.iou_matrix(GRID, boxes[item])
            choices, expected = reference.match(overlaps.astype(np.float32), valid[item], high=0.4, low=0.2)
            np.testing.assert_array_equal(labels[item], expected)
            for a in np.flatnonzero(expected == 1):
                own = reference.permute_boxes(boxes[item, sorted(choices[a])], axes).tolist()
                assert result.matched_boxes[item, a].numpy().tolist() in own

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0)])
    def test_atss_equals_a_direct_call(self, axes):
        boxes = reference.permute_boxes(grid_truths(2), axes)
        anchors = reference.permute_boxes(GRID, axes)
        valid = np.array([[True, True, False, True], [False, True, True, True]])
        result = grid_targets(
            boxes, valid, anchors, assignment="atss", atss_candidates=5, positive_fraction=1.0, negative_iou=0.0
        )
        matched, labels = (x.numpy() for x in atss(anchors, PER_LEVEL, boxes, valid, candidates_per_level=5))
        np.testing.assert_array_equal(labels_of(result), labels)
        assert labels.sum() > 0
        for item, a in np.argwhere(labels == 1):
            np.testing.assert_array_equal(result.matched_boxes[item, a], boxes[item, matched[item, a]])

    @pytest.mark.parametrize("pairs", [64, 500, 1151])
    def test_matching_in_chunks_changes_nothing(self, monkeypatch, pairs):
        # On a grid many anchors tie for the best of a truth, in different chunks.
        boxes = np.concatenate(
            [grid_truths(3, num=6), np.float32([[[2, 4, 4, 6, 12, 12]], [[0, 0, 0, 1, 1, 1]]])], axis=1
        )
        valid = np.array([[True] * 3 + [False] + [True] * 3] * 2)
        whole = grid_targets(boxes, valid)
        assert whole.positive.numpy().sum(axis=1).min() > 3
        monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
        assert_same(grid_targets(boxes, valid), whole)

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    def test_matched_boxes_are_what_the_deltas_decode_to(self, assignment):
        result = grid_targets(grid_truths(4), assignment=assignment)
        for item, a in np.argwhere(result.positive.numpy()):
            decoded = reference.decode(result.deltas[item, a : a + 1].numpy(), GRID[a : a + 1])
            np.testing.assert_allclose(decoded[0], result.matched_boxes[item, a], atol=1e-4)

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    @pytest.mark.parametrize("junk", [0.0, 5.0, np.nan])
    def test_padding_with_invalid_truths_changes_nothing(self, assignment, junk):
        boxes = grid_truths(5)
        padded = np.concatenate([boxes, np.full((2, 7, 6), junk, np.float32)], axis=1)
        valid = np.array([[True] * 4 + [False] * 7] * 2)
        for samples in (2 * len(GRID), 10):
            changes = {"assignment": assignment, "num_samples": samples}
            assert_same(grid_targets(padded, valid, **changes), grid_targets(boxes, **changes))

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    def test_one_voxel_and_five_hundred_truths_are_finite(self, assignment):
        voxel = np.float32([[[3, 4, 5, 4, 5, 6]]])
        result = grid_targets(voxel, assignment=assignment)
        assert_finite(result)
        if assignment == "iou":  # an anchor around it is the best there is
            assert result.positive.numpy().any()
            np.testing.assert_array_equal(result.matched_boxes[result.positive][0], voxel[0, 0])
        many = grid_truths(6, batch=1, num=500)
        result = grid_targets(many, assignment=assignment)
        assert_finite(result)
        assert result.positive.numpy().sum() > 20

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    @pytest.mark.parametrize("cross_boundary", [True, False])
    @pytest.mark.parametrize("sampling", ["balanced", "hard_negative"])
    def test_eager_equals_graph_with_unknown_batch(self, assignment, cross_boundary, sampling):
        rpn = RPN(assignment=assignment, cross_boundary=cross_boundary, sampling=sampling, num_samples=20)

        def call(boxes, valid, scores):
            return targets.anchor_targets(GRID, PER_LEVEL, boxes, valid, scores, shape=GRID_SHAPE, rpn=rpn, seed=SEED)

        signature = [
            tf.TensorSpec([None, 4, 6]),
            tf.TensorSpec([None, 4], tf.bool),
            tf.TensorSpec([None, len(GRID)]),
        ]
        compiled = tf.function(call, input_signature=signature)
        shapes = [x.shape.as_list()[1:] for x in compiled.get_concrete_function().structured_outputs]
        assert shapes == [[len(GRID)], [len(GRID)], [len(GRID), 6], [len(GRID), 6]]
        scores = np.random.default_rng(7).random((2, len(GRID))).astype(np.float32)
        arguments = (grid_truths(7), np.ones((2, 4), bool), scores)
        graph, eager = compiled(*arguments), call(*arguments)
        assert eager.positive.numpy().any()
        np.testing.assert_array_equal(labels_of(graph), labels_of(eager))
        np.testing.assert_array_equal(graph.matched_boxes, eager.matched_boxes)
        np.testing.assert_allclose(graph.deltas, eager.deltas, atol=1e-6)

    @pytest.mark.parametrize(
        ("boxes", "per_level", "scores", "came"),
        [
            ((1, 3, 6), [4], (1, 5), "expected anchors [4, 6], boxes [B, G, 6], valid [B, G], scores [B, 4]; came"),
            ((1, 2, 6), [5], (1, 5), "came anchors [5, 6], boxes [1, 2, 6], valid [1, 3], scores [1, 5]"),
            ((1, 3, 7), [5], (1, 5), "boxes [1, 3, 7]"),
            ((1, 3, 6), [5], (1, 4), "scores [1, 4]"),
        ],
    )
    def test_other_shapes_raise(self, boxes, per_level, scores, came):
        with pytest.raises(ValueError, match=re.escape(came)):
            anchor_targets(np.zeros(boxes, np.float32), VALID, per_level=per_level, scores=np.zeros(scores, np.float32))


class CrossBoundaryTest:
    # Anchors of one truth: one reaches beyond the patch, one that overlaps less does not.
    ANCHORS = np.float32([[-1, 0, 0, 3, 6, 8], [0, 0, 0, 4, 12, 8], [4, 8, 10, 8, 14, 20], [0, 0, 12, 4, 6, 21]])
    BOXES = np.float32([[[0, 0, 0, 3, 6, 8]]])
    VALID = np.ones((1, 1), bool)

    def test_the_best_anchor_inside_takes_the_place_of_one_that_crosses(self):
        with_all = anchor_targets(self.BOXES, self.VALID, self.ANCHORS)  # IoU 0.75 and 0.375
        np.testing.assert_array_equal(labels_of(with_all), [[1, -1, 0, 0]])
        inside = anchor_targets(self.BOXES, self.VALID, self.ANCHORS, cross_boundary=False)
        np.testing.assert_array_equal(labels_of(inside), [[-1, 1, 0, -1]])
        np.testing.assert_array_equal(inside.matched_boxes[0, 1], self.BOXES[0, 0])

    def test_a_truth_that_no_anchor_inside_overlaps_trains_none(self):
        at_the_border = np.float32([[[0, 0, 14, 4, 6, 20]]])
        result = anchor_targets(at_the_border, self.VALID, self.ANCHORS, cross_boundary=False)
        np.testing.assert_array_equal(labels_of(result), [[-1, 0, 0, -1]])

    def test_if_all_cross_none_is_drawn(self):
        for assignment in ("iou", "atss"):
            result = anchor_targets(
                self.BOXES, self.VALID, self.ANCHORS, shape=(2, 2, 2), cross_boundary=False, assignment=assignment
            )
            np.testing.assert_array_equal(labels_of(result), [[-1] * 4])
            assert_finite(result)

    def test_if_none_crosses_nothing_changes(self):
        assert_same(anchor_targets(cross_boundary=False), anchor_targets())

    def test_a_level_may_be_left_empty(self):
        outside = self.ANCHORS[:1]
        anchors = np.concatenate([outside, self.ANCHORS[1:3], outside])
        for assignment in ("iou", "atss"):
            result = anchor_targets(
                self.BOXES, self.VALID, anchors, [1, 2, 1], cross_boundary=False, assignment=assignment
            )
            np.testing.assert_array_equal(labels_of(result)[0, [0, 3]], [-1, -1])
            assert labels_of(result)[0, 2] == 0

    @pytest.mark.parametrize("assignment", ["iou", "atss"])
    def test_equals_the_assignment_of_the_anchors_inside_alone(self, assignment):
        inside = ~anchor_ops.crosses_boundary(GRID, GRID_SHAPE).numpy()
        per_level = [inside[: PER_LEVEL[0]].sum(), inside[PER_LEVEL[0] :].sum()]
        assert 0 < per_level[1] < PER_LEVEL[1]
        boxes = grid_truths(8)
        ours = grid_targets(boxes, assignment=assignment, cross_boundary=False, positive_fraction=1.0)
        alone = grid_targets(
            boxes, anchors=GRID[inside], per_level=per_level, assignment=assignment, positive_fraction=1.0
        )
        np.testing.assert_array_equal(labels_of(ours)[:, inside], labels_of(alone))
        np.testing.assert_array_equal(labels_of(ours)[:, ~inside], -1)
        np.testing.assert_array_equal(ours.matched_boxes.numpy()[:, inside], alone.matched_boxes)


class HardNegativesTest:
    SCORES = np.random.default_rng(9).permutation(len(GRID)).astype(np.float32)[np.newaxis] / len(GRID)

    def test_are_among_the_highest_scored(self):
        boxes = grid_truths(9, batch=1)
        negatives = np.flatnonzero(labels_of(grid_targets(boxes))[0] == 0)
        ranked = negatives[np.argsort(-self.SCORES[0, negatives])]
        for pool in (1, 3):
            result = grid_targets(
                boxes, scores=self.SCORES, sampling="hard_negative", hard_negative_pool=pool, num_samples=12
            )
            wanted, drawn = 12 - result.positive.numpy().sum(), np.flatnonzero(result.negative[0])
            assert 6 <= len(drawn) == wanted < 12
            assert set(drawn) <= set(ranked[: wanted * pool])
            assert (set(drawn) == set(ranked[:wanted])) == (pool == 1)

    def test_positives_do_not_depend_on_the_scores(self):
        boxes = grid_truths(9, batch=1)
        hard = grid_targets(boxes, scores=self.SCORES, sampling="hard_negative", num_samples=12)
        np.testing.assert_array_equal(hard.positive, grid_targets(boxes, num_samples=12).positive)

    def test_balanced_sampling_does_not_look_at_the_scores(self):
        boxes = grid_truths(9, batch=1)
        assert_same(grid_targets(boxes, scores=self.SCORES, num_samples=12), grid_targets(boxes, num_samples=12))

    def test_scores_that_are_not_numbers_are_never_drawn(self):
        scores = np.where(np.arange(len(GRID)) % 2, self.SCORES, np.nan).astype(np.float32)
        result = grid_targets(grid_truths(9, batch=1), scores=scores, sampling="hard_negative", num_samples=100)
        assert result.negative.numpy().sum() > 10
        assert not result.negative.numpy()[0, ::2].any()

    def test_no_gradient_reaches_the_scores(self):
        scores = tf.Variable(self.SCORES)
        with tf.GradientTape() as tape:
            result = grid_targets(grid_truths(9, batch=1), scores=scores, sampling="hard_negative")
            total = tf.reduce_sum(result.deltas) + tf.reduce_sum(tf.cast(result.negative, tf.float32))
        assert tape.gradient(total, scores) is None


class WithMasksTest:
    """Masks of (1, 2, 3) bins: the truth has four, of which the three rois show three and one more, two, and none."""

    ROIS = targets.RoiTargets(
        boxes=np.zeros((1, 3, 6), np.float32),
        class_ids=np.int32([[2, 1, 2]]),
        slots=np.int32([[0, 1, 2]]),
        deltas=np.zeros((1, 3, 6), np.float32),
        valid=np.array([[True, True, True]]),
        matched_boxes=np.zeros((1, 3, 6), np.float32),
    )
    FOUND = np.float32([[[[[0.9, 0.6, 0.5], [0.1, 0.8, 0.49]]], [[[0.7, 0.7, 0], [0, 0, 0]]], [[[0] * 3] * 2]]])
    TRUE = np.float32([[[[[1, 1, 1], [1, 0, 0.4]]]] * 3])

    @pytest.mark.parametrize(
        ("min_iou", "slots"),
        [
            (0.0, [0, 1, 2]),
            (0.01, [0, 1, -1]),
            (0.5, [0, 1, -1]),
            (0.59, [0, -1, -1]),
            (0.61, [-1] * 3),
            (1.0, [-1] * 3),
        ],
    )
    def test_hand_values(self, min_iou, slots):
        """IoU 3/5, 2/4 and 0: a bin of 1/2 counts, as in evaluation."""
        shown = targets.with_masks(self.ROIS, self.FOUND, self.TRUE, min_iou=min_iou)
        np.testing.assert_array_equal(shown.slots, [slots])
        expected = np.where(np.array(slots) >= 0, self.ROIS.class_ids[0], 0)
        np.testing.assert_array_equal(shown.class_ids, [expected])
        assert all(shown[i] is self.ROIS[i] for i in (0, 3, 4, 5))

    def test_two_empty_masks_show_nothing(self):
        nothing = np.zeros_like(self.TRUE)
        shown = targets.with_masks(self.ROIS, nothing, nothing, min_iou=0.0)
        np.testing.assert_array_equal(shown.slots, [[-1, -1, -1]])

    def test_of_no_roi(self):
        none = targets.RoiTargets(*(field[:, :0] for field in self.ROIS))
        assert targets.with_masks(none, self.FOUND[:, :0], self.TRUE[:, :0], min_iou=0.5).slots.shape == (1, 0)


class OfFoundTest:
    """Two objects of a volume of (2, 4, 6), of 2 x 2 x 2 voxels each, the first in the windows of what is found."""

    BOXES = np.float32([[[0, 0, 0, 2, 2, 2], [0, 2, 3, 2, 4, 5]]])

    def of(self, boxes, masks, threshold=0.5):
        ids = np.zeros((1, 2, 4, 6), np.int32)
        ids[0, :, :2, :2], ids[0, :, 2:, 3:5] = 1, 2
        batch = {
            "instance_ids": ids,
            "boxes": self.BOXES,
            "class_ids": np.int32([[2, 1]]),
            "valid": np.ones((1, 2), bool),
        }
        boxes, masks = np.float32([boxes]), np.float32([masks])
        valid = np.ones(boxes.shape[:2], bool)
        found = targets.of_found(boxes, valid, boxes, masks, batch, mask_threshold=threshold)
        np.testing.assert_array_equal(found.class_ids, np.array([0, 2, 1])[found.slots.numpy() + 1])
        return found.slots.numpy()[0].tolist()

    def test_the_first_that_shows_a_truth_has_it(self):
        first, second = self.BOXES[0]
        full = np.ones((2, 2, 2))
        assert self.of([second, first, first, second], [full] * 4) == [1, 0, -1, -1]

    def test_what_does_not_show_a_truth_leaves_it_to_the_next(self):
        """A mask of three of the eight bins has an IoU of 3/8 with the truth, one of four 1/2."""
        first = self.BOXES[0, 0]
        three, four = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
        three[0, 0, :], three[0, 1, 0], four[0] = 1.0, 1.0, 1.0
        assert self.of([first, first, first], [three, four, np.ones((2, 2, 2))]) == [-1, 0, -1]

    def test_masks_are_cut_at_the_threshold_of_answers(self):
        first = self.BOXES[0, 0]
        faint = np.full((2, 2, 2), 0.4)
        assert self.of([first], [faint]) == [-1]
        assert self.of([first], [faint], threshold=0.3) == [0]

    def test_a_box_that_hardly_meets_a_truth_has_none(self):
        """IoU of one voxel in 8 + 8 - 1; its mask shows that voxel, all of the truth in its window."""
        assert self.of([[1, 1, 1, 3, 3, 3]], [np.float32([[[1, 0], [0, 0]], [[0, 0], [0, 0]]])]) == [-1]


class FirstOfEachTest:
    def test_hand_values(self):
        slots = np.int32([[2, -1, 0, 2, 0, 1], [-1, -1, 5, 5, 5, -1]])
        rois = targets.RoiTargets(None, np.where(slots >= 0, slots + 1, 0), slots, None, None, None)
        first = targets.first_of_each(rois)
        np.testing.assert_array_equal(first.slots, [[2, -1, 0, -1, -1, 1], [-1, -1, 5, -1, -1, -1]])
        np.testing.assert_array_equal(first.class_ids, [[3, 0, 1, 0, 0, 2], [0, 0, 6, 0, 0, 0]])

    def test_nobody_has_a_truth(self):
        slots = np.full((1, 3), -1, np.int32)
        first = targets.first_of_each(targets.RoiTargets(None, 0 * slots, slots, None, None, None))
        np.testing.assert_array_equal(first.slots, slots)


class SampleRoisTest:
    PROPOSALS = np.float32([[[4, 0, 0, 8, 6, 8], [0, 0, 2, 4, 6, 10], [0, 8, 8, 4, 14, 16], [0] * 6]])
    PROPOSALS_VALID = np.array([[True, True, True, False]])

    def test_truths_are_added_and_positives_come_first(self):
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID)
        # The proposal that matches truth 0, then both truths, then the background; then nothing is left.
        expected = [*self.PROPOSALS[0, 1:2], *BOXES[0, :2], *self.PROPOSALS[0, [0, 2]]]
        np.testing.assert_array_equal(rois.boxes[0, :5], expected)
        np.testing.assert_array_equal(rois.class_ids, [[2, 2, 1, 0, 0, 0]])
        np.testing.assert_array_equal(rois.slots, [[0, 0, 1, -1, -1, -1]])
        np.testing.assert_array_equal(rois.valid, [[True] * 5 + [False]])
        np.testing.assert_array_equal(rois.matched_boxes[0, :3], BOXES[0, [0, 0, 1]])
        np.testing.assert_allclose(rois.deltas[0, :3], [[0, 0, -0.25, 0, 0, 0], [0] * 6, [0] * 6], atol=1e-6)

    def test_truths_are_left_out_if_the_settings_say_so(self):
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, add_truths=False)
        np.testing.assert_array_equal(rois.boxes[0, :3], self.PROPOSALS[0, [1, 0, 2]])
        np.testing.assert_array_equal(rois.slots, [[0, -1, -1, -1]])
        np.testing.assert_array_equal(rois.valid, [[True, True, True, False]])

    def test_neither_object_nor_background_is_not_drawn(self):
        # The second proposal overlaps truth 0 by 0.6.
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, positive_iou=0.7, negative_iou=0.5)
        np.testing.assert_array_equal(rois.boxes[0, :4], [*BOXES[0, :2], *self.PROPOSALS[0, [0, 2]]])
        np.testing.assert_array_equal(rois.valid, [[True] * 4 + [False] * 2])

    @pytest.mark.parametrize(
        ("stage_iou", "slots"), [(0.7, [0, 1, -1, -1]), (0.6, [0, 0, 1, -1]), (0.1, [0, 0, 1, -1])]
    )
    def test_a_stage_may_have_its_own_iou(self, stage_iou, slots):
        rois = sample_rois(
            self.PROPOSALS, self.PROPOSALS_VALID, stage_iou=stage_iou, num_samples=4, positive_fraction=0.75
        )
        np.testing.assert_array_equal(rois.slots, [slots])
        assert rois.valid.numpy().all()

    def test_counts_are_bounded(self):
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, num_samples=3, positive_fraction=0.34)
        assert rois.boxes.shape == (1, 3, 6)
        np.testing.assert_array_equal(rois.class_ids.numpy() > 0, [[True, False, False]])
        assert rois.valid.numpy().all()

    def test_more_samples_than_boxes_gives_them_all(self):
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, num_samples=50)
        assert rois.boxes.shape == (1, 7, 6)
        np.testing.assert_array_equal(rois.slots, [[0, 0, 1, -1, -1, -1, -1]])
        np.testing.assert_array_equal(rois.valid, [[True] * 5 + [False] * 2])

    def test_without_truths_all_is_background(self):
        nothing = (np.zeros((1, 3, 6), np.float32), np.zeros((1, 3), np.int32), np.zeros((1, 3), bool))
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, nothing)
        np.testing.assert_array_equal(rois.slots, [[-1] * 6])
        np.testing.assert_array_equal(rois.class_ids, [[0] * 6])
        np.testing.assert_array_equal(rois.valid, [[True] * 3 + [False] * 3])
        assert_finite(rois)

    @pytest.mark.parametrize("junk", [0.0, np.nan])
    def test_all_padding(self, junk):
        nothing = (np.full((2, 3, 6), junk, np.float32), np.zeros((2, 3), np.int32), np.zeros((2, 3), bool))
        rois = sample_rois(np.zeros((2, 4, 6)), np.zeros((2, 4), bool), nothing)
        assert not rois.valid.numpy().any()
        np.testing.assert_array_equal(rois.slots, np.full((2, 6), -1))
        assert_finite(rois)

    def test_without_truth_slots_or_proposals(self):
        nothing = (np.zeros((1, 0, 6), np.float32), np.zeros((1, 0), np.int32), np.zeros((1, 0), bool))
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, nothing)
        np.testing.assert_array_equal(rois.slots, [[-1] * 4])
        assert_finite(rois)
        rois = sample_rois(np.zeros((1, 0, 6)))
        np.testing.assert_array_equal(rois.slots, [[0, 1, -1]])
        rois = sample_rois(np.zeros((1, 0, 6)), None, nothing)
        assert rois.boxes.shape == (1, 0, 6)

    def test_an_invalid_proposal_on_a_truth_is_never_drawn(self):
        on_truth = np.tile(BOXES[:, :1], [1, 4, 1])
        rois = sample_rois(on_truth, np.zeros((1, 4), bool))
        np.testing.assert_array_equal(rois.valid, [[True, True] + [False] * 4])
        np.testing.assert_array_equal(rois.slots, [[0, 1, -1, -1, -1, -1]])

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
    @pytest.mark.parametrize("add_truths", [True, False])
    def test_each_roi_has_the_target_of_the_truth_it_overlaps_most(self, axes, add_truths):
        boxes, class_ids = grid_truths(10, num=3), np.int32([[3, 1, 2], [1, 1, 4]])
        valid = np.array([[True, True, True], [True, False, True]])
        proposals = np.concatenate([grid_truths(11, num=30), boxes + np.float32(0.5)], axis=1)
        arguments = [reference.permute_boxes(x, axes) for x in (proposals, boxes)]
        rois = sample_rois(
            arguments[0],
            truths=(arguments[1], class_ids, valid),
            num_samples=36,
            positive_fraction=1.0,
            positive_iou=0.4,
            negative_iou=0.2,
            add_truths=add_truths,
        )
        for item in range(2):
            pool = np.concatenate([proposals[item], boxes[item, valid[item]]]) if add_truths else proposals[item]
            overlaps = np.where(valid[item], reference.iou_matrix(pool, boxes[item]), -1.0)
            positive = np.flatnonzero(overlaps.max(axis=1) >= 0.4)
            negative = np.flatnonzero(overlaps.max(axis=1) < 0.2)
            order = [*positive, *negative]
            slots = overlaps[positive].argmax(axis=1)
            assert len(positive) >= 2
            np.testing.assert_array_equal(rois.valid[item], np.arange(rois.valid.shape[1]) < len(order))
            np.testing.assert_array_equal(rois.boxes[item, : len(order)], reference.permute_boxes(pool[order], axes))
            np.testing.assert_array_equal(rois.slots[item, : len(order)], [*slots, *[-1] * len(negative)])
            own = reference.permute_boxes(boxes[item, slots], axes)
            np.testing.assert_array_equal(rois.matched_boxes[item, : len(positive)], own)
            np.testing.assert_array_equal(rois.class_ids[item, : len(positive)], class_ids[item, slots])
            deltas = reference.encode(own, reference.permute_boxes(pool[positive], axes))
            np.testing.assert_allclose(rois.deltas[item, : len(positive)], deltas, atol=1e-5)

    def test_a_batch_of_two_equals_two_batches_of_one_where_all_are_drawn(self):
        boxes, class_ids, valid = grid_truths(12), np.int32([[1, 2, 3, 4]] * 2), np.array([[True] * 4, [False] * 4])
        proposals = np.concatenate([grid_truths(13, num=20), boxes + np.float32(0.5)], axis=1)
        changes = {"num_samples": 28, "positive_fraction": 1.0}
        together = sample_rois(proposals, truths=(boxes, class_ids, valid), **changes)
        for item in range(2):
            one = slice(item, item + 1)
            alone = sample_rois(proposals[one], truths=(boxes[one], class_ids[one], valid[one]), **changes)
            assert_same(targets.RoiTargets(*(field[one] for field in together)), alone)

    @pytest.mark.parametrize("junk", [0.0, 5.0, np.nan])
    @pytest.mark.parametrize("num_samples", [8, 24])
    def test_padding_with_invalid_truths_changes_nothing(self, junk, num_samples):
        # One volume: the draw goes through all proposals of a batch, so more slots move that of the second volume.
        boxes, class_ids = grid_truths(14, batch=1), np.int32([[1, 2, 3, 4]])
        proposals = np.concatenate([grid_truths(15, batch=1, num=20), boxes + np.float32(0.5)], axis=1)
        ours = sample_rois(proposals, truths=(boxes, class_ids, np.ones((1, 4), bool)), num_samples=num_samples)
        padded = np.concatenate([boxes, np.full((1, 5, 6), junk, np.float32)], axis=1)
        valid = np.array([[True] * 4 + [False] * 5])
        classes = np.concatenate([class_ids, [[7] * 5]], axis=1).astype(np.int32)
        assert_same(sample_rois(proposals, truths=(padded, classes, valid), num_samples=num_samples), ours)

    def test_one_voxel_and_five_hundred_truths_are_finite(self):
        many = grid_truths(16, batch=1, num=500)
        many[0, 0] = [3, 4, 5, 4, 5, 6]
        rois = sample_rois(
            grid_truths(17, batch=1),
            truths=(many, np.ones((1, 500), np.int32), np.ones((1, 500), bool)),
            num_samples=504,
        )
        assert_finite(rois)
        assert 0 in rois.slots.numpy()

    def test_no_gradient_reaches_the_proposals(self):
        proposals = tf.Variable(self.PROPOSALS)
        rois = Rois(num_samples=6)
        with tf.GradientTape() as tape:
            result = targets.sample_rois(proposals, self.PROPOSALS_VALID, BOXES, CLASS_IDS, VALID, rois=rois, seed=SEED)
            total = tf.reduce_sum(result.deltas) + tf.reduce_sum(result.boxes)
        assert tape.gradient(total, proposals) is None

    def test_eager_equals_graph_with_a_batch_of_unknown_size_and_static_shapes(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 6])])
        def compiled(proposals):
            truths = [tf.repeat(x, tf.shape(proposals)[0], axis=0) for x in (BOXES, CLASS_IDS, VALID)]
            return targets.sample_rois(
                proposals,
                tf.ones(tf.shape(proposals)[:2], tf.bool),
                *truths,
                rois=Rois(num_samples=6, positive_iou=0.5, negative_iou=0.5),
                seed=SEED,
            )

        shapes = [field.shape.as_list() for field in compiled.get_concrete_function().structured_outputs]
        assert shapes == [[None, 6, 6], [None, 6], [None, 6], [None, 6, 6], [None, 6], [None, 6, 6]]
        graph, eager = compiled(self.PROPOSALS), sample_rois(self.PROPOSALS)
        np.testing.assert_array_equal(graph.slots, eager.slots)
        np.testing.assert_array_equal(graph.boxes, eager.boxes)
        np.testing.assert_allclose(graph.deltas, eager.deltas, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("changes", "came"),
        [
            ({"proposals": (1, 4, 7)}, "came proposals [1, 4, 7], proposals_valid [1, 4]"),
            ({"proposals_valid": (1, 3)}, "came proposals [1, 4, 6], proposals_valid [1, 3]"),
            ({"class_ids": (1, 2)}, "boxes [1, 3, 6], class_ids [1, 2], valid [1, 3]"),
            ({"valid": (2, 3)}, "class_ids [1, 3], valid [2, 3]"),
        ],
    )
    def test_other_shapes_raise(self, changes, came):
        names = ("proposals", "proposals_valid", "boxes", "class_ids", "valid")
        shapes = dict(zip(names, [(1, 4, 6), (1, 4), (1, 3, 6), (1, 3), (1, 3)], strict=True))
        arguments = [tf.zeros(shape) for shape in {**shapes, **changes}.values()]
        with pytest.raises(ValueError, match=re.escape(came)):
            targets.sample_rois(*arguments, rois=Rois(), seed=SEED)


class AssignRoisTest:
    # IoU with truth 0: 0.6, 1, 0; with truth 1: the fourth 105 / 192.
    ROIS = np.float32([[[0, 0, 2, 4, 6, 10], [0, 0, 0, 4, 6, 8], [0, 8, 8, 4, 14, 16], [4, 8, 12, 8, 14, 20], [0] * 6]])
    ROIS_VALID = np.array([[True, True, True, True, False]])

    def assign(self, positive_iou, rois=ROIS, rois_valid=ROIS_VALID, truths=(BOXES, CLASS_IDS, VALID)):
        return targets.assign_rois(rois, rois_valid, *truths, positive_iou=positive_iou)

    @pytest.mark.parametrize(
        ("iou", "slots"), [(0.5, [0, 0, -1, 1, -1]), (0.6, [0, 0, -1, -1, -1]), (0.7, [-1, 0, -1, -1, -1])]
    )
    def test_all_rois_keep_their_place_and_are_object_or_background(self, iou, slots):
        result = self.assign(iou)
        np.testing.assert_array_equal(result.boxes, self.ROIS)
        np.testing.assert_array_equal(result.valid, self.ROIS_VALID)
        np.testing.assert_array_equal(result.slots, [slots])
        np.testing.assert_array_equal(result.class_ids, [[{0: 2, 1: 1, -1: 0}[slot] for slot in slots]])
        objects = np.array(slots) >= 0
        own = BOXES[0, np.array(slots)[objects]]
        np.testing.assert_array_equal(result.matched_boxes[0][objects], own)
        np.testing.assert_allclose(result.deltas[0][objects], reference.encode(own, self.ROIS[0, objects]), atol=1e-6)

    def test_a_roi_that_is_not_valid_is_never_an_object(self):
        result = self.assign(0.5, rois_valid=np.zeros((1, 5), bool))
        np.testing.assert_array_equal(result.slots, [[-1] * 5])
        np.testing.assert_array_equal(result.class_ids, [[0] * 5])

    def test_agrees_with_what_was_drawn(self):
        boxes, class_ids = grid_truths(18), np.int32([[1, 2, 3, 4]] * 2)
        valid = np.array([[True, True, True, False], [True] * 4])
        truths = (boxes, class_ids, valid)
        proposals = np.concatenate([grid_truths(19, num=20), boxes + np.float32(0.5)], axis=1)
        drawn = sample_rois(proposals, truths=truths, num_samples=20)
        assert (drawn.class_ids.numpy() > 0).sum() > 4
        assert_same(self.assign(0.5, drawn.boxes, drawn.valid, truths), drawn)

    @pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0)])
    def test_the_order_of_the_axes_does_not_matter(self, axes):
        truths = (grid_truths(20), np.int32([[1, 2, 3, 4]] * 2), np.ones((2, 4), bool))
        rois = np.concatenate([grid_truths(21, num=20), truths[0] + np.float32(0.5)], axis=1)
        ours = self.assign(0.3, rois, np.ones((2, 24), bool), truths)
        turned = (reference.permute_boxes(truths[0], axes), *truths[1:])
        theirs = self.assign(0.3, reference.permute_boxes(rois, axes), np.ones((2, 24), bool), turned)
        assert (ours.slots.numpy() >= 0).any()
        np.testing.assert_array_equal(ours.slots, theirs.slots)
        np.testing.assert_allclose(reference.permute_boxes(ours.deltas, axes), theirs.deltas, atol=1e-6)

    @pytest.mark.parametrize("junk", [0.0, 5.0, np.nan])
    def test_padding_with_invalid_truths_changes_nothing(self, junk):
        padded = np.concatenate([BOXES, np.full((1, 4, 6), junk, np.float32)], axis=1)
        classes, valid = np.pad(CLASS_IDS, [(0, 0), (0, 4)]), np.pad(VALID, [(0, 0), (0, 4)])
        assert_same(self.assign(0.5, truths=(padded, classes, valid)), self.assign(0.5))

    @pytest.mark.parametrize(("num_rois", "num_truths"), [(0, 3), (5, 0), (0, 0)])
    def test_nothing_there(self, num_rois, num_truths):
        truths = (BOXES[:, :num_truths], CLASS_IDS[:, :num_truths], VALID[:, :num_truths])
        result = self.assign(0.5, self.ROIS[:, :num_rois], self.ROIS_VALID[:, :num_rois], truths)
        assert result.deltas.shape == (1, num_rois, 6)
        np.testing.assert_array_equal(result.class_ids > 0, np.zeros((1, num_rois)))
        assert_finite(result)

    def test_no_gradient_reaches_the_rois(self):
        rois = tf.Variable(self.ROIS)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(self.assign(0.5, rois).deltas)
        assert tape.gradient(total, rois) is None

    def test_eager_equals_graph_with_unknown_sizes(self):
        signature = [
            tf.TensorSpec([None, None, 6]),
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None, None, 6]),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.bool),
        ]
        compiled = tf.function(lambda *args: targets.assign_rois(*args, positive_iou=0.5), input_signature=signature)
        graph = compiled(self.ROIS, self.ROIS_VALID, BOXES, CLASS_IDS, VALID)
        np.testing.assert_array_equal(graph.slots, [[0, 0, -1, 1, -1]])
        np.testing.assert_allclose(graph.deltas, self.assign(0.5).deltas, rtol=1e-5, atol=1e-6)

    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(
        st.lists(st.sampled_from([-1e6, -3.0, 0.0, 0.5, 1.0, 7.0, 1e6]), min_size=18, max_size=18),
        st.lists(st.sampled_from([-1e6, -3.0, 0.0, 0.5, 1.0, 7.0, 1e6]), min_size=12, max_size=12),
        st.lists(st.booleans(), min_size=2, max_size=2),
    )
    def test_whatever_boxes_come_targets_are_finite(self, rois, boxes, valid):
        rois, boxes = np.float32(rois).reshape(1, 3, 6), np.float32(boxes).reshape(1, 2, 6)
        result = self.assign(0.5, rois, np.ones((1, 3), bool), (boxes, np.int32([[1, 2]]), np.array([valid])))
        assert_finite(result)
        overlaps = np.where(valid, reference.iou_matrix(rois[0], boxes[0]), -1.0)
        np.testing.assert_array_equal(result.slots[0] >= 0, overlaps.max(axis=1) >= 0.5)

    def test_other_shapes_and_thresholds_raise(self):
        came = "expected rois [B, R, 6], rois_valid [B, R], boxes [B, G, 6], class_ids [B, G], valid [B, G]; came rois"
        with pytest.raises(ValueError, match=re.escape(f"{came} [1, 4, 6], rois_valid [1, 5]")):
            self.assign(0.5, self.ROIS[:, :4])
        with pytest.raises(ValueError, match=re.escape("expected high in [0, 1], came 1.5")):
            self.assign(1.5)


class RoiMasksTest:
    @pytest.mark.parametrize(("slot", "expected"), [(0, 1.0), (1, 0.0), (-1, 0.0)])
    def test_own_instance_alone_is_drawn(self, slot, expected):
        ids = np.zeros((1, 5, 7, 11), np.int32)
        ids[0, 1:3, 2:5, 3:7] = 1
        ids[0, 4, 6, 10] = 2
        box = np.float32([[[1, 2, 3, 3, 5, 7]]])
        rois = targets.RoiTargets(box, None, np.int32([[slot]]), None, None, None)
        masks = targets.roi_masks(ids, rois, (2, 3, 4))
        np.testing.assert_array_equal(masks, np.full((1, 1, 2, 3, 4), expected))
