"""What the heads are made of: towers of convolutions or dense layers over the grid of every roi."""

import math

import tensorflow as tf

from model.layers import ConvNorm, activation, convolution, in_training


class ConvTower(tf.keras.layers.Layer):
    """Convolutions over the grid of every roi, each normalised and activated."""

    def __init__(self, *, channels, num_convs, style, **kwargs):
        super().__init__(**kwargs)
        self.convs = [ConvNorm(channels, style.kernel, style=style, name=f"conv{i + 1}") for i in range(num_convs)]

    def call(self, pooled, training=False):
        """[B, R, z, y, x, C] -> [B * R, z, y, x, channels]."""
        x = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        for conv in self.convs:
            x = conv(x, training=training)
        return x


class DenseTower(tf.keras.layers.Layer):
    """Dense layers over all that is known of every roi, each activated, then dropped out."""

    def __init__(self, *, hidden, num_dense, style, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.layers = [
            (
                tf.keras.layers.Dense(hidden, kernel_initializer=style.initializer, name=f"fc{i + 1}"),
                activation(style, name=f"activation{i + 1}"),
                tf.keras.layers.Dropout(dropout, name=f"dropout{i + 1}"),
            )
            for i in range(num_dense)
        ]

    def call(self, x, training=False):
        """[B, R, C] -> [B, R, hidden], or x itself without layers."""
        for dense, activate, dropout in self.layers:
            x = activate(dense(x))
            x = dropout(x, training=in_training(training, dense))
        return x


class FullyConvolutionalHead(tf.keras.layers.Layer):
    """Convolutions, a transposed convolution that doubles the resolution, and a 1x1x1 convolution (He et al. 2017).

    With `fine_channels` so many channels of a convolution over these and what is known of every voxel come before the
    last. It is not normalised, so that it can tell how bright a voxel is.
    """

    def __init__(self, outputs, *, channels, num_convs, style, fine_channels=0, **kwargs):
        super().__init__(**kwargs)
        self.tower = ConvTower(channels=channels, num_convs=num_convs, style=style, name="tower")
        self.upsample = tf.keras.layers.Conv3DTranspose(
            channels, 2, 2, kernel_initializer=_upsampling(style.initializer), name="upsample"
        )
        self.activation = activation(style, name="activation")
        self.fine = self.fine_activation = None
        if fine_channels:
            self.fine = convolution(fine_channels, style.kernel, style=style, name="fine")
            self.fine_activation = activation(style, name="fine_activation")
        self.logits = convolution(outputs, 1, style=style, kernel_initializer=small(0.01), name="logits")

    def call(self, pooled, fine=None, training=False):
        """Logits of rois.

        Args:
          pooled: [B, R, z, y, x, C].
          fine: [B, R, 2z, 2y, 2x, c], the volume, and what else is known of every voxel, in each roi; not None with
            `fine_channels`.
          training: as of a layer.

        Returns:
          [B, R, 2z, 2y, 2x, outputs] float32.
        """
        x = self.activation(self.upsample(self.tower(pooled, training=training)))
        if self.fine:
            x = tf.concat([x, tf.reshape(tf.cast(fine, x.dtype), [-1, *fine.shape[2:]])], axis=-1)
            x = self.fine_activation(self.fine(x))
        x = tf.cast(self.logits(x), tf.float32)
        return tf.reshape(x, [-1, pooled.shape[1], *x.shape[1:]])


def _upsampling(name):
    """The initializer of this name for a transposed convolution whose stride is its kernel.

    That is a dense layer from the channels of a cell to those of all its voxels. Keras counts as if every voxel saw all
    places of the kernel, and so draws numbers that are too small by the root of their number.
    """

    def draw(shape, dtype=None, **kwargs):
        *places, outputs, inputs = shape
        kernel = tf.keras.initializers.get(name)([inputs, math.prod(places) * outputs], dtype, **kwargs)
        return tf.transpose(tf.reshape(kernel, [inputs, *places, outputs]), [1, 2, 3, 4, 0])

    return draw


def small(stddev):
    """A fresh initializer of kernels that give answers: one that is used twice would draw the same numbers twice."""
    return tf.keras.initializers.RandomNormal(stddev=stddev)
