import numpy as np
import pytest

from planning import network

STEPS, KERNELS = [(2, 2, 2)] * 4, [(5, 5, 5), (3, 3, 3), (3, 3, 3), (3, 3, 3)]


class StridesTest:
    def test_thick_slices_are_not_strided_at_first(self):
        # Spacing 4, 1, 1 -> 4, 2, 2 -> 4, 4, 4, from where on all axes are alike.
        steps, kernels = network.strides_and_kernels(STEPS, KERNELS, (4, 1, 1), (64, 256, 256))
        assert steps == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
        assert kernels == ((1, 5, 5), (1, 3, 3), (3, 3, 3), (3, 3, 3))

    def test_cubes_are_strided_alike(self):
        steps, kernels = network.strides_and_kernels(STEPS[:3], KERNELS[:3], (1, 1.5, 1), (64, 96, 128))
        assert steps == ((2, 2, 2),) * 3
        assert kernels == tuple(KERNELS[:3])

    def test_a_short_axis_keeps_four_cells(self):
        steps, _ = network.strides_and_kernels(STEPS, KERNELS, (1, 1, 1), (16, 32, 64))
        assert np.prod(steps, axis=0).tolist() == [4, 8, 16]

    def test_a_layer_without_stride_gets_none(self):
        steps, _ = network.strides_and_kernels([(2, 2, 2), (1, 1, 1)], KERNELS[:2], (1, 1, 1), (64, 64, 64))
        assert steps == ((2, 2, 2), (1, 1, 1))


class TargetSpacingTest:
    def test_median_of_every_axis(self):
        spacings = [(2, 1, 0.5), (3, 1, 0.5), (2.5, 2, 0.9)]
        assert network.target_spacing(spacings, [(64, 64, 64)] * 3).tolist() == [2.5, 1, 0.5]

    def test_thick_slices_become_finer_but_stay_the_coarsest(self):
        spacings = [(z, 1, 1) for z in range(5, 16)]
        found = network.target_spacing(spacings, [(20, 256, 200)] * 11)
        assert found.tolist() == [6, 1, 1]  # the 10th percentile of 5 .. 15
        finest = network.target_spacing([(4, 1, 1)] * 9 + [(0.5, 1, 1)] * 2, [(20, 256, 200)] * 11)
        assert finest[0] == pytest.approx(1, abs=1e-4)

    def test_thick_but_many_slices_keep_their_median(self):
        assert network.target_spacing([(4, 1, 1)] * 3, [(100, 256, 256)] * 3).tolist() == [4, 1, 1]


class PatchSizeTest:
    def test_the_whole_volume_where_it_fits(self):
        assert network.patch_size((50, 64, 100), (8, 8, 8), (8, 16, 16), lambda patch: True) == (56, 64, 112)

    def test_memory_is_kept_and_more_of_it_never_gives_less(self):
        sizes = []
        for limit in (1e4, 1e5, 1e6, 1e7):
            patch = network.patch_size((60, 120, 240), (8, 8, 8), (8, 16, 16), lambda p, most=limit: np.prod(p) <= most)
            assert np.prod(patch) <= limit
            assert np.mod(patch, (8, 16, 16)).tolist() == [0, 0, 0]
            sizes.append(np.prod(patch))
        assert sizes == sorted(sizes)
        assert patch == (64, 128, 240)

    def test_objects_stay_covered_even_without_memory(self):
        assert network.patch_size((60, 120, 240), (20, 30, 40), (8, 16, 16), lambda patch: False) == (24, 32, 48)


class RoisTest:
    def test_bins_follow_the_cells_of_the_median_object(self):
        sizes = np.float64([[4, 20, 28], [8, 20, 28], [90, 20, 28]])
        assert network.roi_size(sizes, (1, 4, 4), 7) == (7, 4, 6)
        assert network.roi_size(sizes, (8, 4, 4), 7) == (3, 5, 7)

    def test_masks_have_the_voxels_of_the_median_object_within_bounds(self):
        assert network.mask_roi_size(np.float64([[3, 17, 90]])) == (4, 9, 14)

    def test_canonical_size_is_one_to_two_cells_per_bin(self):
        assert network.canonical_size(np.float64([[3, 40, 90]]), (2, 4, 4), (3, 7, 7)) == (6, 40, 56)


class CountsTest:
    def test_most_in_a_patch(self):
        boxes = np.float64([[0, 0, x, 4, 4, x + 4] for x in (0, 5, 10, 90)] + [[0, 0, 0, 2, 2, 2]])
        cases, shapes = np.array([0, 0, 0, 0, 1]), np.array([[8, 16, 100], [8, 16, 20]])
        assert network.most_in_a_patch(boxes, cases, shapes, (8, 16, 12)) == 3
        assert network.most_in_a_patch(boxes, cases, shapes, (8, 16, 100)) == 4
        assert network.most_in_a_patch(boxes[:0], cases[:0], shapes, (8, 16, 12)) == 0

    def test_planes_that_may_be_turned(self):
        planes = ((0, 1), (0, 2), (1, 2))
        assert network.turnable_planes(planes, (32, 64, 64), (1, 1, 1)) == ((1, 2),)
        assert network.turnable_planes(planes, (64, 64, 64), (3, 1, 1.5)) == ((1, 2),)
        assert network.turnable_planes(planes, (64, 64, 64), (1, 1, 1)) == planes
