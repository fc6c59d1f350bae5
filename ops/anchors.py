"""Reference boxes on a regular grid."""

import numpy as np
import tensorflow as tf

from ops import checks


def anchor_shapes(sizes, aspects):
    """Every size times every aspect.

    Args:
      sizes: sequence of S edges in voxels, each a number or a (z, y, x) triple.
      aspects: sequence of A (z, y, x) triples; each is scaled to unit volume, so that it changes the shape alone.

    Returns:
      [S * A, 3] float32 array, voxels; sizes outermost.

    Raises:
      ValueError: a size or an aspect that is not one positive number or three of them.
    """
    sizes = np.array([checks.triple("size", size) for size in sizes], np.float64).reshape(-1, 3)
    aspects = np.array([checks.triple("aspect", aspect) for aspect in aspects], np.float64).reshape(-1, 3)
    aspects = aspects / np.prod(aspects, axis=1, keepdims=True) ** (1 / 3)
    return (sizes[:, None] * aspects[None]).reshape(-1, 3).astype(np.float32)


def level_anchors(grid_shape, stride, shapes):
    """Anchors of one pyramid level: every shape around the centre of every cell.

    Args:
      grid_shape: (z, y, x) cells of the level, integers or a tensor [3].
      stride: (z, y, x) voxels per cell, or one number for all.
      shapes: [n, 3] float32, voxels.

    Returns:
      [z * y * x * n, 6] float32, voxels; cells in C order, shapes fastest. The centre of cell i is (i + 0.5) * stride.

    Raises:
      ValueError: other shapes, a stride that is not positive.
    """
    grid_shape, shapes = tf.convert_to_tensor(grid_shape), tf.convert_to_tensor(shapes, tf.float32)
    stride = checks.triple("stride", stride)
    checks.shapes("grid_shape [3], shapes [n, 3]", grid_shape, shapes)
    axes = [(tf.range(grid_shape[a], dtype=tf.float32) + 0.5) * float(stride[a]) for a in range(3)]
    centres = tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1), [-1, 1, 3])
    half = 0.5 * shapes
    return tf.reshape(tf.concat([centres - half, centres + half], axis=-1), [-1, 6])


def crosses_boundary(anchors, shape):
    """Whether any part of an anchor lies outside the volume (Ren et al. 2015 leave such anchors out of training).

    Args:
      anchors: [..., 6] float32, voxels.
      shape: (Z, Y, X) of the volume as integers or as a tensor [3].

    Returns:
      [...] bool; one that touches the border from inside does not cross it.

    Raises:
      ValueError: other shapes or types.
    """
    limit = tf.cast(shape, tf.float32)
    checks.shapes("anchors [..., 6], shape [3]", anchors, limit)
    anchors = checks.float32("anchors", anchors)
    return tf.reduce_any((anchors[..., :3] < 0.0) | (anchors[..., 3:] > limit), axis=-1)
