"""Which truth each anchor or roi answers for, by overlap."""

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks

# Boxes are matched in chunks of so many (anchor, truth) pairs: 16 MB for the IoU of each.
MAX_PAIRS = 2**22


def match(iou, valid, *, high, low, low_quality=True):
    """Assigns a truth and a label to every anchor by overlap (Ren et al. 2015, section 3.1.2).

    Args:
      iou: [..., A, G] float32, overlap of anchors and truths; a NaN counts as no overlap.
      valid: [..., G] bool; False where a truth slot is padding.
      high: an anchor with IoU >= high is positive.
      low: an anchor with IoU < low is negative; between the two it is ignored.
      low_quality: also make the best anchors of every truth positive (all that tie, where they overlap it at all).

    Returns:
      matched: [..., A] int32, the truth slot of each anchor: its own best one, or the one it is best for.
      labels: [..., A] int32: 1 positive, 0 negative, -1 ignored. Without a valid truth all are 0.

    Raises:
      ValueError: other shapes or types, not 0 <= low <= high <= 1.
    """
    checks.shapes("iou [..., A, G], valid [..., G]", iou, valid)
    _check_thresholds(high, low)
    iou = _of_valid(checks.float32("iou", iou), valid)
    best_of_truth = tf.reduce_max(iou, axis=-2, keepdims=True) if low_quality else None
    return _assign(iou, best_of_truth, high, low)


def match_boxes(anchors, boxes, valid, *, high, low, low_quality=True):
    """`match` by the IoU of anchors and truths, without a matrix of all pairs where there are many.

    More than MAX_PAIRS pairs are worked through in chunks of anchors, and memory is O(A + max(MAX_PAIRS, G)). With
    low_quality they are worked through twice: which anchors are the best of a truth is known after the last chunk only.
    The IoU of a pair is the same number both times, so none that tie for the best is lost.

    Args:
      anchors: [A, 6] float32, voxels.
      boxes: [G, 6] float32, truths, voxels.
      valid: [G] bool; False where a truth slot is padding.
      high: as in `match`.
      low: as in `match`.
      low_quality: as in `match`.

    Returns:
      matched: [A] int32.
      labels: [A] int32.

    Raises:
      ValueError: other shapes or types, not 0 <= low <= high <= 1.
    """
    checks.shapes("anchors [A, 6], boxes [G, 6], valid [G]", anchors, boxes, valid)
    _check_thresholds(high, low)
    anchors, boxes = checks.float32("anchors", anchors), checks.float32("boxes", boxes)
    slots = tf.cast(tf.where(valid)[:, 0], tf.int32)  # most are padding, as a rule
    matched, labels = _match_valid(anchors, tf.gather(boxes, slots), high, low, low_quality)
    matched = tf.gather(tf.pad(slots, [[0, 1]]), matched)
    return tf.ensure_shape(matched, anchors.shape[:1]), tf.ensure_shape(labels, anchors.shape[:1])


def _match_valid(anchors, boxes, high, low, low_quality):
    """`match_boxes` of truths none of which is padding, in chunks of anchors."""
    chunks, valid = _chunks(anchors, tf.shape(boxes)[0]), tf.fill(tf.shape(boxes)[:1], True)

    def of_chunks(function, signature):
        return tf.map_fn(function, chunks, fn_output_signature=signature, parallel_iterations=1)

    def overlaps(chunk):
        return _of_valid(box_ops.iou_matrix(chunk, boxes), valid)

    best_of_truth = None
    if low_quality:
        best_of_chunks = of_chunks(lambda chunk: tf.reduce_max(overlaps(chunk), axis=0), tf.TensorSpec([None]))
        best_of_truth = tf.reduce_max(best_of_chunks, axis=0, keepdims=True)
    spec = tf.TensorSpec([None], tf.int32)
    results = of_chunks(lambda chunk: _assign(overlaps(chunk), best_of_truth, high, low), (spec, spec))
    return (tf.reshape(result, [-1])[: tf.shape(anchors)[0]] for result in results)


def _check_thresholds(high, low):
    checks.within("high", high, 0, 1)
    checks.within("low", low, 0, high)


def _of_valid(iou, valid):
    """The overlaps [..., A, G + 1]; -1, which matches nothing, where the truth is padding or the overlap NaN.

    And in one more slot: an argmax needs a column even where there are no truth slots.
    """
    iou = tf.where(valid[..., tf.newaxis, :] & (iou >= 0.0), iou, -1.0)
    return tf.pad(iou, [[0, 0]] * (iou.shape.rank - 1) + [[0, 1]], constant_values=-1.0)


def _assign(iou, best_of_truth, high, low):
    """`match` of overlaps from `_of_valid` and the largest of each truth, [..., 1, G + 1], None without low_quality."""
    matched = tf.argmax(iou, axis=-1, output_type=tf.int32)
    best = tf.reduce_max(iou, axis=-1)
    labels = tf.where(best >= high, 1, tf.where(best < low, 0, -1))
    if best_of_truth is None:
        return matched, labels
    is_best = (iou == best_of_truth) & (iou > 0.0)
    # An anchor that is the best of several truths goes to the one it overlaps most.
    matched_low = tf.argmax(tf.where(is_best, iou, -1.0), axis=-1, output_type=tf.int32)
    has_low = tf.reduce_any(is_best, axis=-1)
    return tf.where(has_low, matched_low, matched), tf.where(has_low, 1, labels)


def _chunks(anchors, num_truths):
    """Anchors [A, 6] as [chunks, n, 6] of at most MAX_PAIRS pairs, or one anchor, each; filled up with empty boxes."""
    num_anchors = tf.shape(anchors)[0]
    num_chunks = tf.maximum(-(-num_anchors // tf.maximum(MAX_PAIRS // tf.maximum(num_truths, 1), 1)), 1)
    size = -(-num_anchors // num_chunks)
    return tf.reshape(tf.pad(anchors, [[0, num_chunks * size - num_anchors], [0, 0]]), [num_chunks, size, 6])
