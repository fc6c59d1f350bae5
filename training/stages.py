"""The stages of a training, one after the other: joint, alternating, pre-training, unfreezing; see configs/."""

import itertools
import pathlib
import time

import tensorflow as tf

from data.errors import InputError
from training import freezing, loop, restore

# Where the network is kept as it was at the end of a stage that a later one takes its proposals from.
FOLDER = "stages"
# Seconds that a worker waits for the chief to have written it.
PATIENCE = 60


def last_step(train_config):
    """Where the last stage ends."""
    return stage_ends(train_config)[-1]


def stage_ends(train_config):
    """The last step of every stage."""
    return tuple(itertools.accumulate(stage.steps for stage in train_config.as_stages()))


def train(config, workdir, strategy, state, batches, *, worker=None, ends, on_loop):
    """Trains through the stages that are left, counted by the optimizer's steps.

    Args:
      config: a Config.
      workdir: the run's folder.
      strategy: tf.distribute.Strategy under whose scope the state was made.
      state: restore.State, built for all variables of the model.
      batches: iterator of a distributed dataset.
      worker: a name for a worker that is not the chief.
      ends: see `loop.train`.
      on_loop: see `loop.train`.

    Raises:
      InputError: a pattern of `trainable` that matches nothing, a stage in which nothing that trains is learnt, or a
        stage's network that is needed and gone.
      loop.NonFiniteError: see `loop.train`; it knows its stage as `stage`, and what proposes its rois as `proposer`.
    """
    stages, model, optimizer = config.train.as_stages(), state.model, state.optimizer
    _check_trainable(model, stages)
    for line in config.warnings():
        print(f"warning: {line}", flush=True)
    wanted = {stage.proposals_of for stage in stages}
    for stage, end in zip(stages, stage_ends(config.train), strict=True):
        if int(optimizer.iterations.numpy()) >= end:
            continue
        freezing.set_trainable(model, stage.trainable)
        proposer = None
        if stage.proposals_of:
            with strategy.scope():
                proposer = _proposer(config, workdir, stage.proposals_of, patient=worker is not None)
        if len(stages) > 1:
            print(f"stage {stage.name}: to step {end}", flush=True)

        def after(step, scalars, stage=stage, end=end):
            # The network first: a run that goes on from a checkpoint at its end never comes back to this stage.
            if step == end and stage.name in wanted:
                _keep(workdir, stage.name, model, worker)
            return on_loop(step, scalars)

        train_steps = loop.make_train_steps(strategy, model, optimizer, config.train, stage, proposer, state.average)
        try:
            if loop.train(train_steps, batches, optimizer, config.train, last_step=end, ends=ends, on_loop=after):
                break
        except loop.NonFiniteError as error:
            error.stage, error.proposer = stage, proposer
            raise
    freezing.set_trainable(model, ("all",))


def _check_trainable(model, stages):
    """Raises InputError for the patterns of any stage, before the first one begins."""
    for stage in stages:
        try:
            freezing.set_trainable(model, stage.trainable)
        except ValueError as error:
            raise InputError(f"stage {stage.name}: {error}") from error
        if not freezing.learnt(model, stage.learns):
            learns = ", ".join(stage.learns)
            raise InputError(
                f"train.stages {stage.name} trainable: expected some of what {learns} learns, came {stage.trainable}"
            )


def _keep(workdir, name, model, worker):
    # All workers must take part in writing; only what the chief writes is read.
    folder = pathlib.Path(workdir) / (FOLDER if worker is None else f"{FOLDER}-{worker}")
    tf.train.Checkpoint(model=model).write(str(folder / name))


def _proposer(config, workdir, name, *, patient):
    """The network of an earlier stage, which does not train."""
    path = pathlib.Path(workdir) / FOLDER / name
    if patient:
        _await(path)
    proposer = restore.make_model(config)
    proposer.trainable = False
    try:
        tf.train.Checkpoint(model=proposer).read(str(path)).assert_consumed()
    except (tf.errors.OpError, AssertionError) as error:
        raise InputError(f"{path}: expected the network of stage {name}, came none that can be read") from error
    return proposer


def _await(path):
    """Other workers than the chief come here before it has written; the index is what TensorFlow writes last."""
    end = time.monotonic() + PATIENCE
    while not path.with_name(f"{path.name}.index").exists() and time.monotonic() < end:
        time.sleep(0.1)
