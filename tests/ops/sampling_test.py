import functools
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import sampling


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
        positive, negative = sampling.balanced_sample(labels, num_samples=32, positive_fraction=0.25, seed=[1, 2])
        assert (int(np.sum(positive)), int(np.sum(negative))) == expected
        assert np.all(labels[positive.numpy()] == 1)
        assert np.all(labels[negative.numpy()] == 0)

    @pytest.mark.parametrize(("fraction", "expected"), [(0.0, (0, 10)), (1.0, (10, 0)), (0.26, (3, 7)), (0.5, (5, 5))])
    def test_positive_fraction_is_rounded(self, fraction, expected):
        labels = np.repeat([1, 0], 50).astype(np.int32)
        masks = sampling.balanced_sample(labels, num_samples=10, positive_fraction=fraction, seed=[1, 2])
        assert tuple(int(np.sum(mask)) for mask in masks) == expected

    def test_no_anchors(self):
        positive, negative = sampling.balanced_sample(
            tf.zeros([2, 0], tf.int32), num_samples=8, positive_fraction=0.5, seed=[1, 2]
        )
        assert (positive.shape, negative.shape) == ((2, 0), (2, 0))
        assert (positive.dtype, negative.dtype) == (tf.bool, tf.bool)

    def test_rows_are_drawn_apart(self):
        labels = np.tile(np.repeat([1, 0, -1], 20).astype(np.int32), (3, 1))
        labels[1] = -1
        positive, negative = sampling.balanced_sample(labels, num_samples=10, positive_fraction=0.5, seed=[3, 4])
        np.testing.assert_array_equal(np.sum(positive, axis=-1), [5, 0, 5])
        np.testing.assert_array_equal(np.sum(negative, axis=-1), [5, 0, 5])
        assert np.any(positive[0] != positive[2])

    @pytest.mark.parametrize("rows", [1, 3])
    def test_as_many_seeds_as_rows(self, rows):
        with pytest.raises(ValueError, match=r"expected labels \[B, A\], scores \[B, A\], seed \[B, 2\]; came"):
            sampling.balanced_sample(
                np.ones((2, 9), np.int32), num_samples=4, positive_fraction=0.5, seed=np.zeros((rows, 2), np.int32)
            )

    def test_a_seed_for_each_row(self):
        labels = np.tile(np.repeat([1, 0, -1], 20).astype(np.int32), (3, 1))
        seeds = np.array([[3, 4], [5, 6], [3, 4]])
        draw = functools.partial(sampling.balanced_sample, num_samples=10, positive_fraction=0.5)
        together = draw(labels, seed=seeds)
        turned = draw(labels[:2], seed=seeds[1::-1])
        for mask, other in zip(together, turned, strict=True):
            np.testing.assert_array_equal(mask[0], mask[2])
            assert np.any(mask[0] != mask[1])
            # A row is what its own seed makes it, wherever it stands.
            np.testing.assert_array_equal(other, mask.numpy()[1::-1])

    def test_seed_decides(self):
        labels = np.repeat([1, 0], 100).astype(np.int32)

        def draw(seed):
            masks = sampling.balanced_sample(labels, num_samples=40, positive_fraction=0.5, seed=seed)
            return np.stack(masks)

        np.testing.assert_array_equal(draw([1, 2]), draw([1, 2]))
        assert np.any(draw([1, 2]) != draw([1, 3]))
        assert np.any(draw([1, 2]) != draw([2, 2]))

    def test_global_seed_has_no_say(self):
        labels = np.repeat([1, 0], 100).astype(np.int32)
        settings = {"num_samples": 40, "positive_fraction": 0.5, "seed": [1, 2]}
        first = sampling.balanced_sample(labels, **settings)
        tf.random.uniform([3])  # moves the state that a stateful draw would read
        second = sampling.balanced_sample(labels, **settings)
        np.testing.assert_array_equal(np.stack(first), np.stack(second))

    def test_every_candidate_is_equally_likely_over_rows(self):
        rows = 2000
        labels = np.repeat([1, 0, -1], [40, 60, 20]).astype(np.int32)
        positive, negative = sampling.balanced_sample(
            np.tile(labels, (rows, 1)), num_samples=32, positive_fraction=0.25, seed=[5, 6]
        )
        # 5 standard deviations of a share of 8 in 40, and of 24 in 60.
        np.testing.assert_allclose(np.mean(positive, axis=0)[:40], 0.2, atol=5 * 0.4 / rows**0.5)
        np.testing.assert_allclose(np.mean(negative, axis=0)[40:100], 0.4, atol=5 * 0.49 / rows**0.5)

    def test_pairs_are_drawn_independently_over_rows(self):
        rows = 2000
        positive, _ = sampling.balanced_sample(
            np.ones((rows, 10), np.int32), num_samples=5, positive_fraction=1.0, seed=[7, 8]
        )
        drawn = positive.numpy().astype(float)
        pairs = (drawn.T @ drawn / rows)[~np.eye(10, dtype=bool)]
        np.testing.assert_allclose(pairs, 5 / 10 * 4 / 9, atol=5 * 0.42 / rows**0.5)

    def test_every_candidate_is_equally_likely_over_seeds(self):
        labels = np.repeat([1, 0], [5, 10]).astype(np.int32)
        draw = tf.function(
            lambda seed: sampling.balanced_sample(labels, num_samples=6, positive_fraction=0.34, seed=seed),
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
            lambda labels, seed: sampling.balanced_sample(labels, seed=seed, **settings),
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
        )
        rng = np.random.default_rng(9)
        for shape in [(2, 30), (1, 3), (3, 0)]:
            labels = rng.integers(-1, 2, shape).astype(np.int32)
            seed = tf.constant([1, 2])
            eager = sampling.balanced_sample(labels, seed=seed, **settings)
            for a, b in zip(compiled(labels, seed), eager, strict=True):
                np.testing.assert_array_equal(a, b)

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        labels=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=30),
        num_samples=st.integers(1, 40),
        fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        seed=st.integers(-(2**31), 2**31 - 1),
    )
    def test_counts_are_exact(self, labels, num_samples, fraction, seed):
        labels = np.int32(labels)
        positive, negative = (
            mask.numpy()
            for mask in sampling.balanced_sample(
                labels, num_samples=num_samples, positive_fraction=fraction, seed=[seed, 1]
            )
        )
        num_positive = min(round(num_samples * fraction), np.sum(labels == 1))
        assert positive.sum() == num_positive
        assert negative.sum() == min(num_samples - num_positive, np.sum(labels == 0))
        assert np.all(labels[positive] == 1)
        assert np.all(labels[negative] == 0)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"labels": np.int32(1)}, "expected labels [..., A], scores [..., A], seed [2]; came labels []"),
            ({"seed": [1, 2, 3]}, "came labels [4], seed [3]"),
            ({"num_samples": 0}, "expected num_samples above 0, came 0"),
            ({"positive_fraction": 1.1}, "expected positive_fraction in [0, 1], came 1.1"),
        ],
    )
    def test_error_names_both_sides(self, changes, words):
        arguments = {"labels": np.zeros(4, np.int32), "num_samples": 2, "positive_fraction": 0.5, "seed": [1, 2]}
        with pytest.raises(ValueError, match=re.escape(words)):
            sampling.balanced_sample(**{**arguments, **changes})


LABELS = np.repeat([1, 0, -1], [10, 50, 5]).astype(np.int32)
SCORES = np.random.default_rng(0).permutation(65).astype(np.float32) - 30
HARDEST = 10 + np.argsort(-SCORES[10:60])  # negatives, the hardest first


def draw(labels=LABELS, scores=SCORES, **changes):
    arguments = {"num_samples": 8, "positive_fraction": 0.25, "pool_factor": 3, "seed": [1, 2], **changes}
    return [mask.numpy() for mask in sampling.hard_negative_sample(labels, scores, **arguments)]


class HardNegativeSampleTest:
    def test_pool_is_no_larger_than_said(self):
        labels, scores = np.r_[np.ones(25), np.zeros(100)].astype(np.int32), np.linspace(1, 0, 125).astype(np.float32)
        drawn = np.zeros(125, bool)
        for seed in range(60):
            drawn |= draw(labels, scores, num_samples=50, pool_factor=1.2, positive_fraction=0.5, seed=[0, seed])[1]
        assert drawn[25:].sum() == 30  # in float32 1.2 x 25 is a little more than 30

    def test_with_factor_one_the_hardest_are_drawn(self):
        positive, negative = draw(pool_factor=1)
        assert (positive.sum(), np.all(LABELS[positive] == 1)) == (2, True)
        np.testing.assert_array_equal(np.flatnonzero(negative), np.sort(HARDEST[:6]))

    def test_positives_are_those_of_balanced_sample(self):
        expected, _ = sampling.balanced_sample(LABELS, num_samples=8, positive_fraction=0.25, seed=[1, 2])
        np.testing.assert_array_equal(draw()[0], expected)

    @pytest.mark.parametrize(("factor", "pool"), [(1.5, 9), (1.2, 8), (3, 18), (100, 50)])
    def test_draws_uniformly_from_the_pool(self, factor, pool):
        rows = 1500
        positive, negative = draw(np.tile(LABELS, (rows, 1)), np.tile(SCORES, (rows, 1)), pool_factor=factor)
        np.testing.assert_array_equal(positive.sum(axis=-1), [2] * rows)
        np.testing.assert_array_equal(negative.sum(axis=-1), [6] * rows)
        share = negative.mean(axis=0)
        # 5 standard deviations of a share of 6 in the pool.
        np.testing.assert_allclose(share[HARDEST[:pool]], 6 / pool, atol=5 * 0.5 / rows**0.5)
        assert share[np.setdiff1d(np.arange(65), HARDEST[:pool])].sum() == 0.0

    def test_draws_uniformly_over_seeds(self):
        compiled = tf.function(
            lambda seed: sampling.hard_negative_sample(
                LABELS, SCORES, num_samples=8, positive_fraction=0.25, pool_factor=2, seed=seed
            ),
            input_signature=[tf.TensorSpec([2], tf.int32)],
        )
        draws = 400
        share = np.mean([compiled([4, step])[1] for step in range(draws)], axis=0)
        np.testing.assert_allclose(share[HARDEST[:12]], 0.5, atol=5 * 0.5 / draws**0.5)

    def test_fewer_positives_widen_the_pool(self):
        labels = np.where(LABELS == 1, -1, LABELS)
        positive, negative = draw(labels, pool_factor=1)
        assert positive.sum() == 0
        np.testing.assert_array_equal(np.flatnonzero(negative), np.sort(HARDEST[:8]))

    def test_nan_is_never_drawn(self):
        scores = SCORES.copy()
        scores[HARDEST[:3]] = np.nan
        _, negative = draw(scores=scores, pool_factor=1)
        np.testing.assert_array_equal(np.flatnonzero(negative), np.sort(HARDEST[3:9]))
        _, negative = draw(scores=np.where(np.arange(65) < 58, np.nan, SCORES).astype(np.float32))
        np.testing.assert_array_equal(np.flatnonzero(negative), [58, 59])

    @pytest.mark.parametrize("score", [-np.inf, np.inf, 0.0])
    def test_of_equal_scores_the_first_are_in_the_pool(self, score):
        _, negative = draw(scores=np.full(65, score, np.float32), pool_factor=1)
        np.testing.assert_array_equal(np.flatnonzero(negative), range(10, 16))

    def test_more_samples_than_anchors_draws_all(self):
        positive, negative = draw(num_samples=1000, positive_fraction=0.5)
        np.testing.assert_array_equal(positive, LABELS == 1)
        np.testing.assert_array_equal(negative, LABELS == 0)

    @pytest.mark.parametrize("shape", [(0,), (2, 0)])
    def test_no_anchors(self, shape):
        positive, negative = draw(np.zeros(shape, np.int32), np.zeros(shape, np.float32))
        assert (positive.shape, negative.shape) == (shape, shape)

    def test_all_ignored_draws_nothing(self):
        assert not np.any(draw(np.full(65, -1, np.int32)))

    def test_seed_decides(self):
        np.testing.assert_array_equal(draw(), draw())
        assert np.any(draw()[1] != draw(seed=[1, 3])[1])

    def test_rows_are_independent(self):
        labels, scores = np.stack([LABELS, LABELS * 0 - 1, LABELS[::-1]]), np.stack([SCORES, SCORES, SCORES[::-1]])
        positive, negative = draw(labels, scores, pool_factor=1)
        np.testing.assert_array_equal(positive.sum(axis=-1), [2, 0, 2])
        np.testing.assert_array_equal(np.flatnonzero(negative[0]), np.sort(HARDEST[:6]))
        np.testing.assert_array_equal(negative[2], negative[0][::-1])
        assert not negative[1].any()

    def test_unknown_batch_and_count_equal_eager(self):
        compiled = tf.function(
            lambda labels, scores, seed: sampling.hard_negative_sample(
                labels, scores, num_samples=6, positive_fraction=0.5, pool_factor=1.5, seed=seed
            ),
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, None]),
                tf.TensorSpec([2], tf.int32),
            ],
        )
        rng = np.random.default_rng(9)
        for shape in [(2, 30), (1, 3), (3, 0)]:
            labels, scores = rng.integers(-1, 2, shape).astype(np.int32), rng.normal(size=shape).astype(np.float32)
            expected = draw(labels, scores, num_samples=6, positive_fraction=0.5, pool_factor=1.5)
            for a, b in zip(compiled(labels, scores, [1, 2]), expected, strict=True):
                np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"scores": SCORES[:9]}, "came labels [65], scores [9], seed [2]"),
            ({"pool_factor": 0.5}, "expected pool_factor in [1, 1000000.0], came 0.5"),
            ({"num_samples": -1}, "expected num_samples above 0, came -1"),
            ({"positive_fraction": -0.1}, "expected positive_fraction in [0, 1], came -0.1"),
        ],
    )
    def test_error_names_both_sides(self, changes, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            draw(**changes)
