import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from configs.model_schema import INITIALIZERS, Style
from model import towers
from tests.model import head_cases


class ConvTowerTest:
    def test_parameters_as_counted_by_hand(self):
        tower = towers.ConvTower(channels=4, num_convs=2, style=head_cases.GROUP)
        assert tower(head_cases.pooled()).shape == (10, 2, 3, 4, 4)
        assert tower.count_params() == 27 * 7 * 4 + 2 * 4 + 27 * 4 * 4 + 2 * 4

    def test_the_kernel_is_that_of_the_style(self):
        style = dataclasses.replace(head_cases.GROUP, kernel=(1, 3, 5))
        tower = towers.ConvTower(channels=4, num_convs=2, style=style)
        assert tower(head_cases.pooled()).shape == (10, 2, 3, 4, 4)
        assert [conv.conv.kernel_size for conv in tower.convs] == [(1, 3, 5)] * 2

    def test_without_convolutions_the_grid_is_left_as_it_is(self):
        tower = towers.ConvTower(channels=4, num_convs=0, style=head_cases.GROUP)
        pooled = head_cases.pooled()
        np.testing.assert_array_equal(tower(pooled), pooled.reshape(10, 2, 3, 4, 7))
        assert tower.weights == []

    @pytest.mark.parametrize(
        ("style", "least"), [(head_cases.PLAIN, 0.0), (head_cases.PRELU, -0.25)], ids=["relu", "prelu"]
    )
    def test_the_activation_is_that_of_the_style(self, style, least):
        tower = towers.ConvTower(channels=1, num_convs=1, style=style)
        tower(head_cases.pooled())
        kernel = np.zeros((3, 3, 3, 7, 1))
        kernel[1, 1, 1, 0] = 1.0
        rest = [w for w in tower.get_weights() if w.shape != kernel.shape]
        tower.set_weights([kernel, *rest])
        first = head_cases.pooled().reshape(10, 2, 3, 4, 7)[..., :1]
        np.testing.assert_allclose(tower(head_cases.pooled()), np.maximum(first, -least * first), rtol=1e-5)


class DenseTowerTest:
    @pytest.mark.parametrize(("num_dense", "parameters"), [(0, 0), (1, 7 * 6 + 6), (2, 7 * 6 + 6 + 6 * 6 + 6)])
    def test_parameters_as_counted_by_hand(self, num_dense, parameters):
        tower = towers.DenseTower(hidden=6, num_dense=num_dense, style=head_cases.PLAIN)
        assert tower(tf.ones([2, 5, 7])).shape == (2, 5, 6 if num_dense else 7)
        assert sum(tf.size(weight).numpy() for weight in tower.weights) == parameters

    def test_hand_values(self):
        tower = towers.DenseTower(hidden=2, num_dense=2, style=head_cases.PRELU)
        tower(tf.ones([1, 1, 3]))
        tower.set_weights(
            [
                np.eye(3, 2),
                np.float32([0, 1]),
                np.full(2, 0.5),
                np.float32([[1, 0], [2, -4]]),
                np.zeros(2),
                np.float32([0.5, 0.25]),
            ]
        )
        # (-4, 2) + (0, 1) -> (-2, 3) -> (-2 + 6, -12) -> (4, -3)
        np.testing.assert_allclose(tower(tf.constant([[[-4.0, 2.0, 9.0]]])), [[[4.0, -3.0]]], rtol=1e-6)

    def test_dropout_follows_every_layer_in_training_alone(self):
        tf.keras.utils.set_random_seed(0)
        tower = towers.DenseTower(hidden=400, num_dense=2, dropout=0.25, style=head_cases.PLAIN)
        x = tf.ones([1, 1, 10])
        tower(x)
        tower.set_weights([np.full((10, 400), 0.1), np.zeros(400), np.eye(400), np.zeros(400)])
        np.testing.assert_allclose(tower(x), np.ones((1, 1, 400)), rtol=1e-5)
        trained = tower(x, training=True).numpy()
        np.testing.assert_allclose(np.unique(trained), [0, 16 / 9], rtol=1e-5)
        assert (trained > 0).mean() == pytest.approx(9 / 16, abs=0.08)

    def test_a_frozen_layer_drops_nothing(self):
        tower = towers.DenseTower(hidden=400, num_dense=2, dropout=0.5, style=head_cases.PLAIN)
        x = tf.ones([1, 1, 10])
        tower(x)
        tower.set_weights([np.full((10, 400), 0.1), np.zeros(400), np.eye(400), np.zeros(400)])
        tower.layers[0][0].trainable = False
        np.testing.assert_allclose(np.unique(tower(x, training=True)), [0, 2], rtol=1e-5)  # of the second alone
        tower.trainable = False
        np.testing.assert_array_equal(tower(x, training=True), tower(x))


class FullyConvolutionalHeadTest:
    @pytest.mark.parametrize("name", INITIALIZERS)
    def test_the_transposed_convolution_begins_like_the_dense_layer_that_it_is(self, name):
        tf.keras.utils.set_random_seed(0)
        head = towers.FullyConvolutionalHead(1, channels=32, num_convs=0, style=Style(initializer=name))
        head(tf.zeros([1, 1, 1, 1, 1, 48]))
        assert head.upsample.kernel.shape == (2, 2, 2, 32, 48)
        inputs, outputs = 48, 8 * 32
        variance = 2 / inputs if name.startswith("he") else 2 / (inputs + outputs)
        assert float(tf.math.reduce_variance(head.upsample.kernel)) == pytest.approx(variance, rel=0.05)
        places = tf.reshape(head.upsample.kernel, [8, -1])  # each with numbers of its own
        assert np.abs(np.corrcoef(places) - np.eye(8)).max() < 0.2

    def test_a_cell_becomes_its_own_eight_voxels(self):
        head = towers.FullyConvolutionalHead(1, channels=1, num_convs=0, style=head_cases.PLAIN)
        pooled = np.random.default_rng(0).random((1, 2, 2, 3, 4, 1)).astype(np.float32)
        head(pooled)
        head.upsample.set_weights([np.ones((2, 2, 2, 1, 1)), np.zeros(1)])
        head.logits.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1)])
        expected = pooled.repeat(2, axis=2).repeat(2, axis=3).repeat(2, axis=4)
        np.testing.assert_allclose(head(pooled), expected, rtol=1e-6)

    def test_the_place_inside_a_cell_has_a_weight_of_its_own(self):
        head = towers.FullyConvolutionalHead(1, channels=1, num_convs=0, style=head_cases.PLAIN)
        pooled = np.ones((1, 1, 2, 3, 4, 1), np.float32)
        head(pooled)
        kernel = np.arange(8.0).reshape(2, 2, 2, 1, 1)
        head.upsample.set_weights([kernel, np.zeros(1)])
        head.logits.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1)])
        np.testing.assert_allclose(head(pooled)[0, 0, ..., 0], np.tile(kernel[..., 0, 0], (2, 3, 4)), rtol=1e-6)


class SmallTest:
    def test_two_layers_do_not_draw_the_same_numbers(self):
        first, second = (towers.small(0.01)([1000]).numpy() for _ in range(2))
        assert np.std(first) == pytest.approx(0.01, rel=0.1)
        assert not np.array_equal(first, second)
