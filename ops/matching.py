"""Which truth each anchor or roi answers for, by overlap."""

import tensorflow as tf

from ops import checks


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
      ValueError: other shapes, not 0 <= low <= high <= 1.
    """
    checks.shapes("iou [..., A, G], valid [..., G]", iou, valid)
    checks.within("high", high, 0, 1)
    checks.within("low", low, 0, high)
    iou = tf.where(valid[..., tf.newaxis, :] & (iou >= 0.0), iou, -1.0)
    # One more slot that never matches: an argmax needs a column even where there are no truth slots.
    iou = tf.pad(iou, [[0, 0]] * (iou.shape.rank - 1) + [[0, 1]], constant_values=-1.0)
    matched = tf.argmax(iou, axis=-1, output_type=tf.int32)
    best = tf.reduce_max(iou, axis=-1)
    labels = tf.where(best >= high, 1, tf.where(best < low, 0, -1))
    if low_quality:
        best_of_truth = tf.reduce_max(iou, axis=-2, keepdims=True)  # [..., 1, G]
        is_best = (iou == best_of_truth) & (iou > 0.0)
        # An anchor that is the best of several truths goes to the one it overlaps most.
        matched_low = tf.argmax(tf.where(is_best, iou, -1.0), axis=-1, output_type=tf.int32)
        has_low = tf.reduce_any(is_best, axis=-1)
        matched = tf.where(has_low, matched_low, matched)
        labels = tf.where(has_low, 1, labels)
    return matched, labels
