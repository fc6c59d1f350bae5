"""The training loop: forward, loss, gradient, apply."""

import dataclasses
import functools
import time

import tensorflow as tf

from training import freezing, optimizers


class NonFiniteError(RuntimeError):
    """A loss or the gradient of a step became infinite or NaN; weights are those before the step."""

    def __init__(self, step, message):
        """`step` is the one that failed, from 1; None where there were more, and the weights are of later."""
        super().__init__(message)
        self.step = step


def make_train_steps(strategy, model, optimizer, train_config, stage, proposer=None, average=None):
    """A compiled function that trains for several steps of one stage.

    Args:
      strategy: tf.distribute.Strategy under whose scope model and optimizer were made.
      model: MaskRCNN, built, of which the variables that train are trainable.
      optimizer: of optimizers.make, built for all variables; its `iterations` are the steps of the training.
      train_config: the `train` section of a Config.
      stage: what is learnt, one of `train_config.as_stages()`.
      proposer: the MaskRCNN of an earlier stage that proposes the rois, or None.
      average: averaging.Average of the model, or None.

    Returns:
      f(iterator, num_steps) -> dict of float32 scalars averaged over these steps: every loss, `total` (their weighted
      sum) and `gradient_norm` (before clipping; a step that loss scaling skips counts 0). And sums over them:
      `wait_seconds`, for the next batch; `skipped`, damaged records in whose place others came; `non_finite`, steps of
      which a loss or the gradient was not finite. These change nothing and are left out of the averages; with
      `on_non_finite` "stop" the function returns after the first, and does not count it among the optimizer's steps.
    """
    # Float16 gradients are scaled, lest small ones become 0; the wrapped optimizer undoes it, and skips a step whose
    # gradient is not finite.
    scales = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    stops = train_config.on_non_finite == "stop"
    if train_config.accumulation > 1:
        # Within loops of loops this rewrites sums to operations whose temporary variables collide (TensorFlow 2.15).
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    statistics = moving_statistics(model)
    variables = freezing.learnt(model, stage.learns)
    losses = [*model.loss_names(stage.learns), "total"]
    gradients_of = _gradients_of(model, optimizer if scales else None, variables, train_config, stage, proposer)

    def replica_gradients(batch, wait):
        # Nothing begins before the clock of the wait has been read: on a busy machine its turn might come late.
        with tf.control_dependencies([wait]):
            batch = tf.nest.map_structure(tf.identity, batch)
        before = [tf.identity(statistic) for statistic in statistics]
        seeds = example_seeds(train_config.seed, optimizer.iterations, batch["number"])
        zeros = {name: tf.constant(0.0) for name in losses}, [tf.zeros_like(variable) for variable in variables]
        found, gradients = _in_parts(gradients_of, zeros, batch, seeds, train_config.accumulation)
        if scales:
            gradients = optimizer.get_unscaled_gradients(gradients)
        summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        norm = tf.linalg.global_norm(summed)
        clipped, _ = tf.clip_by_global_norm(summed, train_config.clip_norm, norm)
        if scales:
            # A scale that is too large is found out by an overflow, which is no fault until it cannot fall further.
            norm = tf.where(tf.math.is_finite(norm) | (optimizer.loss_scale <= 1.0), norm, 0.0)
        skipped = tf.cast(tf.reduce_sum(batch.get("skipped", 0)), tf.float32)
        return {**found, "skipped": skipped}, norm, clipped, before

    @tf.autograph.experimental.do_not_convert  # it says itself what is conditional, and is traced in half the time
    def step(batch, wait):
        summands, norm, gradients, before = strategy.run(replica_gradients, args=(batch, wait))
        scalars = {name: strategy.reduce("SUM", value, axis=None) for name, value in summands.items()}
        scalars["gradient_norm"] = strategy.reduce("MEAN", norm, axis=None)
        is_finite = tf.math.is_finite(scalars["total"]) & tf.math.is_finite(scalars["gradient_norm"])
        number = optimizer.iterations + 1

        def applied():
            strategy.run(optimizers.apply, args=(optimizer, gradients, variables))
            optimizer.iterations.assign(number)  # also where loss scaling has skipped the step
            if average is not None:
                average.update(strategy, model, number)
            return tf.constant(0.0)

        def left():
            strategy.run(_assign, args=(statistics, before))
            if not stops:
                optimizer.iterations.assign(number)
            return tf.constant(1.0)

        return {**scalars, "non_finite": tf.cond(is_finite, applied, left)}

    means = [*losses, "gradient_norm"]
    names = [*means, "wait_seconds", "skipped", "non_finite"]

    @tf.function
    def train_steps(iterator, num_steps):
        sums = {name: tf.constant(0.0) for name in names}
        for _ in tf.range(num_steps):
            batch, seconds = timed_next(iterator, list(sums.values()))
            scalars = {**step(batch, seconds), "wait_seconds": seconds}
            counts = 1.0 - scalars["non_finite"]
            kept = {name: tf.math.multiply_no_nan(scalars[name], counts) for name in means}
            sums = {name: sums[name] + {**scalars, **kept}[name] for name in names}
            if scalars["non_finite"] > float(not stops):  # 0 or 1
                break
        steps = tf.maximum(tf.cast(num_steps, tf.float32) - sums["non_finite"], 1.0)
        return {name: value / steps if name in means else value for name, value in sums.items()}

    return train_steps


def moving_statistics(model):
    """The variables that a forward pass in training changes by itself: those of batch normalisation."""
    return [variable for variable in model.variables if "/moving_" in variable.name]


def example_seeds(seed, step, numbers):
    """Seeds [B, 2] int32 of the draws for each example of a batch, which depend on nothing else in it.

    So it makes no difference how a batch is dealt out over replicas, workers and parts.

    Args:
      seed: that of the training.
      step: int scalar.
      numbers: [B] int64, those of the examples in the training.
    """
    key = tf.random.stateless_uniform([], [seed, tf.cast(step, tf.int32)], None, None, tf.int32)
    numbers = tf.cast(numbers % 2**31, tf.int32)
    return tf.stack([tf.fill(tf.shape(numbers), key), numbers], axis=1)


def timed_next(iterator, after):
    """The next batch and how long it took to come, float32 seconds, once the tensors of `after` are there."""
    with tf.control_dependencies(after):
        asked = tf.timestamp()
    with tf.control_dependencies([asked]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.cast(tf.timestamp() - asked, tf.float32)


def train(train_steps, iterator, optimizer, train_config, *, last_step, ends, on_loop):
    """Runs `train_steps` until a number of steps, counted by the optimizer, is reached.

    Args:
      train_steps: from `make_train_steps`.
      iterator: of a distributed dataset.
      optimizer: its `iterations` says where to begin.
      train_config: the `train` section of a Config.
      last_step: where to end.
      ends: f(step) -> steps after this one at which a loop has to end, list.
      on_loop: called as f(step, scalars) after every loop; scalars gain learning_rate, volumes_per_second and
        input_wait, the share of the time in which a step waited for its batch. What it returns ends the training if it
        is true.

    Returns:
      bool, whether `on_loop` ended it.

    Raises:
      NonFiniteError: with `on_non_finite` "stop".
    """
    step = int(optimizer.iterations.numpy())
    while step < last_step:
        num_steps = min(step + train_config.steps_per_loop, last_step, *ends(step)) - step
        began = time.monotonic()
        scalars = {name: float(v) for name, v in train_steps(iterator, tf.constant(num_steps)).items()}
        seconds = time.monotonic() - began
        if scalars["non_finite"] and train_config.on_non_finite == "stop":
            failed = int(optimizer.iterations.numpy()) + 1
            raise NonFiniteError(failed, f"step {failed}: expected a finite loss and gradient")
        step += num_steps
        if scalars["non_finite"] == num_steps:  # There is no mean of nothing.
            scalars = {name: scalars[name] for name in ("wait_seconds", "skipped", "non_finite")}
        scalars["learning_rate"] = optimizers.learning_rate(optimizer)
        scalars["volumes_per_second"] = num_steps * train_config.batch_size / seconds
        scalars["input_wait"] = scalars.pop("wait_seconds") / seconds
        if on_loop(step, scalars):
            return True
    return False


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _gradients_of(model, scaler, variables, train_config, stage, proposer):
    """f(batch, seeds) -> the losses, summed over the examples, and the gradients of their weighted sum."""
    weights = dataclasses.asdict(train_config.loss_weights)
    losses_of = functools.partial(model.compute_losses, learns=stage.learns, proposer=proposer)

    def gradients_of(batch, seeds):
        with tf.GradientTape() as tape:
            # Summed over parts and replicas this is the mean over the global batch.
            found = losses_of(batch, seeds)
            losses = {name: tf.reduce_sum(loss) / train_config.batch_size for name, loss in found.items()}
            total = tf.add_n([weights[name] * loss for name, loss in losses.items()])
            scaled = scaler.get_scaled_loss(total) if scaler else total
        # What the losses of this stage do not reach stays as it is.
        return {**losses, "total": total}, tape.gradient(scaled, variables)

    return gradients_of


def _in_parts(gradients_of, zeros, batch, seeds, num_parts):
    """`gradients_of` a batch, gone through in parts one after the other, whose activations are not held together."""
    if num_parts == 1:
        return gradients_of(batch, seeds)
    size = seeds.shape[0] // num_parts

    def part(value, number):
        return tf.ensure_shape(value[number * size : (number + 1) * size], [size, *value.shape[1:]])

    def add(number, *sums):
        own = {name: part(value, number) for name, value in batch.items()}
        return number + 1, *tf.nest.map_structure(tf.add, sums, gradients_of(own, part(seeds, number)))

    # One after the other, or the activations of the next would be there before those of this one are gone.
    first = tf.constant(0), *zeros
    return tf.while_loop(lambda number, *_: number < num_parts, add, first, parallel_iterations=1)[1:]
