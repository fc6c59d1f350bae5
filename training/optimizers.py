"""AdamW in one pass, with linear warm-up and cosine decay, anew in every stage of a training."""

import math

import tensorflow as tf


class StagedWarmupCosine(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to a stage's peak, then falls to zero along half a cosine (Loshchilov and Hutter 2017)."""

    def __init__(self, peaks, steps, warmup_steps):
        """Makes the schedule.

        Args:
          peaks: learning rate of every stage.
          steps: length of every stage.
          warmup_steps: at the beginning of every stage, fewer than it has steps.
        """
        super().__init__()
        self.peaks, self.steps, self.warmup_steps = tuple(peaks), tuple(steps), warmup_steps

    def __call__(self, step):
        """Learning rate at a step, float32."""
        step = tf.cast(step, tf.float32)
        ends = tf.cumsum(tf.constant(self.steps, tf.float32))
        stage = tf.minimum(tf.reduce_sum(tf.cast(step >= ends, tf.int32)), len(self.steps) - 1)
        length, peak = tf.gather(tf.constant(self.steps, tf.float32), stage), tf.gather(tf.constant(self.peaks), stage)
        step -= tf.gather(ends, stage) - length
        warmup = (step + 1.0) / max(self.warmup_steps, 1)
        progress = (step - self.warmup_steps) / (length - self.warmup_steps)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)))
        return peak * tf.minimum(warmup, cosine)

    def get_config(self):
        """The arguments of the constructor."""
        return {"peaks": self.peaks, "steps": self.steps, "warmup_steps": self.warmup_steps}


class AdamW(tf.keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov and Hutter 2019), whose step passes over a variable once instead of ten times."""

    def update_step(self, gradient, variable):
        """One step of a variable by a dense gradient of its shape, both float32."""
        index = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        rate = tf.cast(self.learning_rate, variable.dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            # Once its gradient is there: a forward pass that still holds the variable would make this a copy of it.
            with tf.control_dependencies([gradient]):
                variable.assign_sub(rate * self.weight_decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it."""


def make(train_config):
    """The optimizer of the `train` section; biases, scales and offsets are not decayed.

    With precision mixed_float16 it scales the loss, and skips a step whose gradient is not finite.
    """
    stages = train_config.as_stages()
    schedule = StagedWarmupCosine(
        [stage.learning_rate for stage in stages], [stage.steps for stage in stages], train_config.warmup_steps
    )
    optimizer = AdamW(schedule, weight_decay=train_config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "alpha"])
    if train_config.precision == "mixed_float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer
