"""Mask of each roi."""

import tensorflow as tf

from model.towers import FullyConvolutionalHead


class MaskHead(FullyConvolutionalHead):
    """Mask logits [B, R, 2z, 2y, 2x, K] float32 of rois [B, R, z, y, x, C]; [..., 1] for one mask for all classes."""

    def __init__(self, *, num_classes, channels, num_convs, fine_channels, class_agnostic, style, **kwargs):
        """Makes the layers.

        Args:
          num_classes: K, without background.
          channels: of the convolutions.
          num_convs: how many of them before the transposed one.
          fine_channels: of the convolution after it that sees the volume, too; 0 for none.
          class_agnostic: whether one mask serves all classes.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        outputs = 1 if class_agnostic else num_classes
        tower = {"channels": channels, "num_convs": num_convs, "fine_channels": fine_channels}
        super().__init__(outputs, style=style, **tower, **kwargs)


def select_class(logits, class_ids):
    """The mask of one class per roi.

    Args:
      logits: [B, R, z, y, x, K] float32, or [B, R, z, y, x, 1] for all classes.
      class_ids: [B, R] int32 in [0, K]; 0, which has no mask, reads class 1's.

    Returns:
      [B, R, z, y, x] float32.
    """
    if logits.shape[-1] == 1:
        return logits[..., 0]
    channels_first = tf.einsum("brzyxk->brkzyx", logits)
    return tf.gather(channels_first, tf.maximum(class_ids - 1, 0), batch_dims=2)
