"""Learning rates: every stage of a training warms up to its peak and then falls, each by a schedule of a library."""

import tensorflow as tf
import tensorflow_addons as tfa


class Staged(tf.keras.optimizers.schedules.LearningRateSchedule):
    """In every stage anew: rises linearly to the stage's peak, then follows the shape of `train.schedule`."""

    def __init__(self, stages, settings, warmup_steps, factor=None):
        """Makes the schedule.

        Args:
          stages: with steps and the learning_rate at the peak.
          settings: the section `train.schedule`.
          warmup_steps: at the beginning of every stage, fewer than it has steps.
          factor: scalar variable that everything is multiplied by, for plateau; None is 1.
        """
        super().__init__()
        self.stages, self.settings, self.warmup_steps, self.factor = tuple(stages), settings, warmup_steps, factor
        self.shapes = [shape(settings, stage.steps - warmup_steps) for stage in self.stages]

    def __call__(self, step):
        """Learning rate at a step, float32."""
        step = tf.cast(step, tf.float32)
        lengths = tf.constant([stage.steps for stage in self.stages], tf.float32)
        ends = tf.cumsum(lengths)
        number = tf.minimum(tf.reduce_sum(tf.cast(step >= ends, tf.int32)), len(self.stages) - 1)
        step -= tf.gather(ends - lengths, number)
        shares = tf.stack([falling(tf.maximum(step - self.warmup_steps, 0.0)) for falling in self.shapes])
        warmup = (step + 1.0) / max(self.warmup_steps, 1)
        peak = tf.gather(tf.constant([stage.learning_rate for stage in self.stages]), number)
        rate = peak * tf.minimum(warmup, tf.gather(shares, number))
        return rate if self.factor is None else rate * self.factor

    def get_config(self):
        """The arguments of the constructor, without the variable."""
        return {"stages": self.stages, "settings": self.settings, "warmup_steps": self.warmup_steps}


def shape(settings, steps):
    """Shares of the peak, after the warm-up.

    Args:
      settings: the section `train.schedule`. Cosine: half a wave (Loshchilov and Hutter 2017). Cyclical: triangles
        (Smith 2017). Plateau stands still: what it does is done to the variable `factor`.
      steps: until the end of the stage.

    Returns:
      f(step float32, from 0) -> float32 share in [0, 1].
    """
    schedules = tf.keras.optimizers.schedules
    if settings.name == "cosine":
        return schedules.CosineDecay(1.0, steps, alpha=settings.end)
    if settings.name == "exponential":
        return schedules.ExponentialDecay(1.0, steps, settings.end)
    if settings.name == "polynomial":
        return schedules.PolynomialDecay(1.0, steps, settings.end, settings.power)
    if settings.name == "piecewise":
        boundaries = [share * steps for share in settings.boundaries]
        return schedules.PiecewiseConstantDecay(
            boundaries, [settings.factor**number for number in range(len(boundaries) + 1)]
        )
    if settings.name == "cyclical":
        return tfa.optimizers.TriangularCyclicalLearningRate(settings.floor, 1.0, float(settings.half_cycle_steps))
    return tf.ones_like  # constant, plateau
