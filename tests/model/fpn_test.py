import numpy as np
import pytest
import tensorflow as tf

from model import fpn


class UpsampleToTest:
    def test_every_cell_fills_the_cells_that_lie_in_it(self):
        x = np.random.default_rng(0).normal(size=(2, 1, 2, 3, 4)).astype(np.float32)
        up = fpn.upsample_to(tf.constant(x), tf.zeros([2, 2, 2, 9, 4])).numpy()
        assert up.shape == (2, 2, 2, 9, 4)
        for z, y, column in np.ndindex(2, 2, 9):
            np.testing.assert_array_equal(up[:, z, y, column], x[:, z // 2, y, column // 3])

    def test_equal_shapes_are_left_alone(self):
        x = tf.random.stateless_normal([1, 2, 3, 5, 1], [0, 0])
        np.testing.assert_array_equal(fpn.upsample_to(x, x), x)


class FPNTest:
    @pytest.fixture(name="net", scope="class")
    def fixture_net(self):
        net = fpn.FPN(2, 3)
        net(self.features())
        return net

    @staticmethod
    def features(value=0.0):
        return [tf.fill(shape, value) for shape in ((1, 4, 8, 6, 3), (1, 4, 4, 3, 5), (1, 2, 2, 1, 7))]

    def test_every_level_keeps_its_grid_and_gets_the_common_width(self, net):
        assert [level.shape for level in net(self.features())] == [
            (1, 4, 8, 6, 2),
            (1, 4, 4, 3, 2),
            (1, 2, 2, 1, 2),
        ]

    def test_parameters_as_counted_by_hand(self, net):
        lateral = (3 + 5 + 7) * 2 + 3 * 2
        smooth = 3 * (27 * 2 * 2 + 2)
        assert net.count_params() == lateral + smooth

    def test_levels_are_summed_from_the_top_down(self):
        net = fpn.FPN(1, 2)
        finer, coarser = tf.fill([1, 2, 4, 6, 1], 10.0), tf.fill([1, 1, 4, 2, 1], 1.0)
        coarser += tf.reshape(tf.range(8.0), [1, 1, 4, 2, 1])
        net([finer, coarser])
        pick = np.zeros((3, 3, 3, 1, 1), np.float32)
        pick[1, 1, 1] = 1.0
        for layer in net.lateral:
            layer.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1)])
        for layer in net.smooth:
            layer.set_weights([pick, np.zeros(1)])
        p2, p3 = net([finer, coarser])
        np.testing.assert_array_equal(p3, coarser)
        expected = 10.0 + np.repeat(np.repeat(coarser.numpy(), 2, axis=1), 3, axis=3)
        np.testing.assert_array_equal(p2, expected)

    def test_another_number_of_levels_is_an_error(self, net):
        with pytest.raises(ValueError, match="shorter"):
            net(self.features()[:2])
