import math

import cc3d
import numpy as np
import pytest

from configs.synthetic_schema import Digits, Synthetic
from data import synthetic
from data.synthetic import digits, glyphs
from data.synthetic.parts import rotation

SHAPE = (40, 52, 61)
HOLES = {"0": 1, "1": 0, "2": 0, "3": 0, "4": 1, "5": 0, "6": 1, "7": 0, "8": 2, "9": 1}


def drawn(index, shape=SHAPE, count=(4, 8), **own):
    return synthetic.draw("digits", Synthetic(shape=shape, count=count, digits=Digits(**own)), index)[:3]


def raster(font, character, stroke=0.0):
    """[64, 80] bool: the glyph upright, 40 pixels high."""
    y, x = np.meshgrid((np.arange(64) - 31.5) / 40, (np.arange(80) - 39.5) / 40, indexing="ij")
    return glyphs.glyph(font, character).distances(y, x) <= stroke


class DigitsTest:
    def test_classes_are_uniform(self):
        class_ids = np.concatenate(
            [drawn(i, shape=(24, 30, 36), count=(3, 3), height=(9.0, 11.0))[2] for i in range(120)]
        )
        share = np.bincount(class_ids, minlength=11)[1:] / len(class_ids)
        np.testing.assert_allclose(share, 0.1, atol=0.06)

    def test_objects_keep_their_voxels_and_are_one_piece_each(self):
        for index in range(4):
            _, ids, class_ids = drawn(index)
            assert len(class_ids) >= 4
            for number in range(1, len(class_ids) + 1):
                assert cc3d.connected_components(ids == number, connectivity=26).max() == 1

    def test_unturned_digit_is_the_glyph_in_every_slice(self):
        _, ids, class_ids = drawn(2, count=(1, 1), height=(20.0, 20.0), depth=(0.5, 0.5), turn=0.0, tilt=0.0)
        points = np.argwhere(ids)
        lo, hi = points.min(axis=0), points.max(axis=0) + 1
        assert hi[0] - lo[0] == pytest.approx(10, abs=1)
        assert hi[1] - lo[1] == pytest.approx(20, abs=2)
        solid = ids[tuple(map(slice, lo, hi))] > 0
        assert (solid == solid[:1]).all()
        holes = cc3d.connected_components(np.pad(~solid[0], 1, constant_values=True)[None], connectivity=6).max() - 1
        assert holes == HOLES[digits.CLASSES[class_ids.item() - 1]]

    def test_turn_stays_within_its_limit(self):
        # The long axis of a 1 leans by the turn; without tilt it stays in the plane (y, x).
        angles = []
        for index in range(120):
            _, ids, class_ids = drawn(index, shape=(30, 40, 44), count=(1, 1), height=(24.0, 24.0), turn=20.0, tilt=0.0)
            if class_ids.tolist() != [2]:
                continue
            points = np.argwhere(ids)[:, 1:].astype(float)
            _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
            angles.append(math.degrees(math.atan2(abs(axes[0, 1]), abs(axes[0, 0]))))
        assert len(angles) >= 5
        assert max(angles) < 20 + 17  # oblique fonts lean by themselves
        assert max(angles) > 8

    def test_brightness_and_noise(self):
        image, ids, _ = drawn(0, brightness=(0.8, 0.8), noise=0.1)
        background = image[ids == 0].astype(float)
        assert (image[ids > 0].mean() - background.mean()) / background.std() == pytest.approx(8.0, rel=0.05)

    def test_without_noise_and_objects_there_is_nothing(self):
        image, ids, class_ids = drawn(0, shape=(5, 7, 11), count=(0, 0), noise=0.0)
        assert (image.max(), ids.max(), len(class_ids)) == (0, 0, 0)


class InsideTest:
    def test_a_turned_glyph_keeps_its_volume(self):
        glyph = glyphs.glyph("DejaVuSans", "4")
        grid = [np.arange(-20, 20) + 0.4, np.arange(-22, 22) + 0.3, np.arange(-24, 24) - 0.2]
        sizes = [
            digits.inside(glyph, 24.0, 0.5, 0.02, rotation(angles), *grid).sum()
            for angles in ((0.0, 0.0, 0.0), (0.5, 0.3, -0.4), (0.2, -0.5, 0.5))
        ]
        np.testing.assert_allclose(sizes, sizes[0], rtol=0.03)

    def test_y_points_down(self):
        # The bar of a 7 is at its top: at small y.
        glyph = glyphs.glyph("DejaVuSans", "7")
        solid = digits.inside(
            glyph, 20.0, 0.5, 0.0, rotation((0.0, 0.0, 0.0)), np.zeros(1), *[np.arange(-12, 13.0)] * 2
        )[0]
        widths = solid.sum(axis=1)
        assert widths[3] > 2 * widths[20]


class GlyphTest:
    @pytest.mark.parametrize("font", glyphs.FONTS)
    def test_every_digit_is_one_stroke_with_its_holes(self, font):
        for character, holes in HOLES.items():
            solid = raster(font, character)
            if (font, character) == ("DejaVuSansMono", "0"):
                holes = 1  # and a dot inside of it
            background = cc3d.connected_components(~solid[None], connectivity=6).max()
            assert background - 1 == holes, (font, character)

    def test_height_is_1_and_width_as_stated(self):
        for character in "0123456789":
            rows, columns = np.nonzero(raster("DejaVuSans", character))
            width = 2 * glyphs.glyph("DejaVuSans", character).half_width
            assert rows.max() + 1 - rows.min() == pytest.approx(40, abs=1)
            assert columns.max() + 1 - columns.min() == pytest.approx(40 * width, abs=1)

    def test_a_six_turned_by_half_is_a_nine(self):
        six, nine = raster("DejaVuSans", "6"), raster("DejaVuSans", "9")
        assert (six[::-1, ::-1] ^ nine).sum() < 0.1 * nine.sum()
        assert (six ^ nine).sum() > 0.3 * nine.sum()

    def test_distance_is_that_to_the_outline(self):
        # A 1 of DejaVu Sans: along its stem's axis the distance grows by 1 per height walked away from the foot.
        glyph = glyphs.glyph("DejaVuSans", "1")
        y = np.array([0.5 + 0.05, 0.5 + 0.1])
        np.testing.assert_allclose(glyph.distances(y, np.zeros(2)), [0.05, 0.1], atol=0.01)

    def test_stroke_widens_on_every_side(self):
        thin, wide = raster("DejaVuSans", "1"), raster("DejaVuSans", "1", stroke=0.05)
        assert (wide | thin == wide).all()
        rows = [np.flatnonzero(solid.any(axis=1)) for solid in (thin, wide)]
        assert rows[0].min() - rows[1].min() == pytest.approx(2, abs=1)
        assert rows[1].max() - rows[0].max() == pytest.approx(2, abs=1)

    def test_beyond_the_map_is_outside(self):
        assert (glyphs.glyph("DejaVuSans", "8").distances(np.array([-9.0, 9.0]), np.array([9.0, 0.0])) > 0.1).all()
