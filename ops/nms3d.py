"""Greedy non-maximum suppression of 3D boxes, exact and tiled."""

import tensorflow as tf

from ops import boxes as box_ops

# Boxes looked at together. Larger tiles mean fewer, costlier steps: the work inside a tile grows with its square.
TILE = 256


def nms3d(boxes, scores, *, iou_threshold, max_outputs, score_threshold=None, class_ids=None):
    """Keeps the best-scored boxes and drops what overlaps them.

    Takes boxes in the order of their scores (ties by index) and keeps each that overlaps no kept one by more than the
    threshold. The order is worked through in tiles: a tile is tested against the boxes kept so far, then its own
    survivors are found as the fixed point of "kept unless a kept, better one overlaps", which is the greedy answer.
    Memory is O(TILE * max_outputs), never N x N.

    Args:
      boxes: [N, 6] float32, voxels.
      scores: [N] float32; a box with a NaN score is never kept.
      iou_threshold: a box is dropped when its IoU with a kept one is larger than this.
      max_outputs: size of the result.
      score_threshold: boxes that score less are never kept; None keeps all.
      class_ids: [N] int32; when given, only boxes of one class suppress each other.

    Returns:
      indices: [max_outputs] int32 into boxes, best first; 0 where not valid.
      valid: [max_outputs] bool.
    """
    count = tf.shape(boxes)[0]
    eligible = ~tf.math.is_nan(scores)
    if score_threshold is not None:
        eligible &= scores >= score_threshold
    order = tf.argsort(tf.where(eligible, scores, -float("inf")), direction="DESCENDING", stable=True)
    if class_ids is None:
        class_ids = tf.zeros([count], tf.int32)

    # Everything in the order of the scores, padded so that the last tile is whole.
    padding = (-count) % TILE
    order = tf.pad(order, [[0, padding]])
    alive = tf.gather(eligible, order) & (tf.range(count + padding) < count)
    boxes, class_ids = tf.gather(boxes, order), tf.gather(class_ids, order)

    def is_open(start, num_kept, *_):
        return (start < count) & (num_kept < max_outputs)

    def next_tile(start, num_kept, kept_rows):
        rows = tf.range(start, start + TILE)
        tile, tile_classes = boxes[start : start + TILE], class_ids[start : start + TILE]
        kept_boxes, kept_classes = tf.gather(boxes, kept_rows), tf.gather(class_ids, kept_rows)
        is_kept = tf.range(max_outputs) < num_kept
        hit = _suppresses(tile, tile_classes, kept_boxes, kept_classes, iou_threshold) & is_kept
        survives = alive[start : start + TILE] & ~tf.reduce_any(hit, axis=1)
        survives = _greedy_within(tile, tile_classes, survives, iou_threshold)
        new_rows = tf.boolean_mask(rows, survives)[: max_outputs - num_kept]
        slots = num_kept + tf.range(tf.size(new_rows))
        kept_rows = tf.tensor_scatter_nd_update(kept_rows, slots[:, tf.newaxis], new_rows)
        return start + TILE, num_kept + tf.size(new_rows), kept_rows

    initial = (tf.constant(0), tf.constant(0), tf.zeros([max_outputs], tf.int32))
    _, num_kept, kept_rows = tf.while_loop(is_open, next_tile, initial)
    valid = tf.range(max_outputs) < num_kept
    indices = tf.where(valid, tf.gather(tf.pad(order, [[0, 1]]), kept_rows), 0)
    return tf.ensure_shape(indices, [max_outputs]), tf.ensure_shape(valid, [max_outputs])


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
    """
    if class_ids is None:
        class_ids = tf.zeros(tf.shape(scores), tf.int32)

    def one(volume):
        volume_boxes, volume_scores, volume_classes = volume
        return nms3d(
            volume_boxes,
            volume_scores,
            iou_threshold=iou_threshold,
            max_outputs=max_outputs,
            score_threshold=score_threshold,
            class_ids=volume_classes,
        )

    signature = (tf.TensorSpec([max_outputs], tf.int32), tf.TensorSpec([max_outputs], tf.bool))
    return tf.map_fn(one, (boxes, scores, class_ids), fn_output_signature=signature)


def _suppresses(boxes, classes, others, other_classes, iou_threshold):
    """[I, J] bool: box i and other j are of one class and overlap by more than the threshold."""
    same_class = classes[:, tf.newaxis] == other_classes[tf.newaxis, :]
    return same_class & (box_ops.iou_matrix(boxes, others) > iou_threshold)


def _greedy_within(tile, classes, alive, iou_threshold):
    """Greedy suppression among the boxes of one tile, in their order: [TILE] bool."""
    overlaps = _suppresses(tile, classes, tile, classes, iou_threshold)
    better = tf.linalg.band_part(tf.ones([TILE, TILE], tf.bool), 0, -1)  # [j, i]: j <= i
    better = tf.linalg.set_diag(better, tf.zeros([TILE], tf.bool))
    blocks = overlaps & better & alive[:, tf.newaxis]  # [j, i]: j would suppress i

    def changed(previous, current):
        return tf.reduce_any(previous != current)

    def refine(_, current):
        return current, alive & ~tf.reduce_any(blocks & current[:, tf.newaxis], axis=0)

    # After n rounds the first n decisions are final, so the loop ends within TILE rounds; two or three are usual.
    first = alive & ~tf.reduce_any(blocks, axis=0)
    _, survives = tf.while_loop(changed, refine, (alive, first))
    return survives
