"""Adaptive training sample selection: which truth each anchor answers for, without an IoU threshold to set."""

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks

# Truths are worked through in chunks of so many (truth, anchor) pairs: 16 MB for the distance of each.
MAX_PAIRS = 2**22
# Share of the threshold. Candidates of one and the same IoU all reach it, whatever the rounding of their mean.
TOLERANCE = 1e-6


def atss(anchors, anchors_per_level, boxes, valid, *, candidates_per_level=9):
    """Assigns a truth and a label to every anchor (Zhang et al. 2020; in 3D as Baumgartner et al. 2021, nnDetection).

    Candidates of a truth are, of each level, the anchors with the nearest centres (of equals the first). Positive are
    those candidates whose IoU reaches the mean plus the standard deviation (of the population: over n) of the
    candidates' IoU and whose centre lies inside the truth, not on its border. A truth may be left without any anchor:
    neither ATSS nor nnDetection gives it one.

    Args:
      anchors: [A, 6] float32, voxels.
      anchors_per_level: how many of the anchors, in order, each level has.
      boxes: [B, G, 6] float32, truths, voxels.
      valid: [B, G] bool; False where a truth slot is padding.
      candidates_per_level: anchors, not places: with n anchors around every cell nnDetection takes n times as many.

    Returns:
      matched: [B, A] int32, the truth slot of each positive anchor, of several the one of highest IoU (of equals the
        first); 0 for the others.
      labels: [B, A] int32: 1 positive, 0 negative. Without a valid truth all are 0.

    Raises:
      ValueError: other shapes or types, anchors_per_level that do not add up to A, candidates_per_level not positive.
    """
    num_anchors = sum(anchors_per_level)
    checks.shapes(f"anchors [{num_anchors}, 6], boxes [B, G, 6], valid [B, G]", anchors, boxes, valid)
    checks.positive("candidates_per_level", candidates_per_level)
    anchors, boxes = checks.float32("anchors", anchors), checks.float32("boxes", boxes)
    shape = tf.shape(valid)
    num_truths = shape[0] * shape[1]
    index = _candidates(anchors, anchors_per_level, tf.reshape(boxes, [num_truths, 6]), candidates_per_level)
    index = tf.reshape(index, [shape[0], shape[1], index.shape[1]])  # [B, G, C]

    candidates, truths = tf.gather(anchors, index), boxes[:, :, tf.newaxis]  # [B, G, C, 6], [B, G, 1, 6]
    iou = box_ops.iou(candidates, truths)
    threshold = tf.reduce_mean(iou, axis=-1, keepdims=True) + tf.math.reduce_std(iou, axis=-1, keepdims=True)
    centres = _centres(candidates)
    is_inside = tf.reduce_all((truths[..., :3] < centres) & (centres < truths[..., 3:]), axis=-1)
    is_positive = valid[..., tf.newaxis] & is_inside & (iou >= (1.0 - TOLERANCE) * threshold)
    return _highest_iou(index, iou, is_positive, num_anchors)


def _candidates(anchors, anchors_per_level, boxes, candidates_per_level):
    """Indices [T, C] int32 of the anchors of each level with the nearest centres to the boxes [T, 6]."""
    num_truths = tf.shape(boxes)[0]
    chunk = tf.clip_by_value(num_truths, 1, max(MAX_PAIRS // max(sum(anchors_per_level), 1), 1))
    num_chunks = tf.maximum(-(-num_truths // chunk), 1)  # a loop of no steps has no shape to give
    padded = tf.pad(_centres(boxes), [[0, num_chunks * chunk - num_truths], [0, 0]])
    levels = tf.split(_centres(anchors), list(anchors_per_level))

    def nearest(centres):
        found, start = [], 0
        for level in levels:
            # One axis after the other: no tensor [chunk, A, 3].
            distance = tf.add_n([tf.square(centres[:, k, tf.newaxis] - level[:, k]) for k in range(3)])
            found.append(start + tf.math.top_k(-distance, min(candidates_per_level, level.shape[0]))[1])
            start += level.shape[0]
        return tf.concat(found, axis=1)

    num_candidates = sum(min(candidates_per_level, level.shape[0]) for level in levels)
    chunks = tf.reshape(padded, [num_chunks, chunk, 3])
    spec = tf.TensorSpec([None, num_candidates], tf.int32)
    index = tf.map_fn(nearest, chunks, fn_output_signature=spec, parallel_iterations=1)
    return tf.reshape(index, [num_chunks * chunk, num_candidates])[:num_truths]


def _highest_iou(index, iou, is_positive, num_anchors):
    """What each anchor is matched to, and its label, [B, A] int32 both, from candidates [B, G, C] of the truths."""
    shape = tf.shape(index)
    size = shape[0] * num_anchors
    place = index + num_anchors * tf.range(shape[0])[:, tf.newaxis, tf.newaxis]  # of the anchor among all volumes'
    best = tf.math.unsorted_segment_max(tf.where(is_positive, iou, -1.0), place, size)
    is_best = is_positive & (iou == tf.gather(best, place))
    slots = tf.where(is_best, tf.range(shape[1])[:, tf.newaxis], shape[1])
    matched = tf.reshape(tf.math.unsorted_segment_min(slots, place, size), [shape[0], num_anchors])
    is_matched = matched < shape[1]
    return tf.where(is_matched, matched, 0), tf.cast(is_matched, tf.int32)


def _centres(boxes):
    return 0.5 * (boxes[..., :3] + boxes[..., 3:])
