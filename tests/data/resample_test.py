import numpy as np
import pytest

from data import resample
from data.cases import Case
from data.readers import Volume, spacing_affine


def whole(array, spacing, target, interpolation="linear"):
    region = tuple(slice(0, n) for n in resample.new_shape(array.shape, spacing, target))
    return resample.image_region(array, np.array(spacing), target, region, interpolation)


class GridTest:
    @pytest.mark.parametrize(
        ("shape", "spacing", "target", "expected"),
        [
            ((4, 10, 20), (2.0, 1.0, 0.5), (1.0, 1.0, 1.0), (8, 10, 10)),
            ((5, 1, 3), (1.0, 1.0, 1.0), (2.0, 9.0, 2.0), (3, 1, 2)),  # 2.5 and 1.5 go up, at least 1
        ],
    )
    def test_shape_keeps_the_extent(self, shape, spacing, target, expected):
        assert resample.new_shape(shape, spacing, target) == expected

    def test_affine_keeps_the_outer_corner(self):
        affine = spacing_affine(np.array([2.0, 1.0, 0.5]))
        affine[:3, 3] = [10, 20, 30]
        found = resample.new_affine(affine, np.array([2.0, 1.0, 0.5]), (1.0, 1.0, 1.0))
        corner = np.array([-0.5, -0.5, -0.5, 1])
        np.testing.assert_allclose(found @ corner, affine @ corner)
        np.testing.assert_allclose(found[:3, 3], [10.25, 20.0, 29.5])
        np.testing.assert_allclose(np.linalg.norm(found[:3, :3], axis=0), 1)


class ImageTest:
    def test_linear_by_hand(self):
        array = np.zeros((1, 1, 4), np.float32)
        array[0, 0] = [0, 10, 20, 40]
        # Centres at 0.25, 0.75, ... of voxels of 1; before the first centre and behind the last: the border's value.
        expected = [0, 2.5, 7.5, 12.5, 17.5, 25, 35, 40]
        np.testing.assert_allclose(whole(array, (1, 1, 1), (1, 1, 0.5))[0, 0], expected)
        # Centres at 1 and 3, between voxels 0 and 1, 2 and 3.
        np.testing.assert_allclose(whole(array, (1, 1, 1), (1, 1, 2))[0, 0], [5, 30])

    def test_each_axis_has_its_own_ratio(self):
        z, y, x = np.meshgrid(*map(np.arange, (6, 8, 10)), indexing="ij")
        array = (z + 10 * y + 100 * x).astype(np.float32)
        found = whole(array, (1, 1, 1), (2, 0.5, 1))
        assert found.shape == (3, 16, 10)
        np.testing.assert_allclose(found[1, 5, 3], 2.5 + 10 * 2.25 + 300)

    def test_integers_are_rounded_and_stay_in_their_range(self):
        array = np.array([0, 255, 0, 0, 1, 1], np.uint8).reshape(1, 1, 6)
        linear = whole(array, (1, 1, 1), (1, 1, 0.5))
        assert linear.dtype == np.uint8
        assert linear[0, 0].tolist() == [0, 64, 191, 191, 64, 0, 0, 0, 1, 1, 1, 1]  # 63.75, 191.25, 0.25, 0.75
        spline = whole(array, (1, 1, 1), (1, 1, 0.5), "spline")[0, 0]
        assert spline[6] == 0  # it swings below
        assert spline.max() > 191

    def test_a_spline_goes_through_smooth_values_closer_than_lines(self):
        axis = np.sin(np.arange(24) / 2.0)
        array = np.broadcast_to(axis.astype(np.float64), (5, 6, 24)).copy()
        centres = (np.arange(48) + 0.5) / 2 - 0.5
        errors = {
            kind: np.abs(whole(array, (1, 1, 1), (1, 1, 0.5), kind)[2, 3] - np.sin(centres / 2.0))[8:40].max()
            for kind in ("linear", "spline")
        }
        assert errors["spline"] < 1e-2 < errors["linear"]

    @pytest.mark.parametrize("interpolation", ["linear", "spline"])
    @pytest.mark.parametrize("target", [(0.7, 1.0, 1.9), (1.3, 0.4, 0.8)])
    @pytest.mark.parametrize("channels", [(), (2,)])
    def test_regions_equal_the_whole(self, interpolation, target, channels):
        array = np.random.default_rng(0).normal(size=(40, 23, 31, *channels))
        expected = whole(array, (1, 1, 1), target, interpolation)
        sizes = expected.shape
        for z in range(0, sizes[0], 7):
            region = (slice(z, min(z + 7, sizes[0])), slice(3, sizes[1]), slice(0, sizes[2] - 2))
            found = resample.image_region(array, np.ones(3), target, region, interpolation)
            np.testing.assert_allclose(found, expected[region], atol=1e-6)

    def test_large_whole_numbers_keep_their_digits(self):
        array = np.full((3, 4, 5), 2**30 + 1, np.int32)
        assert np.all(whole(array, (1, 1, 1), (0.5, 1, 2)) == 2**30 + 1)


class LabelsTest:
    def test_nearest_by_hand(self):
        labels = np.array([3, 7, 7, 9], np.int32).reshape(1, 1, 4)
        region = tuple(map(slice, (0, 0, 0), (1, 1, 8)))
        found = resample.labels_region(labels, (1, 1, 1), (1, 1, 0.5), region)
        assert found[0, 0].tolist() == [3, 3, 7, 7, 7, 7, 9, 9]
        region = tuple(map(slice, (0, 0, 0), (1, 1, 3)))
        assert resample.labels_region(labels, (1, 1, 1), (1, 1, 1.5), region)[0, 0].tolist() == [3, 7, 9]

    def test_regions_equal_the_whole(self):
        labels = np.random.default_rng(0).integers(0, 9, (11, 7, 5))
        shape = resample.new_shape(labels.shape, (1, 1, 1), (0.8, 1.7, 0.3))
        expected = resample.labels_region(labels, (1, 1, 1), (0.8, 1.7, 0.3), tuple(slice(0, n) for n in shape))
        region = (slice(2, 9), slice(1, 3), slice(4, 5))
        found = resample.labels_region(labels, (1, 1, 1), (0.8, 1.7, 0.3), region)
        np.testing.assert_array_equal(found, expected[region])


class CaseTest:
    def make(self):
        spacing = np.array([1.0, 1.0, 1.0])
        ids = np.zeros((4, 6, 8), np.int32)
        ids[0:2, 0:2, 0:2], ids[0, 3, 4], ids[2:4, 4:6, 4:8] = 1, 2, 3  # 2 is one voxel
        known = np.array([1, 2, 1], np.int32), np.float32([[1], [2], [3]]), np.float32([[[1, 2, 4]]] * 3)
        return Case("a", Volume(ids * 10.0, spacing, spacing_affine(spacing)), ids, *known, "a")

    def test_what_vanishes_is_counted_and_the_others_keep_what_is_known_of_them(self):
        case, dropped = resample.whole_case(self.make(), (2.0, 2.0, 2.0), "linear")
        assert dropped == {"vanished in resampling": 1}
        assert case.instance_ids.shape == case.volume.array.shape == (2, 3, 4)
        assert sorted(np.unique(case.instance_ids)) == [0, 1, 2]
        assert np.argwhere(case.instance_ids == 2).tolist() == [[1, 2, 2], [1, 2, 3]]
        np.testing.assert_array_equal(case.class_ids, [1, 1])
        np.testing.assert_array_equal(case.attributes, [[1], [3]])
        np.testing.assert_array_equal(case.keypoints[0, 0], [0.5, 1, 2])
        np.testing.assert_array_equal(case.volume.spacing, [2, 2, 2])

    def test_no_target_changes_nothing(self):
        case = self.make()
        assert resample.whole_case(case, (), "linear") == (case, {})
