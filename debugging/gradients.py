"""Rung 2: gradients are what finite differences say.

Along a random direction d of the variables of one part, the gradient g says that the loss changes by g.d, and the
central difference (L(w + h d) - L(w - h d)) / 2h that it does. Losses are float32, as not every op has float64: what
rounding does to the difference falls with h and what curvature does grows with it (and kinks, of activations, say), so
several h are tried and the best counts. What is drawn stays as it is, and so do the proposals: no gradient goes through
them, but losses change with them.
"""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from debugging import fixed, pictures, verdicts
from training import weights

RUNG = "gradients"
TOLERANCE = 0.05  # of the change that the gradient leads to expect
STEPS = (1e-2, 1e-3, 3e-4, 1e-4, 3e-2)  # in units of the variables' own size; of no more if one is near enough
NEAR = 0.2  # of the tolerance
DIRECTIONS = 2  # of each part
# Variables at 0, biases and offsets, move as if they had this size.
SMALLEST = 0.1


class Comparison(typing.NamedTuple):
    """Of one direction of one part.

    part: first three names of the paths of its layers.
    analytic, numeric: change of the total per unit of the direction.
    error: of the numeric one, as a share of what is to be expected of it.
    step: h with which it was the smallest.
    """

    part: str
    analytic: float
    numeric: float
    error: float
    step: float


class Fixed(typing.NamedTuple):
    """Stands where a network proposes rois, and always proposes the same."""

    proposals: tuple

    def propose(self, volume):
        """What was proposed, whatever the volume."""
        return self.proposals


def check(config, manifest, folder, strategy, steps=None):
    """Compares the gradient of every part of the network with finite differences, for one patch.

    Args:
      config: a Config. Dropout, stochastic depth, half precision and the later stages of a cascade are left out: these
        draw, or round, or take rois from the stage before, through which no gradient goes.
      manifest: of its records.
      folder: for pictures.
      strategy: has no effect: one replica's gradient is looked at.
      steps: has no effect, nothing trains.

    Returns:
      list of Verdict, one per part.
    """
    config = fixed.without_chance(config)
    config.model.box_head.cascade_ious = ()
    batch = fixed.as_tensors(fixed.examples(config, manifest, "train", 1))
    model = fixed.new_model(config)
    found = compare(model, batch, dataclasses.asdict(config.train.loss_weights))
    _draw(folder / "gradients.png", found)
    return [_verdict(part, [one for one in found if one.part == part]) for part in dict.fromkeys(f.part for f in found)]


def compare(model, batch, loss_weights, seed=0):
    """Analytic and numeric derivatives along random directions.

    Args:
      model: MaskRCNN, built; as it was, afterwards.
      batch: as data/pipeline makes it, tensors.
      loss_weights: {name of a loss: its weight in the total}.
      seed: of the directions, and of what the losses draw.

    Returns:
      list of Comparison, `DIRECTIONS` of each part.
    """
    proposer, seeds = Fixed(model.propose(batch["volume"])), fixed.seeds(batch["volume"].shape[0], seed)

    @tf.function(autograph=False)
    def losses():
        return model.compute_losses(batch, seeds, proposer=proposer)

    def total():
        # In float64: the sum rounds no more than its parts.
        return sum(loss_weights[name] * float(np.mean(loss, dtype=np.float64)) for name, loss in losses().items())

    parts, rng = _parts(model), np.random.default_rng(seed)
    variables = [variable for part in parts.values() for variable in part]
    with tf.GradientTape() as tape:
        weighted = tf.add_n([loss_weights[name] * tf.reduce_mean(loss) for name, loss in losses().items()])
    gradients = iter(tape.gradient(weighted, variables, unconnected_gradients="zero"))
    found = []
    for part, members in parts.items():
        slopes = [next(gradients).numpy().astype(np.float64) for _ in members]
        found += [_along(part, members, slopes, total, rng) for _ in range(DIRECTIONS)]
    return found


def _parts(model):
    """Variables that train by the first three names of their layers, "backbone/stages/0": {part: [tf.Variable]}."""
    trains, parts = {id(variable) for variable in model.trainable_variables}, {}
    for name, variable in weights.named_variables(model).items():
        if id(variable) in trains:
            parts.setdefault("/".join(name.split("/")[:-1][:3]), []).append(variable)
    return parts


def _along(part, members, slopes, total, rng):
    """The Comparison along one random direction, the best over the steps."""
    before = [variable.numpy() for variable in members]
    sizes = [max(float(np.sqrt(np.mean(np.square(start)))), SMALLEST * (not start.any())) for start in before]
    direction = [size * rng.normal(size=start.shape) for size, start in zip(sizes, before, strict=True)]
    analytic = sum(float(np.sum(slope * d)) for slope, d in zip(slopes, direction, strict=True))
    # What it would be for the average direction: one that happens to be flat must not make a small error large.
    usual = np.sqrt(sum(float(np.sum(np.square(slope * s))) for slope, s in zip(slopes, sizes, strict=True)))

    def moved(step):
        for variable, start, d in zip(members, before, direction, strict=True):
            variable.assign((start + step * d).astype(np.float32))
        return total()

    tries = []
    for step in STEPS:
        numeric = (moved(step) - moved(-step)) / (2 * step)
        error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), usual, 1e-30)
        tries.append(Comparison(part, analytic, numeric, error, step))
        if tries[-1].error <= NEAR * TOLERANCE:
            break
    moved(0.0)
    return min(tries, key=lambda one: one.error)


def _verdict(part, of_part):
    worst = max(of_part, key=lambda one: one.error)
    if all(one.analytic == one.numeric == 0 for one in of_part):
        return verdicts.Verdict(RUNG, part, None, "a change of the total", "none: nothing of this patch gets there")
    came = f"{worst.numeric:.5g}, off by {worst.error:.2%} (h {worst.step:g})"
    return verdicts.Verdict(RUNG, part, worst.error <= TOLERANCE, f"{worst.analytic:.5g} +- {TOLERANCE:.0%}", came)


def _draw(path, found):
    """Numeric against analytic derivatives, and the error of each part."""
    figure, ((both, errors),) = pictures.figure(12, 0.9 + 0.28 * len(found) / DIRECTIONS + 1.5, columns=2)
    for one in found:
        colour = "tab:blue" if one.error <= TOLERANCE else "tab:red"
        both.plot(one.analytic, one.numeric, ".", color=colour)
        errors.plot(max(one.error, 1e-5), one.part, ".", color=colour)
    ends = [min(one.analytic for one in found), max(one.analytic for one in found)]
    both.plot(ends, ends, color="black", linewidth=0.6)
    both.set_xlabel("gradient along a direction")
    both.set_ylabel("central difference")
    both.set_xscale("symlog", linthresh=1e-3)
    both.set_yscale("symlog", linthresh=1e-3)
    errors.set_xscale("log")
    errors.axvline(TOLERANCE, color="black", linewidth=0.6)
    errors.set_xlabel("error, share of the change to be expected")
    errors.invert_yaxis()
    errors.tick_params(axis="y", labelsize=7)
    pictures.save(path, figure)
