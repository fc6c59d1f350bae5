import math

import numpy as np
import pytest
import tensorflow as tf

from ops import losses
from tests import reference

MASK_SHAPE = (2, 3, 4)


def masks(rng, shape):
    """Random masks [B, ...] whose last example has no item."""
    mask = rng.random(shape) < 0.6
    mask[0].flat[0] = True
    mask[-1] = False
    return mask


def sigmoid_case(rng):
    targets = rng.random((3, 5)).astype(np.float32)
    return rng.normal(0, 3, (3, 5)), targets, masks(rng, (3, 5)), {}


def softmax_case(rng):
    class_ids = rng.integers(0, 4, (3, 5)).astype(np.int32)
    return rng.normal(0, 3, (3, 5, 4)), class_ids, masks(rng, (3, 5)), {}


def smooth_l1_case(rng):
    targets = rng.normal(size=(3, 4, 6)).astype(np.float32)
    return rng.normal(size=(3, 4, 6)), targets, masks(rng, (3, 4)), {"beta": 0.7}


def mask_case(rng):
    targets = (rng.random((3, 2, *MASK_SHAPE)) < 0.5).astype(np.float32)
    return rng.normal(0, 3, (3, 2, *MASK_SHAPE)), targets, masks(rng, (3, 2)), {}


CASES = {
    "sigmoid_cross_entropy": sigmoid_case,
    "softmax_cross_entropy": softmax_case,
    "smooth_l1": smooth_l1_case,
    "mask_cross_entropy": mask_case,
    "dice": mask_case,
}


@pytest.mark.parametrize("name", CASES)
class EveryLossTest:
    def test_equals_reference(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(0))
        predictions = predictions.astype(np.float32)
        result = getattr(losses, name)(predictions, targets, mask, **settings)
        expected = getattr(reference, name)(predictions, targets, mask, **settings)
        assert result.dtype == tf.float32
        assert np.all(expected[:-1] > 0)
        assert expected[-1] == 0
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)

    def test_gradient_equals_finite_differences(self, name):
        rng = np.random.default_rng(1)
        predictions, targets, mask, settings = CASES[name](rng)
        weights = rng.uniform(0.5, 2, 3)
        variable = tf.constant(predictions, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            result = getattr(losses, name)(variable, targets, mask, **settings)
            loss = tf.reduce_sum(weights.astype(np.float32) * result)
        function = getattr(reference, name)
        expected = reference.finite_differences(
            lambda p: (weights * function(p, targets, mask, **settings)).sum(), predictions
        )
        gradient = tf.convert_to_tensor(tape.gradient(loss, variable))
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(gradient.numpy()[~mask], 0)

    def test_nothing_masked_is_zero_with_zero_gradient(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(2))
        variable = tf.constant(predictions, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            result = getattr(losses, name)(variable, targets, mask & False, **settings)
            loss = tf.reduce_sum(result)
        np.testing.assert_array_equal(result, [0, 0, 0])
        gradient = tf.convert_to_tensor(tape.gradient(loss, variable))
        np.testing.assert_array_equal(gradient, np.zeros(variable.shape))

    def test_no_items(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(3))
        predictions = predictions[:, :0].astype(np.float32)
        result = getattr(losses, name)(predictions, targets[:, :0], mask[:, :0], **settings)
        np.testing.assert_array_equal(result, [0, 0, 0])

    def test_items_left_out_have_no_say(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(4))
        predictions = predictions.astype(np.float32)
        function = getattr(losses, name)
        plain = function(predictions, targets, mask, **settings)
        predictions[~mask] = 1e4
        np.testing.assert_array_equal(function(predictions, targets, mask, **settings), plain)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_items_left_out_need_not_be_finite(self, name, value):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(8))
        predictions = predictions.astype(np.float32)
        function = getattr(losses, name)
        plain = function(predictions, targets, mask, **settings)
        predictions[~mask] = value
        np.testing.assert_array_equal(function(predictions, targets, mask, **settings), plain)

    def test_examples_are_apart(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(5))
        predictions = predictions.astype(np.float32)
        function = getattr(losses, name)
        together = function(predictions, targets, mask, **settings)
        for b in range(3):
            row = slice(b, b + 1)
            alone = function(predictions[row], targets[row], mask[row], **settings)
            np.testing.assert_allclose(alone, together[row], rtol=1e-5)

    def test_huge_predictions_stay_finite(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(6))
        variable = tf.constant(np.sign(predictions) * 1e4, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            result = getattr(losses, name)(variable, targets, mask, **settings)
            loss = tf.reduce_sum(result)
        assert np.all(np.isfinite(result))
        assert np.all(np.isfinite(tf.convert_to_tensor(tape.gradient(loss, variable))))

    def test_unknown_batch_and_count_equal_eager(self, name):
        predictions, targets, mask, settings = CASES[name](np.random.default_rng(7))
        predictions = predictions.astype(np.float32)
        function = getattr(losses, name)
        compiled = tf.function(
            lambda p, t, m: function(p, t, m, **settings),
            input_signature=[
                tf.TensorSpec([None, None, *predictions.shape[2:]], tf.float32),
                tf.TensorSpec([None, None, *targets.shape[2:]], tf.as_dtype(targets.dtype)),
                tf.TensorSpec([None, None], tf.bool),
            ],
        )
        for batch, count in [(3, None), (1, 1), (2, 0)]:
            part = (slice(batch), slice(count))
            eager = function(predictions[part], targets[part], mask[part], **settings)
            result = compiled(predictions[part], targets[part], mask[part])
            np.testing.assert_allclose(result, eager, rtol=1e-5, atol=1e-7)


class SigmoidCrossEntropyTest:
    @pytest.mark.parametrize(
        ("logits", "targets", "mask", "expected"),
        [
            ([0.0, 0.0], [0.0, 1.0], [True, True], math.log(2)),
            ([math.log(3), 9.0], [1.0, 0.0], [True, False], math.log(4 / 3)),
            ([math.log(3), -math.log(3)], [0.0, 1.0], [True, True], math.log(4)),
            ([1e3, -1e3], [1.0, 0.0], [True, True], 0.0),
            ([5.0, 5.0], [0.0, 0.0], [False, False], 0.0),
        ],
    )
    def test_hand_values(self, logits, targets, mask, expected):
        result = losses.sigmoid_cross_entropy(tf.constant([logits]), tf.constant([targets]), tf.constant([mask]))
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    def test_more_dimensions_are_more_items(self):
        rng = np.random.default_rng(8)
        logits = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
        targets, mask = rng.random((2, 5, 7, 3)).astype(np.float32), masks(rng, (2, 5, 7, 3))
        expected = reference.sigmoid_cross_entropy(logits, targets, mask)
        result = losses.sigmoid_cross_entropy(logits, targets, mask)
        np.testing.assert_allclose(result, expected, rtol=1e-4)


class SoftmaxCrossEntropyTest:
    @pytest.mark.parametrize(
        ("logits", "class_ids", "mask", "expected"),
        [
            ([[0.0, 0, 0]], [2], [True], math.log(3)),
            ([[0.0, 0, math.log(2)]], [2], [True], math.log(2)),
            ([[0.0, 0, 0], [0, 0, math.log(2)]], [0, 2], [True, True], math.log(6) / 2),
            ([[0.0, 0, 0], [9, 0, 0]], [0, 2], [True, False], math.log(3)),
            ([[1e3, 0, -1e3]], [0], [True], 0.0),
        ],
    )
    def test_hand_values(self, logits, class_ids, mask, expected):
        result = losses.softmax_cross_entropy(tf.constant([logits]), tf.constant([class_ids]), tf.constant([mask]))
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    def test_a_constant_added_to_the_logits_changes_nothing(self):
        logits, class_ids, mask, _ = softmax_case(np.random.default_rng(9))
        logits = logits.astype(np.float32)
        np.testing.assert_allclose(
            losses.softmax_cross_entropy(logits + 50, class_ids, mask),
            losses.softmax_cross_entropy(logits, class_ids, mask),
            rtol=1e-3,
        )


class SmoothL1Test:
    @pytest.mark.parametrize(
        ("errors", "beta", "expected"),
        [
            ([0, 0, 0, 0, 0, 0], 1.0, 0.0),
            ([1, 0, 0, 0, 0, 0], 1.0, 0.5),  # where the two pieces meet
            ([0.5, -0.5, 0, 0, 0, 0], 1.0, 0.25),
            ([3, 0, 0, 0, 0, -2], 1.0, 4.0),
            ([0.1, 0, 0, 0, 0, -0.4], 0.2, 0.025 + 0.3),
            ([1, 1, 1, 1, 1, 1], 2.0, 1.5),
        ],
    )
    def test_hand_values(self, errors, beta, expected):
        targets = np.arange(6, dtype=np.float32)[None, None]
        predictions = targets + np.float32(errors)
        result = losses.smooth_l1(predictions, targets, tf.constant([[True]]), beta=beta)
        np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-6)

    def test_items_are_averaged_not_coordinates(self):
        predictions = np.zeros((1, 3, 6), np.float32)
        predictions[0, :2] = 2.0
        result = losses.smooth_l1(predictions, np.zeros_like(predictions), tf.constant([[True, False, True]]), beta=1.0)
        np.testing.assert_allclose(result, [6 * 1.5 / 2], rtol=1e-5)


class MaskCrossEntropyTest:
    def test_hand_values(self):
        logits = np.zeros((2, 2, *MASK_SHAPE), np.float32)
        logits[1, 0] = math.log(3)
        targets = np.ones_like(logits)
        targets[1, 0, 0] = 0.0
        result = losses.mask_cross_entropy(logits, targets, tf.constant([[True, True]] * 2))
        half = (math.log(4) + math.log(4 / 3)) / 2  # half the voxels of that mask are wrong
        np.testing.assert_allclose(result, [math.log(2), (half + math.log(2)) / 2], rtol=1e-5)


class DiceTest:
    @pytest.mark.parametrize(
        ("logit", "num_true", "expected"),
        [
            (0.0, 0, 1 - 1 / 13),  # p is 1/2 in 24 voxels
            (0.0, 24, 1 - 25 / 37),
            (0.0, 12, 1 - 13 / 25),
            (-100.0, 0, 0.0),  # nothing there and nothing seen
            (100.0, 24, 0.0),
            (100.0, 0, 1 - 1 / 25),
        ],
    )
    def test_hand_values(self, logit, num_true, expected):
        targets = (np.arange(24) < num_true).astype(np.float32).reshape(1, 1, *MASK_SHAPE)
        result = losses.dice(np.full_like(targets, logit), targets, tf.constant([[True]]))
        np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-6)
