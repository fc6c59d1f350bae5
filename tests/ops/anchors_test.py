import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from ops import anchors as anchor_ops
from ops import boxes as box_ops
from tests import reference

GRID = (5, 7, 11)
STRIDE = (1, 2, 4)
SHAPES = np.array([[3, 4, 5], [6, 2, 9]], np.float32)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]


class AnchorShapesTest:
    @pytest.mark.parametrize(
        ("sizes", "aspects", "expected"),
        [
            ([8], [(1, 1, 1)], [[8, 8, 8]]),
            ([8], [(1, 2, 4)], [[4, 8, 16]]),
            ([(4, 8, 16)], [(1, 1, 1)], [[4, 8, 16]]),
            ([(4, 8, 16)], [(3, 3, 3), (4, 2, 1)], [[4, 8, 16], [8, 8, 8]]),
            (
                [8, 16],
                [(1, 1, 1), (1, 2, 4)],
                [[8, 8, 8], [4, 8, 16], [16, 16, 16], [8, 16, 32]],
            ),
        ],
    )
    def test_hand_values(self, sizes, aspects, expected):
        result = anchor_ops.anchor_shapes(sizes, aspects)
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        assert isinstance(result, np.ndarray)

    def test_equals_reference(self):
        sizes = [6.5, (3, 5, 7), 20]
        aspects = [(1, 1, 1), (1, 2, 3), (0.5, 1.7, 1)]
        np.testing.assert_allclose(
            anchor_ops.anchor_shapes(sizes, aspects),
            reference.anchor_shapes(sizes, aspects),
            rtol=1e-5,
        )

    def test_aspects_keep_the_volume(self):
        shapes = anchor_ops.anchor_shapes([10], [(1, 1, 1), (1, 2, 3), (5, 1, 0.1)])
        np.testing.assert_allclose(np.prod(shapes, axis=-1), [1000] * 3, rtol=1e-5)

    @pytest.mark.parametrize(
        ("sizes", "aspects", "words"),
        [
            ([8, 0], [(1, 1, 1)], "expected size as one number above 0 or three of them for z, y, x, came 0"),
            ([(4, 8)], [(1, 1, 1)], "expected size as one number above 0 or three of them for z, y, x, came (4, 8)"),
            ([8], [(1, -1, 1)], "expected aspect as one number above 0 or three of them for z, y, x, came (1, -1, 1)"),
        ],
    )
    def test_error_names_both_sides(self, sizes, aspects, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            anchor_ops.anchor_shapes(sizes, aspects)


class LevelAnchorsTest:
    def test_hand_values(self):
        shapes = np.array([[4, 2, 2], [2, 2, 6]], np.float32)
        result = anchor_ops.level_anchors((1, 1, 2), (4, 2, 8), shapes)
        expected = [
            [0, 0, 3, 4, 2, 5],
            [1, 0, 1, 3, 2, 7],
            [0, 0, 11, 4, 2, 13],
            [1, 0, 9, 3, 2, 15],
        ]
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert tf.as_dtype(result.dtype) == tf.float32

    def test_equals_reference(self):
        result = anchor_ops.level_anchors(GRID, STRIDE, SHAPES)
        np.testing.assert_allclose(result, reference.level_anchors(GRID, STRIDE, SHAPES), atol=1e-5)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_anchors(self, axes):
        plain = np.reshape(anchor_ops.level_anchors(GRID, STRIDE, SHAPES), (*GRID, 2, 6))
        result = anchor_ops.level_anchors(
            [GRID[axis] for axis in axes], [STRIDE[axis] for axis in axes], SHAPES[:, list(axes)]
        )
        expected = reference.permute_boxes(np.transpose(plain, (*axes, 3, 4)), axes)
        np.testing.assert_allclose(result, expected.reshape(-1, 6), atol=1e-5)

    def test_mirrored_grid_gives_mirrored_anchors(self):
        result = np.reshape(anchor_ops.level_anchors(GRID, STRIDE, SHAPES), (*GRID, 2, 6))
        extent = np.multiply(GRID, STRIDE)
        mirrored = np.concatenate([extent - result[..., 3:], extent - result[..., :3]], axis=-1)
        np.testing.assert_allclose(mirrored[::-1, ::-1, ::-1], result, atol=1e-5)

    @pytest.mark.parametrize("grid", [(0, 7, 11), (5, 7, 0)])
    def test_empty_grid_has_no_anchors(self, grid):
        assert anchor_ops.level_anchors(grid, STRIDE, SHAPES).shape == (0, 6)

    def test_unknown_grid_equals_eager(self):
        compiled = tf.function(
            lambda grid: anchor_ops.level_anchors(grid, STRIDE, SHAPES),
            input_signature=[tf.TensorSpec([3], tf.int32)],
        )
        for grid in [GRID, (1, 3, 2), (0, 2, 2)]:
            expected = anchor_ops.level_anchors(grid, STRIDE, SHAPES)
            np.testing.assert_allclose(compiled(tf.constant(grid)), expected, atol=1e-6)

    def test_one_number_is_the_stride_of_all_axes(self):
        expected = anchor_ops.level_anchors(GRID, (2, 2, 2), SHAPES)
        np.testing.assert_array_equal(anchor_ops.level_anchors(GRID, 2, SHAPES), expected)

    @pytest.mark.parametrize(
        ("grid", "stride", "shapes", "words"),
        [
            ((5, 7), STRIDE, SHAPES, "expected grid_shape [3], shapes [n, 3]; came grid_shape [2], shapes [2, 3]"),
            (GRID, STRIDE, SHAPES[0], "came grid_shape [3], shapes [3]"),
            (GRID, (1, 0, 4), SHAPES, "expected stride as one number above 0 or three of them for z, y, x"),
        ],
    )
    def test_error_names_both_sides(self, grid, stride, shapes, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            anchor_ops.level_anchors(grid, stride, shapes)


class CrossesBoundaryTest:
    @pytest.mark.parametrize(
        ("anchor", "expected"),
        [
            ([0, 0, 0, 5, 7, 11], False),
            ([1, 2, 3, 4, 5, 6], False),
            ([-0.25, 2, 3, 4, 5, 6], True),
            ([1, 2, 3, 4, 7.25, 6], True),
            ([0, 0, 6, 5, 7, 12], True),
            ([0, 0, 0, 7, 7, 7], True),
            ([-9, -9, -9, 30, 30, 30], True),
            ([6, 8, 12, 7, 9, 13], True),
        ],
    )
    def test_hand_values(self, anchor, expected):
        result = anchor_ops.crosses_boundary(np.float32([anchor]), GRID)
        np.testing.assert_array_equal(result, [expected])

    @pytest.mark.parametrize("axes", [(0, 1, 2), *PERMUTATIONS])
    def test_an_anchor_inside_is_one_that_clipping_leaves_alone(self, axes):
        anchors = np.random.default_rng(0).uniform([-1] * 3 + [2, 4, 8], [3, 4, 6, 6, 8, 12], (60, 6))
        anchors = reference.permute_boxes(anchors, axes).astype(np.float32)
        shape = [GRID[axis] for axis in axes]
        expected = np.any(box_ops.clip(anchors, shape) != anchors, axis=-1)
        np.testing.assert_array_equal(anchor_ops.crosses_boundary(anchors, shape), expected)
        assert 0 < expected.sum() < 60

    def test_unknown_count_and_shape_equal_eager(self):
        compiled = tf.function(
            anchor_ops.crosses_boundary,
            input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([3], tf.int32)],
        )
        anchors = anchor_ops.level_anchors((2, 3, 2), STRIDE, SHAPES)
        expected = anchor_ops.crosses_boundary(anchors, (2, 6, 8))
        np.testing.assert_array_equal(compiled(anchors, tf.constant([2, 6, 8])), expected)
        assert compiled(tf.zeros([0, 6]), tf.constant(GRID)).shape == (0,)

    def test_error_names_both_sides(self):
        with pytest.raises(ValueError, match=re.escape("came anchors [4, 5], shape [3]")):
            anchor_ops.crosses_boundary(np.zeros((4, 5), np.float32), GRID)
        with pytest.raises(ValueError, match=re.escape("came anchors [4, 6], shape [2]")):
            anchor_ops.crosses_boundary(np.zeros((4, 6), np.float32), (5, 7))
