"""Feature pyramid network (Lin et al. 2017)."""

import tensorflow as tf

from model.backbone import convolution


class FPN(tf.keras.layers.Layer):
    """Lateral 1x1x1 convolutions, a top-down path by nearest neighbour, and a 3x3x3 convolution on every level."""

    def __init__(self, channels, num_levels, **kwargs):
        super().__init__(**kwargs)
        self.lateral = [convolution(channels, 1, name=f"lateral{i + 2}") for i in range(num_levels)]
        self.smooth = [convolution(channels, 3, name=f"smooth{i + 2}") for i in range(num_levels)]

    def call(self, features):
        """[C2, C3, ...], each [B, z, y, x, C] finest first -> [P2, P3, ...] of equal width."""
        lateral = [layer(feature) for layer, feature in zip(self.lateral, features, strict=True)]
        merged = lateral[-1:]
        for finer in reversed(lateral[:-1]):
            merged.insert(0, finer + upsample_to(merged[0], finer))
        return [layer(level) for layer, level in zip(self.smooth, merged, strict=True)]


def upsample_to(x, finer):
    """Nearest neighbour: every cell of `x` fills the cells of `finer` that lie in it.

    Args:
      x: [B, z, y, x, C].
      finer: [B, z', y', x', C] with every axis a multiple of x's.

    Returns:
      [B, z', y', x', C].
    """
    for axis in (1, 2, 3):
        x = tf.repeat(x, finer.shape[axis] // x.shape[axis], axis=axis)
    return x
