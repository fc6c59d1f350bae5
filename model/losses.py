"""The five losses of Mask R-CNN, and Dice on the masks; each [B], one value per volume."""

import tensorflow as tf

from ops import losses

# Where smooth L1 turns from quadratic to linear, in (scaled) deltas.
RPN_BETA, ROI_BETA = 1.0 / 9.0, 1.0


def rpn_losses(logits, deltas, targets):
    """Objectness and box loss of the proposal network.

    Args:
      logits: [B, A] float32.
      deltas: [B, A, 6] float32.
      targets: AnchorTargets.

    Returns:
      {"rpn_class": [B], "rpn_box": [B]}.
    """
    is_object = tf.cast(targets.positive, tf.float32)
    return {
        "rpn_class": losses.sigmoid_cross_entropy(logits, is_object, targets.positive | targets.negative),
        "rpn_box": losses.smooth_l1(deltas, targets.deltas, targets.positive, beta=RPN_BETA),
    }


def box_losses(logits, deltas, rois, delta_weights):
    """Class and box loss of the rois; the box of the true class alone is corrected.

    Args:
      logits: [B, R, K + 1] float32.
      deltas: [B, R, K, 6] float32, in units of 1 / delta_weights.
      rois: RoiTargets.
      delta_weights: six numbers.

    Returns:
      {"roi_class": [B], "roi_box": [B]}.
    """
    own = tf.gather(deltas, tf.maximum(rois.class_ids - 1, 0), batch_dims=2)  # [B, R, 6]
    return {
        "roi_class": losses.softmax_cross_entropy(logits, rois.class_ids, rois.valid),
        "roi_box": losses.smooth_l1(own, rois.deltas * delta_weights, rois.class_ids > 0, beta=ROI_BETA),
    }


def mask_losses(logits, targets, class_ids):
    """Cross-entropy and Dice of the mask of the true class.

    Args:
      logits: [B, R, M, M, M, K] float32.
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


def select_class(logits, class_ids):
    """The mask of one class per roi: [B, R, M, M, M, K], [B, R] -> [B, R, M, M, M]; class 0 reads class 1's."""
    channels_first = tf.einsum("brzyxk->brkzyx", logits)
    return tf.gather(channels_first, tf.maximum(class_ids - 1, 0), batch_dims=2)
