"""Pre-training of a backbone as a classifier of crops: which object is here, or none."""

import tensorflow as tf

from ops import checks, losses, sampling

# Places that are looked at for one without objects.
PLACES = 64


class Classifier(tf.keras.layers.Layer):
    """Mean of the coarsest features over space, then one logit for background and one per class."""

    def __init__(self, num_classes, crop_size, **kwargs):
        super().__init__(**kwargs)
        self.crop_size = tuple(crop_size)
        self.logits = tf.keras.layers.Dense(num_classes + 1, dtype=tf.float32, name="logits")

    def call(self, features):
        """{level: [B, z, y, x, C]} -> logits [B, K + 1], background first."""
        return self.logits(tf.reduce_mean(features[max(features)], axis=[1, 2, 3]))

    def loss(self, backbone, batch, seed):
        """Cross-entropy of two crops of every volume: one around an object, drawn at random, and one without objects.

        Without the second, what there is but one class of would be learnt by looking at nothing.

        Args:
          backbone: layer [B, z, y, x, C] -> {level: features}.
          batch: volume [B, Z, Y, X, C], boxes [B, G, 6], class_ids [B, G], valid [B, G].
          seed: [2] int32, or [B, 2], one of each example.

        Returns:
          {"classifier": [B]}, the mean over the crops that there are: one where a volume holds no object, or is so full
          that no place without any was found; 0 without either.
        """
        volume, valid = batch["volume"], batch["valid"]
        draw = tf.where(valid, sampling.uniform(tf.shape(valid), seed), -1.0)
        slot = tf.argmax(draw, axis=1, output_type=tf.int32)
        box, class_id = (tf.gather(batch[name], slot, batch_dims=1) for name in ("boxes", "class_ids"))
        empty, is_empty = empty_centres(batch["boxes"], valid, list(volume.shape[1:4]), self.crop_size, seed + 1)
        centres = 0.5 * (box[:, :3] + box[:, 3:]), empty
        crops = tf.concat([crop_around(volume, centre, self.crop_size) for centre in centres], axis=0)
        logits = tf.stack(tf.split(self(backbone(crops, training=True)), 2), axis=1)  # [B, 2, K + 1]
        class_ids = tf.stack([class_id, tf.zeros_like(class_id)], axis=1)
        counts = tf.stack([tf.reduce_any(valid, axis=1), is_empty], axis=1)
        return {"classifier": losses.softmax_cross_entropy(logits, class_ids, counts)}


def empty_centres(boxes, valid, shape, size, seed):
    """A place in every volume around which a crop meets no box, drawn from some that are drawn at random.

    Args:
      boxes: [B, G, 6] float32, voxels.
      valid: [B, G] bool; what stands in the other slots counts nothing.
      shape: (Z, Y, X) of the volumes.
      size: (z, y, x) of the crop.
      seed: [2] int32, or [B, 2], one of each example.

    Returns:
      centres: [B, 3] float32, voxels, somewhere in the volume.
      found: [B] bool; False where each of these places meets one.
    """
    places = sampling.uniform([tf.shape(boxes)[0], PLACES, 1, 3], seed) * tf.constant(shape, tf.float32)
    reach = 0.5 * tf.constant(size, tf.float32) + 0.5  # a crop begins at a whole voxel
    boxes = boxes[:, tf.newaxis]
    meets = tf.reduce_all((boxes[..., :3] < places + reach) & (boxes[..., 3:] > places - reach), axis=-1)
    is_empty = ~tf.reduce_any(meets & valid[:, tf.newaxis], axis=-1)  # [B, PLACES]
    first = tf.argmax(is_empty, axis=1, output_type=tf.int32)
    return tf.gather(places[:, :, 0], first, batch_dims=1), tf.reduce_any(is_empty, axis=1)


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
