"""Where tiles of one size lie so that they cover a volume."""

import tensorflow as tf

from ops import checks


def tile_starts(shape, patch, overlap):
    """Corners of a grid of tiles that covers a volume, evenly spread.

    Args:
      shape: [3] int32, (Z, Y, X) of the volume.
      patch: (z, y, x) of a tile, positive integers.
      overlap: (z, y, x) voxels that neighbouring tiles share at least; 0 <= overlap < patch on every axis.

    Returns:
      [N, 3] int32 corners in C order. An axis no longer than the patch has the one start 0; elsewhere the first tile
      starts at 0 and the last one ends with the volume.

    Raises:
      ValueError: other shapes, patch or overlap outside their range.
    """
    shape, patch, overlap = tf.convert_to_tensor(shape), tuple(patch), tuple(overlap)
    checks.shapes("shape [3]", shape)
    if len(patch) != 3 or len(overlap) != 3 or not all(0 <= o < p for o, p in zip(overlap, patch, strict=True)):
        raise ValueError(f"expected 0 <= overlap < patch on each of three axes, came overlap {overlap}, patch {patch}")
    axes = [_axis_starts(shape[a], patch[a], overlap[a]) for a in range(3)]
    return tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1), [-1, 3])


def _axis_starts(size, patch, overlap):
    last = tf.maximum(tf.cast(size, tf.int32) - patch, 0)
    steps = -(-last // (patch - overlap))  # ceil: steps between the first and the last tile
    # In int64: the product of two places in a long volume passes what an int32 holds.
    last, steps = tf.cast(last, tf.int64), tf.cast(steps, tf.int64)
    return tf.cast(tf.range(steps + 1) * last // tf.maximum(steps, 1), tf.int32)
