"""Digits of the fonts that matplotlib brings along, as maps of the distance to their outline."""

import dataclasses
import functools
from pathlib import Path as FilePath

import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

FONTS = ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")

_MARGIN = 0.125  # of the map around the glyph, in heights
_STEP = 1.0 / 64.0  # of the map, in heights
_CURVE = np.arange(1, 9)[:, None] / 8.0  # where points of a quadratic curve are taken


@dataclasses.dataclass(frozen=True, eq=False)
class Glyph:
    """A glyph of height 1 around the centre of its box, y down and x to the right.

    Attributes:
      half_width: in heights.
      distance: [R, C] float64, in heights: from the nodes of a grid of `_STEP`, whose first is the upper left corner
        of the box widened by `_MARGIN`, to the outline; negative inside.
    """

    half_width: float
    distance: np.ndarray

    def distances(self, y, x):
        """Distance to the outline, negative inside: linear between nodes, that of the rim beyond the map.

        Args:
          y: float64 array, in heights; x: of the same shape.

        Returns:
          float64 array of that shape, in heights.
        """
        row, down = _node(y + (0.5 + _MARGIN), self.distance.shape[0])
        column, right = _node(x + (self.half_width + _MARGIN), self.distance.shape[1])
        upper = self.distance[row, column] * (1.0 - right) + self.distance[row, column + 1] * right
        lower = self.distance[row + 1, column] * (1.0 - right) + self.distance[row + 1, column + 1] * right
        return upper * (1.0 - down) + lower * down


@functools.cache
def glyph(font, character):
    """The Glyph of a character in one of `FONTS`."""
    segments = _outline(font, character)
    lo, hi = segments.min(axis=(0, 1)), segments.max(axis=(0, 1))
    height = hi[1] - lo[1]
    segments = (segments - (lo + hi) / 2.0) / height * (1.0, -1.0)  # fonts have y up
    half_width = float((hi[0] - lo[0]) / height / 2.0)
    y, x = (np.arange(int(2.0 * (half + _MARGIN) / _STEP) + 2) * _STEP - half - _MARGIN for half in (0.5, half_width))
    return Glyph(half_width, _signed_distance(segments, *np.meshgrid(y, x, indexing="ij")))


def _outline(font, character):
    """[S, 2, 2] float64: segments from (x, y) to (x, y) of the closed loops around a character, y up."""
    file = FilePath(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    loops, points = [], []
    for numbers, code in TextPath((0, 0), character, size=100, prop=FontProperties(fname=str(file))).iter_segments():
        new = numbers.reshape(-1, 2)
        if code == Path.MOVETO:
            points = [new]
        elif code == Path.LINETO:
            points.append(new)
        elif code == Path.CURVE3:
            start = points[-1][-1]
            points.append(start * (1.0 - _CURVE) ** 2 + new[0] * (2.0 * _CURVE * (1.0 - _CURVE)) + new[1] * _CURVE**2)
        else:  # the loop is closed
            loop = np.concatenate(points)
            loops.append(np.stack([loop, np.roll(loop, -1, axis=0)], axis=1))
    segments = np.concatenate(loops)
    return segments[(segments[:, 0] != segments[:, 1]).any(axis=1)]


def _signed_distance(segments, y, x):
    """Distance of points to segments, negative where a ray to the right crosses an odd number of them."""
    squares, inside = np.full(y.shape, np.inf), np.zeros(y.shape, bool)
    for (x0, y0), (x1, y1) in segments:
        along_x, along_y = x1 - x0, y1 - y0
        share = ((x - x0) * along_x + (y - y0) * along_y) / (along_x * along_x + along_y * along_y)
        share = np.clip(share, 0.0, 1.0)
        gap_x, gap_y = x - x0 - share * along_x, y - y0 - share * along_y
        squares = np.minimum(squares, gap_x * gap_x + gap_y * gap_y)
        if along_y:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (along_x / along_y))
    return np.where(inside, -1.0, 1.0) * np.sqrt(squares)


def _node(place, count):
    """The node before a place on a grid that begins at 0, and the way from it to the next, 0..1."""
    place = np.clip(place / _STEP, 0.0, count - 1.0)
    node = np.minimum(place.astype(int), count - 2)
    return node, place - node
