import math

import cc3d
import numpy as np
import pytest
import scipy.ndimage

from configs.synthetic_schema import Nuclei, Synthetic
from data import synthetic
from data.synthetic import nuclei

SHAPE = (24, 56, 66)
# Nuclei of one brightness throughout, sharp.
QUIET = {"brightness": (1.0, 1.0), "texture": 0.0, "fading": 0.0, "blur": (0.0, 0.0, 0.0)}


def drawn(index, shape=SHAPE, count=(20, 30), **own):
    return synthetic.draw("nuclei", Synthetic(shape=shape, count=count, nuclei=Nuclei(**own)), index)


def touching(ids):
    """The ids that have a voxel face to face with one of another."""
    found = set()
    for axis in range(3):
        a, b = np.moveaxis(ids, axis, 0)[1:], np.moveaxis(ids, axis, 0)[:-1]
        border = (a != b) & (a > 0) & (b > 0)
        found |= set(a[border]) | set(b[border])
    return found


class NucleiTest:
    def test_most_touch_another_and_each_is_one_piece(self):
        for index in range(3):
            _, ids, class_ids, _, _ = drawn(index)
            assert len(class_ids) >= 10
            assert len(touching(ids)) > 0.6 * len(class_ids)
            for number in range(1, len(class_ids) + 1):
                pieces = cc3d.connected_components(ids == number, connectivity=26)
                assert np.bincount(pieces.ravel())[1:].max() > 0.99 * (ids == number).sum()

    def test_without_crowding_and_squeeze_few_touch(self):
        shares = [
            len(touching(ids)) / len(class_ids)
            for _, ids, class_ids, _, _ in (drawn(i, count=(6, 6), crowding=0.0, squeeze=0.0) for i in range(4))
        ]
        assert np.mean(shares) < 0.4

    def test_volumes_are_those_of_the_radii_less_what_is_yielded(self):
        # Semi-axes of 4 micrometres in voxels of 1 x 0.5 x 0.5.
        whole = 4 / 3 * math.pi * 4.0**3 / 0.25
        for index in range(3):
            voxels = np.bincount(drawn(index, radius=(4.0, 4.0), squeeze=0.15)[1].ravel())[1:]
            assert voxels.max() == pytest.approx(whole, rel=0.05)
            assert voxels.min() > 0.8 * whole

    def test_lie_whole_inside(self):
        for index in range(4):
            _, ids, class_ids, _, _ = drawn(index, radius=(3.0, 3.0), squeeze=0.0)
            voxels = np.bincount(ids.ravel(), minlength=len(class_ids) + 1)[1:]
            assert (voxels > 0.9 * 4 / 3 * math.pi * 27 / 0.25).all()

    def test_spacing_is_in_mm_and_stretches_the_ids(self):
        spacing = (2.0, 0.5, 0.25)
        _, ids, _, _, mm = drawn(0, shape=(12, 48, 96), count=(1, 1), spacing=spacing, radius=(5.0, 5.0))
        np.testing.assert_allclose(mm, [2e-3, 5e-4, 2.5e-4])
        points = np.argwhere(ids)
        np.testing.assert_allclose(points.max(axis=0) + 1 - points.min(axis=0), [5, 20, 40], atol=1)

    def test_counts_are_those_of_photons(self):
        image, ids, _, _, _ = drawn(1, background=(0.1, 0.1), photons=(50.0, 50.0), **QUIET)
        for mask, mean in ((ids == 0, 5.0), (ids > 0, 55.0)):
            assert image[mask].mean() == pytest.approx(mean, rel=0.01)
            assert image[mask].var() == pytest.approx(mean, rel=0.05)  # Poisson

    def test_every_stack_has_its_own_light(self):
        found = []
        for index in range(40):
            image, ids, _, _, _ = drawn(
                index, shape=(8, 40, 44), count=(1, 1), background=(0.2, 0.6), photons=(4.0, 64.0), **QUIET
            )
            found.append((image[ids == 0].mean(), image[ids > 0].mean()))
        around, inside = np.array(found).T
        photons, background = inside - around, around / (inside - around)
        assert 3.5 < photons.min() < 8.0
        assert 32.0 < photons.max() < 72.0
        assert np.median(photons) == pytest.approx(16.0, rel=0.5)  # the middle of the logarithms
        assert 0.15 < background.min() < 0.3
        assert 0.5 < background.max() < 0.65

    def test_haze_is_light_of_other_depths(self):
        image, ids, _, _, _ = drawn(1, haze=(0.8, 0.8), background=(0.0, 0.0), photons=(1e4, 1e4), **QUIET)
        light = (ids > 0).astype(float)
        sigmas = np.array([4.0, 8.0, 8.0])  # 4 micrometres in voxels of 1 x 0.5 x 0.5
        haze = scipy.ndimage.gaussian_filter(light, sigmas, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(image / 1e4, light + 0.8 * haze, atol=0.06)  # Poisson: six deviations

    def test_every_stack_has_its_own_haze(self):
        found = []
        for index in range(20):
            image, ids, _, _, _ = drawn(index, haze=(0.0, 2.0), background=(0.0, 0.0), photons=(1e4, 1e4))
            found.append(image[ids == 0].mean() / image[ids > 0].mean())
        assert min(found) < 0.15
        assert max(found) > 0.25

    def test_light_fades_with_depth(self):
        quiet = {
            "brightness": (1.0, 1.0),
            "texture": 0.0,
            "background": (0.0, 0.0),
            "blur": (0.0, 0.0, 0.0),
            "photons": (500.0, 500.0),
        }
        image, ids, _, _, _ = drawn(1, fading=0.5, **quiet)
        means = [image[z][ids[z] > 0].mean() / 500 for z in (2, 12, 21)]
        np.testing.assert_allclose(means, [1 - 0.5 * z / 23 for z in (2, 12, 21)], rtol=0.02)

    def test_texture_and_brightness_vary(self):
        quiet = {"fading": 0.0, "background": (0.0, 0.0), "blur": (0.0, 0.0, 0.0), "photons": (1e4, 1e4)}
        image, ids, class_ids, _, _ = drawn(1, texture=0.3, brightness=(0.4, 1.0), **quiet)
        light = [image[ids == number] / 1e4 for number in range(1, len(class_ids) + 1)]
        middles = [values.mean() for values in light]
        assert 0.35 < min(middles) < 0.6
        assert 0.8 < max(middles) < 1.1
        spreads = [(values.max() - values.min()) / values.mean() for values in light]
        assert 0.2 < np.mean(spreads) < 0.65

    def test_blur_is_widest_along_z(self):
        sharp, blurred = (
            drawn(0, blur=blur, photons=(1e4, 1e4), texture=0.0)[0] for blur in ((0, 0, 0), (2.0, 0.3, 0.3))
        )
        steps = [
            [np.abs(np.diff(image.astype(float), axis=axis)).mean() for axis in range(3)] for image in (sharp, blurred)
        ]
        kept = np.array(steps[1]) / np.array(steps[0])
        assert kept[0] < 0.8 * kept[1]
        assert kept[1] == pytest.approx(kept[2], rel=0.1)


class BlurTest:
    def test_equals_scipy(self):
        values = np.random.default_rng(0).random((9, 11, 14))
        expected = scipy.ndimage.gaussian_filter(values, (1.0, 2.0, 0.5), mode="nearest", radius=(3, 6, 2))
        np.testing.assert_allclose(nuclei.blur(values, (1.0, 2.0, 0.5)), expected, rtol=1e-12)

    def test_no_blur_changes_nothing(self):
        values = np.random.default_rng(0).random((3, 4, 5))
        np.testing.assert_array_equal(nuclei.blur(values, (0.0, 0.0, 0.0)), values)

    def test_wider_than_the_volume(self):
        values = np.full((2, 1, 3), 4.0)
        np.testing.assert_allclose(nuclei.blur(values, (5.0, 5.0, 5.0)), values)
