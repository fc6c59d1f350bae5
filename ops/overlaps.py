"""Overlaps that still tell near from far where boxes do not meet: generalized, distance and complete IoU.

Empty boxes are allowed: one with hi < lo on an axis counts as flat at lo. Values and gradients are finite for all
of them with edges below 1e12 voxels, whose volumes fit a float32; where edges coincide, where these functions have
kinks, the gradient is that of one side.
"""

import math

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks


def giou(boxes_a, boxes_b):
    """Generalized IoU: IoU - (C - U) / C, U the union and C the smallest box around both (Rezatofighi et al. 2019).

    Args:
      boxes_a: [..., 6] float32, voxels.
      boxes_b: [..., 6] float32, voxels; the leading axes broadcast.

    Returns:
      [...] float32 in [-1, 1]; 0 where the box around both is empty.

    Raises:
      ValueError: other shapes or types.
    """
    shared = box_ops.intersection(boxes_a, boxes_b)
    union = box_ops.volume(boxes_a) + box_ops.volume(boxes_b) - shared
    z, y, x = _hull(_axes(boxes_a), _axes(boxes_b))
    hull = z * y * x
    return shared / tf.maximum(union, box_ops.TINY) - (hull - union) / tf.maximum(hull, box_ops.TINY)


def diou(boxes_a, boxes_b):
    """Distance IoU: IoU - (distance of the centres / diagonal of the box around both)^2 (Zheng et al. 2020).

    Args:
      boxes_a: [..., 6] float32, voxels.
      boxes_b: [..., 6] float32, voxels; the leading axes broadcast.

    Returns:
      [...] float32 in [-1, 1]; 0 for two equal points.

    Raises:
      ValueError: other shapes or types.
    """
    return box_ops.iou(boxes_a, boxes_b) - _centre_distance(boxes_a, boxes_b)


def ciou(boxes_a, boxes_b):
    """Complete IoU: DIoU - alpha * v, v the difference of aspect, alpha = v / (1 - IoU + v) (Zheng et al. 2020).

    In 3D we take for v the mean over the axis pairs z:y, y:x and x:z of the paper's 4 / pi^2 * (difference of the
    arctangents of the size ratios)^2. As in the paper alpha is a weight without gradient.

    Args:
      boxes_a: [..., 6] float32, voxels. Sizes below a thousandth of a voxel count as that in ratios.
      boxes_b: [..., 6] float32, voxels; the leading axes broadcast.

    Returns:
      [...] float32 in [-2, 1].

    Raises:
      ValueError: other shapes or types.
    """
    overlap = box_ops.iou(boxes_a, boxes_b)
    angles = zip(_aspect_angles(boxes_a), _aspect_angles(boxes_b), strict=True)
    aspect = 4.0 / (3.0 * math.pi**2) * tf.add_n([tf.square(a - b) for a, b in angles])
    alpha = tf.stop_gradient(aspect / tf.maximum(1.0 - overlap + aspect, box_ops.TINY))
    return overlap - _centre_distance(boxes_a, boxes_b) - alpha * aspect


def giou_matrix(boxes_a, boxes_b):
    """`giou` of every pair of boxes: [..., I, J] float32 from [..., I, 6] and [..., J, 6]."""
    return giou(*box_ops.pairs(boxes_a, boxes_b))


def diou_matrix(boxes_a, boxes_b):
    """`diou` of every pair of boxes: [..., I, J] float32 from [..., I, 6] and [..., J, 6]."""
    return diou(*box_ops.pairs(boxes_a, boxes_b))


def ciou_matrix(boxes_a, boxes_b):
    """`ciou` of every pair of boxes: [..., I, J] float32 from [..., I, 6] and [..., J, 6]."""
    return ciou(*box_ops.pairs(boxes_a, boxes_b))


def _axes(boxes):
    """(lo, hi) of the axes z, y, x, each [...] with lo <= hi."""
    edges = tf.unstack(checks.float32("boxes", boxes), num=6, axis=-1)
    # This order of arguments gives the gradient of a tie to lo: a flat box has size 0 with gradient 0.
    return [(lo, tf.maximum(lo, hi)) for lo, hi in zip(edges[:3], edges[3:], strict=True)]


def _hull(axes_a, axes_b):
    """Edges z, y, x, each [...], of the smallest box around two."""
    pairs = zip(axes_a, axes_b, strict=True)
    return [tf.maximum(hi_a, hi_b) - tf.minimum(lo_a, lo_b) for (lo_a, hi_a), (lo_b, hi_b) in pairs]


def _centre_distance(boxes_a, boxes_b):
    """Squared distance of the centres in units of the squared diagonal of the box around both: [...] in [0, 1]."""
    axes_a, axes_b = _axes(boxes_a), _axes(boxes_b)
    diagonal = tf.add_n([tf.square(edge) for edge in _hull(axes_a, axes_b)])
    pairs = zip(axes_a, axes_b, strict=True)
    distance = tf.add_n([tf.square(0.5 * (lo_a + hi_a) - 0.5 * (lo_b + hi_b)) for (lo_a, hi_a), (lo_b, hi_b) in pairs])
    return distance / tf.maximum(diagonal, box_ops.TINY)


def _aspect_angles(boxes):
    """Arctangents of the size ratios z:y, y:x and x:z, each [...]."""
    z, y, x = (tf.maximum(hi - lo, box_ops.MIN_SIZE) for lo, hi in _axes(boxes))
    return [tf.atan(z / y), tf.atan(y / x), tf.atan(x / z)]
