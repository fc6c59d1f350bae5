import numpy as np
import pytest

from data import slabs

SHAPE = (5, 7, 11)


def volume_of(numbers):
    """[5, 7, 11] zeros, and each of some numbers a few times, as small as can be."""
    rng = np.random.default_rng(0)
    values = np.zeros(SHAPE, np.uint64)
    for number in numbers:
        values[rng.random(SHAPE) < 0.05] = number
    return values.astype(np.min_scalar_type(int(values.max())))


# Contiguous, with gaps, beyond the size of the volume, beyond the table, beyond what float64 tells apart.
NUMBERS = [(1, 2, 3), (2, 9, 200), (3, 70000), (5, 2**24, 2**24 + 7), (7, 2**60, 2**60 + 1), ()]


class RegionsTest:
    def test_by_hand(self):
        found = slabs.of_shape((5, 3, 4), 25)
        assert [(z.start, z.stop) for z, _, _ in found] == [(0, 2), (2, 4), (4, 5)]
        assert {(y.stop, x.stop) for _, y, x in found} == {(3, 4)}

    def test_at_least_a_plane_and_at_most_all(self):
        assert [z.stop - z.start for z, _, _ in slabs.of_shape(SHAPE, 1)] == [1] * 5
        assert len(slabs.of_shape((*SHAPE, 2), 10**9)) == 1


class VoxelCountsTest:
    @pytest.mark.parametrize("count", [9, 1000])  # 77 voxels in a plane
    def test_equal_a_histogram(self, count):
        ids = volume_of(range(1, 10))
        found = slabs.voxel_counts(ids, count)
        np.testing.assert_array_equal(found, np.bincount(ids.reshape(-1), minlength=count + 1)[1:])
        assert len(found) == count

    def test_nothing_there(self):
        assert slabs.voxel_counts(np.zeros(SHAPE, np.uint8), 0).tolist() == []
        assert slabs.voxel_counts(np.zeros(SHAPE, np.uint8), 2).tolist() == [0, 0]


class PresentTest:
    @pytest.mark.parametrize("numbers", NUMBERS)
    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_equal_the_sorted_values(self, numbers, depth):
        values = volume_of(numbers)
        parts = [values[z : z + depth] for z in range(0, 5, depth)]
        parts = [part.astype(np.min_scalar_type(int(part.max()))) for part in parts]
        found, voxels = slabs.present(parts)
        expected, counts = np.unique(values[values > 0], return_counts=True)
        assert found.dtype == voxels.dtype == np.int64
        np.testing.assert_array_equal(found, expected.astype(np.int64))
        np.testing.assert_array_equal(voxels, counts)


class RenumberedTest:
    @pytest.mark.parametrize("numbers", NUMBERS)
    @pytest.mark.parametrize("left_out", [0, 1])
    def test_positions_and_zero_for_others(self, numbers, left_out):
        values, kept = volume_of(numbers), np.array(numbers[left_out:], np.int64)
        found = slabs.renumbered(values, kept)
        expected = np.zeros(SHAPE, int)
        for position, number in enumerate(kept.tolist(), start=1):
            expected[values == number] = position
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.kind == "u"
        assert expected.max() == len(kept)

    def test_a_slab_without_the_largest_numbers(self):
        values = np.array([[[0, 3, 5, 8]]], np.uint8)
        assert slabs.renumbered(values, np.array([3, 8, 900])).tolist() == [[[0, 1, 0, 2]]]
        assert slabs.renumbered(values, np.array([3, 8, 2**40])).tolist() == [[[0, 1, 0, 2]]]
        assert slabs.renumbered(values, np.array([900])).max() == 0

    def test_what_stays_is_not_copied(self):
        values = volume_of((1, 2, 3))
        assert slabs.renumbered(values, np.array([1, 2, 3, 4])) is values
        assert slabs.renumbered(values, np.array([1, 2])).max() == 2
