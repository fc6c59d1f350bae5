"""The layers that everything else is made of: convolution, activation, and the two with a normalisation between.

`style` is the section `model.style` of a config: norm, norm_groups, activation, kernel, initializer.
"""

import tensorflow as tf

from model import normalization
from model.grouped_conv import grouped_conv3d

LEAKY_SLOPE = 0.01  # of Maas et al. 2013
PRELU_SLOPE = 0.25  # to begin with, as in He et al. 2015


def convolution(filters, kernel_size, strides=1, *, style, **kwargs):
    """A 3D convolution [B, z, y, x, C] -> [B, ceil(z / stride), ..., filters], padded with zeros.

    Args:
      filters: channels that leave it.
      kernel_size: one integer, or three for z, y, x.
      strides: likewise.
      style: gives the initialisation of the kernel.
      **kwargs: to tf.keras.layers.Conv3D; a `kernel_initializer` takes the place of the style's.

    Returns:
      A Keras layer.
    """
    kwargs.setdefault("kernel_initializer", style.initializer)
    return Convolution(filters, kernel_size, strides, **kwargs)


class Convolution(tf.keras.layers.Conv3D):
    """Conv3D with the padding of torch and tf.keras.applications, and with groups on every device.

    Windows are centred on voxels 0, stride, 2 stride, ...; those of TensorFlow's own "same" padding move by a voxel
    where the size is even.
    """

    def __init__(self, filters, kernel_size, strides=1, **kwargs):
        super().__init__(filters, kernel_size, strides, padding="same", **kwargs)

    @property
    def windows(self):
        """[(kernel, stride)], each (z, y, x); see model/receptive_field.py."""
        return [(self.kernel_size, self.strides)]

    def call(self, x):
        """[B, z, y, x, C] -> [B, ceil(z / stride), ..., filters]; Keras' own would compile groups by XLA."""
        padding, depth, missing = "SAME", x.shape[1], 0
        if self.strides != (1, 1, 1):
            x, padding = pad(x, self.kernel_size), "VALID"
        elif x.dtype == tf.bfloat16 and depth is not None:
            # Over fewer slices than the kernel has, oneDNN's gradient of it reads memory that nothing has written
            # (TensorFlow 2.15): the zeros that lie there anyway are added, and taken off.
            missing = max(self.kernel_size[0] - depth, 0)
        if missing:
            x = tf.pad(x, [(0, 0), (0, missing), (0, 0), (0, 0), (0, 0)])
        x = grouped_conv3d(x, self.kernel, self.strides, padding, self.groups)
        if missing:
            x = x[:, :depth]
        if self.use_bias:
            x = tf.nn.bias_add(x, self.bias)
        return x if self.activation is None else self.activation(x)


def pad(x, kernel_size, value=0.0):
    """Lets a window of any stride give ceil(size / stride) outputs: adds `value` around [B, z, y, x, C]."""
    around = [((k - 1) // 2, k // 2) for k in kernel_size]
    return tf.pad(x, [(0, 0), *around, (0, 0)], constant_values=value) if max(kernel_size) > 1 else x


def in_training(training, *layers):
    """Whether what follows these layers, built, may drop something: not where they are frozen, nor outside training."""
    return training and any(layer.trainable_variables for layer in layers)


def max_pool3d(x, window, strides, padding):
    """tf.nn.max_pool3d, by way of float32 where x is float16: for that a CPU has no pooling."""
    if x.dtype != tf.float16:
        return tf.nn.max_pool3d(x, window, strides, padding)
    return tf.cast(tf.nn.max_pool3d(tf.cast(x, tf.float32), window, strides, padding), x.dtype)


def activation(style, **kwargs):
    """The layer of `style.activation`: relu, leaky_relu or prelu."""
    if style.activation == "leaky_relu":
        return tf.keras.layers.LeakyReLU(LEAKY_SLOPE, **kwargs)
    if style.activation == "prelu":
        return PReLU(**kwargs)
    return tf.keras.layers.ReLU(**kwargs)


class PReLU(tf.keras.layers.Layer):
    """max(x, 0) + alpha min(x, 0) with one learnt slope per channel, wherever in space (He et al. 2015)."""

    def build(self, shape):
        """Creates the slopes, [C]."""
        self.alpha = self.add_weight("alpha", [shape[-1]], initializer=tf.keras.initializers.Constant(PRELU_SLOPE))
        super().build(shape)

    def call(self, x):
        """[B, ..., C] -> the same shape."""
        return tf.nn.relu(x) - self.alpha * tf.nn.relu(-x)


class ConvNorm(tf.keras.layers.Layer):
    """Convolution (with a bias where no normalisation follows), normalisation, activation."""

    def __init__(self, filters, kernel_size, strides=1, *, style, groups=1, activate=True, **kwargs):
        """Makes the three layers.

        Args:
          filters: channels that leave it.
          kernel_size: one integer, or three for z, y, x.
          strides: likewise.
          style: norm, norm_groups, activation, initializer.
          groups: of channels that are convolved apart (the cardinality of ResNeXt); not those of a group norm.
          activate: False leaves out the activation.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.conv = convolution(
            filters, kernel_size, strides, style=style, groups=groups, use_bias=style.norm == "none", name="conv"
        )
        self.norm = normalization.make(style, name="norm")
        self.activation = activation(style, name="activation") if activate else None

    @property
    def windows(self):
        """[(kernel, stride)]; see model/receptive_field.py."""
        return self.conv.windows

    def call(self, x, training=False):
        """[B, z, y, x, C] -> [B, ceil(z / stride), ..., filters]."""
        x = self.norm(self.conv(x), training=training)
        return self.activation(x) if self.activation else x


def run(layer, x, training, *, recompute=False):
    """The output of a layer, built.

    Args:
      layer: called as layer(x, training); with `recompute` the same input must give the same output again.
      x: tensor.
      training: bool.
      recompute: whether, in training, what the layer computes inside is not held until its gradient is due, but
        computed once more then (Chen et al. 2016): less memory for another forward pass.
    """
    if recompute and training:
        return tf.recompute_grad(lambda inputs: layer(inputs, training=True))(x)
    return layer(x, training=training)
