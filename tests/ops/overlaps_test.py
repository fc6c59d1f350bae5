import functools
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import boxes as box_ops
from ops import overlaps
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
BOXES = tf.TensorSpec([None, None, 6], tf.float32)
# The op on two boxes, the op on all pairs, the slow truth.
KINDS = {
    "iou": (box_ops.iou, box_ops.iou_matrix, reference.iou),
    "giou": (overlaps.giou, overlaps.giou_matrix, reference.giou),
    "diou": (overlaps.diou, overlaps.diou_matrix, reference.diou),
    "ciou": (overlaps.ciou, overlaps.ciou_matrix, reference.ciou),
}
every_kind = pytest.mark.parametrize(("function", "matrix", "truth"), KINDS.values(), ids=KINDS.keys())

# Corners may be swapped (an empty box) and negative; quarters are exact in float32.
box_lists = st.lists(st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=6, max_size=6), max_size=4).map(
    lambda rows: np.array(rows, np.float32).reshape(-1, 6)
)
# Two boxes whose edges meet often, among them points, flat boxes and huge ones.
edges = st.sampled_from([-1e6, -3.0, 0.0, 1e-3, 1.0, 2.0, 2.5, 1e6])
box_pairs = st.lists(st.lists(edges, min_size=6, max_size=6), min_size=2, max_size=2).map(np.float32)


def gradient(function, a, b):
    """Gradient of the sum of a function of boxes, [2, ..., 6]."""
    both = tf.stack([a, b])
    with tf.GradientTape() as tape:
        tape.watch(both)
        loss = tf.reduce_sum(function(both[0], both[1]))
    return tape.gradient(loss, both).numpy()


class HandValuesTest:
    CUBES = ([0, 0, 0, 2, 2, 2], [1, 1, 1, 3, 3, 3])
    FAR = ([0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3])
    POINT = ([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3])
    POINTS = ([0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3])
    # The same centre and volume, sizes 1, 2, 4 and 2, 2, 2: ratios (1/2, 1/2, 4) and (1, 1, 1).
    SHAPES = ([1, 1, 0, 2, 3, 4], [0.5, 1, 1, 2.5, 3, 3])

    @pytest.mark.parametrize(
        ("name", "boxes", "expected"),
        [
            ("giou", CUBES, 1 / 15 - 12 / 27),
            ("giou", FAR, -25 / 27),
            ("giou", POINT, 0.0),
            ("giou", POINTS, -1.0),
            ("giou", SHAPES, 1 / 3 - 4 / 16),
            ("diou", CUBES, 1 / 15 - 3 / 27),
            ("diou", FAR, -12 / 27),
            ("diou", POINT, 0.0),
            ("diou", POINTS, -1.0),
            ("diou", SHAPES, 1 / 3),
            ("ciou", CUBES, 1 / 15 - 3 / 27),
            ("ciou", POINT, 0.0),
            ("ciou", POINTS, -1.0),
            # v = 4 / (3 pi^2) * (2 * (0.46365 - 0.78540)^2 + (1.32582 - 0.78540)^2) = 0.0674259
            ("ciou", SHAPES, 1 / 3 - 0.0674259**2 / (2 / 3 + 0.0674259)),
        ],
    )
    def test_values(self, name, boxes, expected):
        assert float(KINDS[name][0](*np.float32(boxes))) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
    def test_equal_boxes_give_one(self, name):
        boxes = reference.random_boxes(np.random.default_rng(0), 20, SHAPE)
        np.testing.assert_allclose(KINDS[name][0](boxes, boxes), np.ones(20), atol=1e-6)


@every_kind
class OverlapTest:
    def test_matrix_equals_reference(self, function, matrix, truth):
        rng = np.random.default_rng(1)
        a, b = (reference.random_boxes(rng, n, SHAPE) for n in (13, 9))
        np.testing.assert_allclose(matrix(a, b), reference.all_pairs(truth, a, b), rtol=1e-4, atol=1e-5)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(a=box_lists, b=box_lists)
    def test_generated_boxes_equal_reference(self, function, matrix, truth, a, b):
        np.testing.assert_allclose(matrix(a, b), reference.all_pairs(truth, a, b), rtol=1e-4, atol=1e-5)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(boxes=box_pairs)
    def test_any_boxes_give_finite_values_in_range_and_finite_gradients(self, function, matrix, truth, boxes):
        value = float(function(*boxes))
        assert -2.0 - 1e-5 <= value <= 1.0 + 1e-5
        assert truth is reference.ciou or value >= -1.0 - 1e-5
        assert np.isfinite(gradient(function, *boxes)).all()

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3]),
            ([0, 0, 0, 0, 5, 5], [0, 0, 0, 0, 5, 5]),
            ([3, 3, 3, 1, 1, 1], [0, 0, 0, 2, 2, 2]),
            ([0, 0, 0, 5, 7, 11], [0, 0, 0, 5, 7, 11]),
            ([0, 0, 0, 1, 1, 1], [5, 5, 5, 6, 6, 6]),
            ([0, 0, 0, 1e6, 1e6, 1e6], [-1e6, 0, 0, 0, 1e6, 1e6]),
            ([1e-3, 0, 0, 2e-3, 1e6, 1], [0, 0, 0, 2e-3, 1e6, 1]),
        ],
    )
    def test_gradient_is_finite_at_kinks_also_when_scaled_up(self, function, matrix, truth, a, b):
        result = gradient(lambda a, b: 1e6 * function(a, b), np.float32(a), np.float32(b))
        assert np.isfinite(result).all()

    def test_gradient_equals_finite_differences(self, function, matrix, truth):
        rng = np.random.default_rng(2)
        a, b = (reference.random_boxes(rng, 8, SHAPE) for _ in range(2))
        b[4:] += np.float32([20, 0, 0, 20, 0, 0])  # do not meet
        for row in range(8):
            pair = np.stack([a[row], b[row]])
            # The weight of the aspect has no gradient: held, as it is at this point.
            held = functools.partial(truth, alpha=reference.ciou_alpha(*pair)) if truth is reference.ciou else truth
            expected = reference.finite_differences(lambda p: held(p[0], p[1]), pair)  # noqa: B023
            np.testing.assert_allclose(gradient(function, *pair), expected, rtol=2e-3, atol=2e-5)

    def test_gradient_of_the_matrix_is_the_sum_over_pairs(self, function, matrix, truth):
        rng = np.random.default_rng(3)
        a, b = (reference.random_boxes(rng, 3, SHAPE) for _ in range(2))
        expected = np.sum([gradient(function, a, np.roll(b, shift, axis=0)) for shift in range(3)], axis=0)
        np.testing.assert_allclose(gradient(matrix, a, b)[0], expected[0], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, function, matrix, truth, axes):
        rng = np.random.default_rng(4)
        a, b = (reference.random_boxes(rng, n, SHAPE) for n in (6, 4))
        permuted = [reference.permute_boxes(boxes, axes) for boxes in (a, b)]
        np.testing.assert_allclose(matrix(*permuted), matrix(a, b), rtol=1e-4, atol=1e-6)

    def test_moved_scaled_and_swapped_boxes_overlap_the_same(self, function, matrix, truth):
        rng = np.random.default_rng(5)
        a, b = (reference.random_boxes(rng, 12, SHAPE) for _ in range(2))
        expected = function(a, b)
        np.testing.assert_allclose(function(b, a), expected, atol=1e-6)
        np.testing.assert_allclose(function(8 * a, 8 * b), expected, atol=1e-6)
        np.testing.assert_allclose(function(a - 16, b - 16), expected, atol=1e-4)

    def test_leading_axes_broadcast(self, function, matrix, truth):
        rng = np.random.default_rng(6)
        a = reference.random_boxes(rng, 24, SHAPE).reshape(4, 2, 3, 6)
        b = reference.random_boxes(rng, 10, SHAPE).reshape(2, 5, 6)
        result = matrix(a, b).numpy()
        assert result.shape == (4, 2, 3, 5)
        for i, j in np.ndindex(4, 2):
            expected = reference.all_pairs(truth, a[i, j], b[j])
            np.testing.assert_allclose(result[i, j], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("i", "j"), [(0, 3), (3, 0), (0, 0)])
    def test_no_boxes(self, function, matrix, truth, i, j):
        assert matrix(tf.zeros([2, i, 6]), tf.zeros([2, j, 6])).shape == (2, i, j)

    def test_all_padding_is_zero(self, function, matrix, truth):
        result = matrix(tf.zeros([2, 3, 6]), tf.zeros([2, 4, 6]))
        np.testing.assert_allclose(result, np.zeros((2, 3, 4)), atol=1e-12)

    def test_unknown_batch_and_count_equal_eager(self, function, matrix, truth):
        rng = np.random.default_rng(7)
        compiled = tf.function(matrix, input_signature=[BOXES, BOXES])
        for batch, i, j in [(2, 5, 3), (1, 0, 4), (3, 1, 1)]:
            a = reference.random_boxes(rng, batch * i, SHAPE).reshape(batch, i, 6)
            b = reference.random_boxes(rng, batch * j, SHAPE).reshape(batch, j, 6)
            np.testing.assert_allclose(compiled(a, b), matrix(a, b), atol=1e-6)

    def test_error_names_both_sides(self, function, matrix, truth):
        good, bad = np.zeros((4, 6), np.float32), np.zeros((4, 7), np.float32)
        with pytest.raises(ValueError, match=re.escape("came boxes_a [4, 6], boxes_b [4, 7]")):
            function(good, bad)
        words = "expected boxes_a [..., I, 6], boxes_b [..., J, 6]; came boxes_a [6], boxes_b [4, 6]"
        with pytest.raises(ValueError, match=re.escape(words)):
            matrix(good[0], good)
