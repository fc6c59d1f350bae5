import itertools
import math
import re

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
WEIGHTS = (10.0, 9.0, 8.0, 5.0, 4.0, 3.0)

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


class IntersectionTest:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            ([0, 0, 0, 2, 3, 4], [1, 1, 1, 5, 5, 5], 6.0),
            ([0, 0, 0, 2, 3, 4], [0.5, -1, 3, 1, 9, 9], 1.5),
            ([0, 0, 0, 2, 3, 4], [2, 0, 0, 3, 3, 4], 0.0),
            ([0, 0, 0, 2, 3, 4], [1, 2, 2, 1, 3, 4], 0.0),
            ([3, 3, 3, 1, 1, 1], [4, 4, 4, 0, 0, 0], 0.0),
        ],
    )
    def test_hand_values(self, a, b, expected):
        assert float(box_ops.intersection(np.float32(a), np.float32(b))) == expected

    def test_with_itself_is_the_volume(self):
        boxes = reference.random_boxes(np.random.default_rng(20), 50, SHAPE)
        np.testing.assert_array_equal(box_ops.intersection(boxes, boxes), box_ops.volume(boxes))


class IouTest:
    def test_leading_axes_broadcast(self):
        rng = np.random.default_rng(21)
        a = reference.random_boxes(rng, 8, SHAPE).reshape(4, 2, 1, 6)
        b = reference.random_boxes(rng, 6, SHAPE).reshape(2, 3, 6)
        result = box_ops.iou(a, b).numpy()
        assert result.shape == (4, 2, 3)
        for i, j, k in np.ndindex(4, 2, 3):
            np.testing.assert_allclose(result[i, j, k], reference.iou(a[i, j, 0], b[j, k]), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("size", [1e-3, 0.1, 1 / 3, 7.7, 1e3, 1e6])
    def test_with_itself_is_one_exactly(self, size):
        box = np.float32([0, 0, 0, size, 0.3 * size, 1.7 * size])
        assert float(box_ops.iou(box, box)) == 1.0

    @pytest.mark.parametrize("tenths", range(1, 10))
    def test_decimal_thresholds_are_met_exactly(self, tenths):
        part, whole = np.float32([0, 0, 0, 5, 7, tenths]), np.float32([0, 0, 0, 5, 7, 10])
        assert float(box_ops.iou(part, whole)) == np.float32(tenths / 10)

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(rows=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=12, max_size=12), min_size=1, max_size=4))
    def test_any_boxes_give_values_in_range(self, rows):
        a, b = np.split(np.float32(rows), 2, axis=-1)
        result = box_ops.iou(a, b).numpy()
        assert np.all((result >= 0.0) & (result <= 1.0))
        np.testing.assert_array_equal(result, box_ops.iou(b, a))

    def test_no_boxes(self):
        assert box_ops.iou(tf.zeros([2, 0, 6]), tf.zeros([2, 1, 6])).shape == (2, 0)


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

    def test_weights_multiply(self):
        rng = np.random.default_rng(22)
        boxes, anchors = (reference.random_boxes(rng, 6, SHAPE) for _ in range(2))
        result = box_ops.encode(boxes, anchors, weights=WEIGHTS)
        np.testing.assert_allclose(result, reference.encode(boxes, anchors) * WEIGHTS, rtol=1e-4, atol=1e-4)

    def test_gradient_equals_finite_differences(self):
        rng = np.random.default_rng(23)
        boxes, anchors = (reference.random_boxes(rng, 3, SHAPE) for _ in range(2))
        factors = rng.normal(size=(3, 6)).astype(np.float32)
        boxes = tf.constant(boxes)
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            loss = tf.reduce_sum(factors * box_ops.encode(boxes, anchors))
        expected = reference.finite_differences(lambda b: (factors * reference.encode(b, anchors)).sum(), boxes)
        np.testing.assert_allclose(tape.gradient(loss, boxes), expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize(
        "box", [[0] * 6, [3, 3, 3, 1, 1, 1], [-1e6, -1e6, -1e6, 1e6, 1e6, 1e6], [0, 0, 0, 0, 1e6, 1]]
    )
    def test_degenerate_and_huge_boxes_give_finite_values_and_gradients(self, box):
        boxes = tf.constant([box] * 2, tf.float32)
        anchors = tf.constant([[0, 0, 0, 2, 4, 8], [0] * 6], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            deltas = box_ops.encode(boxes, anchors)
        assert np.isfinite(deltas).all()
        assert np.isfinite(tape.gradient(deltas, boxes)).all()

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

    def test_weights_divide_and_invert_those_of_encode(self):
        rng = np.random.default_rng(24)
        boxes, anchors = (reference.random_boxes(rng, 20, SHAPE) for _ in range(2))
        deltas = rng.normal(size=(20, 6)).astype(np.float32)
        expected = reference.decode(deltas / np.float32(WEIGHTS), anchors)
        np.testing.assert_allclose(box_ops.decode(deltas, anchors, WEIGHTS), expected, rtol=1e-4, atol=1e-4)
        result = box_ops.decode(box_ops.encode(boxes, anchors, WEIGHTS), anchors, WEIGHTS)
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


class GrowTest:
    def test_hand_values(self):
        boxes = np.float32([[1, 2, 3, 2, 4, 6], [0, 1, 9, 5, 6.5, 10.5]])
        expected = np.float32([[0, 2, 0, 3, 4, 9], [0, 1, 6, 5, 6.5, 11]])
        np.testing.assert_array_equal(box_ops.grow(boxes, (1, 0, 3), SHAPE), expected)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_boxes(self, axes):
        boxes, margin = reference.random_boxes(np.random.default_rng(16), 9, SHAPE), (0.5, 1, 2)
        permuted = [[triple[axis] for axis in axes] for triple in (margin, SHAPE)]
        result = box_ops.grow(reference.permute_boxes(boxes, axes), *permuted)
        np.testing.assert_array_equal(result, reference.permute_boxes(box_ops.grow(boxes, margin, SHAPE), axes))


class FlipTest:
    BOXES = np.float32([[0, 1, 2, 3, 5, 7], [-1, 0, 4, 5, 8, 4]])

    @pytest.mark.parametrize(
        ("axes", "expected"),
        [
            ((), [[0, 1, 2, 3, 5, 7], [-1, 0, 4, 5, 8, 4]]),
            ((0,), [[2, 1, 2, 5, 5, 7], [0, 0, 4, 6, 8, 4]]),
            ((1,), [[0, 2, 2, 3, 6, 7], [-1, -1, 4, 5, 7, 4]]),
            ([2, 0], [[2, 1, 4, 5, 5, 9], [0, 0, 7, 6, 8, 7]]),
            ((0, 1, 2), [[2, 2, 4, 5, 6, 9], [0, -1, 7, 6, 7, 7]]),
        ],
    )
    def test_hand_values(self, axes, expected):
        np.testing.assert_array_equal(box_ops.flip(self.BOXES, SHAPE, axes), np.float32(expected))

    @pytest.mark.parametrize("axes", [(0,), (2,), (0, 1), (1, 2), (0, 1, 2)])
    def test_boxes_of_a_mirrored_volume(self, axes):
        ids = np.zeros(SHAPE, np.int32)
        ids[1:3, 2:6, 7:11], ids[0, 0, 0:5], ids[4, 6, 3] = 1, 2, 3
        boxes, _ = reference.instance_boxes(ids, 3)
        expected, _ = reference.instance_boxes(np.flip(ids, axes), 3)
        result = box_ops.flip(boxes.astype(np.float32), SHAPE, axes)
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(box_ops.flip(result, SHAPE, axes), boxes)

    @pytest.mark.parametrize("axes", [(3,), (-1,), (0, 5)])
    def test_other_axes_are_refused(self, axes):
        with pytest.raises(ValueError, match=re.escape(f"expected axes among 0, 1, 2, came {axes}")):
            box_ops.flip(self.BOXES, SHAPE, axes)


class ScaleTest:
    @pytest.mark.parametrize(
        ("factors", "expected"),
        [
            (2, [2, 4, 6, 8, 10, 12]),
            ((0.5, 1, 2), [0.5, 2, 6, 2, 5, 12]),
            (tf.constant([3, 2, 1]), [3, 4, 3, 12, 10, 6]),
        ],
    )
    def test_hand_values(self, factors, expected):
        result = box_ops.scale(np.float32([[1, 2, 3, 4, 5, 6]]), factors)
        np.testing.assert_array_equal(result, np.float32([expected]))

    def test_scales_the_volume_by_the_product_of_the_factors(self):
        boxes = reference.random_boxes(np.random.default_rng(25), 9, SHAPE)
        volumes = box_ops.volume(box_ops.scale(boxes, (2, 0.5, 3)))
        np.testing.assert_allclose(volumes, 3 * box_ops.volume(boxes), rtol=1e-5)


class MillimetreTest:
    SPACING, ORIGIN = (5.0, 0.5, 2.0), (-100.0, 20.0, 7.0)

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ([0, 0, 0, 1, 1, 1], [-102.5, 19.75, 6, -97.5, 20.25, 8]),  # voxel (0, 0, 0) lies around the origin
            ([2, 4, 6, 3, 8, 12], [-92.5, 21.75, 18, -87.5, 23.75, 30]),
            ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [-100, 20, 7, -100, 20, 7]),
        ],
    )
    def test_hand_values_both_ways(self, box, expected):
        box, expected = np.float32(box), np.float32(expected)
        np.testing.assert_array_equal(box_ops.to_mm(box, self.SPACING, self.ORIGIN), expected)
        np.testing.assert_array_equal(box_ops.from_mm(expected, self.SPACING, self.ORIGIN), box)

    def test_from_mm_inverts_to_mm(self):
        boxes = reference.random_boxes(np.random.default_rng(26), 24, SHAPE).reshape(2, 3, 4, 6)
        boxes_mm = box_ops.to_mm(boxes, self.SPACING, self.ORIGIN)
        np.testing.assert_allclose(box_ops.from_mm(boxes_mm, self.SPACING, self.ORIGIN), boxes, atol=1e-4)
        volumes = 5.0 * box_ops.volume(boxes)
        np.testing.assert_allclose(box_ops.volume(boxes_mm), volumes, rtol=1e-3)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_boxes(self, axes):
        boxes = reference.random_boxes(np.random.default_rng(27), 5, SHAPE)
        spacing, origin = ([triple[axis] for axis in axes] for triple in (self.SPACING, self.ORIGIN))
        result = box_ops.to_mm(reference.permute_boxes(boxes, axes), spacing, origin)
        expected = reference.permute_boxes(box_ops.to_mm(boxes, self.SPACING, self.ORIGIN), axes)
        np.testing.assert_array_equal(result, expected)


class MovesTest:
    TRIPLE = tf.TensorSpec([3], tf.float32)

    @pytest.mark.parametrize(
        ("function", "arguments"),
        [
            (lambda boxes, shape: box_ops.flip(boxes, shape, (0, 2)), [SHAPE]),
            (box_ops.grow, [(0.5, 2, 3), SHAPE]),
            (box_ops.scale, [(0.5, 2, 3)]),
            (box_ops.to_mm, [(0.5, 2, 3), (-4, 5, 6)]),
            (box_ops.from_mm, [(0.5, 2, 3), (-4, 5, 6)]),
        ],
        ids=["flip", "grow", "scale", "to_mm", "from_mm"],
    )
    def test_unknown_batch_count_and_triples_equal_eager(self, function, arguments):
        compiled = tf.function(function, input_signature=[BOXES] + [self.TRIPLE] * len(arguments))
        tensors = [tf.constant(argument, tf.float32) for argument in arguments]
        boxes = reference.random_boxes(np.random.default_rng(28), 6, SHAPE).reshape(2, 3, 6)
        np.testing.assert_array_equal(compiled(boxes, *tensors), function(boxes, *arguments))
        assert compiled(tf.zeros([4, 0, 6]), *tensors).shape == (4, 0, 6)


class ErrorTest:
    B, BAD, T = np.zeros((4, 6), np.float32), np.zeros((4, 5), np.float32), (1, 1, 1)

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda b, bad, t: box_ops.volume(bad), "expected boxes [..., 6]; came boxes [4, 5]"),
            (lambda b, bad, t: box_ops.intersection(b, bad), "came boxes_a [4, 6], boxes_b [4, 5]"),
            (lambda b, bad, t: box_ops.iou(bad, b), "came boxes_a [4, 5], boxes_b [4, 6]"),
            (lambda b, bad, t: box_ops.iou_matrix(b[0], b), "expected boxes_a [..., I, 6], boxes_b [..., J, 6]; came"),
            (lambda b, bad, t: box_ops.encode(b, bad), "came boxes [4, 6], anchors [4, 5]"),
            (lambda b, bad, t: box_ops.encode(b, b, (1, 1)), "expected weights as six numbers above 0, came (1, 1)"),
            (lambda b, bad, t: box_ops.decode(bad, b), "came deltas [4, 5], anchors [4, 6]"),
            (lambda b, bad, t: box_ops.decode(b, b, [1] * 5 + [0]), "came (1, 1, 1, 1, 1, 0)"),
            (
                lambda b, bad, t: box_ops.clip(b, (5, 7)),
                "expected boxes [..., 6], shape [3]; came boxes [4, 6], shape [2]",
            ),
            (lambda b, bad, t: box_ops.grow(b, (1, 2), t), "came boxes [4, 6], margin [2], shape [3]"),
            (lambda b, bad, t: box_ops.flip(bad, t, ()), "came boxes [4, 5], shape [3]"),
            (lambda b, bad, t: box_ops.scale(bad, t), "came boxes [4, 5], factors [3]"),
            (lambda b, bad, t: box_ops.scale(b, (1, 0, 1)), "expected factors as one number above 0 or three"),
            (lambda b, bad, t: box_ops.scale(b, tf.zeros([2])), "came boxes [4, 6], factors [2]"),
            (lambda b, bad, t: box_ops.to_mm(b, (1, 1, -1), t), "expected spacing as one number above 0 or three"),
            (lambda b, bad, t: box_ops.to_mm(b, t, (0, 0)), "came boxes [4, 6], spacing [3], origin [2]"),
            (lambda b, bad, t: box_ops.from_mm(bad, t, t), "came boxes_mm [4, 5], spacing [3], origin [3]"),
        ],
    )
    def test_names_both_sides(self, call, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            call(self.B, self.BAD, self.T)

    def test_is_raised_while_tracing(self):
        compiled = tf.function(box_ops.iou_matrix)
        with pytest.raises(ValueError, match=re.escape("came boxes_a [4, 5], boxes_b [4, 6]")):
            compiled.get_concrete_function(tf.TensorSpec([4, 5]), tf.TensorSpec([4, 6]))
