import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from ops.tiles import tile_starts
from tests import reference

PERMUTATIONS = [(2, 0, 1), (1, 2, 0), (0, 2, 1)]
CASES = [
    ((5, 7, 11), (2, 3, 4), (0, 1, 2)),
    ((5, 7, 11), (4, 3, 6), (3, 2, 1)),
    ((5, 7, 11), (5, 7, 11), (1, 1, 1)),
    ((5, 7, 11), (8, 8, 8), (2, 2, 2)),
    ((5, 7, 11), (5, 6, 10), (4, 5, 9)),
    ((1, 20, 13), (4, 5, 6), (0, 0, 0)),
    ((17, 3, 23), (6, 4, 7), (2, 3, 5)),
]


def starts(shape, patch, overlap):
    result = tile_starts(tf.constant(shape), patch, overlap)
    assert result.dtype == tf.int32
    assert result.shape[1:] == (3,)
    return result.numpy()


class TileStartsTest:
    def test_long_axis_of_many_tiles(self):
        z = tile_starts(tf.constant([600_000, 1, 1]), (128, 1, 1), (0, 0, 0))[:, 0].numpy()
        assert (z[0], z[-1], len(z)) == (0, 600_000 - 128, 4688)
        assert set(np.diff(z)) <= {127, 128}

    @pytest.mark.parametrize(
        ("shape", "patch", "overlap", "axes"),
        [
            ((4, 8, 10), (4, 4, 4), (0, 0, 1), ([0], [0, 4], [0, 3, 6])),
            ((3, 9, 10), (4, 5, 6), (1, 1, 2), ([0], [0, 4], [0, 4])),
            ((4, 9, 12), (4, 5, 4), (2, 3, 2), ([0], [0, 2, 4], [0, 2, 4, 6, 8])),
            ((1, 1, 1), (4, 5, 6), (1, 2, 3), ([0], [0], [0])),
        ],
    )
    def test_hand_values(self, shape, patch, overlap, axes):
        expected = list(itertools.product(*axes))
        np.testing.assert_array_equal(starts(shape, patch, overlap), expected)

    @pytest.mark.parametrize(("shape", "patch", "overlap"), CASES)
    def test_every_voxel_is_covered(self, shape, patch, overlap):
        cover = reference.tile_cover(shape, patch, starts(shape, patch, overlap))
        assert cover.min() >= 1

    @pytest.mark.parametrize(("shape", "patch", "overlap"), CASES)
    def test_grid_is_tight_even_and_overlapping(self, shape, patch, overlap):
        result = starts(shape, patch, overlap)
        axes = [np.unique(result[:, axis]) for axis in range(3)]
        np.testing.assert_array_equal(result, list(itertools.product(*axes)))
        for at, n, p, o in zip(axes, shape, patch, overlap, strict=True):
            assert at[0] == 0
            assert at[-1] == max(n - p, 0)
            steps = np.diff(at)
            assert np.all(p - steps >= o)
            assert np.ptp(steps) <= 1 if steps.size else True
            # One tile fewer could not reach across with that overlap.
            assert len(at) == 1 or (len(at) - 2) * (p - o) + p < n

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_tiles(self, axes):
        order = list(axes)
        shape, patch, overlap = np.array((17, 3, 23)), np.array((6, 4, 7)), np.array((2, 3, 5))
        result = starts(shape[order], tuple(patch[order]), tuple(overlap[order]))
        expected = starts(shape, tuple(patch), tuple(overlap))[:, order]
        assert sorted(map(tuple, result)) == sorted(map(tuple, expected))

    def test_unknown_shape_equals_eager(self):
        compiled = tf.function(
            lambda shape: tile_starts(shape, (4, 5, 6), (1, 2, 3)),
            input_signature=[tf.TensorSpec([3], tf.int32)],
        )
        for shape in [(5, 7, 11), (1, 2, 3), (20, 30, 40)]:
            expected = starts(shape, (4, 5, 6), (1, 2, 3))
            np.testing.assert_array_equal(compiled(tf.constant(shape)), expected)

    @pytest.mark.parametrize(
        ("patch", "overlap"),
        [
            ((4, 5, 6), (1, 5, 2)),
            ((4, 5, 6), (1, 2, 9)),
            ((4, 5, 6), (-1, 2, 3)),
            ((4, 0, 6), (0, 0, 0)),
            ((4, -5, 6), (0, 0, 0)),
            ((4, 5), (0, 0)),
            ((4, 5, 6), (0, 0)),
        ],
    )
    def test_overlap_must_be_less_than_patch_on_every_axis(self, patch, overlap):
        words = f"expected 0 <= overlap < patch on each of three axes, came overlap {overlap}, patch {patch}"
        with pytest.raises(ValueError, match=re.escape(words)):
            tile_starts((5, 7, 11), patch, overlap)

    def test_shape_must_be_a_triple(self):
        with pytest.raises(ValueError, match=re.escape("expected shape [3]; came shape [4]")):
            tile_starts((5, 7, 11, 1), (4, 5, 6), (1, 2, 3))
