"""Region proposal network (Ren et al. 2015) over a feature pyramid."""

import tensorflow as tf

from model.backbone import convolution
from ops import boxes as box_ops
from ops import nms3d


class RPNHead(tf.keras.layers.Layer):
    """One convolution and two 1x1x1 siblings, shared by all levels."""

    def __init__(self, channels, num_anchors, **kwargs):
        super().__init__(**kwargs)
        self.conv = convolution(channels, 3, activation="relu", name="conv")
        # One initializer each: an unseeded one that is used twice draws the same numbers twice.
        self.objectness = convolution(num_anchors, 1, kernel_initializer=_small(), name="objectness")
        self.deltas = convolution(num_anchors * 6, 1, kernel_initializer=_small(), name="deltas")

    def call(self, features):
        """L levels [B, z, y, x, C] -> logits [B, A] and deltas [B, A, 6], in the order of the anchors."""
        logits, deltas = [], []
        for feature in features:
            shared = self.conv(feature)
            logits.append(tf.reshape(self.objectness(shared), [-1, _num_anchors(feature, self.objectness)]))
            deltas.append(tf.reshape(self.deltas(shared), [-1, _num_anchors(feature, self.objectness), 6]))
        return tf.concat(logits, axis=1), tf.concat(deltas, axis=1)


def _small():
    return tf.keras.initializers.RandomNormal(stddev=0.01)


def _num_anchors(feature, objectness):
    z, y, x = feature.shape[1:4]
    return z * y * x * objectness.filters


def propose(logits, deltas, anchors, anchors_per_level, *, shape, pre_nms_top_k, post_nms_top_k, nms_iou, min_size):
    """The regions that look most like an object.

    Args:
      logits: [B, A] float32, objectness.
      deltas: [B, A, 6] float32.
      anchors: [A, 6] float32, voxels.
      anchors_per_level: how many of the anchors, in order, each level has.
      shape: (Z, Y, X) of the volume; boxes are cut at its border.
      pre_nms_top_k: anchors of each level that are looked at.
      post_nms_top_k: P.
      nms_iou: proposals that overlap a better one by more are dropped.
      min_size: voxels; proposals with a shorter edge are dropped.

    Returns:
      boxes: [B, P, 6] float32, voxels; zeros where not valid.
      scores: [B, P] float32 in [0, 1]; 0 where not valid.
      valid: [B, P] bool.
    """
    candidates, candidate_logits, start = [], [], 0
    for count in anchors_per_level:
        stop = start + count
        top, index = tf.math.top_k(logits[:, start:stop], min(pre_nms_top_k, count))
        level_deltas = tf.gather(deltas[:, start:stop], index, batch_dims=1)
        candidates.append(box_ops.decode(level_deltas, tf.gather(anchors[start:stop], index)))
        candidate_logits.append(top)
        start = stop
    boxes = box_ops.clip(tf.concat(candidates, axis=1), shape)
    scores = tf.sigmoid(tf.concat(candidate_logits, axis=1))
    is_large = tf.reduce_all(boxes[..., 3:] - boxes[..., :3] >= min_size, axis=-1)
    index, valid = nms3d.batched_nms3d(
        boxes,
        tf.where(is_large, scores, float("nan")),  # a NaN score is never kept
        iou_threshold=nms_iou,
        max_outputs=post_nms_top_k,
    )
    boxes = tf.where(valid[..., tf.newaxis], tf.gather(boxes, index, batch_dims=1), 0.0)
    return boxes, tf.where(valid, tf.gather(scores, index, batch_dims=1), 0.0), valid
