import math

import numpy as np
import pytest
import tensorflow as tf

from configs import backbones
from configs.model_schema import Style
from model import backbone, resnet

PLAIN = Style(norm="none")


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class BasicBlockTest:
    @staticmethod
    def make(filters=3, strides=(1, 1, 1), project=False, drop=0.0):
        return resnet.BasicBlock(filters, (3, 3, 3), strides, project=project, drop=drop, style=PLAIN)

    def test_shortcut_alone_remains_where_the_convolutions_are_zero(self):
        block = self.make()
        x = random(2, 3, 4, 5, 3)
        block(x)
        block.set_weights([np.zeros_like(w) for w in block.get_weights()])
        assert block.projection is None
        np.testing.assert_array_equal(block(x), np.maximum(x, 0.0))

    def test_projected_shortcut_is_every_so_manieth_voxel(self):
        block = self.make(5, (1, 2, 3), project=True)
        x = random(2, 3, 5, 7, 3)
        block(x)
        block.first.set_weights([np.zeros_like(w) for w in block.first.get_weights()])
        assert block.projection.conv.kernel.shape == (1, 1, 1, 3, 5)
        expected = np.maximum(x[:, :, ::2, ::3] @ block.projection.conv.kernel[0, 0, 0], 0.0)
        np.testing.assert_allclose(block(x), expected, atol=1e-5)


class StochasticDepthTest:
    def test_volumes_skip_the_convolutions_as_often_as_asked_and_keep_their_mean(self):
        block = BasicBlockTest.make(drop=0.25)
        block(tf.ones([1, 1, 1, 1, 3]))
        block.set_weights([np.full_like(w, 0.1) for w in block.get_weights()])
        x = tf.ones([4000, 1, 1, 1, 3])
        convolved = block(x[:1], training=False)[0, 0, 0, 0, 0].numpy()
        assert convolved == pytest.approx(1.0 + 3 * 0.1 * 0.4 + 0.1)  # shortcut and path, as if nothing were dropped

        tf.random.set_seed(0)
        y = block(x, training=True).numpy()
        assert np.all(y == y[..., :1])
        skipped = np.isclose(y[..., 0], 1.0)
        np.testing.assert_allclose(y[~skipped], 1.0 + (convolved - 1.0) / 0.75, rtol=1e-5)
        assert skipped.mean() == pytest.approx(0.25, abs=0.03)  # more than four standard deviations
        assert y.mean() == pytest.approx(convolved, abs=0.01)

    def test_inference_does_not_depend_on_it(self):
        x = random(2, 3, 4, 5, 3)
        with_drop, without = BasicBlockTest.make(drop=0.9), BasicBlockTest.make()
        with_drop(x)
        without(x)
        with_drop.set_weights(without.get_weights())
        np.testing.assert_array_equal(with_drop(x), without(x))

    def test_chance_rises_linearly_to_the_last_block(self):
        config = backbones.resnet(18)
        config.stochastic_depth = 0.4
        net = backbone.make(config, Style())
        rates = [block.drop.rate for stage in net.stages for block in stage]
        np.testing.assert_allclose(rates, 0.4 * np.arange(1, 9) / 8)


class StemPoolTest:
    @pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 3), (1, 1, 2)])
    @pytest.mark.parametrize("size", [(5, 7, 11), (4, 6, 12)])
    def test_equals_the_definition(self, strides, size):
        x = -1.0 - np.abs(random(2, *size, 3))  # a padding of zeros would win
        y = resnet.StemPool(strides)(x).numpy()
        assert y.shape[1:4] == tuple(math.ceil(n / s) for n, s in zip(size, strides, strict=True))
        reach = [0 if s == 1 else 1 for s in strides]
        for index in np.ndindex(*y.shape[1:4]):
            window = tuple(
                slice(max(i * s - r, 0), i * s + r + 1) for i, s, r in zip(index, strides, reach, strict=True)
            )
            np.testing.assert_array_equal(y[(slice(None), *index)], x[(slice(None), *window)].max((1, 2, 3)))

    def test_stride_one_changes_nothing(self):
        x = random(1, 2, 3, 4, 1)
        np.testing.assert_array_equal(resnet.StemPool((1, 1, 1))(x), x)

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
    def test_half_precision(self, dtype):
        y = resnet.StemPool((1, 2, 2), dtype=dtype)(tf.fill([1, 2, 3, 5, 1], tf.constant(-2.0, dtype)))
        np.testing.assert_array_equal(tf.cast(y, tf.float32), np.full((1, 2, 2, 3, 1), -2.0))


class ResNet50Test:
    def test_parameters_as_counted_from_the_definition(self):
        count = 7**3 * 1 * 64 + 2 * 64
        channels = 64
        for inside, filters, blocks in ((64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3)):
            for block in range(blocks):
                count += channels * inside + 2 * inside
                count += 27 * inside * inside + 2 * inside
                count += inside * filters + 2 * filters
                if block == 0:
                    count += channels * filters + 2 * filters
                channels = filters
        net = backbone.make(backbones.resnet(50), Style())
        levels = net(tf.zeros([1, 64, 96, 128, 1]))
        assert net.count_params() == count
        assert {level: x.shape for level, x in levels.items()} == {
            1: (1, 32, 48, 64, 64),
            2: (1, 16, 24, 32, 256),
            3: (1, 8, 12, 16, 512),
            4: (1, 4, 6, 8, 1024),
            5: (1, 2, 3, 4, 2048),
        }

    def test_resnext_50_has_grouped_convolutions_of_half_the_width(self):
        count = 7**3 * 2 * 64 + 2 * 64
        channels = 64
        for inside, filters, blocks in ((128, 256, 3), (256, 512, 4), (512, 1024, 6), (1024, 2048, 3)):
            for block in range(blocks):
                count += channels * inside + 2 * inside
                count += 27 * (inside // 32) * inside + 2 * inside
                count += inside * filters + 2 * filters
                if block == 0:
                    count += channels * filters + 2 * filters
                channels = filters
        net = backbone.make(backbones.resnext(50), Style())
        levels = net(tf.zeros([1, 32, 32, 64, 2]))
        assert net.count_params() == count
        assert levels[5].shape == (1, 1, 1, 2, 2048)

    def test_slices_are_those_of_keras_applications(self):
        """Every kernel sees its own slice alone, so each slice passes a 2D ResNet-50."""
        reference = tf.keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 96, 3))
        rng = np.random.default_rng(0)
        for layer in reference.layers:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                width = layer.gamma.shape
                layer.set_weights(
                    [rng.uniform(0.5, 1.0, width), rng.normal(0.0, 0.3, width)]
                    + [rng.normal(0.0, 0.3, width), rng.uniform(0.5, 1.5, width)]
                )
            elif isinstance(layer, tf.keras.layers.Conv2D):
                layer.bias.assign(rng.normal(0.0, 0.3, layer.bias.shape))
        outputs = ["conv1_relu"] + [f"conv{stage}_block{n}_out" for stage, n in ((2, 3), (3, 4), (4, 6), (5, 3))]
        reference = tf.keras.Model(reference.inputs, [reference.get_layer(name).output for name in outputs])

        config = backbones.resnet(50)
        config.stem_stride = config.stem_pool = (1, 2, 2)
        config.stem_kernel = (1, 7, 7)
        config.stage_strides = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
        config.stage_kernels = ((3, 3, 3), (1, 3, 3), (3, 3, 3), (1, 3, 3))
        config.stride_in_pointwise = True
        net = backbone.make(config, Style(norm="frozen_batch"))
        volume = random(1, 3, 64, 96, 3)
        net(volume)

        def load(conv_norm, conv, norm):
            conv, norm = reference.get_layer(conv), reference.get_layer(norm)
            kernel = np.zeros(conv_norm.conv.kernel.shape, np.float32)
            kernel[kernel.shape[0] // 2] = conv.kernel
            conv_norm.conv.set_weights([kernel])
            gamma, beta, mean, variance = norm.get_weights()
            conv_norm.norm.set_weights([gamma, beta, mean - conv.bias.numpy(), variance])

        load(net.stem, "conv1_conv", "conv1_bn")
        for level, stage in enumerate(net.stages, start=2):
            for index, block in enumerate(stage, start=1):
                parts = enumerate([block.projection, block.first, block.second, block.third])
                for number, part in parts:
                    if part is not None:
                        name = f"conv{level}_block{index}_{number}"
                        load(part, f"{name}_conv", f"{name}_bn")

        for ours, theirs in zip(net(volume).values(), reference(volume[0]), strict=True):
            assert 0.1 < np.std(theirs) < 1e4
            np.testing.assert_allclose(ours[0], theirs, atol=1e-4 * np.abs(theirs).max())
