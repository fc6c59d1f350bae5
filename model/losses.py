"""The losses of Mask R-CNN and of what is trained beside it; each [B], one value per volume.

`rpn`, `box_head`, `mask_head` and `attribute_head` are sections of a config. Which losses serve what, by their names in
the log and in `train.loss_weights`, the total being the sum of what is logged times its weight:

- rpn_class: sigmoid cross-entropy or focal; rpn_box: smooth L1 of deltas, or GIoU, DIoU, CIoU of decoded boxes
- roi_class: softmax cross-entropy or softmax focal, with class weights; roi_box: as rpn_box
- mask: cross-entropy of voxels; mask_focal: focal of voxels; mask_dice: Dice; any of the three together
- segmentation, segmentation_dice: cross-entropy and Dice of the map of every class
- attribute: smooth L1, or LINEX for logarithms; a number has neither classes nor an overlap
- keypoint: softmax divergence alone, as a heat map is a distribution
- classifier: softmax cross-entropy, in model/classifier.py; l2: half the sum of squares of kernels
"""

import functools

import tensorflow as tf

from model.attribute_head import encode_attributes
from model.box_head import select_deltas
from model.mask_head import select_class
from model.rpn import object_logits
from ops import box_losses as decoded_losses
from ops import boxes as box_ops
from ops import keypoints, losses

# Names of the losses of masks, by how `mask_head.losses` calls them.
MASK_LOSSES = {"cross_entropy": "mask", "focal": "mask_focal", "dice": "mask_dice"}
LINEX_REACH = 2.0  # of an attribute's logarithm: from e^2 times the truth on the loss goes straight
DECODED_LOSSES = {
    "giou": decoded_losses.giou_loss,
    "diou": decoded_losses.diou_loss,
    "ciou": decoded_losses.ciou_loss,
}


def rpn_losses(logits, deltas, anchors, targets, *, rpn):
    """Objectness and box loss of the proposal network, over the anchors that were drawn.

    The focal loss weighs easy anchors down instead of leaving them out: `num_samples` 0 takes all that are labelled, as
    its authors do.

    Args:
      logits: [B, A] float32; or [B, A, 2] of background and object.
      deltas: [B, A, 6] float32.
      anchors: [A, 6] float32, voxels.
      targets: AnchorTargets.
      rpn: class_loss, box_loss, beta, focal_alpha, focal_gamma.

    Returns:
      {"rpn_class": [B], "rpn_box": [B]}.
    """
    logits = object_logits(logits)
    is_object, drawn = tf.cast(targets.positive, tf.float32), targets.positive | targets.negative
    if rpn.class_loss == "focal":
        class_loss = losses.focal(logits, is_object, drawn, alpha=rpn.focal_alpha, gamma=rpn.focal_gamma)
    else:
        class_loss = losses.sigmoid_cross_entropy(logits, is_object, drawn)
    if rpn.box_loss == "smooth_l1":
        box_loss = losses.smooth_l1(deltas, targets.deltas, targets.positive, beta=rpn.beta)
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
      box_head: class_loss, class_weights, focal_gamma, box_loss, beta.

    Returns:
      {"roi_class": [B], "roi_box": [B]}.
    """
    class_weights = box_head.class_weights or None
    if box_head.class_loss == "focal":
        class_loss = losses.softmax_focal(
            logits, rois.class_ids, rois.valid, gamma=box_head.focal_gamma, class_weights=class_weights
        )
    else:
        class_loss = losses.softmax_cross_entropy(logits, rois.class_ids, rois.valid, class_weights=class_weights)
    own, is_object = select_deltas(deltas, rois.class_ids), rois.class_ids > 0  # [B, R, 6], [B, R]
    if box_head.box_loss == "smooth_l1":
        box_loss = losses.smooth_l1(own, rois.deltas * delta_weights, is_object, beta=box_head.beta)
    else:
        boxes = box_ops.decode(own, rois.boxes, delta_weights)
        box_loss = DECODED_LOSSES[box_head.box_loss](boxes, rois.matched_boxes, is_object)
    return {"roi_class": class_loss, "roi_box": box_loss}


def sum_stages(stages):
    """Losses of a cascade: list of {name: [B]} with the same names -> {name: [B]}, the sums over the stages."""
    return {name: tf.add_n([stage[name] for stage in stages]) for name in stages[0]}


def mask_losses(logits, targets, class_ids, *, mask_head):
    """Losses of the mask of the true class.

    Args:
      logits: [B, R, M, M, M, K] float32; [..., 1] for one mask for all classes.
      targets: [B, R, M, M, M] float32.
      class_ids: [B, R] int32; rois of class 0 do not count.
      mask_head: losses, focal_alpha, focal_gamma.

    Returns:
      {name: [B]}, those of `mask_loss_names`.
    """
    own, is_object = select_class(logits, class_ids), class_ids > 0
    functions = {
        "cross_entropy": losses.mask_cross_entropy,
        "focal": functools.partial(losses.mask_focal, alpha=mask_head.focal_alpha, gamma=mask_head.focal_gamma),
        "dice": losses.dice,
    }
    return {MASK_LOSSES[loss]: functions[loss](own, targets, is_object) for loss in mask_head.losses}


def mask_loss_names(mask_head):
    """Names of the losses that `mask_losses` gives, in their order."""
    return [MASK_LOSSES[loss] for loss in mask_head.losses]


def segmentation_losses(maps, instance_ids, class_ids):
    """Losses of what every voxel is said to be: those of a mask for each class, of all its objects together.

    Args:
      maps: [B, Z, Y, X, K] float32, logits of every class against the rest.
      instance_ids: [B, Z, Y, X] int32, of slot g is g + 1.
      class_ids: [B, G] int32 in 1..K; 0 in empty slots.

    Returns:
      {"segmentation": [B], "segmentation_dice": [B]}; in the latter only classes count that occur.
    """
    of_id = tf.pad(class_ids, [[0, 0], [1, 0]])
    classes = tf.gather(of_id, instance_ids, batch_dims=1)  # [B, Z, Y, X]
    each = tf.range(1, maps.shape[-1] + 1)
    targets = tf.cast(classes[:, tf.newaxis] == tf.reshape(each, [1, -1, 1, 1, 1]), tf.float32)
    maps = tf.einsum("bzyxk->bkzyx", maps)
    occurs = tf.reduce_any(class_ids[:, tf.newaxis] == each[:, tf.newaxis], axis=-1)  # [B, K]
    return {
        "segmentation": losses.mask_cross_entropy(maps, targets, tf.ones_like(occurs)),
        "segmentation_dice": losses.dice(maps, targets, occurs),
    }


def attribute_loss(predictions, attributes, rois, *, attribute_head):
    """Smooth L1 or LINEX of the attributes of objects, averaged over the numbers that are known.

    Args:
      predictions: [B, R, T] float32, in the learnt scale.
      attributes: [B, G, T] float32, of the truths, as the data has them; NaN where unknown.
      rois: RoiTargets.
      attribute_head: scale, loss, beta.

    Returns:
      {"attribute": [B]}.
    """
    known, is_object = _of_rois(attributes, rois)  # [B, R, T], [B, R]
    counts = is_object[..., tf.newaxis] & ~tf.math.is_nan(known)
    targets = encode_attributes(known, attribute_head.scale)
    # Every number is an item of its own, as one may be known without the others.
    inputs = predictions[..., tf.newaxis], targets[..., tf.newaxis], counts
    if attribute_head.loss == "linex":
        return {"attribute": losses.linex(*inputs, reach=LINEX_REACH)}
    return {"attribute": losses.smooth_l1(*inputs, beta=attribute_head.beta)}


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
      kernels: list of tensors or variables; where there are none the loss is 0.
      batch_size: B.

    Returns:
      {"l2": [B]}.
    """
    squares = [tf.nn.l2_loss(tf.cast(kernel, tf.float32)) for kernel in kernels]
    return {"l2": tf.fill([batch_size], tf.add_n([tf.constant(0.0), *squares]))}


def _of_rois(values, rois):
    """What belongs to the truth of each roi, [B, G, ...] -> [B, R, ...], and whether there is one, [B, R] bool."""
    return tf.gather(values, tf.maximum(rois.slots, 0), batch_dims=1), rois.slots >= 0
