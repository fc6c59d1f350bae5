"""Feature pyramid network (Lin et al. 2017), with the second path of PANet (Liu et al. 2018) if wanted."""

import itertools

import numpy as np
import tensorflow as tf

from model.layers import convolution


class FPN(tf.keras.layers.Layer):
    """Lateral 1x1x1 convolutions, a path from the top down, and a convolution on every level.

    No convolution of the pyramid is followed by normalisation or activation, so all levels are of one kind for the
    heads that share them.
    """

    def __init__(self, channels, strides, *, extra, extra_stride, upsampling, bottom_up, style, **kwargs):
        """Makes all layers.

        Args:
          channels: of every level.
          strides: {level: (z, y, x)} against the input, of the levels that come in, finest first.
          extra: "pool" (every second voxel of the coarsest level) or "conv" (a strided convolution of it) for one
            level more; "none".
          extra_stride: (z, y, x) of that level against the coarsest; 2 is every second voxel.
          upsampling: "nearest" or "trilinear", on the path from the top down.
          bottom_up: adds a path back to the coarsest level: each level gets a strided convolution of the finer one,
            and another smooths the sum.
          style: gives the initialisation of kernels.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.levels = levels = tuple(strides)
        self.steps = [
            tuple(coarse // fine for fine, coarse in zip(strides[finer], strides[coarser], strict=True))
            for finer, coarser in itertools.pairwise(levels)
        ]
        self.upsampling, self.extra, self.bottom_up = upsampling, extra, bottom_up
        self.extra_stride = tuple(extra_stride)
        self.lateral = [convolution(channels, 1, style=style, name=f"lateral{level}") for level in levels]
        self.smooth = [convolution(channels, style.kernel, style=style, name=f"smooth{level}") for level in levels]
        if bottom_up:
            self.down = [
                convolution(channels, style.kernel, step, style=style, name=f"down{level}")
                for level, step in zip(levels[1:], self.steps, strict=True)
            ]
            self.fuse = [convolution(channels, style.kernel, style=style, name=f"fuse{level}") for level in levels[1:]]
        if extra == "conv":
            self.extra_conv = convolution(
                channels, style.kernel, self.extra_stride, style=style, name=f"extra{levels[-1] + 1}"
            )

    def windows(self, levels):
        """The windows on the way to each level of the pyramid, without what reaches it from other levels.

        Args:
          levels: {level: [(kernel, stride)] from the volume on}, the `windows` of a backbone.

        Returns:
          {level: [(kernel, stride)]}, the extra level included.
        """
        windows = {
            level: levels[level] + lateral.windows + smooth.windows
            for level, lateral, smooth in zip(self.levels, self.lateral, self.smooth, strict=True)
        }
        coarsest = self.levels[-1]
        if self.extra != "none":
            more = self.extra_conv.windows if self.extra == "conv" else [((1, 1, 1), self.extra_stride)]
            windows[coarsest + 1] = windows[coarsest] + more
        return windows

    def call(self, features):
        """[B, z, y, x, C] per level, finest first, C of any width -> the pyramid, [B, z, y, x, channels] per level."""
        lateral = [layer(feature) for layer, feature in zip(self.lateral, features, strict=True)]
        merged = lateral[-1:]
        for finer, step in zip(reversed(lateral[:-1]), reversed(self.steps), strict=True):
            merged.insert(0, finer + upsample(merged[0], step, finer.shape[1:4], self.upsampling))
        pyramid = [layer(level) for layer, level in zip(self.smooth, merged, strict=True)]
        if self.bottom_up:
            for index, (down, fuse) in enumerate(zip(self.down, self.fuse, strict=True), start=1):
                pyramid[index] = fuse(pyramid[index] + down(pyramid[index - 1]))
        if self.extra == "pool":
            z, y, x = self.extra_stride
            pyramid.append(pyramid[-1][:, ::z, ::y, ::x])
        elif self.extra == "conv":
            pyramid.append(self.extra_conv(pyramid[-1]))
        return pyramid


def upsample(x, step, size, kind):
    """A coarser grid read on a finer one, axis by axis.

    Args:
      x: [B, z, y, x, C]; cell i covers the voxels [i step, (i + 1) step) of the finer grid.
      step: (z, y, x) integers.
      size: (z', y', x') of the finer grid, at most step times that of x.
      kind: "nearest": every voxel takes its cell's value; "trilinear": it is interpolated between the centres of
        cells, and outside the outermost centres takes their value.

    Returns:
      [B, z', y', x', C].
    """
    for axis, (factor, length) in enumerate(zip(step, size, strict=True), start=1):
        if factor > 1:
            if kind == "nearest":
                x = tf.repeat(x, factor, axis=axis)
                x = x[(slice(None),) * axis + (slice(length),)]
            else:
                weights = tf.constant(_linear_weights(x.shape[axis], factor, length), x.dtype)
                axes = "bzyxc"
                x = tf.einsum(f"i{axes[axis]},{axes}->{axes.replace(axes[axis], 'i')}", weights, x)
    return x


def _linear_weights(cells, factor, length):
    """[length, cells]: how much each voxel takes of each cell; rows add up to 1."""
    position = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(position[:, np.newaxis] - np.arange(cells)), 0)
