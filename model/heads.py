"""What is said of each roi: its class, its box, its mask."""

import math

import tensorflow as tf

from model.backbone import ConvNorm, convolution


class ConvTower(tf.keras.layers.Layer):
    """3x3x3 convolutions over the grid of every roi, each normalised and rectified."""

    def __init__(self, channels, num_convs, norm, groups, **kwargs):
        super().__init__(**kwargs)
        self.convs = [ConvNorm(channels, 3, 1, norm, groups, name=f"conv{i + 1}") for i in range(num_convs)]

    def call(self, pooled, training=False):
        """[B, R, P, P, P, C] -> [B * R, P, P, P, channels]."""
        x = tf.reshape(pooled, [-1, *pooled.shape[2:]])
        for conv in self.convs:
            x = tf.nn.relu(conv(x, training=training))
        return x


class BoxHead(tf.keras.layers.Layer):
    """Convolutions and dense layers, then class logits (0 is background) and one box per class."""

    def __init__(self, *, channels, num_convs, hidden, num_dense, num_classes, norm, groups, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.tower = ConvTower(channels, num_convs, norm, groups, name="tower")
        self.dense = [
            tf.keras.layers.Dense(hidden, "relu", kernel_initializer="he_normal", name=f"fc{i + 1}")
            for i in range(num_dense)
        ]
        self.logits = tf.keras.layers.Dense(
            num_classes + 1, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.01), name="logits"
        )
        self.deltas = tf.keras.layers.Dense(
            num_classes * 6, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.001), name="deltas"
        )

    def call(self, pooled, training=False):
        """[B, R, P, P, P, C] -> class logits [B, R, K + 1] and deltas [B, R, K, 6]."""
        num_rois = pooled.shape[1]
        x = self.tower(pooled, training=training)
        x = tf.reshape(x, [-1, num_rois, math.prod(x.shape[1:])])
        for layer in self.dense:
            x = layer(x)
        return self.logits(x), tf.reshape(self.deltas(x), [-1, num_rois, self.num_classes, 6])


class MaskHead(tf.keras.layers.Layer):
    """Convolutions, a transposed convolution that doubles the resolution, and one mask per class."""

    def __init__(self, *, channels, num_convs, num_classes, norm, groups, **kwargs):
        super().__init__(**kwargs)
        self.tower = ConvTower(channels, num_convs, norm, groups, name="tower")
        self.upsample = tf.keras.layers.Conv3DTranspose(
            channels, 2, 2, activation="relu", kernel_initializer="he_normal", name="upsample"
        )
        self.logits = convolution(num_classes, 1, name="logits")

    def call(self, pooled, training=False):
        """[B, R, P, P, P, C] -> mask logits [B, R, 2P, 2P, 2P, K]."""
        x = self.logits(self.upsample(self.tower(pooled, training=training)))
        return tf.reshape(x, [-1, pooled.shape[1], *x.shape[1:]])
