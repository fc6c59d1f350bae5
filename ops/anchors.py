"""Reference boxes on a regular grid."""

import numpy as np
import tensorflow as tf


def anchor_shapes(sizes, aspects):
    """Every size times every aspect.

    Args:
      sizes: sequence of S edges in voxels, each a number or a (z, y, x) triple.
      aspects: sequence of A (z, y, x) triples; each is scaled to unit volume, so that it changes the shape alone.

    Returns:
      [S * A, 3] float32 array, voxels; sizes outermost.
    """
    sizes = np.stack([np.broadcast_to(np.asarray(size, np.float64), 3) for size in sizes])
    aspects = np.asarray(aspects, np.float64).reshape(-1, 3)
    aspects = aspects / np.prod(aspects, axis=1, keepdims=True) ** (1 / 3)
    return (sizes[:, None] * aspects[None]).reshape(-1, 3).astype(np.float32)


def level_anchors(grid_shape, stride, shapes):
    """Anchors of one pyramid level: every shape around the centre of every cell.

    Args:
      grid_shape: (z, y, x) cells of the level, integers or a tensor [3].
      stride: (z, y, x) voxels per cell.
      shapes: [n, 3] float32, voxels.

    Returns:
      [z * y * x * n, 6] float32, voxels; cells in C order, shapes fastest. The centre of cell i is (i + 0.5) * stride.
    """
    axes = [(tf.range(grid_shape[a], dtype=tf.float32) + 0.5) * float(stride[a]) for a in range(3)]
    centres = tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1), [-1, 1, 3])
    half = 0.5 * tf.convert_to_tensor(shapes, tf.float32)
    return tf.reshape(tf.concat([centres - half, centres + half], axis=-1), [-1, 6])
