import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from configs import backbones
from configs.model_schema import Backbone, Style
from model import backbone, fpn, receptive_field

HEAD = [((3, 3, 3), (1, 1, 1))]


def windows(config):
    return backbone.make(config, Style()).windows


class ReceptiveFieldTest:
    def test_plain_network_layer_by_layer(self):
        layers = windows(backbones.plain())[5]
        assert layers[0] == ((1, 1, 1), (1, 1, 1))  # no pooling before the first stage
        fields = [receptive_field.receptive_field(layers[:count]) for count in range(2, len(layers) + 1)]
        assert fields == [(n, n, n) for n in (5, 6, 14, 16, 32, 36, 68, 76, 140)]
        assert receptive_field.receptive_field(layers + HEAD) == (172, 172, 172)

    def test_nothing_sees_one_voxel(self):
        assert receptive_field.receptive_field([]) == (1, 1, 1)


class ReceptiveFieldsTest:
    def test_head_comes_on_top_of_every_level(self):
        fields = receptive_field.receptive_fields(windows(backbones.plain()), HEAD)
        assert fields == {level: (n, n, n) for level, n in {1: 7, 2: 18, 3: 40, 4: 84, 5: 172}.items()}

    def test_resnet_50_by_hand(self):
        # Stem 7; pool + 2 * 2; then 2 * stride for each 3x3x3: the one with the stride still at the finer one.
        c2 = 7 + 4 + 3 * 2 * 4
        c3 = c2 + 2 * 4 + 3 * 2 * 8
        c4 = c3 + 2 * 8 + 5 * 2 * 16
        c5 = c4 + 2 * 16 + 2 * 2 * 32
        expected = {level: (n, n, n) for level, n in {1: 7, 2: c2, 3: c3, 4: c4, 5: c5}.items()}
        assert receptive_field.receptive_fields(windows(backbones.resnet(50))) == expected
        pointwise = dataclasses.replace(backbones.resnet(50), stride_in_pointwise=True)
        c3 = c2 + 4 * 2 * 8
        assert receptive_field.receptive_fields(windows(pointwise))[3] == (c3, c3, c3)

    def test_pyramid_adds_its_own_convolutions_and_the_extra_level(self):
        levels = windows(backbones.plain())
        strides = {level: (2 ** (level - 1),) * 3 for level in (2, 3, 4)}
        for extra, more in (("none", {}), ("pool", {5: 84}), ("conv", {5: 84 + 2 * 8})):
            pyramid = fpn.FPN(
                4,
                strides,
                extra=extra,
                extra_stride=(1, 2, 3),
                upsampling="nearest",
                bottom_up=True,
                style=Style(),
            )
            fields = receptive_field.receptive_fields(pyramid.windows(levels))
            assert fields == {level: (n, n, n) for level, n in ({2: 18, 3: 40, 4: 84} | more).items()}
        rpn = receptive_field.receptive_fields(pyramid.windows(levels), HEAD)
        assert rpn[5] == tuple(100 + 2 * 8 * stride for stride in (1, 2, 3))

    @pytest.mark.parametrize("kind", ["resnet", "plain"])
    def test_equals_the_voxels_that_a_gradient_reaches(self, kind):
        config = Backbone(
            kind=kind,
            stem_channels=2,
            stem_kernel=(1, 3, 5),
            stem_stride=(1, 2, 2),
            stem_pool=(1, 1, 2),
            stage_channels=(2, 2),
            stage_blocks=(1, 2),
            stage_kernels=((1, 3, 3), (3, 3, 1)),
            stage_strides=((1, 1, 2), (2, 1, 1)),
        )
        net = backbone.make(config, Style(norm="none", initializer="glorot_uniform"))
        volume = tf.ones([1, 17, 33, 65, 1])
        net(volume)
        net.set_weights([np.abs(w) + 0.1 for w in net.get_weights()])
        fields = receptive_field.receptive_fields(net.windows)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(volume)
            rising = volume * tf.reshape(tf.range(1.0, 66.0), [65, 1])  # so that a pooling has one largest
            middle = {level: tf.reduce_sum(_middle(x)) for level, x in net(rising).items()}
        for level, value in middle.items():
            reached = np.argwhere(tape.gradient(value, volume).numpy()[0, ..., 0] != 0)
            extent = reached.max(0) - reached.min(0) + 1
            # Along x pooling passes the gradient of its largest voxel alone, so there it is a bound.
            assert tuple(extent[:2]) == fields[level][:2]
            assert extent[2] <= fields[level][2]


def _middle(x):
    return x[0, x.shape[1] // 2, x.shape[2] // 2, x.shape[3] // 2]


class WarningsTest:
    def test_one_line_per_anchor_that_is_too_long_along_some_axis(self):
        fields = {2: (5, 9, 9), 3: (20, 40, 40)}
        anchors = {2: [(5.0, 9.0, 9.0), (6.0, 8.5, 8.5), (4.0, 4.0, 9.5)], 3: [(8.0, 30.0, 30.0)]}
        assert receptive_field.warnings(fields, anchors) == [
            "level 2: anchor of (6, 8.5, 8.5) outgrows the receptive field (5, 9, 9)",
            "level 2: anchor of (4, 4, 9.5) outgrows the receptive field (5, 9, 9)",
        ]

    def test_no_anchors_no_lines(self):
        assert receptive_field.warnings({2: (5, 9, 9)}, {}) == []


class TableTest:
    def test_a_line_per_level_with_a_mark_at_anchors_that_outgrow_it(self):
        fields = {2: (5, 9, 9), 3: (20, 40, 40)}
        strides = {2: (1, 2, 2), 3: (2, 4, 4)}
        anchors = {2: [(5.0, 9.0, 9.0), (4.0, 4.0, 9.5)], 3: [(8.0, 30.0, 30.0)]}
        assert receptive_field.table(fields, strides, anchors) == [
            "level  stride     sees          anchors (z, y, x voxels; ! outgrows what its level sees)",
            "P2     (1, 2, 2)  (5, 9, 9)     (5, 9, 9), (4, 4, 9.5) !",
            "P3     (2, 4, 4)  (20, 40, 40)  (8, 30, 30)",
        ]
