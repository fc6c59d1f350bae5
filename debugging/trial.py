"""A short training of fixed examples, by the real loop and optimizer, that can begin anew."""

import copy
import pathlib
import tempfile

import tensorflow as tf

from data import pipeline
from debugging import fixed
from training import loop, optimizers

JOINT = ("rpn", "heads")


class Trial:
    """A network, its optimizer and its compiled steps."""

    def __init__(self, config, strategy, schedule):
        """Makes them, and keeps how they began.

        Args:
          config: a Config; its stages, accumulation and averages of weights are left out: everything trains jointly.
          strategy: tf.distribute.Strategy.
          schedule: learning rate, a tf.keras.optimizers.schedules.LearningRateSchedule.
        """
        self.config, self.strategy = config, strategy
        train_config = jointly(config.train)
        with strategy.scope():
            self.model = fixed.new_model(config)
            self.optimizer = make_optimizer(self.model, config.train, schedule)
        (stage,) = train_config.as_stages()
        self._steps = loop.make_train_steps(strategy, self.model, self.optimizer, train_config, stage)
        self._folder = tempfile.TemporaryDirectory()
        self._state = tf.train.Checkpoint(model=self.model, optimizer=self.optimizer)
        self._beginning = self._state.write(str(pathlib.Path(self._folder.name) / "beginning"))
        self.detect = tf.function(lambda volume: self.model(volume), autograph=False)

    def begin(self, examples):
        """Forgets everything; what follows learns these examples, a dict of arrays [N, ...], over and over."""
        self._state.read(self._beginning).assert_existing_objects_matched()

        def share(context):
            batch_size = context.get_per_replica_batch_size(self.config.train.batch_size)
            return pipeline.repeated_batches(examples, batch_size)

        self._batches = iter(self.strategy.distribute_datasets_from_function(share))

    def train(self, num_steps):
        """Scalars of the loop, averaged over so many steps: {name: float}."""
        return {name: float(value) for name, value in self._steps(self._batches, tf.constant(num_steps)).items()}


def jointly(train_config):
    """A copy of the `train` section in which everything trains jointly, a batch at once, without averages."""
    train_config = copy.deepcopy(train_config)
    train_config.learning_rate = peak_rate(train_config)
    train_config.stages, train_config.accumulation, train_config.warmup_steps = (), 1, 0
    train_config.average.name = "none"
    return train_config


def peak_rate(train_config):
    """The learning rate of the last stage that learns more than a classifier."""
    return [stage.learning_rate for stage in train_config.as_stages() if "classifier" not in stage.learns][-1]


def constant(rate):
    """A schedule of one rate."""
    return tf.keras.optimizers.schedules.PolynomialDecay(rate, 1, rate)


def make_optimizer(model, train_config, schedule):
    """The optimizer of the `train` section for all variables of a model, with another learning rate."""
    optimizer = optimizers.make(jointly(train_config), schedule=schedule)
    optimizers.build(optimizer, model.trainable_variables)
    return optimizer
