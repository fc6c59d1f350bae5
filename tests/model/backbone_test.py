import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from configs import backbones
from configs.model_schema import Backbone, Style
from model import backbone
from tests import halves

STYLE = Style(norm_groups=2)
BASIC = Backbone(
    stem_channels=4,
    stem_kernel=(1, 3, 5),
    stem_stride=(1, 2, 2),
    stage_channels=(4, 8),
    stage_blocks=(1, 2),
    stage_kernels=((1, 3, 3), (3, 3, 3)),
    stage_strides=((1, 1, 1), (2, 1, 3)),
)
BOTTLENECK = dataclasses.replace(
    BASIC, block="bottleneck", bottleneck_ratio=2, stage_channels=(8, 16), stem_pool=(1, 1, 2)
)
RESNEXT = dataclasses.replace(BOTTLENECK, bottleneck_ratio=1, cardinality=4)
PLAIN = dataclasses.replace(BASIC, kind="plain")
KINDS = {"basic": BASIC, "bottleneck": BOTTLENECK, "resnext": RESNEXT, "plain": PLAIN}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scatter(net, seed=1):
    """Random scales and offsets, so that no unit is at rest by construction."""
    rng = np.random.default_rng(seed)
    for variable in net.weights:
        if "kernel" not in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


class MakeTest:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(4, 8, 12), (5, 7, 11), (1, 1, 1)])
    def test_every_level_has_the_stride_that_the_config_states(self, kind, size):
        config = KINDS[kind]
        config.validate()
        levels = backbone.make(config, STYLE)(tf.zeros([2, *size, 3]))
        widths = [*([] if kind == "plain" else [config.stem_channels]), *config.stage_channels]
        expected = {
            level: (2, *(math.ceil(n / s) for n, s in zip(size, stride, strict=True)), width)
            for (level, stride), width in zip(config.strides().items(), widths, strict=True)
        }
        assert {level: x.shape for level, x in levels.items()} == expected
        assert list(levels) == sorted(levels)

    @pytest.mark.parametrize("kind", KINDS)
    def test_stages_after_the_last_level_that_is_used_are_not_made(self, kind):
        whole = backbone.make(KINDS[kind], STYLE, name="net")
        part = backbone.make(KINDS[kind], STYLE, up_to=1 if kind == "plain" else 2, name="net")
        volume = random(1, 5, 7, 11, 2)
        levels, last = list(whole(volume)), list(part(volume))
        assert last == levels[:-1]
        assert {level: part.windows[level] for level in last} == {level: whole.windows[level] for level in last}
        names = [variable.name for variable in whole.weights if f"c{levels[-1]}_" not in variable.name]
        assert [variable.name for variable in part.weights] == names
        assert len(names) < len(whole.weights)

    @pytest.mark.parametrize("kind", KINDS)
    def test_outputs_are_rectified_and_alive(self, kind):
        for output in backbone.make(KINDS[kind], STYLE)(random(1, 4, 8, 12, 1)).values():
            assert np.all(output.numpy() >= 0.0)
            assert 0.0 < np.mean(output.numpy() > 0.0) <= 1.0

    @pytest.mark.parametrize(
        ("norm", "trainable", "other"),
        [("group", 2, 0), ("instance", 2, 0), ("layer", 2, 0), ("batch", 2, 2), ("frozen_batch", 0, 4)],
    )
    def test_parameters_as_counted_by_hand(self, norm, trainable, other):
        net = backbone.make(BASIC, dataclasses.replace(STYLE, norm=norm))
        net(tf.zeros([1, 4, 4, 6, 1]))
        stem = 1 * 3 * 5 * 1 * 4
        c2 = 9 * 4 * 4 + 9 * 4 * 4  # same width, stride 1: no projection
        c3_0 = 27 * 4 * 8 + 27 * 8 * 8 + 4 * 8  # with projection
        c3_1 = 27 * 8 * 8 + 27 * 8 * 8
        kernels = stem + c2 + c3_0 + c3_1
        channels = 4 + 2 * 4 + 3 * 8 + 2 * 8  # that leave the convolutions of each
        expected = kernels + trainable * channels
        assert sum(math.prod(v.shape) for v in net.trainable_variables) == expected
        assert sum(math.prod(v.shape) for v in net.non_trainable_variables) == other * channels

    def test_frozen_batch_trains_kernels_alone(self):
        net = backbone.make(BOTTLENECK, Style(norm="frozen_batch"))
        net(tf.zeros([1, 4, 4, 6, 1]))
        assert all(v.name.endswith("kernel:0") for v in net.trainable_variables)

    def test_names_of_variables(self):
        net = backbone.make(BOTTLENECK, STYLE, name="backbone")
        net(tf.zeros([1, 4, 4, 6, 1]))
        names = {v.name for v in net.weights}
        convs = ["stem"] + [f"c2_0/{part}" for part in ("projection", "first", "second", "third")]
        convs += [f"c3_0/{part}" for part in ("projection", "first", "second", "third")]
        convs += [f"c3_1/{part}" for part in ("first", "second", "third")]
        weights = ("conv/kernel", "norm/gamma", "norm/beta")
        assert names == {f"backbone/{conv}/{weight}:0" for conv in convs for weight in weights}
        plain = backbone.make(PLAIN, Style(norm="none"), name="backbone")
        plain(tf.zeros([1, 4, 4, 6, 1]))
        assert [v.name for v in plain.weights if "kernel" in v.name] == [
            f"backbone/{conv}/conv/kernel:0" for conv in ("c1_0", "c2_0", "c2_1")
        ]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("norm", ["group", "batch", "frozen_batch", "instance", "layer", "none"])
    def test_gradient_reaches_every_trainable_weight(self, kind, norm):
        if (norm, kind) == ("layer", "bottleneck"):
            pytest.skip("two channels that are normalised over each other are 1 and -1, whatever they were")
        tf.keras.utils.set_random_seed(0)
        net = backbone.make(KINDS[kind], dataclasses.replace(STYLE, norm=norm, activation="prelu"))
        volume = random(2, 4, 8, 12, 1)
        net(volume)
        scatter(net)
        with tf.GradientTape() as tape:
            levels = net(volume, training=True).values()
            loss = tf.add_n([tf.reduce_sum(random(*level.shape, seed=2) * level) for level in levels])
        gradients = tape.gradient(loss, net.trainable_variables)
        for variable, gradient in zip(net.trainable_variables, gradients, strict=True):
            assert gradient is not None, variable.name
            assert np.all(np.isfinite(gradient)), variable.name
            assert np.any(gradient.numpy() != 0.0), variable.name

    @pytest.mark.parametrize("kind", KINDS)
    def test_permuted_axes(self, kind):
        config = KINDS[kind]
        order = (2, 0, 1)

        def turn(value):
            return tuple(value[axis] for axis in order)

        turned = dataclasses.replace(
            config,
            stem_kernel=turn(config.stem_kernel),
            stem_stride=turn(config.stem_stride),
            stem_pool=turn(config.stem_pool),
            stage_kernels=tuple(map(turn, config.stage_kernels)),
            stage_strides=tuple(map(turn, config.stage_strides)),
        )
        volume = random(1, 5, 7, 11, 2)
        axes = (0, *(1 + axis for axis in order), 4)
        net, other = backbone.make(config, STYLE), backbone.make(turned, STYLE)
        levels = net(volume)
        other(np.transpose(volume, axes))
        kernels = [np.transpose(w, (*order, 3, 4)) if w.ndim == 5 else w for w in net.get_weights()]
        other.set_weights(kernels)
        for ours, theirs in zip(levels.values(), other(np.transpose(volume, axes)).values(), strict=True):
            np.testing.assert_allclose(np.transpose(ours, axes), theirs, atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_unknown_batch(self, kind):
        net = backbone.make(KINDS[kind], STYLE)
        volume = random(2, 5, 7, 11, 1)
        compiled = tf.function(net, input_signature=[tf.TensorSpec([None, 5, 7, 11, 1])])
        for ours, theirs in zip(compiled(volume).values(), net(volume).values(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    @pytest.mark.parametrize("kind", ["resnext", "plain"])
    @pytest.mark.parametrize("norm", ["group", "frozen_batch", "instance", "layer"])
    def test_saved_model_gives_the_same(self, kind, norm, tmp_path):
        net = backbone.make(KINDS[kind], dataclasses.replace(STYLE, norm=norm))
        volume = random(2, 5, 7, 11, 1)
        expected = list(net(volume).values())
        module = tf.Module()
        module.weights = net.variables
        specification = tf.TensorSpec([None, 5, 7, 11, 1])
        module.run = tf.function(lambda volume: list(net(volume).values()), input_signature=[specification])
        tf.saved_model.save(module, str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path))
        for ours, theirs in zip(loaded.run(volume), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("policy", halves.POLICIES)
    def test_half_precision(self, kind, policy):
        config = dataclasses.replace(KINDS[kind], dropout=0.1, stochastic_depth=0.1)
        tf.keras.mixed_precision.set_global_policy(policy)
        try:
            net = backbone.make(config, STYLE)
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        for training in (False, True):
            for output in net(random(2, 4, 8, 12, 1), training=training).values():
                assert output.dtype == policy.removeprefix("mixed_")
                assert np.all(np.isfinite(tf.cast(output, tf.float32)))
                assert float(tf.reduce_max(output)) > 0.0

    def test_batch_norm_depends_on_training_and_group_norm_does_not(self):
        volume = np.random.default_rng(0).normal(2.0, 1.0, (2, 4, 4, 6, 1)).astype(np.float32)
        changes = {}
        for norm in ("batch", "frozen_batch", "group"):
            net = backbone.make(BASIC, dataclasses.replace(STYLE, norm=norm))
            net(volume)
            changes[norm] = np.abs(net(volume, training=True)[3] - net(volume, training=False)[3]).max()
        assert changes["group"] == changes["frozen_batch"] == 0.0
        assert changes["batch"] > 0.1

    @pytest.mark.parametrize("kind", KINDS)
    def test_dropout_drops_whole_channels_in_training(self, kind):
        tf.keras.utils.set_random_seed(0)
        style = Style(norm="none", activation="leaky_relu")  # no zeros of its own
        with_drop = backbone.make(dataclasses.replace(KINDS[kind], dropout=0.5), style)
        without = backbone.make(KINDS[kind], style)
        volume = random(2, 4, 8, 12, 1)
        expected = without(volume)
        with_drop(volume)
        with_drop.set_weights(without.get_weights())
        for ours, theirs in zip(with_drop(volume).values(), expected.values(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        first = 1 if kind == "plain" else 2  # later stages read what was dropped
        dropped, full = with_drop(volume, training=True)[first].numpy(), expected[first].numpy()
        is_dropped = np.all(dropped == 0.0, axis=(1, 2, 3))
        assert 0.0 < is_dropped.mean() < 1.0
        np.testing.assert_allclose(dropped, np.where(is_dropped[:, None, None, None], 0.0, 2.0 * full), rtol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_frozen_backbone_drops_nothing(self, kind):
        tf.keras.utils.set_random_seed(0)
        net = backbone.make(dataclasses.replace(KINDS[kind], dropout=0.5, stochastic_depth=0.5), Style(norm="none"))
        volume = random(2, 4, 8, 12, 1)
        expected = net(volume)
        first, last = min(expected), max(expected)
        if kind != "plain":
            net.stem.trainable, first = False, 2
        for layer in net.stages[0]:
            layer.trainable = False
        trained = net(volume, training=True)
        np.testing.assert_array_equal(trained[first], expected[first])
        assert np.any(trained[last] != expected[last])  # which still learns
        net.trainable = False
        for level, ours in net(volume, training=True).items():
            np.testing.assert_array_equal(ours, expected[level])

    def test_what_a_cell_of_a_resnet_sees_is_centred_on_its_first_voxel(self):
        config = dataclasses.replace(BASIC, stem_kernel=(3, 3, 5), stage_kernels=((1, 3, 3), (3, 3, 3)))
        net, volume = backbone.make(config, Style(norm="none")), tf.ones([1, 20, 40, 90, 1])
        net(volume)
        net.set_weights([np.full(w.shape, w.ndim == 5) for w in net.get_weights()])
        with tf.GradientTape() as tape:
            tape.watch(volume)
            cell = tf.reduce_sum(net(volume)[3][0, 5, 8, 7])  # of stride (2, 2, 6)
        weight = tape.gradient(cell, volume).numpy()[0, ..., 0].astype(np.float64)
        centre = [np.average(index + 0.5, weights=weight) for index in np.indices(weight.shape)]
        # Anchors and rois take it to lie at (i + 0.5) * stride: half a cell further.
        np.testing.assert_allclose(centre, [5 * 2 + 0.5, 8 * 2 + 0.5, 7 * 6 + 0.5], rtol=1e-6)

    @pytest.mark.parametrize("size", [(7, 9, 11), (8, 10, 13), (1, 2, 4)])
    def test_cells_of_a_plain_backbone_begin_with_the_volume(self, size):
        config = Backbone(kind="plain", stage_channels=(1,), stage_blocks=(1,), stage_kernels=((1, 1, 1),))
        config.stage_strides = ((3, 2, 4),)
        net = backbone.make(config, Style(norm="none", activation="prelu"))
        volume = -1.0 - np.abs(random(1, *size, 1))  # so that a zero of padding would be the largest
        net(volume)
        net.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1), np.ones(1)])
        expected = np.empty([-(-n // s) for n, s in zip(size, (3, 2, 4), strict=True)])
        for cell in np.ndindex(*expected.shape):
            where = tuple(slice(i * s, (i + 1) * s) for i, s in zip(cell, (3, 2, 4), strict=True))
            expected[cell] = volume[0, ..., 0][where].max()
        np.testing.assert_allclose(net(volume)[1][0, ..., 0], expected)

    def test_groups_that_do_not_divide_a_width(self):
        with pytest.raises(ValueError, match="expected channels that are a multiple of 3 groups, came 4"):
            backbone.make(BASIC, Style(norm_groups=3))(tf.zeros([1, 4, 4, 4, 1]))


class WidthMultiplierTest:
    @pytest.mark.parametrize(
        ("channels", "multiplier", "divisor", "width"),
        [
            (64, 0.5, 8, 32),
            (64, 0.3, 8, 16),
            (64, 0.01, 8, 8),
            (30, 1.0, 8, 30),
            (20, 1.5, 1, 30),
            (256, 0.5, 128, 128),
        ],
    )
    def test_nearest_multiple(self, channels, multiplier, divisor, width):
        assert backbone.scaled_width(channels, multiplier, divisor) == width

    def test_half_a_resnext_still_fits_its_groups(self):
        config = dataclasses.replace(backbones.resnext(50), width_multiplier=0.4)
        net = backbone.make(config, Style(norm_groups=8))
        levels = net(tf.zeros([1, 8, 8, 8, 1]))
        assert {level: x.shape[-1] for level, x in levels.items()} == {1: 24, 2: 128, 3: 192, 4: 384, 5: 832}

    def test_multiples_are_those_of_what_is_used(self):
        widths = {}
        for name, config, style in (
            ("basic, group", BASIC, Style(norm_groups=4)),
            ("basic, batch", BASIC, Style(norm="batch")),
            ("bottleneck, group", BOTTLENECK, Style(norm_groups=4)),
            ("plain, group", PLAIN, Style(norm_groups=4)),
        ):
            net = backbone.make(dataclasses.replace(config, width_multiplier=1.3), style)
            widths[name] = [x.shape[-1] for x in net(tf.zeros([1, 2, 2, 2, 1])).values()]
        assert widths == {
            "basic, group": [4, 4, 12],
            "basic, batch": [5, 5, 10],
            "bottleneck, group": [4, 8, 24],
            "plain, group": [4, 12],
        }
