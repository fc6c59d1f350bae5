import math

import numpy as np
import pytest
import tensorflow as tf

from debugging import initial_losses
from model import targets
from tests import tiny
from tests.model import networks


class CheckTest:
    def test_a_sound_network_passes(self, made, tmp_path):
        checked = initial_losses.check(*made, tmp_path / "out", tf.distribute.get_strategy())
        found = {verdict.name: verdict for verdict in checked}
        assert list(found) == ["rpn_class", "rpn_box", "roi_class", "roi_box", "mask", "mask_dice"]
        assert all(verdict.passed for verdict in found.values()), found
        assert "0.6931 +- 10% (ln 2)" in found["rpn_class"].expected
        assert "1.0986 +- 10% (ln 3)" in found["roi_class"].expected
        assert "no value is known" in found["roi_box"].expected
        assert (tmp_path / "out" / "initial_losses.png").stat().st_size > 5000

    @pytest.mark.parametrize(
        ("layer", "loss"),
        [
            (lambda model: model.rpn_head.objectness, "rpn_class"),
            (lambda model: model.rpn_head.deltas, "rpn_box"),
            (lambda model: model.box_heads[0].logits, "roi_class"),
            (lambda model: model.mask_head.logits, "mask"),
        ],
    )
    def test_a_wrong_first_bias_fails(self, layer, loss):
        model = tiny.model(tiny.config())
        bias = layer(model).bias
        bias.assign(3.0 * np.arange(1, bias.shape[0] + 1))
        found = initial_losses.measure(model, tiny.batch(tiny.config(), 0), 0)
        assert initial_losses.verdict(loss, found).passed is False

    def test_focal_losses_and_a_cascade_pass(self):
        settings = tiny.config()
        settings.model.rpn.class_loss = settings.model.box_head.class_loss = "focal"
        settings.model.box_head.cascade_ious = (0.3, 0.4)
        settings.model.mask_head.losses = ("focal",)
        settings.model.keypoint_head.enabled = True
        settings.model.segmentation.channels = 8
        settings.model.style.l2 = 1e-3
        model = tiny.model(settings.validate())
        found = initial_losses.measure(model, tiny.batch(settings, 0, num_objects=(3, 2, 3)), 0)
        checked = {name: initial_losses.verdict(name, found) for name in model.loss_names()}
        heads, voxels = ["roi_class", "roi_box", "mask_focal", "keypoint"], ["segmentation", "segmentation_dice"]
        assert list(checked) == ["rpn_class", "rpn_box", *heads, *voxels, "l2"]
        assert all(verdict.passed for verdict in checked.values()), checked
        assert "focal loss of the prior 0.01" in checked["rpn_class"].expected
        assert "x 2 stages" in checked["roi_class"].expected
        assert "by 0.05" in checked["segmentation"].expected


class ExpectationsTest:
    def test_classes(self):
        settings = tiny.config().model.box_head
        assert initial_losses.roi_class_expectation(settings, 2).low == pytest.approx(math.log(3))
        settings.class_loss, settings.cascade_ious = "focal", (0.3, 0.4, 0.5)
        # 3 stages x ln 3 x (2/3)^2
        assert initial_losses.roi_class_expectation(settings, 2).high == pytest.approx(1.46482, abs=1e-5)

    def test_masks(self):
        settings = tiny.config().model.mask_head
        settings.losses = ("cross_entropy", "focal", "dice")
        settings.focal_alpha = 0.25
        found = initial_losses.mask_expectations(settings, 8)
        assert found["mask"][:2] == pytest.approx((0.693147, 0.693147))
        # ln 2 / 4 x 0.25 and x 0.75
        assert found["mask_focal"][:2] == pytest.approx((0.0433217, 0.129965), abs=1e-6)
        # 1 - 9 / 13 and 1 - 2 / 6
        assert found["mask_dice"][:2] == pytest.approx((0.307692, 0.666667), abs=1e-6)

    def test_landmarks(self):
        assert initial_losses.keypoint_expectation(64)[:2] == pytest.approx((math.log(8), math.log(64)))

    def test_focal_objectness_follows_the_counts(self):
        settings = tiny.config()
        settings.model.rpn.class_loss, settings.model.rpn.num_samples = "focal", 0
        settings.model.rpn.focal_prior = 0.1
        model, batch = tiny.model(settings), networks.as_tensors(tiny.batch(settings, 0, num_objects=(3,)))
        drawn = targets.anchor_targets(
            model.anchors,
            model.anchors_per_level,
            batch["boxes"],
            batch["valid"],
            tf.zeros([1, len(model.anchors)]),
            shape=model.patch_size,
            rpn=settings.model.rpn,
            seed=tf.constant([0, 0]),
        )
        positives, negatives = int(np.sum(drawn.positive)), int(np.sum(drawn.negative))
        assert positives > 0
        # 0.25 x 0.81 x ln 10, and 0.75 x 0.01 x ln (10 / 9)
        value = 0.466273 + negatives / positives * 0.000790204
        found = initial_losses.rpn_expectations(model, batch, tf.constant([0, 0]))
        assert found["rpn_class"].low == pytest.approx(value, rel=1e-5)

    def test_half_the_squares_of_kernels(self):
        settings = tiny.config()
        settings.model.style.l2 = 0.5
        model = tiny.model(settings)
        kernels = [v for v in model.trainable_variables if v.name.endswith("kernel:0")]
        for variable in model.trainable_variables:
            variable.assign(tf.fill(variable.shape, 2.0))
        count = sum(math.prod(kernel.shape) for kernel in kernels)
        assert initial_losses.l2_expectation(model).low == pytest.approx(0.5 * 0.5 * 4 * count)


class VerdictTest:
    EXPECTED = initial_losses.Expected(1.0, 2.0, "so")

    def judge(self, *values, known=True):
        expected = {"mask": self.EXPECTED} if known else {}
        return initial_losses.verdict("mask", [({"mask": value}, expected) for value in values])

    @pytest.mark.parametrize(("value", "passed"), [(0.89, False), (0.91, True), (2.19, True), (2.21, False)])
    def test_the_tolerance_is_a_tenth(self, value, passed):
        assert self.judge(value).passed is passed

    def test_examples_in_which_nothing_counts_are_left_out(self):
        assert self.judge(1.5, 0.0, 0.0).passed is True
        assert self.judge(0.0, 0.0).passed is False
        assert self.judge(0.0).came == "0 for every example: nothing counts"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
    @pytest.mark.parametrize("known", [True, False])
    def test_no_number_or_a_negative_one_fails(self, value, known):
        assert self.judge(value, known=known).passed is False

    def test_what_is_not_known_passes_if_it_is_sound(self):
        assert self.judge(7.0, known=False).passed is True
