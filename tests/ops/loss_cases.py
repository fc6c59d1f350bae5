"""Inputs on which the losses are tested: predictions (float64), targets and mask of three examples."""

import numpy as np
import tensorflow as tf

from ops import box_losses, losses
from tests import reference

MASK_SHAPE = (2, 3, 4)


def masks(rng, shape):
    """Random masks [B, ...] whose last example has no item."""
    mask = rng.random(shape) < 0.6
    mask[0].flat[0] = True
    mask[-1] = False
    return mask


def sigmoid_case(rng):
    targets = rng.random((3, 5)).astype(np.float32)
    return rng.normal(0, 3, (3, 5)), targets, masks(rng, (3, 5))


def softmax_case(rng):
    class_ids = rng.integers(0, 4, (3, 5)).astype(np.int32)
    return rng.normal(0, 3, (3, 5, 4)), class_ids, masks(rng, (3, 5))


def distribution_case(rng):
    """Targets that sum to 1, some of them 0."""
    targets = rng.random((3, 5, 4)) * (rng.random((3, 5, 4)) < 0.7)
    targets[..., 0] += 0.1
    targets /= targets.sum(-1, keepdims=True)
    return rng.normal(0, 3, (3, 5, 4)), targets.astype(np.float32), masks(rng, (3, 5))


def classes_case(rng):
    """One-hot targets, all 0 for background."""
    class_ids = rng.integers(0, 4, (3, 5))
    return rng.normal(0, 3, (3, 5, 3)), np.eye(4, dtype=np.float32)[class_ids, 1:], masks(rng, (3, 5))


def deltas_case(rng):
    targets = rng.normal(size=(3, 4, 6)).astype(np.float32)
    return rng.normal(size=(3, 4, 6)), targets, masks(rng, (3, 4))


def mask_case(rng):
    targets = (rng.random((3, 2, *MASK_SHAPE)) < 0.5).astype(np.float32)
    return rng.normal(0, 3, (3, 2, *MASK_SHAPE)), targets, masks(rng, (3, 2))


def boxes_case(rng):
    predictions, targets = (reference.random_boxes(rng, 12, (5, 7, 11)).reshape(3, 4, 6) for _ in range(2))
    return predictions.astype(np.float64), targets, masks(rng, (3, 4))


# name of the case: name of the loss, its inputs, its settings
CASES = {
    "sigmoid": ("sigmoid_cross_entropy", sigmoid_case, {}),
    "weighted sigmoid": ("sigmoid_cross_entropy", sigmoid_case, {"class_weights": (0.5, 3.0)}),
    "softmax": ("softmax_cross_entropy", softmax_case, {}),
    "weighted softmax": ("softmax_cross_entropy", softmax_case, {"class_weights": [0.1, 1.0, 2.0, 4.0]}),
    "divergence": ("softmax_divergence", distribution_case, {}),
    "softmax focal": ("softmax_focal", softmax_case, {"gamma": 2.0}),
    "softmax focal, small gamma": ("softmax_focal", softmax_case, {"gamma": 0.5, "class_weights": (1, 2, 0, 1)}),
    "focal": ("focal", sigmoid_case, {"alpha": 0.25, "gamma": 2.0}),
    "focal, small gamma": ("focal", sigmoid_case, {"alpha": 0.75, "gamma": 0.5}),
    "focal of classes": ("focal", classes_case, {"alpha": 0.25, "gamma": 1.5}),
    "smooth L1": ("smooth_l1", deltas_case, {"beta": 0.7}),
    "linex": ("linex", deltas_case, {"reach": 0.8}),
    "masks": ("mask_cross_entropy", mask_case, {}),
    "focal masks": ("mask_focal", mask_case, {"alpha": 0.3, "gamma": 2.0}),
    "focal masks, small gamma": ("mask_focal", mask_case, {"alpha": 0.5, "gamma": 0.5}),
    "dice": ("dice", mask_case, {}),
    "giou": ("giou_loss", boxes_case, {}),
    "diou": ("diou_loss", boxes_case, {}),
    "ciou": ("ciou_loss", boxes_case, {}),
}


def set_up(case, seed):
    """The loss with its settings, its truth, and predictions (float64), targets and mask."""
    name, inputs, settings = CASES[case]
    function = getattr(box_losses if name.endswith("iou_loss") else losses, name)
    truth = getattr(reference, name)
    return (
        lambda *args: function(*args, **settings),
        lambda *args, **more: truth(*args, **settings, **more),
        *inputs(np.random.default_rng(seed)),
    )


def with_gradient(function, predictions, targets, mask):
    """[B] losses and the gradient of their sum by the predictions."""
    variable = tf.constant(predictions, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        result = function(variable, targets, mask)
    return result, tf.convert_to_tensor(tape.gradient(result, variable)).numpy()
