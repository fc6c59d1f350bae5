import numpy as np
import pytest
import tensorflow as tf

from model import targets
from tests import reference

ANCHORS = np.float32(
    [[0, 0, 0, 4, 6, 8], [0, 0, 2, 4, 6, 10], [4, 8, 12, 8, 14, 20], [0, 8, 0, 4, 14, 8], [4, 0, 12, 8, 6, 20]]
)
BOXES = np.float32([[[0, 0, 0, 4, 6, 8], [5, 9, 13, 8, 14, 20], [0] * 6]])
CLASS_IDS = np.int32([[2, 1, 0]])
VALID = np.array([[True, True, False]])
SEED = tf.constant([3, 5])


def anchor_targets(boxes=BOXES, valid=VALID, **changes):
    settings = {"positive_iou": 0.5, "negative_iou": 0.2, "num_samples": 10, "positive_fraction": 0.5, "seed": SEED}
    return targets.anchor_targets(ANCHORS, boxes, valid, **{**settings, **changes})


def sample_rois(proposals, proposals_valid=None, truths=(BOXES, CLASS_IDS, VALID), **changes):
    settings = {"positive_iou": 0.5, "negative_iou": 0.5, "num_samples": 6, "positive_fraction": 0.5, "seed": SEED}
    proposals = np.asarray(proposals, np.float32)
    valid = np.ones(proposals.shape[:2], bool) if proposals_valid is None else proposals_valid
    return targets.sample_rois(proposals, valid, *truths, **{**settings, **changes})


class AnchorTargetsTest:
    def test_hand_values(self):
        result = anchor_targets()
        # IoU with the first truth 1 and 0.6, with the second 105 / 192.
        np.testing.assert_array_equal(result.positive, [[True, True, True, False, False]])
        np.testing.assert_array_equal(result.negative, [[False, False, False, True, True]])
        expected = reference.encode(BOXES[0, [0, 0, 1]], ANCHORS[:3])
        np.testing.assert_allclose(result.deltas[0, :3], expected, atol=1e-6)
        np.testing.assert_allclose(result.deltas[0, 1], [0, 0, -0.25, 0, 0, 0], atol=1e-6)

    def test_counts_are_bounded(self):
        result = anchor_targets(num_samples=4, positive_fraction=0.25)
        assert result.positive.numpy().sum() == 1
        assert result.negative.numpy().sum() == 2  # there are no more
        result = anchor_targets(num_samples=2, positive_fraction=0.5)
        assert (result.positive.numpy().sum(), result.negative.numpy().sum()) == (1, 1)

    def test_the_seed_decides_which_are_drawn(self):
        drawn = {
            tuple(anchor_targets(num_samples=1, positive_fraction=1.0, seed=[0, n]).positive.numpy()[0])
            for n in range(20)
        }
        assert len(drawn) == 3
        first, second = anchor_targets(num_samples=2), anchor_targets(num_samples=2)
        np.testing.assert_array_equal(first.positive, second.positive)

    def test_without_a_valid_truth_all_are_negative_and_deltas_are_finite(self):
        result = anchor_targets(np.zeros((1, 3, 6), np.float32), np.zeros((1, 3), bool))
        assert not result.positive.numpy().any()
        assert result.negative.numpy().all()
        assert np.isfinite(result.deltas).all()

    def test_volumes_of_a_batch_do_not_touch_each_other(self):
        boxes = np.concatenate([BOXES, BOXES[:, ::-1]])
        valid = np.concatenate([np.zeros_like(VALID), VALID[:, ::-1]])
        result = anchor_targets(boxes, valid)
        np.testing.assert_array_equal(result.positive, [[False] * 5, [True, True, True, False, False]])


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
        np.testing.assert_allclose(rois.deltas[0, :3], [[0, 0, -0.25, 0, 0, 0], [0] * 6, [0] * 6], atol=1e-6)

    def test_neither_object_nor_background_is_not_drawn(self):
        # The second proposal overlaps truth 0 by 0.6.
        rois = sample_rois(self.PROPOSALS, self.PROPOSALS_VALID, positive_iou=0.7, negative_iou=0.5)
        np.testing.assert_array_equal(rois.boxes[0, :4], [*BOXES[0, :2], *self.PROPOSALS[0, [0, 2]]])
        np.testing.assert_array_equal(rois.valid, [[True] * 4 + [False] * 2])

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
        assert np.isfinite(rois.deltas).all()

    def test_all_padding(self):
        nothing = (np.zeros((2, 3, 6), np.float32), np.zeros((2, 3), np.int32), np.zeros((2, 3), bool))
        rois = sample_rois(np.zeros((2, 4, 6)), np.zeros((2, 4), bool), nothing)
        assert not rois.valid.numpy().any()
        np.testing.assert_array_equal(rois.slots, np.full((2, 6), -1))
        assert np.isfinite(rois.deltas).all()

    def test_an_invalid_proposal_on_a_truth_is_never_drawn(self):
        on_truth = np.tile(BOXES[:, :1], [1, 4, 1])
        rois = sample_rois(on_truth, np.zeros((1, 4), bool))
        np.testing.assert_array_equal(rois.valid, [[True, True] + [False] * 4])
        np.testing.assert_array_equal(rois.slots, [[0, 1, -1, -1, -1, -1]])

    def test_shapes_are_static_for_a_batch_of_unknown_size(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 6])])
        def compiled(proposals):
            truths = [tf.repeat(x, tf.shape(proposals)[0], axis=0) for x in (BOXES, CLASS_IDS, VALID)]
            return targets.sample_rois(
                proposals,
                tf.ones(tf.shape(proposals)[:2], tf.bool),
                *truths,
                positive_iou=0.5,
                negative_iou=0.5,
                num_samples=6,
                positive_fraction=0.5,
                seed=SEED,
            )

        shapes = [field.shape.as_list() for field in compiled.get_concrete_function().structured_outputs]
        assert shapes == [[None, 6, 6], [None, 6], [None, 6], [None, 6, 6], [None, 6]]


class RoiMasksTest:
    @pytest.mark.parametrize(("slot", "expected"), [(0, 1.0), (1, 0.0), (-1, 0.0)])
    def test_own_instance_alone_is_drawn(self, slot, expected):
        ids = np.zeros((1, 5, 7, 11), np.int32)
        ids[0, 1:3, 2:5, 3:7] = 1
        ids[0, 4, 6, 10] = 2
        rois = targets.RoiTargets(np.float32([[[1, 2, 3, 3, 5, 7]]]), None, np.int32([[slot]]), None, None)
        masks = targets.roi_masks(ids, rois, (2, 3, 4))
        np.testing.assert_array_equal(masks, np.full((1, 1, 2, 3, 4), expected))
