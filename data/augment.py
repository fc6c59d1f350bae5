"""Views of an example: its middle, flips, quarter turns and mosaics.

An example is a dict with volume [Z, Y, X, C] float32, instance_ids [Z, Y, X] int32 (n + 1 is instance n), class_ids [N]
int32, attributes [N, T] float32 and keypoints [N, L, 3] float32 voxels, which move with the volume and may lie outside;
other keys pass through. Boxes do not appear: they are computed from the ids when all is done. A seed is an int32 [2]
tensor, and equal seeds give equal results.
"""

import math

import numpy as np
import tensorflow as tf


def fit(example, size):
    """Cuts the middle of an example, or pads it by zeros on both sides, to `size` (z, y, x)."""
    shape = tf.shape(example["instance_ids"])
    kept = tf.minimum(shape, size)
    return _window(example, (shape - kept) // 2, kept, size)


def flip(example, axes, seed):
    """Mirrors an example on each of its axes with probability 1/2.

    Args:
      example: see above.
      axes: three booleans (z, y, x), which axes may be mirrored.
      seed: int32 [2].
    """
    if not any(axes):
        return example
    coins = tf.random.stateless_uniform([3], seed) < 0.5
    return _reverse(example, coins & tf.constant(axes))


def rotate90(example, planes, seed):
    """Turns an example by a rotation drawn uniformly from all that quarter turns in `planes` generate.

    Args:
      example: see above, with static sizes that are equal within every plane.
      planes: pairs of axes; () leaves the example as it is.
      seed: int32 [2].

    Raises:
      ValueError: a plane whose sizes differ.
    """
    if not planes:
        return example
    shape = example["instance_ids"].shape
    for a, b in planes:
        if shape[a] is None or shape[a] != shape[b]:
            raise ValueError(f"rotate90 needs equal sizes on the axes {(a, b)}, got {tuple(shape)}")
    orders, mirrors = zip(*_rotations(planes), strict=True)
    choice = tf.random.stateless_uniform([], seed, maxval=len(orders), dtype=tf.int32)
    order, mirrored = tf.constant(orders)[choice], tf.constant(mirrors)[choice]
    volume, ids = example["volume"], example["instance_ids"]
    turned = {
        **example,
        "volume": tf.ensure_shape(tf.transpose(volume, tf.concat([order, [3]], 0)), volume.shape),
        "instance_ids": tf.ensure_shape(tf.transpose(ids, order), shape),
        "keypoints": tf.gather(example["keypoints"], order, axis=-1),
    }
    return _reverse(turned, mirrored)


def mosaic(examples, grid):
    """Joins examples of one size into a single one.

    Args:
      examples: dict of stacked examples: volume [n, Z, Y, X, C], instance_ids [n, Z, Y, X], class_ids [n, N],
        attributes [n, N, T] and keypoints [n, N, L, 3], where an example with fewer than N instances is padded.
      grid: (z, y, x) examples per axis, n in all, filled in row-major order.

    Returns:
      dict: volume [z * Z, y * Y, x * X, C], instance_ids of that size, class_ids [n * N], attributes [n * N, T],
      keypoints [n * N, L, 3].
    """
    class_ids, attributes = examples["class_ids"], examples["attributes"]
    num_tiles, num_slots = math.prod(grid), tf.shape(class_ids)[1]
    offsets = tf.range(num_tiles) * num_slots
    ids = examples["instance_ids"]
    sizes = tf.cast(tf.shape(ids)[1:], tf.float32)
    ids = tf.where(ids > 0, ids + offsets[:, tf.newaxis, tf.newaxis, tf.newaxis], 0)
    corners = tf.constant(list(np.ndindex(*grid)), tf.float32) * sizes  # [n, 3]
    keypoints = examples["keypoints"] + corners[:, tf.newaxis, tf.newaxis]
    return {
        "volume": _tile(examples["volume"], grid),
        "instance_ids": _tile(ids[..., tf.newaxis], grid)[..., 0],
        "class_ids": tf.reshape(class_ids, [-1]),
        # Not -1: there may be no attributes or landmarks, and then it would be any number.
        "attributes": tf.reshape(attributes, [num_tiles * num_slots, tf.shape(attributes)[2]]),
        "keypoints": tf.reshape(keypoints, [num_tiles * num_slots, tf.shape(keypoints)[2], 3]),
    }


def _window(example, start, size, padded_size):
    """Cuts [start, start + size) and pads it to the static `padded_size`, centred."""
    missing = tf.constant(padded_size) - size
    before = missing // 2
    padding = tf.stack([before, missing - before], axis=1)
    volume = tf.slice(example["volume"], tf.concat([start, [0]], 0), tf.concat([size, [-1]], 0))
    volume = tf.pad(volume, tf.concat([padding, [[0, 0]]], 0))
    ids = tf.pad(tf.slice(example["instance_ids"], start, size), padding)
    return {
        **example,
        "volume": tf.ensure_shape(volume, [*padded_size, example["volume"].shape[3]]),
        "instance_ids": tf.ensure_shape(ids, padded_size),
        "keypoints": example["keypoints"] + tf.cast(before - start, tf.float32),
    }


def _reverse(example, mirrored):
    """Mirrors the axes where the [3] bool tensor `mirrored` is True."""
    axes = tf.cast(tf.where(mirrored)[:, 0], tf.int32)
    # Reversing x with a channel axis behind it takes longer than reversing every channel on its own.
    channels = [tf.reverse(channel, axes) for channel in tf.unstack(example["volume"], axis=-1)]
    ids, points = example["instance_ids"], example["keypoints"]
    return {
        **example,
        "volume": tf.stack(channels, axis=-1),
        "instance_ids": tf.reverse(ids, axes),
        "keypoints": tf.where(mirrored, tf.cast(tf.shape(ids), tf.float32) - points, points),
    }


def _rotations(planes):
    """All rotations that quarter turns in `planes` generate: (order of axes, axes mirrored afterwards) each."""
    found = [((0, 1, 2), (False, False, False))]
    for order, mirrored in found:  # Grows while new ones turn up.
        for a, b in planes:
            order_, mirrored_ = list(order), list(mirrored)
            order_[a], order_[b] = order[b], order[a]
            mirrored_[a], mirrored_[b] = not mirrored[b], mirrored[a]
            if (tuple(order_), tuple(mirrored_)) not in found:
                found.append((tuple(order_), tuple(mirrored_)))
    return found


def _tile(volumes, grid):
    """[n, Z, Y, X, C] volumes side by side: [z * Z, y * Y, x * X, C]."""
    sizes, channels = volumes.shape[1:4], volumes.shape[4]
    blocks = tf.reshape(volumes, [*grid, *sizes, channels])
    joined = tf.transpose(blocks, [0, 3, 1, 4, 2, 5, 6])
    return tf.reshape(joined, [g * s for g, s in zip(grid, sizes, strict=True)] + [channels])
