import numpy as np
import pytest
import tensorflow as tf

from ops.roi_levels import roi_levels
from tests import reference

PERMUTATIONS = [(2, 0, 1), (1, 2, 0), (0, 2, 1)]
LEVELS = {
    "strides": [(2, 4, 4), (4, 8, 8), (8, 16, 16)],
    "canonical_size": (16, 32, 32),
    "canonical_level": 1,
}


def sized_boxes(*sizes):
    """Boxes [N, 6] of the given sizes, off the origin."""
    lo = np.tile([3.0, 5.0, 7.0], (len(sizes), 1))
    return np.concatenate([lo, lo + sizes], axis=-1).astype(np.float32)


class RoiLevelsTest:
    @pytest.mark.parametrize(
        ("size", "level"),
        [
            ((16, 32, 32), 1),  # the canonical size itself
            ((32, 64, 64), 2),
            ((15.9, 31.9, 31.9), 0),
            ((31.9, 63.9, 63.9), 1),
            ((64, 32, 16), 1),  # the volume of the canonical size
            ((30, 60, 60), 1),
            ((33, 65, 65), 2),
            ((15, 30, 30), 0),
            ((8.5, 17, 17), 0),
            ((1, 1, 1), 0),  # below the finest level
            ((160, 320, 320), 2),  # above the coarsest
        ],
    )
    def test_twice_the_size_is_one_level_up(self, size, level):
        result = roi_levels(sized_boxes(size), num_levels=3, **LEVELS)
        np.testing.assert_array_equal(result, [level])
        assert result.dtype == tf.int32

    def test_exact_doublings_are_safe_from_rounding(self):
        rng = np.random.default_rng(6)
        for canonical_size in rng.uniform(3, 100, (20, 3)):
            sizes = np.multiply.outer([0.25, 0.5, 1.0, 2.0], canonical_size)
            settings = {**LEVELS, "canonical_size": tuple(canonical_size.tolist()), "canonical_level": 2}
            result = roi_levels(sized_boxes(*sizes), num_levels=3, **settings)
            np.testing.assert_array_equal(result, [0, 1, 2, 2])

    @pytest.mark.parametrize(("growth", "level"), [(1.0, 0), (1.58, 0), (1.6, 1), (2.5, 1), (2.6, 2)])
    def test_levels_follow_the_mean_stride(self, growth, level):
        # Strides grow along y and x alone: 2^(2/3) = 1.587 in the mean.
        strides = [(2, 4, 4), (2, 8, 8), (2, 16, 16)]
        result = roi_levels(
            sized_boxes(np.array([16.0, 32, 32]) * growth),
            num_levels=3,
            strides=strides,
            canonical_size=(16, 32, 32),
            canonical_level=0,
        )
        np.testing.assert_array_equal(result, [level])

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_every_axis_counts(self, axis):
        small, large = np.array([17.0, 34, 34]), np.array([17.0, 34, 34])
        large[axis] *= 64
        result = roi_levels(sized_boxes(small, large), num_levels=3, **LEVELS).numpy()
        assert result[0] == 1
        assert result[1] == 2

    def test_grows_with_the_box(self):
        sizes = np.linspace(0.05, 8, 200)[:, None] * [16, 32, 32]
        result = roi_levels(sized_boxes(*sizes), num_levels=3, **LEVELS).numpy()
        assert np.all(np.diff(result) >= 0)
        np.testing.assert_array_equal(np.unique(result), [0, 1, 2])

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, axes):
        rng = np.random.default_rng(0)
        boxes = reference.random_boxes(rng, 60, (64, 128, 128))
        permuted = {
            "strides": [[stride[a] for a in axes] for stride in LEVELS["strides"]],
            "canonical_size": [LEVELS["canonical_size"][a] for a in axes],
            "canonical_level": 1,
        }
        result = roi_levels(reference.permute_boxes(boxes, axes), num_levels=3, **permuted)
        np.testing.assert_array_equal(result, roi_levels(boxes, num_levels=3, **LEVELS))
        assert len(np.unique(result)) == 3

    def test_empty_and_padding_boxes_are_of_the_finest_level(self):
        boxes = tf.constant([[0.0] * 6, [1, 2, 3, 1, 99, 99], [5, 5, 5, 1, 1, 1]])
        np.testing.assert_array_equal(roi_levels(boxes, num_levels=3, **LEVELS), [0, 0, 0])

    def test_leading_dimensions(self):
        boxes = np.tile(sized_boxes((17, 34, 34), (1, 1, 1)), (3, 2, 1, 1))
        result = roi_levels(boxes, num_levels=3, **LEVELS)
        np.testing.assert_array_equal(result, np.tile([1, 0], (3, 2, 1)))
        assert roi_levels(tf.zeros([2, 0, 6]), num_levels=3, **LEVELS).shape == (2, 0)
