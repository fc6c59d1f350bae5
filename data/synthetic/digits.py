"""Extruded digits in several fonts and weights, turned in space: many classes that differ in detail."""

import math

import numpy as np

from data.synthetic import glyphs
from data.synthetic.parts import as_bytes, count_of, own_axes, place, rotation, uniform

CLASSES = tuple("0123456789")
ATTRIBUTES = ()


def draw(rng, settings):
    """Draws a volume of digits in noise.

    The number of digits is uniform in `count`. Each has a class uniform in 0..9, one of the fonts of `glyphs.FONTS`, a
    height, an extrusion and a widening of its strokes uniform in their ranges, a turn within its plane and tilts
    about y and x uniform up to `turn` and `tilt` either way, a brightness, and a uniform place at which it lies whole
    inside and shares no voxel with another. Without a turn the glyph lies in the plane (y, x), upright where y points
    down. A digit that finds no place in 50 tries of new sizes, turns and places is left out. The image is the
    brightness plus N(0, noise), stretched to 0..255.

    Args and returns: as `data.synthetic.draw`. The image is uint8; the spacing is 1 mm.
    """
    own = settings.digits
    ids = np.zeros(settings.shape, np.int32)
    class_ids, brightness = [], [0.0]
    for _ in range(count_of(rng, settings.count)):
        digit, font = int(rng.integers(len(CLASSES))), glyphs.FONTS[int(rng.integers(len(glyphs.FONTS)))]
        light = uniform(rng, *own.brightness)
        if place(rng, ids, len(class_ids) + 1, _solids(rng, glyphs.glyph(font, CLASSES[digit]), own)):
            class_ids.append(digit + 1)
            brightness.append(light)
    noisy = rng.standard_normal(ids.shape) * own.noise + np.array(brightness)[ids]
    no_attributes = np.zeros((len(class_ids), 0), np.float32)
    return as_bytes(noisy), ids, np.array(class_ids, np.int32), no_attributes, np.ones(3)


def inside(glyph, height, depth, stroke, turn, z, y, x):
    """Which points of a grid lie in a turned, extruded glyph.

    Args:
      glyph: glyphs.Glyph.
      height: voxels; depth, stroke: of the extrusion and of the widening on every side, in heights.
      turn: [3, 3] float64, see `parts.rotation`.
      z: [Z] float64, voxels relative to the glyph's centre; y: [Y]; x: [X].

    Returns:
      [Z, Y, X] bool.
    """
    u, v, w = own_axes(turn / height, z, y, x)
    within = np.abs(u) <= depth / 2.0
    within[within] = glyph.distances(v[within], w[within]) <= stroke
    return within


def _solids(rng, glyph, own):
    """A function that draws sizes and turns of a glyph, for `parts.place`."""

    def propose():
        height, depth, stroke = (uniform(rng, *interval) for interval in (own.height, own.depth, own.stroke))
        limits = (math.radians(own.turn), math.radians(own.tilt), math.radians(own.tilt))
        turn = rotation([uniform(rng, -limit, limit) for limit in limits])
        half = height * np.array([depth / 2.0, 0.5 + stroke, glyph.half_width + stroke])
        sides = np.abs(turn) * half
        reach = sides[:, 0] + sides[:, 1] + sides[:, 2]
        return -reach, reach, lambda z, y, x: inside(glyph, height, depth, stroke, turn, z, y, x)

    return propose
