"""Rung 1: a network that knows nothing yet loses what not knowing costs.

The last layers begin with small kernels, so that every answer is close to what their biases say (Karpathy 2019, "verify
loss at init"): each class as likely as the others, boxes left as they are, half a chance for each voxel of a mask.
"""

import math
import typing

import numpy as np
import tensorflow as tf

from debugging import fixed, pictures, verdicts
from model import losses, targets
from model.segmentation import PRIOR

RUNG = "initial_losses"
COUNT = 8  # patches over which losses are averaged
# Answers are near those of the biases, not equal to them, and a loss of logits of variance v is near v / 8 above ln 2.
TOLERANCE = 0.1  # of the expected value
# First deltas as large as those of the truths about double the loss of boxes; more comes of kernels that are not small.
MOST_OF_BOXES = 3.0
# Truths of a landmark are spread over the bins around it: over 2 x 2 x 2 of them at most.
NEAR_BINS = 8


class Expected(typing.NamedTuple):
    """Where a loss should begin: between low and high, and in words why."""

    low: float
    high: float
    why: str


def check(config, manifest, folder, strategy, steps=None):
    """Compares every loss of a new network with what it should be.

    Args:
      config: a Config.
      manifest: of its records.
      folder: for pictures.
      strategy: under whose scope the network is made.
      steps: has no effect, nothing trains.

    Returns:
      list of Verdict, one per loss.
    """
    examples = fixed.examples(config, manifest, "train", COUNT)
    with strategy.scope():
        model = fixed.new_model(config)
    found = measure(model, examples, config.train.seed)
    checked = [verdict(name, found) for name in model.loss_names()]
    _draw(folder / "initial_losses.png", found, checked, config.train.loss_weights)
    return checked


def measure(model, examples, first_seed):
    """The losses of every example alone, {loss: float}, and what they should be, {loss: Expected}: list of both."""
    found = []
    for row in range(len(examples["volume"])):
        batch, seed = fixed.as_tensors(fixed.rows(examples, row, row + 1)), tf.constant([first_seed, row])
        came = {name: float(loss[0]) for name, loss in model.compute_losses(batch, seed).items()}
        found.append((came, expectations(model, batch, seed)))
    return found


def verdict(name, found):
    """The Verdict about one loss.

    Args:
      name: of the loss.
      found: from `measure`.
    """
    values = np.array([came[name] for came, _ in found])
    known = [expected[name] for _, expected in found if name in expected]
    is_sound = bool(np.all(np.isfinite(values) & (values >= 0)))
    if not known or not is_sound:
        words = "finite and >= 0" + ("" if known else " (no value is known: it depends on the proposals)")
        return verdicts.Verdict(RUNG, name, is_sound, words, f"{values.mean():.4f}")
    # A loss of rois is exactly 0 where no roi counts; that says nothing about the others.
    counts = values != 0
    if not counts.any():
        return verdicts.Verdict(RUNG, name, False, known[0].why, "0 for every example: nothing counts")
    low, high = _mean_interval(known, counts)
    mean = values[counts].mean()
    words = f"{low:.4f}" if math.isclose(low, high) else f"{low:.4f} to {high:.4f}"
    is_near = low * (1 - TOLERANCE) <= mean <= high * (1 + TOLERANCE)
    return verdicts.Verdict(RUNG, name, is_near, f"{words} +- {TOLERANCE:.0%} ({known[0].why})", f"{mean:.4f}")


def expectations(model, batch, seed):
    """What the losses of one example should be, as far as that can be said.

    Args:
      model: MaskRCNN, with its first weights.
      batch: of one example, tensors.
      seed: as for `model.compute_losses`.

    Returns:
      {name of a loss: Expected}. Of rois nothing is known but through the proposals, which the boxes and the attributes
      depend on: roi_box and attribute have none.
    """
    config, num_classes = model.config, model.box_heads[0].logits.units - 1
    found = {**rpn_expectations(model, batch, seed), "roi_class": roi_class_expectation(config.box_head, num_classes)}
    found |= mask_expectations(config.mask_head, math.prod(model.mask_size))
    if model.keypoint_head:
        bins = math.prod(2 * size for size in config.keypoint_head.roi_size)
        found["keypoint"] = keypoint_expectation(bins)
    if model.segmentation:
        found |= segmentation_expectations(batch, num_classes)
    if config.style.l2 > 0:
        found["l2"] = l2_expectation(model)
    return found


def segmentation_expectations(batch, num_classes):
    """Cross-entropy and the Dice loss where every voxel is of every class by the prior."""
    maps = tf.fill([*batch["volume"].shape[:-1], num_classes], math.log(PRIOR / (1.0 - PRIOR)))
    found = losses.segmentation_losses(maps, batch["instance_ids"], batch["class_ids"])
    values = {name: float(loss[0]) for name, loss in found.items()}
    return {name: Expected(value, value, f"every voxel of every class by {PRIOR:g}") for name, value in values.items()}


def rpn_expectations(model, batch, seed):
    """Objectness where every anchor scores the prior, and boxes where every anchor is left as it is.

    The bias of "object" is ln(prior / (1 - prior)). Cross-entropy begins with the prior 1/2 and so with ln 2, drawn how
    it may be. The focal loss (Lin et al. 2017) of N negatives and P positives begins with the prior p of the config and

      (P alpha (1 - p)^gamma (-ln p) + N (1 - alpha) p^gamma (-ln(1 - p))) / max(P, 1).
    """
    rpn = model.config.rpn
    scores = tf.fill([1, len(model.anchors)], 0.5)
    drawn = targets.anchor_targets(
        model.anchors,
        model.anchors_per_level,
        batch["boxes"],
        batch["valid"],
        scores,
        shape=model.patch_size,
        rpn=rpn,
        seed=seed,
    )
    positives, negatives = (int(tf.math.count_nonzero(which)) for which in (drawn.positive, drawn.negative))
    if rpn.class_loss == "focal":
        prior = rpn.focal_prior
        of_object = rpn.focal_alpha * (1 - prior) ** rpn.focal_gamma * -math.log(prior)
        of_nothing = (1 - rpn.focal_alpha) * prior**rpn.focal_gamma * -math.log1p(-prior)
        value = (positives * of_object + negatives * of_nothing) / max(positives, 1)
        found = {"rpn_class": Expected(value, value, f"focal loss of the prior {prior:g}")}
    else:
        found = {"rpn_class": Expected(math.log(2), math.log(2), "ln 2")}
    if positives:
        unmoved = losses.rpn_losses(scores, tf.zeros_like(drawn.deltas), model.anchors, drawn, rpn=rpn)
        value = float(unmoved["rpn_box"][0])
        found["rpn_box"] = Expected(value, MOST_OF_BOXES * value, "anchors left about as they are")
    return found


def roi_class_expectation(box_head, num_classes):
    """ln(K + 1) for K classes and background, (1 - 1 / (K + 1))^gamma of it with a focal loss; of every stage.

    Class weights change nothing: what they weigh is the same for all classes.
    """
    value, why = math.log(num_classes + 1), f"ln {num_classes + 1}"
    if box_head.class_loss == "focal":
        value *= (1 - 1 / (num_classes + 1)) ** box_head.focal_gamma
        why += f" x (1 - 1/{num_classes + 1})^{box_head.focal_gamma:g}"
    stages = max(len(box_head.cascade_ious), 1)
    return Expected(stages * value, stages * value, why + (f" x {stages} stages" if stages > 1 else ""))


def mask_expectations(mask_head, num_voxels):
    """Losses of masks of 1/2 everywhere.

    Cross-entropy ln 2. Focal ln 2 / 2^gamma times alpha for a voxel of the object, 1 - alpha for another one. Dice of
    V voxels, T of them of the object, with a smoothing of one: 1 - (T + 1) / (V / 2 + T + 1), which falls from T = 1
    to T = V.
    """
    alpha, eased = mask_head.focal_alpha, math.log(2) / 2**mask_head.focal_gamma
    by_voxel = alpha * eased, (1 - alpha) * eased

    def dice(voxels):
        return 1 - (voxels + 1) / (num_voxels / 2 + voxels + 1)

    every = {
        "cross_entropy": Expected(math.log(2), math.log(2), "ln 2"),
        "focal": Expected(min(by_voxel), max(by_voxel), f"ln 2 / 2^{mask_head.focal_gamma:g} by alpha"),
        "dice": Expected(dice(num_voxels), dice(1), "from an object that fills its box to one of a voxel"),
    }
    return {losses.MASK_LOSSES[loss]: every[loss] for loss in mask_head.losses}


def keypoint_expectation(bins):
    """Divergence of an even heat map from one over 1 to 8 of its bins: ln of their number less ln 8 at most."""
    return Expected(math.log(bins / NEAR_BINS), math.log(bins), f"ln {bins}, less what a landmark between bins takes")


def l2_expectation(model):
    """style.l2 times half the squares of all kernels (Krogh and Hertz 1991)."""
    kernels = [v.numpy() for v in model.trainable_variables if v.name.endswith("kernel:0")]
    value = model.config.style.l2 * sum(0.5 * float(np.sum(np.square(kernel, dtype=np.float64))) for kernel in kernels)
    return Expected(value, value, "half the squares of the kernels")


def _mean_interval(known, counts):
    """Low and high, averaged over the examples that count; all of them where only some have an expectation."""
    kept = [one for one, is_in in zip(known, counts, strict=True) if is_in] if len(known) == len(counts) else known
    return tuple(float(np.mean([getattr(one, end) for one in kept])) for end in ("low", "high"))


def _draw(path, found, checked, weights):
    """Bars of the losses with their expectations, and of their shares in the total."""
    names = [one.name for one in checked]
    means = [np.mean([came[name] for came, _ in found]) for name in names]
    figure, ((values, shares),) = pictures.figure(11, 0.6 + 0.5 * len(names), columns=2)
    colours = ["tab:blue" if one.passed else "tab:red" for one in checked]
    values.barh(names, means, color=colours)
    for row, name in enumerate(names):
        known = [expected[name] for _, expected in found if name in expected]
        if known:
            ends = [np.mean([getattr(one, end) for one in known]) for end in ("low", "high")]
            values.plot(ends, [row, row], color="black", marker="|", markersize=14, linewidth=1.5)
    values.set_title("first losses (black: expected)", fontsize=10)
    weighted = [getattr(weights, name) * mean for name, mean in zip(names, means, strict=True)]
    shares.barh(names, np.array(weighted) / max(sum(weighted), 1e-12), color="tab:gray")
    shares.set_title("share of the weighted total", fontsize=10)
    for panel in (values, shares):
        panel.invert_yaxis()
    pictures.save(path, figure)
