import numpy as np
import pytest
import tensorflow as tf

from ops import matching
from tests import reference

# Anchors 0..5 against truths 0..2.
OVERLAPS = np.array(
    [
        [0.80, 0.10, 0.00],
        [0.50, 0.70, 0.00],
        [0.45, 0.00, 0.00],
        [0.00, 0.29, 0.20],
        [0.00, 0.00, 0.20],
        [0.30, 0.00, 0.00],
    ],
    np.float32,
)
ALL = np.array([True, True, True])


def random_overlaps(rng, shape):
    """IoUs with exact ties and zeros, as coarse anchors give them."""
    return (np.maximum(rng.integers(-6, 11, shape), 0) / 10).astype(np.float32)


def assert_matches(result, overlaps, valid, **settings):
    matched, labels = (tensor.numpy() for tensor in result)
    choices, expected = reference.match(overlaps, valid, **settings)
    np.testing.assert_array_equal(labels, expected)
    for anchor in np.flatnonzero(labels == 1):
        assert matched[anchor] in choices[anchor]
    if overlaps.shape[1]:
        assert np.all((matched >= 0) & (matched < overlaps.shape[1]))


class MatchTest:
    @pytest.mark.parametrize(
        ("low_quality", "labels", "matched_of_positives"),
        [
            (False, [1, 1, -1, 0, 0, -1], [0, 1]),
            (True, [1, 1, -1, 1, 1, -1], [0, 1, 2, 2]),
        ],
    )
    def test_hand_values(self, low_quality, labels, matched_of_positives):
        matched, result = matching.match(OVERLAPS, ALL, high=0.6, low=0.3, low_quality=low_quality)
        np.testing.assert_array_equal(result, labels)
        np.testing.assert_array_equal(matched[result == 1], matched_of_positives)
        assert (matched.dtype, result.dtype) == (tf.int32, tf.int32)

    def test_thresholds_belong_to_the_upper_side(self):
        overlaps = np.array([[0.5], [0.25], [0.24], [0.49], [0.75]], np.float32)
        _, labels = matching.match(overlaps, np.array([True]), high=0.5, low=0.25, low_quality=False)
        np.testing.assert_array_equal(labels, [1, -1, 0, -1, 1])

    def test_equal_thresholds_leave_nothing_ignored(self):
        _, labels = matching.match(OVERLAPS, ALL, high=0.5, low=0.5, low_quality=False)
        np.testing.assert_array_equal(labels, [1, 1, 0, 0, 0, 0])

    def test_padding_matches_nothing(self):
        valid = np.array([True, False, True])
        overlaps = np.array([[0.1, 0.9, 0.0], [0.7, 0.8, 0.0], [0.0, 0.4, 0.05]], np.float32)
        matched, labels = matching.match(overlaps, valid, high=0.6, low=0.3)
        np.testing.assert_array_equal(labels, [0, 1, 1])
        np.testing.assert_array_equal(matched[1:], [0, 2])

    def test_truth_that_overlaps_nothing_rescues_nothing(self):
        overlaps = np.array([[0.0, 0.9], [0.0, 0.0]], np.float32)
        _, labels = matching.match(overlaps, np.array([True, True]), high=0.6, low=0.3)
        np.testing.assert_array_equal(labels, [1, 0])

    def test_all_tied_best_anchors_are_rescued(self):
        overlaps = np.array([[0.2], [0.1], [0.2], [0.2]], np.float32)
        matched, labels = matching.match(overlaps, np.array([True]), high=0.6, low=0.3)
        np.testing.assert_array_equal(labels, [1, 0, 1, 1])
        np.testing.assert_array_equal(matched[labels == 1], [0, 0, 0])

    def test_rescued_anchor_takes_the_truth_it_was_rescued_for(self):
        # The anchor overlaps truth 0 more, but truth 1 has no other anchor.
        overlaps = np.array([[0.4, 0.2], [0.7, 0.0]], np.float32)
        matched, labels = matching.match(overlaps, np.array([True, True]), high=0.6, low=0.3)
        np.testing.assert_array_equal(labels, [1, 1])
        np.testing.assert_array_equal(matched, [1, 0])

    @pytest.mark.parametrize("low_quality", [True, False])
    @pytest.mark.parametrize("seed", range(6))
    def test_equals_reference(self, seed, low_quality):
        rng = np.random.default_rng(seed)
        overlaps = random_overlaps(rng, (40, 7))
        valid = rng.random(7) < 0.7
        settings = {"high": 0.7, "low": 0.3, "low_quality": low_quality}
        # The thresholds are compared in float32, so the truth gets them in float32.
        truth = {"high": np.float32(0.7), "low": np.float32(0.3), "low_quality": low_quality}
        assert_matches(matching.match(overlaps, valid, **settings), overlaps, valid, **truth)

    def test_leading_dimensions_are_independent(self):
        rng = np.random.default_rng(7)
        overlaps = random_overlaps(rng, (2, 3, 20, 5))
        valid = rng.random((2, 3, 5)) < 0.6
        valid[1, 1] = False
        matched, labels = matching.match(overlaps, valid, high=0.5, low=0.25)
        for lead in np.ndindex(2, 3):
            result = (matched[lead], labels[lead])
            assert_matches(result, overlaps[lead], valid[lead], high=0.5, low=0.25)

    @pytest.mark.parametrize("low_quality", [True, False])
    def test_no_valid_truth_makes_everything_negative(self, low_quality):
        _, labels = matching.match(OVERLAPS, ~ALL, high=0.6, low=0.3, low_quality=low_quality)
        np.testing.assert_array_equal(labels, [0] * 6)

    @pytest.mark.parametrize("low_quality", [True, False])
    def test_no_truth_slots_make_everything_negative(self, low_quality):
        matched, labels = matching.match(
            tf.zeros([2, 4, 0]), tf.zeros([2, 0], tf.bool), high=0.6, low=0.3,
            low_quality=low_quality,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, np.zeros((2, 4)))
        assert matched.shape == (2, 4)

    def test_no_anchors(self):
        matched, labels = matching.match(tf.zeros([2, 0, 3]), tf.ones([2, 3], tf.bool), high=1, low=0)
        assert (matched.shape, labels.shape) == ((2, 0), (2, 0))

    def test_unknown_batch_and_counts_equal_eager(self):
        rng = np.random.default_rng(8)
        compiled = tf.function(
            lambda overlaps, valid: matching.match(overlaps, valid, high=0.5, low=0.3),
            input_signature=[
                tf.TensorSpec([None, None, None], tf.float32),
                tf.TensorSpec([None, None], tf.bool),
            ],
        )
        for batch, anchors, truths in [(2, 9, 4), (1, 3, 0), (3, 0, 2), (1, 1, 1)]:
            overlaps = random_overlaps(rng, (batch, anchors, truths))
            valid = rng.random((batch, truths)) < 0.7
            for a, b in zip(
                compiled(overlaps, valid),
                matching.match(overlaps, valid, high=0.5, low=0.3),
                strict=True,
            ):
                np.testing.assert_array_equal(a, b)


class BalancedSampleTest:
    @pytest.mark.parametrize(
        ("num_positive", "num_negative", "expected"),
        [
            (40, 60, (8, 24)),  # both fill their share
            (3, 60, (3, 29)),  # negatives fill up
            (0, 60, (0, 32)),
            (40, 5, (8, 5)),  # positives never exceed their share
            (40, 0, (8, 0)),
            (0, 0, (0, 0)),
            (2, 3, (2, 3)),
        ],
    )
    def test_counts(self, num_positive, num_negative, expected):
        labels = np.full(120, -1, np.int32)
        labels[:num_positive] = 1
        labels[num_positive : num_positive + num_negative] = 0
        np.random.default_rng(0).shuffle(labels)
        positive, negative = matching.balanced_sample(labels, num_samples=32, positive_fraction=0.25, seed=[1, 2])
        assert (int(np.sum(positive)), int(np.sum(negative))) == expected
        assert np.all(labels[positive.numpy()] == 1)
        assert np.all(labels[negative.numpy()] == 0)

    @pytest.mark.parametrize(("fraction", "expected"), [(0.0, (0, 10)), (1.0, (10, 0)), (0.26, (3, 7)), (0.5, (5, 5))])
    def test_positive_fraction_is_rounded(self, fraction, expected):
        labels = np.repeat([1, 0], 50).astype(np.int32)
        masks = matching.balanced_sample(labels, num_samples=10, positive_fraction=fraction, seed=[1, 2])
        assert tuple(int(np.sum(mask)) for mask in masks) == expected

    def test_no_anchors(self):
        positive, negative = matching.balanced_sample(
            tf.zeros([2, 0], tf.int32), num_samples=8, positive_fraction=0.5, seed=[1, 2]
        )
        assert (positive.shape, negative.shape) == ((2, 0), (2, 0))
        assert (positive.dtype, negative.dtype) == (tf.bool, tf.bool)

    def test_rows_are_drawn_apart(self):
        labels = np.tile(np.repeat([1, 0, -1], 20).astype(np.int32), (3, 1))
        labels[1] = -1
        positive, negative = matching.balanced_sample(labels, num_samples=10, positive_fraction=0.5, seed=[3, 4])
        np.testing.assert_array_equal(np.sum(positive, axis=-1), [5, 0, 5])
        np.testing.assert_array_equal(np.sum(negative, axis=-1), [5, 0, 5])
        assert np.any(positive[0] != positive[2])

    def test_seed_decides(self):
        labels = np.repeat([1, 0], 100).astype(np.int32)

        def draw(seed):
            masks = matching.balanced_sample(labels, num_samples=40, positive_fraction=0.5, seed=seed)
            return np.stack(masks)

        np.testing.assert_array_equal(draw([1, 2]), draw([1, 2]))
        assert np.any(draw([1, 2]) != draw([1, 3]))
        assert np.any(draw([1, 2]) != draw([2, 2]))

    def test_global_seed_has_no_say(self):
        labels = np.repeat([1, 0], 100).astype(np.int32)
        settings = {"num_samples": 40, "positive_fraction": 0.5, "seed": [1, 2]}
        first = matching.balanced_sample(labels, **settings)
        tf.random.uniform([3])  # moves the state that a stateful draw would read
        second = matching.balanced_sample(labels, **settings)
        np.testing.assert_array_equal(np.stack(first), np.stack(second))

    def test_every_candidate_is_equally_likely_over_rows(self):
        rows = 2000
        labels = np.repeat([1, 0, -1], [40, 60, 20]).astype(np.int32)
        positive, negative = matching.balanced_sample(
            np.tile(labels, (rows, 1)), num_samples=32, positive_fraction=0.25, seed=[5, 6]
        )
        # 5 standard deviations of a share of 8 in 40, and of 24 in 60.
        np.testing.assert_allclose(np.mean(positive, axis=0)[:40], 0.2, atol=5 * 0.4 / rows**0.5)
        np.testing.assert_allclose(np.mean(negative, axis=0)[40:100], 0.4, atol=5 * 0.49 / rows**0.5)

    def test_pairs_are_drawn_independently_over_rows(self):
        rows = 2000
        positive, _ = matching.balanced_sample(
            np.ones((rows, 10), np.int32), num_samples=5, positive_fraction=1.0, seed=[7, 8]
        )
        drawn = positive.numpy().astype(float)
        pairs = (drawn.T @ drawn / rows)[~np.eye(10, dtype=bool)]
        np.testing.assert_allclose(pairs, 5 / 10 * 4 / 9, atol=5 * 0.42 / rows**0.5)

    def test_every_candidate_is_equally_likely_over_seeds(self):
        labels = np.repeat([1, 0], [5, 10]).astype(np.int32)
        draw = tf.function(
            lambda seed: matching.balanced_sample(labels, num_samples=6, positive_fraction=0.34, seed=seed),
            input_signature=[tf.TensorSpec([2], tf.int32)],
        )
        draws = 400
        masks = np.array([np.stack(draw([9, step])) for step in range(draws)])
        positive, negative = masks.mean(axis=0)
        np.testing.assert_allclose(positive[:5], 2 / 5, atol=5 * 0.49 / draws**0.5)
        np.testing.assert_allclose(negative[5:], 4 / 10, atol=5 * 0.49 / draws**0.5)

    def test_unknown_batch_and_count_equal_eager(self):
        settings = {"num_samples": 6, "positive_fraction": 0.5}
        compiled = tf.function(
            lambda labels, seed: matching.balanced_sample(labels, seed=seed, **settings),
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
        )
        rng = np.random.default_rng(9)
        for shape in [(2, 30), (1, 3), (3, 0)]:
            labels = rng.integers(-1, 2, shape).astype(np.int32)
            seed = tf.constant([1, 2])
            eager = matching.balanced_sample(labels, seed=seed, **settings)
            for a, b in zip(compiled(labels, seed), eager, strict=True):
                np.testing.assert_array_equal(a, b)
