"""Synthetic volumes of ellipsoids, cuboids and pyramids: data without a download."""

import math

import numpy as np

from data.errors import InputError

SHAPES = ("ellipsoid", "cuboid", "pyramid")

# Tries per object, each with a new size, turn and place, before it is left out: enough to fill a
# volume about as far as random placing goes, few enough that a crowded one stays quick.
_ATTEMPTS = 50
# A trial object is tested on every 4th voxel per axis first: most overlaps show there, at 1/64 of
# the cost of the full test.
_COARSE = 4
_FACTOR = (0.5, 2.0)  # size per axis, in units of base_size
_PHOTONS = 10.0  # Poisson counts per unit of intensity
_NORMAL_SIGMA = 0.05
_UNIFORM_HEIGHT = 0.01
_SIGNS = np.array([[z, y, x] for z in (-1.0, 1.0) for y in (-1.0, 1.0) for x in (-1.0, 1.0)])
_CORNERS = {"cuboid": _SIGNS, "pyramid": np.array([*_SIGNS[:4], [1.0, 0.0, 0.0]])}

# Volumes must not depend on the machine. Hence: sine and cosine of scalars from `math` (NumPy's
# array versions differ in the last digit between processors), sums of products written out (BLAS
# and compilers may fuse them), and random numbers drawn in [0, 1) and scaled here for that reason.


def shapes(seed, index, *, shape=(128, 128, 128), count=(3, 20), base_size=15.0, contrast=(0.02, 0.10)):
    """Draws volume `index` of the endless synthetic set `seed`.

    The number of objects n is uniform in `count`; each has a class uniform in `SHAPES`, semi-axes
    of `base_size` * U(0.5, 2), three turns of U(0, 2 pi), an intensity of U(contrast) on a
    background of 0, and a uniform place at which it lies whole inside the volume, covers at least
    one voxel and shares none with another. An object that finds no such place in 50 tries of new
    sizes, turns and places is left out: n is an upper bound where the volume is crowded or small,
    and large objects are then rarer. The image is Poisson(10 I) / 10 + N(0, 0.05) + U(0, 0.01) per
    voxel, stretched to 0..255.

    Equal arguments give equal volumes on every machine with the same NumPy random streams.

    Args:
      seed: int >= 0, names the set.
      index: int >= 0, names the volume within the set.
      shape: three positive ints, voxels.
      count: (least, most) objects, inclusive; 0 <= least <= most.
      base_size: voxels, > 0.
      contrast: (lowest, highest) intensity; 0 <= lowest <= highest.

    Returns:
      image: [Z, Y, X] uint8; all 0 where it has a single voxel.
      ids: [Z, Y, X] int32, 0 background, 1..N the objects in the order of their placing.
      class_ids: [N] int32, 1 + the position in `SHAPES`; N may be 0.

    Raises:
      InputError: a setting is outside of what is stated above.
    """
    shape = _checked_settings(seed, index, shape, count, base_size, contrast)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    ids = np.zeros(shape, np.int32)
    class_ids, intensities = [], [0.0]
    for _ in range(int(rng.integers(count[0], count[1], endpoint=True))):
        kind = int(rng.integers(len(SHAPES)))
        intensity = _uniform(rng, *contrast, None)
        if _place(rng, SHAPES[kind], base_size, ids, len(class_ids) + 1):
            class_ids.append(kind + 1)
            intensities.append(intensity)
    image = _photograph(rng, ids, np.array(intensities))
    return image, ids, np.array(class_ids, np.int32)


def rotation(angles):
    """Matrix of a turn about z, then about y, then about x.

    Args:
      angles: three floats, radians, about z, y and x.

    Returns:
      [3, 3] float64 that acts on (z, y, x) column vectors.
    """
    (cz, cy, cx), (sz, sy, sx) = map(math.cos, angles), map(math.sin, angles)
    about_z = np.array([[1.0, 0.0, 0.0], [0.0, cz, sz], [0.0, -sz, cz]])
    about_y = np.array([[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]])
    about_x = np.array([[cx, sx, 0.0], [-sx, cx, 0.0], [0.0, 0.0, 1.0]])
    return _product(about_x, _product(about_y, about_z))


def extent(kind, semi_axes, turn):
    """Tight bounding box of a turned solid around its own centre.

    Args:
      kind: one of `SHAPES`.
      semi_axes: [3] float64, voxels, along the solid's own z, y, x.
      turn: [3, 3] float64, see `rotation`.

    Returns:
      lo, hi: [3] float64 each, voxels relative to the centre.
    """
    if kind == "ellipsoid":
        squares = (turn * semi_axes) ** 2
        half = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
        return -half, half
    corners = _product(_CORNERS[kind] * semi_axes, turn.T)
    return corners.min(axis=0), corners.max(axis=0)


def inside(kind, semi_axes, turn, z, y, x):
    """Which points of a grid lie in a turned solid.

    A pyramid stands on the face z = -semi_axes[0] of its own box and has its apex above the middle
    of that face, at z = +semi_axes[0].

    Args:
      kind: one of `SHAPES`.
      semi_axes: [3] float64, voxels, along the solid's own z, y, x.
      turn: [3, 3] float64, see `rotation`.
      z: [Z] float64, voxels relative to the solid's centre; y: [Y]; x: [X].

    Returns:
      [Z, Y, X] bool.
    """
    # The inverse of a turn is its transpose; divided by the semi-axes, every solid is a unit one.
    u, v, w = ((to_z * z[:, None] + to_y * y)[:, :, None] + to_x * x for to_z, to_y, to_x in (turn / semi_axes).T)
    if kind == "ellipsoid":
        return u * u + v * v + w * w <= 1.0
    across = np.maximum(np.abs(v), np.abs(w))
    if kind == "cuboid":
        return np.maximum(across, np.abs(u)) <= 1.0
    return (u >= -1.0) & (across <= (1.0 - u) / 2.0)


def _place(rng, kind, base_size, ids, number):
    """Writes `number` into `ids` where a random solid fits; False, and no change, if none does."""
    for _ in range(_ATTEMPTS):
        semi_axes = base_size * _uniform(rng, *_FACTOR, 3)
        turn = rotation(_uniform(rng, 0.0, 2.0 * math.pi, 3))
        place = rng.random(3)
        lo, hi = extent(kind, semi_axes, turn)
        room = ids.shape - (hi - lo)
        if (room < 0.0).any():
            continue
        centre = place * room - lo
        start = np.maximum(np.floor(centre + lo), 0).astype(int)
        stop = np.minimum(np.ceil(centre + hi), ids.shape).astype(int)
        region = ids[tuple(map(slice, start, stop))]
        axes = [np.arange(a, b) + 0.5 - c for a, b, c in zip(start, stop, centre, strict=True)]
        coarse = inside(kind, semi_axes, turn, *(axis[::_COARSE] for axis in axes))
        if (coarse & (region[::_COARSE, ::_COARSE, ::_COARSE] > 0)).any():
            continue
        solid = inside(kind, semi_axes, turn, *axes)
        if solid.any() and not (solid & (region > 0)).any():
            region[solid] = number
            return True
    return False


def _photograph(rng, ids, intensities):
    """Noisy uint8 image of the objects; `intensities` [N + 1] has the background's in front."""
    noisy = rng.standard_normal(ids.shape)
    noisy *= _NORMAL_SIGMA
    noisy += rng.random(ids.shape) * _UNIFORM_HEIGHT
    objects = ids > 0
    noisy[objects] += rng.poisson(intensities[ids[objects]] * _PHOTONS) / _PHOTONS
    lowest, highest = noisy.min(), noisy.max()
    if lowest == highest:
        return np.zeros(ids.shape, np.uint8)
    noisy -= lowest
    noisy /= highest - lowest
    noisy *= 255.0
    return np.rint(noisy).astype(np.uint8)


def _uniform(rng, low, high, size):
    return low + (high - low) * rng.random(size)


def _product(a, b):
    """Matrix product of [N, 3] and [3, 3], summed in a fixed order."""
    return a[:, 0, None] * b[0] + a[:, 1, None] * b[1] + a[:, 2, None] * b[2]


def _checked_settings(seed, index, shape, count, base_size, contrast):
    """The shape as a tuple of Python ints, or an InputError that names the bad setting."""
    _require(_are_ints((seed,)) and seed >= 0, "seed must be an int >= 0", seed)
    _require(_are_ints((index,)) and index >= 0, "index must be an int >= 0", index)
    _require(
        _is_tuple(shape, 3) and _are_ints(shape) and min(shape) > 0,
        "shape must be three positive ints (z, y, x)",
        shape,
    )
    _require(
        _is_tuple(count, 2) and _are_ints(count) and 0 <= count[0] <= count[1],
        "count must be two ints (least, most) with 0 <= least <= most",
        count,
    )
    _require(0.0 < base_size < math.inf, "base_size must be a finite number of voxels > 0", base_size)
    _require(
        _is_tuple(contrast, 2) and 0.0 <= contrast[0] <= contrast[1] < math.inf,
        "contrast must be (lowest, highest) with 0 <= lowest <= highest",
        contrast,
    )
    return tuple(int(n) for n in shape)


def _is_tuple(values, length):
    return isinstance(values, (tuple, list)) and len(values) == length


def _are_ints(values):
    return all(isinstance(v, (int, np.integer)) for v in values)


def _require(condition, expected, got):
    if not condition:
        raise InputError(f"{expected}, got {got!r}")
