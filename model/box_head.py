"""Class and box of each roi."""

import math

import tensorflow as tf

from model.towers import ConvTower, DenseTower, small


class BoxHead(tf.keras.layers.Layer):
    """Convolutions, then dense layers, then class logits (0 is background) and the box of each class, or one for all.

    No convolution and two dense layers is the head of Faster R-CNN; four and one is that of Wu and He (2018).
    """

    def __init__(
        self, *, num_classes, channels, num_convs, hidden, num_dense, dropout, class_agnostic, style, **kwargs
    ):
        """Makes the layers.

        Args:
          num_classes: K, without background.
          channels: of the convolutions.
          num_convs: how many of them.
          hidden: width of the dense layers.
          num_dense: how many of them.
          dropout: share of their outputs dropped in training.
          class_agnostic: whether one box serves all classes.
          style: norm, norm_groups, activation, initializer.
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.num_boxes = 1 if class_agnostic else num_classes
        self.tower = ConvTower(channels=channels, num_convs=num_convs, style=style, name="tower")
        self.dense = DenseTower(hidden=hidden, num_dense=num_dense, style=style, dropout=dropout, name="dense")
        # Answers in float32 whatever the policy: half precision would move boxes.
        self.logits = tf.keras.layers.Dense(
            num_classes + 1, kernel_initializer=small(0.01), dtype=tf.float32, name="logits"
        )
        self.deltas = tf.keras.layers.Dense(
            self.num_boxes * 6, kernel_initializer=small(0.001), dtype=tf.float32, name="deltas"
        )

    def call(self, pooled, training=False):
        """Says what each roi is and where.

        Args:
          pooled: [B, R, z, y, x, C], R known.
          training: whether dropout drops and batch normalisation takes the moments of the batch.

        Returns:
          logits: [B, R, K + 1] float32.
          deltas: [B, R, K, 6] float32, or [B, R, 1, 6] for one box.
        """
        num_rois = pooled.shape[1]
        x = self.tower(pooled, training=training)
        x = tf.reshape(x, [-1, num_rois, math.prod(x.shape[1:])])
        x = self.dense(x, training=training)
        return self.logits(x), tf.reshape(self.deltas(x), [-1, num_rois, self.num_boxes, 6])


def select_deltas(deltas, class_ids):
    """The deltas of one class per roi.

    Args:
      deltas: [B, R, K, 6] float32, or [B, R, 1, 6] for all classes.
      class_ids: [B, R] int32 in [0, K]; 0, which has no box, reads class 1's.

    Returns:
      [B, R, 6] float32.
    """
    if deltas.shape[2] == 1:
        return deltas[:, :, 0]
    return tf.gather(deltas, tf.maximum(class_ids - 1, 0), batch_dims=2)
