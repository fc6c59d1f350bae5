"""What the synthetic sets share: random numbers, turned solids, places, bytes.

Volumes must not depend on the machine. Hence: functions such as sine and exponential of scalars from `math` (NumPy's
array versions differ in the last digit between processors), sums of products written out (BLAS and compilers may fuse
them), and random numbers drawn in [0, 1) and scaled here for that reason.
"""

import math

import numpy as np

# Tries per object, each with a new size, turn and place, before it is left out: enough to fill a
# volume about as far as random placing goes, few enough that a crowded one stays quick.
_ATTEMPTS = 50
# A trial object is tested on every 4th voxel per axis first: most overlaps show there, at 1/64 of
# the cost of the full test.
_COARSE = 4


def uniform(rng, low, high, size=None):
    """Numbers in [low, high): a float, or an array of the given size."""
    return low + (high - low) * rng.random(size)


def count_of(rng, count):
    """An int in (least, most), both inclusive."""
    return int(rng.integers(count[0], count[1], endpoint=True))


def product(a, b):
    """Matrix product of [N, 3] and [3, 3], summed in a fixed order."""
    return a[:, 0, None] * b[0] + a[:, 1, None] * b[1] + a[:, 2, None] * b[2]


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
    return product(about_x, product(about_y, about_z))


def own_axes(turn, z, y, x):
    """Coordinates of a grid's points along a turned solid's own axes.

    Args:
      turn: [3, 3] float64, see `rotation`; columns may be divided by lengths, which are then the units.
      z: [Z] float64, relative to the solid's centre; y: [Y]; x: [X].

    Returns:
      Three [Z, Y, X] float64: along the solid's z, y and x.
    """
    # The inverse of a turn is its transpose.
    return [((to_z * z[:, None] + to_y * y)[:, :, None] + to_x * x) for to_z, to_y, to_x in turn.T]


def ellipsoid_extent(semi_axes, turn):
    """[3] float64: half of the tight bounding box of a turned ellipsoid, in the unit of its semi-axes [3]."""
    squares = (turn * semi_axes) ** 2
    return np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])


def place(rng, ids, number, propose):
    """Writes `number` into `ids` where a random solid lies whole inside and shares no voxel with another.

    Args:
      rng: numpy Generator.
      ids: [Z, Y, X] int32, 0 where there is room; written to.
      number: int >= 1.
      propose: function that draws a solid: (lo, hi, inside); lo and hi [3] voxels bound it around its centre,
        inside(z, y, x) tells which points of a grid around the centre lie in it: [Z, Y, X] bool.

    Returns:
      bool: False, and `ids` is as it was, where none of 50 solids found a place with at least one voxel.
    """
    for _ in range(_ATTEMPTS):
        lo, hi, inside = propose()
        chance = rng.random(3)
        room = ids.shape - (hi - lo)
        if (room < 0.0).any():
            continue
        centre = chance * room - lo
        region, axes = window(ids, centre, lo, hi)
        coarse = inside(*(axis[::_COARSE] for axis in axes))
        if (coarse & (region[::_COARSE, ::_COARSE, ::_COARSE] > 0)).any():
            continue
        solid = inside(*axes)
        if solid.any() and not (solid & (region > 0)).any():
            region[solid] = number
            return True
    return False


def window(ids, centre, lo, hi, spacing=(1.0, 1.0, 1.0)):
    """The voxels of a volume within a box, and where their centres lie.

    Args:
      ids: [Z, Y, X].
      centre: [3] float64, in units of `spacing`; lo, hi: [3], of the box, relative to the centre.
      spacing: lengths of a voxel along z, y, x.

    Returns:
      A view of `ids`, and three [n] float64: coordinates along z, y and x relative to the centre.
    """
    start = np.maximum(np.floor((centre + lo) / spacing), 0).astype(int)
    stop = np.minimum(np.ceil((centre + hi) / spacing), ids.shape).astype(int)
    axes = [(np.arange(a, b) + 0.5) * s - c for a, b, c, s in zip(start, stop, centre, spacing, strict=True)]
    return ids[tuple(map(slice, start, stop))], axes


def as_bytes(values):
    """Stretches float64 values, which are overwritten, to uint8 0..255; all 0 where all are equal."""
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return np.zeros(values.shape, np.uint8)
    values -= lowest
    values /= highest - lowest
    values *= 255.0
    return np.rint(values).astype(np.uint8)
