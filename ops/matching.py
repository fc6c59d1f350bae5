"""Which truth each anchor or roi answers for, and which of them train."""

import tensorflow as tf


def match(iou, valid, *, high, low, low_quality=True):
    """Assigns a truth and a label to every anchor by overlap (Ren et al. 2015, section 3.1.2).

    Args:
      iou: [..., A, G] float32, overlap of anchors and truths.
      valid: [..., G] bool; False where a truth slot is padding.
      high: an anchor with IoU >= high is positive.
      low: an anchor with IoU < low is negative; between the two it is ignored.
      low_quality: also make the best anchors of every truth positive (all that tie, where they overlap it at all).

    Returns:
      matched: [..., A] int32, the truth slot of each anchor: its own best one, or the one it is best for.
      labels: [..., A] int32: 1 positive, 0 negative, -1 ignored. Without a valid truth all are 0.
    """
    iou = tf.where(valid[..., tf.newaxis, :], iou, -1.0)
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


def balanced_sample(labels, *, num_samples, positive_fraction, seed):
    """A random subset with a bounded share of positives; negatives fill the rest.

    Args:
      labels: [..., A] int32: 1 positive, 0 negative, -1 ignored.
      num_samples: size of the subset.
      positive_fraction: at most round(num_samples * positive_fraction) of it are positives.
      seed: [2] int32; the same seed gives the same subset.

    Returns:
      positive: [..., A] bool, the positives drawn.
      negative: [..., A] bool, the negatives drawn. Fewer than num_samples in all where labels has fewer.
    """
    max_positives = round(num_samples * positive_fraction)
    priority = tf.random.stateless_uniform(tf.shape(labels), seed)
    positive = _draw(labels == 1, priority, max_positives)
    num_positives = tf.reduce_sum(tf.cast(positive, tf.int32), axis=-1, keepdims=True)
    negative = _draw(labels == 0, priority, num_samples - num_positives)
    return positive, negative


def _draw(candidates, priority, count):
    """The `count` ([..., 1] or a number) candidates of highest priority: [..., A] bool."""
    order = tf.argsort(tf.where(candidates, priority, -1.0), axis=-1, direction="DESCENDING", stable=True)
    rank = tf.argsort(order, axis=-1, stable=True)
    return candidates & (rank < count)
