"""Greedy non-maximum suppression of 3D boxes, exact and tiled."""

import functools

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks, selection

# Boxes looked at together. Larger tiles mean fewer, costlier steps: the work inside a tile grows with its square.
TILE = 512
# Boxes tested at once against those kept, to fill a tile.
MAX_REACH = 4 * TILE
# What rounding may add to the IoU of two float32 boxes, and to a sum of eight products of float64.
IOU_MARGIN = 1e-5
SUM_MARGIN = 1e-12


def nms3d(boxes, scores, *, iou_threshold, max_outputs, score_threshold=None, class_ids=None):
    """Keeps the best-scored boxes and drops what overlaps them.

    Takes boxes in the order of their scores (ties by index) and keeps each that overlaps no kept one by more than the
    threshold. The order is worked through in tiles: what overlaps a box kept so far is dropped, and the survivors
    of a tile of the rest are found as the fixed point of "kept unless a kept, better one overlaps", which is the
    greedy answer. Memory is O(N + MAX_REACH * max_outputs), never N x N.

    Args:
      boxes: [N, 6] float32, voxels.
      scores: [N] float32; a box with a NaN score is never kept.
      iou_threshold: in [0, 1]; a box is dropped when its IoU with a kept one is larger than this.
      max_outputs: size of the result.
      score_threshold: boxes that score less are never kept; None keeps all.
      class_ids: [N] int32; when given, only boxes of one class suppress each other.

    Returns:
      indices: [max_outputs] int32 into boxes, best first; 0 where not valid.
      valid: [max_outputs] bool.

    Raises:
      ValueError: other shapes or types, iou_threshold outside [0, 1], or max_outputs not above 0.
    """
    checks.shapes("boxes [N, 6], scores [N], class_ids [N]", boxes, scores, class_ids)
    checks.within("iou_threshold", iou_threshold, 0, 1)
    checks.positive("max_outputs", max_outputs)
    boxes, scores = checks.float32("boxes", boxes), checks.float32("scores", scores)
    if class_ids is None:
        class_ids = tf.zeros(tf.shape(scores), tf.int32)
    order = _best_first(scores, score_threshold)
    boxes, class_ids = tf.gather(boxes, order), tf.gather(class_ids, order)
    count = tf.size(order)

    def pairs(rows, others):
        near = overlapping_pairs(tf.gather(boxes, rows), tf.gather(boxes, others), iou_threshold)
        row, other = tf.gather(rows, near[:, 0]), tf.gather(others, near[:, 1])
        return tf.boolean_mask(near, tf.gather(class_ids, row) == tf.gather(class_ids, other))

    def is_open(start, _, kept):
        return (start < count) & (tf.size(kept) < max_outputs)

    def next_tile(start, stop, kept):
        rows = tf.range(start, stop)
        rows = tf.boolean_mask(rows, ~_is_in(pairs(rows, kept)[:, 0], tf.size(rows)))
        # Where most boxes are dropped, look further for the next tile.
        reach = tf.where(tf.size(rows) > TILE // 4, TILE, tf.minimum(2 * (stop - start), MAX_REACH))
        start = tf.concat([rows, [stop]], axis=0)[tf.minimum(TILE, tf.size(rows))]  # the first one left over
        rows = rows[:TILE]
        rows = tf.boolean_mask(rows, _survivors(pairs(rows, rows), tf.size(rows)))
        return start, tf.minimum(start + reach, count), tf.concat([kept, rows], axis=0)[:max_outputs]

    initial = (tf.constant(0), tf.minimum(TILE, count), tf.zeros([0], tf.int32))
    invariants = (tf.TensorShape([]), tf.TensorShape([]), tf.TensorShape([None]))
    _, _, kept = tf.while_loop(is_open, next_tile, initial, shape_invariants=invariants)
    indices, valid = tf.gather(order, kept), tf.ones_like(kept, tf.bool)
    return selection.padded(indices, max_outputs), selection.padded(valid, max_outputs)


def batched_nms3d(boxes, scores, *, iou_threshold, max_outputs, score_threshold=None, class_ids=None):
    """`nms3d` of every volume of a batch.

    Args:
      boxes: [B, N, 6] float32, voxels.
      scores: [B, N] float32.
      iou_threshold: as in `nms3d`.
      max_outputs: as in `nms3d`.
      score_threshold: as in `nms3d`.
      class_ids: [B, N] int32 or None.

    Returns:
      indices: [B, max_outputs] int32; 0 where not valid.
      valid: [B, max_outputs] bool.

    Raises:
      ValueError: as in `nms3d`.
    """
    select = functools.partial(nms3d, iou_threshold=iou_threshold, score_threshold=score_threshold)
    dtypes = (tf.int32, tf.bool)
    return selection.of_each_volume(select, boxes, scores, class_ids, max_outputs=max_outputs, dtypes=dtypes)


def overlapping_pairs(boxes, others, iou_threshold):
    """Pairs of boxes that overlap by more than a threshold.

    Few pairs do, and a matrix product tells which others cannot. On every axis boxes with IoU > t have centres nearer
    than k (s + s'), where s and s' are their sizes and k = (1 - t) / (2 (1 + t)): an overlap of length i is one by
    i / (s + s' - i) on that axis, which the IoU in 3D does not exceed. Squared and summed over the axes,
    |c - c'|^2 < |k s + k s'|^2 is bilinear in (c, k s, |c|^2 - |k s|^2, 1) of either box.

    Args:
      boxes: [I, 6] float32, voxels.
      others: [J, 6] float32, voxels.
      iou_threshold: in [0, 1].

    Returns:
      [P, 2] int64: rows of boxes and others whose IoU is larger than the threshold, in the order of the rows.

    Raises:
      ValueError: other shapes or types, or iou_threshold outside [0, 1].
    """
    checks.shapes("boxes [I, 6], others [J, 6]", boxes, others)
    checks.within("iou_threshold", iou_threshold, 0, 1)
    boxes, others = checks.float32("boxes", boxes), checks.float32("others", others)
    points, offsets = _bilinear_form(boxes, iou_threshold)
    other_points, other_offsets = _bilinear_form(others, iou_threshold)
    left = tf.concat([-2.0 * points, offsets, tf.ones_like(offsets)], axis=1)
    right = tf.concat([other_points, tf.ones_like(other_offsets), other_offsets], axis=1)
    near = tf.where(tf.linalg.matmul(left, right, transpose_b=True) < 0.0)
    overlap = box_ops.iou(tf.gather(boxes, near[:, 0]), tf.gather(others, near[:, 1]))
    return tf.boolean_mask(near, overlap > iou_threshold)


def _bilinear_form(boxes, iou_threshold):
    """Points [I, 6] (c, k s) and offsets [I, 1] |c|^2 - |k s|^2, a little too small, both float64.

    Float64, since the squares of far-off centres cancel and a GPU may multiply float32 at 10 bits.
    """
    boxes, threshold = tf.cast(boxes, tf.float64), tf.cast(iou_threshold, tf.float64)
    threshold = tf.maximum(threshold - IOU_MARGIN, 0.0)
    reach = (1.0 - threshold) / (2.0 * (1.0 + threshold))
    centre, extent = 0.5 * (boxes[:, :3] + boxes[:, 3:]), reach * (boxes[:, 3:] - boxes[:, :3])
    square = tf.reduce_sum(centre**2, axis=1, keepdims=True)
    square_extent = tf.reduce_sum(extent**2, axis=1, keepdims=True)
    margin = SUM_MARGIN * (square + square_extent)
    return tf.concat([centre, extent], axis=1), square - square_extent - margin


def _best_first(scores, score_threshold):
    """Rows that may be kept, by falling score, equal ones by index."""
    eligible = ~tf.math.is_nan(scores)
    if score_threshold is not None:
        eligible &= scores >= score_threshold
    rows = tf.cast(tf.where(eligible)[:, 0], tf.int32)
    return tf.gather(rows, tf.argsort(tf.gather(scores, rows), direction="DESCENDING", stable=True))


def _survivors(pairs, num):
    """Greedy suppression among boxes in the order of their scores: [num] bool.

    Args:
      pairs: [P, 2] rows that overlap.
      num: number of boxes.
    """
    worse, better = tf.unstack(tf.boolean_mask(pairs, pairs[:, 1] < pairs[:, 0]), axis=1)

    def changed(previous, current):
        return tf.reduce_any(previous != current)

    def refine(_, current):
        return current, ~_is_in(tf.boolean_mask(worse, tf.gather(current, better)), num)

    # After n rounds the first n decisions are final, so the loop ends within num rounds; two or three are usual.
    everything = tf.ones([num], tf.bool)
    _, survives = tf.while_loop(changed, refine, refine(everything, everything))
    return survives


def _is_in(rows, num):
    """[num] bool: whether each of the rows 0 ... num - 1 is among those given."""
    return tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, num) > 0
