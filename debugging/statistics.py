"""Rung 4: what every layer gives and how far every kernel moves: nothing dead, vanishing, exploding or standing still.

He et al. 2015 begin kernels such that activations neither grow nor fade from layer to layer; a rule of thumb says that
a step changes weights by about a thousandth of themselves (Karpathy 2015, cs231n, "ratio of weights:updates").
"""

import dataclasses
import math
import typing

import numpy as np
import tensorflow as tf

from debugging import fixed, pictures, trial, verdicts
from training import freezing, internals, optimizers, weights

RUNG = "statistics"
COUNT = 4  # patches of the batch that is looked at
STEPS = 5  # after which updates are measured: the first ones of Adam are of full size whatever the gradient
MOST_DEAD = 0.5  # share of the channels of a layer
SPREAD = (1e-4, 1e3)  # standard deviation of what a layer gives
# Of a kernel in a step, relative. Those of deltas begin near 0, and the first steps of Adam are as large as they are.
UPDATE = (1e-6, 1.0)
USUAL_UPDATE = (1e-5, 0.1)  # of the median kernel


class Layer(typing.NamedTuple):
    """What a layer gave: its name, standard deviation, and share of channels that are the same everywhere."""

    name: str
    spread: float
    dead: float


class Move(typing.NamedTuple):
    """Of a variable: size of weights and gradient (root of the mean square), and |update| / |weights| of a step."""

    name: str
    weights: float
    gradient: float
    update: float


def check(config, manifest, folder, strategy, steps=None):
    """Looks into the network before training and at the update after a few steps.

    Args:
      config: a Config.
      manifest: of its records.
      folder: for the picture and the table statistics.json.
      strategy: has no effect: one replica is looked at.
      steps: after how many steps updates are measured; None for `STEPS`.

    Returns:
      list of Verdict.
    """
    batch = fixed.as_tensors(fixed.examples(config, manifest, "train", COUNT))
    model = fixed.new_model(config)
    loss_weights = dataclasses.asdict(config.train.loss_weights)
    layers = layer_table(internals.of(model, batch, _seeds(batch, 0), loss_weights).activations)
    moves = move_table(config, model, batch, loss_weights, STEPS if steps is None else steps)
    _draw(folder / "statistics.png", layers, moves)
    table = {"layers": [one._asdict() for one in layers], "variables": [one._asdict() for one in moves]}
    verdicts.write_json(folder / "statistics.json", table)
    return [*layer_verdicts(layers), *move_verdicts(moves)]


def layer_table(activations):
    """A Layer of each of {name: [..., C]}, in their order."""
    layers = []
    for name, values in activations.items():
        channels = values.reshape(-1, values.shape[-1]).astype(np.float64)
        same = np.all(channels == channels[:1], axis=0)
        layers.append(Layer(name, float(channels.std()), float(same.mean())))
    return layers


def move_table(config, model, batch, loss_weights, steps):
    """A Move of each variable in the step that follows some others, at the config's rate and on one batch."""
    rate = trial.peak_rate(config.train)
    optimizer = trial.make_optimizer(model, config.train, trial.constant(rate))
    variables = dict(zip(_names(model), freezing.learnt(model, trial.JOINT), strict=True))
    for step in range(steps + 1):
        seen = internals.of(model, batch, _seeds(batch, step), loss_weights)
        gradients = [tf.constant(seen.gradients[name]) for name in variables]
        clipped, _ = tf.clip_by_global_norm(gradients, config.train.clip_norm)
        before = {name: variable.numpy() for name, variable in variables.items()}
        optimizers.apply(optimizer, clipped, list(variables.values()))
    moves = []
    for name, variable in variables.items():
        size, change = _size(before[name]), _size(variable.numpy() - before[name])
        update = change / size if size else math.inf if change else 0.0
        moves.append(Move(name, size, _size(seen.gradients[name]), update))
    return moves


def layer_verdicts(layers):
    """Verdicts about what layers give."""
    dead = max(layers, key=lambda one: one.dead)
    least, most = min(layers, key=lambda one: one.spread), max(layers, key=lambda one: one.spread)
    is_near = SPREAD[0] <= least.spread and most.spread <= SPREAD[1]  # False with a NaN
    return [
        verdicts.Verdict(
            RUNG,
            "dead channels",
            dead.dead <= MOST_DEAD,
            f"at most {MOST_DEAD:.0%} of a layer",
            f"{dead.dead:.0%} of {dead.name}",
        ),
        verdicts.Verdict(
            RUNG,
            "activations",
            is_near and all(math.isfinite(one.spread) for one in layers),
            f"standard deviations in {SPREAD[0]:g} to {SPREAD[1]:g}",
            f"{least.spread:.2g} of {least.name} to {most.spread:.2g} of {most.name}",
        ),
    ]


def move_verdicts(moves):
    """Verdicts about gradients and updates; of updates those of kernels alone, as biases begin at 0."""
    bad = [one for one in moves if not math.isfinite(one.gradient) or one.gradient == 0]
    kernels = [one for one in moves if one.name.endswith("kernel")]
    least, most = min(kernels, key=lambda one: one.update), max(kernels, key=lambda one: one.update)
    median = float(np.median([one.update for one in kernels]))
    all_came = f"all {len(moves)} are"
    return [
        verdicts.Verdict(
            RUNG,
            "gradients",
            not bad,
            "finite and not 0 for every variable",
            f"{bad[0].gradient:g} of {bad[0].name} and {len(bad) - 1} more" if bad else all_came,
        ),
        verdicts.Verdict(
            RUNG,
            "updates",
            UPDATE[0] <= least.update and most.update <= UPDATE[1],
            f"{UPDATE[0]:g} to {UPDATE[1]:g} of every kernel in a step",
            f"{least.update:.2g} of {least.name} to {most.update:.2g} of {most.name}",
        ),
        verdicts.Verdict(
            RUNG,
            "median update",
            USUAL_UPDATE[0] <= median <= USUAL_UPDATE[1],
            f"{USUAL_UPDATE[0]:g} to {USUAL_UPDATE[1]:g}, about 1e-3",
            f"{median:.2g}",
        ),
    ]


def _seeds(batch, step):
    return fixed.seeds(batch["volume"].shape[0], step)


def _size(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _draw(path, layers, moves):
    """Standard deviations and dead channels in the order of the layers; histograms of gradients and updates."""
    figure, panels = pictures.figure(14, 10, 2, 2)
    (spreads, dead), (gradients, updates) = panels
    spreads.semilogy([max(one.spread, 1e-12) for one in layers], ".-", linewidth=0.6)
    spreads.set_title("standard deviation of what each layer gives", fontsize=10)
    dead.bar(range(len(layers)), [100 * one.dead for one in layers], color="tab:red")
    dead.set_ylim(0, 100)
    dead.set_title("channels that are the same everywhere, per cent", fontsize=10)
    for panel in (spreads, dead):
        _name_modules(panel, layers)
    kernels = [one for one in moves if one.name.endswith("kernel")]
    for panel, values, title in (
        (gradients, [one.gradient for one in moves], "log10 of the size of each variable's gradient"),
        (updates, [one.update for one in kernels], "log10 of |update| / |weights| of each kernel (line: 1e-3)"),
    ):
        panel.hist([math.log10(value) for value in values if 0 < value < math.inf], bins=30)
        panel.set_title(title, fontsize=10)
    updates.axvline(-3, color="black", linewidth=0.8)
    pictures.save(path, figure)


def _name_modules(panel, layers):
    """Names the modules, the first part of a layer's name, where they begin."""
    modules = [one.name.split("/")[0] for one in layers]
    starts = [i for i, module in enumerate(modules) if i == 0 or module != modules[i - 1]]
    for start in starts:
        panel.axvline(start - 0.5, color="black", linewidth=0.4, linestyle=":")
    panel.set_xticks(starts, [modules[start] for start in starts], rotation=30, ha="right", fontsize=8)


def _names(model):
    """Paths of the variables that the joint losses reach, in the order of `freezing.learnt`."""
    paths = {id(variable): name for name, variable in weights.named_variables(model).items()}
    return [paths[id(variable)] for variable in freezing.learnt(model, trial.JOINT)]
