"""From head outputs to a fixed number of detections."""

import tensorflow as tf

from ops import boxes as box_ops
from ops import masks as mask_ops
from ops import nms3d, soft_nms3d


def detect(probabilities, deltas, rois, rois_valid, *, shape, delta_weights, detections):
    """Classes and boxes that remain after decoding, clipping, thresholding and per-class suppression.

    Args:
      probabilities: [B, P, K + 1] float32 in [0, 1]; class 0 is background.
      deltas: [B, P, K, 6] float32, in units of 1 / delta_weights; [B, P, 1, 6] for one box for all classes.
      rois: [B, P, 6] float32, voxels, that the deltas move; an empty one has no detection.
      rois_valid: [B, P] bool.
      shape: (Z, Y, X) of the volume.
      delta_weights: six numbers.
      detections: settings: score_threshold, suppression, nms_iou, soft_sigma, max_detections (D).

    Returns:
      dict, best first: boxes [B, D, 6] float32 voxels, scores [B, D] float32 (those of soft-NMS as it lowered them),
      class_ids [B, D] int32, valid [B, D] bool; boxes, scores and class_ids are 0 where not valid.
    """
    num_rois, num_classes = probabilities.shape[1], probabilities.shape[2] - 1
    boxes = box_ops.clip(box_ops.decode(deltas, rois[:, :, tf.newaxis], delta_weights), shape)  # [B, P, K or 1, 6]
    is_candidate = (box_ops.volume(boxes) > 0.0) & (rois_valid & (box_ops.volume(rois) > 0.0))[..., tf.newaxis]
    scores = tf.where(is_candidate, probabilities[..., 1:], float("nan"))  # a NaN score is never kept

    flat_boxes = tf.reshape(tf.repeat(boxes, num_classes // boxes.shape[2], axis=2), [-1, num_rois * num_classes, 6])
    flat_scores = tf.reshape(scores, [-1, num_rois * num_classes])
    flat_classes = tf.broadcast_to(tf.tile(tf.range(1, num_classes + 1), [num_rois]), tf.shape(flat_scores))
    index, scores, valid = _suppress(flat_boxes, flat_scores, flat_classes, detections)
    return {
        "boxes": tf.where(valid[..., tf.newaxis], tf.gather(flat_boxes, index, batch_dims=1), 0.0),
        "scores": tf.where(valid, scores, 0.0),
        "class_ids": tf.where(valid, tf.gather(flat_classes, index, batch_dims=1), 0),
        "valid": valid,
    }


def cut(found, *, shape, detections):
    """Answers from what is found: each box by what its mask shows, if the settings say so, and the mask over it.

    Args:
      found: dict as `MaskRCNN.find` gives it, padded.
      shape: (Z, Y, X) of the volume.
      detections: settings: boxes, mask_threshold.

    Returns:
      A dict of the same shapes, without windows.
    """
    found = dict(found)
    windows, valid = found.pop("windows"), found["valid"]
    if detections.boxes == "masks":
        boxes, masks = mask_ops.shrink(found["masks"], windows, found["boxes"], shape, detections.mask_threshold)
        found["boxes"] = tf.where(valid[..., tf.newaxis], boxes, 0.0)
        found["masks"] = tf.where(valid[..., tf.newaxis, tf.newaxis, tf.newaxis], masks, 0.0)
    return found


def _suppress(boxes, scores, class_ids, detections):
    """Indices of the boxes that remain, their scores and which of these are valid: [B, D] each."""
    shared = {
        "class_ids": class_ids,
        "iou_threshold": detections.nms_iou,
        "score_threshold": detections.score_threshold,
        "max_outputs": detections.max_detections,
    }
    if detections.suppression == "nms":
        index, valid = nms3d.batched_nms3d(boxes, scores, **shared)
        return index, tf.gather(scores, index, batch_dims=1), valid
    method = detections.suppression.removeprefix("soft_")
    return soft_nms3d.batched_soft_nms3d(boxes, scores, method=method, sigma=detections.soft_sigma, **shared)
