import numpy as np
import pytest
import tensorflow as tf

from model import losses, targets

WEIGHTS = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)


def softplus(x):
    return np.log1p(np.exp(x))


def roi_targets(class_ids, valid, deltas):
    return targets.RoiTargets(None, np.int32(class_ids), None, np.float32(deltas), np.array(valid))


class RpnLossesTest:
    def test_hand_values_per_volume(self):
        logits = np.float32([[2.0, -1.0, 30.0], [0.5, 0.0, 0.0]])
        deltas = np.zeros((2, 3, 6), np.float32)
        deltas[0, 0, :2] = [0.05, -1.0]
        drawn = targets.AnchorTargets(
            positive=np.array([[True, False, False], [False, False, False]]),
            negative=np.array([[False, True, False], [True, False, False]]),
            deltas=np.zeros((2, 3, 6), np.float32),
        )
        result = losses.rpn_losses(logits, deltas, drawn)
        expected = [(softplus(-2.0) + softplus(-1.0)) / 2, softplus(0.5)]
        np.testing.assert_allclose(result["rpn_class"], expected, rtol=1e-6)
        # Quadratic below a ninth, linear above.
        np.testing.assert_allclose(result["rpn_box"], [0.5 * 0.05**2 * 9 + 1.0 - 0.5 / 9, 0.0], rtol=1e-5)

    def test_nothing_drawn_gives_zero_and_a_finite_gradient(self):
        logits, deltas = tf.ones([2, 3]), tf.ones([2, 3, 6])
        nothing = np.zeros((2, 3), bool)
        with tf.GradientTape() as tape:
            tape.watch([logits, deltas])
            result = losses.rpn_losses(
                logits, deltas, targets.AnchorTargets(nothing, nothing, np.ones((2, 3, 6)) / 0.1)
            )
            total = tf.add_n(list(result.values()))
        np.testing.assert_array_equal(total, [0.0, 0.0])
        for gradient in tape.gradient(total, [logits, deltas]):
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


class BoxLossesTest:
    def test_hand_values(self):
        logits = np.float32([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [9.0, 9.0, 9.0]]])
        deltas = np.zeros((1, 3, 2, 6), np.float32)
        deltas[0, 0, 0] = 100.0  # of the other class: no matter
        deltas[0, 0, 1] = [1.5, 0, 0, 0, 0, 0.25]
        rois = roi_targets([[2, 0, 0]], [[True, True, False]], [[[0.1, 0, 0, 0, 0, 0.05]] + [[7.0] * 6] * 2])
        result = losses.box_losses(logits, deltas, rois, WEIGHTS)
        first = np.log(1 + np.exp(1.0) + np.exp(2.0)) - 2.0
        second = np.log(np.exp(3.0) + 2.0) - 3.0
        np.testing.assert_allclose(result["roi_class"], [(first + second) / 2], rtol=1e-6)
        # Targets in units of the weights are 1.0 and 0.25; beta is 1.
        np.testing.assert_allclose(result["roi_box"], [0.5 * 0.5**2], rtol=1e-5)

    def test_without_objects_the_box_loss_is_zero_with_zero_gradient(self):
        deltas = tf.ones([1, 2, 2, 6])
        rois = roi_targets([[0, 0]], [[True, False]], np.ones((1, 2, 6)))
        with tf.GradientTape() as tape:
            tape.watch(deltas)
            loss = losses.box_losses(tf.zeros([1, 2, 3]), deltas, rois, WEIGHTS)["roi_box"]
        np.testing.assert_array_equal(loss, [0.0])
        np.testing.assert_array_equal(tape.gradient(loss, deltas), np.zeros((1, 2, 2, 6)))

    def test_no_valid_roi_gives_zero(self):
        rois = roi_targets([[0, 0]], [[False, False]], np.zeros((1, 2, 6)))
        result = losses.box_losses(tf.ones([1, 2, 3]), tf.ones([1, 2, 2, 6]), rois, WEIGHTS)
        assert {name: value.numpy().tolist() for name, value in result.items()} == {
            "roi_class": [0.0],
            "roi_box": [0.0],
        }


class MaskLossesTest:
    def test_mask_of_the_true_class_alone_counts(self):
        logits = np.full((1, 2, 2, 3, 4, 2), 50.0, np.float32)
        logits[0, 0, ..., 1] = -1.0
        target = np.zeros((1, 2, 2, 3, 4), np.float32)
        target[0, 0, 0] = 1.0  # 12 of 24 voxels
        result = losses.mask_losses(logits, target, np.int32([[2, 0]]))
        np.testing.assert_allclose(result["mask"], [(softplus(1.0) + softplus(-1.0)) / 2], rtol=1e-5)
        p = 1.0 / (1.0 + np.exp(1.0))
        np.testing.assert_allclose(result["mask_dice"], [1 - (2 * 12 * p + 1) / (24 * p + 12 + 1)], rtol=1e-5)

    def test_without_objects_zero_and_zero_gradient(self):
        logits = tf.ones([2, 1, 2, 3, 4, 2])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            result = losses.mask_losses(logits, tf.zeros([2, 1, 2, 3, 4]), tf.zeros([2, 1], tf.int32))
            total = result["mask"] + result["mask_dice"]
        np.testing.assert_array_equal(total, [0.0, 0.0])
        np.testing.assert_array_equal(tape.gradient(total, logits), np.zeros(logits.shape))


class SelectClassTest:
    @pytest.mark.parametrize(("class_id", "channel"), [(0, 0), (1, 0), (2, 1), (3, 2)])
    def test_reads_the_channel_of_the_class(self, class_id, channel):
        logits = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 5, 3)).astype(np.float32)
        chosen = losses.select_class(logits, np.full((2, 3), class_id, np.int32))
        np.testing.assert_array_equal(chosen, logits[..., channel])
