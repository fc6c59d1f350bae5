"""The training loop: forward, loss, gradient, apply."""

import dataclasses
import math
import time

import tensorflow as tf


class NonFiniteError(RuntimeError):
    """A loss or the gradient became infinite or NaN."""


def make_train_steps(strategy, model, optimizer, train_config):
    """A compiled function that trains for several steps.

    Args:
      strategy: tf.distribute.Strategy under whose scope model and optimizer were made.
      model: MaskRCNN, built.
      optimizer: tf.keras optimizer.
      train_config: the `train` section of a Config.

    Returns:
      f(iterator, num_steps) -> dict of float32 scalars averaged over these steps: every loss, `total` (their weighted
      sum) and `gradient_norm` (before clipping).
    """
    weights = dataclasses.asdict(train_config.loss_weights)

    def replica_step(batch):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.stack([train_config.seed + 2 * replica, tf.cast(optimizer.iterations, tf.int32)])
        with tf.GradientTape() as tape:
            losses = model.compute_losses(batch, seed)
            # Summed over replicas this is the mean over the global batch.
            losses = {name: tf.reduce_sum(loss) / train_config.batch_size for name, loss in losses.items()}
            total = tf.add_n([weights[name] * loss for name, loss in losses.items()])
        variables = model.trainable_variables
        gradients = tape.gradient(total, variables)
        summed = optimizer.aggregate_gradients(list(zip(gradients, variables, strict=True)))
        clipped, norm = tf.clip_by_global_norm([gradient for gradient, _ in summed], train_config.clip_norm)
        optimizer.apply_gradients(zip(clipped, variables, strict=True), skip_gradients_aggregation=True)
        return {**losses, "total": total}, norm

    def step(batch):
        losses, norm = strategy.run(replica_step, args=(batch,))
        losses = {name: strategy.reduce("SUM", loss, axis=None) for name, loss in losses.items()}
        return {**losses, "gradient_norm": strategy.reduce("MEAN", norm, axis=None)}

    names = [*weights, "total", "gradient_norm"]

    @tf.function
    def train_steps(iterator, num_steps):
        sums = {name: tf.constant(0.0) for name in names}
        for _ in tf.range(num_steps):
            scalars = step(next(iterator))
            sums = {name: sums[name] + scalars[name] for name in names}
        return {name: value / tf.cast(num_steps, tf.float32) for name, value in sums.items()}

    return train_steps


def train(train_steps, iterator, optimizer, train_config, *, on_log, on_checkpoint):
    """Runs `train_steps` until the configured number of steps, counted by the optimizer, is reached.

    Args:
      train_steps: from `make_train_steps`.
      iterator: of a distributed dataset.
      optimizer: its `iterations` says where to begin.
      train_config: the `train` section of a Config.
      on_log: called as f(step, scalars) after every loop; scalars gain learning_rate and volumes_per_second.
      on_checkpoint: called as f(step) every checkpoint_steps and at the end.

    Raises:
      NonFiniteError: names the first part that was not finite. No checkpoint is written then.
    """
    step = int(optimizer.iterations.numpy())
    while step < train_config.steps:
        # A loop ends at every checkpoint, whether or not steps_per_loop divides checkpoint_steps.
        to_checkpoint = train_config.checkpoint_steps - step % train_config.checkpoint_steps
        num_steps = min(train_config.steps_per_loop, train_config.steps - step, to_checkpoint)
        began = time.monotonic()
        scalars = {name: float(v) for name, v in train_steps(iterator, tf.constant(num_steps)).items()}
        seconds = time.monotonic() - began
        step += num_steps
        _check_finite(step, scalars)
        scalars["learning_rate"] = float(optimizer.learning_rate.numpy())
        scalars["volumes_per_second"] = num_steps * train_config.batch_size / seconds
        on_log(step, scalars)
        if step % train_config.checkpoint_steps == 0 or step == train_config.steps:
            on_checkpoint(step)


def _check_finite(step, scalars):
    bad = [name for name, value in scalars.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(f"step {step}: expected finite losses, came {bad[0]} = {scalars[bad[0]]}")
