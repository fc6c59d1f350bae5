import numpy as np
import pytest
import tensorflow as tf

from configs.model_schema import Style
from model import grouped_conv, layers


def one_group_at_a_time(x, kernel, strides, padding, groups):
    """The definition: so many convolutions that know nothing of each other."""
    inside, filters = kernel.shape[-2], kernel.shape[-1] // groups
    outputs = []
    for group in range(groups):
        part = x[..., group * inside : (group + 1) * inside]
        part_kernel = kernel[..., group * filters : (group + 1) * filters]
        outputs.append(tf.nn.conv3d(part, part_kernel, [1, *strides, 1], padding))
    return np.concatenate(outputs, axis=-1)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# groups, channels in and out of each: below, at and above the width that is merged.
CASES = [(1, 3, 5), (3, 2, 1), (4, 16, 3), (32, 4, 4), (6, 5, 2), (2, 20, 4)]


class GroupedConv3DTest:
    @pytest.mark.parametrize(("groups", "inside", "filters"), CASES)
    @pytest.mark.parametrize(("strides", "padding"), [((1, 1, 1), "SAME"), ((1, 2, 3), "VALID")])
    def test_equals_the_definition(self, groups, inside, filters, strides, padding):
        x, kernel = random(2, 5, 7, 11, groups * inside), random(3, 1, 2, inside, groups * filters, seed=1)
        y = grouped_conv.grouped_conv3d(x, tf.constant(kernel), strides, padding, groups)
        expected = one_group_at_a_time(x, kernel, strides, padding, groups)
        np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())

    def test_gradient_equals_that_of_the_definition(self):
        groups, inside, filters = 6, 3, 2
        x, kernel = tf.constant(random(1, 3, 4, 5, 18)), tf.constant(random(3, 3, 3, inside, 12, seed=1))
        weights = random(1, 3, 4, 5, groups * filters, seed=2)
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = grouped_conv.grouped_conv3d(x, kernel, (1, 1, 1), "SAME", groups)
            loss = tf.reduce_sum(weights * y)
        gradients = tape.gradient(loss, [x, kernel])
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
            y = tf.concat([tf.nn.conv3d(a, b, [1] * 5, "SAME") for a, b in parts], -1)
            loss = tf.reduce_sum(weights * y)
        for ours, theirs in zip(gradients, tape.gradient(loss, [x, kernel]), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_layer_has_the_parameters_of_a_grouped_convolution(self):
        layer = layers.convolution(64, 3, 2, style=Style(), groups=32)
        x = random(1, 4, 5, 6, 128)
        y = tf.function(layer)(x)
        assert layer.kernel.shape == (3, 3, 3, 4, 64)
        assert layer.count_params() == 27 * 4 * 64 + 64
        expected = one_group_at_a_time(layers.pad(x, (3, 3, 3)), layer.kernel.numpy(), (2, 2, 2), "VALID", 32)
        np.testing.assert_allclose(y, expected, atol=1e-5)


class GroupsTogetherTest:
    @pytest.mark.parametrize(
        ("groups", "width", "together"),
        [(32, 4, 4), (32, 8, 2), (32, 16, 1), (32, 32, 1), (1, 3, 1), (3, 2, 3), (6, 5, 6), (6, 8, 2), (12, 5, 4)],
    )
    def test_fewest_that_reach_the_width(self, groups, width, together):
        assert grouped_conv.groups_together(groups, width) == together


class BlockDiagonalTest:
    def test_by_hand(self):
        kernel = tf.reshape(tf.range(1.0, 9.0), [1, 1, 1, 2, 4])  # [[1, 2, 3, 4], [5, 6, 7, 8]]
        expected = [[1, 2, 0, 0], [5, 6, 0, 0], [0, 0, 3, 4], [0, 0, 7, 8]]
        np.testing.assert_array_equal(grouped_conv.block_diagonal(kernel, 2)[0, 0, 0], expected)
        np.testing.assert_array_equal(grouped_conv.block_diagonal(kernel, 1), kernel)
