import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.nms3d import batched_nms3d, nms3d
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
BOXES = np.array(
    [
        [0, 0, 0, 1, 1, 1],
        [0, 0.1, 0, 1, 1.1, 1],
        [0, -0.1, 0, 1, 0.9, 1],
        [0, 10, 0, 1, 11, 1],
        [0, 10.1, 0, 1, 11.1, 1],
        [0, 100, 0, 1, 101, 1],
    ],
    np.float32,
)
SCORES = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], np.float32)


def kept(boxes, scores, *, max_outputs, **settings):
    """Runs the op, checks the form of its outputs and returns the kept indices as a list."""
    indices, valid = nms3d(
        np.reshape(boxes, (-1, 6)).astype(np.float32),
        np.asarray(scores, np.float32),
        max_outputs=max_outputs,
        **settings,
    )
    assert (indices.dtype, valid.dtype) == (tf.int32, tf.bool)
    assert indices.shape == valid.shape == (max_outputs,)
    count = int(np.sum(valid))
    np.testing.assert_array_equal(valid, np.arange(max_outputs) < count)
    np.testing.assert_array_equal(indices[count:], np.zeros(max_outputs - count))
    return indices[:count].numpy().tolist()


def clustered_boxes(rng, num, clusters):
    """Boxes [num, 6] jittered around few places, half of them at negative coordinates."""
    centre = rng.uniform(-60, 60, (clusters, 3))[rng.integers(0, clusters, num)]
    centre += rng.normal(0, 1.5, (num, 3))
    size = rng.uniform(3, 12, (num, 3))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1).astype(np.float32)


def chain(num):
    """Boxes of which each overlaps only its neighbours by IoU 1/3, best first along x."""
    lo = np.zeros((num, 3))
    lo[:, 2] = np.arange(num) * 2
    return np.concatenate([lo, lo + [1, 1, 4]], axis=-1), np.linspace(1, 0, num)


class Nms3dTest:
    @pytest.mark.parametrize(("max_outputs", "expected"), [(3, [3, 0, 5]), (2, [3, 0]), (1, [3]), (30, [3, 0, 5])])
    def test_hand_values(self, max_outputs, expected):
        assert kept(BOXES, SCORES, iou_threshold=0.5, max_outputs=max_outputs) == expected

    def test_ten_identical_boxes_leave_the_first(self):
        result = kept([BOXES[0]] * 10, [0.9] * 10, iou_threshold=0.5, max_outputs=5)
        assert result == [0]

    @pytest.mark.parametrize("max_outputs", [1, 7])
    def test_no_boxes(self, max_outputs):
        assert kept([], [], iou_threshold=0.5, max_outputs=max_outputs) == []

    @pytest.mark.parametrize("max_outputs", [1, 7])
    def test_one_box(self, max_outputs):
        assert kept(BOXES[:1], [0.1], iou_threshold=0.5, max_outputs=max_outputs) == [0]

    @pytest.mark.parametrize(("threshold", "expected"), [(0.5, [0, 1]), (0.499, [0]), (0.25, [0]), (0.75, [0, 1])])
    def test_pair_exactly_at_the_threshold_is_kept(self, threshold, expected):
        boxes = [[0, 0, 0, 2, 1, 1], [0, 0, 0, 1, 1, 1]]
        assert kept(boxes, [0.9, 0.8], iou_threshold=threshold, max_outputs=4) == expected

    def test_threshold_zero_lets_boxes_touch(self):
        boxes = [[0, 0, 0, 2, 2, 2], [2, 0, 0, 4, 2, 2], [3.75, 0, 0, 5, 2, 2]]
        assert kept(boxes, [0.9, 0.8, 0.7], iou_threshold=0.0, max_outputs=4) == [0, 1]

    def test_threshold_one_suppresses_nothing(self):
        boxes = [[1, 2, 3, 4, 6, 8]] * 3
        assert kept(boxes, [0.1, 0.3, 0.2], iou_threshold=1.0, max_outputs=4) == [1, 2, 0]

    def test_suppressed_box_suppresses_nothing(self):
        boxes, scores = chain(3)
        assert kept(boxes, scores, iou_threshold=0.3, max_outputs=4) == [0, 2]

    @pytest.mark.parametrize("num", [100, 255, 256, 257, 700])
    def test_long_chain_of_rivals_keeps_every_other(self, num):
        boxes, scores = chain(num)
        result = kept(boxes, scores, iou_threshold=0.3, max_outputs=num)
        assert result == list(range(0, num, 2))

    def test_equal_scores_go_by_lower_index(self):
        boxes = clustered_boxes(np.random.default_rng(0), 300, 10)
        scores = np.full(300, 0.5, np.float32)
        result = kept(boxes, scores, iou_threshold=0.2, max_outputs=300)
        assert result == reference.nms3d(boxes, scores, iou_threshold=0.2, max_outputs=300)
        assert result == sorted(result)

    def test_few_distinct_scores_equal_reference(self):
        rng = np.random.default_rng(1)
        boxes = clustered_boxes(rng, 400, 15)
        scores = (rng.integers(0, 4, 400) / 4).astype(np.float32)
        settings = {"iou_threshold": 0.25, "max_outputs": 400}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    @pytest.mark.parametrize("num", [2, 40, 256, 257, 600])
    @pytest.mark.parametrize("threshold", [0.1, 0.5])
    def test_random_boxes_equal_reference(self, num, threshold):
        rng = np.random.default_rng(num)
        boxes = reference.random_boxes(rng, num, (20, 30, 40), smallest=5)
        scores = rng.random(num).astype(np.float32)
        settings = {"iou_threshold": threshold, "max_outputs": 100}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    @pytest.mark.parametrize("max_outputs", [10, 256, 300, 2000])
    def test_many_clustered_boxes_equal_reference(self, max_outputs):
        rng = np.random.default_rng(2)
        boxes, scores = clustered_boxes(rng, 1300, 60), rng.random(1300).astype(np.float32)
        settings = {"iou_threshold": 0.3, "max_outputs": max_outputs}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    def test_nothing_suppressed_over_several_tiles(self):
        rng = np.random.default_rng(3)
        lo = np.stack(np.unravel_index(np.arange(1100), (10, 11, 10)), axis=-1) * 2.0
        scores = rng.permutation(1100).astype(np.float32)
        result = kept(np.concatenate([lo, lo + 2], axis=-1), scores, iou_threshold=0.0, max_outputs=1100)
        assert result == np.argsort(-scores).tolist()

    def test_nan_scores_are_never_kept(self):
        scores = SCORES.copy()
        scores[[3, 5]] = np.nan
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=9) == [0, 4]

    @pytest.mark.parametrize("threshold", [None, 0.1])
    def test_all_nan_keeps_nothing(self, threshold):
        scores = np.full(6, np.nan)
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=3, score_threshold=threshold) == []

    def test_infinite_and_negative_scores_are_ordinary(self):
        scores = [-np.inf, np.nan, np.nan, np.inf, -2, -1]
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=9) == [3, 5, 0]

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [(0.25, [3, 0, 5]), (0.3, [3, 0, 5]), (0.31, [3, 0]), (0.92, [3]), (0.99, [])],
    )
    def test_scores_below_the_threshold_are_never_kept(self, threshold, expected):
        result = kept(BOXES, SCORES, iou_threshold=0.5, max_outputs=9, score_threshold=threshold)
        assert result == expected

    def test_box_with_nan_score_suppresses_nothing(self):
        scores = [np.nan, 0.2, np.nan]
        assert kept([BOXES[0]] * 3, scores, iou_threshold=0.5, max_outputs=3) == [1]

    def test_empty_boxes_overlap_nothing(self):
        boxes = np.zeros((3, 6))
        assert kept(boxes, [0.1, 0.3, 0.2], iou_threshold=0.5, max_outputs=4) == [1, 2, 0]

    def test_other_classes_do_not_suppress(self):
        boxes = [BOXES[0]] * 4
        class_ids = np.array([1, 2, 1, 3], np.int32)
        result = kept(boxes, [0.6, 0.7, 0.8, 0.9], iou_threshold=0.5, max_outputs=9, class_ids=class_ids)
        assert result == [3, 2, 1]

    @pytest.mark.parametrize("offset", [-500.0, 0.0, 500.0])
    def test_classes_equal_reference_wherever_the_boxes_lie(self, offset):
        # Shifting boxes by a multiple of the class id goes wrong on negative coordinates.
        rng = np.random.default_rng(4)
        boxes = clustered_boxes(rng, 350, 12) + np.float32(offset)
        scores = rng.random(350).astype(np.float32)
        class_ids = rng.integers(1, 4, 350).astype(np.int32)
        settings = {"iou_threshold": 0.3, "max_outputs": 200, "score_threshold": 0.2}
        result = kept(boxes, scores, class_ids=class_ids, **settings)
        assert result == reference.nms3d(boxes, scores, class_ids=class_ids, **settings)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, axes):
        rng = np.random.default_rng(5)
        boxes = reference.random_boxes(rng, 60, SHAPE, smallest=2)
        scores = rng.random(60)
        settings = {"iou_threshold": 0.3, "max_outputs": 60}
        permuted = kept(reference.permute_boxes(boxes, axes), scores, **settings)
        assert permuted == kept(boxes, scores, **settings)

    def test_shuffled_boxes_keep_the_same_boxes(self):
        rng = np.random.default_rng(6)
        boxes, scores = clustered_boxes(rng, 300, 8), rng.permutation(300) / 300
        order = rng.permutation(300)
        settings = {"iou_threshold": 0.4, "max_outputs": 300}
        shuffled = kept(boxes[order], scores[order], **settings)
        assert order[shuffled].tolist() == kept(boxes, scores, **settings)

    def test_fewer_outputs_are_the_first_of_more(self):
        rng = np.random.default_rng(7)
        boxes, scores = clustered_boxes(rng, 700, 80), rng.random(700)
        many = kept(boxes, scores, iou_threshold=0.3, max_outputs=700)
        few = kept(boxes, scores, iou_threshold=0.3, max_outputs=50)
        assert few == many[:50]

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        rows=st.lists(
            st.tuples(
                st.tuples(*[st.integers(-6, 6)] * 3),
                st.tuples(*[st.integers(0, 6)] * 3),
                st.sampled_from([0.0, 0.25, 0.5, 0.75, float("nan")]),
                st.integers(1, 2),
            ),
            max_size=12,
        ),
        threshold=st.sampled_from([0.0, 0.25, 0.5]),
        score_threshold=st.sampled_from([None, 0.25, 0.6]),
    )
    def test_generated_boxes_equal_reference(self, rows, threshold, score_threshold):
        # Whole corners and dyadic thresholds: IoU meets the threshold exactly, without rounding.
        boxes = np.array([[*lo, *np.add(lo, size)] for lo, size, _, _ in rows], np.float32)
        boxes = boxes.reshape(-1, 6)
        scores = np.array([row[2] for row in rows], np.float32)
        class_ids = np.array([row[3] for row in rows], np.int32)
        for classes in (None, class_ids):
            settings = {
                "iou_threshold": threshold,
                "max_outputs": 8,
                "score_threshold": score_threshold,
                "class_ids": classes,
            }
            assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    def test_unknown_count_equals_eager(self):
        rng = np.random.default_rng(8)
        compiled = tf.function(
            lambda boxes, scores: nms3d(boxes, scores, iou_threshold=0.3, max_outputs=20),
            input_signature=[
                tf.TensorSpec([None, 6], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ],
        )
        for num in (0, 1, 50, 600):
            boxes, scores = clustered_boxes(rng, num, 30), rng.random(num).astype(np.float32)
            indices, valid = compiled(boxes, scores)
            assert indices.shape == valid.shape == (20,)
            expected = kept(boxes, scores, iou_threshold=0.3, max_outputs=20)
            assert indices.numpy()[valid.numpy()].tolist() == expected


class BatchedNms3dTest:
    def test_every_row_equals_reference(self):
        rng = np.random.default_rng(9)
        boxes = np.stack([clustered_boxes(rng, 300, c) for c in (5, 20, 300, 40)])
        scores = rng.random((4, 300)).astype(np.float32)
        scores[1] = np.nan
        scores[2, ::2] = np.nan
        class_ids = rng.integers(1, 3, (4, 300)).astype(np.int32)
        settings = {"iou_threshold": 0.3, "max_outputs": 40, "score_threshold": 0.1}
        indices, valid = batched_nms3d(boxes, scores, class_ids=class_ids, **settings)
        assert indices.shape == valid.shape == (4, 40)
        assert (indices.dtype, valid.dtype) == (tf.int32, tf.bool)
        for row in range(4):
            expected = reference.nms3d(boxes[row], scores[row], class_ids=class_ids[row], **settings)
            assert indices[row].numpy()[valid[row].numpy()].tolist() == expected
            np.testing.assert_array_equal(indices[row].numpy()[~valid[row].numpy()], 0)

    def test_hand_values_without_classes(self):
        boxes, scores = np.stack([BOXES, BOXES]), np.stack([SCORES, SCORES[::-1]])
        indices, valid = batched_nms3d(boxes, scores, iou_threshold=0.5, max_outputs=4)
        np.testing.assert_array_equal(indices, [[3, 0, 5, 0], [2, 5, 4, 0]])
        np.testing.assert_array_equal(valid, [[True, True, True, False]] * 2)

    def test_no_boxes(self):
        indices, valid = batched_nms3d(tf.zeros([3, 0, 6]), tf.zeros([3, 0]), iou_threshold=0.5, max_outputs=4)
        np.testing.assert_array_equal(indices, np.zeros((3, 4)))
        np.testing.assert_array_equal(valid, np.zeros((3, 4), bool))

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(10)
        settings = {"iou_threshold": 0.3, "max_outputs": 12}
        compiled = tf.function(
            lambda boxes, scores, class_ids: batched_nms3d(boxes, scores, class_ids=class_ids, **settings),
            input_signature=[
                tf.TensorSpec([None, None, 6], tf.float32),
                tf.TensorSpec([None, None], tf.float32),
                tf.TensorSpec([None, None], tf.int32),
            ],
        )
        for batch, num in [(2, 40), (1, 300), (3, 0), (2, 1)]:
            boxes = clustered_boxes(rng, batch * num, 9).reshape(batch, num, 6)
            scores = rng.random((batch, num)).astype(np.float32)
            class_ids = rng.integers(1, 3, (batch, num)).astype(np.int32)
            eager = batched_nms3d(boxes, scores, class_ids=class_ids, **settings)
            for a, b in zip(compiled(boxes, scores, class_ids), eager, strict=True):
                np.testing.assert_array_equal(a, b)
