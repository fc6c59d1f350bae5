import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

from configs.model_schema import NORMS, Style
from model import normalization
from tests import halves


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
    def test_equals_the_definition_addons_and_keras(self, x, groups):
        gamma = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 1.5], np.float32)
        beta = np.array([0.0, 1.0, -1.0, 2.0, 5.0, 0.1], np.float32)
        layer = normalization.GroupNorm(groups)
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        np.testing.assert_allclose(layer(x), group_norm(x, groups, gamma, beta), atol=1e-4)

        for other in (tfa.layers.GroupNormalization, tf.keras.layers.GroupNormalization):
            theirs = other(groups, epsilon=1e-5)
            theirs.build(x.shape)
            theirs.set_weights([gamma, beta])
            np.testing.assert_allclose(layer(x), theirs(x), atol=1e-4)

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


class FrozenBatchNormTest:
    VECTORS = np.array(
        [
            [1.0, -2.0, 0.5, 3.0, 0.0, 1.5],
            [0.0, 1.0, -1.0, 2.0, 5.0, 0.1],
            [3.0, 2.0, 4.0, 1.0, 0.0, -1.0],
            [1.0, 4.0, 0.25, 16.0, 0.0, 49.0],
        ],
        np.float32,
    )

    def test_equals_batch_normalisation_with_the_same_four_vectors(self, x):
        frozen, batch = (normalization.make(Style(norm=norm)) for norm in ("frozen_batch", "batch"))
        for layer in (frozen, batch):
            layer.build(x.shape)
            layer.set_weights(list(self.VECTORS))
        np.testing.assert_allclose(frozen(x, training=True), batch(x, training=False), rtol=1e-3, atol=1e-3)
        gamma, beta, mean, variance = self.VECTORS
        expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        np.testing.assert_allclose(frozen(x), expected, rtol=1e-4, atol=1e-3)

    def test_nothing_is_trained_and_the_gradient_passes(self, x):
        layer = normalization.FrozenBatchNorm()
        layer.build(x.shape)
        layer.set_weights(list(self.VECTORS))
        assert layer.trainable_variables == []
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        gamma, _, _, variance = self.VECTORS
        expected = np.broadcast_to(gamma / np.sqrt(variance + 1e-5), x.shape)
        np.testing.assert_allclose(tape.gradient(y, x), expected, rtol=1e-4)
        np.testing.assert_array_equal(layer.moving_mean, self.VECTORS[2])

    def test_changes_next_to_nothing_until_loaded(self, x):
        np.testing.assert_allclose(normalization.FrozenBatchNorm()(x), x, rtol=1e-5)

    def test_checkpoint_of_batch_normalisation_loads(self, x, tmp_path):
        batch, frozen = (normalization.make(Style(norm=norm)) for norm in ("batch", "frozen_batch"))
        for _ in range(3):
            batch(x, training=True)
        path = tf.train.Checkpoint(layer=batch).write(str(tmp_path / "checkpoint"))
        frozen.build(x.shape)
        tf.train.Checkpoint(layer=frozen).read(path).assert_existing_objects_matched()
        assert float(tf.reduce_min(tf.abs(frozen.moving_mean))) > 0.1
        np.testing.assert_allclose(frozen(x), batch(x), rtol=1e-3, atol=1e-3)


class InstanceNormTest:
    def test_equals_group_normalisation_of_one_channel_each(self, x):
        gamma = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 1.5], np.float32)
        beta = np.array([0.0, 1.0, -1.0, 2.0, 5.0, 0.1], np.float32)
        layer = normalization.InstanceNorm()
        layer(x)
        layer.set_weights([gamma, beta])
        np.testing.assert_allclose(layer(x), group_norm(x, 6, gamma, beta), atol=1e-4)
        other = normalization.GroupNorm(6)
        other.build(x.shape)
        other.set_weights([gamma, beta])
        np.testing.assert_allclose(layer(x), other(x), atol=1e-4)

    def test_batch_of_unknown_size(self, x):
        layer = normalization.InstanceNorm()
        compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 5, 7, 11, 6])])
        np.testing.assert_allclose(compiled(x), layer(x), atol=1e-5)

    def test_checkpoint_loads(self, x, tmp_path):
        layer, other = normalization.InstanceNorm(), normalization.InstanceNorm()
        layer(x)
        layer.set_weights([np.arange(6.0), np.arange(6.0) - 3.0])
        path = tf.train.Checkpoint(layer=layer).write(str(tmp_path / "checkpoint"))
        other(x)
        tf.train.Checkpoint(layer=other).read(path).assert_consumed()
        np.testing.assert_array_equal(other(x), layer(x))


class LayerNormTest:
    def test_equals_the_definition_at_every_voxel(self, x):
        gamma = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 1.5], np.float32)
        beta = np.array([0.0, 1.0, -1.0, 2.0, 5.0, 0.1], np.float32)
        layer = normalization.LayerNorm()
        layer(x)
        layer.set_weights([gamma, beta])
        expected = np.zeros(x.shape)
        for voxel in np.ndindex(x.shape[:-1]):
            own = x[voxel].astype(np.float64)
            expected[voxel] = (own - own.mean()) / np.sqrt(own.var() + 1e-5) * gamma + beta
        np.testing.assert_allclose(layer(x), expected, atol=1e-4)

    def test_hand_worked_voxel(self):
        # Mean 3, variance (4 + 4 + 0 + 0) / 4 = 2.
        y = normalization.LayerNorm()(tf.constant([1.0, 5.0, 3.0, 3.0], shape=[1, 1, 1, 1, 4]))
        np.testing.assert_allclose(tf.reshape(y, [-1]), [-np.sqrt(2.0), np.sqrt(2.0), 0.0, 0.0], atol=1e-4)

    def test_part_of_a_volume_is_a_part_of_the_answer(self, x):
        layer = normalization.LayerNorm()
        part = np.s_[1:, 1:3, 2:7, 4:11]
        np.testing.assert_allclose(layer(x)[part], layer(x[part]), atol=1e-5)
        other = normalization.GroupNorm(3)
        assert np.abs(other(x)[part] - other(x[part])).max() > 0.1

    def test_volume_without_voxels_and_batch_of_unknown_size(self, x):
        layer = normalization.LayerNorm()
        compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 5, 7, 11, 6])])
        np.testing.assert_allclose(compiled(x), layer(x), atol=1e-5)
        assert compiled(x[:0]).shape == (0, 5, 7, 11, 6)


class MakeTest:
    def test_kinds(self):
        kinds = {norm: type(normalization.make(Style(norm=norm))).__name__ for norm in NORMS}
        assert kinds == {
            "group": "GroupNorm",
            "batch": "BatchNormalization",
            "sync_batch": "BatchNormalization",
            "frozen_batch": "FrozenBatchNorm",
            "instance": "InstanceNorm",
            "layer": "LayerNorm",
            "none": "Activation",
        }

    def test_none_changes_nothing_and_has_no_variables(self, x):
        layer = normalization.make(Style(norm="none"))
        np.testing.assert_array_equal(layer(x, training=True), x)
        assert layer.variables == []

    @pytest.mark.parametrize("norm", ["batch", "sync_batch"])
    def test_batch_uses_the_batch_in_training_and_the_running_moments_afterwards(self, x, norm):
        layer = normalization.make(Style(norm=norm))
        trained = layer(x, training=True).numpy()
        np.testing.assert_allclose(trained.mean((0, 1, 2, 3)), np.zeros(6), atol=1e-4)
        np.testing.assert_allclose(trained.var((0, 1, 2, 3)), np.ones(6), atol=1e-3)
        np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean((0, 1, 2, 3)), rtol=1e-4)
        variance = 0.9 + 0.1 * x.var((0, 1, 2, 3))
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=2e-3)
        expected = (x - layer.moving_mean) / np.sqrt(layer.moving_variance + 1e-5)
        np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("policy", halves.POLICIES)
    def test_half_precision_stays_finite_where_squares_do_not_fit(self, x, norm, policy):
        tf.keras.mixed_precision.set_global_policy(policy)  # layers inside a layer take the global one
        try:
            layer = normalization.make(Style(norm=norm, norm_groups=2))
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        half = tf.cast(1000.0 * x, policy.removeprefix("mixed_"))
        y = layer(half, training=True)
        single = normalization.make(Style(norm=norm, norm_groups=2))
        expected = single(tf.cast(half, tf.float32), training=True)
        assert y.dtype == half.dtype
        assert all(v.dtype == tf.float32 for v in layer.weights)
        np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=0.02, atol=0.02)

    @pytest.mark.parametrize("norm", ["group", "layer"])
    def test_constant_volume_gives_the_offset_and_a_finite_gradient(self, norm):
        layer = normalization.make(Style(norm=norm, norm_groups=2))
        x = tf.fill([1, 2, 3, 5, 4], 3.0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        np.testing.assert_allclose(y, np.zeros(x.shape), atol=1e-3)
        assert np.all(np.isfinite(tape.gradient(y, x)))

    @pytest.mark.parametrize("norm", ["group", "instance", "layer"])
    def test_constant_half_precision_volume_gives_zero(self, norm):
        layer = normalization.make(Style(norm=norm, norm_groups=2), dtype="mixed_float16")
        np.testing.assert_allclose(layer(tf.fill([1, 2, 3, 5, 4], tf.constant(1000.0, tf.float16))), 0.0, atol=0.2)


class TwoReplicasTest:
    @pytest.fixture(name="result", scope="class")
    def fixture_result(self):
        run = subprocess.run(
            [sys.executable, "-m", "tests.model.two_replicas"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        return json.loads(run.stdout.splitlines()[-1])

    @staticmethod
    def normalized(x):
        space = tuple(range(x.ndim - 1))
        return (x - x.mean(space)) / np.sqrt(x.var(space) + 1e-5)

    def test_sync_batch_takes_the_moments_of_the_whole_batch(self, result):
        x = np.array(result["x"])
        np.testing.assert_allclose(result["sync_batch"]["y"], self.normalized(x), atol=1e-4)
        np.testing.assert_allclose(result["sync_batch"]["moving_mean"], 0.1 * x.mean((0, 1, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose(result["sync_batch"]["y"], result["one_device"]["y"], atol=1e-4)
        np.testing.assert_allclose(result["sync_batch"]["gradient"], result["one_device"]["gradient"], atol=1e-3)

    def test_batch_takes_those_of_each_replica(self, result):
        x = np.array(result["x"])
        expected = np.concatenate([self.normalized(x[:2]), self.normalized(x[2:])])
        np.testing.assert_allclose(result["batch"]["y"], expected, atol=1e-4)
        assert np.abs(expected - self.normalized(x)).max() > 0.3
