import math
import zlib

import numpy as np
import pytest

from configs.synthetic_schema import Synthetic
from data import synthetic
from data.synthetic.parts import rotation
from data.synthetic.shapes import CLASSES, extent, inside

SMALL = {"shape": (20, 24, 31), "count": (2, 5), "base_size": 4.0, "contrast": (0.5, 1.0)}
# Seed 7, index 3 of SMALL: CRC-32 of image and ids, class ids. A change here changes every set.
GOLDEN = ([599547005, 1012464513], [3, 1, 1])
TURN = (0.4, 1.1, 2.3)


def shapes(seed, index, **settings):
    """Image, ids and class ids of a volume."""
    return synthetic.draw("shapes", Synthetic(seed=seed, **settings), index)[:3]


class ShapesTest:
    def test_golden_volume(self):
        image, ids, class_ids = shapes(7, 3, **SMALL)
        checksums = [zlib.crc32(np.ascontiguousarray(a).tobytes()) for a in (image, ids)]
        assert (checksums, class_ids.tolist()) == GOLDEN

    def test_dtypes_and_a_shape_of_three_lengths(self):
        image, ids, class_ids = shapes(0, 0, **SMALL)
        assert (image.dtype, ids.dtype, class_ids.dtype) == (np.uint8, np.int32, np.int32)
        assert image.shape == ids.shape == (20, 24, 31)
        assert (image.min(), image.max()) == (0, 255)

    def test_same_seed_and_index_give_the_same_volume(self):
        first, second = shapes(3, 8, **SMALL), shapes(3, 8, **SMALL)
        for i in range(3):
            np.testing.assert_array_equal(first[i], second[i])

    def test_a_list_and_a_tuple_mean_the_same_shape(self):
        as_list = shapes(3, 8, **{**SMALL, "shape": [20, 24, 31]})
        np.testing.assert_array_equal(as_list[0], shapes(3, 8, **SMALL)[0])

    def test_every_seed_and_index_gives_another_volume(self):
        images = {shapes(s, i, **SMALL)[0].tobytes() for s in range(3) for i in range(4)}
        assert len(images) == 12

    def test_ids_are_dense_and_each_object_has_a_class(self):
        for index in range(10):
            _, ids, class_ids = shapes(1, index, **SMALL)
            np.testing.assert_array_equal(np.unique(ids[ids > 0]), np.arange(len(class_ids)) + 1)
            assert set(class_ids) <= {1, 2, 3}

    def test_classes_are_uniform(self):
        class_ids = np.concatenate([shapes(2, i, **SMALL)[2] for i in range(150)])
        share = np.bincount(class_ids, minlength=4)[1:] / len(class_ids)
        np.testing.assert_allclose(share, 1 / 3, atol=0.08)

    def test_counts_cover_the_range_and_stay_in_it(self):
        counts = [len(shapes(4, i, **{**SMALL, "base_size": 1.5})[2]) for i in range(60)]
        assert set(counts) == {2, 3, 4, 5}

    def test_objects_that_do_not_fit_are_left_out(self):
        image, ids, class_ids = shapes(0, 0, shape=(5, 7, 11), count=(30, 30), base_size=1.2)
        assert 0 < len(class_ids) < 30
        assert ids.max() == len(class_ids)
        assert image.max() == 255

    def test_nothing_fits_in_a_volume_far_too_small(self):
        image, ids, class_ids = shapes(0, 0, shape=(5, 7, 11), count=(3, 3), base_size=40.0)
        assert (ids.max(), class_ids.shape) == (0, (0,))
        assert image.shape == (5, 7, 11)

    def test_no_objects_wanted(self):
        image, ids, class_ids = shapes(0, 0, shape=(5, 7, 11), count=(0, 0))
        assert (ids.any(), class_ids.shape, image.max()) == (False, (0,), 255)

    def test_single_voxel_volume(self):
        image, ids, class_ids = shapes(0, 0, shape=(1, 1, 1), count=(0, 0))
        assert (image.item(), ids.item(), len(class_ids)) == (0, 0, 0)

    def test_objects_lie_whole_inside(self):
        # A cuboid cut by a border would fall short of its least volume, edges of base_size each.
        for index in range(12):
            _, ids, class_ids = shapes(5, index, **SMALL)
            voxels = np.bincount(ids.ravel())[1:]
            assert (voxels[class_ids == 2] > 0.85 * 4.0**3).all()

    def test_objects_are_brighter_by_their_contrast(self):
        settings = {**SMALL, "contrast": (0.8, 0.8), "shape": (40, 44, 51), "base_size": 7.0}
        image, ids, _ = shapes(6, 1, **settings)
        spread_of_background = image[ids == 0].std()
        difference = image[ids > 0].mean() - image[ids == 0].mean()
        # Background noise: N(0, 0.05) + U(0, 0.01).
        sigma = math.hypot(0.05, 0.01 / math.sqrt(12))
        assert difference / spread_of_background == pytest.approx(0.8 / sigma, rel=0.05)

    def test_attributes_are_the_contrasts(self):
        quiet = {**SMALL, "contrast": (0.3, 0.9), "shape": (40, 44, 51), "base_size": 7.0, "count": (5, 5)}
        image, ids, _, attributes, _ = synthetic.draw("shapes", Synthetic(seed=6, **quiet), 1)
        assert (attributes.dtype, attributes.shape) == (np.float32, (ids.max(), 1))
        assert ((attributes >= 0.3) & (attributes < 0.9)).all()
        # The image is stretched, so brightness is a straight line of the contrast.
        brightness = [image[ids == number].mean() - image[ids == 0].mean() for number in range(1, ids.max() + 1)]
        assert len(brightness) > 2
        np.testing.assert_allclose(brightness / brightness[0], attributes[:, 0] / attributes[0, 0], rtol=0.05)


class InsideTest:
    @pytest.mark.parametrize(
        ("kind", "fill"),
        [("ellipsoid", 4 / 3 * math.pi), ("cuboid", 8.0), ("pyramid", 8 / 3)],
    )
    @pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), TURN, (5.9, 0.2, 3.3)])
    def test_voxel_count_is_near_the_analytic_volume(self, kind, fill, angles):
        semi_axes = (9.0, 13.5, 18.0)
        voxels = inside(kind, semi_axes, rotation(angles), *_grid()).sum()
        assert voxels == pytest.approx(fill * math.prod(semi_axes), rel=0.02)

    @pytest.mark.parametrize("kind", CLASSES)
    def test_extent_is_tight(self, kind):
        turn = rotation(TURN)
        solid = inside(kind, (9.0, 13.5, 18.0), turn, *_grid())
        lo, hi = extent(kind, (9.0, 13.5, 18.0), turn)
        points = np.array([a[i] for a, i in zip(_grid(), np.nonzero(solid), strict=True)]).T
        assert (points.min(axis=0) >= lo).all()
        assert (points.max(axis=0) <= hi).all()
        # The very tip of a corner may lie between voxel centres.
        np.testing.assert_allclose(points.min(axis=0), lo, atol=2.0)
        np.testing.assert_allclose(points.max(axis=0), hi, atol=2.0)

    def test_axes_are_z_y_x(self):
        solid = inside("cuboid", (2.0, 3.0, 5.0), rotation((0.0, 0.0, 0.0)), *_grid())
        boxes = [np.flatnonzero(solid.any(axis=others)).size for others in ((1, 2), (0, 2), (0, 1))]
        assert boxes == [4, 6, 10]

    def test_pyramid_narrows_towards_plus_z(self):
        points = [np.array(v) for v in ([-0.9, 0.0, 0.9], [0.9], [0.0])]
        solid = inside("pyramid", (1.0, 1.0, 1.0), rotation((0.0, 0.0, 0.0)), *points)
        assert solid[:, 0, 0].tolist() == [True, False, False]


class RotationTest:
    @pytest.mark.parametrize(
        ("axis", "start", "end"),
        [(0, [0, 0, 1], [0, 1, 0]), (1, [1, 0, 0], [0, 0, 1]), (2, [0, 1, 0], [1, 0, 0])],
    )
    def test_quarter_turn_takes_each_axis_to_the_next(self, axis, start, end):
        turn = np.array(rotation(np.eye(3)[axis] * math.pi / 2))
        np.testing.assert_allclose(turn @ start, end, atol=1e-12)
        np.testing.assert_allclose(turn @ np.eye(3)[axis], np.eye(3)[axis], atol=1e-12)

    def test_turns_apply_about_z_then_y_then_x(self):
        about = [np.array(rotation(np.diag(TURN)[i])) for i in range(3)]
        np.testing.assert_allclose(rotation(TURN), about[2] @ about[1] @ about[0], atol=1e-12)

    def test_is_orthogonal_and_keeps_handedness(self):
        turn = np.array(rotation(TURN))
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1.0)


def _grid():
    """Three axes that hold every test solid, of unlike lengths, and with no voxel at its centre."""
    return [np.arange(n) - n // 2 + offset for n, offset in ((57, 0.45), (59, 0.29), (61, -0.37))]
