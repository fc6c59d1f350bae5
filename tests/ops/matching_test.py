import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ops import anchors as anchor_ops
from ops import boxes as box_ops
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


# Anchors over a volume of 8 x 16 x 24, and truths on the grid, many of whose best anchors tie, off it, and padding.
GRID = anchor_ops.level_anchors((4, 4, 6), (2, 4, 4), [[3, 5, 6], [2, 4, 4], [1.3, 2.7, 7.1]]).numpy()
TRUTHS = np.float32(
    [[2, 4, 4, 6, 12, 12], [0, 0, 0, 1, 1, 1], [1, 2, 2, 3, 6, 6], [2.3, 4.1, 7.7, 5.9, 9.2, 13.4], [np.nan] * 6,
     [0, 0, 0, 8, 16, 24], [3.1, 9.9, 0.3, 4.7, 12.1, 23.3]]
)  # fmt: skip
VALID = np.array([True, True, True, True, False, True, True])
SETTINGS = {"high": 0.4, "low": 0.2}


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

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        overlaps=arrays(
            np.float32,
            array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
            elements=st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0, float("nan")]).map(
                lambda n: float(np.float32(n))
            ),
        ),
        data=st.data(),
    )
    def test_generated_overlaps_with_ties_and_nans_equal_reference(self, overlaps, data):
        valid = np.array(data.draw(st.lists(st.booleans(), min_size=overlaps.shape[1], max_size=overlaps.shape[1])))
        result = matching.match(overlaps, valid, high=0.5, low=0.25)
        assert_matches(result, np.nan_to_num(overlaps), valid, high=0.5, low=0.25)

    @pytest.mark.parametrize(
        ("shapes", "thresholds", "words"),
        [
            (((6, 3), (2,)), (0.5, 0.3), "expected iou [..., A, G], valid [..., G]; came iou [6, 3], valid [2]"),
            (((3,), (3,)), (0.5, 0.3), "came iou [3], valid [3]"),
            (((6, 3), (3,)), (1.5, 0.3), "expected high in [0, 1], came 1.5"),
            (((6, 3), (3,)), (0.5, 0.6), "expected low in [0, 0.5], came 0.6"),
            (((6, 3), (3,)), (0.5, -0.1), "expected low in [0, 0.5], came -0.1"),
        ],
    )
    def test_error_names_both_sides(self, shapes, thresholds, words):
        overlaps, valid = np.zeros(shapes[0], np.float32), np.ones(shapes[1], bool)
        with pytest.raises(ValueError, match=re.escape(words)):
            matching.match(overlaps, valid, high=thresholds[0], low=thresholds[1])


class MatchBoxesTest:
    def test_hand_values(self):
        anchors = np.float32([[0, 0, 0, 4, 6, 8], [0, 0, 2, 4, 6, 10], [4, 8, 12, 8, 14, 20], [0, 8, 0, 4, 14, 8]])
        truths = np.float32([[0, 0, 0, 4, 6, 8], [5, 9, 13, 8, 14, 20]])
        # IoU with the first truth 1 and 0.6, with the second 105 / 192.
        matched, labels = matching.match_boxes(anchors, truths, ALL[:2], high=0.7, low=0.3)
        np.testing.assert_array_equal(labels, [1, -1, 1, 0])
        np.testing.assert_array_equal(matched[:3], [0, 0, 1])
        _, labels = matching.match_boxes(anchors, truths, ALL[:2], high=0.7, low=0.3, low_quality=False)
        np.testing.assert_array_equal(labels, [1, -1, -1, 0])

    @pytest.mark.parametrize("low_quality", [True, False])
    @pytest.mark.parametrize("pairs", [matching.MAX_PAIRS, 40])
    def test_equals_reference(self, monkeypatch, pairs, low_quality):
        monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
        settings = {"high": np.float32(0.4), "low": np.float32(0.2), "low_quality": low_quality}
        overlaps = box_ops.iou_matrix(GRID, TRUTHS).numpy()
        assert_matches(matching.match_boxes(GRID, TRUTHS, VALID, **settings), overlaps, VALID, **settings)

    def test_the_truths_have_best_anchors_that_tie(self):
        overlaps = box_ops.iou_matrix(GRID, TRUTHS).numpy()
        tied = (overlaps == overlaps.max(axis=0)).sum(axis=0)
        assert tied[0] >= 4
        assert (tied[VALID] > 1).sum() >= 3

    @pytest.mark.parametrize("low_quality", [True, False])
    @pytest.mark.parametrize("pairs", [1, 7, 40, 500, len(GRID) * len(TRUTHS) - 1])
    def test_chunks_change_nothing(self, monkeypatch, pairs, low_quality):
        settings = {**SETTINGS, "low_quality": low_quality}
        whole = matching.match_boxes(GRID, TRUTHS, VALID, **settings)
        monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
        for ours, expected in zip(matching.match_boxes(GRID, TRUTHS, VALID, **settings), whole, strict=True):
            np.testing.assert_array_equal(ours, expected)
            assert ours.dtype == tf.int32

    @pytest.mark.parametrize("seed", range(4))
    def test_chunks_change_nothing_for_boxes_off_the_grid(self, monkeypatch, seed):
        rng = np.random.default_rng(seed)
        # Every anchor comes three times, in different chunks: each best one ties with its copies.
        anchors = np.tile(reference.random_boxes(rng, 211, (5, 7, 11)), (3, 1))
        truths, valid = reference.random_boxes(rng, 13, (5, 7, 11)), rng.random(13) < 0.8
        whole = matching.match_boxes(anchors, truths, valid, high=0.9, low=0.3)
        _, without = matching.match_boxes(anchors, truths, valid, high=0.9, low=0.3, low_quality=False)
        assert np.sum(whole[1] == 1) >= np.sum(without == 1) + 3
        for pairs in (13 * 5, 1000, 2500):
            monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
            for ours, expected in zip(
                matching.match_boxes(anchors, truths, valid, high=0.9, low=0.3), whole, strict=True
            ):
                np.testing.assert_array_equal(ours, expected)

    @pytest.mark.parametrize("size", [1, 3, 16, 37])
    def test_iou_of_a_pair_does_not_depend_on_its_neighbours(self, size):
        # What the comparison with the best of all chunks rests on.
        rng = np.random.default_rng(9)
        anchors, truths = (reference.random_boxes(rng, num, (5, 7, 11)) for num in (211, 13))
        parts = [box_ops.iou_matrix(anchors[start : start + size], truths) for start in range(0, 211, size)]
        np.testing.assert_array_equal(tf.concat(parts, axis=0), box_ops.iou_matrix(anchors, truths))

    @pytest.mark.parametrize("pairs", [1, 1000])
    @pytest.mark.parametrize("low_quality", [True, False])
    def test_nothing_to_match(self, monkeypatch, pairs, low_quality):
        monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
        settings, grid = {**SETTINGS, "low_quality": low_quality}, GRID[:31]  # in chunks of one: few take long enough
        _, labels = matching.match_boxes(grid, TRUTHS, VALID & False, **settings)
        np.testing.assert_array_equal(labels, np.zeros(31))
        matched, labels = matching.match_boxes(grid, TRUTHS[:0], VALID[:0], **settings)
        np.testing.assert_array_equal(labels, np.zeros(31))
        assert matched.shape == (31,)
        matched, labels = matching.match_boxes(grid[:0], TRUTHS, VALID, **settings)
        assert (matched.shape, labels.shape) == ((0,), (0,))

    @pytest.mark.parametrize("pairs", [matching.MAX_PAIRS, 100])
    @pytest.mark.parametrize("low_quality", [True, False])
    def test_unknown_counts_equal_eager(self, monkeypatch, pairs, low_quality):
        monkeypatch.setattr(matching, "MAX_PAIRS", pairs)
        settings = {**SETTINGS, "low_quality": low_quality}
        compiled = tf.function(
            lambda anchors, truths, valid: matching.match_boxes(anchors, truths, valid, **settings),
            input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.bool)],
        )
        for count, num in [(len(GRID), 7), (31, 4), (5, 0), (0, 3), (1, 1)]:
            arguments = (GRID[:count], TRUTHS[:num], VALID[:num])
            for graph, eager in zip(compiled(*arguments), matching.match_boxes(*arguments, **settings), strict=True):
                np.testing.assert_array_equal(graph, eager)

    def test_known_count_is_static(self, monkeypatch):
        monkeypatch.setattr(matching, "MAX_PAIRS", 100)
        compiled = tf.function(lambda truths, valid: matching.match_boxes(GRID, truths, valid, **SETTINGS))
        outputs = compiled.get_concrete_function(
            tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.bool)
        ).structured_outputs
        assert [tuple(output.shape) for output in outputs] == [(len(GRID),)] * 2

    @pytest.mark.parametrize(
        ("anchors", "boxes", "valid", "thresholds", "words"),
        [
            ((4, 6), (2, 6), (3,), (0.5, 0.3), "boxes [G, 6], valid [G]; came anchors [4, 6], boxes [2, 6], valid [3]"),
            ((4, 5), (2, 6), (2,), (0.5, 0.3), "expected anchors [A, 6]"),
            ((4, 6), (1, 2, 6), (2,), (0.5, 0.3), "came anchors [4, 6], boxes [1, 2, 6]"),
            ((4, 6), (2, 6), (2,), (1.5, 0.3), "expected high in [0, 1], came 1.5"),
            ((4, 6), (2, 6), (2,), (0.5, 0.6), "expected low in [0, 0.5], came 0.6"),
        ],
    )
    def test_error_names_both_sides(self, anchors, boxes, valid, thresholds, words):
        high, low = thresholds
        with pytest.raises(ValueError, match=re.escape(words)):
            matching.match_boxes(np.zeros(anchors), np.zeros(boxes), np.ones(valid, bool), high=high, low=low)
