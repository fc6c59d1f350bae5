"""Instance masks: from one instance-id volume to boxes and roi targets, and from roi masks back to a label volume."""

import tensorflow as tf


def instance_boxes(ids, num_instances):
    """Tight boxes and sizes of the instances of an id volume.

    Args:
      ids: [Z, Y, X] int32; instance n has id n + 1, ids outside 1..num_instances are ignored.
      num_instances: N.

    Returns:
      boxes: [N, 6] float32, voxels; zeros for an id that does not occur.
      voxels: [N] int32.
    """
    inside = tf.where((ids >= 1) & (ids <= num_instances), ids, 0)
    voxels = tf.math.bincount(
        tf.reshape(inside, [-1]), minlength=num_instances + 1, maxlength=num_instances + 1, dtype=tf.int32
    )[1:]
    lo, hi = [], []
    for axis in range(3):
        # Which ids occur in which slice along the axis; [slices, N].
        size = tf.shape(ids)[axis]
        slices = tf.reshape(tf.range(size), [-1 if a == axis else 1 for a in range(3)])
        flat = tf.reshape(slices * (num_instances + 1) + inside, [-1])
        occurs = tf.math.bincount(flat, minlength=size * (num_instances + 1), binary_output=True)
        occurs = tf.reshape(occurs, [size, num_instances + 1])[:, 1:] > 0
        indices = tf.range(size)[:, tf.newaxis]
        lo.append(tf.reduce_min(tf.where(occurs, indices, size), axis=0))
        hi.append(tf.reduce_max(tf.where(occurs, indices + 1, 0), axis=0))
    boxes = tf.cast(tf.stack(lo + hi, axis=-1), tf.float32)
    return tf.where((voxels > 0)[:, tf.newaxis], boxes, 0.0), voxels


def mask_targets(ids, boxes, slots, size):
    """Binary masks of truths inside rois, read from the instance-id volume.

    Args:
      ids: [B, Z, Y, X] int32; the instance of truth slot g has id g + 1.
      boxes: [B, R, 6] float32, voxels.
      slots: [B, R] int32, the truth slot of each roi; -1 for none.
      size: M, or three of them for z, y, x.

    Returns:
      [B, R, M, M, M] float32: 1 where the voxel that holds the centre of the bin belongs to the instance; 0 outside the
      volume and for slot -1.
    """
    size = (size,) * 3 if isinstance(size, int) else tuple(size)
    shape = tf.shape(ids)
    rows, inside = tf.zeros([1, 1, 1, 1, 1], tf.int32), tf.constant(True)
    for axis in range(3):
        steps = (tf.range(size[axis], dtype=tf.float32) + 0.5) / size[axis]
        lo, hi = boxes[..., axis, tf.newaxis], boxes[..., axis + 3, tf.newaxis]
        voxel = tf.cast(tf.floor(lo + (hi - lo) * steps), tf.int32)  # [B, R, M]
        layout = tf.concat([tf.shape(voxel)[:2], [size[a] if a == axis else 1 for a in range(3)]], axis=0)
        voxel, dim = tf.reshape(voxel, layout), shape[axis + 1]
        inside &= (voxel >= 0) & (voxel < dim)
        rows = rows * dim + tf.clip_by_value(voxel, 0, dim - 1)
    found = tf.gather(tf.reshape(ids, [shape[0], -1]), rows, batch_dims=1)  # [B, R, M, M, M]
    wanted = slots[..., tf.newaxis, tf.newaxis, tf.newaxis] + 1
    return tf.cast(inside & (found == wanted) & (wanted > 0), tf.float32)


def covered_voxels(boxes, shape):
    """The voxels whose centres lie inside each box.

    Args:
      boxes: [..., 6] float32, voxels.
      shape: (Z, Y, X), integers or a tensor [3].

    Returns:
      lo, hi: [..., 3] int32 each, half-open, inside the volume; lo == hi on an axis where there are none.
    """
    shape = tf.cast(shape, tf.int32)
    corners = tf.cast(
        tf.math.ceil(tf.clip_by_value(boxes, -1.0, tf.cast(tf.tile(shape, [2]), tf.float32)) - 0.5), tf.int32
    )
    lo = tf.clip_by_value(corners[..., :3], 0, shape)
    hi = tf.clip_by_value(corners[..., 3:], 0, shape)
    return lo, tf.maximum(lo, hi)


def resample(mask, box, lo, hi):
    """One mask at the centres of voxels: trilinear, clamped at the border.

    Mask cell j is centred at (j + 0.5) / M of the box.

    Args:
      mask: [M, M, M] float32.
      box: [6] float32, voxels; not empty.
      lo: [3] int32, first voxel.
      hi: [3] int32, one past the last voxel.

    Returns:
      [z, y, x] float32 of shape hi - lo.
    """
    for axis in range(3):
        size = tf.shape(mask)[0]
        centres = tf.cast(tf.range(lo[axis], hi[axis]), tf.float32) + 0.5
        cells = (centres - box[axis]) / (box[axis + 3] - box[axis]) * tf.cast(size, tf.float32) - 0.5
        cells = tf.clip_by_value(cells, 0.0, tf.cast(size - 1, tf.float32))
        weights = tf.maximum(1.0 - tf.abs(cells[:, tf.newaxis] - tf.range(tf.cast(size, tf.float32))), 0.0)
        # Contract the first axis; the result takes its place last, so three turns restore the order.
        mask = tf.tensordot(mask, weights, [[0], [1]])
    return mask


def label_volume(masks, boxes, valid, shape, threshold=0.5):
    """One label volume from overlapping detections.

    Args:
      masks: [D, M, M, M] float32 in [0, 1]; see `resample`.
      boxes: [D, 6] float32, voxels.
      valid: [D] bool.
      shape: (Z, Y, X), integers or a tensor [3].
      threshold: a voxel belongs to a detection where its mask is at least this.

    Returns:
      [Z, Y, X] int32: d + 1 for the first valid detection d (in score order, the best) that holds the voxel, else 0.
    """
    shape = tf.cast(shape, tf.int32)
    lo, hi = covered_voxels(boxes, shape)
    hi = tf.where(valid[:, tf.newaxis], hi, lo)

    def paint(row, labels):
        z, y, x = (tf.range(lo[row, a], hi[row, a]) for a in range(3))
        flat = ((z[:, tf.newaxis] * shape[1] + y)[..., tf.newaxis] * shape[2]) + x
        chosen = tf.boolean_mask(flat, resample(masks[row], boxes[row], lo[row], hi[row]) >= threshold)
        painted = tf.tensor_scatter_nd_update(labels, chosen[:, tf.newaxis], tf.fill([tf.size(chosen)], row + 1))
        return row - 1, painted

    # From the worst to the best, so that the best is painted last.
    blank = tf.zeros([tf.reduce_prod(shape)], tf.int32)
    last = tf.shape(boxes)[0] - 1
    _, labels = tf.while_loop(lambda row, _: row >= 0, paint, (last, blank), parallel_iterations=1)
    return tf.reshape(labels, shape)
