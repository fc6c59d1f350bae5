"""Rung 3: what the network says of an example does not depend on the others of its batch.

Each example alone, and the batch in reverse order, must lose and find the same; and the gradient of an example's loss
by the volume of another one must be exactly 0 (Karpathy 2019, "use backprop to chart dependencies").
"""

import typing

import numpy as np
import tensorflow as tf

from debugging import fixed, pictures, verdicts

RUNG = "consistency"
COUNT = 3  # examples of the batch
# Sums of another batch size are rounded in another order: relative, and absolute.
TOLERANCE = 1e-3
MEETING_NORMS = ("batch", "sync_batch")


class Dependence(typing.NamedTuple):
    """What the examples of a batch have to do with each other, [B, B] float64.

    gradients: largest gradient of the losses of example i (row) by the volume of example j.
    """

    gradients: np.ndarray


def check(config, manifest, folder, strategy, steps=None):
    """Looks for a way from one example of a batch to another.

    Args:
      config: a Config. Dropout, stochastic depth and half precision are left out: they draw, or round.
      manifest: of its records.
      folder: for pictures.
      strategy: has no effect: examples of one replica are looked at.
      steps: has no effect, nothing trains.

    Returns:
      list of Verdict. With batch normalisation examples are to meet in training: what concerns losses is not told.
    """
    config = fixed.without_chance(config)
    examples = fixed.examples(config, manifest, "train", COUNT)
    count = len(examples["volume"])
    if count < 2:
        return [verdicts.Verdict(RUNG, "batch", None, "two records at least", f"{count}: nothing to compare")]
    batch, model = fixed.as_tensors(examples), fixed.new_model(config)
    checked = detections_verdicts(model, batch)
    norm = config.model.style.norm
    if norm in MEETING_NORMS:
        came = f"model.style.norm {norm}, whose moments are those of the batch"
        return [*checked, verdicts.Verdict(RUNG, "losses", None, "those of the example alone", came)]
    checked += losses_verdicts(model, batch)
    found = dependence(model, batch)
    _draw(folder / "consistency.png", found)
    return [*checked, gradient_verdict(found)]


def detections_verdicts(model, batch):
    """Whether boxes, scores, classes and masks are those of each example alone, and of the batch reversed."""
    volume = batch["volume"]
    each = [model(volume[i : i + 1]) for i in range(volume.shape[0])]
    return _verdicts("detections", model(volume), each, model(volume[::-1]))


def losses_verdicts(model, batch):
    """Whether every loss of each example is that of the example alone, and of the batch reversed."""
    count = batch["volume"].shape[0]
    seeds = fixed.seeds(count, 0)
    each = [model.compute_losses(fixed.rows(batch, i, i + 1), seeds[i : i + 1]) for i in range(count)]
    backwards = {name: value[::-1] for name, value in batch.items()}
    return _verdicts("losses", model.compute_losses(batch, seeds), each, model.compute_losses(backwards, seeds[::-1]))


def dependence(model, batch):
    """How the losses of each example change with the volume of each other one."""
    seeds = fixed.seeds(batch["volume"].shape[0], 0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(batch["volume"])
        total = tf.add_n(list(model.compute_losses(batch, seeds).values()))  # [B]
        each = tf.unstack(total)
    found = [tape.gradient(one, batch["volume"], unconnected_gradients="zero") for one in each]
    return Dependence(np.array([tf.reduce_max(tf.abs(one), [1, 2, 3, 4]).numpy() for one in found], np.float64))


def gradient_verdict(found):
    """The Verdict about the gradients between examples."""
    own, others = np.diag(found.gradients), found.gradients[~np.eye(len(found.gradients), dtype=bool)]
    came = f"at most {others.max():.3g} between examples, {own.min():.3g} at least within one"
    passed = bool(np.all(others == 0) and np.all(own > 0))
    return verdicts.Verdict(RUNG, "gradient by the volume", passed, "0 between examples, > 0 within each", came)


def _verdicts(name, together, each, backwards):
    """Compares a dict of tensors, the examples first, with those of single examples, and of the batch reversed."""
    joined = {key: tf.concat([one[key] for one in each], 0) for key in together}
    checked = []
    for order, others in (("alone", joined), ("reversed", {key: value[::-1] for key, value in backwards.items()})):
        off = {key: _difference(together[key].numpy(), others[key].numpy()) for key in together}
        worst = max(off, key=off.get)
        came = f"{worst} off by {off[worst]:.2g}"
        is_same = off[worst] <= TOLERANCE
        checked.append(verdicts.Verdict(RUNG, f"{name}, {order}", is_same, f"the same to {TOLERANCE:g}", came))
    return checked


def _difference(a, b):
    """Largest difference, relative where numbers are above 1; infinite between numbers and NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not a.size:
        return 0.0
    off = np.abs(a - b) / np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    return float(np.nan_to_num(off, nan=np.inf).max())


def _draw(path, found):
    """The table of gradients as an image."""
    figure, ((panel,),) = pictures.figure(5, 4.4)
    shown = panel.imshow(np.log10(np.maximum(found.gradients, 1e-12)), cmap="viridis")
    figure.colorbar(shown, label="log10 of the largest gradient (-12: none)")
    for (row, column), value in np.ndenumerate(found.gradients):
        panel.text(
            column, row, f"{value:.1e}" if value else "0", ha="center", va="center", color="black" if value else "white"
        )
    count = len(found.gradients)
    panel.set(xticks=range(count), yticks=range(count), xlabel="by the volume of example", ylabel="losses of example")
    pictures.save(path, figure)
