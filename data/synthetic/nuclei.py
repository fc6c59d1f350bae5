"""Crowded nuclei as a fluorescence microscope shows them: touching, unevenly bright, blurred most along z, noisy."""

import math

import numpy as np

from data.synthetic.parts import count_of, ellipsoid_extent, own_axes, rotation, uniform, window

CLASSES = ("nucleus",)
ATTRIBUTES = ()

_ATTEMPTS = 30  # per nucleus, each of another size, turn and place
_GRAIN = 2.0  # micrometres between the nodes of the texture
_HAZE = 4.0  # micrometres, standard deviation of what is out of focus
_MM = 1e-3  # per micrometre


def draw(rng, settings):
    """Draws a stack of nuclei.

    The number of nuclei is uniform in `count`. Each is an ellipsoid of semi-axes of U(radius), turned at random, whole
    inside the volume. A share `crowding` of the tries is made beside a nucleus that is there. A nucleus yields the
    voxels that another has already, up to a share `squeeze` of its own, so that nuclei touch and never overlap; one
    that finds no place in 30 tries is left out.

    The light is that of the nucleus, U(brightness), times a texture of 1 +- `texture`, less what is lost with depth
    (`fading`, linear in z), plus U(haze) times the same blurred by 4 micrometres, as light from other depths is, plus
    U(background). It is blurred by a Gaussian of `blur` micrometres along z, y and x, and counted: the image is
    Poisson(photons * light), the logarithm of photons being U(log(photons)).

    Args and returns: as `data.synthetic.draw`. The image is uint16; the spacing is that of the settings, in mm.
    """
    own = settings.nuclei
    spacing = np.array(own.spacing, np.float64)
    ids = np.zeros(settings.shape, np.int32)
    placed = []  # (centre [3], mean semi-axis), micrometres
    for _ in range(count_of(rng, settings.count)):
        for _ in range(_ATTEMPTS):
            if _place(rng, own, spacing, ids, placed):
                break
    light = np.concatenate([[0.0], uniform(rng, *own.brightness, len(placed))])[ids]
    light *= _texture(rng, ids.shape, spacing, own.texture)
    light *= (1.0 - own.fading * np.arange(len(ids)) / max(len(ids) - 1, 1))[:, None, None]
    if own.haze[1] > 0.0:
        light += uniform(rng, *own.haze) * blur(light, _HAZE / spacing)
    light = blur(light + uniform(rng, *own.background), np.array(own.blur, np.float64) / spacing)
    photons = math.exp(uniform(rng, *map(math.log, own.photons)))
    image = np.minimum(rng.poisson(photons * light), np.iinfo(np.uint16).max).astype(np.uint16)
    class_ids = np.ones(len(placed), np.int32)
    return image, ids, class_ids, np.zeros((len(placed), 0), np.float32), spacing * _MM


def blur(values, sigmas):
    """Gaussian blur, separable, cut off at three standard deviations; beyond the border the outermost voxel goes on.

    Args:
      values: [Z, Y, X] float64.
      sigmas: three floats, voxels; 0: none along that axis.

    Returns:
      [Z, Y, X] float64.
    """
    for axis, sigma in enumerate(sigmas):
        reach = math.ceil(3.0 * sigma)
        if reach == 0:
            continue
        weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(-reach, reach + 1)]
        total = math.fsum(weights)
        padding = [(reach, reach) if other == axis else (0, 0) for other in range(3)]
        padded = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
        length = values.shape[axis]
        blurred = sum(weight / total * padded[tap : tap + length] for tap, weight in enumerate(weights))
        values = np.moveaxis(blurred, 0, axis)
    return values


def _place(rng, own, spacing, ids, placed):
    """Tries one nucleus: writes its number, adds it to `placed` and returns True where it fits."""
    semi_axes = uniform(rng, *own.radius, 3)
    turn = rotation(uniform(rng, 0.0, 2.0 * math.pi, 3))
    half, radius = ellipsoid_extent(semi_axes, turn), float(semi_axes[0] + semi_axes[1] + semi_axes[2]) / 3.0
    room = ids.shape * spacing - 2.0 * half
    centre = half + rng.random(3) * room
    if rng.random() < own.crowding and placed:
        other, other_radius = placed[int(rng.integers(len(placed)))]
        way = rng.standard_normal(3)
        length = math.sqrt(way[0] * way[0] + way[1] * way[1] + way[2] * way[2])
        centre = other + way / length * (other_radius + radius) * uniform(rng, 0.85, 1.05)
    if (room < 0.0).any() or (centre < half).any() or (centre > half + room).any():
        return False
    region, axes = window(ids, centre, -half, half, spacing)
    u, v, w = own_axes(turn / semi_axes, *axes)
    solid = u * u + v * v + w * w <= 1.0
    free = solid & (region == 0)
    kept, whole = np.count_nonzero(free), np.count_nonzero(solid)
    if kept == 0 or whole - kept > own.squeeze * whole:
        return False
    placed.append((centre, radius))
    region[free] = len(placed)
    return True


def _texture(rng, shape, spacing, height):
    """[Z, Y, X] float64 in 1 - height..1 + height: random nodes every 2 micrometres, linear between them."""
    nodes = np.ceil(shape * spacing / _GRAIN).astype(int) + 1
    values = uniform(rng, 1.0 - height, 1.0 + height, nodes)
    for axis, (length, step) in enumerate(zip(shape, spacing, strict=True)):
        places = (np.arange(length) + 0.5) * (step / _GRAIN)
        node = np.minimum(places.astype(int), values.shape[axis] - 2)
        share = (places - node).reshape([-1 if other == axis else 1 for other in range(3)])
        values = np.take(values, node, axis) * (1.0 - share) + np.take(values, node + 1, axis) * share
    return values
