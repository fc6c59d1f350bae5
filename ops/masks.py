"""Instance masks: from one instance-id volume to boxes and roi targets, and from roi masks back to one volume."""

import tensorflow as tf

from ops import checks

# Voxels of a box that are painted in one step: bounds what painting takes beside the volume (4 MB an array).
_STEP_VOXELS = 2**20


def instance_boxes(ids, num_instances):
    """Tight boxes and sizes of the instances of an id volume.

    Args:
      ids: [Z, Y, X] int32, less than 2**31 voxels; instance n has id n + 1, ids outside 1..num_instances are ignored.
      num_instances: N.

    Returns:
      boxes: [N, 6] float32, voxels; zeros for an id that does not occur.
      voxels: [N] int32.

    Raises:
      ValueError: another rank, or num_instances below 0.
    """
    checks.shapes("ids [Z, Y, X]", ids)
    checks.within("num_instances", num_instances, 0, 2**31 - 1)
    # Only runs of one id along x are looked at, not every voxel; a run begins where the id changes or a row begins.
    shape, flat = tf.shape(ids), tf.reshape(ids, [-1])
    changes = tf.reshape(flat != tf.roll(flat, 1, axis=0), shape) | (tf.range(shape[2]) == 0)
    begins = tf.cast(tf.where(tf.reshape(changes, [-1]))[:, 0], tf.int32)
    lengths = tf.concat([begins[1:], [tf.size(flat)]], axis=0)[: tf.size(begins)] - begins
    slots = tf.gather(flat, begins) - 1
    slots = tf.where((slots >= 0) & (slots < num_instances), slots, -1)  # Segment -1 is dropped.

    rows = begins // shape[2]
    x, y, z = begins - rows * shape[2], rows % shape[1], rows // shape[1]
    # The largest end is the smallest of its negatives: one pass for all six.
    corners = tf.stack([z, y, x, -(z + 1), -(y + 1), -(x + lengths)], axis=-1)
    corners = tf.math.unsorted_segment_min(corners, slots, num_instances)
    voxels = tf.math.unsorted_segment_sum(lengths, slots, num_instances)
    boxes = tf.cast(tf.concat([corners[:, :3], -corners[:, 3:]], axis=-1), tf.float32)
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
      volume, where the box is NaN and for slot -1.

    Raises:
      ValueError: other shapes or types, or a size that is not positive.
    """
    checks.shapes("ids [B, Z, Y, X], boxes [B, R, 6], slots [B, R]", ids, boxes, slots)
    size, boxes = checks.triple("size", size), checks.float32("boxes", boxes)
    # There has to be a voxel to read: an axis without any gets one of background. Elsewhere nothing is copied.
    ids = tf.pad(ids, [[0, 0]] + [[0, tf.cast(dim == 0, tf.int32)] for dim in tf.unstack(tf.shape(ids)[1:])])
    shape = tf.shape(ids)
    rows, inside = tf.zeros([1, 1, 1, 1, 1], tf.int32), tf.constant(True)
    for axis in range(3):
        dim = shape[axis + 1]
        steps = (tf.range(size[axis], dtype=tf.float32) + 0.5) / size[axis]
        lo, hi = boxes[..., axis, tf.newaxis], boxes[..., axis + 3, tf.newaxis]
        voxel = tf.floor(lo + (hi - lo) * steps)  # [B, R, M]
        # Far away is as good as just outside, and NaN is outside; their casts are undefined.
        voxel = tf.where(tf.math.is_nan(voxel), -1.0, tf.clip_by_value(voxel, -1.0, tf.cast(dim, tf.float32)))
        layout = tf.concat([tf.shape(voxel)[:2], [size[a] if a == axis else 1 for a in range(3)]], axis=0)
        voxel = tf.reshape(tf.cast(voxel, tf.int32), layout)
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
      lo, hi: [..., 3] int32 each, half-open, inside the volume; lo == hi on an axis where there are none. A box that is
      not finite has none.

    Raises:
      ValueError: other shapes or types.
    """
    shape = tf.cast(shape, tf.int32)
    checks.shapes("boxes [..., 6], shape [3]", boxes, shape)
    boxes = checks.float32("boxes", boxes)
    is_finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1, keepdims=True)
    ends = tf.cast(tf.tile(shape, [2]), tf.float32)
    # Clipped first: the cast of a huge number is undefined.
    corners = tf.math.ceil(tf.clip_by_value(tf.where(is_finite, boxes, 0.0), -1.0, ends) - 0.5)
    corners = tf.cast(corners, tf.int32)
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

    Raises:
      ValueError: other shapes or types.
    """
    lo, hi = tf.cast(lo, tf.int32), tf.cast(hi, tf.int32)
    checks.shapes("mask [Mz, My, Mx], box [6], lo [3], hi [3]", mask, box, lo, hi)
    mask, box = checks.float32("mask", mask), checks.float32("box", box)
    size, count = tf.shape(mask), hi - lo
    weights = [_linear_weights(tf.range(lo[a], hi[a]), box[a], box[a + 3], size[a]) for a in range(3)]
    # Trilinear is linear along each axis in turn; in this order nothing is transposed.
    values = tf.matmul(weights[0], tf.reshape(mask, [size[0], size[1] * size[2]]))
    values = tf.matmul(weights[1], tf.reshape(values, [count[0], size[1], size[2]]))
    values = tf.matmul(tf.reshape(values, [count[0] * count[1], size[2]]), weights[2], transpose_b=True)
    return tf.reshape(values, count)


def tight_boxes(masks, boxes, shape, threshold=0.5):
    """The voxels that masks show inside their boxes, as boxes.

    Along each axis the largest values of a mask across it are interpolated at the centres of voxels, as `resample` does
    with all of them; the box goes from the first voxel that reaches the threshold to the last.

    Args:
      masks: [B, D, M, M, M] float32.
      boxes: [B, D, 6] float32, voxels.
      shape: (Z, Y, X).
      threshold: a voxel belongs to an object where its mask is at least this.

    Returns:
      boxes: [B, D, 6] float32, whole voxels inside box and volume; zeros where the mask shows none.
      shown: [B, D] bool, whether it shows any.

    Raises:
      ValueError: other shapes or types.
    """
    checks.shapes("masks [B, D, Mz, My, Mx], boxes [B, D, 6]", masks, boxes)
    masks, boxes = checks.float32("masks", masks), checks.float32("boxes", boxes)
    lo, hi = covered_voxels(boxes, shape)
    los, his, shows = [], [], tf.constant(True)
    for axis in range(3):
        profile = tf.reduce_max(masks, [a + 2 for a in range(3) if a != axis])  # [B, D, M]
        voxels, begin, end = tf.range(shape[axis]), boxes[..., axis, tf.newaxis], boxes[..., axis + 3, tf.newaxis]
        values = tf.linalg.matvec(_linear_weights(voxels, begin, end, tf.shape(masks)[axis + 2]), profile)  # [B, D, Z]
        is_shown = (values >= threshold) & (voxels >= lo[..., axis, tf.newaxis]) & (voxels < hi[..., axis, tf.newaxis])
        los.append(tf.argmax(tf.cast(is_shown, tf.int32), axis=-1, output_type=tf.int32))
        his.append(shape[axis] - tf.argmax(tf.cast(is_shown, tf.int32)[..., ::-1], axis=-1, output_type=tf.int32))
        shows &= tf.reduce_any(is_shown, axis=-1)
    found = tf.cast(tf.stack([*los, *his], axis=-1), tf.float32)
    return tf.where(shows[..., tf.newaxis], found, 0.0), shows


def crop(masks, boxes, parts):
    """Masks over parts of their boxes, linearly interpolated: what is cut off a box leaves its mask in place.

    Args:
      masks: [D, M, M, M] float32.
      boxes: [D, 6] float32, voxels, of the masks.
      parts: [D, 6] float32, voxels; outside its box a mask goes on with its outermost cells.

    Returns:
      [D, M, M, M] float32.

    Raises:
      ValueError: other shapes or types.
    """
    checks.shapes("masks [D, Mz, My, Mx], boxes [D, 6], parts [D, 6]", masks, boxes, parts)
    masks, boxes, parts = (
        checks.float32(name, of) for name, of in (("masks", masks), ("boxes", boxes), ("parts", parts))
    )
    for axis in range(3):
        size = masks.shape[1]
        lo, hi = boxes[:, axis, tf.newaxis], boxes[:, axis + 3, tf.newaxis]
        part_lo, part_hi = parts[:, axis, tf.newaxis], parts[:, axis + 3, tf.newaxis]
        centres = part_lo + (part_hi - part_lo) * (tf.range(size, dtype=tf.float32) + 0.5) / size  # [D, M]
        weights = _linear_weights(centres - 0.5, lo, hi, size)
        # Contract the first axis; the result takes its place last, so three turns restore the order.
        masks = tf.einsum("dmyx,dnm->dyxn", masks, weights)
    return masks


def shrink(masks, windows, boxes, shape, threshold=0.5):
    """Windows cut down to what their masks show, and the masks over these.

    Args:
      masks: [B, D, M, M, M] float32.
      windows: [B, D, 6] float32, voxels, that the masks are over.
      boxes: [B, D, 6] float32, voxels, for those whose mask shows nothing.
      shape, threshold: as of `tight_boxes`.

    Returns:
      boxes: [B, D, 6] float32, voxels.
      masks: [B, D, M, M, M] float32, which show the same voxels up to what is interpolated twice.

    Raises:
      ValueError: other shapes or types.
    """
    checks.shapes("masks [B, D, Mz, My, Mx], windows [B, D, 6], boxes [B, D, 6]", masks, windows, boxes)
    masks, windows = checks.float32("masks", masks), checks.float32("windows", windows)
    tight, shown = tight_boxes(masks, windows, shape, threshold)
    parts = tf.where(shown[..., tf.newaxis], tight, checks.float32("boxes", boxes))
    grid = masks.shape[2:]
    cut = crop(tf.reshape(masks, [-1, *grid]), tf.reshape(windows, [-1, 6]), tf.reshape(parts, [-1, 6]))
    return parts, tf.reshape(cut, tf.shape(masks))


def paste(masks, boxes, valid, shape):
    """Roi masks put back into one volume, the largest where they overlap.

    Takes little memory beside the result, whatever the number and size of the boxes.

    Args:
      masks: [D, M, M, M] float32 in [0, 1]; see `resample`.
      boxes: [D, 6] float32, voxels.
      valid: [D] bool.
      shape: (Z, Y, X), integers or a tensor [3].

    Returns:
      [Z, Y, X] float32: at each voxel the largest mask of the valid detections that hold its centre; 0 where none does.

    Raises:
      ValueError: other shapes or types.
    """
    masks, boxes, shape = _checked(masks, boxes, valid, shape)
    return tf.reshape(_paste(masks, boxes, valid, shape), shape)


def label_volume(masks, boxes, valid, shape, threshold=0.5):
    """One label volume from overlapping detections.

    Takes little memory beside the result, whatever the number and size of the boxes.

    Args:
      masks: [D, M, M, M] float32 in [0, 1]; see `resample`.
      boxes: [D, 6] float32, voxels.
      valid: [D] bool.
      shape: (Z, Y, X), integers or a tensor [3].
      threshold: in [0, 1]; a voxel belongs to a detection where its mask is at least this.

    Returns:
      [Z, Y, X] int32: d + 1 for the first valid detection d (in score order, the best) that holds the voxel, else 0.

    Raises:
      ValueError: other shapes or types, or a threshold outside [0, 1].
    """
    masks, boxes, shape = _checked(masks, boxes, valid, shape)
    checks.within("threshold", threshold, 0, 1)
    return tf.reshape(_label_volume(masks, boxes, valid, shape, threshold), shape)


def _checked(masks, boxes, valid, shape):
    """Masks and boxes as float32 and the volume's shape as int32 tensors, after the arguments have been checked."""
    shape = tf.cast(shape, tf.int32)
    checks.shapes("masks [D, Mz, My, Mx], boxes [D, 6], valid [D], shape [3]", masks, boxes, valid, shape)
    return checks.float32("masks", masks), checks.float32("boxes", boxes), shape


_DETECTIONS = [
    tf.TensorSpec([None] * 4, tf.float32, name="masks"),
    tf.TensorSpec([None, 6], tf.float32, name="boxes"),
    tf.TensorSpec([None], tf.bool, name="valid"),
    tf.TensorSpec([3], tf.int32, name="shape"),
]


# Compiled, since an eager loop would copy the volume at every step.
@tf.function(input_signature=_DETECTIONS, autograph=False)
def _paste(masks, boxes, valid, shape):
    def merge(crop, values, _):
        return tf.maximum(crop, values)

    return _painted(masks, boxes, valid, tf.zeros(shape), merge)


@tf.function(input_signature=[*_DETECTIONS, tf.TensorSpec([], tf.float32, name="threshold")], autograph=False)
def _label_volume(masks, boxes, valid, shape, threshold):
    def merge(crop, values, detection):
        return tf.where(values >= threshold, detection + 1, crop)

    return _painted(masks, boxes, valid, tf.zeros(shape, tf.int32), merge)


def _painted(masks, boxes, valid, blank, merge):
    """A volume on which detections have been painted one after the other, the best last.

    A step writes one slice, which a graph does in place. `tf.tensor_scatter_nd_update` and its kin, with which a step
    could paint many boxes, copy the volume every time on a CPU.

    Args:
      masks: [D, M, M, M] float32.
      boxes: [D, 6] float32, voxels.
      valid: [D] bool.
      blank: [Z, Y, X].
      merge: of what the volume holds in the box, the mask resampled there, and d; returns what shall be there.

    Returns:
      [Z, Y, X] of blank's dtype.
    """
    detections, begins, ends = _steps(boxes, valid, tf.shape(blank))

    def paint(step, volume):
        d, begin, end = detections[step], begins[step], ends[step]
        crop = merge(tf.slice(volume, begin, end - begin), resample(masks[d], boxes[d], begin, end), d)
        volume = tf.raw_ops.TensorStridedSliceUpdate(
            input=volume, begin=begin, end=end, strides=tf.ones_like(begin), value=crop
        )
        return step - 1, volume

    last = tf.size(detections) - 1
    return tf.while_loop(lambda step, _: step >= 0, paint, (last, blank), parallel_iterations=1)[1]


def _steps(boxes, valid, shape):
    """What each step paints: detections [n] in order and their voxels [n, 3], [n, 3]; large boxes in several layers."""
    lo, hi = covered_voxels(boxes, shape)
    depth, height, width = tf.unstack(hi - lo, axis=-1)
    thickness = tf.clip_by_value(_STEP_VOXELS // tf.maximum(height * width, 1), 1, tf.maximum(depth, 1))
    layers = lo[:, :1] + thickness[:, tf.newaxis] * tf.range(shape[0])  # [D, Z], more than enough
    chosen = tf.where(valid[:, tf.newaxis] & (layers < hi[:, :1]))
    detections, z = tf.cast(chosen[:, 0], tf.int32), tf.gather_nd(layers, chosen)
    lo, hi, thickness = (tf.gather(of, detections) for of in (lo, hi, thickness))
    begins = tf.concat([z[:, tf.newaxis], lo[:, 1:]], axis=-1)
    ends = tf.concat([tf.minimum(z + thickness, hi[:, 0])[:, tf.newaxis], hi[:, 1:]], axis=-1)
    return detections, begins, ends


def _linear_weights(voxels, lo, hi, size):
    """Shares [..., K, size] that mask cells between lo and hi have in the values at the centres of voxels [..., K]."""
    size = tf.cast(size, tf.float32)
    cells = tf.math.divide_no_nan(tf.cast(voxels, tf.float32) + 0.5 - lo, hi - lo) * size - 0.5
    cells = tf.clip_by_value(cells, 0.0, size - 1.0)
    return tf.maximum(1.0 - tf.abs(cells[..., tf.newaxis] - tf.range(size)), 0.0)
