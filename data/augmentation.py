"""From a case to a training patch: every random step in its order.

place and bend (or mosaic of crops) -> paste -> mirror -> quarter turn -> intensities

An example is a dict as in data/augment.py, with `spacing` [3] float32 mm beside. A seed is an int32 [2] tensor. A step
draws from a seed of its own: to switch one off does not change what the others draw.
"""

import functools

import numpy as np
import tensorflow as tf

from data import appearance, augment, paste, places, warp

_CHANGED = ("volume", "instance_ids", "class_ids", "attributes", "keypoints")
# Spacings that differ by less count as equal.
_SPACING_TOLERANCE = 0.01


def augment_example(example, config, seed, patch_size, donor=None, corner=None):
    """A random patch of a case.

    Args:
      example: see above; the whole case, or a chunk of it, normalised.
      config: the `input` section of a Config: foreground, flip_axes, rotate_planes and augment count.
      seed: int32 [2].
      patch_size: (z, y, x).
      donor: a second such example, of which instances are pasted and crops go into mosaics; None: no instances are
        pasted, and mosaics are of this case alone.
      corner: [3] int32, the place of a patch that is not a mosaic, if it has been drawn already.

    Returns:
      The example with volume [*patch_size, C], instance_ids [*patch_size] and what became of its instances: an id of
      1..N that left the patch has no voxels.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5))
    settings, known = config.augment, {key: example[key] for key in (*_CHANGED, "spacing")}
    patch = _patch(known, donor, config, seeds[0], patch_size, corner)
    if donor is not None:
        pasting = functools.partial(_pasted, donor=donor, settings=settings.paste)
        patch = appearance.sometimes(settings.paste.probability, pasting, patch, seeds[1])
    patch = augment.flip(patch, config.flip_axes, seeds[2])
    patch = turn(patch, config.rotate_planes, example["spacing"], seeds[3])
    volume = appearance.change(patch["volume"], settings, seeds[4])
    return {**example, **patch, "volume": volume}


def turn(example, planes, spacing, seed):
    """`augment.rotate90` in those of the planes whose two axes have equal spacing (to 1 %).

    Args:
      example: with static sizes that are equal within every plane.
      planes: pairs of axes.
      spacing: [3] float32, mm.
      seed: int32 [2].
    """

    def is_equal(a, b):
        return tf.abs(spacing[a] - spacing[b]) <= _SPACING_TOLERANCE * tf.minimum(spacing[a], spacing[b])

    if not planes:
        return example
    equal = [is_equal(a, b) for a, b in planes]
    # Of three planes all are equal, one or none; two equal ones would make the third equal.
    turned = lambda: example  # noqa: E731
    for plane, holds in zip(planes, equal, strict=True):
        turned = functools.partial(tf.cond, holds, functools.partial(augment.rotate90, example, (plane,), seed), turned)
    return tf.cond(tf.reduce_all(equal), lambda: augment.rotate90(example, planes, seed), turned)


def mosaic(sources, patch_size, grid, foreground, seed, by="instance"):
    """A patch put together from random crops.

    Args:
      sources: list of examples; crop i is from the (i modulo their number)-th.
      patch_size: (z, y, x), a multiple of the grid.
      grid: (z, y, x) crops per axis.
      foreground, by: of each crop, see `places.random_corner`.
      seed: int32 [2].

    Returns:
      dict of volume, instance_ids, class_ids, attributes and keypoints, see `augment.mosaic`; what two crops show of
      one instance is two instances, and a landmark that lies outside of its crop is not known (NaN).
    """
    size = tuple(p // g for p, g in zip(patch_size, grid, strict=True))
    num_tiles = grid[0] * grid[1] * grid[2]
    num_slots = functools.reduce(tf.maximum, [tf.shape(source["class_ids"])[0] for source in sources])
    tiles = []
    for number, tile_seed in enumerate(tf.unstack(tf.random.experimental.stateless_split(seed, num_tiles))):
        source = sources[number % len(sources)]
        tile = places.window(source, places.random_corner(source, size, foreground, tile_seed, by), size)
        # Elsewhere in the mosaic it would be a place that shows something else.
        points = tile["keypoints"]
        inside = tf.reduce_all((points >= 0) & (points <= tf.constant(size, tf.float32)), axis=-1, keepdims=True)
        tile = {**tile, "keypoints": tf.where(inside, points, np.nan)}
        missing = num_slots - tf.shape(tile["class_ids"])[0]
        for name in ("class_ids", "attributes", "keypoints"):
            rank = len(tile[name].shape)
            tile = {**tile, name: tf.pad(tile[name], [[0, missing]] + [[0, 0]] * (rank - 1))}
        tiles.append(tile)
    return augment.mosaic({name: tf.stack([tile[name] for tile in tiles]) for name in _CHANGED}, grid)


def _patch(example, donor, config, seed, patch_size, corner):
    """Places and bends a patch, or puts a mosaic together: dict of what has changed."""
    coin, mosaic_seed, place_seed, bend_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    settings = config.augment.mosaic

    def placed():
        place = corner
        if place is None:
            place = places.random_corner(example, patch_size, config.foreground, place_seed, config.foreground_by)
        return _bent(example, place, patch_size, config.augment, bend_seed)

    def joined():
        sources = [example] if donor is None else [example, donor]
        return mosaic(sources, patch_size, settings.grid, config.foreground, mosaic_seed, config.foreground_by)

    if settings.probability == 0:
        return placed()
    return tf.cond(tf.random.stateless_uniform([], coin) < settings.probability, joined, placed)


def _bent(example, corner, patch_size, settings, seed):
    """The patch at a corner, bent where that is drawn."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    affine, elastic = settings.affine, settings.elastic
    turns = tf.random.stateless_uniform([], seeds[0]) < affine.probability
    bends = tf.random.stateless_uniform([], seeds[1]) < elastic.probability
    changed = {key: example[key] for key in _CHANGED}

    def resampled():
        matrix = tf.cond(turns, lambda: warp.random_affine(affine, example["spacing"], seeds[2]), lambda: tf.eye(3))
        control = warp.random_control(elastic, patch_size, seeds[3]) * tf.cast(bends, tf.float32)
        return warp.warp(changed, corner, patch_size, matrix, control, elastic.grid)

    if affine.probability == elastic.probability == 0:
        return places.window(changed, corner, patch_size)
    return tf.cond(turns | bends, resampled, lambda: places.window(changed, corner, patch_size))


def _pasted(patch, seed, donor, settings):
    return paste.paste(patch, donor, settings, seed)
