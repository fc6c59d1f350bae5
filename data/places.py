"""Where in a case a patch lies, and the patch at such a place.

An example is a dict as in data/augment.py. A seed is an int32 [2] tensor.
"""

import tensorflow as tf


def random_corner(example, patch_size, foreground, seed, by="instance"):
    """Draws the place of a patch.

    Args:
      example: see above; only its ids and the classes of its instances count.
      patch_size: (z, y, x).
      foreground: probability that the patch holds a voxel, drawn uniformly, of an instance, at a place of the patch
        that is uniform as far as the volume reaches: that is the shifting of crops around objects. Otherwise, and
        where there are no instances, the patch is uniform in the volume.
      seed: int32 [2].
      by: which instance: "instance", drawn uniformly, or "class", drawn uniformly from those of a class that is drawn
        uniformly from the classes there are.

    Returns:
      [3] int32, the patch's first voxel; negative on an axis on which the volume is shorter, so that its middle is the
      patch's middle.
    """
    ids = example["instance_ids"]
    seeds = tf.random.experimental.stateless_split(seed, 3)
    shape = tf.shape(ids)
    size = tf.minimum(shape, patch_size)
    place = tf.random.stateless_uniform([3], seeds[0])
    num_instances = tf.shape(example["class_ids"])[0]
    wants_foreground = tf.random.stateless_uniform([], seeds[1]) < foreground
    lowest, highest = tf.cond(
        wants_foreground & (num_instances > 0),
        lambda: _corners_around_instance(ids, example["class_ids"], size, seeds[2], by),
        lambda: (tf.zeros(3, tf.int32), shape - size),
    )
    span = tf.cast(highest - lowest + 1, tf.float32)
    # The product may round up to the span itself.
    start = tf.minimum(lowest + tf.cast(place * span, tf.int32), highest)
    return start - (tf.constant(patch_size) - size) // 2


def window(example, corner, size):
    """Cuts the patch at a place.

    Args:
      example: see above.
      corner: [3] int32, its first voxel, which may lie outside.
      size: (z, y, x).

    Returns:
      The example with volume [*size, C], instance_ids [*size], both 0 outside of the case, and keypoints in the patch.
    """
    shape = tf.shape(example["instance_ids"])
    first = tf.clip_by_value(corner, 0, shape)
    kept = tf.clip_by_value(corner + size, 0, shape) - first
    before = tf.clip_by_value(first - corner, 0, size)
    padding = tf.stack([before, size - before - kept], axis=1)
    volume = tf.slice(example["volume"], tf.concat([first, [0]], 0), tf.concat([kept, [-1]], 0))
    volume = tf.pad(volume, tf.concat([padding, [[0, 0]]], 0))
    ids = tf.pad(tf.slice(example["instance_ids"], first, kept), padding)
    return {
        **example,
        "volume": tf.ensure_shape(volume, [*size, example["volume"].shape[3]]),
        "instance_ids": tf.ensure_shape(ids, size),
        "keypoints": example["keypoints"] - tf.cast(corner, tf.float32),
    }


def _corners_around_instance(ids, class_ids, size, seed, by):
    """Lowest and highest corner ([3] int32 each) of the patches of `size` that hold one voxel of one instance.

    An instance without voxels counts as one that has the volume's first voxel.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    shape = tf.shape(ids)
    instance = 1 + _draw_row(class_ids, seeds[0], by)
    voxels = tf.where(tf.reshape(ids, [-1]) == instance)[:, 0]
    row = tf.random.stateless_uniform([], seeds[1], maxval=tf.maximum(tf.size(voxels), 1), dtype=tf.int32)
    voxels = tf.cond(tf.size(voxels) > 0, lambda: voxels, lambda: tf.zeros([1], tf.int64))
    point = tf.unravel_index(tf.cast(voxels[row], tf.int32), shape)
    return tf.maximum(point - size + 1, 0), tf.minimum(point, shape - size)


def _draw_row(class_ids, seed, by):
    """A row of `class_ids` [N], N > 0."""
    rows = tf.range(tf.size(class_ids))
    if by == "class":
        class_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        classes = tf.unique(class_ids).y
        drawn = tf.random.stateless_uniform([], class_seed, maxval=tf.size(classes), dtype=tf.int32)
        rows = tf.where(class_ids == classes[drawn])[:, 0]
    return tf.cast(rows[tf.random.stateless_uniform([], seed, maxval=tf.size(rows), dtype=tf.int32)], tf.int32)
