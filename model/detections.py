"""From head outputs to a fixed number of detections."""

import tensorflow as tf

from ops import boxes as box_ops
from ops import nms3d


def detect(logits, deltas, rois, rois_valid, *, shape, delta_weights, score_threshold, nms_iou, max_detections):
    """Classes and boxes that remain after decoding, clipping, thresholding and per-class suppression.

    Args:
      logits: [B, P, K + 1] float32; class 0 is background.
      deltas: [B, P, K, 6] float32, in units of 1 / delta_weights.
      rois: [B, P, 6] float32, voxels.
      rois_valid: [B, P] bool.
      shape: (Z, Y, X) of the volume.
      delta_weights: six numbers.
      score_threshold: detections that score less are dropped.
      nms_iou: a detection that overlaps a better one of its class by more is dropped.
      max_detections: D.

    Returns:
      dict, best first: boxes [B, D, 6] float32 voxels, scores [B, D] float32, class_ids [B, D] int32,
      valid [B, D] bool; boxes, scores and class_ids are 0 where not valid.
    """
    num_rois, num_classes = deltas.shape[1], deltas.shape[2]
    boxes = box_ops.clip(box_ops.decode(deltas / delta_weights, rois[:, :, tf.newaxis]), shape)  # [B, P, K, 6]
    scores = tf.nn.softmax(logits)[..., 1:]
    is_candidate = rois_valid[..., tf.newaxis] & (box_ops.volume(boxes) > 0.0)
    scores = tf.where(is_candidate, scores, float("nan"))  # a NaN score is never kept

    flat_boxes = tf.reshape(boxes, [-1, num_rois * num_classes, 6])
    flat_scores = tf.reshape(scores, [-1, num_rois * num_classes])
    flat_classes = tf.broadcast_to(tf.tile(tf.range(1, num_classes + 1), [num_rois]), tf.shape(flat_scores))
    index, valid = nms3d.batched_nms3d(
        flat_boxes,
        flat_scores,
        class_ids=flat_classes,
        iou_threshold=nms_iou,
        score_threshold=score_threshold,
        max_outputs=max_detections,
    )
    return {
        "boxes": tf.where(valid[..., tf.newaxis], tf.gather(flat_boxes, index, batch_dims=1), 0.0),
        "scores": tf.where(valid, tf.gather(flat_scores, index, batch_dims=1), 0.0),
        "class_ids": tf.where(valid, tf.gather(flat_classes, index, batch_dims=1), 0),
        "valid": valid,
    }
