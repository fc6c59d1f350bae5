"""Means of the weights over the steps, which generalise better than the last ones."""

import contextlib

import tensorflow as tf


class Average(tf.Module):
    """A running mean of all variables of a network, statistics of normalisation too.

    Exponential: w = d w + (1 - d) v after every step, where d rises as (1 + n) / (10 + n) with the number n of updates
    to `decay`, so that the first weights are soon forgotten (as tf.train.ExponentialMovingAverage does). Of equal
    parts: the plain mean of every `every`-th step from a share of the training on (Izmailov et al. 2018, SWA).
    """

    def __init__(self, model, settings, steps):
        """Begins with the values that the variables have now; call it under the strategy's scope.

        Args:
          model: built.
          settings: the section `train.average`, not "none".
          steps: of the whole training.
        """
        super().__init__(name="average")
        self.settings, self.first_step = settings, round(settings.begin * steps) if settings.name == "swa" else 0
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name="count")
        self.means = [tf.Variable(v, trainable=False, name=_name(v)) for v in _averaged(model)]

    def update(self, strategy, model, step):
        """Takes the weights after a step into the mean; call it outside of the replicas.

        Args:
          strategy: tf.distribute.Strategy.
          model: that of `__init__`.
          step: int scalar, how many steps have been made.
        """
        if self.settings.name == "ema":
            count = tf.cast(self.count, tf.float32)
            self._move(strategy, model, 1.0 - tf.minimum(self.settings.decay, (1.0 + count) / (10.0 + count)))
            return
        step = tf.cast(step, tf.int64)
        is_due = (step > self.first_step) & (step % self.settings.every == 0)
        if is_due:
            self._move(strategy, model, 1.0 / (tf.cast(self.count, tf.float32) + 1.0))

    def _move(self, strategy, model, share):
        for mean, variable in zip(self.means, _averaged(model), strict=True):
            # Statistics of normalisation may differ between replicas: read here, they are their mean.
            is_per_replica = variable.synchronization == tf.VariableSynchronization.ON_READ
            value = variable.read_value() if is_per_replica else variable
            strategy.extended.update(
                mean, lambda mean, value, share: mean.assign_add(share * (value - mean)), args=(value, share)
            )
        self.count.assign_add(1)

    def has_begun(self):
        """Whether there is a mean of anything yet."""
        return int(self.count.numpy()) > 0

    def copy_to(self, model):
        """Gives the network the mean weights, if there are any."""
        if self.has_begun():
            for mean, variable in zip(self.means, _averaged(model), strict=True):
                variable.assign(mean)


@contextlib.contextmanager
def applied(average, model):
    """Within, the network has the mean weights of an `Average`, or its own where that is None or has not begun."""
    if average is None or not average.has_begun():
        yield
        return
    own = [variable.numpy() for variable in model.variables]
    try:
        average.copy_to(model)
        yield
    finally:
        for variable, value in zip(model.variables, own, strict=True):
            variable.assign(value)


def make(model, train_config, steps):
    """The `Average` of the `train` section, or None."""
    return None if train_config.average.name == "none" else Average(model, train_config.average, steps)


def _averaged(model):
    return [variable for variable in model.variables if variable.dtype.is_floating]


def _name(variable):
    return variable.name.split(":")[0]
