"""Pre-training of a backbone as a classifier of crops that hold one object."""

import tensorflow as tf

from ops import checks, losses


class Classifier(tf.keras.layers.Layer):
    """Mean of the coarsest features over space, then one logit per class."""

    def __init__(self, num_classes, crop_size, **kwargs):
        super().__init__(**kwargs)
        self.crop_size = tuple(crop_size)
        self.logits = tf.keras.layers.Dense(num_classes, dtype=tf.float32, name="logits")

    def call(self, features):
        """{level: [B, z, y, x, C]} -> logits [B, K]."""
        return self.logits(tf.reduce_mean(features[max(features)], axis=[1, 2, 3]))

    def loss(self, backbone, batch, seed):
        """Cross-entropy of the class of one object of every volume, drawn at random.

        Args:
          backbone: layer [B, z, y, x, C] -> {level: features}.
          batch: volume [B, Z, Y, X, C], boxes [B, G, 6], class_ids [B, G], valid [B, G].
          seed: [2] int32.

        Returns:
          {"classifier": [B]}; 0 for a volume without objects.
        """
        valid = batch["valid"]
        draw = tf.where(valid, tf.random.stateless_uniform(tf.shape(valid), seed), -1.0)
        slot = tf.argmax(draw, axis=1, output_type=tf.int32)
        boxes, class_ids = (tf.gather(batch[name], slot, batch_dims=1) for name in ("boxes", "class_ids"))
        crops = crop_around(batch["volume"], 0.5 * (boxes[:, :3] + boxes[:, 3:]), self.crop_size)
        logits = self(backbone(crops, training=True))
        has_object = tf.reduce_any(valid, axis=1)
        return {"classifier": losses.softmax_cross_entropy(logits, tf.maximum(class_ids - 1, 0), has_object)}


def crop_around(volume, centres, size):
    """One crop of every volume; zeros where it reaches beyond.

    Args:
      volume: [B, Z, Y, X, C].
      centres: [B, 3] float32, voxels.
      size: (z, y, x) of the crop.

    Returns:
      [B, z, y, x, C].

    Raises:
      ValueError: other shapes.
    """
    size = checks.triple("size", size)
    checks.shapes("volume [B, Z, Y, X, C], centres [B, 3]", volume, centres)
    starts = tf.cast(tf.floor(centres - 0.5 * tf.constant(size, tf.float32) + 0.5), tf.int32)
    for axis in range(3):
        index = starts[:, axis, tf.newaxis] + tf.range(size[axis])  # [B, size]
        length = tf.shape(volume)[axis + 1]
        volume = tf.gather(volume, tf.clip_by_value(index, 0, length - 1), axis=axis + 1, batch_dims=1)
        inside = tf.reshape(
            (index >= 0) & (index < length), [-1] + [size[axis] if a == axis else 1 for a in range(3)] + [1]
        )
        volume = tf.where(inside, volume, tf.zeros([], volume.dtype))
    return volume
