"""Boxes in 3D: size, overlap, encoding against anchors, and moves between frames of reference.

A box is (z0, y0, x0, z1, y1, x1), float32, voxels, half-open: its size is hi - lo. One with hi <= lo on any axis is
empty. Overlaps of boxes that need not meet are in ops/overlaps.py.
"""

import math

import tensorflow as tf

from ops import checks

# A box may grow or shrink by at most this factor in one decoding, so that exp() stays finite (as in Detectron).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# Sizes are floored at this many voxels before a logarithm or a division.
MIN_SIZE = 1e-3
# Divisors that are volumes or squared lengths are floored at this: small beside any box, yet 1 / TINY times a gradient
# stays in the range of float32, where inf * 0 would give NaN.
TINY = 1e-20


def volume(boxes):
    """Number of voxels that a box covers.

    Args:
      boxes: [..., 6] float32, voxels.

    Returns:
      [...] float32; 0 where hi <= lo on any axis.

    Raises:
      ValueError: other shapes or types.
    """
    checks.shapes("boxes [..., 6]", boxes)
    edges = tf.unstack(checks.float32("boxes", boxes), num=6, axis=-1)
    return _product([hi - lo for lo, hi in zip(edges[:3], edges[3:], strict=True)])


def intersection(boxes_a, boxes_b):
    """Number of voxels that two boxes share.

    Args:
      boxes_a: [..., 6] float32, voxels.
      boxes_b: [..., 6] float32, voxels; the leading axes broadcast.

    Returns:
      [...] float32; 0 where either box is empty.

    Raises:
      ValueError: other shapes or types.
    """
    checks.shapes("boxes_a [..., 6], boxes_b [..., 6]", boxes_a, boxes_b)
    a = tf.unstack(checks.float32("boxes_a", boxes_a), num=6, axis=-1)
    b = tf.unstack(checks.float32("boxes_b", boxes_b), num=6, axis=-1)
    # Axis by axis: one tensor [..., 3] of all pairs would be the largest of all, and slow to reduce.
    return _product([tf.minimum(a[k + 3], b[k + 3]) - tf.maximum(a[k], b[k]) for k in range(3)])


def iou(boxes_a, boxes_b):
    """Intersection over union of two boxes.

    Args:
      boxes_a: [..., 6] float32, voxels.
      boxes_b: [..., 6] float32, voxels; the leading axes broadcast.

    Returns:
      [...] float32 in [0, 1]; 0 where either box is empty.

    Raises:
      ValueError: other shapes or types.
    """
    shared = intersection(boxes_a, boxes_b)
    return shared / tf.maximum(volume(boxes_a) + volume(boxes_b) - shared, TINY)


def iou_matrix(boxes_a, boxes_b):
    """Intersection over union of every pair of boxes.

    Args:
      boxes_a: [..., I, 6] float32, voxels.
      boxes_b: [..., J, 6] float32, voxels.

    Returns:
      [..., I, J] float32 in [0, 1]; 0 where either box is empty.

    Raises:
      ValueError: other shapes or types.
    """
    return iou(*pairs(boxes_a, boxes_b))


def pairs(boxes_a, boxes_b):
    """Boxes [..., I, 6] and [..., J, 6] as [..., I, 1, 6] and [..., 1, J, 6], which broadcast to all pairs."""
    checks.shapes("boxes_a [..., I, 6], boxes_b [..., J, 6]", boxes_a, boxes_b)
    boxes_a, boxes_b = checks.float32("boxes_a", boxes_a), checks.float32("boxes_b", boxes_b)
    return boxes_a[..., :, tf.newaxis, :], boxes_b[..., tf.newaxis, :, :]


def encode(boxes, anchors, weights=None):
    """Deltas that turn anchors into boxes (Ren et al. 2015, equation 2, in 3D).

    Args:
      boxes: [..., 6] float32, voxels.
      anchors: [..., 6] float32, voxels; the leading axes broadcast.
      weights: six positive numbers that the deltas are multiplied by (Girshick 2015); None for ones.

    Returns:
      [..., 6] float32: shift of the centre in anchor sizes (z, y, x), then log of the size ratio (z, y, x). Sizes below
      a thousandth of a voxel count as that, so that empty boxes give finite deltas.

    Raises:
      ValueError: other shapes or types, weights that are not six positive numbers.
    """
    checks.shapes("boxes [..., 6], anchors [..., 6]", boxes, anchors)
    boxes, anchors = checks.float32("boxes", boxes), checks.float32("anchors", anchors)
    box_centre, box_size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    deltas = tf.concat([(box_centre - anchor_centre) / anchor_size, tf.math.log(box_size / anchor_size)], axis=-1)
    return deltas if weights is None else deltas * _checked_weights(weights)


def decode(deltas, anchors, weights=None):
    """Boxes that the deltas make of the anchors: the inverse of `encode`.

    Args:
      deltas: [..., 6] float32.
      anchors: [..., 6] float32, voxels; the leading axes broadcast.
      weights: six positive numbers that the deltas are divided by; None for ones.

    Returns:
      [..., 6] float32, voxels. Each size stays within a factor 62.5 of the anchor's.

    Raises:
      ValueError: other shapes or types, weights that are not six positive numbers.
    """
    checks.shapes("deltas [..., 6], anchors [..., 6]", deltas, anchors)
    deltas, anchors = checks.float32("deltas", deltas), checks.float32("anchors", anchors)
    if weights is not None:
        deltas = deltas / _checked_weights(weights)
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

    Raises:
      ValueError: other shapes or types.
    """
    limit = tf.cast(shape, tf.float32)
    checks.shapes("boxes [..., 6], shape [3]", boxes, limit)
    return tf.clip_by_value(checks.float32("boxes", boxes), 0.0, tf.tile(limit, [2]))


def grow(boxes, margin, shape):
    """Boxes that reach further on every side, within a volume.

    Args:
      boxes: [..., 6] float32, voxels.
      margin: (z, y, x) voxels that are added before and behind.
      shape: (Z, Y, X) as integers or as a tensor [3].

    Returns:
      [..., 6] float32, clipped as by `clip`.

    Raises:
      ValueError: other shapes or types.
    """
    margin = tf.cast(margin, tf.float32)
    checks.shapes("boxes [..., 6], margin [3], shape [3]", boxes, margin, tf.cast(shape, tf.float32))
    return clip(checks.float32("boxes", boxes) + tf.concat([-margin, margin], axis=0), shape)


def flip(boxes, shape, axes):
    """Boxes of a mirrored volume.

    Args:
      boxes: [..., 6] float32, voxels.
      shape: (Z, Y, X) of the volume as integers or as a tensor [3].
      axes: which of the axes 0, 1, 2 are mirrored; () for none.

    Returns:
      [..., 6] float32, voxels. Flipping twice gives the boxes again.

    Raises:
      ValueError: other shapes or types, another axis.
    """
    size = tf.cast(shape, tf.float32)
    checks.shapes("boxes [..., 6], shape [3]", boxes, size)
    if not set(axes) <= {0, 1, 2}:
        raise ValueError(f"expected axes among 0, 1, 2, came {axes}")
    is_mirrored, boxes = [axis in axes for axis in range(3)], checks.float32("boxes", boxes)
    lo, hi = boxes[..., :3], boxes[..., 3:]
    return tf.concat([tf.where(is_mirrored, size - hi, lo), tf.where(is_mirrored, size - lo, hi)], axis=-1)


def scale(boxes, factors):
    """Boxes of a resized volume.

    Args:
      boxes: [..., 6] float32, voxels.
      factors: how many new voxels an old one is long: (z, y, x), one number for all, or a tensor [3].

    Returns:
      [..., 6] float32, new voxels.

    Raises:
      ValueError: other shapes or types, factors that are not positive.
    """
    factors = _positive_triple("factors", factors)
    checks.shapes("boxes [..., 6], factors [3]", boxes, factors)
    return checks.float32("boxes", boxes) * tf.tile(factors, [2])


def to_mm(boxes, spacing, origin):
    """Boxes in millimetres along the axes of the volume.

    Args:
      boxes: [..., 6] float32, voxels.
      spacing: (z, y, x) mm per voxel, one number for all, or a tensor [3].
      origin: (z, y, x) mm, where the centre of voxel (0, 0, 0) lies: image files give it so. A number triple or a
        tensor [3].

    Returns:
      [..., 6] float32, mm: coordinate c, a corner of voxels, lies at origin + (c - 0.5) * spacing.

    Raises:
      ValueError: other shapes or types, spacing that is not positive.
    """
    spacing, origin = _positive_triple("spacing", spacing), tf.cast(origin, tf.float32)
    checks.shapes("boxes [..., 6], spacing [3], origin [3]", boxes, spacing, origin)
    return tf.tile(origin, [2]) + (checks.float32("boxes", boxes) - 0.5) * tf.tile(spacing, [2])


def from_mm(boxes_mm, spacing, origin):
    """Boxes in voxels: the inverse of `to_mm`.

    Args:
      boxes_mm: [..., 6] float32, mm.
      spacing: see `to_mm`.
      origin: see `to_mm`.

    Returns:
      [..., 6] float32, voxels.

    Raises:
      ValueError: other shapes or types, spacing that is not positive.
    """
    spacing, origin = _positive_triple("spacing", spacing), tf.cast(origin, tf.float32)
    checks.shapes("boxes_mm [..., 6], spacing [3], origin [3]", boxes_mm, spacing, origin)
    return (checks.float32("boxes_mm", boxes_mm) - tf.tile(origin, [2])) / tf.tile(spacing, [2]) + 0.5


def _product(extents):
    """Volume from three signed edges; the same order of factors everywhere makes the IoU of a box with itself 1."""
    z, y, x = (tf.nn.relu(extent) for extent in extents)
    return z * y * x


def _centre_and_size(boxes):
    lo, hi = boxes[..., :3], boxes[..., 3:]
    return 0.5 * (lo + hi), tf.maximum(hi - lo, MIN_SIZE)


def _checked_weights(weights):
    weights = tuple(weights)
    if len(weights) != 6 or not all(weight > 0 for weight in weights):
        raise ValueError(f"expected weights as six numbers above 0, came {weights}")
    return tf.constant(weights, tf.float32)


def _positive_triple(name, value):
    """A tensor as float32; Python numbers also checked to be positive, one standing for three."""
    return tf.cast(value if tf.is_tensor(value) else checks.triple(name, value), tf.float32)
