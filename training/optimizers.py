"""AdamW with linear warm-up and cosine decay."""

import math

import tensorflow as tf


class WarmupCosine(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then falls to zero along half a cosine (Loshchilov and Hutter 2017)."""

    def __init__(self, peak, warmup_steps, steps):
        super().__init__()
        self.peak, self.warmup_steps, self.steps = peak, warmup_steps, steps

    def __call__(self, step):
        """Learning rate at a step, float32."""
        step = tf.cast(step, tf.float32)
        warmup = (step + 1.0) / max(self.warmup_steps, 1)
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)))
        return self.peak * tf.minimum(warmup, cosine)

    def get_config(self):
        """The arguments of the constructor."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}


def make(train_config):
    """The optimizer of the `train` section; biases, scales and offsets are not decayed."""
    optimizer = tf.keras.optimizers.AdamW(
        WarmupCosine(train_config.learning_rate, train_config.warmup_steps, train_config.steps),
        weight_decay=train_config.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
