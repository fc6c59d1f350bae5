import numpy as np
import pytest
import tensorflow as tf

from model import rpn
from ops import anchors as anchor_ops

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
SETTINGS = {"shape": VOLUME, "pre_nms_top_k": 50, "post_nms_top_k": 7, "nms_iou": 0.5, "min_size": 1.0}


def propose(logits, deltas=None, anchors=ANCHORS, counts=COUNTS, **changes):
    logits = np.asarray(logits, np.float32)
    deltas = np.zeros((*logits.shape, 6), np.float32) if deltas is None else deltas
    return [x.numpy() for x in rpn.propose(logits, deltas, anchors, counts, **{**SETTINGS, **changes})]


@pytest.fixture(name="head", scope="module")
def fixture_head():
    """A head that reads anchor a's logit from channel a, and its deltas as 1..6 times that channel."""
    head = rpn.RPNHead(channels=2, num_anchors=2)
    head([tf.zeros([1, *grid, 2]) for grid in GRIDS])
    pick = np.zeros((3, 3, 3, 2, 2), np.float32)
    pick[1, 1, 1] = np.eye(2)
    head.conv.set_weights([pick, np.zeros(2)])
    head.objectness.set_weights([np.eye(2).reshape(1, 1, 1, 2, 2), np.zeros(2)])
    head.deltas.set_weights([np.kron(np.eye(2), np.arange(1.0, 7.0)).reshape(1, 1, 1, 2, 12), np.zeros(12)])
    return head


class RPNHeadTest:
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

    def test_starts_undecided(self):
        head = rpn.RPNHead(channels=8, num_anchors=2)
        rng = np.random.default_rng(0)
        logits, deltas = head([rng.normal(size=(1, *grid, 4)).astype(np.float32) for grid in GRIDS])
        assert 0.0 < np.abs(logits).max() < 0.5
        assert 0.0 < np.abs(deltas).max() < 0.5

    def test_logits_and_deltas_start_from_different_numbers(self):
        head = rpn.RPNHead(channels=3, num_anchors=2)
        head([tf.zeros([1, 2, 3, 4, 1])])
        objectness, deltas = head.objectness.kernel.numpy().ravel(), head.deltas.kernel.numpy().ravel()
        assert not np.any(objectness == deltas[: objectness.size])


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
