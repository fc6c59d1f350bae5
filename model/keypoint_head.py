"""Landmarks of each roi."""

import tensorflow as tf

from model.towers import FullyConvolutionalHead


class KeypointHead(FullyConvolutionalHead):
    """One heat map per landmark, whose softmax says where in the roi it lies (He et al. 2017, section 5)."""

    def __init__(self, *, num_keypoints, channels, num_convs, style, **kwargs):
        """Makes the layers.

        Args:
          num_keypoints: N.
          channels: of the convolutions.
          num_convs: how many of them before the transposed one.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(num_keypoints, channels=channels, num_convs=num_convs, style=style, **kwargs)

    def call(self, pooled, training=False):
        """[B, R, z, y, x, C] -> logits [B, R, N, 2z, 2y, 2x] float32."""
        return tf.einsum("brzyxn->brnzyx", super().call(pooled, training=training))
