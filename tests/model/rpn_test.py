import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.model_schema import Style
from model import rpn
from ops import anchors as anchor_ops
from tests import reference

VOLUME = (8, 16, 24)
# Two levels of different, anisotropic strides; two shapes of anchors on each.
STRIDES = [(1, 2, 4), (2, 4, 8)]
GRIDS = [(8, 8, 6), (4, 4, 3)]
SHAPES = [np.float32([[2, 3, 4], [4, 3, 2]]), np.float32([[3, 6, 7], [7, 6, 3]])]
COUNTS = [int(np.prod(grid)) * 2 for grid in GRIDS]
ANCHORS = np.concatenate(
    [
        anchor_ops.level_anchors(grid, stride, shapes)
        for grid, stride, shapes in zip(GRIDS, STRIDES, SHAPES, strict=True)
    ]
)
STYLE = Style(norm="none")
SETTINGS = {"shape": VOLUME, "pre_nms_top_k": 50, "post_nms_top_k": 7, "nms_iou": 0.5, "min_size": 1.0}


def make(channels=2, num_anchors=2, style=STYLE, objectness="sigmoid", prior=0.5):
    return rpn.RPNHead(channels, num_anchors, style=style, objectness=objectness, prior=prior)


def random_features(seed, channels=2, batch=1, grids=GRIDS):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, *grid, channels)).astype(np.float32) for grid in grids]


def propose(logits, deltas=None, anchors=ANCHORS, counts=COUNTS, **changes):
    logits = np.asarray(logits, np.float32)
    deltas = np.zeros((*logits.shape[:2], 6), np.float32) if deltas is None else deltas
    return [x.numpy() for x in rpn.propose(logits, deltas, anchors, counts, **{**SETTINGS, **changes})]


@pytest.fixture(name="head", scope="module")
def fixture_head():
    """A head that reads anchor a's logit from channel a, and its deltas as 1..6 times that channel."""
    head = make()
    head([tf.zeros([1, *grid, 2]) for grid in GRIDS])
    pick = np.zeros((3, 3, 3, 2, 2), np.float32)
    pick[1, 1, 1] = np.eye(2)
    head.conv.set_weights([pick, np.zeros(2)])
    head.objectness.set_weights([np.eye(2).reshape(1, 1, 1, 2, 2), np.zeros(2)])
    head.deltas.set_weights([np.kron(np.eye(2), np.arange(1.0, 7.0)).reshape(1, 1, 1, 2, 12), np.zeros(12)])
    return head


class RPNHeadTest:
    @pytest.mark.parametrize("objectness", ["sigmoid", "softmax"])
    @pytest.mark.parametrize("prior", [0.5, 0.01])
    def test_every_anchor_begins_with_the_prior_as_its_score(self, objectness, prior):
        logits, _ = make(objectness=objectness, prior=prior)([np.zeros((1, *grid, 2), np.float32) for grid in GRIDS])
        scores = rpn.object_scores(logits)
        np.testing.assert_allclose(scores, np.full((1, len(ANCHORS)), prior), rtol=1e-5)

    @pytest.mark.parametrize(
        ("level", "cell", "shape"), [(0, (5, 2, 4), 0), (0, (0, 7, 5), 1), (1, (3, 1, 2), 1), (1, (0, 3, 0), 0)]
    )
    def test_order_of_logits_and_deltas_is_that_of_the_anchors(self, head, level, cell, shape):
        features = [np.zeros((2, *grid, 2), np.float32) for grid in GRIDS]
        features[level][(1, *cell, shape)] = 9.0  # in the second volume alone
        logits, deltas = head(features)
        assert logits.shape == (2, len(ANCHORS))
        assert deltas.shape == (2, len(ANCHORS), 6)
        assert np.count_nonzero(logits) == 1

        top = int(np.argmax(logits[1]))
        centre = (np.array(cell) + 0.5) * STRIDES[level]
        half = SHAPES[level][shape] / 2
        np.testing.assert_allclose(ANCHORS[top], [*(centre - half), *(centre + half)])
        np.testing.assert_allclose(deltas[1, top], 9.0 * np.arange(1.0, 7.0))
        assert np.count_nonzero(deltas) == 6

        boxes, scores, valid = propose(logits)
        np.testing.assert_allclose(boxes[1, 0], np.clip(ANCHORS[top], 0.0, VOLUME * 2))
        np.testing.assert_allclose(scores[1, 0], 1.0 / (1.0 + np.exp(-9.0)), rtol=1e-6)
        assert valid[1, 0]

    @pytest.mark.parametrize("objectness", ["sigmoid", "softmax"])
    def test_starts_undecided(self, objectness):
        logits, deltas = make(channels=8, objectness=objectness)(random_features(0, channels=4))
        assert 0.0 < np.abs(logits).max() < 0.5
        assert 0.0 < np.abs(deltas).max() < 0.5

    def test_logits_and_deltas_start_from_different_numbers(self):
        head = make(channels=3)
        head([tf.zeros([1, 2, 3, 4, 1])])
        objectness, deltas = head.objectness.kernel.numpy().ravel(), head.deltas.kernel.numpy().ravel()
        assert not np.any(objectness == deltas[: objectness.size])

    def test_equals_the_loop_over_cells_and_taps(self):
        head, (feature,) = make(channels=3), random_features(1, grids=[(2, 3, 4)])
        logits, deltas = head([feature])
        padded = np.pad(np.float64(feature[0]), [(1, 1)] * 3 + [(0, 0)])
        taps, to_logits, to_deltas = (x.kernel.numpy() for x in (head.conv, head.objectness, head.deltas))
        for row, cell in enumerate(np.ndindex(2, 3, 4)):
            shared = np.zeros(3)
            for tap in np.ndindex(3, 3, 3):
                shared += padded[tuple(np.add(cell, tap))] @ taps[tap]
            shared = np.maximum(shared, 0.0)
            np.testing.assert_allclose(logits[0, 2 * row : 2 * row + 2], shared @ to_logits[0, 0, 0], atol=1e-6)
            expected = (shared @ to_deltas[0, 0, 0]).reshape(2, 6)
            np.testing.assert_allclose(deltas[0, 2 * row : 2 * row + 2], expected, atol=1e-6)

    @pytest.mark.parametrize("num_anchors", [1, 3])
    @pytest.mark.parametrize("objectness", ["sigmoid", "softmax"])
    def test_levels_may_have_any_size(self, num_anchors, objectness):
        head, grids = make(num_anchors=num_anchors, objectness=objectness), [(5, 7, 11), (3, 4, 6), (1, 1, 1)]
        features = random_features(2, batch=2, grids=grids)
        logits, deltas = head(features)
        count = (5 * 7 * 11 + 3 * 4 * 6 + 1) * num_anchors
        assert logits.shape == (2, count, 2) if objectness == "softmax" else (2, count)
        assert deltas.shape == (2, count, 6)
        last_logits, last_deltas = head(features[2:])
        np.testing.assert_allclose(logits[:, -num_anchors:], last_logits, atol=1e-7)
        np.testing.assert_allclose(deltas[:, -num_anchors:], last_deltas, atol=1e-7)

    def test_softmax_gives_background_and_object_of_every_anchor(self):
        head, features = make(objectness="softmax"), random_features(3)
        head(features)
        kernel = np.zeros((1, 1, 1, 2, 4))
        kernel[..., 0, :2], kernel[..., 1, 2:] = [1.0, 2.0], [3.0, 4.0]  # channel a to the two logits of anchor a
        head.objectness.set_weights([kernel, np.zeros(4)])
        logits, _ = head(features)
        shared = np.concatenate([np.reshape(head.activation(head.conv(x)), [-1, 2]) for x in features])
        np.testing.assert_allclose(logits[0, 0::2], shared[:, :1] * [1.0, 2.0], atol=1e-6)
        np.testing.assert_allclose(logits[0, 1::2], shared[:, 1:] * [3.0, 4.0], atol=1e-6)

    @pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("leaky_relu", 0.01), ("prelu", 0.25)])
    def test_the_style_gives_the_activation(self, name, slope):
        head = make(num_anchors=1, style=Style(norm="none", activation=name))
        feature = np.full((1, 1, 1, 1, 2), -8.0, np.float32)
        head([feature])
        pick = np.zeros((3, 3, 3, 2, 2), np.float32)
        pick[1, 1, 1] = np.eye(2)
        head.conv.set_weights([pick, np.zeros(2)])
        head.objectness.set_weights([np.ones((1, 1, 1, 2, 1)), np.zeros(1)])
        np.testing.assert_allclose(head([feature])[0], [[-16.0 * slope]], rtol=1e-6)

    def test_answers_in_float32_under_mixed_precision(self):
        tf.keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            head = make(objectness="softmax")
            logits, deltas = head(random_features(4))
            assert head.conv.compute_dtype == "float16"
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        assert (logits.dtype, deltas.dtype) == (tf.float32, tf.float32)
        assert np.isfinite(logits).all()
        assert np.abs(logits).max() > 0.0

    def test_every_weight_gets_a_gradient(self):
        head, features = make(channels=4), random_features(5)
        with tf.GradientTape() as tape:
            logits, deltas = head(features)
            loss = tf.reduce_sum(logits**2) + tf.reduce_sum(deltas**2)
        assert len(head.trainable_variables) == 6
        for gradient in tape.gradient(loss, head.trainable_variables):
            assert np.isfinite(gradient).all()
            assert np.abs(gradient).max() > 0.0

    def test_gradient_equals_finite_differences(self):
        tf.keras.utils.set_random_seed(0)  # no unit of the ReLU near its kink
        head, (feature,) = make(), random_features(6, grids=[(2, 1, 3)])
        head([feature])

        def loss(bias):
            shared = head.activation(head.conv(feature) + tf.cast(bias, tf.float32))
            return float(tf.reduce_sum(head.objectness(shared)) + tf.reduce_sum(head.deltas(shared) ** 2))

        with tf.GradientTape() as tape:
            logits, deltas = head([feature])
            value = tf.reduce_sum(logits) + tf.reduce_sum(deltas**2)
        expected = reference.finite_differences(loss, np.zeros(2), step=1e-3)
        np.testing.assert_allclose(tape.gradient(value, head.conv.bias), expected, rtol=0.02, atol=1e-4)

    @pytest.mark.parametrize("objectness", ["sigmoid", "softmax"])
    def test_eager_equals_graph_with_unknown_batch(self, objectness):
        head, features = make(objectness=objectness), random_features(7, batch=3)
        eager = head(features)
        signature = [[tf.TensorSpec([None, *grid, 2]) for grid in GRIDS]]
        compiled = tf.function(head.call, input_signature=signature)
        shapes = [x.shape.as_list() for x in compiled.get_concrete_function().structured_outputs]
        extra = [2] if objectness == "softmax" else []
        assert shapes == [[None, len(ANCHORS), *extra], [None, len(ANCHORS), 6]]
        for ours, theirs in zip(compiled(features), eager, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


class ObjectScoresTest:
    def test_hand_values(self):
        np.testing.assert_allclose(rpn.object_scores(tf.constant([[0.0, np.log(3.0)]])), [[0.5, 0.75]], rtol=1e-6)
        two = tf.constant([[[1.0, 1.0], [2.0, 2.0 + np.log(3.0)], [500.0, -500.0]]])
        np.testing.assert_allclose(rpn.object_scores(two), [[0.5, 0.75, 0.0]], rtol=1e-6)

    def test_is_the_second_of_the_softmax(self):
        logits = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32) * 4
        np.testing.assert_allclose(rpn.object_scores(tf.constant(logits)), tf.nn.softmax(logits)[..., 1], rtol=1e-5)


def slow_propose(logits, deltas, anchors, counts, *, shape, pre_nms_top_k, post_nms_top_k, nms_iou, min_size):
    """Proposals of one volume, one step after the other: boxes [n, 6] and scores [n], best first."""
    boxes, scores, start = [], [], 0
    for count in counts:
        level = range(start, start + count)
        for a in sorted(level, key=lambda a: (-logits[a], a))[:pre_nms_top_k]:
            box = np.clip(reference.decode(deltas[[a]], anchors[[a]])[0], 0.0, np.tile(shape, 2))
            if np.all(box[3:] - box[:3] >= min_size):
                boxes.append(box)
                scores.append(1.0 / (1.0 + np.exp(-np.float64(logits[a]))))
        start += count
    kept = reference.nms3d(boxes, scores, iou_threshold=nms_iou, max_outputs=post_nms_top_k)
    return np.reshape([boxes[i] for i in kept], [-1, 6]), np.array([scores[i] for i in kept])


class ProposeTest:
    # One level of four anchors, worked out by hand.
    ANCHORS = np.float32([[1, 1, 1, 4, 5, 6], [1, 1, 1, 4, 5, 5], [5, 9, 15, 9, 18, 30], [0, 0, 20, 2, 4, 23]])

    def test_best_first_clipped_and_suppressed(self):
        boxes, scores, valid = propose([[0.5, 1.0, 2.0, -1.0]], anchors=self.ANCHORS, counts=[4], post_nms_top_k=5)
        expected = [[5, 9, 15, 8, 16, 24], [1, 1, 1, 4, 5, 5], [0, 0, 20, 2, 4, 23]]  # the first lies in the second
        np.testing.assert_array_equal(boxes[0], [*expected, [0] * 6, [0] * 6])
        sigmoid = 1.0 / (1.0 + np.exp(-np.array([2.0, 1.0, -1.0])))
        np.testing.assert_allclose(scores[0], [*sigmoid, 0, 0], rtol=1e-6)
        np.testing.assert_array_equal(valid[0], [True, True, True, False, False])

    def test_deltas_move_and_scale_before_clipping(self):
        deltas = np.zeros((1, 4, 6), np.float32)
        deltas[0, 3] = [0.5, 0.25, -1.0, np.log(2.0), 0.0, np.log(0.5)]
        boxes, _, _ = propose([[0.0, 0.0, 0.0, 9.0]], deltas, self.ANCHORS, [4])
        # Centre (1, 2, 21.5) + (1, 1, -3), size (2, 4, 3) * (2, 1, 0.5).
        np.testing.assert_allclose(boxes[0, 0], [0, 1, 17.75, 4, 5, 19.25], rtol=1e-6)

    @pytest.mark.parametrize(("min_size", "kept"), [(1.0, 3), (2.5, 2), (3.5, 0)])
    def test_boxes_with_an_edge_below_the_minimum_are_dropped(self, min_size, kept):
        _, _, valid = propose([[0.0, 1.0, 2.0, 3.0]], anchors=self.ANCHORS, counts=[4], min_size=min_size)
        assert valid.sum() == kept

    def test_a_box_that_clipping_leaves_empty_is_dropped(self):
        outside = self.ANCHORS + np.float32([0, 20, 0, 0, 20, 0])
        boxes, scores, valid = propose([[1.0, 2.0, 3.0, 4.0]], anchors=outside, counts=[4])
        assert not valid.any()
        assert not boxes.any()
        assert not scores.any()

    def test_every_level_brings_its_own_best(self):
        logits = np.zeros((1, len(ANCHORS)), np.float32)
        logits[0, : COUNTS[0]] = 5.0 + np.arange(COUNTS[0]) / COUNTS[0]
        logits[0, COUNTS[0] + 3] = 1.0
        boxes, scores, valid = propose(logits, pre_nms_top_k=1)
        expected = np.clip(ANCHORS[[COUNTS[0] - 1, COUNTS[0] + 3]], 0.0, VOLUME * 2)
        np.testing.assert_allclose(boxes[0, :2], expected)
        np.testing.assert_array_equal(valid[0], [True, True] + [False] * 5)
        assert scores[0, 0] > scores[0, 1] > scores[0, 2] == 0.0

    def test_each_of_three_levels_has_its_own_anchors(self):
        counts, apart = [2, 1, 3], np.float32([[0, 0, 3 * n, 2, 2, 3 * n + 2] for n in range(6)])
        boxes, _, valid = propose([[0.0, 5.0, 4.0, 1.0, 3.0, 2.0]], anchors=apart, counts=counts, pre_nms_top_k=1)
        np.testing.assert_array_equal(boxes[0, :3], apart[[1, 2, 4]])
        assert valid.sum() == 3

    def test_volumes_of_a_batch_do_not_touch_each_other(self):
        logits = np.random.default_rng(0).normal(size=(3, len(ANCHORS)))
        together = propose(logits)
        for item in range(3):
            for ours, alone in zip(together, propose(logits[item : item + 1]), strict=True):
                np.testing.assert_array_equal(ours[item], alone[0])

    def test_shapes_are_static_for_a_batch_of_unknown_size(self):
        def compiled(logits, deltas):
            return rpn.propose(logits, deltas, ANCHORS, COUNTS, **SETTINGS)

        signature = [tf.TensorSpec([None, len(ANCHORS)]), tf.TensorSpec([None, len(ANCHORS), 6])]
        function = tf.function(compiled, input_signature=signature)
        shapes = [x.shape.as_list() for x in function.get_concrete_function().structured_outputs]
        assert shapes == [[None, 7, 6], [None, 7], [None, 7]]
        logits = np.random.default_rng(1).normal(size=(2, len(ANCHORS))).astype(np.float32)
        for graph, eager in zip(function(logits, np.zeros((2, len(ANCHORS), 6))), propose(logits), strict=True):
            np.testing.assert_allclose(graph, eager, rtol=1e-6)

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
    def test_equals_the_slow_steps_on_permuted_axes(self, axes):
        rng = np.random.default_rng(2)
        anchors, shape = reference.permute_boxes(ANCHORS, axes), [VOLUME[axis] for axis in axes]
        logits = rng.normal(size=(1, len(ANCHORS))).astype(np.float32)
        deltas = reference.permute_boxes(rng.normal(0.0, 0.3, (1, len(ANCHORS), 6)), axes).astype(np.float32)
        changes = {**SETTINGS, "shape": shape, "pre_nms_top_k": 20, "nms_iou": 0.2}
        boxes, scores, valid = propose(logits, deltas, anchors, **changes)
        expected, expected_scores = slow_propose(logits[0], deltas[0], anchors, COUNTS, **changes)
        assert valid.sum() == len(expected) == 7
        np.testing.assert_allclose(boxes[0], expected, atol=1e-4)
        np.testing.assert_allclose(scores[0], expected_scores, rtol=1e-5)

    def test_two_logits_count_by_their_difference(self):
        rng = np.random.default_rng(3)
        logits = rng.normal(size=(2, len(ANCHORS), 2)).astype(np.float32)
        for ours, theirs in zip(propose(logits), propose(logits[..., 1] - logits[..., 0]), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_levels_suppress_each_other(self):
        twice = np.concatenate([self.ANCHORS[:1], self.ANCHORS[:1]])
        _, scores, valid = propose([[0.0, 1.0]], anchors=twice, counts=[1, 1])
        assert valid.sum() == 1
        np.testing.assert_allclose(scores[0, 0], 1.0 / (1.0 + np.exp(-1.0)), rtol=1e-6)

    def test_of_equal_scores_the_first_goes_first(self):
        apart = np.float32([[0, 0, 3 * n, 2, 2, 3 * n + 2] for n in range(6)])
        boxes, _, valid = propose(np.zeros((1, 6)), anchors=apart, counts=[6], post_nms_top_k=4)
        np.testing.assert_array_equal(boxes[0], apart[:4])
        assert valid.all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("where", ["logit", 0, 2, 3, 5])
    def test_an_anchor_that_is_not_finite_is_as_if_it_were_not_there(self, bad, where):
        logits, deltas = np.float32([[9.0, 1.0, 2.0, -1.0]]), np.zeros((1, 4, 6), np.float32)
        if where == "logit":
            logits[0, 0] = bad
        else:
            deltas[0, 0, where] = bad
        ours = propose(logits, deltas, self.ANCHORS, [4], pre_nms_top_k=2)
        without = propose(logits[:, 1:], deltas[:, 1:], self.ANCHORS[1:], [3], pre_nms_top_k=2)
        assert without[2].sum() == 2
        for one, other in zip(ours, without, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_nothing_finite_gives_no_proposal(self):
        for result in propose(np.full((2, len(ANCHORS)), np.nan)):
            assert not result.any()

    @pytest.mark.parametrize("huge", [3e38, -3e38])
    def test_huge_deltas_leave_no_proposal_that_is_empty_or_not_finite(self, huge):
        for column in range(6):
            deltas = np.zeros((1, 4, 6), np.float32)
            deltas[..., column] = huge
            boxes, _, valid = propose(np.zeros((1, 4)), deltas, self.ANCHORS, [4], min_size=0.0)
            assert np.isfinite(boxes).all()
            assert np.all(boxes[valid][:, 3:] > boxes[valid][:, :3])
            assert valid.any() == (column >= 3)  # a huge shift moves the box out, a huge scale is bounded

    def test_an_empty_box_is_dropped_even_if_no_size_is_asked_for(self):
        outside = self.ANCHORS + np.float32([0, 20, 0, 0, 20, 0])
        assert not propose(np.zeros((1, 4)), anchors=outside, counts=[4], min_size=0.0)[2].any()

    def test_an_empty_batch_and_an_empty_level(self):
        boxes, scores, valid = propose(np.zeros((0, 4)), anchors=self.ANCHORS, counts=[4])
        assert (boxes.shape, scores.shape, valid.shape) == ((0, 7, 6), (0, 7), (0, 7))
        np.testing.assert_array_equal(
            propose(np.zeros((1, 4)), anchors=self.ANCHORS, counts=[4, 0])[0],
            propose(np.zeros((1, 4)), anchors=self.ANCHORS, counts=[4])[0],
        )

    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(
        st.lists(st.floats(width=32) | st.integers(-3, 3), min_size=4, max_size=4),
        st.lists(st.floats(width=32) | st.floats(-1, 1, width=32), min_size=24, max_size=24),
    )
    def test_whatever_comes_proposals_are_proper_boxes(self, logits, deltas):
        deltas = np.float32(deltas).reshape(1, 4, 6)
        boxes, scores, valid = (x[0] for x in propose([logits], deltas, self.ANCHORS, [4], post_nms_top_k=3))
        assert np.isfinite(boxes).all()
        assert np.isfinite(scores).all()
        assert np.all(boxes[valid] >= 0.0)
        assert np.all(boxes[valid] <= VOLUME * 2)
        assert np.all(boxes[valid][:, 3:] - boxes[valid][:, :3] >= 1.0)
        assert np.all(np.diff(scores) <= 0.0)
        assert np.all(np.diff(valid.astype(int)) <= 0)
        assert not boxes[~valid].any()
        assert not scores[~valid].any()
        overlap = reference.iou_matrix(boxes[valid], boxes[valid])
        assert np.all(overlap[np.triu_indices(len(overlap), 1)] <= 0.5 + 1e-5)

    @pytest.mark.parametrize(
        ("logits", "deltas", "counts", "came"),
        [
            ((1, 4), (1, 4, 6), [3], "expected logits [B, 3], deltas [B, 3, 6], anchors [3, 6]; came logits [1, 4]"),
            ((1, 4), (1, 4, 5), [4], "came logits [1, 4], deltas [1, 4, 5], anchors [4, 6]"),
            ((2, 4), (1, 4, 6), [4], "came logits [2, 4], deltas [1, 4, 6], anchors [4, 6]"),
        ],
    )
    def test_other_shapes_raise(self, logits, deltas, counts, came):
        with pytest.raises(ValueError, match=re.escape(came)):
            propose(np.zeros(logits), np.zeros(deltas, np.float32), self.ANCHORS, counts)
