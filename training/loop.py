"""The training loop: forward, loss, gradient, apply."""

import dataclasses
import functools
import math
import time

import tensorflow as tf

from training import freezing


class NonFiniteError(RuntimeError):
    """A loss or the gradient became infinite or NaN."""


def make_train_steps(strategy, model, optimizer, train_config, stage, proposer=None):
    """A compiled function that trains for several steps of one stage.

    Args:
      strategy: tf.distribute.Strategy under whose scope model and optimizer were made.
      model: MaskRCNN, built, of which the variables that train are trainable.
      optimizer: tf.keras optimizer, built for all variables.
      train_config: the `train` section of a Config.
      stage: what is learnt, one of `train_config.as_stages()`.
      proposer: the MaskRCNN of an earlier stage that proposes the rois, or None.

    Returns:
      f(iterator, num_steps) -> dict of float32 scalars averaged over these steps: every loss, `total` (their weighted
      sum) and `gradient_norm` (before clipping; a step that loss scaling skips counts 0). And sums over them:
      `wait_seconds`, for the next batch, and `skipped`, damaged records in whose place others came.
    """
    weights = dataclasses.asdict(train_config.loss_weights)
    losses_of = functools.partial(model.compute_losses, learns=stage.learns, proposer=proposer)
    # Float16 gradients are scaled, lest small ones become 0; the wrapped optimizer undoes it, and skips a step whose
    # gradient is not finite.
    scales = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)

    def replica_step(batch, wait):
        # Nothing begins before the clock of the wait has been read: on a busy machine its turn might come late.
        with tf.control_dependencies([wait]):
            batch = tf.nest.map_structure(tf.identity, batch)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.stack([train_config.seed + 2 * replica, tf.cast(optimizer.iterations, tf.int32)])
        # What the losses of this stage do not reach stays as it is.
        variables = freezing.learnt(model, stage.learns)
        with tf.GradientTape() as tape:
            # Summed over replicas this is the mean over the global batch.
            losses = {
                name: tf.reduce_sum(loss) / train_config.batch_size for name, loss in losses_of(batch, seed).items()
            }
            total = tf.add_n([weights[name] * loss for name, loss in losses.items()])
            scaled = optimizer.get_scaled_loss(total) if scales else total
        gradients = tape.gradient(scaled, variables)
        if scales:
            gradients = optimizer.get_unscaled_gradients(gradients)
        replicas = tf.distribute.get_replica_context()
        summed = replicas.all_reduce("SUM", gradients)
        norm = tf.linalg.global_norm(summed)
        clipped, _ = tf.clip_by_global_norm(summed, train_config.clip_norm, norm)
        if scales:
            # A scale that is too large is found out by an overflow, which is no fault until it cannot fall further.
            norm = tf.where(tf.math.is_finite(norm) | (optimizer.loss_scale <= 1.0), norm, 0.0)
        optimizer.apply_gradients(zip(clipped, variables, strict=True), skip_gradients_aggregation=True)
        # A step has ended when its variables can be read; what waits for the norm waits for that.
        with tf.control_dependencies([variable.read_value() for variable in variables]):
            norm = tf.identity(norm)
        return {**losses, "total": total}, norm, tf.cast(tf.reduce_sum(batch.get("skipped", 0)), tf.float32)

    def step(batch, wait):
        losses, norm, skipped = strategy.run(replica_step, args=(batch, wait))
        losses = {name: strategy.reduce("SUM", loss, axis=None) for name, loss in losses.items()}
        norm = strategy.reduce("MEAN", norm, axis=None)
        return {**losses, "gradient_norm": norm, "skipped": strategy.reduce("SUM", skipped, axis=None)}

    means = [*model.loss_names(stage.learns), "total", "gradient_norm"]
    names = [*means, "wait_seconds", "skipped"]

    @tf.function
    def train_steps(iterator, num_steps):
        sums = {name: tf.constant(0.0) for name in names}
        for _ in tf.range(num_steps):
            batch, seconds = timed_next(iterator, list(sums.values()))
            scalars = {**step(batch, seconds), "wait_seconds": seconds}
            sums = {name: sums[name] + scalars[name] for name in names}
        steps = tf.cast(num_steps, tf.float32)
        return {name: value / steps if name in means else value for name, value in sums.items()}

    return train_steps


def timed_next(iterator, after):
    """The next batch and how long it took to come, float32 seconds, once the tensors of `after` are there."""
    with tf.control_dependencies(after):
        asked = tf.timestamp()
    with tf.control_dependencies([asked]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.cast(tf.timestamp() - asked, tf.float32)


def train(train_steps, iterator, optimizer, train_config, *, last_step, on_log, on_checkpoint):
    """Runs `train_steps` until a number of steps, counted by the optimizer, is reached.

    Args:
      train_steps: from `make_train_steps`.
      iterator: of a distributed dataset.
      optimizer: its `iterations` says where to begin.
      train_config: the `train` section of a Config.
      last_step: where to end.
      on_log: called as f(step, scalars) after every loop; scalars gain learning_rate, volumes_per_second and
        input_wait, the share of the time in which a step waited for its batch.
      on_checkpoint: called as f(step) every checkpoint_steps and at the end.

    Raises:
      NonFiniteError: names the first part that was not finite. No checkpoint is written then.
    """
    step = int(optimizer.iterations.numpy())
    while step < last_step:
        # A loop ends at every checkpoint, whether or not steps_per_loop divides checkpoint_steps.
        to_checkpoint = train_config.checkpoint_steps - step % train_config.checkpoint_steps
        num_steps = min(train_config.steps_per_loop, last_step - step, to_checkpoint)
        began = time.monotonic()
        scalars = {name: float(v) for name, v in train_steps(iterator, tf.constant(num_steps)).items()}
        seconds = time.monotonic() - began
        step += num_steps
        _check_finite(step, scalars)
        scalars["learning_rate"] = float(optimizer.learning_rate.numpy())
        scalars["volumes_per_second"] = num_steps * train_config.batch_size / seconds
        scalars["input_wait"] = scalars.pop("wait_seconds") / seconds
        on_log(step, scalars)
        if step % train_config.checkpoint_steps == 0 or step == last_step:
            on_checkpoint(step)


def _check_finite(step, scalars):
    bad = [name for name, value in scalars.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(f"step {step}: expected finite losses, came {bad[0]} = {scalars[bad[0]]}")
