"""Features and class of every voxel, learnt beside the objects: the decoder of a U-Net below the pyramid.

As in Retina U-Net (Jaeger et al. 2020) every voxel of a training volume says something of where objects are, not those
of the rois alone, which counts where there are few volumes; as in Hybrid Task Cascade (Chen et al. 2019) the heads read
what was learnt so.
"""

import itertools
import math

import tensorflow as tf

from model.fpn import upsample
from model.layers import ConvNorm, convolution
from model.towers import small

# Share of the voxels that each class is thought to have to begin with, as Lin et al. 2017 begin with objects: it takes
# hundreds of steps to learn that most of a volume is background.
PRIOR = 0.05


class Segmentation(tf.keras.layers.Layer):
    """Goes from the finest level of the pyramid down to the voxels of the volume, and says which class each is of."""

    def __init__(self, *, num_classes, channels, strides, upsampling, style, **kwargs):
        """Makes the layers.

        Args:
          num_classes: K, without background.
          channels: of the features, on every grid.
          strides: (z, y, x) of every grid from that of the pyramid's finest level to the volume's own, (1, 1, 1).
          upsampling: "nearest" or "trilinear".
          style: norm, norm_groups, activation, kernel, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.upsampling = upsampling
        self.steps = [
            tuple(above // below for above, below in zip(coarse, fine, strict=True))
            for coarse, fine in itertools.pairwise(strides)
        ]
        parts = range(1, len(self.steps) + 1)
        # What comes from above is narrowed before it is made larger: it is a 1x1x1 convolution either way.
        self.above = [convolution(channels, 1, style=style, name=f"above{i}") for i in parts]
        self.lateral = [convolution(channels, style.kernel, style=style, name=f"lateral{i}") for i in parts]
        self.smooth = [ConvNorm(channels, style.kernel, style=style, name=f"smooth{i}") for i in parts]
        self.maps = convolution(
            num_classes,
            1,
            style=style,
            kernel_initializer=small(0.01),
            bias_initializer=tf.keras.initializers.Constant(math.log(PRIOR / (1.0 - PRIOR))),
            name="maps",
        )

    def call(self, coarse, finer, training=False):
        """Decodes.

        Args:
          coarse: [B, z, y, x, C], the finest level of the pyramid.
          finer: what each finer grid has, [B, z, y, x, C'] with C' of any width, coarsest first; the volume's last.
          training: as of a layer.

        Returns:
          features: [B, Z, Y, X, channels].
          maps: [B, Z, Y, X, K] float32, logits of every class against the rest.
        """
        x = coarse
        for step, above, lateral, smooth, own in zip(
            self.steps, self.above, self.lateral, self.smooth, finer, strict=True
        ):
            x = upsample(above(x), step, own.shape[1:4], self.upsampling) + lateral(own)
            x = smooth(x, training=training)
        return x, tf.cast(self.maps(x), tf.float32)
