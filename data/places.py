"""Where in a case a patch lies, and the patch at such a place.

An example is a dict as in data/augment.py. A seed is an int32 [2] tensor.
"""

import tensorflow as tf

_LINE = 128  # voxels; their number has to fit into a byte


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

    def voxel(instance, seed):
        return random_voxel(tf.reshape(ids, [-1]), instance, seed)

    return corner_around(tf.shape(ids), example["class_ids"], voxel, patch_size, foreground, seed, by)


def corner_around(shape, class_ids, voxel, patch_size, foreground, seed, by="instance"):
    """`random_corner` of an example whose ids need not be there as one tensor.

    Args:
      shape: [3] int32, of the ids.
      class_ids: [N] int32.
      voxel: f(instance int32 in 1..N, seed) -> int32, a row of the flat ids: a voxel of the instance.
      patch_size, foreground, seed, by: see `random_corner`.

    Returns:
      [3] int32, the patch's first voxel.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    size = tf.minimum(shape, patch_size)
    place = tf.random.stateless_uniform([3], seeds[0])
    wants_foreground = tf.random.stateless_uniform([], seeds[1]) < foreground

    def around_instance():
        row_seed, voxel_seed = tf.unstack(tf.random.experimental.stateless_split(seeds[2], 2))
        point = tf.unravel_index(voxel(1 + _draw_row(class_ids, row_seed, by), voxel_seed), shape)
        return tf.maximum(point - size + 1, 0), tf.minimum(point, shape - size)

    lowest, highest = tf.cond(
        wants_foreground & (tf.size(class_ids) > 0), around_instance, lambda: (tf.zeros(3, tf.int32), shape - size)
    )
    span = tf.cast(highest - lowest + 1, tf.float32)
    # The product may round up to the span itself.
    start = tf.minimum(lowest + tf.cast(place * span, tf.int32), highest)
    return start - (tf.constant(patch_size) - size) // 2


def random_voxel(ids, instance, seed):
    """A voxel of an instance, drawn uniformly, or the first of all where it has none.

    Args:
      ids: [V] of any integer dtype, which need not hold `instance`.
      instance: int32 scalar, an id.
      seed: int32 [2].

    Returns:
      int32 scalar, a row of ids.
    """
    wanted = tf.cast(instance, ids.dtype)
    # Counts per line, of which none exceeds a byte, and then one line: a list of the voxels would take 8 bytes of each.
    lines = tf.reshape(tf.pad(ids == wanted, [[0, -tf.size(ids) % _LINE]]), [-1, _LINE])
    counts = tf.cast(tf.reduce_sum(tf.cast(lines, tf.uint8), axis=1), tf.int32)
    counts *= tf.cast(tf.cast(wanted, tf.int32) == instance, tf.int32)
    ends = tf.cumsum(counts)
    number = tf.random.stateless_uniform([], seed, maxval=tf.maximum(ends[-1], 1), dtype=tf.int32)

    def found():
        line = tf.searchsorted(ends, [number], side="right")[0]
        places = tf.cast(tf.where(lines[line])[:, 0], tf.int32)
        return line * _LINE + places[number - ends[line] + counts[line]]

    return tf.cond(ends[-1] > 0, found, lambda: tf.constant(0))


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


def _draw_row(class_ids, seed, by):
    """A row of `class_ids` [N], N > 0."""
    rows = tf.range(tf.size(class_ids))
    if by == "class":
        class_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        classes = tf.unique(class_ids).y
        drawn = tf.random.stateless_uniform([], class_seed, maxval=tf.size(classes), dtype=tf.int32)
        rows = tf.where(class_ids == classes[drawn])[:, 0]
    return tf.cast(rows[tf.random.stateless_uniform([], seed, maxval=tf.size(rows), dtype=tf.int32)], tf.int32)
