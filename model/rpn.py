"""Region proposal network (Ren et al. 2015) over a feature pyramid."""

import math

import tensorflow as tf

from model.layers import activation, convolution
from ops import boxes as box_ops
from ops import checks, nms3d


class RPNHead(tf.keras.layers.Layer):
    """One convolution and two 1x1x1 siblings, shared by all levels."""

    def __init__(self, channels, num_anchors, *, style, objectness, prior, **kwargs):
        """Makes the layers.

        Args:
          channels: of the shared convolution.
          num_anchors: around every cell, at least 1.
          style: see model/layers.py.
          objectness: "sigmoid", or "softmax" over (background, object).
          prior: score of every anchor before training, in (0, 1). A focal loss over all anchors wants a small one, or
            the many that hold nothing outweigh everything at first (Lin et al. 2017, section 3.3).
          **kwargs: to the layer.
        """
        super().__init__(**kwargs)
        self.num_anchors = num_anchors
        self.is_softmax = objectness == "softmax"
        num_logits = num_anchors * (2 if self.is_softmax else 1)
        self.conv = convolution(channels, style.kernel, style=style, name="conv")
        self.activation = activation(style, name="activation")
        # One initializer each: an unseeded one that is used twice draws the same numbers twice.
        bias = math.log(prior / (1.0 - prior))  # of the logit of "object", the last one of every anchor
        biases = ([0.0, bias] if self.is_softmax else [bias]) * num_anchors
        self.objectness = convolution(
            num_logits,
            1,
            style=style,
            kernel_initializer=_small(),
            bias_initializer=tf.keras.initializers.Constant(biases),
            name="objectness",
        )
        self.deltas = convolution(num_anchors * 6, 1, style=style, kernel_initializer=_small(), name="deltas")

    def call(self, features):
        """Logits and deltas of all anchors.

        Args:
          features: levels [B, z, y, x, C], each of any size.

        Returns:
          logits: [B, A] float32; with softmax [B, A, 2], background first. Anchors in the order of `level_anchors`.
          deltas: [B, A, 6] float32.
        """
        shared = [self.activation(self.conv(feature)) for feature in features]
        logits, deltas = self._per_anchor(self.objectness, shared), self._per_anchor(self.deltas, shared)
        return (logits if self.is_softmax else tf.squeeze(logits, axis=-1)), deltas

    def _per_anchor(self, layer, features):
        """[B, A, n] float32, whatever the precision of the layer: its n outputs for every anchor."""
        levels = []
        for feature in features:
            count = math.prod(feature.shape[1:4]) * self.num_anchors
            levels.append(tf.reshape(layer(feature), [-1, count, layer.filters // self.num_anchors]))
        return tf.cast(tf.concat(levels, axis=1), tf.float32)


def _small():
    return tf.keras.initializers.RandomNormal(stddev=0.01)


def object_scores(logits):
    """How much every anchor looks like an object: [B, A] float32 in [0, 1] from logits [B, A] or [B, A, 2]."""
    return tf.sigmoid(object_logits(logits))


def object_logits(logits):
    """[B, A]: the softmax over two logits is the sigmoid of their difference."""
    return logits[..., 1] - logits[..., 0] if logits.shape.rank == 3 else logits


def propose(logits, deltas, anchors, anchors_per_level, *, shape, pre_nms_top_k, post_nms_top_k, nms_iou, min_size):
    """The regions that look most like an object.

    The best anchors of each level are decoded; proposals of all levels then suppress each other together, so that an
    object which two levels see is proposed once. The same input gives the same proposals; of equal scores the first
    anchor's goes first.

    Args:
      logits: [B, A] or [B, A, 2] float32, as `RPNHead` gives them.
      deltas: [B, A, 6] float32. An anchor with a number among deltas and logits that is not finite is never proposed.
      anchors: [A, 6] float32, voxels.
      anchors_per_level: how many of the anchors, in order, each level has.
      shape: (Z, Y, X) of the volume; boxes are cut at its border.
      pre_nms_top_k: anchors of each level that are looked at.
      post_nms_top_k: P.
      nms_iou: proposals that overlap a better one by more are dropped.
      min_size: voxels; proposals with a shorter edge are dropped, and empty ones always.

    Returns:
      boxes: [B, P, 6] float32, voxels; zeros where not valid.
      scores: [B, P] float32 in [0, 1]; 0 where not valid.
      valid: [B, P] bool.

    Raises:
      ValueError: other shapes, anchors_per_level that do not add up to A.
    """
    num_anchors, logits = sum(anchors_per_level), object_logits(tf.convert_to_tensor(logits))
    spec = f"logits [B, {num_anchors}], deltas [B, {num_anchors}, 6], anchors [{num_anchors}, 6]"
    checks.shapes(spec, logits, deltas, anchors)
    is_finite = tf.math.is_finite(logits) & tf.reduce_all(tf.math.is_finite(deltas), axis=-1)
    logits = tf.where(is_finite, logits, -math.inf)  # last in every order: a NaN would be anywhere
    candidates, candidate_logits, start = [], [], 0
    for count in anchors_per_level:
        level = slice(start, start + count)
        best, index = tf.math.top_k(logits[:, level], min(pre_nms_top_k, count))
        level_deltas = tf.gather(deltas[:, level], index, batch_dims=1)
        candidates.append(box_ops.decode(level_deltas, tf.gather(anchors[level], index)))
        candidate_logits.append(best)
        start += count
    boxes, logits = box_ops.clip(tf.concat(candidates, axis=1), shape), tf.concat(candidate_logits, axis=1)

    edges = boxes[..., 3:] - boxes[..., :3]
    is_proposal = tf.reduce_all((edges > 0.0) & (edges >= min_size), axis=-1) & (logits > -math.inf)
    scores = tf.sigmoid(logits)
    index, valid = nms3d.batched_nms3d(
        boxes,
        tf.where(is_proposal, scores, math.nan),  # a NaN score is never kept
        iou_threshold=nms_iou,
        max_outputs=post_nms_top_k,
    )
    boxes = tf.where(valid[..., tf.newaxis], tf.gather(boxes, index, batch_dims=1), 0.0)
    return boxes, tf.where(valid, tf.gather(scores, index, batch_dims=1), 0.0), valid
