import numpy as np
import pytest
import tensorflow as tf

from model import backbone

SETTINGS = {
    "stem_channels": 4,
    "stem_kernel": 3,
    "stem_stride": (1, 2, 2),
    "stage_channels": (4, 8),
    "stage_blocks": (1, 2),
    "stage_strides": ((1, 1, 1), (2, 1, 3)),
    "norm": "group",
    "norm_groups": 2,
}
# Worked out by hand, kernels of 27 taps, 1 channel in.
STEM = 27 * 1 * 4
C2 = 27 * 4 * 4 + 27 * 4 * 4  # same width, stride 1: no projection
C3_0 = 27 * 4 * 8 + 27 * 8 * 8 + 4 * 8  # with projection
C3_1 = 27 * 8 * 8 + 27 * 8 * 8
KERNELS = STEM + C2 + C3_0 + C3_1
# Outputs of the normalised convolutions: stem, two of C2, three of C3_0, two of C3_1.
NORMED_CHANNELS = 4 + 2 * 4 + 3 * 8 + 2 * 8


def make(**changes):
    return backbone.ResNet(**{**SETTINGS, **changes})


class ResNetTest:
    def test_shapes_follow_the_strides_of_each_axis(self):
        c2, c3 = make()(tf.zeros([2, 4, 8, 12, 1]))
        assert c2.shape == (2, 4, 4, 6, 4)
        assert c3.shape == (2, 2, 4, 2, 8)

    def test_axes_that_the_stride_does_not_divide_are_rounded_up(self):
        c2, c3 = make()(tf.zeros([1, 5, 7, 11, 1]))
        assert c2.shape == (1, 5, 4, 6, 4)
        assert c3.shape == (1, 3, 4, 2, 8)

    @pytest.mark.parametrize(
        ("norm", "trainable", "other"),
        [
            ("group", KERNELS + 2 * NORMED_CHANNELS, 0),
            ("batch", KERNELS + 2 * NORMED_CHANNELS, 2 * NORMED_CHANNELS),
            ("none", KERNELS + NORMED_CHANNELS, 0),
        ],
    )
    def test_parameters_as_counted_by_hand(self, norm, trainable, other):
        net = make(norm=norm)
        net(tf.zeros([1, 4, 4, 6, 1]))
        assert sum(int(np.prod(v.shape)) for v in net.trainable_variables) == trainable
        assert sum(int(np.prod(v.shape)) for v in net.non_trainable_variables) == other

    def test_outputs_are_rectified_and_alive(self):
        volume = np.random.default_rng(0).normal(size=(1, 4, 8, 12, 1)).astype(np.float32)
        for output in make()(volume):
            assert np.all(output.numpy() >= 0.0)
            assert 0.0 < np.mean(output.numpy() > 0.0) < 1.0

    def test_batch_norm_depends_on_training_and_group_norm_does_not(self):
        volume = np.random.default_rng(0).normal(2.0, 1.0, (2, 4, 4, 6, 1)).astype(np.float32)
        changes = {}
        for norm in ("batch", "group"):
            net = make(norm=norm)
            net(volume)
            changes[norm] = np.abs(net(volume, training=True)[-1] - net(volume, training=False)[-1]).max()
        assert changes["group"] == 0.0
        assert changes["batch"] > 0.1


class BasicBlockTest:
    def test_shortcut_alone_remains_where_the_convolutions_are_zero(self):
        block = backbone.BasicBlock(3, (1, 1, 1), "none", 1)
        x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 3)).astype(np.float32)
        block(x)
        block.set_weights([np.zeros_like(w) for w in block.get_weights()])
        assert block.projection is None
        np.testing.assert_array_equal(block(x), np.maximum(x, 0.0))

    @pytest.mark.parametrize(("filters", "strides"), [(3, (1, 2, 1)), (5, (1, 1, 1))])
    def test_shortcut_is_projected_where_stride_or_width_change(self, filters, strides):
        block = backbone.BasicBlock(filters, strides, "none", 1)
        y = block(tf.zeros([2, 3, 4, 5, 3]))
        assert block.projection.conv.kernel.shape == (1, 1, 1, 3, filters)
        assert y.shape == (2, 3, 4 // strides[1], 5, filters)
