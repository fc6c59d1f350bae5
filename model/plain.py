"""A backbone of convolutions with max-pooling between them."""

import tensorflow as tf

from model.layers import ConvNorm, in_training, max_pool3d, run


class Plain(tf.keras.layers.Layer):
    """Stages of convolutions, without shortcuts; each begins with the max-pooling of its stride."""

    def __init__(self, *, stage_channels, stage_blocks, stage_kernels, stage_strides, dropout, style, **kwargs):
        """Makes all layers.

        Args:
          stage_channels: channels of the convolutions of each stage.
          stage_blocks: their number.
          stage_kernels: their kernel, (z, y, x).
          stage_strides: stride and window of the max-pooling before them; (1, 1, 1) for none.
          dropout: share of channels that are dropped after every stage in training.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.recompute = False  # see layers.run
        self.strides = [tuple(stride) for stride in stage_strides]
        self.stages = [
            [ConvNorm(filters, kernel, style=style, name=f"c{level}_{block}") for block in range(blocks)]
            for level, (filters, blocks, kernel) in enumerate(
                zip(stage_channels, stage_blocks, stage_kernels, strict=True), start=1
            )
        ]
        self.dropouts = [
            tf.keras.layers.SpatialDropout3D(dropout, name=f"c{level}_dropout")
            for level in range(1, len(self.stages) + 1)
        ]

    @property
    def windows(self):
        """{level: [(kernel, stride)] from the volume on}; see model/receptive_field.py."""
        levels, windows = {}, []
        for level, (stride, stage) in enumerate(zip(self.strides, self.stages, strict=True), start=1):
            windows = windows + [(stride, stride)] + [window for conv in stage for window in conv.windows]
            levels[level] = windows
        return levels

    def call(self, volume, training=False):
        """[B, Z, Y, X, C] -> {1: the first stage's output, 2: ...}."""
        x, levels = volume, {}
        parts = zip(self.strides, self.stages, self.dropouts, strict=True)
        for level, (stride, stage, dropout) in enumerate(parts, start=1):
            if stride != (1, 1, 1):
                x = _pool(x, stride)
            for conv in stage:
                x = run(conv, x, training, recompute=self.recompute)
            x = levels[level] = dropout(x, training=in_training(training, *stage))
        return levels


def _pool(x, stride):
    """Maximum of every cell: [B, z, y, x, C] -> [B, ceil(z / stride), ..., C].

    Cell i holds the voxels [i stride, (i + 1) stride), as anchors and rois take it to, so what is missing is missing at
    the end. TensorFlow's own padding is on both sides, which moves the cells where the stride is 3 or more.
    """
    missing = [-size % step for size, step in zip(x.shape[1:4], stride, strict=True)]
    if any(missing):
        x = tf.pad(x, [(0, 0), *((0, more) for more in missing), (0, 0)], constant_values=float("-inf"))
    return max_pool3d(x, stride, stride, "VALID")
