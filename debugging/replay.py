"""Runs a step again whose loss or gradient was not finite, and says where that begins; see training/dump.py."""

import contextlib
import dataclasses
import pathlib
import traceback
import typing

import numpy as np
import tensorflow as tf

# That of tf.debugging.enable_check_numerics, which stops at the first infinity: this network makes some on purpose, for
# anchors and detections that are to come last.
from tensorflow.python.framework import op_callbacks

from data.errors import InputError
from debugging import pictures, verdicts
from training import dump, freezing, restore, stages, weights

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = 4  # examples of the batch


class Origin(typing.NamedTuple):
    """An op with finite inputs and an output that is not.

    op: its type.
    part: "the losses" or "the gradient of <loss>".
    line: of this project; None in a gradient, which has none.
    """

    op: str
    part: str
    line: str | None


def run(config, folder):
    """Prints what of the step is finite, and the op and line with which it ceases to be.

    Args:
      config: the Config of the run.
      folder: of the dump, <workdir>/nonfinite_<step>; the table and pictures go to replay/<its name>/ beside it.

    Returns:
      bool, whether everything is finite this time.

    Raises:
      InputError: the dump is missing or damaged, or belongs to another network.
    """
    folder = pathlib.Path(folder)
    batch, what = dump.read(folder)
    _check_batch(config, batch, folder)
    model = restore.make_model(config)
    dump.load(folder, model)
    stage = _stage(config, what, folder)
    freezing.set_trainable(model, stage.trainable)
    print(f"step {what['step']}, stage {what['stage']}: {what['part']} was not finite", flush=True)
    print(f"records: {', '.join(map(str, what['records']))}", flush=True)
    given = given_verdicts(model, batch)
    losses, gradients, origins = again(config, model, batch, what, _proposer(config, stage, folder))
    checked = [*given, *part_verdicts(losses, gradients)]
    output = folder.parent / "replay" / folder.name
    verdicts.write(output / "replay.json", checked, origin=origins[0]._asdict() if origins else None)
    _draw(output, batch, config)
    for verdict in checked:
        # Of hundreds of variables those that are finite are only counted.
        if not verdict.passed or verdict.rung != "gradient":
            print(verdict.line(), flush=True)
    good = sum(verdict.passed for verdict in checked if verdict.rung == "gradient")
    print(f"{good} of {len(gradients)} gradients are finite; table and pictures in {output}", flush=True)
    print(_conclusion(verdicts.all_passed(checked), given, origins), flush=True)
    return verdicts.all_passed(checked)


def again(config, model, batch, what, proposer=None):
    """One step forward and backward, eagerly, under watch.

    Args:
      config: a Config.
      model: MaskRCNN with the variables of the dump.
      batch, what: from `dump.read`.
      proposer: as for `model.compute_losses`.

    Returns:
      {loss: [B] array}, {variable: array}, and list of Origin: first what makes numbers that are not finite.
    """
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    seed = tf.constant(what["seed"], tf.int32)
    named = weights.named_variables(model)
    learnt = {id(variable) for variable in freezing.learnt(model, what["learns"])}
    variables = {name: variable for name, variable in named.items() if id(variable) in learnt}
    loss_weights = dataclasses.asdict(config.train.loss_weights)
    with _watching() as (origins, turn):
        with tf.GradientTape(persistent=True) as tape:
            losses = model.compute_losses(tensors, seed, learns=tuple(what["learns"]), proposer=proposer)
            weighted = {name: loss_weights[name] * tf.reduce_mean(loss) for name, loss in losses.items()}
        values = {name: np.zeros(variable.shape, np.float32) for name, variable in variables.items()}
        for loss, value in weighted.items():
            turn(f"the gradient of {loss}")
            gradients = tape.gradient(value, list(variables.values()), unconnected_gradients="zero")
            for name, gradient in zip(values, gradients, strict=True):
                values[name] = values[name] + np.asarray(gradient)
    return {name: loss.numpy() for name, loss in losses.items()}, values, origins


@contextlib.contextmanager
def _watching():
    """Yields a list that every `Origin` in the block joins, and f(part), which says what follows."""
    origins, part = [], ["the losses"]

    def watch(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        if graph is None and not _are_finite(outputs) and _are_finite(inputs):
            origins.append(Origin(_name(op_type), part[0], _source_line()))

    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # ops inside a function would not be seen
    op_callbacks.add_op_callback(watch)
    try:
        yield origins, lambda name: part.__setitem__(0, name)
    finally:
        op_callbacks.remove_op_callback(watch)
        tf.config.run_functions_eagerly(eagerly)


def given_verdicts(model, batch):
    """Whether what the step began with is finite: the volumes, and the variables."""
    volumes, variables = batch["volume"], weights.named_variables(model)
    rows = [str(row) for row in range(len(volumes)) if not np.isfinite(volumes[row]).all()]
    bad = [name for name, variable in variables.items() if not np.isfinite(variable.numpy()).all()]
    came = f"not in example {', '.join(rows)}" if rows else "all are"
    came_too = f"not {bad[0]} and {len(bad) - 1} more" if bad else f"all {len(variables)} are"
    return [
        verdicts.Verdict("given", "volumes", not rows, "finite", came),
        verdicts.Verdict("given", "variables", not bad, "finite", came_too),
    ]


def part_verdicts(losses, gradients):
    """Verdicts about every loss and every gradient."""
    checked = []
    for name, loss in losses.items():
        shown = ", ".join(f"{value:.4g}" for value in loss)
        checked.append(verdicts.Verdict("loss", name, bool(np.isfinite(loss).all()), "finite", shown))
    for name, gradient in gradients.items():
        share = np.mean(np.isfinite(gradient))
        came = f"norm {np.linalg.norm(gradient):.3g}" if share == 1 else f"{share:.0%} of its numbers finite"
        checked.append(verdicts.Verdict("gradient", name, bool(share == 1), "finite", came))
    return checked


def _conclusion(is_finite, given, origins):
    if is_finite:
        return "the replay is finite: what happened depends on how the step ran (precision, devices), not on its data"
    bad = [verdict.name for verdict in given if not verdict.passed]
    if bad:
        return f"origin: {' and '.join(bad)} of the dump are not finite already"
    if not origins:
        return "origin: not seen, no op turned finite numbers into others"
    first = origins[0]
    return f"origin: {first.op} in {first.part}" + (f" at {first.line}" if first.line else "")


def _are_finite(values):
    """Whether every floating tensor is; what is no tensor of numbers counts as finite."""
    return all(
        bool(tf.reduce_all(tf.math.is_finite(value)))
        for value in values
        if tf.is_tensor(value) and value.dtype.is_floating
    )


def _name(op_type):
    return op_type.decode() if isinstance(op_type, bytes) else str(op_type)


def _source_line():
    """The innermost line of this project that runs, below this file, or None."""
    frames = traceback.extract_stack()[:-2]  # without this function and what asked it
    for frame in reversed(frames):
        if frame.filename == __file__:
            return None
        path = pathlib.Path(frame.filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}: {frame.line}"
    return None


def _check_batch(config, batch, folder):
    """Raises InputError where a dump is of other patches."""
    expected = (*config.input.patch_size, config.input.channels)
    came = batch["volume"].shape[1:] if "volume" in batch else None
    if came != expected:
        raise InputError(f"{folder}: expected volumes [B, {', '.join(map(str, expected))}], came {came}")


def _stage(config, what, folder):
    """The stage of the config that the dump is of."""
    found = [stage for stage in config.train.as_stages() if stage.name == what["stage"]]
    if not found:
        names = ", ".join(stage.name for stage in config.train.as_stages())
        raise InputError(f"{folder}: expected a stage out of {names}, came {what['stage']}")
    return found[0]


def _proposer(config, stage, folder):
    """The network of an earlier stage that proposes the rois of this one, or None."""
    if not stage.proposals_of:
        return None
    proposer = restore.make_model(config)
    dump.read_variables(folder.parent / stages.FOLDER / stage.proposals_of, proposer)
    return proposer


def _draw(output, batch, config):
    examples = [{name: value[row] for name, value in batch.items()} for row in range(len(batch["volume"]))]
    for row, example in enumerate(examples[:PICTURES]):
        title = f"example {row} of the batch, with its truth"
        pictures.draw_truth(output / f"example_{row}.png", example, config.data.classes, title)
