"""Losses of classes, deltas and masks, each averaged over the items of an example that count.

All return [B]: the mean over the masked items of each example, 0 with gradient 0 where there are none; `focal` alone
divides by the positives instead. A mean per example, not per batch, makes the loss of a batch independent of how
replicas share it. What does not count may hold anything, NaN too. Losses of decoded boxes are in `ops.box_losses`.
"""

import math

import tensorflow as tf

from ops import checks, masked

SOFTMAX_SHAPES = "logits [B, ..., K], class_ids [B, ...], mask [B, ...]"
MASK_SHAPES = "logits [B, R, z, y, x], targets [B, R, z, y, x], mask [B, R]"


def sigmoid_cross_entropy(logits, targets, mask, *, class_weights=None):
    """Binary cross-entropy.

    Args:
      logits: [B, ...] float32.
      targets: [B, ...] float32 in [0, 1].
      mask: [B, ...] bool, the items that count.
      class_weights: [2], at least 0, of targets 0 and 1; a target in between weighs in between. None weighs all alike.

    Returns:
      [B] float32; the weighted mean, as `softmax_cross_entropy` of the two logits (0, logit) has it.

    Raises:
      ValueError: shapes that differ, a weight below 0.
    """
    logits, targets, mask = masked.inputs("logits [B, ...], targets [B, ...], mask [B, ...]", logits, targets, mask)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    if class_weights is None:
        return masked.mean(loss, mask)
    of_zero, of_one = tf.unstack(_class_weights(class_weights, 2), num=2)
    return masked.mean(loss, mask, (1.0 - targets) * of_zero + targets * of_one)


def softmax_cross_entropy(logits, class_ids, mask, *, class_weights=None):
    """Cross-entropy of one right class among several.

    Args:
      logits: [B, ..., K] float32.
      class_ids: [B, ...] int32 in [0, K).
      mask: [B, ...] bool, the items that count.
      class_weights: [K], at least 0, of the right class of each item; None weighs all alike.

    Returns:
      [B] float32; the weighted mean, sum(weight * loss) / sum(weight), as in torch's `cross_entropy`: 0 where the
      weights sum to 0.

    Raises:
      ValueError: shapes that differ, not K weights, a weight below 0.
    """
    logits, class_ids, mask = masked.inputs(SOFTMAX_SHAPES, logits, class_ids, mask, target_dtype=tf.int32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits)
    return masked.mean(loss, mask, _item_weights(class_weights, class_ids, logits.shape[-1]))


def softmax_divergence(logits, targets, mask):
    """Kullback-Leibler divergence of a softmax from what it should be: cross-entropy above the least there can be.

    Args:
      logits: [B, ..., K] float32.
      targets: [B, ..., K] float32, at least 0 and of sum 1.
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32; 0 where the softmax equals the target.

    Raises:
      ValueError: shapes that differ.
    """
    expected = "logits [B, ..., K], targets [B, ..., K], mask [B, ...]"
    logits, targets, mask = masked.inputs(expected, logits, targets, mask)
    loss = tf.math.xlogy(targets, targets) - targets * tf.nn.log_softmax(logits)
    return masked.mean(tf.reduce_sum(loss, axis=-1), mask)


def softmax_focal(logits, class_ids, mask, *, gamma, class_weights=None):
    """Cross-entropy of each item times (1 - p)^gamma, p being the probability of the right class (Lin et al. 2017).

    Args:
      logits: [B, ..., K] float32.
      class_ids: [B, ...] int32 in [0, K).
      mask: [B, ...] bool, the items that count.
      gamma: how little an item counts that is right already, >= 0; `softmax_cross_entropy` at 0.
      class_weights: [K], at least 0, the alpha of each class; None weighs all alike.

    Returns:
      [B] float32; a mean as in `softmax_cross_entropy`, not over the positives: there is one right class per item.

    Raises:
      ValueError: shapes that differ, gamma below 0, not K weights, a weight below 0.
    """
    checks.within("gamma", gamma, 0, math.inf)
    logits, class_ids, mask = masked.inputs(SOFTMAX_SHAPES, logits, class_ids, mask, target_dtype=tf.int32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits)
    # log(1 - p) from the logits of the others: 1 - p itself rounds to 0, where a power below 1 has no finite gradient.
    right = tf.one_hot(class_ids, tf.shape(logits)[-1], on_value=True, off_value=False)
    log_wrong = tf.reduce_logsumexp(tf.where(right, -1e9, logits), -1) - tf.reduce_logsumexp(logits, -1)
    loss *= tf.exp(gamma * log_wrong)
    return masked.mean(loss, mask, _item_weights(class_weights, class_ids, logits.shape[-1]))


def focal(logits, targets, mask, *, alpha, gamma):
    """Sigmoid focal loss over the number of positives (Lin et al. 2017, equation 5).

    Args:
      logits: [B, ...] float32; [B, ..., K] for K classes, each against the rest.
      targets: as the logits, float32 in [0, 1]; one-hot along K, all 0 for background.
      mask: [B, ...] bool, the items that count, without the axis K.
      alpha: weight of target 1, in [0, 1]; target 0 weighs 1 - alpha. The paper's is 0.25.
      gamma: how little an item counts that is right already, >= 0. The paper's is 2.

    Returns:
      [B] float32: the sum over the items that count, divided by the sum of their targets or 1 if that is less. So an
      example without positives has the sum over its negatives.

    Raises:
      ValueError: shapes that differ, alpha outside [0, 1], gamma below 0.
    """
    checks.within("alpha", alpha, 0, 1)
    checks.within("gamma", gamma, 0, math.inf)
    has_classes = checks.rank("logits", logits) == checks.rank("mask", mask) + 1
    axes = "[B, ..., K]" if has_classes else "[B, ...]"
    logits, targets, mask = masked.inputs(f"logits {axes}, targets {axes}, mask [B, ...]", logits, targets, mask)
    loss = _focal(logits, targets, alpha, gamma)
    if has_classes:
        loss, targets = tf.reduce_sum(loss, axis=-1), tf.reduce_sum(targets, axis=-1)
    return masked.total(loss, mask) / tf.maximum(masked.total(targets, mask), 1.0)


def smooth_l1(predictions, targets, mask, *, beta):
    """Huber loss over beta (Girshick 2015): quadratic below beta, linear above, summed over the last axis.

    Args:
      predictions: [B, ..., N] float32.
      targets: [B, ..., N] float32.
      mask: [B, ...] bool, the items that count.
      beta: where the two pieces meet, > 0.

    Returns:
      [B] float32.

    Raises:
      ValueError: shapes that differ, beta not above 0.
    """
    checks.positive("beta", beta)
    difference, mask = _differences(predictions, targets, mask)
    distance = tf.abs(difference)
    # A sum of what lies below beta and above it: where() would square the distances that it drops, and they overflow.
    near, far = tf.minimum(distance, beta), tf.nn.relu(distance - beta)
    return masked.mean(tf.reduce_sum(0.5 * near * (near / beta) + far, axis=-1), mask)


def linex(predictions, targets, mask, *, reach):
    """Linear-exponential loss (Varian 1975; Zellner 1986), exp(d) - d - 1 of d = prediction - target, summed over N.

    Of logarithms it is what makes the mean of exp(prediction) / exp(target) 1, where the data leaves the target open: a
    squared error of them leaves it above 1, the median of smooth L1 anywhere.

    Args:
      predictions: [B, ..., N] float32.
      targets: [B, ..., N] float32.
      mask: [B, ...] bool, the items that count.
      reach: > 0; from d = reach on the loss goes straight, by the slope that it has there, so that a prediction that is
        far too large has a gradient as one that is far too small has.

    Returns:
      [B] float32.

    Raises:
      ValueError: shapes that differ, reach not above 0.
    """
    checks.positive("reach", reach)
    distance, mask = _differences(predictions, targets, mask)
    near, far = tf.minimum(distance, reach), tf.nn.relu(distance - reach)
    return masked.mean(tf.reduce_sum(tf.math.expm1(near) - near + math.expm1(reach) * far, axis=-1), mask)


def mask_cross_entropy(logits, targets, mask):
    """Binary cross-entropy of masks, averaged over their voxels.

    Args:
      logits: [B, R, M, M, M] float32; the three M may differ.
      targets: [B, R, M, M, M] float32 in [0, 1].
      mask: [B, R] bool, the rois that count.

    Returns:
      [B] float32.

    Raises:
      ValueError: shapes that differ.
    """
    logits, targets, mask = masked.inputs(MASK_SHAPES, logits, targets, mask)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return masked.mean(tf.reduce_mean(loss, axis=[-3, -2, -1]), mask)


def mask_focal(logits, targets, mask, *, alpha, gamma):
    """Sigmoid focal loss of masks, averaged over their voxels (Lin et al. 2017, equation 5, without its sum).

    A mean as in `mask_cross_entropy`, of which it is half at alpha 0.5 and gamma 0: the voxels of a roi are about as
    often object as not, so there are no few positives to divide by.

    Args:
      logits: [B, R, M, M, M] float32; the three M may differ.
      targets: [B, R, M, M, M] float32 in [0, 1].
      mask: [B, R] bool, the rois that count.
      alpha: weight of target 1, in [0, 1]; target 0 weighs 1 - alpha.
      gamma: how little a voxel counts that is right already, >= 0.

    Returns:
      [B] float32.

    Raises:
      ValueError: shapes that differ, alpha outside [0, 1], gamma below 0.
    """
    checks.within("alpha", alpha, 0, 1)
    checks.within("gamma", gamma, 0, math.inf)
    logits, targets, mask = masked.inputs(MASK_SHAPES, logits, targets, mask)
    return masked.mean(tf.reduce_mean(_focal(logits, targets, alpha, gamma), axis=[-3, -2, -1]), mask)


def dice(logits, targets, mask):
    """One minus the soft Dice overlap of masks (Milletari et al. 2016, with a smoothing of one voxel).

    Args:
      logits: [B, R, M, M, M] float32; the three M may differ.
      targets: [B, R, M, M, M] float32 in [0, 1].
      mask: [B, R] bool, the rois that count.

    Returns:
      [B] float32.

    Raises:
      ValueError: shapes that differ.
    """
    logits, targets, mask = masked.inputs(MASK_SHAPES, logits, targets, mask)
    voxels = [-3, -2, -1]
    probabilities = tf.sigmoid(logits)
    overlap = tf.reduce_sum(probabilities * targets, voxels)
    total = tf.reduce_sum(probabilities, voxels) + tf.reduce_sum(targets, voxels)
    return masked.mean(1.0 - (2.0 * overlap + 1.0) / (total + 1.0), mask)


def _focal(logits, targets, alpha, gamma):
    """The focal loss of every logit, as its own shape."""
    missed, raised = tf.nn.softplus(-logits), tf.nn.softplus(logits)  # -log(p), -log(1 - p)
    # Powers as exp(gamma * log): p and 1 - p round to 0, where a power below 1 has no finite gradient.
    loss = alpha * targets * missed * tf.exp(-gamma * raised)
    return loss + (1.0 - alpha) * (1.0 - targets) * raised * tf.exp(-gamma * missed)


def _item_weights(class_weights, class_ids, num_classes):
    """The weight of the class of each item, [B, ...]; None for none."""
    return None if class_weights is None else tf.gather(_class_weights(class_weights, num_classes), class_ids)


def _class_weights(class_weights, num_classes):
    """Checked weights, [num_classes] float32."""
    weights = tf.convert_to_tensor(class_weights, tf.float32)
    checks.shapes(f"class_weights [{num_classes}]", weights)
    for weight in [] if tf.is_tensor(class_weights) else class_weights:
        checks.within("class_weights", weight, 0, tf.float32.max)
    return weights


def _differences(predictions, targets, mask):
    """[B, ..., N] float32 predictions - targets, 0 for items that do not count, and the mask [B, ...], all checked."""
    expected = "predictions [B, ..., N], targets [B, ..., N], mask [B, ...]"
    predictions, targets, mask = masked.inputs(expected, predictions, targets, mask)
    return predictions - targets, mask
