"""Measured numbers of each roi, and the scale on which they are learnt."""

import math

import tensorflow as tf

from model.towers import DenseTower, small

# Largest exponent of a decoded value, near 5e34: finite in float32.
MAX_LOG = 80.0


class AttributeHead(tf.keras.layers.Layer):
    """Dense layers over what the box head reads, then one number per attribute."""

    def __init__(self, *, num_attributes, hidden, num_dense, style, **kwargs):
        """Makes the layers.

        Args:
          num_attributes: T.
          hidden: width of the dense layers.
          num_dense: how many of them.
          style: activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.dense = DenseTower(hidden=hidden, num_dense=num_dense, style=style, name="dense")
        self.values = tf.keras.layers.Dense(
            num_attributes, kernel_initializer=small(0.01), dtype=tf.float32, name="values"
        )

    def call(self, pooled, training=False):
        """[B, R, z, y, x, C] -> [B, R, T] float32, in the learnt scale."""
        x = tf.reshape(pooled, [-1, pooled.shape[1], math.prod(pooled.shape[2:])])
        return self.values(self.dense(x, training=training))


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
