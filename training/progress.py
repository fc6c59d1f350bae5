"""What a run has come to beside its weights; part of its checkpoints."""

import tensorflow as tf


class Progress(tf.Module):
    """The best metric so far, and what follows from its not getting better."""

    def __init__(self):
        """A run that has just begun; call it under the strategy's scope."""
        super().__init__(name="progress")
        self.best = tf.Variable(-1.0, trainable=False, dtype=tf.float64, name="best")
        self.best_step = tf.Variable(-1, trainable=False, dtype=tf.int64, name="best_step")
        self.last_step = tf.Variable(-1, trainable=False, dtype=tf.int64, name="last_step")
        # Evaluations since the best one, and since the best one or the last fall of the learning rate.
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")
        self.stale_rate = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale_rate")
        self.rate_factor = tf.Variable(1.0, trainable=False, name="rate_factor")
        self.non_finite = tf.Variable(0, trainable=False, dtype=tf.int64, name="non_finite")

    def begin_stage(self):
        """Forgets how long evaluations have not become better: what is learnt begins anew, and so does its rate."""
        for stale in (self.stale, self.stale_rate):
            stale.assign(0)
        self.rate_factor.assign(1.0)

    def evaluated(self, step, value, schedule, ties=False):
        """Notes the metric of an evaluation.

        Args:
          step: after which it was made.
          value: of the metric, the higher the better, at least 0.
          schedule: the section `train.schedule`; with plateau the factor of the learning rate falls.
          ties: whether what is as good as the best so far is the best.

        Returns:
          bool, whether it is the best so far.
        """
        self.last_step.assign(step)
        best = float(self.best.numpy())
        is_best = value > best or (ties and value == best)
        if is_best:
            self.best.assign(value)
            self.best_step.assign(step)
        for stale in (self.stale, self.stale_rate):
            stale.assign(0 if is_best else stale + 1)
        if schedule.name == "plateau" and int(self.stale_rate.numpy()) >= schedule.patience:
            self.rate_factor.assign(self.rate_factor * schedule.factor)
            self.stale_rate.assign(0)
        return is_best
