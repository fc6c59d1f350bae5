"""3D ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017)."""

import tensorflow as tf

from model.layers import ConvNorm, activation, in_training, max_pool3d, pad, run


class ResidualBlock(tf.keras.layers.Layer):
    """Convolutions around a shortcut; those that inherit from it state them as `path`."""

    def __init__(self, filters, strides, *, project, drop, style, **kwargs):
        """Makes the shortcut.

        Args:
          filters: channels that leave the block.
          strides: (z, y, x).
          project: whether the shortcut is a 1x1x1 convolution: where stride or width change.
          drop: chance that a volume skips the convolutions in training (stochastic depth, Huang et al. 2016); those
            that are not skipped are scaled up, so that nothing has to change afterwards.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.projection = None
        if project:
            self.projection = ConvNorm(filters, 1, strides, style=style, activate=False, name="projection")
        self.drop = tf.keras.layers.Dropout(drop, noise_shape=(None, 1, 1, 1, 1), name="drop")
        self.activation = activation(style, name="activation")

    @property
    def windows(self):
        """[(kernel, stride)] of the convolutions, the longest way through the block."""
        return [window for conv in self.path for window in conv.windows]

    def call(self, x, training=False):
        """[B, z, y, x, C] -> [B, ceil(z / stride), ..., filters]."""
        shortcut = self.projection(x, training=training) if self.projection else x
        for conv in self.path:
            x = conv(x, training=training)
        return self.activation(shortcut + self.drop(x, training=in_training(training, *self.path)))


class BasicBlock(ResidualBlock):
    """Two convolutions of the same kernel."""

    def __init__(self, filters, kernel_size, strides, *, style, **kwargs):
        super().__init__(filters, strides, style=style, **kwargs)
        self.first = ConvNorm(filters, kernel_size, strides, style=style, name="first")
        self.second = ConvNorm(filters, kernel_size, style=style, activate=False, name="second")

    @property
    def path(self):
        """The convolutions in order."""
        return [self.first, self.second]


class Bottleneck(ResidualBlock):
    """A convolution of fewer channels, in groups if it is a ResNeXt, between two of 1x1x1."""

    def __init__(self, filters, kernel_size, strides, *, ratio, groups, stride_in_pointwise, style, **kwargs):
        super().__init__(filters, strides, style=style, **kwargs)
        inside = filters // ratio
        pointwise, spatial = (strides, 1) if stride_in_pointwise else (1, strides)
        self.first = ConvNorm(inside, 1, pointwise, style=style, name="first")
        self.second = ConvNorm(inside, kernel_size, spatial, groups=groups, style=style, name="second")
        self.third = ConvNorm(filters, 1, style=style, activate=False, name="third")

    @property
    def path(self):
        """The convolutions in order."""
        return [self.first, self.second, self.third]


class ResNet(tf.keras.layers.Layer):
    """A stem and stages of residual blocks; the first block of each stage has the stage's stride."""

    def __init__(
        self,
        *,
        stem_channels,
        stem_kernel,
        stem_stride,
        stem_pool,
        stage_channels,
        stage_blocks,
        stage_kernels,
        stage_strides,
        make_block,
        dropout,
        stochastic_depth,
        style,
        **kwargs,
    ):
        """Makes all layers.

        Args:
          stem_channels: channels of the first convolution.
          stem_kernel: its kernel, (z, y, x).
          stem_stride: its stride.
          stem_pool: stride of the max-pooling after it; (1, 1, 1) for none.
          stage_channels: channels that leave each stage.
          stage_blocks: number of blocks of each.
          stage_kernels: (z, y, x) of each.
          stage_strides: (z, y, x) of each.
          make_block: (filters, kernel_size, strides, project=, drop=, style=, name=) -> residual block.
          dropout: share of channels that are dropped after every stage in training.
          stochastic_depth: chance that the last block is skipped in training; of block l out of L: l / L times it.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.stem = ConvNorm(stem_channels, stem_kernel, stem_stride, style=style, name="stem")
        self.pool = StemPool(stem_pool, name="pool")
        self.stages, self.dropouts, self.recompute = [], [], False  # see layers.run
        depth, channels = 0, stem_channels
        stages = zip(stage_channels, stage_blocks, stage_kernels, stage_strides, strict=True)
        for level, (filters, blocks, kernel, stride) in enumerate(stages, start=2):
            stage = []
            for block in range(blocks):
                depth += 1
                stage.append(
                    make_block(
                        filters,
                        kernel,
                        stride,
                        project=tuple(stride) != (1, 1, 1) or channels != filters,
                        drop=stochastic_depth * depth / sum(stage_blocks),
                        style=style,
                        name=f"c{level}_{block}",
                    )
                )
                channels, stride = filters, (1, 1, 1)
            self.stages.append(stage)
            self.dropouts.append(tf.keras.layers.SpatialDropout3D(dropout, name=f"c{level}_dropout"))

    @property
    def windows(self):
        """{level: [(kernel, stride)] from the volume on}; see model/receptive_field.py."""
        levels = {1: self.stem.windows}
        windows = self.stem.windows + self.pool.windows
        for level, stage in enumerate(self.stages, start=2):
            windows = windows + [window for block in stage for window in block.windows]
            levels[level] = windows
        return levels

    def call(self, volume, training=False):
        """[B, Z, Y, X, C] -> {1: the stem's output, 2: the first stage's, ...}."""
        x = run(self.stem, volume, training, recompute=self.recompute)
        levels = {1: x}
        x = self.pool(x)
        for level, (stage, dropout) in enumerate(zip(self.stages, self.dropouts, strict=True), start=2):
            for block in stage:
                x = run(block, x, training, recompute=self.recompute)
            x = levels[level] = dropout(x, training=in_training(training, *stage))
        return levels


class StemPool(tf.keras.layers.Layer):
    """Max-pooling over windows of 3 along every axis that it strides, as in torch: padding is never the largest."""

    def __init__(self, strides, **kwargs):
        super().__init__(**kwargs)
        self.strides = tuple(strides)
        self.window = tuple(1 if stride == 1 else 3 for stride in strides)

    @property
    def windows(self):
        """[(kernel, stride)]."""
        return [(self.window, self.strides)]

    def call(self, x):
        """[B, z, y, x, C] -> [B, ceil(z / stride), ..., C]."""
        if self.strides == (1, 1, 1):
            return x
        return max_pool3d(pad(x, self.window, float("-inf")), self.window, self.strides, "VALID")
