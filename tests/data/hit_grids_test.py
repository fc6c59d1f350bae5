import math

import numpy as np

from configs.hits_schema import Hits
from data import hit_grids

SHAPE = (3, 4, 5)


def places(settings, points):
    """(z, y, x) voxel of each point x, y, z; None outside."""
    flat = hit_grids.voxel_of(settings, *np.array(points, float).T)
    return [tuple(map(int, np.unravel_index(f, settings.shape))) if f >= 0 else None for f in flat]


class CartesianTest:
    def test_a_voxel_holds_its_lower_edge(self):
        settings = Hits(shape=SHAPE, origin=(-1.0, 10.0, 0.0), cell=(2.0, 5.0, 0.5))
        points = [(0, 10, -1), (2.49, 29.9, 4.9), (0.5, 15, 1), (2.5, 10, 0), (0, 9.9, 0), (0, 10, 5), (0, 10, -1.1)]
        assert places(settings, points) == [(0, 0, 0), (2, 3, 4), (1, 1, 1), None, None, None, None]

    def test_place_in_the_world(self):
        settings = Hits(shape=SHAPE, origin=(-1.0, 10.0, 0.0), cell=(2.0, 5.0, 0.5), unit="cm")
        spacing, affine = hit_grids.placed(settings)
        np.testing.assert_array_equal(spacing, [20, 50, 5])
        np.testing.assert_array_equal(affine @ [0, 0, 0, 1], [2.5, 125, 0, 1])
        np.testing.assert_array_equal(affine @ [1, 0, 0, 1], [2.5, 125, 20, 1])

    def test_no_hits(self):
        assert places(Hits(shape=SHAPE), np.zeros((0, 3))) == []


class LayersTest:
    SETTINGS = Hits(shape=SHAPE, grid="layers", layers=(100.0, 104.0, 114.0), cell=(1.0, 10.0, 10.0))

    def test_a_hit_belongs_to_the_nearest_layer(self):
        self.SETTINGS.validate()
        heights = (100, 97.9, 98, 101.9, 102, 108.9, 109, 114, 118.9, 119)
        found = places(self.SETTINGS, [(0, 0, z) for z in heights])
        layers = [place and place[0] for place in found]
        assert layers == [0, None, 0, 0, 1, 1, 2, 2, 2, None]

    def test_cells_along_y_and_x(self):
        assert places(self.SETTINGS, [(49, 39, 104), (50, 0, 104), (-1, 0, 104)]) == [(1, 3, 4), None, None]

    def test_spacing_is_the_median_distance(self):
        spacing, affine = hit_grids.placed(self.SETTINGS)
        np.testing.assert_array_equal(spacing, [7, 10, 10])
        np.testing.assert_array_equal(affine @ [0, 0, 0, 1], [5, 5, 100, 1])


def polar(r, degrees, z=0.0):
    return r * math.cos(math.radians(degrees)), r * math.sin(math.radians(degrees)), z


class CylindricalTest:
    SETTINGS = Hits(shape=SHAPE, grid="cylindrical", origin=(0.0, 0.0, 2.0), cell=(10.0, math.pi / 2, 1.0))

    def test_axes_are_z_phi_r(self):
        self.SETTINGS.validate()
        points = [polar(2.5, 45), polar(6.9, 300, 29), polar(4, 135, 10), polar(1.9, 45), polar(7.1, 45)]
        assert places(self.SETTINGS, points) == [(0, 0, 0), (2, 3, 4), (1, 1, 2), None, None]

    def test_phi_wraps(self):
        # A hair below the seam is the last cell, on it and above the first; by whole turns nothing changes.
        points = [
            (3.0, -1e-17, 0.0),
            (3.0, -1e-3, 0.0),
            (3.0, 0.0, 0.0),
            (3.0, 1e-3, 0.0),
            polar(3, -45),
            polar(3, 315),
        ]
        assert [place[1] for place in places(self.SETTINGS, points)] == [3, 3, 0, 0, 3, 3]

    def test_the_seam_lies_where_the_grid_begins(self):
        settings = Hits(shape=SHAPE, grid="cylindrical", origin=(0.0, -math.pi / 4, 2.0), cell=(10.0, math.pi / 2, 1.0))
        assert [place[1] for place in places(settings, [polar(3, -44), polar(3, 44), polar(3, 46), polar(3, -46)])] == [
            0,
            0,
            1,
            3,
        ]

    def test_a_sector_does_not_wrap(self):
        settings = Hits(shape=SHAPE, grid="cylindrical", origin=(0.0, 0.0, 2.0), cell=(10.0, math.pi / 8, 1.0))
        points = [polar(3, 1), polar(3, 89), polar(3, 91), polar(3, -1)]
        assert places(settings, points) == [(0, 0, 1), (0, 3, 1), None, None]

    def test_spacing_along_phi_is_the_arc_at_the_middle_radius(self):
        spacing, _ = hit_grids.placed(self.SETTINGS)
        np.testing.assert_allclose(spacing, [10, math.pi / 2 * 4.5, 1])
