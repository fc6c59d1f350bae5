import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from configs.model_schema import Style
from model import fpn
from tests import halves

STRIDES = {2: (1, 2, 2), 3: (2, 2, 6), 4: (4, 4, 12)}
WIDTHS = (3, 5, 4)
DEFAULTS = {"extra": "none", "extra_stride": (2, 2, 2), "upsampling": "nearest", "bottom_up": False}


def features(volume=(5, 13, 43), seed=0):
    """Random levels of a volume that no stride divides."""
    rng = np.random.default_rng(seed)
    sizes = [tuple(math.ceil(n / s) for n, s in zip(volume, stride, strict=True)) for stride in STRIDES.values()]
    assert sizes == [(5, 7, 22), (3, 7, 8), (2, 4, 4)]
    return [rng.normal(size=(2, *size, width)).astype(np.float32) for size, width in zip(sizes, WIDTHS, strict=True)]


def make(strides=STRIDES, **settings):
    return fpn.FPN(6, strides, style=Style(), **(DEFAULTS | settings))


def slow_conv(x, layer, strides=(1, 1, 1)):
    """One output voxel at a time, in float64; voxels outside count zero."""
    kernel, bias = (w.astype(np.float64) for w in layer.get_weights())
    size = [math.ceil(n / s) for n, s in zip(x.shape[1:4], strides, strict=True)]
    reach = kernel.shape[0] // 2
    padded = np.pad(x, [(0, 0), *[(reach, reach)] * 3, (0, 0)])
    result = np.zeros((len(x), *size, kernel.shape[-1]))
    for index in np.ndindex(*size):
        window = tuple(slice(i * s, i * s + kernel.shape[0]) for i, s in zip(index, strides, strict=True))
        result[(slice(None), *index)] = np.tensordot(padded[(slice(None), *window)], kernel, 4) + bias
    return result


def slow_upsample(x, step, size, kind):
    """One voxel at a time."""
    result = np.zeros((len(x), *size, x.shape[-1]))
    for index in np.ndindex(*size):
        if kind == "nearest":
            result[(slice(None), *index)] = x[(slice(None), *(i // s for i, s in zip(index, step, strict=True)))]
            continue
        for corner in np.ndindex(2, 2, 2):
            cells, weight = [], 1.0
            for i, s, n, c in zip(index, step, x.shape[1:4], corner, strict=True):
                position = min(max((i + 0.5) / s - 0.5, 0.0), n - 1.0)
                low = min(math.floor(position), n - 1)
                weight *= (position - low) if c else 1.0 - (position - low)
                cells.append(min(low + c, n - 1))
            result[(slice(None), *index)] += weight * x[(slice(None), *cells)]
    return result


def slow_pyramid(net, levels):
    """The paper's figure with the weights of `net`."""
    steps = [(2, 1, 3), (2, 2, 2)]
    merged = [slow_conv(x, layer) for x, layer in zip(levels, net.lateral, strict=True)]
    for level in (1, 0):
        up = slow_upsample(merged[level + 1], steps[level], merged[level].shape[1:4], net.upsampling)
        merged[level] = merged[level] + up
    pyramid = [slow_conv(x, layer) for x, layer in zip(merged, net.smooth, strict=True)]
    if net.bottom_up:
        for level in (1, 2):
            down = slow_conv(pyramid[level - 1], net.down[level - 1], steps[level - 1])
            pyramid[level] = slow_conv(pyramid[level] + down, net.fuse[level - 1])
    if net.extra == "pool":
        z, y, x = net.extra_stride
        pyramid.append(pyramid[-1][:, ::z, ::y, ::x])
    elif net.extra == "conv":
        pyramid.append(slow_conv(pyramid[-1], net.extra_conv, net.extra_stride))
    return pyramid


def scatter(net):
    """Random biases."""
    rng = np.random.default_rng(1)
    net.set_weights([w if w.ndim > 1 else rng.normal(size=w.shape) for w in net.get_weights()])


class UpsampleTest:
    def test_nearest_fills_every_cell(self):
        x = np.random.default_rng(0).normal(size=(2, 1, 2, 3, 4)).astype(np.float32)
        up = fpn.upsample(tf.constant(x), (2, 1, 3), (2, 2, 8), "nearest").numpy()
        assert up.shape == (2, 2, 2, 8, 4)
        for z, y, column in np.ndindex(2, 2, 8):
            np.testing.assert_array_equal(up[:, z, y, column], x[:, z // 2, y, column // 3])

    def test_trilinear_by_hand_along_one_axis(self):
        x = tf.reshape(tf.constant([0.0, 4.0, 8.0]), [1, 1, 1, 3, 1])
        up = fpn.upsample(x, (1, 1, 2), (1, 1, 5), "trilinear").numpy().ravel()
        np.testing.assert_allclose(up, [0.0, 1.0, 3.0, 5.0, 7.0])

    @pytest.mark.parametrize("kind", ["nearest", "trilinear"])
    def test_equals_the_slow_truth(self, kind):
        x = np.random.default_rng(0).normal(size=(2, 3, 4, 1, 2)).astype(np.float32)
        up = fpn.upsample(tf.constant(x), (2, 3, 4), (5, 11, 3), kind)
        np.testing.assert_allclose(up, slow_upsample(x, (2, 3, 4), (5, 11, 3), kind), atol=1e-6)

    def test_trilinear_equals_scipy(self):
        x = np.random.default_rng(0).normal(size=(1, 3, 4, 5, 1)).astype(np.float32)
        step, size = (2, 1, 3), (5, 4, 15)
        where = np.meshgrid(*((np.arange(n) + 0.5) / s - 0.5 for n, s in zip(size, step, strict=True)), indexing="ij")
        expected = scipy.ndimage.map_coordinates(x[0, ..., 0], where, order=1, mode="nearest")
        up = fpn.upsample(tf.constant(x), step, size, "trilinear")
        np.testing.assert_allclose(up[0, ..., 0], expected, atol=1e-5)

    @pytest.mark.parametrize("kind", ["nearest", "trilinear"])
    def test_step_one_changes_nothing_and_constants_stay(self, kind):
        x = tf.random.stateless_normal([1, 2, 3, 5, 1], [0, 0])
        np.testing.assert_array_equal(fpn.upsample(x, (1, 1, 1), (2, 3, 5), kind), x)
        up = fpn.upsample(tf.fill([1, 2, 3, 5, 1], 7.0), (3, 2, 2), (5, 6, 9), kind)
        np.testing.assert_allclose(up, np.full((1, 5, 6, 9, 1), 7.0), rtol=1e-6)


class FPNTest:
    @pytest.mark.parametrize("upsampling", ["nearest", "trilinear"])
    @pytest.mark.parametrize(("extra", "bottom_up"), [("none", False), ("pool", True), ("conv", False), ("conv", True)])
    def test_equals_the_slow_truth(self, upsampling, extra, bottom_up):
        net, levels = make(extra=extra, extra_stride=(2, 1, 3), upsampling=upsampling, bottom_up=bottom_up), features()
        net(levels)
        scatter(net)
        pyramid, expected = net(levels), slow_pyramid(net, levels)
        assert len(pyramid) == (3 if extra == "none" else 4)
        for ours, truth in zip(pyramid, expected, strict=True):
            assert ours.shape == truth.shape
            np.testing.assert_allclose(ours, truth, atol=1e-4 * np.abs(truth).max())

    @pytest.mark.parametrize("upsampling", ["nearest", "trilinear"])
    def test_permuted_axes(self, upsampling):
        order = (2, 0, 1)
        axes = (0, *(1 + axis for axis in order), 4)
        turned = {level: tuple(stride[axis] for axis in order) for level, stride in STRIDES.items()}
        settings = {"extra": "conv", "upsampling": upsampling, "bottom_up": True}
        net, other = make(**settings, extra_stride=(1, 3, 2)), make(turned, **settings, extra_stride=(2, 1, 3))
        levels = features()
        turned_levels = [np.transpose(level, axes) for level in levels]
        net(levels)
        other(turned_levels)
        other.set_weights([np.transpose(w, (*order, 3, 4)) if w.ndim == 5 else w for w in net.get_weights()])
        for ours, theirs in zip(net(levels), other(turned_levels), strict=True):
            np.testing.assert_allclose(np.transpose(ours, axes), theirs, atol=1e-4)

    def test_parameters_and_names(self):
        net = make(extra="conv", bottom_up=True)
        net(features())
        lateral = sum(WIDTHS) * 6 + 3 * 6
        others = (3 + 2 + 2 + 1) * (27 * 6 * 6 + 6)  # smooth, down, fuse, extra
        assert net.count_params() == lateral + others
        names = ["lateral2", "lateral3", "lateral4", "smooth2", "smooth3", "smooth4"]
        names += ["down3", "down4", "fuse3", "fuse4", "extra5"]
        assert {v.name for v in net.weights} == {f"{net.name}/{n}/{w}:0" for n in names for w in ("kernel", "bias")}

    def test_levels_are_summed_from_the_top_down(self):
        net = fpn.FPN(1, {2: (2, 2, 2), 3: (4, 2, 6)}, style=Style(), **DEFAULTS)
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

    @pytest.mark.parametrize("extra", ["pool", "conv"])
    def test_the_extra_level_has_its_stride(self, extra):
        net = make(extra=extra, extra_stride=(1, 3, 2))
        assert net(features())[-1].shape == (2, 2, 2, 2, 6)  # of (2, 4, 4)
        windows = net.windows({level: [] for level in STRIDES})
        assert windows[5][-1] == ((1, 1, 1) if extra == "pool" else (3, 3, 3), (1, 3, 2))

    def test_one_level_alone(self):
        net = fpn.FPN(4, {3: (2, 2, 2)}, style=Style(), **(DEFAULTS | {"extra": "pool", "bottom_up": True}))
        assert [level.shape for level in net([tf.zeros([1, 3, 5, 7, 2])])] == [(1, 3, 5, 7, 4), (1, 2, 3, 4, 4)]

    @pytest.mark.parametrize("upsampling", ["nearest", "trilinear"])
    def test_gradient_reaches_every_weight_and_batch_may_be_unknown(self, upsampling):
        net, levels = make(extra="conv", upsampling=upsampling, bottom_up=True), features()
        signature = [tf.TensorSpec([None, *level.shape[1:]]) for level in levels]
        compiled = tf.function(net, input_signature=[signature])
        with tf.GradientTape() as tape:
            pyramid = compiled(levels)
            loss = tf.add_n([tf.reduce_sum(tf.square(level)) for level in pyramid])
        for variable, gradient in zip(
            net.trainable_variables, tape.gradient(loss, net.trainable_variables), strict=True
        ):
            assert np.all(np.isfinite(gradient)), variable.name
            assert np.any(gradient.numpy() != 0.0), variable.name
        for ours, theirs in zip(pyramid, net(levels), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)

    @pytest.mark.parametrize("upsampling", ["nearest", "trilinear"])
    @pytest.mark.parametrize("policy", halves.POLICIES)
    def test_half_precision(self, upsampling, policy):
        levels = features()
        single = make(extra="pool", upsampling=upsampling, bottom_up=True)
        expected = single(levels)
        tf.keras.mixed_precision.set_global_policy(policy)
        try:
            half = make(extra="pool", upsampling=upsampling, bottom_up=True)
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        half(levels)
        half.set_weights(single.get_weights())
        for ours, theirs in zip(half(levels), expected, strict=True):
            assert ours.dtype == policy.removeprefix("mixed_")
            tolerance = 0.03 * float(tf.reduce_max(tf.abs(theirs)))
            np.testing.assert_allclose(tf.cast(ours, tf.float32), theirs, atol=tolerance)

    def test_another_number_of_levels_is_an_error(self):
        with pytest.raises(ValueError, match="shorter"):
            make()(features()[:2])
