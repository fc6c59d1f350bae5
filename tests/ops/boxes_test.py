import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import boxes as box_ops
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
BOXES = tf.TensorSpec([None, None, 6], tf.float32)

# Corners may be swapped (an empty box) and negative; quarters are exact in float32.
box_lists = st.lists(st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=6, max_size=6), max_size=5).map(
    lambda rows: np.array(rows, np.float32).reshape(-1, 6)
)


class VolumeTest:
    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ([0, 0, 0, 2, 3, 4], 24.0),
            ([-1, -2, -3, 1, 2, 3], 48.0),
            ([0.5, 0.5, 0.5, 1.0, 2.0, 3.5], 2.25),
            ([1, 1, 1, 1, 4, 4], 0.0),
            ([3, 3, 3, 1, 1, 4], 0.0),
        ],
    )
    def test_hand_values(self, box, expected):
        assert float(box_ops.volume(tf.constant(box, tf.float32))) == expected

    def test_keeps_leading_dimensions(self):
        boxes = reference.random_boxes(np.random.default_rng(0), 12, SHAPE).reshape(2, 3, 2, 6)
        expected = [reference.volume(box) for box in boxes.reshape(-1, 6)]
        np.testing.assert_allclose(box_ops.volume(boxes), np.reshape(expected, (2, 3, 2)), rtol=1e-5)

    def test_no_boxes(self):
        assert box_ops.volume(tf.zeros([0, 6])).shape == (0,)


class IouMatrixTest:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ([0, 0, 0, 2, 2, 2], [1, 1, 1, 3, 3, 3], 1 / 15),
            ([0, 0, 0, 2, 3, 4], [0, 0, 0, 2, 3, 4], 1.0),
            ([0, 0, 0, 2, 1, 1], [0, 0, 0, 1, 1, 1], 0.5),
            ([0, 0, 0, 2, 3, 5], [1, 1, 1, 4, 4, 4], 6 / 51),
            ([-3, -3, -3, -1, -1, -1], [-2, -3, -3, 0, -1, -1], 1 / 3),
            ([0, 0, 0, 1, 1, 1], [1, 0, 0, 2, 1, 1], 0.0),  # half-open: they only touch
            ([0, 0, 0, 1, 1, 1], [0, 0, 5, 1, 1, 6], 0.0),
        ],
    )
    def test_hand_values(self, a, b, expected):
        result = box_ops.iou_matrix(tf.constant([a], tf.float32), tf.constant([b], tf.float32))
        np.testing.assert_allclose(result, [[expected]], atol=1e-5)

    def test_equals_reference(self):
        rng = np.random.default_rng(1)
        a, b = (reference.random_boxes(rng, n, SHAPE) for n in (13, 9))
        np.testing.assert_allclose(box_ops.iou_matrix(a, b), reference.iou_matrix(a, b), rtol=1e-4, atol=1e-6)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(a=box_lists, b=box_lists)
    def test_generated_boxes_equal_reference(self, a, b):
        result = box_ops.iou_matrix(a, b).numpy()
        np.testing.assert_allclose(result, reference.iou_matrix(a, b), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(result, box_ops.iou_matrix(b, a).numpy().T)
        assert np.all((result >= 0) & (result <= 1))

    @pytest.mark.parametrize("empty", [[1, 1, 1, 1, 4, 4], [1, 1, 1, 4, 1, 4], [1, 1, 1, 4, 4, 0], [2, 2, 2, 1, 1, 4]])
    def test_empty_box_has_zero_iou(self, empty):
        boxes = tf.constant([empty, [0, 0, 0, 5, 7, 11]], tf.float32)
        np.testing.assert_array_equal(box_ops.iou_matrix(boxes, boxes), [[0, 0], [0, 1]])

    def test_all_padding_is_zero_and_finite(self):
        np.testing.assert_array_equal(box_ops.iou_matrix(tf.zeros([2, 3, 6]), tf.zeros([2, 4, 6])), np.zeros((2, 3, 4)))

    @pytest.mark.parametrize(("i", "j"), [(0, 3), (3, 0), (0, 0)])
    def test_no_boxes(self, i, j):
        assert box_ops.iou_matrix(tf.zeros([2, i, 6]), tf.zeros([2, j, 6])).shape == (2, i, j)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, axes):
        rng = np.random.default_rng(2)
        a, b = (reference.random_boxes(rng, n, SHAPE) for n in (6, 4))
        permuted = [reference.permute_boxes(boxes, axes) for boxes in (a, b)]
        np.testing.assert_allclose(box_ops.iou_matrix(*permuted), box_ops.iou_matrix(a, b), rtol=1e-5, atol=1e-7)

    def test_leading_dimensions_are_independent(self):
        rng = np.random.default_rng(3)
        a = reference.random_boxes(rng, 24, SHAPE).reshape(2, 3, 4, 6)
        b = reference.random_boxes(rng, 30, SHAPE).reshape(2, 3, 5, 6)
        result = box_ops.iou_matrix(a, b).numpy()
        for lead in np.ndindex(2, 3):
            expected = reference.iou_matrix(a[lead], b[lead])
            np.testing.assert_allclose(result[lead], expected, rtol=1e-4, atol=1e-6)

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(4)
        compiled = tf.function(box_ops.iou_matrix, input_signature=[BOXES, BOXES])
        for batch, i, j in [(2, 5, 3), (1, 0, 4), (3, 1, 1)]:
            a = reference.random_boxes(rng, batch * i, SHAPE).reshape(batch, i, 6)
            b = reference.random_boxes(rng, batch * j, SHAPE).reshape(batch, j, 6)
            np.testing.assert_allclose(compiled(a, b), box_ops.iou_matrix(a, b), atol=1e-7)


class EncodeTest:
    def test_hand_values(self):
        deltas = box_ops.encode(tf.constant([[1.0, 2, 3, 5, 8, 9]]), tf.constant([[0.0, 0, 0, 4, 8, 16]]))
        expected = [[1 / 4, 1 / 8, -2 / 16, 0.0, math.log(0.75), math.log(0.375)]]
        np.testing.assert_allclose(deltas, expected, atol=1e-5)

    def test_equals_reference(self):
        rng = np.random.default_rng(5)
        boxes, anchors = (reference.random_boxes(rng, 20, SHAPE) for _ in range(2))
        np.testing.assert_allclose(
            box_ops.encode(boxes, anchors), reference.encode(boxes, anchors), rtol=1e-4, atol=1e-5
        )

    def test_same_box_has_zero_deltas(self):
        boxes = reference.random_boxes(np.random.default_rng(6), 8, SHAPE)
        np.testing.assert_array_equal(box_ops.encode(boxes, boxes), np.zeros((8, 6)))

    def test_empty_box_is_floored_at_a_thousandth_of_a_voxel(self):
        deltas = box_ops.encode(tf.zeros([1, 6]), tf.constant([[0.0, 0, 0, 2, 4, 8]]))
        expected = [[-0.5] * 3 + [math.log(1e-3 / size) for size in (2, 4, 8)]]
        np.testing.assert_allclose(deltas, expected, rtol=1e-5)

    def test_padding_against_padding_is_zero(self):
        deltas = box_ops.encode(tf.zeros([2, 3, 6]), tf.zeros([2, 3, 6]))
        np.testing.assert_array_equal(deltas, np.zeros((2, 3, 6)))

    def test_no_boxes(self):
        assert box_ops.encode(tf.zeros([2, 0, 6]), tf.zeros([2, 0, 6])).shape == (2, 0, 6)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_deltas(self, axes):
        rng = np.random.default_rng(7)
        boxes, anchors = (reference.random_boxes(rng, 6, SHAPE) for _ in range(2))
        permuted = [reference.permute_boxes(b, axes) for b in (boxes, anchors)]
        expected = reference.permute_boxes(box_ops.encode(boxes, anchors), axes)
        np.testing.assert_allclose(box_ops.encode(*permuted), expected, rtol=1e-6, atol=1e-7)

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(8)
        compiled = tf.function(box_ops.encode, input_signature=[BOXES, BOXES])
        boxes, anchors = (reference.random_boxes(rng, 6, SHAPE).reshape(2, 3, 6) for _ in "ab")
        np.testing.assert_allclose(compiled(boxes, anchors), box_ops.encode(boxes, anchors), atol=1e-6)
        assert compiled(tf.zeros([4, 0, 6]), tf.zeros([4, 0, 6])).shape == (4, 0, 6)


class DecodeTest:
    def test_hand_values(self):
        deltas = [[1 / 4, 1 / 8, -2 / 16, 0.0, math.log(0.75), math.log(0.375)]]
        boxes = box_ops.decode(tf.constant(deltas), tf.constant([[0.0, 0, 0, 4, 8, 16]]))
        np.testing.assert_allclose(boxes, [[1, 2, 3, 5, 8, 9]], rtol=1e-5)

    def test_equals_reference(self):
        rng = np.random.default_rng(9)
        anchors = reference.random_boxes(rng, 20, SHAPE)
        deltas = rng.normal(0, 3, (20, 6)).astype(np.float32)
        np.testing.assert_allclose(
            box_ops.decode(deltas, anchors), reference.decode(deltas, anchors), rtol=1e-4, atol=1e-3
        )

    def test_inverts_encode(self):
        rng = np.random.default_rng(10)
        boxes, anchors = (reference.random_boxes(rng, 50, SHAPE) for _ in range(2))
        result = box_ops.decode(box_ops.encode(boxes, anchors), anchors)
        np.testing.assert_allclose(result, boxes, atol=1e-4)

    def test_log_sizes_are_clamped_both_ways(self):
        anchors = tf.constant([[0.0, 0, 0, 16, 32, 48]] * 2)
        deltas = tf.constant([[0.0, 0, 0, 9, 50, 1e6], [0.0, 0, 0, -9, -50, -1e6]])
        boxes = box_ops.decode(deltas, anchors).numpy()
        expected = [[1000, 2000, 3000], [0.256, 0.512, 0.768]]
        np.testing.assert_allclose(boxes[:, 3:] - boxes[:, :3], expected, rtol=1e-4)
        np.testing.assert_allclose((boxes[:, 3:] + boxes[:, :3]) / 2, [[8, 16, 24]] * 2, atol=1e-3)

    def test_no_boxes(self):
        assert box_ops.decode(tf.zeros([2, 0, 6]), tf.zeros([2, 0, 6])).shape == (2, 0, 6)

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(11)
        compiled = tf.function(box_ops.decode, input_signature=[BOXES, BOXES])
        anchors = reference.random_boxes(rng, 6, SHAPE).reshape(2, 3, 6)
        deltas = rng.normal(size=(2, 3, 6)).astype(np.float32)
        np.testing.assert_allclose(compiled(deltas, anchors), box_ops.decode(deltas, anchors), rtol=1e-5, atol=1e-5)
        assert compiled(tf.zeros([4, 0, 6]), tf.zeros([4, 0, 6])).shape == (4, 0, 6)

    def test_gradient_equals_finite_differences(self):
        rng = np.random.default_rng(12)
        anchors = reference.random_boxes(rng, 3, SHAPE)
        deltas = tf.constant(rng.normal(size=(3, 6)), tf.float32)
        weights = rng.normal(size=(3, 6)).astype(np.float32)
        with tf.GradientTape() as tape:
            tape.watch(deltas)
            loss = tf.reduce_sum(weights * box_ops.decode(deltas, anchors))
        expected = reference.finite_differences(lambda d: (weights * reference.decode(d, anchors)).sum(), deltas)
        np.testing.assert_allclose(tape.gradient(loss, deltas), expected, rtol=1e-3, atol=1e-4)

    def test_gradient_is_finite_beyond_the_clamp(self):
        deltas = tf.constant([[1e3, -1e3, 0, 1e3, -1e3, 80.0]])
        with tf.GradientTape() as tape:
            tape.watch(deltas)
            loss = tf.reduce_sum(box_ops.decode(deltas, tf.constant([[0.0, 0, 0, 5, 7, 11]])) ** 2)
        assert np.all(np.isfinite(tape.gradient(loss, deltas)))


class ClipTest:
    @pytest.mark.parametrize("shape", [SHAPE, tf.constant(SHAPE)], ids=["triple", "tensor"])
    def test_hand_values(self, shape):
        boxes = tf.constant([[-1, -2, -3, 6, 8, 12], [1, 2, 3, 4, 5, 6], [4.5, 6.5, 10.5, 9, 9, 9]])
        expected = [[0, 0, 0, 5, 7, 11], [1, 2, 3, 4, 5, 6], [4.5, 6.5, 10.5, 5, 7, 9]]
        np.testing.assert_array_equal(box_ops.clip(boxes, shape), np.float32(expected))

    def test_box_outside_becomes_empty_and_stays_in_the_volume(self):
        outside = tf.constant([[-9, 1, 1, -2, 4, 4], [1, 1, 20, 3, 3, 30]], tf.float32)
        result = box_ops.clip(outside, SHAPE).numpy()
        np.testing.assert_array_equal(box_ops.volume(result), [0, 0])
        assert np.all(result >= 0)
        assert np.all(result <= np.tile(SHAPE, 2))

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_boxes(self, axes):
        boxes = np.random.default_rng(13).uniform(-3, 14, (9, 6)).astype(np.float32)
        result = box_ops.clip(reference.permute_boxes(boxes, axes), [SHAPE[axis] for axis in axes])
        expected = reference.permute_boxes(box_ops.clip(boxes, SHAPE), axes)
        np.testing.assert_array_equal(result, expected)

    def test_clipping_twice_changes_nothing(self):
        boxes = np.random.default_rng(14).uniform(-3, 14, (2, 3, 4, 6)).astype(np.float32)
        once = box_ops.clip(boxes, SHAPE)
        assert once.shape == boxes.shape
        np.testing.assert_array_equal(box_ops.clip(once, SHAPE), once)

    def test_unknown_batch_count_and_shape_equal_eager(self):
        boxes = np.random.default_rng(15).uniform(-3, 14, (2, 3, 6)).astype(np.float32)
        compiled = tf.function(box_ops.clip, input_signature=[BOXES, tf.TensorSpec([3], tf.int32)])
        np.testing.assert_array_equal(compiled(boxes, tf.constant(SHAPE)), box_ops.clip(boxes, SHAPE))
        assert compiled(tf.zeros([2, 0, 6]), tf.constant(SHAPE)).shape == (2, 0, 6)
