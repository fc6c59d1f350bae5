import re

import numpy as np
import pytest
import tensorflow as tf

from ops import anchors as anchor_ops
from ops import atss as atss_ops
from tests import reference

SHAPE = (8, 16, 24)
# Two levels of different stride; quarters, so that distances are exact and ties are ties.
LEVELS = [
    anchor_ops.level_anchors((4, 4, 6), (2, 4, 4), [[3, 5, 6], [4, 4, 4]]).numpy(),
    anchor_ops.level_anchors((2, 2, 3), (4, 8, 8), [[6, 10, 12]]).numpy(),
]
ANCHORS = np.concatenate(LEVELS)
COUNTS = [len(level) for level in LEVELS]


def quarter_boxes(rng, num):
    lo = rng.integers(0, 4 * np.array(SHAPE) - 12, (num, 3)) / 4
    return np.concatenate([lo, lo + rng.integers(4, 40, (num, 3)) / 4], axis=-1).astype(np.float32)


def atss(boxes, valid=None, anchors=ANCHORS, counts=COUNTS, k=4):
    boxes = np.float32(boxes)
    valid = np.ones(boxes.shape[:2], bool) if valid is None else valid
    matched, labels = atss_ops.atss(anchors, counts, boxes, valid, candidates_per_level=k)
    assert (matched.dtype, labels.dtype) == (tf.int32, tf.int32)
    return matched.numpy(), labels.numpy()


def assert_equals_reference(result, boxes, valid, anchors=ANCHORS, counts=COUNTS, k=4):
    for b in range(len(boxes)):
        expected = reference.atss(anchors, counts, boxes[b], valid[b], candidates_per_level=k)
        for tensor, truth in zip(result, expected, strict=True):
            np.testing.assert_array_equal(tensor[b], truth)


class AtssTest:
    def test_tolerance_is_a_share_of_the_threshold(self):
        anchors = np.float32([[60, 60, 60, 61.5, 61.5, 61.5], *[[60, 60, 60, 61, 61, 61]] * 8])
        truth = np.float32([[[-1, -1, -1, 128, 128, 128]]])
        _, labels = atss_ops.atss(anchors, [9], truth, np.array([[True]]), candidates_per_level=9)
        np.testing.assert_array_equal(labels[0], [1, 0, 0, 0, 0, 0, 0, 0, 0])

    # Anchors of 2 x 2 x 2 in a row along x, centres at x = 1, 2, 3, ...
    ROW = np.float32([[0, 0, x, 2, 2, x + 2] for x in range(8)])

    @pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 50])
    def test_an_anchor_on_the_truth_is_positive(self, k):
        # The others have IoU 1/3 at most.
        _, labels = atss([[[0, 0, 2, 2, 2, 4]]], anchors=self.ROW, counts=[8], k=k)
        np.testing.assert_array_equal(labels, [[0, 0, 1, 0, 0, 0, 0, 0]])

    @pytest.mark.parametrize(
        ("k", "expected"),
        [
            (1, [0, 0, 0, 1, 0, 0, 0, 0]),
            (3, [0, 0, 1, 1, 1, 0, 0, 0]),  # all equal: the threshold is 1/2
            (5, [0, 0, 0, 0, 0, 0, 0, 0]),  # mean .38, deviation .147
            (8, [0, 0, 1, 1, 1, 0, 0, 0]),  # mean .2375, deviation .218
        ],
    )
    def test_hand_values(self, k, expected):
        # IoU of the anchors: 0, 1/5, 1/2, 1/2, 1/2, 1/5, 0, 0; the nearest are 3; 2, 4; 1, 5; 0, 6; 7.
        matched, labels = atss([[[0, 0, 2, 2, 2, 6]]], anchors=self.ROW, counts=[8], k=k)
        np.testing.assert_array_equal(labels, [expected])
        np.testing.assert_array_equal(matched, np.zeros((1, 8)))

    def test_each_level_has_candidates_of_its_own(self):
        anchors = np.float32([[0, 0, 0, 2, 2, 2], [0, 0, 0.5, 2, 2, 2.5], [0, 0, 0, 2, 2, 4]])
        truth = [[[0, 0, 0, 2, 2, 3]]]
        # As one level the second anchor is nearest; the third, of another level, is a candidate too, of IoU 3/4.
        np.testing.assert_array_equal(atss(truth, anchors=anchors, counts=[3], k=1)[1], [[0, 1, 0]])
        np.testing.assert_array_equal(atss(truth, anchors=anchors, counts=[2, 1], k=1)[1], [[0, 0, 1]])

    def test_centre_on_the_border_is_not_inside(self):
        anchors = np.float32([[0, 0, 0, 2, 2, 2], [0, 0, 1, 2, 2, 3]])
        truth = [[0, 0, 1, 2, 2, 4]]  # centres at x = 1, on the border, and 2
        _, labels = atss([truth], anchors=anchors, counts=[1, 1], k=1)
        np.testing.assert_array_equal(labels, [[0, 1]])
        _, labels = atss([truth], anchors=anchors[:1], counts=[1], k=1)
        np.testing.assert_array_equal(labels, [[0]])

    def test_anchor_of_several_truths_goes_to_the_best(self):
        truths = [[0, 0, 0, 2, 2, 3], [0, 0, 0, 2, 2, 2.5], [0, 0, 0, 2, 2, 4]]
        matched, labels = atss([truths, truths[::-1]], anchors=self.ROW[:1], counts=[1], k=1)
        np.testing.assert_array_equal(labels, [[1], [1]])
        np.testing.assert_array_equal(matched, [[1], [1]])

    def test_anchor_of_equal_truths_goes_to_the_first_valid(self):
        truths = np.float32([[[0, 0, 1, 2, 2, 3]] * 3] * 2)
        valid = np.array([[True, True, True], [False, True, True]])
        matched, labels = atss(truths, valid, anchors=self.ROW, counts=[8])
        np.testing.assert_array_equal(labels, [[0, 1, 0, 0, 0, 0, 0, 0]] * 2)
        np.testing.assert_array_equal(matched[:, 1], [0, 1])
        np.testing.assert_array_equal(np.delete(matched, 1, axis=1), np.zeros((2, 7)))

    def test_equal_candidates_all_pass_whatever_the_rounding(self):
        # Anchors inside a large truth have one IoU, 24 / size^3, and some means of 13 equal numbers are rounded up.
        anchors = np.float32([[0, 0, x, 2, 3, x + 4] for x in range(13)])
        truths = [[[0, 0, 0, size, size, size]] for size in range(17, 49)]
        _, labels = atss(truths, anchors=anchors, counts=[13], k=13)
        np.testing.assert_array_equal(labels, np.ones((32, 13)))

    @pytest.mark.parametrize("k", [1, 3, 9, 1000])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed, k):
        rng = np.random.default_rng(seed)
        boxes = quarter_boxes(rng, 14).reshape(2, 7, 6)
        valid = rng.random((2, 7)) < 0.7
        result = atss(boxes, valid, k=k)
        assert_equals_reference(result, boxes, valid, k=k)
        assert k == 1000 or result[1].sum() > 0

    @pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0), (0, 2, 1)])
    def test_permuted_axes_change_nothing(self, axes):
        boxes = quarter_boxes(np.random.default_rng(4), 6)[np.newaxis]
        expected = atss(boxes)
        result = atss(reference.permute_boxes(boxes, axes), anchors=reference.permute_boxes(ANCHORS, axes))
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("max_pairs", [1, len(ANCHORS), 3 * len(ANCHORS) + 1, 14 * len(ANCHORS)])
    def test_chunks_change_nothing(self, monkeypatch, max_pairs):
        boxes = quarter_boxes(np.random.default_rng(5), 14).reshape(2, 7, 6)
        expected = atss(boxes)
        monkeypatch.setattr(atss_ops, "MAX_PAIRS", max_pairs)
        np.testing.assert_array_equal(atss(boxes), expected)

    def test_no_tensor_holds_more_pairs_than_the_bound(self, monkeypatch):
        monkeypatch.setattr(atss_ops, "MAX_PAIRS", 2 * len(ANCHORS))
        sizes = []
        top_k = tf.math.top_k
        monkeypatch.setattr(tf.math, "top_k", lambda x, k: (sizes.append(x.shape.as_list()), top_k(x, k))[1])
        atss(quarter_boxes(np.random.default_rng(6), 14).reshape(2, 7, 6))
        assert sizes == [[2, count] for _ in range(7) for count in COUNTS]

    @pytest.mark.parametrize(("batch", "truths"), [(2, 0), (0, 3), (0, 0)])
    def test_no_truth_slots(self, batch, truths):
        matched, labels = atss(np.zeros((batch, truths, 6)))
        np.testing.assert_array_equal(labels, np.zeros((batch, len(ANCHORS))))
        np.testing.assert_array_equal(matched, np.zeros((batch, len(ANCHORS))))

    def test_all_padding_makes_everything_negative(self):
        boxes = quarter_boxes(np.random.default_rng(7), 6).reshape(2, 3, 6)
        matched, labels = atss(boxes, np.zeros((2, 3), bool))
        assert not np.any(labels)
        assert not np.any(matched)

    @pytest.mark.parametrize("truth", [[0] * 6, [4, 4, 4, 4, 9, 9], [5, 5, 5, 2, 2, 2], [90, 90, 90, 95, 95, 95]])
    def test_truth_that_is_empty_or_out_of_reach_gets_no_anchor(self, truth):
        assert not np.any(atss([[truth]])[1])

    def test_huge_truth_and_huge_anchor(self):
        anchors = np.float32([[-1e6] * 3 + [1e6] * 3, [0, 0, 0, 5, 7, 11]])
        matched, labels = atss([[[0, 0, 0, 5, 7, 11], [-1e6] * 3 + [1e6] * 3]], anchors=anchors, counts=[2], k=1)
        np.testing.assert_array_equal(labels, [[1, 1]])
        np.testing.assert_array_equal(matched, [[1, 0]])

    def test_no_anchors(self):
        matched, labels = atss(np.zeros((2, 3, 6)), anchors=np.zeros((0, 6), np.float32), counts=[0, 0])
        assert (matched.shape, labels.shape) == ((2, 0), (2, 0))

    def test_an_empty_level_changes_nothing(self):
        boxes = quarter_boxes(np.random.default_rng(8), 6).reshape(2, 3, 6)
        np.testing.assert_array_equal(atss(boxes, counts=[COUNTS[0], 0, COUNTS[1]]), atss(boxes))

    def test_unknown_batch_and_counts_equal_eager(self):
        compiled = tf.function(
            lambda anchors, boxes, valid: atss_ops.atss(anchors, COUNTS, boxes, valid, candidates_per_level=4),
            input_signature=[
                tf.TensorSpec([None, 6]),
                tf.TensorSpec([None, None, 6]),
                tf.TensorSpec([None, None], tf.bool),
            ],
        )
        for output in compiled.get_concrete_function().structured_outputs:
            assert output.shape.as_list() == [None, len(ANCHORS)]
        rng = np.random.default_rng(9)
        for batch, truths in [(2, 5), (1, 0), (3, 1)]:
            boxes = quarter_boxes(rng, batch * truths).reshape(batch, truths, 6)
            valid = rng.random((batch, truths)) < 0.7
            for a, b in zip(compiled(ANCHORS, boxes, valid), atss(boxes, valid), strict=True):
                np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"counts": [100, 3]}, "expected anchors [103, 6], boxes [B, G, 6], valid [B, G]; came anchors [204, 6]"),
            ({"boxes": np.zeros((3, 6))}, "boxes [3, 6], valid [1, 3]"),
            ({"boxes": np.zeros((1, 4, 6))}, "boxes [1, 4, 6], valid [1, 3]"),
            ({"k": 0}, "expected candidates_per_level above 0, came 0"),
        ],
    )
    def test_error_names_both_sides(self, changes, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            atss(**{"boxes": np.zeros((1, 3, 6)), "valid": np.ones((1, 3), bool), **changes})
