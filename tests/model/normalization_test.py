import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

from model import normalization


def group_norm(x, groups, gamma, beta, epsilon=1e-5):
    """Wu and He's equation, one volume and group at a time, in float64."""
    result = np.zeros(x.shape)
    width = x.shape[-1] // groups
    for item, group in np.ndindex(len(x), groups):
        channels = slice(group * width, (group + 1) * width)
        part = x[item, ..., channels].astype(np.float64)
        result[item, ..., channels] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    return result * gamma + beta


@pytest.fixture(name="x")
def fixture_x():
    rng = np.random.default_rng(0)
    return rng.normal(3.0, [1.0, 2.0, 0.5, 4.0, 1.0, 7.0], (2, 5, 7, 11, 6)).astype(np.float32)


class GroupNormTest:
    @pytest.mark.parametrize("groups", [1, 2, 3, 6])
    def test_equals_the_definition_and_addons(self, x, groups):
        gamma = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 1.5], np.float32)
        beta = np.array([0.0, 1.0, -1.0, 2.0, 5.0, 0.1], np.float32)
        layer = normalization.GroupNorm(groups)
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        np.testing.assert_allclose(layer(x), group_norm(x, groups, gamma, beta), atol=1e-4)

        addons = tfa.layers.GroupNormalization(groups, epsilon=1e-5)
        addons.build(x.shape)
        addons.set_weights([gamma, beta])
        np.testing.assert_allclose(layer(x), addons(x), atol=1e-4)

    def test_starts_as_mean_zero_and_variance_one_of_every_group(self, x):
        groups = normalization.GroupNorm(3)(x).numpy().reshape(2, 5, 7, 11, 3, 2)
        np.testing.assert_allclose(groups.mean((1, 2, 3, 5)), np.zeros((2, 3)), atol=1e-5)
        np.testing.assert_allclose(groups.var((1, 2, 3, 5)), np.ones((2, 3)), atol=1e-4)

    def test_gradients_equal_those_of_addons(self, x):
        weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
        gradients = []
        for layer in (normalization.GroupNorm(2), tfa.layers.GroupNormalization(2, epsilon=1e-5)):
            layer.build(x.shape)
            variable = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(variable)
                loss = tf.reduce_sum(weights * layer(variable))
            gradients.append(tape.gradient(loss, [variable, layer.gamma, layer.beta]))
        for ours, theirs in zip(*gradients, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-3)

    def test_constant_volume_gives_the_offset_and_a_finite_gradient(self):
        layer = normalization.GroupNorm(2)
        x = tf.fill([1, 2, 3, 5, 4], 3.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        np.testing.assert_allclose(y, np.zeros(x.shape), atol=1e-3)
        assert np.all(np.isfinite(tape.gradient(y, x)))

    def test_volumes_of_a_batch_do_not_touch_each_other(self, x):
        layer = normalization.GroupNorm(3)
        np.testing.assert_allclose(layer(x)[1:], layer(x[1:]), atol=1e-5)

    def test_batch_of_unknown_size(self, x):
        layer = normalization.GroupNorm(3)
        compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 5, 7, 11, 6])])
        np.testing.assert_allclose(compiled(x), layer(x), atol=1e-5)

    def test_groups_that_do_not_divide_the_channels(self):
        with pytest.raises(ValueError, match="expected channels that are a multiple of 4 groups, came 6"):
            normalization.GroupNorm(4)(tf.zeros([2, 2, 3, 5, 6]))


class MakeTest:
    def test_kinds(self):
        kinds = [type(normalization.make(kind, 2)).__name__ for kind in ("group", "batch", "none")]
        assert kinds == ["GroupNorm", "BatchNormalization", "Activation"]

    def test_none_changes_nothing_and_has_no_variables(self, x):
        layer = normalization.make("none", 2)
        np.testing.assert_array_equal(layer(x, training=True), x)
        assert layer.variables == []

    def test_batch_uses_the_batch_in_training_and_the_running_moments_afterwards(self, x):
        layer = normalization.make("batch", 2)
        trained = layer(x, training=True).numpy()
        np.testing.assert_allclose(trained.mean((0, 1, 2, 3)), np.zeros(6), atol=1e-4)
        np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean((0, 1, 2, 3)), rtol=1e-4)
        expected = (x - layer.moving_mean) / np.sqrt(layer.moving_variance + layer.epsilon)
        np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-4, atol=1e-4)
