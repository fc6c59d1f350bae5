import cc3d
import numpy as np
import pytest

from data.components import SlabComponents


def by_slabs(values, depths):
    found, parts, start = SlabComponents(), [], 0
    for depth in depths:
        parts.append(found.add(values[start : start + depth]))
        start += depth
    assert start == len(values)
    table, of_component, sizes = found.finish()
    return table[np.concatenate(parts)], of_component, sizes


class SlabComponentsTest:
    @pytest.mark.parametrize("depths", [(14,), (1,) * 14, (5, 1, 8), (3, 3, 3, 5)])
    @pytest.mark.parametrize("density", [0.02, 0.08, 0.2, 0.6])
    def test_equal_those_of_the_whole_volume_numbered_by_first_voxel(self, depths, density):
        rng = np.random.default_rng(int(density * 100))
        values = ((rng.random((14, 11, 9)) < density) * rng.integers(1, 4, (14, 11, 9))).astype(np.uint8)
        ids, of_component, sizes = by_slabs(values, depths)
        whole = cc3d.connected_components(values, connectivity=26)
        np.testing.assert_array_equal(ids, whole)
        first = [np.flatnonzero(ids == i)[0] for i in range(1, ids.max() + 1)]
        assert first == sorted(first)
        np.testing.assert_array_equal(sizes, np.bincount(ids.reshape(-1))[1:])
        np.testing.assert_array_equal(of_component, values.reshape(-1)[first])

    def test_a_u_joins_at_its_far_end_and_diagonals_count(self):
        values = np.zeros((4, 3, 7), np.uint8)
        values[0:3, 0, 0] = values[0:3, 0, 4] = 2
        values[3, 0, 0:5] = 2  # the bottom of the u
        values[0, 2, 6], values[1, 1, 5] = 1, 1  # corner to corner
        values[2, 2, 6] = 3  # touches the 1, but is another value
        for depths in ((1, 1, 1, 1), (2, 2), (4,)):
            ids, of_component, sizes = by_slabs(values, depths)
            np.testing.assert_array_equal(of_component, [2, 1, 3])
            np.testing.assert_array_equal(sizes, [11, 2, 1])
            assert ids[0, 0, 0] == ids[0, 0, 4] == 1

    def test_nothing_there(self):
        ids, of_component, sizes = by_slabs(np.zeros((3, 4, 5), np.uint8), (2, 1))
        assert ids.max() == 0
        assert len(of_component) == len(sizes) == 0
