"""Normalisation layers."""

import tensorflow as tf


def make(kind, groups):
    """A normalisation layer.

    Args:
      kind: "group", "batch" (statistics over all replicas) or "none".
      groups: groups of channels, for "group".

    Returns:
      A Keras layer [B, ..., C] -> [B, ..., C].
    """
    if kind == "group":
        return GroupNorm(groups)
    if kind == "batch":
        return tf.keras.layers.BatchNormalization(momentum=0.9, synchronized=True)
    return tf.keras.layers.Activation("linear")


class GroupNorm(tf.keras.layers.Layer):
    """Group normalisation (Wu and He 2018) as one multiplication and one addition per voxel.

    The two moments of every group are folded with the learnt scale and offset into one scale and one offset per volume
    and channel, so the large tensor is read twice and written once.
    """

    def __init__(self, groups, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, shape):
        """Creates scale and offset, one per channel; ValueError unless the groups divide the channels."""
        if shape[-1] % self.groups:
            raise ValueError(
                f"group normalisation: expected channels that are a multiple of {self.groups} groups, came {shape[-1]}"
            )
        self.gamma = self.add_weight("gamma", [shape[-1]], initializer="ones")
        self.beta = self.add_weight("beta", [shape[-1]], initializer="zeros")
        super().build(shape)

    def call(self, x):
        """[B, z, y, x, C] float32 -> the same shape."""
        space = list(range(1, x.shape.rank - 1))
        mean, mean_of_squares = self._group_mean(x, space), self._group_mean(tf.square(x), space)
        variance = tf.maximum(mean_of_squares - tf.square(mean), 0.0)
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return x * scale + (self.beta - mean * scale)

    def _group_mean(self, x, space):
        """Mean of each channel's group: [B, 1, 1, 1, C]."""
        channels = x.shape[-1]
        mean = tf.reshape(tf.reduce_mean(x, space, keepdims=True), [-1, self.groups, channels // self.groups])
        mean = tf.reduce_mean(mean, axis=-1, keepdims=True)
        mean = tf.repeat(mean, channels // self.groups, axis=-1)
        return tf.reshape(mean, [-1, *(1 for _ in space), channels])
