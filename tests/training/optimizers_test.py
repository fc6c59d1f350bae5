import dataclasses
import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

from configs import schema, train_schema
from training import optimizers, schedules

TRAIN = schema.Train(learning_rate=0.4, warmup_steps=4, steps=12, weight_decay=0.5)
NAMES = train_schema.OPTIMIZERS


def constant(name, **settings):
    """The `train` section of a rule at a constant rate of 0.1, without decay and without warm-up."""
    return dataclasses.replace(
        schema.Train(learning_rate=0.1, warmup_steps=0, weight_decay=0.0),
        optimizer=train_schema.Optimizer(name=name, **settings),
        schedule=train_schema.Schedule(name="constant"),
    )


def trained(train, gradients, first=(2.0, -4.0), name="kernel"):
    """A variable after steps by these gradients."""
    variable = tf.Variable(first, name=name)
    optimizer = optimizers.make(train)
    optimizers.build(optimizer, [variable])
    for gradient in gradients:
        optimizers.apply(optimizer, [tf.constant(gradient, tf.float32)], [variable])
    assert int(optimizer.iterations) == len(gradients)
    return variable.numpy()


class AdamWTest:
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_steps_as_keras_does(self, weight_decay):
        rng = np.random.default_rng(3)
        first = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 5, 7), (2,))]
        gradients = [[rng.normal(size=w.shape).astype(np.float32) for w in first] for _ in range(20)]
        ends = []
        for kind in (optimizers.AdamW, tf.keras.optimizers.AdamW):
            variables = [tf.Variable(w) for w in first]
            rate = schedules.Staged([train_schema.Stage("a", 20, 0.1)], train_schema.Schedule(), 4)
            optimizer = kind(rate, weight_decay=weight_decay)
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


class RulesTest:
    def test_sgd_by_hand(self):
        # Nesterov: v = 0.9 v - rate g; w += 0.9 v - rate g. First step -0.19 g; then v = -0.19 g: -0.271 g more.
        np.testing.assert_allclose(trained(constant("sgd"), [(1.0, -2.0)]), [2.0 - 0.19, -4.0 + 0.38], rtol=1e-6)
        two = trained(constant("sgd"), [(1.0, -2.0)] * 2)
        np.testing.assert_allclose(two, [2.0 - 0.461, -4.0 + 0.922], rtol=1e-6)

    def test_adam_moves_by_the_rate_in_the_direction_of_the_sign(self):
        np.testing.assert_allclose(trained(constant("adam"), [(1.0, -2.0)] * 3), [1.7, -3.7], rtol=1e-5)

    def test_lamb_moves_by_the_rate_times_the_length_of_the_weights(self):
        # Its step is rate |w| u / |u| (You et al. 2020); here u is the sign, of length sqrt(2), and |w| = 5.
        step = 0.1 * 5.0 / np.sqrt(2.0)
        found = trained(constant("lamb", epsilon=1e-12), [(1.0, -2.0)], first=(3.0, -4.0))
        np.testing.assert_allclose(found, [3.0 - step, -4.0 + step], rtol=1e-5)

    def test_ranger_goes_half_way_back_after_six_steps(self):
        # Until its fifth step RectifiedAdam moves by its first moment alone: m / (1 - 0.9^k) = g.
        train = constant("ranger")
        five = trained(train, [(1.0, -2.0)] * 5)
        np.testing.assert_allclose(five, [1.5, -3.0], rtol=1e-5)
        fast = tf.Variable([2.0, -4.0])
        rectified = tfa.optimizers.RectifiedAdam(0.1)
        for _ in range(6):
            rectified.apply_gradients([(tf.constant([1.0, -2.0]), fast)])
        six = trained(train, [(1.0, -2.0)] * 6)
        np.testing.assert_allclose(six, (np.array([2.0, -4.0]) + fast.numpy()) / 2, rtol=1e-5)

    @pytest.mark.parametrize("name", NAMES)
    def test_finds_the_minimum_of_a_bowl(self, name):
        variable = tf.Variable([2.0, -4.0], name="kernel")
        train = dataclasses.replace(constant(name), learning_rate=0.03)
        optimizer = optimizers.make(train)
        optimizers.build(optimizer, [variable])
        for _ in range(1000):
            optimizers.apply(optimizer, [2.0 * (variable - [1.0, -1.0])], [variable])
        np.testing.assert_allclose(variable, [1.0, -1.0], atol=0.1)

    @pytest.mark.parametrize("name", NAMES)
    def test_rate_is_that_of_the_last_step(self, name):
        variable = tf.Variable([2.0, -4.0], name="kernel")
        optimizer = optimizers.make(dataclasses.replace(TRAIN, optimizer=train_schema.Optimizer(name=name)))
        optimizers.build(optimizer, [variable])
        for rate in (0.1, 0.2, 0.3):
            optimizers.apply(optimizer, [tf.ones(2)], [variable])
            np.testing.assert_allclose(optimizers.learning_rate(optimizer), rate, rtol=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
    def test_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(self, name, precision, tmp_path):
        train = dataclasses.replace(
            TRAIN, optimizer=train_schema.Optimizer(name=name, slow_steps=2), precision=precision
        )
        gradients = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)

        def make():
            variable = tf.Variable([2.0, -4.0], name="kernel")
            optimizer = optimizers.make(train)
            optimizers.build(optimizer, [variable])
            return variable, optimizer, tf.train.Checkpoint(variable=variable, optimizer=optimizer)

        variable, optimizer, checkpoint = make()
        for number, gradient in enumerate(gradients):
            if number == 3:
                checkpoint.write(str(tmp_path / "third"))
            optimizers.apply(optimizer, [tf.constant(gradient)], [variable])
        again, optimizer, checkpoint = make()
        checkpoint.read(str(tmp_path / "third")).assert_existing_objects_matched()
        for gradient in gradients[3:]:
            optimizers.apply(optimizer, [tf.constant(gradient)], [again])
        np.testing.assert_array_equal(again, variable)


class MakeTest:
    @pytest.mark.parametrize("rule", ["adamw", "sgd", "lamb", "ranger"])
    @pytest.mark.parametrize(
        ("name", "is_decayed"),
        [("mask_rcnn/conv/kernel", True), ("conv/bias", False), ("norm/gamma", False), ("norm/beta", False)],
    )
    def test_kernels_alone_are_decayed(self, rule, name, is_decayed):
        train = dataclasses.replace(TRAIN, optimizer=train_schema.Optimizer(name=rule))
        found = trained(train, [(0.0, 0.0)], name=name)
        # The first step has a quarter of the peak rate; a zero gradient leaves the decay alone. Lamb's is of the length
        # of the weights, of which decay is the only direction.
        share = {"lamb": 1.0 - 0.1}.get(rule, 1.0 - 0.5 * 0.1) if is_decayed else 1.0
        np.testing.assert_allclose(found, [2.0 * share, -4.0 * share], rtol=1e-6)

    def test_learning_rate_follows_the_steps(self):
        variable = tf.Variable([1.0], name="kernel")
        optimizer = optimizers.make(dataclasses.replace(TRAIN, weight_decay=0.0))
        optimizer.build([variable])
        moves = []
        for _ in range(3):
            before = variable.numpy()
            optimizers.apply(optimizer, [tf.ones(1)], [variable])
            moves.append(float((before - variable.numpy())[0]))
        # Adam moves by the rate where the gradient does not change.
        np.testing.assert_allclose(moves, [0.1, 0.2, 0.3], rtol=1e-4)

    def test_a_schedule_in_the_place_of_the_config_s(self):
        variable = tf.Variable([1.0], name="kernel")
        rising = tf.keras.optimizers.schedules.ExponentialDecay(0.01, 1, 10.0)
        optimizer = optimizers.make(TRAIN, schedule=rising)
        optimizers.build(optimizer, [variable])
        for rate in (0.01, 0.1):
            optimizers.apply(optimizer, [tf.ones(1)], [variable])
            np.testing.assert_allclose(optimizers.learning_rate(optimizer), rate, rtol=1e-5)

    def test_base_of_the_rectified_rule_is_as_expected(self):
        # What RectifiedAdam here leans on.
        assert "self._has_weight_decay" in inspect.getsource(tfa.optimizers.RectifiedAdam._resource_apply_dense)
