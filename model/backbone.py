"""3D ResNet (He et al. 2016) of basic blocks."""

import tensorflow as tf

from model import normalization


def convolution(filters, kernel_size, strides=1, **kwargs):
    """A 3D convolution with "same" padding and He initialisation."""
    kwargs.setdefault("kernel_initializer", "he_normal")
    return tf.keras.layers.Conv3D(filters, kernel_size, strides, padding="same", **kwargs)


class ConvNorm(tf.keras.layers.Layer):
    """Convolution, then normalisation."""

    def __init__(self, filters, kernel_size, strides, norm, groups, **kwargs):
        super().__init__(**kwargs)
        self.conv = convolution(filters, kernel_size, strides, use_bias=norm == "none")
        self.norm = normalization.make(norm, groups)

    def call(self, x, training=False):
        """[B, z, y, x, C] -> [B, z / stride, ..., filters]."""
        return self.norm(self.conv(x), training=training)


class BasicBlock(tf.keras.layers.Layer):
    """Two 3x3x3 convolutions around a shortcut; the shortcut is projected where stride or width change."""

    def __init__(self, filters, strides, norm, groups, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.strides = filters, tuple(strides)
        self.first = ConvNorm(filters, 3, strides, norm, groups)
        self.second = ConvNorm(filters, 3, 1, norm, groups)
        self.make_projection = lambda: ConvNorm(filters, 1, strides, norm, groups)
        self.projection = None

    def build(self, shape):
        """Creates the projection where the shortcut needs one."""
        if self.strides != (1, 1, 1) or shape[-1] != self.filters:
            self.projection = self.make_projection()
        super().build(shape)

    def call(self, x, training=False):
        """[B, z, y, x, C] -> [B, z / stride, ..., filters]."""
        shortcut = x if self.projection is None else self.projection(x, training=training)
        out = tf.nn.relu(self.first(x, training=training))
        return tf.nn.relu(self.second(out, training=training) + shortcut)


class ResNet(tf.keras.layers.Layer):
    """A stem and stages of basic blocks; the first block of each stage has the stage's stride."""

    def __init__(
        self,
        *,
        stem_channels,
        stem_kernel,
        stem_stride,
        stage_channels,
        stage_blocks,
        stage_strides,
        norm,
        norm_groups,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.stem = ConvNorm(stem_channels, stem_kernel, stem_stride, norm, norm_groups, name="stem")
        self.stages = [
            [
                BasicBlock(filters, stride if block == 0 else (1, 1, 1), norm, norm_groups, name=f"c{stage}_{block}")
                for block in range(blocks)
            ]
            for stage, (filters, blocks, stride) in enumerate(
                zip(stage_channels, stage_blocks, stage_strides, strict=True), start=2
            )
        ]

    def call(self, volume, training=False):
        """[B, Z, Y, X, C] -> the output of every stage (C2, C3, ...), finest first."""
        x = tf.nn.relu(self.stem(volume, training=training))
        outputs = []
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            outputs.append(x)
        return outputs
