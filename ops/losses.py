"""Losses, each averaged over the items of an example that count.

All return [B]: the mean over the masked items of each example, 0 where there are none. A mean per example, not per
batch, makes the loss of a batch independent of how replicas share it.
"""

import tensorflow as tf


def sigmoid_cross_entropy(logits, targets, mask):
    """Binary cross-entropy.

    Args:
      logits: [B, ...] float32.
      targets: [B, ...] float32 in [0, 1].
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32.
    """
    return _masked_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), mask)


def softmax_cross_entropy(logits, class_ids, mask):
    """Cross-entropy of one right class among several.

    Args:
      logits: [B, ..., K] float32.
      class_ids: [B, ...] int32 in [0, K).
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32.
    """
    return _masked_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits), mask)


def smooth_l1(predictions, targets, mask, *, beta):
    """Huber loss over beta (Girshick 2015): quadratic below beta, linear above, summed over the last axis.

    Args:
      predictions: [B, ..., 6] float32.
      targets: [B, ..., 6] float32.
      mask: [B, ...] bool, the items that count.
      beta: where the two pieces meet, > 0.

    Returns:
      [B] float32.
    """
    distance = tf.abs(predictions - targets)
    loss = tf.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
    return _masked_mean(tf.reduce_sum(loss, axis=-1), mask)


def mask_cross_entropy(logits, targets, mask):
    """Binary cross-entropy of masks, averaged over their voxels.

    Args:
      logits: [B, R, M, M, M] float32.
      targets: [B, R, M, M, M] float32 in [0, 1].
      mask: [B, R] bool, the rois that count.

    Returns:
      [B] float32.
    """
    loss = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return _masked_mean(tf.reduce_mean(loss, axis=[-3, -2, -1]), mask)


def dice(logits, targets, mask):
    """One minus the soft Dice overlap of masks (Milletari et al. 2016, with a smoothing of one voxel).

    Args:
      logits: [B, R, M, M, M] float32.
      targets: [B, R, M, M, M] float32 in [0, 1].
      mask: [B, R] bool, the rois that count.

    Returns:
      [B] float32.
    """
    voxels = [-3, -2, -1]
    probabilities = tf.sigmoid(logits)
    overlap = tf.reduce_sum(probabilities * targets, voxels)
    total = tf.reduce_sum(probabilities, voxels) + tf.reduce_sum(targets, voxels)
    return _masked_mean(1.0 - (2.0 * overlap + 1.0) / (total + 1.0), mask)


def _masked_mean(values, mask):
    """[B, ...] values, [B, ...] bool -> [B]: mean over the True items of each example."""
    axes = list(range(1, values.shape.rank))
    # where(), not a product: a loss that is not finite at an item that does not count must not leak.
    total = tf.reduce_sum(tf.where(mask, values, 0.0), axes)
    count = tf.reduce_sum(tf.cast(mask, values.dtype), axes)
    return total / tf.maximum(count, 1.0)
