"""Measured numbers of each roi, and the scale on which they are learnt."""

import math

import tensorflow as tf

from model import roi_sums
from model.towers import DenseTower, small

# Largest exponent of a decoded value, near 5e34: finite in float32.
MAX_LOG = 80.0


class AttributeHead(tf.keras.layers.Layer):
    """Dense layers over what the box head reads, then one number per attribute.

    Where sums over the object are known (model/roi_sums.py), the dense layers read their logarithms, too. With
    `proportional` numbers are learnt as log(1 + value), and the head adds log(1 + factor * sum): of a value that grows
    as the sum does a factor is left to learn. The sum of c of them is their geometric mean, times powers of them that
    are learnt and begin as 0. With `by_layer` it is given the sums of every layer along z, and dense layers of its own
    read which share each of them has, which would drown in the features of the roi: how much a sampling calorimeter
    measures of an energy depends on how deep it is left, and on what the particle is.
    """

    def __init__(self, *, num_attributes, hidden, num_dense, style, proportional=False, by_layer=False, **kwargs):
        """Makes the layers.

        Args:
          num_attributes: T.
          hidden: width of the dense layers.
          num_dense: how many of them.
          style: activation, initializer.
          proportional: whether a factor times the sum is added; it is called with sums then.
          by_layer: whether these are of layers.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.dense = DenseTower(hidden=hidden, num_dense=num_dense, style=style, name="dense")
        self.layers = DenseTower(hidden=hidden, num_dense=num_dense, style=style, name="layers") if by_layer else None
        self.values = _outputs(num_attributes, "values")
        self.factors = self.powers = None
        if proportional:
            self.factors = _outputs(num_attributes, "factors")
            self.powers = tf.keras.layers.Dense(
                num_attributes, use_bias=False, kernel_initializer="zeros", dtype=tf.float32, name="powers"
            )

    def call(self, pooled, sums=None, training=False):
        """Values of rois.

        Args:
          pooled: [B, R, z, y, x, C], what the box head reads.
          sums: [B, R, L, c] float32, of layers or, L = 1, of all; or None. See model/roi_sums.py.
          training: as of a layer.

        Returns:
          [B, R, T] float32, in the learnt scale.
        """
        x = tf.reshape(pooled, [-1, pooled.shape[1], math.prod(pooled.shape[2:])])
        if sums is not None:
            totals = tf.reduce_sum(sums, axis=2)
            log_sums = roi_sums.logarithm(totals)
            x = tf.concat([x, tf.cast(log_sums, x.dtype)], axis=-1)
        x = self.dense(x, training=training)
        if self.layers:
            x = tf.concat([x, self.layers(_profile(sums, totals), training=training)], axis=-1)
        if not self.factors:
            return self.values(x)
        # In float32, which tells a thousandth of the sum; x may be of half precision.
        log_products = tf.reduce_mean(log_sums, axis=-1, keepdims=True) + self.powers(log_sums) + self.factors(x)
        return self.values(x) + tf.math.softplus(log_products)


def _profile(sums, totals):
    """[B, R, L c] float32 in [-L, L]: sums of layers [B, R, L, c] over their mean, 1 if all have as much.

    Args:
      sums: of layers.
      totals: [B, R, c], of all of them.
    """
    shares = tf.clip_by_value(sums / tf.maximum(totals, roi_sums.SMALLEST)[:, :, tf.newaxis], -1.0, 1.0)
    return tf.reshape(sums.shape[2] * shares, [-1, sums.shape[1], math.prod(sums.shape[2:])])


def _outputs(num_attributes, name):
    return tf.keras.layers.Dense(num_attributes, kernel_initializer=small(0.01), dtype=tf.float32, name=name)


def encode_attributes(values, scale):
    """Attributes in the scale on which they are learnt.

    Args:
      values: [...] float32; NaN, unknown, stays NaN.
      scale: "log" for log(1 + value), which weighs errors by the size of the value, and -log(1 - value) below 0; or
        "linear".

    Returns:
      [...] float32.

    Raises:
      ValueError: an unknown scale.
    """
    _check(scale)
    if scale == "linear":
        return values
    return tf.sign(values) * tf.math.log1p(tf.abs(values))


def decode_attributes(predictions, scale):
    """Attributes as the data has them: the inverse of `encode_attributes`.

    Args:
      predictions: [...] float32, in the learnt scale.
      scale: "log" or "linear".

    Returns:
      [...] float32; on the scale "log" finite.

    Raises:
      ValueError: an unknown scale.
    """
    _check(scale)
    if scale == "linear":
        return predictions
    return tf.sign(predictions) * tf.math.expm1(tf.minimum(tf.abs(predictions), MAX_LOG))


def _check(scale):
    if scale not in ("log", "linear"):
        raise ValueError(f"expected scale 'log' or 'linear', came {scale!r}")
