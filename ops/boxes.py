"""Boxes in 3D: overlap, encoding against anchors, clipping.

A box is (z0, y0, x0, z1, y1, x1), float32, voxels, half-open: its size is hi - lo.
"""

import math

import tensorflow as tf

# A box may grow or shrink by at most this factor in one decoding, so that exp() stays finite (as in Detectron).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# Sizes are floored at this many voxels before a logarithm or a division.
MIN_SIZE = 1e-3


def volume(boxes):
    """Number of voxels that a box covers.

    Args:
      boxes: [..., 6] float32, voxels.

    Returns:
      [...] float32; 0 where hi <= lo on any axis.
    """
    return tf.reduce_prod(tf.maximum(boxes[..., 3:] - boxes[..., :3], 0.0), axis=-1)


def iou_matrix(boxes_a, boxes_b):
    """Intersection over union of every pair of boxes.

    Args:
      boxes_a: [..., I, 6] float32, voxels.
      boxes_b: [..., J, 6] float32, voxels.

    Returns:
      [..., I, J] float32 in [0, 1]; 0 where either box is empty.
    """
    a, b = boxes_a[..., :, tf.newaxis, :], boxes_b[..., tf.newaxis, :, :]
    lo = tf.maximum(a[..., :3], b[..., :3])  # [..., I, J, 3]
    hi = tf.minimum(a[..., 3:], b[..., 3:])
    intersection = tf.reduce_prod(tf.maximum(hi - lo, 0.0), axis=-1)
    union = volume(a) + volume(b) - intersection
    return tf.math.divide_no_nan(intersection, union)


def encode(boxes, anchors):
    """Deltas that turn anchors into boxes (Ren et al. 2015, equation 2, in 3D).

    Args:
      boxes: [..., 6] float32, voxels.
      anchors: [..., 6] float32, voxels.

    Returns:
      [..., 6] float32: shift of the centre in anchor sizes (z, y, x), then log of the size ratio (z, y, x). Sizes below
      a thousandth of a voxel count as that, so that empty boxes give finite deltas.
    """
    box_centre, box_size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    return tf.concat([(box_centre - anchor_centre) / anchor_size, tf.math.log(box_size / anchor_size)], axis=-1)


def decode(deltas, anchors):
    """Boxes that the deltas make of the anchors: the inverse of `encode`.

    Args:
      deltas: [..., 6] float32.
      anchors: [..., 6] float32, voxels.

    Returns:
      [..., 6] float32, voxels. Each size stays within a factor 62.5 of the anchor's.
    """
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = anchor_centre + deltas[..., :3] * anchor_size
    half = 0.5 * anchor_size * tf.exp(tf.clip_by_value(deltas[..., 3:], -MAX_LOG_SCALE, MAX_LOG_SCALE))
    return tf.concat([centre - half, centre + half], axis=-1)


def clip(boxes, shape):
    """Boxes cut at the border of a volume.

    Args:
      boxes: [..., 6] float32, voxels.
      shape: (Z, Y, X) as integers or as a tensor [3].

    Returns:
      [..., 6] float32 with every coordinate in [0, shape]; a box that lies outside becomes empty.
    """
    limit = tf.tile(tf.cast(shape, boxes.dtype), [2])  # [6]
    return tf.clip_by_value(boxes, 0.0, limit)


def _centre_and_size(boxes):
    lo, hi = boxes[..., :3], boxes[..., 3:]
    return 0.5 * (lo + hi), tf.maximum(hi - lo, MIN_SIZE)
