"""Normalisation layers: every one takes its moments in float32, also where the network computes in half precision."""

import tensorflow as tf

EPSILON = 1e-5
MOMENTUM = 0.9


def make(style, **kwargs):
    """A normalisation layer.

    Args:
      style: section with `norm`: "group"; "batch" (every replica takes the moments of its own part of the batch);
        "sync_batch" (all replicas take those of the whole batch); "frozen_batch" (the moments, scale and offset that
        were loaded, never trained); "instance"; "layer"; or "none". And with `norm_groups`, for "group".
      **kwargs: to the layer.

    Returns:
      A Keras layer [B, ..., C] -> the same shape and dtype, called with `training`.
    """
    if style.norm == "group":
        return GroupNorm(style.norm_groups, **kwargs)
    if style.norm == "frozen_batch":
        return FrozenBatchNorm(**kwargs)
    if style.norm == "instance":
        return InstanceNorm(epsilon=EPSILON, **kwargs)
    if style.norm == "layer":
        return LayerNorm(epsilon=EPSILON, **kwargs)
    if style.norm == "none":
        return tf.keras.layers.Activation("linear", **kwargs)
    return tf.keras.layers.BatchNormalization(
        momentum=MOMENTUM, epsilon=EPSILON, synchronized=style.norm == "sync_batch", **kwargs
    )


class GroupNorm(tf.keras.layers.Layer):
    """Group normalisation (Wu and He 2018) as one multiplication and one addition per voxel.

    The two moments of every group are folded with the learnt scale and offset into one scale and one offset per volume
    and channel, so the large tensor is read twice and written once.
    """

    def __init__(self, groups, epsilon=EPSILON, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, shape):
        """Creates scale and offset, one per channel; ValueError unless the groups divide the channels."""
        if shape[-1] % self.groups:
            raise ValueError(
                f"group normalisation: expected channels that are a multiple of {self.groups} groups, came {shape[-1]}"
            )
        self.gamma = _channel_weight(self, "gamma", shape, "ones")
        self.beta = _channel_weight(self, "beta", shape, "zeros")
        super().build(shape)

    def call(self, x, training=False):
        """[B, ..., C] -> the same shape and dtype; training or not makes no difference."""
        del training
        x_float = tf.cast(x, tf.float32)
        space = list(range(1, x.shape.rank - 1))
        mean, mean_of_squares = self._group_mean(x_float, space), self._group_mean(tf.square(x_float), space)
        variance = tf.maximum(mean_of_squares - tf.square(mean), 0.0)
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x_float * scale + (self.beta - mean * scale), x.dtype)

    def _group_mean(self, x, space):
        """Mean of each channel's group: [B, 1, 1, 1, C]."""
        channels = x.shape[-1]
        mean = tf.reshape(tf.reduce_mean(x, space, keepdims=True), [-1, self.groups, channels // self.groups])
        mean = tf.reduce_mean(mean, axis=-1, keepdims=True)
        mean = tf.repeat(mean, channels // self.groups, axis=-1)
        return tf.reshape(mean, [-1, *(1 for _ in space), channels])


class FrozenBatchNorm(tf.keras.layers.Layer):
    """Batch normalisation that is no longer trained: one scale and one offset per channel.

    The four vectors carry the names that tf.keras.layers.BatchNormalization gives them, so a checkpoint of the one
    loads into the other. Until something is loaded the layer changes next to nothing.
    """

    def __init__(self, epsilon=EPSILON, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape):
        """Creates the four vectors, [C] each."""
        self.gamma = _channel_weight(self, "gamma", shape, "ones", trainable=False)
        self.beta = _channel_weight(self, "beta", shape, "zeros", trainable=False)
        self.moving_mean = _channel_weight(self, "moving_mean", shape, "zeros", trainable=False)
        self.moving_variance = _channel_weight(self, "moving_variance", shape, "ones", trainable=False)
        super().build(shape)

    def call(self, x, training=False):
        """[B, ..., C] -> the same shape and dtype; training or not makes no difference."""
        del training
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return tf.cast(tf.cast(x, tf.float32) * scale + (self.beta - self.moving_mean * scale), x.dtype)


class _InFloat32(tf.keras.layers.Layer):
    """Another layer, `norm`, in float32 whatever the policy."""

    def call(self, x, training=False):
        """[B, ..., C] -> the same shape and dtype; training or not makes no difference."""
        del training
        return tf.cast(self.norm(tf.cast(x, tf.float32)), x.dtype)


class InstanceNorm(_InFloat32):
    """Addons' instance normalisation (Ulyanov et al. 2016) in float32 whatever the policy.

    In float16 the variance of an ordinary volume can be infinite.
    """

    def __init__(self, epsilon=EPSILON, **kwargs):
        super().__init__(**kwargs)
        # Where it is needed: Addons takes seconds to load, and says that it has reached its end of life.
        from tensorflow_addons.layers import InstanceNormalization

        self.norm = InstanceNormalization(epsilon=epsilon, dtype="float32", name="instance")


class LayerNorm(_InFloat32):
    """Keras' layer normalisation (Ba et al. 2016) over the channels of each voxel, in float32 whatever the policy.

    As in ConvNeXt (Liu et al. 2022). What a voxel becomes does not depend on how large the volume around it is, or on
    what else that shows. Two channels become 1 and -1, whatever they were.
    """

    def __init__(self, epsilon=EPSILON, **kwargs):
        super().__init__(**kwargs)
        self.norm = tf.keras.layers.LayerNormalization(epsilon=epsilon, dtype="float32", name="layer")


def _channel_weight(layer, name, shape, initializer, trainable=True):
    """A weight [C] that stays float32 inside `call`."""
    return layer.add_weight(
        name, [shape[-1]], tf.float32, initializer, trainable=trainable, experimental_autocast=False
    )
