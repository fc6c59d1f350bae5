import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from training import optimizers

TRAIN = schema.Train(learning_rate=0.4, warmup_steps=4, steps=12, weight_decay=0.5)


class StagedWarmupCosineTest:
    @pytest.mark.parametrize(
        ("step", "share"),
        [
            (0, 0.25),
            (1, 0.5),
            (3, 1.0),
            (4, 1.0),
            (6, 0.5 * (1 + math.cos(math.pi / 4))),
            (8, 0.5),
            (12, 0.0),
            (20, 0.0),
        ],
    )
    def test_hand_values(self, step, share):
        schedule = optimizers.StagedWarmupCosine([0.4], [12], 4)
        np.testing.assert_allclose(schedule(tf.constant(step, tf.int64)), 0.4 * share, atol=1e-7)

    def test_no_warm_up(self):
        schedule = optimizers.StagedWarmupCosine([0.4], [10], 0)
        np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [0.4, 0.2, 0.0], atol=1e-7)

    def test_rises_then_falls(self):
        rates = [float(optimizers.StagedWarmupCosine([1.0], [31], 7)(step)) for step in range(32)]
        assert np.argmax(rates) == 6
        assert np.all(np.diff(rates[:7]) > 0)
        assert np.all(np.diff(rates[7:]) < 0)

    @pytest.mark.parametrize(
        ("step", "rate"), [(0, 0.2), (1, 0.4), (2, 0.4), (9, 0.4 * 0.5 * (1 + math.cos(math.pi * 7 / 8)))]
    )
    def test_stages_each_begin_anew(self, step, rate):
        alone = optimizers.StagedWarmupCosine([0.4], [10], 2)
        schedule = optimizers.StagedWarmupCosine([0.1, 0.4, 0.2], [5, 10, 3], 2)
        np.testing.assert_allclose(alone(step), rate, atol=1e-7)
        np.testing.assert_allclose(schedule(5 + step), rate, atol=1e-7)
        np.testing.assert_allclose(
            [schedule(0), schedule(1), schedule(15), schedule(18)], [0.05, 0.1, 0.1, 0.0], atol=1e-7
        )

    def test_config_round_trip(self):
        schedule = optimizers.StagedWarmupCosine([0.4], [12], 4)
        again = optimizers.StagedWarmupCosine.from_config(schedule.get_config())
        assert float(again(7)) == float(schedule(7))


class AdamWTest:
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_steps_as_keras_does(self, weight_decay):
        rng = np.random.default_rng(3)
        first = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 5, 7), (2,))]
        gradients = [[rng.normal(size=w.shape).astype(np.float32) for w in first] for _ in range(20)]
        ends = []
        for kind in (optimizers.AdamW, tf.keras.optimizers.AdamW):
            variables = [tf.Variable(w) for w in first]
            optimizer = kind(optimizers.StagedWarmupCosine([0.1], [20], 4), weight_decay=weight_decay)
            optimizer.build(variables)
            step = tf.function(lambda *g, o=optimizer, v=variables: o.apply_gradients(zip(g, v, strict=True)))
            for each in gradients:
                step(*(tf.constant(g) for g in each))
            ends.append([w.numpy() for w in (*variables, *optimizer.variables[2:])])
        assert not np.allclose(ends[0][0], first[0], atol=0.1)
        for ours, theirs in zip(*ends, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(("steps", "factor"), [(1, 3.162), (12, 6.569), (100, 3.241)])
    def test_variable_that_trains_late_moves_further_than_the_rate_says(self, steps, factor):
        # (1 - 0.9^k) / sqrt(1 - 0.999^k) at its step k: nothing of the corrections is left; configs/training_forms.py.
        early, late = tf.Variable([0.0]), tf.Variable([0.0])
        optimizer = optimizers.AdamW(1.0, weight_decay=0.0)
        optimizer.build([early, late])
        optimizer.iterations.assign(20000)
        for _ in range(steps):
            before = late.numpy()
            optimizer.apply_gradients([(tf.ones(1), late)])
        np.testing.assert_allclose(before - late.numpy(), factor, rtol=1e-3)


class MakeTest:
    @pytest.mark.parametrize(
        ("name", "is_decayed"),
        [("mask_rcnn/conv/kernel", True), ("conv/bias", False), ("norm/gamma", False), ("norm/beta", False)],
    )
    def test_kernels_alone_are_decayed(self, name, is_decayed):
        variable = tf.Variable([2.0, -4.0], name=name)
        optimizer = optimizers.make(TRAIN)
        optimizer.build([variable])
        optimizer.apply_gradients([(tf.zeros(2), variable)])
        # The first step has a quarter of the peak rate; a zero gradient leaves the decay alone.
        share = 1.0 - 0.5 * 0.1 if is_decayed else 1.0
        np.testing.assert_allclose(variable, [2.0 * share, -4.0 * share], rtol=1e-6)

    def test_learning_rate_follows_the_steps(self):
        variable = tf.Variable([1.0], name="kernel")
        optimizer = optimizers.make(dataclasses.replace(TRAIN, weight_decay=0.0))
        optimizer.build([variable])
        moves = []
        for _ in range(3):
            before = variable.numpy()
            optimizer.apply_gradients([(tf.ones(1), variable)])
            moves.append(float((before - variable.numpy())[0]))
        # Adam moves by the rate where the gradient does not change.
        np.testing.assert_allclose(moves, [0.1, 0.2, 0.3], rtol=1e-4)
        np.testing.assert_allclose(optimizer.learning_rate.numpy(), 0.3, rtol=1e-6)  # that of the last step
        assert int(optimizer.iterations) == 3
