"""What the network should have said: targets of anchors and of sampled rois. Made on the accelerator, in the step."""

import typing

import tensorflow as tf

from ops import boxes as box_ops
from ops import masks, matching, sampling


class AnchorTargets(typing.NamedTuple):
    """Targets of the proposal network.

    positive: [B, A] bool, anchors drawn that should say "object" and where.
    negative: [B, A] bool, anchors drawn that should say "nothing here".
    deltas: [B, A, 6] float32, from the anchor to its truth.
    """

    positive: tf.Tensor
    negative: tf.Tensor
    deltas: tf.Tensor


class RoiTargets(typing.NamedTuple):
    """Sampled rois and their targets; the positives come first, so heads may look at a fixed slice of them.

    boxes: [B, R, 6] float32, voxels.
    class_ids: [B, R] int32; 0 is background.
    slots: [B, R] int32, the matched truth slot; -1 for background.
    deltas: [B, R, 6] float32, from the roi to its truth.
    valid: [B, R] bool; False where there were too few proposals.
    """

    boxes: tf.Tensor
    class_ids: tf.Tensor
    slots: tf.Tensor
    deltas: tf.Tensor
    valid: tf.Tensor


def anchor_targets(anchors, boxes, valid, *, positive_iou, negative_iou, num_samples, positive_fraction, seed):
    """Assigns truths to anchors and draws those that train.

    Args:
      anchors: [A, 6] float32, voxels.
      boxes: [B, G, 6] float32, truths.
      valid: [B, G] bool.
      positive_iou: see `matching.match`.
      negative_iou: see `matching.match`.
      num_samples: see `sampling.balanced_sample`.
      positive_fraction: see `sampling.balanced_sample`.
      seed: [2] int32.

    Returns:
      AnchorTargets.
    """
    iou = box_ops.iou_matrix(anchors[tf.newaxis], boxes)  # [B, A, G]
    matched, labels = matching.match(iou, valid, high=positive_iou, low=negative_iou)
    positive, negative = sampling.balanced_sample(
        labels, num_samples=num_samples, positive_fraction=positive_fraction, seed=seed
    )
    deltas = box_ops.encode(tf.gather(boxes, matched, batch_dims=1), anchors)
    return AnchorTargets(positive, negative, deltas)


def sample_rois(
    proposals,
    proposals_valid,
    boxes,
    class_ids,
    valid,
    *,
    positive_iou,
    negative_iou,
    num_samples,
    positive_fraction,
    seed,
):
    """Draws the rois that train the heads from proposals and truths.

    The truths are added to the proposals, so that the heads see good boxes before the proposals are any good.

    Args:
      proposals: [B, P, 6] float32, voxels.
      proposals_valid: [B, P] bool.
      boxes: [B, G, 6] float32, truths.
      class_ids: [B, G] int32.
      valid: [B, G] bool.
      positive_iou: a roi with at least this IoU takes the truth's class.
      negative_iou: a roi with less IoU than this is background; one between the two is not drawn.
      num_samples: how many to draw.
      positive_fraction: see `sampling.balanced_sample`.
      seed: [2] int32.

    Returns:
      RoiTargets with R = num_samples, or P + G where that is less.
    """
    rois = tf.stop_gradient(tf.concat([proposals, boxes], axis=1))  # [B, P + G, 6]
    rois_valid = tf.concat([proposals_valid, valid], axis=1)
    iou = box_ops.iou_matrix(rois, boxes)
    matched, labels = matching.match(iou, valid, high=positive_iou, low=negative_iou, low_quality=False)
    positive, negative = sampling.balanced_sample(
        tf.where(rois_valid, labels, -1), num_samples=num_samples, positive_fraction=positive_fraction, seed=seed
    )
    rank = 2 * tf.cast(positive, tf.int32) + tf.cast(negative, tf.int32)
    rank, index = tf.math.top_k(rank, min(num_samples, rois.shape[1]))

    drawn = tf.gather(rois, index, batch_dims=1)
    slots = tf.gather(matched, index, batch_dims=1)
    is_positive = rank == 2
    deltas = box_ops.encode(tf.gather(boxes, slots, batch_dims=1), drawn)
    drawn_classes = tf.where(is_positive, tf.gather(class_ids, slots, batch_dims=1), 0)
    return RoiTargets(drawn, drawn_classes, tf.where(is_positive, slots, -1), deltas, rank > 0)


def roi_masks(instance_ids, rois, mask_size):
    """Mask targets of sampled rois: [B, R, M, M, M] float32; see `masks.mask_targets`."""
    return masks.mask_targets(instance_ids, rois.boxes, rois.slots, mask_size)
