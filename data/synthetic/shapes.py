"""Ellipsoids, cuboids and pyramids: the toy task of 3D instance segmentation."""

import math

import numpy as np

from data.synthetic.parts import as_bytes, count_of, ellipsoid_extent, own_axes, place, product, rotation, uniform

CLASSES = ("ellipsoid", "cuboid", "pyramid")
ATTRIBUTES = ("contrast",)  # intensity, on a background of 0

_FACTOR = (0.5, 2.0)  # size per axis, in units of base_size
_PHOTONS = 10.0  # Poisson counts per unit of intensity
_NORMAL_SIGMA = 0.05
_UNIFORM_HEIGHT = 0.01
_SIGNS = np.array([[z, y, x] for z in (-1.0, 1.0) for y in (-1.0, 1.0) for x in (-1.0, 1.0)])
_CORNERS = {"cuboid": _SIGNS, "pyramid": np.array([*_SIGNS[:4], [1.0, 0.0, 0.0]])}


def draw(rng, settings):
    """Draws a volume of turned solids in noise.

    The number of objects n is uniform in `count`; each has a class uniform in `CLASSES`, semi-axes
    of `base_size` * U(0.5, 2), three turns of U(0, 2 pi), an intensity of U(contrast) on a
    background of 0, and a uniform place at which it lies whole inside the volume, covers at least
    one voxel and shares none with another. An object that finds no such place in 50 tries of new
    sizes, turns and places is left out: n is an upper bound where the volume is crowded or small,
    and large objects are then rarer. The image is Poisson(10 I) / 10 + N(0, 0.05) + U(0, 0.01) per
    voxel, stretched to 0..255.

    Args and returns: as `data.synthetic.draw`. The image is uint8, all 0 where it has a single voxel;
    objects are numbered in the order of their placing; attributes [N, 1] are their intensities; the
    spacing is 1 mm.
    """
    ids = np.zeros(settings.shape, np.int32)
    class_ids, intensities = [], [0.0]
    for _ in range(count_of(rng, settings.count)):
        kind = int(rng.integers(len(CLASSES)))
        intensity = uniform(rng, *settings.contrast)
        propose = _solids(rng, CLASSES[kind], settings.base_size)
        if place(rng, ids, len(class_ids) + 1, propose):
            class_ids.append(kind + 1)
            intensities.append(intensity)
    image = _photograph(rng, ids, np.array(intensities))
    attributes = np.array(intensities[1:], np.float32)[:, None]
    return image, ids, np.array(class_ids, np.int32), attributes, np.ones(3)


def extent(kind, semi_axes, turn):
    """Tight bounding box of a turned solid around its own centre.

    Args:
      kind: one of `CLASSES`.
      semi_axes: [3] float64, voxels, along the solid's own z, y, x.
      turn: [3, 3] float64, see `parts.rotation`.

    Returns:
      lo, hi: [3] float64 each, voxels relative to the centre.
    """
    if kind == "ellipsoid":
        half = ellipsoid_extent(semi_axes, turn)
        return -half, half
    corners = product(_CORNERS[kind] * semi_axes, turn.T)
    return corners.min(axis=0), corners.max(axis=0)


def inside(kind, semi_axes, turn, z, y, x):
    """Which points of a grid lie in a turned solid.

    A pyramid stands on the face z = -semi_axes[0] of its own box and has its apex above the middle
    of that face, at z = +semi_axes[0].

    Args:
      kind: one of `CLASSES`.
      semi_axes: [3] float64, along the solid's own z, y, x.
      turn: [3, 3] float64, see `parts.rotation`.
      z: [Z] float64, relative to the solid's centre; y: [Y]; x: [X].

    Returns:
      [Z, Y, X] bool.
    """
    u, v, w = own_axes(turn / semi_axes, z, y, x)  # in which every solid is a unit one
    if kind == "ellipsoid":
        return u * u + v * v + w * w <= 1.0
    across = np.maximum(np.abs(v), np.abs(w))
    if kind == "cuboid":
        return np.maximum(across, np.abs(u)) <= 1.0
    return (u >= -1.0) & (across <= (1.0 - u) / 2.0)


def _solids(rng, kind, base_size):
    """A function that draws solids of a kind, for `parts.place`."""

    def propose():
        semi_axes = base_size * uniform(rng, *_FACTOR, 3)
        turn = rotation(uniform(rng, 0.0, 2.0 * math.pi, 3))
        return *extent(kind, semi_axes, turn), lambda z, y, x: inside(kind, semi_axes, turn, z, y, x)

    return propose


def _photograph(rng, ids, intensities):
    """Noisy uint8 image of the objects; `intensities` [N + 1] has the background's in front."""
    noisy = rng.standard_normal(ids.shape)
    noisy *= _NORMAL_SIGMA
    noisy += rng.random(ids.shape) * _UNIFORM_HEIGHT
    objects = ids > 0
    noisy[objects] += rng.poisson(intensities[ids[objects]] * _PHOTONS) / _PHOTONS
    return as_bytes(noisy)
