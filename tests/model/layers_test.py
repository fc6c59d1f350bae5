import math

import numpy as np
import pytest
import tensorflow as tf

from configs.model_schema import NORMS, Style
from model import layers
from tests import halves


def correlate(x, kernel, strides):
    """The definition, tap by tap in float64: windows centred on voxels 0, stride, 2 stride, ..., zeros around."""
    size = [math.ceil(n / s) for n, s in zip(x.shape[1:4], strides, strict=True)]
    around = [((k - 1) // 2, k) for k in kernel.shape[:3]]
    padded = np.pad(x.astype(np.float64), [(0, 0), *around, (0, 0)])
    result = np.zeros((len(x), *size, kernel.shape[-1]))
    for tap in np.ndindex(*kernel.shape[:3]):
        z, y, x_ = (slice(t, t + s * (n - 1) + 1, s) for t, s, n in zip(tap, strides, size, strict=True))
        result += padded[:, z, y, x_] @ kernel[tap]
    return result


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


HALF_AND_FULL = (tf.bfloat16, tf.float32)


def gradient(layer, x, weights):
    """Of the weighted sum of what a convolution gives, by its kernel, computed in the type of x: float32."""
    kernel = tf.cast(layer.kernel, x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(vars(layer), "kernel", kernel)
            total = tf.reduce_sum(tf.cast(layer.call(x) * weights, tf.float32))
    return tf.cast(tape.gradient(total, kernel), tf.float32).numpy()


class ConvolutionTest:
    @pytest.mark.parametrize("kernel", [1, 2, 3, (1, 3, 5), (7, 4, 3)])
    @pytest.mark.parametrize("strides", [1, 2, (1, 2, 3), (3, 1, 2)])
    @pytest.mark.parametrize("size", [(5, 7, 11), (4, 6, 12), (1, 2, 3)])
    def test_equals_the_definition(self, kernel, strides, size):
        layer = layers.convolution(3, kernel, strides, style=Style(), bias_initializer="ones")
        x = random(2, *size, 2)
        y = layer(x)
        strides = (strides,) * 3 if isinstance(strides, int) else strides
        assert y.shape == (2, *(math.ceil(n / s) for n, s in zip(size, strides, strict=True)), 3)
        np.testing.assert_allclose(y, correlate(x, layer.kernel.numpy(), strides) + 1.0, atol=1e-4)

    @halves.needs_bfloat16
    @pytest.mark.parametrize("kernel", [1, 3, (2, 3, 3), (5, 1, 3)])
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_gradients_in_bfloat16_read_nothing_that_was_not_written(self, kernel, depth):
        """Beside memory that holds huge numbers, which the library's own gradient over two slices takes up."""
        layer = layers.convolution(8, kernel, style=Style(), use_bias=False)
        x, weights = (tf.cast(random(4, depth, 6, 9, 8, seed=seed), tf.bfloat16) for seed in (1, 2))
        layer.build(x.shape)
        for _ in range(10):
            freed = [tf.fill([size], tf.constant(1e30, tf.bfloat16)) for size in range(1000, 40000, 3000)]
            del freed
            found, expected = (gradient(layer, *(tf.cast(of, dtype) for of in (x, weights))) for dtype in HALF_AND_FULL)
            np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())

    def test_permuted_axes(self):
        x = random(1, 5, 7, 11, 2)
        plain = layers.convolution(3, (3, 1, 5), (2, 1, 3), style=Style())
        turned = layers.convolution(3, (5, 3, 1), (3, 2, 1), style=Style())
        expected = np.transpose(plain(x), (0, 3, 1, 2, 4))
        x = np.transpose(x, (0, 3, 1, 2, 4))
        turned(x)
        turned.set_weights([np.transpose(plain.kernel, (2, 0, 1, 3, 4)), plain.bias])
        np.testing.assert_allclose(turned(x), expected, atol=1e-5)

    def test_unknown_batch(self):
        layer = layers.convolution(3, 3, (1, 2, 2), style=Style())
        x = random(2, 4, 5, 6, 2)
        compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 4, 5, 6, 2])])
        np.testing.assert_allclose(compiled(x), layer(x), atol=1e-6)

    def test_initialisation_is_the_styles_unless_another_is_given(self):
        tf.keras.utils.set_random_seed(0)
        deviation = {}
        for name in ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform"):
            layer = layers.convolution(24, 3, style=Style(initializer=name))
            layer(tf.zeros([1, 1, 1, 1, 8]))
            deviation[name] = layer.kernel.numpy().std()
        he, glorot = math.sqrt(2 / (27 * 8)), math.sqrt(2 / (27 * (8 + 24)))
        expected = {"he_normal": he, "he_uniform": he, "glorot_normal": glorot, "glorot_uniform": glorot}
        assert deviation == pytest.approx(expected, rel=0.05)
        layer = layers.convolution(2, 3, style=Style(), kernel_initializer="ones", activation="sigmoid")
        y = layer(tf.zeros([1, 2, 2, 2, 1]))
        np.testing.assert_array_equal(layer.kernel, np.ones((3, 3, 3, 1, 2)))
        np.testing.assert_array_equal(y, np.full((1, 2, 2, 2, 2), 0.5))

    def test_groups_that_do_not_divide_the_channels(self):
        with pytest.raises(ValueError, match="groups"):
            layers.convolution(4, 3, style=Style(), groups=3)


class PadTest:
    def test_value_lies_around_the_volume(self):
        y = layers.pad(tf.ones([1, 1, 2, 3, 1]), (1, 2, 3), value=-7.0).numpy()[0, 0, ..., 0]
        np.testing.assert_array_equal(y, [[-7, 1, 1, 1, -7], [-7, 1, 1, 1, -7], [-7] * 5])


class ActivationTest:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [("relu", [0.0, 0.0, 3.0]), ("leaky_relu", [-0.02, 0.0, 3.0]), ("prelu", [-0.5, 0.0, 3.0])],
    )
    @pytest.mark.parametrize("rank", [2, 5])
    def test_values(self, name, expected, rank):
        x = np.reshape(np.array([-2.0, 0.0, 3.0], np.float32), [1] * (rank - 1) + [3])
        np.testing.assert_allclose(layers.activation(Style(activation=name))(x).numpy().ravel(), expected, rtol=1e-6)

    def test_prelu_learns_one_slope_per_channel(self):
        layer = layers.activation(Style(activation="prelu"))
        x = random(2, 3, 4, 5, 2)
        layer(x)
        assert [v.shape for v in layer.trainable_variables] == [(2,)]
        slopes = np.array([0.5, -1.0], np.float32)
        layer.set_weights([slopes])
        np.testing.assert_allclose(layer(x), np.where(x > 0, x, slopes * x), rtol=1e-6)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x))
        expected = np.minimum(x, 0.0).sum((0, 1, 2, 3))
        np.testing.assert_allclose(tape.gradient(loss, layer.alpha), expected, rtol=1e-5)


class ConvNormTest:
    def test_order_is_convolution_normalisation_activation(self):
        style = Style(norm="frozen_batch", activation="leaky_relu")
        layer = layers.ConvNorm(2, 3, (1, 2, 1), style=style)
        x = random(1, 3, 5, 4, 2)
        layer(x)
        vectors = [np.array(v, np.float32) for v in ((2.0, -1.0), (0.5, 0.0), (0.1, -0.3), (4.0, 0.25))]
        layer.norm.set_weights(vectors)
        gamma, beta, mean, variance = vectors
        y = correlate(x, layer.conv.kernel.numpy(), (1, 2, 1))
        y = (y - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        np.testing.assert_allclose(layer(x), np.where(y > 0, y, 0.01 * y), atol=1e-4)

    def test_activation_can_be_left_out(self):
        y = layers.ConvNorm(4, 3, style=Style(norm_groups=2), activate=False)(random(1, 4, 5, 6, 3))
        assert float(tf.reduce_mean(tf.cast(y < 0, tf.float32))) > 0.3

    @pytest.mark.parametrize("norm", NORMS)
    def test_bias_only_where_no_normalisation_follows(self, norm):
        layer = layers.ConvNorm(4, 3, style=Style(norm=norm, norm_groups=2))
        layer(tf.zeros([1, 2, 2, 2, 3]))
        assert layer.conv.use_bias == (norm == "none")

    def test_names_of_variables(self):
        layer = layers.ConvNorm(4, 3, style=Style(norm_groups=2, activation="prelu"), name="stem")
        layer(tf.zeros([1, 2, 2, 2, 3]))
        names = ["stem/conv/kernel:0", "stem/norm/gamma:0", "stem/norm/beta:0", "stem/activation/alpha:0"]
        assert [v.name for v in layer.weights] == names

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("policy", halves.POLICIES)
    def test_half_precision(self, norm, policy):
        style = Style(norm=norm, norm_groups=2, activation="prelu")
        single = layers.ConvNorm(4, 3, (1, 2, 2), style=style)
        tf.keras.mixed_precision.set_global_policy(policy)  # layers inside a layer take the global one
        try:
            half = layers.ConvNorm(4, 3, (1, 2, 2), style=style)
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        x = 100.0 * random(2, 3, 5, 6, 3)
        single(x)
        half(x)
        half.set_weights(single.get_weights())
        expected, y = single(x, training=True), half(x, training=True)
        assert y.dtype == policy.removeprefix("mixed_")
        assert all(v.dtype == tf.float32 for v in half.weights)
        tolerance = 0.05 * float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(tf.cast(y, tf.float32), expected, atol=tolerance)

    @pytest.mark.parametrize("norm", ["group", "batch", "frozen_batch", "instance", "layer", "none"])
    def test_saved_model_gives_the_same(self, norm, tmp_path):
        layer = layers.ConvNorm(4, 3, (1, 2, 2), style=Style(norm=norm, norm_groups=2), groups=2)
        x = random(2, 3, 5, 6, 4)
        layer(x, training=True)
        module = tf.Module()
        module.layer = layer
        module.run = tf.function(layer, input_signature=[tf.TensorSpec([None, 3, 5, 6, 4])])
        tf.saved_model.save(module, str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path))
        np.testing.assert_allclose(loaded.run(x), layer(x), atol=1e-5)
