import math

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa
from hypothesis import strategies as st

from ops import losses
from tests import reference
from tests.ops import loss_cases


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
        targets, mask = rng.random((2, 5, 7, 3)).astype(np.float32), loss_cases.masks(rng, (2, 5, 7, 3))
        expected = reference.sigmoid_cross_entropy(logits, targets, mask)
        result = losses.sigmoid_cross_entropy(logits, targets, mask)
        np.testing.assert_allclose(result, expected, rtol=1e-4)

    @pytest.mark.parametrize(
        ("logits", "targets", "class_weights", "expected"),
        [
            ([0.0, 0.0], [0.0, 1.0], (1, 3), math.log(2)),  # a mean: both lose log 2
            ([0.0, math.log(3)], [1.0, 0.0], (3, 1), (math.log(2) + 3 * math.log(4)) / 4),
            ([0.0, math.log(3)], [0.0, 1.0], (0, 5), math.log(4 / 3)),
            ([0.0, math.log(3)], [0.0, 0.0], (0, 5), 0.0),  # what is there has no weight
            (
                [0.0, math.log(3)],
                [0.5, 0.0],
                (1, 0),
                (0.5 * math.log(2) + math.log(4)) / 1.5,
            ),  # half a target, half of 1
        ],
    )
    def test_hand_values_with_class_weights(self, logits, targets, class_weights, expected):
        mask = tf.constant([[True, True]])
        result = losses.sigmoid_cross_entropy(
            tf.constant([logits]), tf.constant([targets]), mask, class_weights=class_weights
        )
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    def test_is_the_softmax_of_two_classes(self):
        rng = np.random.default_rng(9)
        logits = rng.normal(0, 3, (2, 9)).astype(np.float32)
        class_ids, mask = rng.integers(0, 2, (2, 9)).astype(np.int32), loss_cases.masks(rng, (2, 9))
        pairs = np.stack([np.zeros_like(logits), logits], -1)
        for weights in (None, (0.3, 2.0)):
            np.testing.assert_allclose(
                losses.sigmoid_cross_entropy(logits, class_ids, mask, class_weights=weights),
                losses.softmax_cross_entropy(pairs, class_ids, mask, class_weights=weights),
                rtol=1e-5,
            )

    def test_equals_keras(self):
        rng = np.random.default_rng(10)
        logits, targets = rng.normal(0, 3, (2, 9)).astype(np.float32), rng.random((2, 9)).astype(np.float32)
        keras = tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
        result = losses.sigmoid_cross_entropy(logits, targets, np.ones((2, 9), bool))
        np.testing.assert_allclose(result, keras(targets, logits), rtol=1e-5)

    def test_needs_two_class_weights(self):
        logits, mask = tf.zeros([1, 3]), np.ones((1, 3), bool)
        with pytest.raises(ValueError, match=r"expected class_weights \[2\]; came class_weights \[3\]"):
            losses.sigmoid_cross_entropy(logits, logits, mask, class_weights=(1.0, 1.0, 1.0))


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
        logits, class_ids, mask = loss_cases.softmax_case(np.random.default_rng(9))
        logits = logits.astype(np.float32)
        np.testing.assert_allclose(
            losses.softmax_cross_entropy(logits + 50, class_ids, mask),
            losses.softmax_cross_entropy(logits, class_ids, mask),
            rtol=1e-3,
        )

    @pytest.mark.parametrize(
        ("class_weights", "mask", "expected"),
        [
            ((1, 1, 1), [True, True], (math.log(4) + math.log(2)) / 2),
            ((1, 5, 3), [True, True], (math.log(4) + 3 * math.log(2)) / 4),
            ((0, 0, 7), [True, True], math.log(2)),
            ((1, 0, 7), [True, False], math.log(4)),
            ((0, 1, 0), [True, True], 0.0),  # all that counts has weight 0
            ((1e-30, 0, 1e-30), [True, True], (math.log(4) + math.log(2)) / 2),
        ],
    )
    def test_hand_values_with_class_weights(self, class_weights, mask, expected):
        logits = tf.constant([[[0.0, 0.0, math.log(2)]] * 2])  # probabilities 1/4, 1/4, 1/2
        with tf.GradientTape() as tape:
            tape.watch(logits)
            result = losses.softmax_cross_entropy(
                logits, tf.constant([[0, 2]]), tf.constant([mask]), class_weights=class_weights
            )
        np.testing.assert_allclose(result, [expected], rtol=1e-5)
        gradient = tape.gradient(result, logits)
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0) == (expected > 0)

    def test_class_weights_as_a_tensor_and_by_any_factor_are_the_same(self):
        logits, class_ids, mask = loss_cases.softmax_case(np.random.default_rng(11))
        weights = [0.5, 1.0, 2.0, 4.0]
        plain = losses.softmax_cross_entropy(logits, class_ids, mask, class_weights=weights)
        for same in (tf.constant(weights), np.float64(weights), 8 * tf.constant(weights)):
            result = losses.softmax_cross_entropy(logits, class_ids, mask, class_weights=same)
            np.testing.assert_allclose(result, plain, rtol=1e-6)

    def test_equals_keras(self):
        logits, class_ids, _ = loss_cases.softmax_case(np.random.default_rng(12))
        weights = np.float32([0.5, 1.0, 2.0, 4.0])
        keras = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        by_item = keras(class_ids, logits, sample_weight=weights[class_ids])
        expected = tf.reduce_sum(by_item, 1) / weights[class_ids].sum(1)
        result = losses.softmax_cross_entropy(logits, class_ids, np.ones((3, 5), bool), class_weights=weights)
        np.testing.assert_allclose(result, expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "function", [losses.softmax_cross_entropy, lambda *a, **s: losses.softmax_focal(*a, gamma=1, **s)]
    )
    @pytest.mark.parametrize(
        ("class_weights", "words"),
        [
            ((1.0, 1.0), r"expected class_weights \[3\]; came class_weights \[2\]"),
            (np.ones((1, 3)), r"class_weights \[3\]; came class_weights \[1, 3\]"),
            (tf.ones([4]), r"class_weights \[3\]; came class_weights \[4\]"),
            ((1.0, -0.5, 1.0), r"expected class_weights in \[0, .*\], came -0.5"),
            ((1.0, math.nan, 1.0), r"expected class_weights in \[0, .*\], came nan"),
            ((1.0, math.inf, 1.0), r"expected class_weights in \[0, .*\], came inf"),
        ],
    )
    def test_wrong_class_weights_raise(self, function, class_weights, words):
        with pytest.raises(ValueError, match=words):
            function(
                tf.zeros([1, 2, 3]), np.zeros((1, 2), np.int32), np.ones((1, 2), bool), class_weights=class_weights
            )


class SoftmaxDivergenceTest:
    @pytest.mark.parametrize(
        ("logits", "targets", "mask", "expected"),
        [
            ([[0.0, 0, 0]], [[0.0, 0, 1]], [True], math.log(3)),
            ([[0.0, 0, 0]], [[0.5, 0.5, 0]], [True], math.log(3) - math.log(2)),
            ([[0.0, 0, math.log(2)]], [[0.25, 0.25, 0.5]], [True], 0.0),
            ([[0.0, 0, 0], [0, 0, math.log(2)]], [[1.0, 0, 0], [0, 0, 1]], [True, True], math.log(6) / 2),
            ([[0.0, 0, 0], [9, 0, 0]], [[1.0, 0, 0], [0, 0, 1]], [True, False], math.log(3)),
            ([[1e3, 0, -1e3]], [[1.0, 0, 0]], [True], 0.0),
        ],
    )
    def test_hand_values(self, logits, targets, mask, expected):
        result = losses.softmax_divergence(tf.constant([logits]), tf.constant([targets]), tf.constant([mask]))
        np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-7)

    def test_of_one_right_class_is_the_cross_entropy(self):
        logits, class_ids, mask = loss_cases.softmax_case(np.random.default_rng(0))
        logits = logits.astype(np.float32)
        np.testing.assert_allclose(
            losses.softmax_divergence(logits, np.eye(4, dtype=np.float32)[class_ids], mask),
            losses.softmax_cross_entropy(logits, class_ids, mask),
            rtol=1e-5,
        )


class SoftmaxFocalTest:
    @pytest.mark.parametrize(
        ("gamma", "class_weights", "expected"),
        [
            (0, None, (math.log(4) + math.log(2)) / 2),
            (1, None, (3 / 4 * math.log(4) + 1 / 2 * math.log(2)) / 2),
            (2, None, (9 / 16 * math.log(4) + 1 / 4 * math.log(2)) / 2),
            (2, (1, 9, 3), (9 / 16 * math.log(4) + 3 * 1 / 4 * math.log(2)) / 4),
            (0.5, (0, 0, 1), math.sqrt(1 / 2) * math.log(2)),
        ],
    )
    def test_hand_values(self, gamma, class_weights, expected):
        logits = tf.constant([[[0.0, 0.0, math.log(2)]] * 2])
        ids, mask = tf.constant([[0, 2]]), tf.constant([[True, True]])
        result = losses.softmax_focal(logits, ids, mask, gamma=gamma, class_weights=class_weights)
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    @pytest.mark.parametrize("class_weights", [None, (1.0, 2.0, 0.0, 3.0)])
    def test_gamma_0_is_cross_entropy(self, class_weights):
        logits, class_ids, mask = loss_cases.softmax_case(np.random.default_rng(0))
        for scale in (1, 1e4):
            np.testing.assert_allclose(
                losses.softmax_focal(scale * logits, class_ids, mask, gamma=0, class_weights=class_weights),
                losses.softmax_cross_entropy(scale * logits, class_ids, mask, class_weights=class_weights),
                rtol=1e-6,
            )

    def test_one_class_alone_has_no_loss(self):
        logits, ids = tf.constant([[[3.0], [-3.0]]]), np.zeros((1, 2), np.int32)
        for gamma in (0, 0.5, 2):
            result, gradient = loss_cases.with_gradient(
                lambda *args, gamma=gamma: losses.softmax_focal(*args, gamma=gamma), logits, ids, np.ones((1, 2), bool)
            )
            np.testing.assert_array_equal(result, [0])
            np.testing.assert_array_equal(gradient, np.zeros((1, 2, 1)))

    def test_gamma_below_0_raises(self):
        with pytest.raises(ValueError, match=r"expected gamma in \[0, inf\], came -1"):
            losses.softmax_focal(tf.zeros([1, 2, 3]), np.zeros((1, 2), np.int32), np.ones((1, 2), bool), gamma=-1)


class FocalTest:
    @pytest.mark.parametrize(
        ("logits", "targets", "mask", "alpha", "gamma", "expected"),
        [
            # p is 3/4 at log 3
            ([0.0], [1.0], [True], 0.25, 2, 0.25 / 4 * math.log(2)),
            ([0.0], [0.0], [True], 0.25, 2, 0.75 / 4 * math.log(2)),
            ([math.log(3)], [1.0], [True], 1.0, 2, 1 / 16 * math.log(4 / 3)),
            ([math.log(3)], [0.0], [True], 0.0, 1, 3 / 4 * math.log(4)),
            ([0.0, 0.0], [1.0, 1.0], [True, True], 0.5, 0, 0.5 * math.log(2)),  # by two positives
            ([0.0, 0.0], [1.0, 1.0], [True, False], 0.5, 0, 0.5 * math.log(2)),
            ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [True] * 3, 0.5, 0, 1.5 * math.log(2)),  # by one
            ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [True] * 3, 0.5, 0, 1.5 * math.log(2)),  # by one for want of any
            ([0.0, 0.0], [1.0, 0.0], [False, True], 0.5, 0, 0.5 * math.log(2)),
            ([0.0, 0.0], [1.0, 0.0], [False, False], 0.5, 2, 0.0),
            ([1e4, -1e4], [1.0, 0.0], [True, True], 0.5, 0.5, 0.0),
            ([-1e4, 0.0], [1.0, 1.0], [True, False], 0.25, 2, 0.25 * 1e4),
        ],
    )
    def test_hand_values(self, logits, targets, mask, alpha, gamma, expected):
        result = losses.focal(
            tf.constant([logits]), tf.constant([targets]), tf.constant([mask]), alpha=alpha, gamma=gamma
        )
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    def test_one_hot_classes_are_so_many_binary_problems(self):
        logits, targets, mask = loss_cases.classes_case(np.random.default_rng(9))
        settings = {"alpha": 0.25, "gamma": 2.0}
        flat = [np.reshape(x, (3, -1)) for x in (logits, targets, np.repeat(mask[..., None], 3, -1))]
        result = losses.focal(logits, targets, mask, **settings)
        np.testing.assert_allclose(result, losses.focal(*flat, **settings), rtol=1e-5)
        assert mask[0].sum() > targets[0][mask[0]].sum() > 1  # some background, and a mean over positives alone

    def test_gamma_0_is_cross_entropy_weighted_by_alpha(self):
        rng = np.random.default_rng(2)
        logits, mask = rng.normal(0, 3, (2, 9)), np.ones((2, 9), bool)
        targets = np.float32([[0, 1, 1, 1, 0, 0, 1, 0, 0], [0] * 9])
        alpha = 0.3
        weights = np.where(targets == 1, alpha, 1 - alpha).sum(1)
        for scale in (1, 1e4):
            result = losses.focal(scale * logits, targets, mask, alpha=alpha, gamma=0)
            mean = losses.sigmoid_cross_entropy(scale * logits, targets, mask, class_weights=(1 - alpha, alpha))
            np.testing.assert_allclose(result, mean * weights / [4, 1], rtol=1e-5)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_equals_addons(self, gamma):
        rng = np.random.default_rng(3)
        logits = rng.normal(0, 2, (2, 9)).astype(np.float32)
        targets = (rng.random((2, 9)) < 0.4).astype(np.float32)
        addons = tfa.losses.sigmoid_focal_crossentropy(targets, logits, alpha=0.3, gamma=gamma, from_logits=True)
        result = losses.focal(logits, targets, np.ones((2, 9), bool), alpha=0.3, gamma=gamma)
        np.testing.assert_allclose(result, addons / targets.sum(1), rtol=1e-4)

    def test_flipped_logits_and_targets_with_the_other_alpha_are_the_same(self):
        logits, targets, mask = loss_cases.sigmoid_case(np.random.default_rng(4))
        count = np.where(mask, targets, 0).sum(1), np.where(mask, 1 - targets, 0).sum(1)
        result = losses.focal(logits, targets, mask, alpha=0.2, gamma=2)
        flipped = losses.focal(-logits, 1 - targets, mask, alpha=0.8, gamma=2)
        np.testing.assert_allclose(result * np.maximum(count[0], 1), flipped * np.maximum(count[1], 1), rtol=1e-4)

    @hypothesis.settings(deadline=None, max_examples=50, derandomize=True)
    @hypothesis.given(
        logits=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6),
        gamma=st.one_of(st.just(0.0), st.floats(1e-3, 10)),
        alpha=st.floats(0, 1),
        target=st.sampled_from([0.0, 0.25, 1.0]),
    )
    def test_any_logit_gives_a_finite_loss_and_gradient(self, logits, gamma, alpha, target):
        logits = np.float32([logits])
        result, gradient = loss_cases.with_gradient(
            lambda *args: losses.focal(*args, alpha=alpha, gamma=gamma),
            logits,
            np.full_like(logits, target),
            np.ones(logits.shape, bool),
        )
        assert np.all(np.isfinite(result))
        assert np.all(result >= 0)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"alpha": 1.5, "gamma": 2}, r"expected alpha in \[0, 1\], came 1.5"),
            ({"alpha": -0.1, "gamma": 2}, r"expected alpha in \[0, 1\], came -0.1"),
            ({"alpha": 0.5, "gamma": -0.1}, r"expected gamma in \[0, inf\], came -0.1"),
        ],
    )
    def test_settings_out_of_range_raise(self, settings, words):
        with pytest.raises(ValueError, match=words):
            losses.focal(tf.zeros([1, 2]), tf.zeros([1, 2]), np.ones((1, 2), bool), **settings)

    def test_classes_need_targets_of_the_same_shape(self):
        words = r"expected logits \[B, i1, K\], targets \[B, i1, K\], mask \[B, i1\]; came .* targets \[1, 2, 4\]"
        with pytest.raises(ValueError, match=words):
            losses.focal(tf.zeros([1, 2, 3]), tf.zeros([1, 2, 4]), np.ones((1, 2), bool), alpha=0.5, gamma=2)


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

    def test_equals_keras(self):
        predictions, targets, _ = loss_cases.deltas_case(np.random.default_rng(0))
        keras = tf.keras.losses.Huber(delta=0.4, reduction="none")(targets, predictions.astype(np.float32))
        result = losses.smooth_l1(predictions, targets, np.ones((3, 4), bool), beta=0.4)
        np.testing.assert_allclose(result, 6 / 0.4 * tf.reduce_mean(keras, 1), rtol=1e-5)

    @pytest.mark.parametrize("beta", [1e-30, 1e-3, 1.0])
    def test_distances_of_any_size_have_the_gradient_of_their_piece(self, beta):
        distances = np.float32([[[0.0, 1e-3 * beta, 0.5 * beta, beta, 1e20, -1e30]]])
        _, gradient = loss_cases.with_gradient(
            lambda *args: losses.smooth_l1(*args, beta=beta), distances, np.zeros_like(distances), np.ones((1, 1), bool)
        )
        expected = np.clip(np.float64(distances[0, 0]) / beta, -1, 1)
        np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)

    @pytest.mark.parametrize("beta", [0, -1.0, math.nan])
    def test_beta_not_above_0_raises(self, beta):
        with pytest.raises(ValueError, match=f"expected beta above 0, came {beta}"):
            losses.smooth_l1(tf.zeros([1, 2, 6]), tf.zeros([1, 2, 6]), np.ones((1, 2), bool), beta=beta)

    @pytest.mark.parametrize("size", [1, 3, 7])
    def test_any_last_axis_is_summed(self, size):
        predictions, targets = np.full((1, 2, size), 2.0), np.zeros((1, 2, size))
        result = losses.smooth_l1(predictions, targets, np.array([[True, False]]), beta=1.0)
        np.testing.assert_allclose(result, [1.5 * size], rtol=1e-6)

    def test_last_axes_that_differ_raise(self):
        words = r"expected predictions \[B, i1, N\], targets \[B, i1, N\], mask \[B, i1\]; came .* targets \[1, 2, 4\]"
        with pytest.raises(ValueError, match=words):
            losses.smooth_l1(tf.zeros([1, 2, 6]), tf.zeros([1, 2, 4]), np.ones((1, 2), bool), beta=1)


class LinexTest:
    @pytest.mark.parametrize(
        ("errors", "expected"),
        [
            ([0.0], 0.0),
            ([math.log(2)], 1 - math.log(2)),
            ([-math.log(2)], math.log(2) - 0.5),
            ([math.log(2), -math.log(2)], 0.5),
            ([3.0], math.e**2 - 3 + math.e**2 - 1),
            ([-50.0], 49.0),
            ([1e20], (math.e**2 - 1) * 1e20),
        ],
    )
    def test_hand_values(self, errors, expected):
        targets = np.zeros((1, 1, len(errors)), np.float32)
        result = losses.linex(targets + np.float32(errors), targets, tf.constant([[True]]), reach=2.0)
        np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-7)

    def test_the_best_constant_has_ratios_of_mean_1(self):
        targets = np.log(np.float32([[[2.0], [5.0], [10.0]]]))
        best = math.log(3 / (1 / 2 + 1 / 5 + 1 / 10))  # their harmonic mean
        counts = np.ones((1, 3), bool)
        _, gradient = loss_cases.with_gradient(
            lambda *args: losses.linex(*args, reach=2.0), np.full_like(targets, best), targets, counts
        )
        np.testing.assert_allclose(tf.reduce_sum(gradient), 0.0, atol=1e-6)

    @pytest.mark.parametrize("reach", [0, -1.0, math.nan])
    def test_reach_not_above_0_raises(self, reach):
        with pytest.raises(ValueError, match=f"expected reach above 0, came {reach}"):
            losses.linex(tf.zeros([1, 2, 1]), tf.zeros([1, 2, 1]), np.ones((1, 2), bool), reach=reach)


class MaskCrossEntropyTest:
    def test_hand_values(self):
        logits = np.zeros((2, 2, *loss_cases.MASK_SHAPE), np.float32)
        logits[1, 0] = math.log(3)
        targets = np.ones_like(logits)
        targets[1, 0, 0] = 0.0
        result = losses.mask_cross_entropy(logits, targets, tf.constant([[True, True]] * 2))
        half = (math.log(4) + math.log(4 / 3)) / 2  # half the voxels of that mask are wrong
        np.testing.assert_allclose(result, [math.log(2), (half + math.log(2)) / 2], rtol=1e-5)


class MaskFocalTest:
    def test_hand_values(self):
        logits = np.zeros((1, 2, *loss_cases.MASK_SHAPE), np.float32)
        logits[0, 1] = math.log(3)
        targets = np.ones_like(logits)
        targets[0, 1, 0] = 0.0
        mask = tf.constant([[True, True]])
        # By voxels, half of them wrong in the second mask, then by masks.
        for gamma, unsure, right, wrong in ((0, 1, 1, 1), (1, 1 / 2, 1 / 4, 3 / 4), (2, 1 / 4, 1 / 16, 9 / 16)):
            result = losses.mask_focal(logits, targets, mask, alpha=0.25, gamma=gamma)
            second = (0.25 * right * math.log(4 / 3) + 0.75 * wrong * math.log(4)) / 2
            np.testing.assert_allclose(result, [(0.25 * unsure * math.log(2) + second) / 2], rtol=1e-5)

    def test_at_gamma_0_and_alpha_a_half_it_is_half_the_cross_entropy(self):
        logits, targets, mask = loss_cases.mask_case(np.random.default_rng(0))
        for scale in (1, 1e4):
            result = losses.mask_focal(scale * logits, targets, mask, alpha=0.5, gamma=0)
            np.testing.assert_allclose(result, losses.mask_cross_entropy(scale * logits, targets, mask) / 2, rtol=1e-5)

    def test_a_small_gamma_has_a_finite_gradient_where_all_is_right(self):
        targets = (np.arange(24) < 9).astype(np.float32).reshape(1, 1, *loss_cases.MASK_SHAPE)
        result, gradient = loss_cases.with_gradient(
            lambda *args: losses.mask_focal(*args, alpha=0.5, gamma=0.5),
            1e4 * (2 * targets - 1),
            targets,
            np.ones((1, 1), bool),
        )
        np.testing.assert_array_equal(result, [0])
        np.testing.assert_array_equal(gradient, np.zeros_like(targets))

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"alpha": 1.5, "gamma": 2}, r"expected alpha in \[0, 1\], came 1.5"),
            ({"alpha": 0.5, "gamma": -0.1}, r"expected gamma in \[0, inf\], came -0.1"),
        ],
    )
    def test_settings_out_of_range_raise(self, settings, words):
        masks = tf.zeros([1, 2, *loss_cases.MASK_SHAPE])
        with pytest.raises(ValueError, match=words):
            losses.mask_focal(masks, masks, np.ones((1, 2), bool), **settings)


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
        targets = (np.arange(24) < num_true).astype(np.float32).reshape(1, 1, *loss_cases.MASK_SHAPE)
        result = losses.dice(np.full_like(targets, logit), targets, tf.constant([[True]]))
        np.testing.assert_allclose(result, [expected], rtol=1e-5, atol=1e-6)
