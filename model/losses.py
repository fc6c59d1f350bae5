"""The losses of Mask R-CNN and of what is trained beside it; each [B], one value per volume.

`rpn`, `box_head` and `attribute_head` are sections of a config.
"""

import tensorflow as tf

from model.attribute_head import encode_attributes
from model.box_head import select_deltas
from model.mask_head import select_class
from model.rpn import object_logits
from ops import box_losses as decoded_losses
from ops import boxes as box_ops
from ops import keypoints, losses

# Where smooth L1 turns from quadratic to linear, in (scaled) deltas.
RPN_BETA, ROI_BETA = 1.0 / 9.0, 1.0
# Of the focal losses (Lin et al. 2017).
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
DECODED_LOSSES = {
    "giou": decoded_losses.giou_loss,
    "diou": decoded_losses.diou_loss,
    "ciou": decoded_losses.ciou_loss,
}


def rpn_losses(logits, deltas, anchors, targets, *, rpn):
    """Objectness and box loss of the proposal network, over the anchors that were drawn.

    The focal loss weighs easy anchors down instead of leaving them out: `num_samples` of twice the anchors there are
    draws all that are labelled, as its authors do.

    Args:
      logits: [B, A] float32; or [B, A, 2] of background and object.
      deltas: [B, A, 6] float32.
      anchors: [A, 6] float32, voxels.
      targets: AnchorTargets.
      rpn: class_loss, box_loss.

    Returns:
      {"rpn_class": [B], "rpn_box": [B]}.
    """
    logits = object_logits(logits)
    is_object, drawn = tf.cast(targets.positive, tf.float32), targets.positive | targets.negative
    if rpn.class_loss == "focal":
        class_loss = losses.focal(logits, is_object, drawn, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA)
    else:
        class_loss = losses.sigmoid_cross_entropy(logits, is_object, drawn)
    if rpn.box_loss == "smooth_l1":
        box_loss = losses.smooth_l1(deltas, targets.deltas, targets.positive, beta=RPN_BETA)
    else:
        boxes = box_ops.decode(deltas, anchors)
        box_loss = DECODED_LOSSES[rpn.box_loss](boxes, targets.matched_boxes, targets.positive)
    return {"rpn_class": class_loss, "rpn_box": box_loss}


def box_losses(logits, deltas, rois, *, delta_weights, box_head):
    """Class and box loss of the rois; the box of the true class alone is corrected.

    Args:
      logits: [B, R, K + 1] float32.
      deltas: [B, R, K, 6] float32, in units of 1 / delta_weights; [B, R, 1, 6] for one box for all classes.
      rois: RoiTargets.
      delta_weights: six numbers; those of the stage in a cascade.
      box_head: class_loss, class_weights, box_loss.

    Returns:
      {"roi_class": [B], "roi_box": [B]}.
    """
    class_weights = box_head.class_weights or None
    if box_head.class_loss == "focal":
        class_loss = losses.softmax_focal(
            logits, rois.class_ids, rois.valid, gamma=FOCAL_GAMMA, class_weights=class_weights
        )
    else:
        class_loss = losses.softmax_cross_entropy(logits, rois.class_ids, rois.valid, class_weights=class_weights)
    own, is_object = select_deltas(deltas, rois.class_ids), rois.class_ids > 0  # [B, R, 6], [B, R]
    if box_head.box_loss == "smooth_l1":
        box_loss = losses.smooth_l1(own, rois.deltas * delta_weights, is_object, beta=ROI_BETA)
    else:
        boxes = box_ops.decode(own, rois.boxes, delta_weights)
        box_loss = DECODED_LOSSES[box_head.box_loss](boxes, rois.matched_boxes, is_object)
    return {"roi_class": class_loss, "roi_box": box_loss}


def sum_stages(stages):
    """Losses of a cascade: list of {name: [B]} with the same names -> {name: [B]}, the sums over the stages."""
    return {name: tf.add_n([stage[name] for stage in stages]) for name in stages[0]}


def mask_losses(logits, targets, class_ids):
    """Cross-entropy and Dice of the mask of the true class.

    Args:
      logits: [B, R, M, M, M, K] float32; [..., 1] for one mask for all classes.
      targets: [B, R, M, M, M] float32.
      class_ids: [B, R] int32; rois of class 0 do not count.

    Returns:
      {"mask": [B], "mask_dice": [B]}.
    """
    own = select_class(logits, class_ids)
    is_object = class_ids > 0
    return {
        "mask": losses.mask_cross_entropy(own, targets, is_object),
        "mask_dice": losses.dice(own, targets, is_object),
    }


def attribute_loss(predictions, attributes, rois, *, attribute_head):
    """Smooth L1 of the attributes of objects, averaged over the numbers that are known.

    Args:
      predictions: [B, R, T] float32, in the learnt scale.
      attributes: [B, G, T] float32, of the truths, as the data has them; NaN where unknown.
      rois: RoiTargets.
      attribute_head: scale, beta.

    Returns:
      {"attribute": [B]}.
    """
    known, is_object = _of_rois(attributes, rois)  # [B, R, T], [B, R]
    counts = is_object[..., tf.newaxis] & ~tf.math.is_nan(known)
    targets = encode_attributes(known, attribute_head.scale)
    # Every number is an item of its own, as one may be known without the others.
    return {
        "attribute": losses.smooth_l1(
            predictions[..., tf.newaxis], targets[..., tf.newaxis], counts, beta=attribute_head.beta
        )
    }


def keypoint_loss(logits, points, points_valid, rois):
    """How far heat maps are from those of the landmarks, averaged over the landmarks inside their rois.

    The softmax over all bins of He et al. 2017, with the bins around a landmark instead of one of them; see
    `keypoints.to_heat_maps`. What no heat map can do without, the entropy of these, is taken off.

    Args:
      logits: [B, R, N, z, y, x] float32.
      points: [B, G, N, 3] float32, voxels, of the truths.
      points_valid: [B, G, N] bool.
      rois: RoiTargets.

    Returns:
      {"keypoint": [B]}.
    """
    own, is_object = _of_rois(points, rois)
    own_valid, _ = _of_rois(points_valid, rois)
    counts = own_valid & is_object[..., tf.newaxis]
    targets, inside = keypoints.to_heat_maps(own, counts, rois.boxes, logits.shape[3:])
    return {"keypoint": losses.softmax_divergence(keypoints.flatten(logits), keypoints.flatten(targets), inside)}


def l2_loss(kernels, batch_size):
    """Half the sum of all squares (Krogh and Hertz 1991), the same for every volume.

    Args:
      kernels: list of tensors or variables, not empty.
      batch_size: B.

    Returns:
      {"l2": [B]}.
    """
    return {"l2": tf.fill([batch_size], tf.add_n([tf.nn.l2_loss(tf.cast(kernel, tf.float32)) for kernel in kernels]))}


def _of_rois(values, rois):
    """What belongs to the truth of each roi, [B, G, ...] -> [B, R, ...], and whether there is one, [B, R] bool."""
    return tf.gather(values, tf.maximum(rois.slots, 0), batch_dims=1), rois.slots >= 0
