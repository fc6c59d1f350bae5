"""What is said and kept of a step of which a loss or the gradient was not finite."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from data import index
from training import dump, freezing, loop, prepare


def explain(error, config, workdir, manifest, model):
    """Finds out what was not finite, and writes a dump that `--mode=replay` runs again.

    Args:
      error: loop.NonFiniteError of `stages.train`.
      config: a Config.
      workdir: the run's folder.
      manifest: of the records.
      model: with the weights before the step.

    Returns:
      str, one line: the step, the part, the records of the batch, and where the dump is.
    """
    step = error.step - 1
    batch = prepare.batch_of_step(config, manifest, step)
    seeds = loop.example_seeds(config.train.seed, step, batch["number"])
    before = [(statistic, statistic.numpy()) for statistic in loop.moving_statistics(model)]
    part = _part(model, batch, seeds, config.train.loss_weights, error.stage, error.proposer)
    for statistic, value in before:
        statistic.assign(value)
    cases = index.read(config.data.records, manifest, "train").cases
    names = [str(cases[row]) for row in batch["rows"].numpy().reshape(-1)]
    folder = pathlib.Path(workdir) / f"nonfinite_{error.step}"
    dump.write(
        folder,
        model,
        {name: value.numpy() for name, value in batch.items()},
        {
            "step": error.step,
            "part": part,
            "records": names,
            "seed": seeds.numpy().tolist(),
            "stage": error.stage.name,
            "learns": list(error.stage.learns),
        },
    )
    return f"{error}, came {part}, of the records {', '.join(names)}; --mode=replay --dump={folder} runs the step again"


def _part(model, batch, seeds, loss_weights, stage, proposer):
    """The first loss, or variable of which the gradient, that is not finite."""
    variables, weights = freezing.learnt(model, stage.learns), dataclasses.asdict(loss_weights)
    with tf.GradientTape() as tape:
        losses = model.compute_losses(batch, seeds, learns=stage.learns, proposer=proposer)
        total = tf.add_n([weights[name] * tf.reduce_mean(loss) for name, loss in losses.items()])
    for name, loss in losses.items():
        if not np.isfinite(loss).all():
            return f"{name} = {np.asarray(loss)[~np.isfinite(loss)][0]}"
    for variable, gradient in zip(variables, tape.gradient(total, variables), strict=True):
        if not np.isfinite(gradient).all():
            return f"a gradient of {variable.name.split(':')[0]} that is not finite"
    return "a finite step when it was made again"
