"""Means over the items that count, and inputs in which the others are zeros."""

import tensorflow as tf

from ops import checks


def inputs(expected, predictions, targets, mask, *, target_dtype=tf.float32):
    """Checked tensors in which the items that do not count are zeros, harmless to every loss.

    To drop the loss of an item by where() is not enough if its logit is not finite: 0 times the derivative there is
    NaN. So the item is replaced before the loss is computed as well.

    Args:
      expected: their shapes, for `checks.shapes`; "..." stands for the same axes everywhere.
      predictions: [B, ..., (more axes)] float32.
      targets: [B, ..., (more axes)] of `target_dtype`.
      mask: [B, ...] bool, the items that count.
      target_dtype: dtype of the targets.

    Returns:
      predictions, targets, mask as tensors.

    Raises:
      ValueError: shapes or dtypes that are not as expected.
    """
    items = "".join(f", i{axis}" for axis in range(1, checks.rank("mask", mask)))
    checks.shapes(expected.replace(", ...", items), predictions, targets, mask)
    mask = tf.convert_to_tensor(mask, tf.bool)
    predictions = checks.float32("predictions", predictions)
    is_float = target_dtype == tf.float32
    targets = checks.float32("targets", targets) if is_float else tf.convert_to_tensor(targets, target_dtype)
    return _replace(predictions, mask), _replace(targets, mask), mask


def mean(values, mask, weights=None):
    """Mean over the items of each example that count.

    Args:
      values: [B, ...] float32.
      mask: [B, ...] bool, the items that count.
      weights: [B, ...] float32, at least 0; None weighs all alike.

    Returns:
      [B] float32: sum(weight * value) / sum(weight); 0 with gradient 0 where the weights sum to 0.
    """
    if weights is None:
        return tf.math.divide_no_nan(total(values, mask), total(tf.ones_like(values), mask))
    return tf.math.divide_no_nan(total(weights * values, mask), total(weights, mask))


def total(values, mask):
    """Sum over the items of each example that count: [B, ...] float32, [B, ...] bool -> [B]; 0 where there are none."""
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=list(range(1, values.shape.rank)))


def _replace(tensor, mask):
    """Zeros where an item does not count: [B, ..., (more axes)], [B, ...] -> [B, ..., (more axes)]."""
    for _ in range(tensor.shape.rank - mask.shape.rank):
        mask = mask[..., tf.newaxis]
    return tf.where(mask, tensor, tf.cast(0, tensor.dtype))
