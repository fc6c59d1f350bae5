import numpy as np
import pytest
import tensorflow as tf

from configs.train_schema import Average
from tests import tiny
from training import averaging, strategy

ONE = strategy.make("one_device")


class Two(tf.Module):
    """Stands for a network: weights, and a count, of which there is no mean."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([0.0, 10.0], name="weight")
        self.steps = tf.Variable(0, dtype=tf.int32, trainable=False, name="steps")


def followed(settings, values, steps=100):
    """The mean and its count after each of the values that the weight takes, from step 1 on."""
    model = Two()
    average = averaging.Average(model, settings, steps)
    update = tf.function(lambda step: average.update(ONE, model, step))
    found = []
    for step, value in enumerate(values, start=1):
        model.weight.assign(value)
        update(tf.constant(step, tf.int64))
        found.append((average.means[0].numpy().tolist(), int(average.count)))
    return found, average, model


class ExponentialTest:
    def test_hand_values(self):
        # It keeps (1 + n) / (10 + n) of itself at first: 0.1, then 2/11; and no more than `decay`.
        found, *_ = followed(Average(name="ema", decay=0.15), [(1.0, 10.0), (3.0, 10.0)])
        first = 0.1 * 0.0 + 0.9 * 1.0
        np.testing.assert_allclose(found[0][0], [first, 10.0], rtol=1e-6)
        np.testing.assert_allclose(found[1][0], [0.15 * first + 0.85 * 3.0, 10.0], rtol=1e-6)
        assert [count for _, count in found] == [1, 2]

    def test_forgets_as_decay_says_in_the_end(self):
        found, average, _ = followed(Average(name="ema", decay=0.9), [(1.0, 1.0)] * 200)
        average.count.assign(10_000)
        np.testing.assert_allclose(found[-1][0], [1.0, 1.0], rtol=1e-5)


class EqualPartsTest:
    def test_is_the_mean_of_every_so_many_steps_from_a_share_on(self):
        settings = Average(name="swa", begin=0.4, every=2)
        values = [(float(step), 1.0) for step in range(1, 11)]
        found, *_ = followed(settings, values, steps=10)
        # Steps 6, 8 and 10: those before the fifth do not count, nor do odd ones.
        np.testing.assert_allclose([mean[0] for mean, _ in found[5:]], [6.0, 6.0, 7.0, 7.0, 8.0])
        assert [count for _, count in found] == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]


class AppliedTest:
    def test_network_has_the_mean_within_and_its_own_afterwards(self):
        _, average, model = followed(Average(name="swa", begin=0.0, every=1), [(1.0, 2.0), (3.0, 6.0)])
        with averaging.applied(average, model):
            np.testing.assert_allclose(model.weight, [2.0, 4.0])
        np.testing.assert_array_equal(model.weight, [3.0, 6.0])

    def test_also_after_an_error(self):
        _, average, model = followed(Average(name="swa", begin=0.0, every=1), [(1.0, 2.0), (3.0, 6.0)])
        with pytest.raises(ZeroDivisionError), averaging.applied(average, model):
            raise ZeroDivisionError
        np.testing.assert_array_equal(model.weight, [3.0, 6.0])

    def test_without_a_mean_nothing_changes(self):
        model = Two()
        average = averaging.Average(model, Average(name="swa"), 10)
        for each in (None, average):
            with averaging.applied(each, model):
                np.testing.assert_array_equal(model.weight, [0.0, 10.0])
        assert not average.has_begun()


class MakeTest:
    def test_of_a_network(self):
        config = tiny.config()
        model = tiny.model(config)
        assert averaging.make(model, config.train, 10) is None
        config.train.average.name = "ema"
        average = averaging.make(model, config.train, 10)
        assert len(average.means) == len(model.variables)
        for mean, variable in zip(average.means, model.variables, strict=True):
            np.testing.assert_array_equal(mean, variable)
