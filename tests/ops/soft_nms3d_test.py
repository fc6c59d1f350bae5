import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.nms3d import nms3d
from ops.soft_nms3d import batched_soft_nms3d, soft_nms3d
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
# 1 shares half of 0 (IoU 1/2); 2 shares a third with 0 (IoU 1/3) and half with 1; 3 lies apart.
BOXES = np.array([[0, 0, 0, 1, 1, 6], [0, 0, 2, 1, 1, 8], [0, 0, 3, 1, 1, 9], [7, 0, 0, 8, 1, 6]], np.float32)
SCORES = np.array([0.8, 0.7, 0.6, 0.3], np.float32)
SIGNATURE = [
    tf.TensorSpec([None, 6], tf.float32),
    tf.TensorSpec([None], tf.float32),
    tf.TensorSpec([None], tf.int32),
]


def taken(boxes, scores, *, max_outputs, **settings):
    """Runs the op, checks the form of its outputs and returns the taken indices and their scores as lists."""
    boxes, scores = np.reshape(boxes, (-1, 6)).astype(np.float32), np.asarray(scores, np.float32)
    return checked(max_outputs, *soft_nms3d(boxes, scores, max_outputs=max_outputs, **settings))


def checked(max_outputs, indices, scores, valid):
    assert (indices.dtype, scores.dtype, valid.dtype) == (tf.int32, tf.float32, tf.bool)
    assert indices.shape == scores.shape == valid.shape == (max_outputs,)
    count = int(np.sum(valid))
    np.testing.assert_array_equal(valid, np.arange(max_outputs) < count)
    np.testing.assert_array_equal(indices[count:], np.zeros(max_outputs - count))
    np.testing.assert_array_equal(scores[count:], np.zeros(max_outputs - count))
    return indices[:count].numpy().tolist(), scores[:count].numpy().tolist()


def assert_equals_reference(boxes, scores, result=None, **settings):
    indices, lowered = result or taken(boxes, scores, **settings)
    expected = reference.soft_nms3d(boxes, scores, **settings)
    assert indices == [index for index, _ in expected]
    np.testing.assert_allclose(lowered, [score for _, score in expected], rtol=2e-5)


def random_case(seed, num, num_classes=3):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, num, (20, 30, 40), smallest=8)
    return boxes, rng.random(num).astype(np.float32), rng.integers(1, num_classes + 1, num).astype(np.int32)


class SoftNms3dTest:
    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_box_of_nan_harms_no_other(self, method):
        boxes = np.float32([[np.nan] * 6, [0, 0, 0, 1, 1, 1], [0, 0, 5, 1, 1, np.nan], [9, 0, 0, 10, 1, 1]])
        settings = {"iou_threshold": 0.5, "max_outputs": 4, "method": method}
        indices, scores, valid = soft_nms3d(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), **settings)
        np.testing.assert_array_equal(indices, [0, 1, 2, 3])
        np.testing.assert_allclose(scores, [0.9, 0.8, 0.7, 0.6])
        assert np.all(valid)

    def test_linear_hand_values(self):
        # IoU of 0 with 1: 4 / 8; with 2: 3 / 9; of 1 with 2: 5 / 7.
        # Taking 0 leaves 0.7 / 2 and 0.6 * 2 / 3; taking 2 leaves 0.35 * 2 / 7 of box 1.
        indices, scores = taken(BOXES, SCORES, iou_threshold=0.3, max_outputs=9)
        assert indices == [0, 2, 3, 1]
        np.testing.assert_allclose(scores, [0.8, 0.4, 0.3, 0.1], rtol=1e-6)

    def test_linear_leaves_small_overlaps_alone(self):
        indices, scores = taken(BOXES, SCORES, iou_threshold=0.4, max_outputs=9)
        assert indices == [0, 2, 3, 1]
        np.testing.assert_allclose(scores, [0.8, 0.6, 0.3, 0.1], rtol=1e-6)

    @pytest.mark.parametrize(("threshold", "second"), [(0.5, 0.7), (0.499, 0.35)])
    def test_pair_exactly_at_the_threshold_is_left_alone(self, threshold, second):
        indices, scores = taken(BOXES[:2], SCORES[:2], iou_threshold=threshold, max_outputs=2)
        assert indices == [0, 1]
        np.testing.assert_allclose(scores, [0.8, second], rtol=1e-6)

    @pytest.mark.parametrize("sigma", [0.5, 0.1])
    def test_gaussian_hand_values(self, sigma):
        indices, scores = taken(BOXES[:2], SCORES[:2], iou_threshold=1.0, max_outputs=9, method="gaussian", sigma=sigma)
        assert indices == [0, 1]
        np.testing.assert_allclose(scores, [0.8, 0.7 * math.exp(-0.25 / sigma)], rtol=1e-6)

    def test_identical_boxes_leave_the_first_when_linear(self):
        indices, scores = taken([BOXES[0]] * 10, [0.9] * 10, iou_threshold=0.5, max_outputs=5)
        assert indices == [0]
        np.testing.assert_allclose(scores, [0.9], rtol=1e-6)

    def test_identical_boxes_fall_off_when_gaussian(self):
        settings = {"iou_threshold": 0.5, "max_outputs": 5, "method": "gaussian", "score_threshold": 0.01}
        indices, scores = taken([BOXES[0]] * 10, [0.9] * 10, **settings)
        assert indices == [0, 1, 2]  # 0.9 exp(-2 * 3) = 0.002 is too little
        np.testing.assert_allclose(scores, [0.9, 0.9 * math.exp(-2), 0.9 * math.exp(-4)], rtol=1e-5)

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    @pytest.mark.parametrize("max_outputs", [1, 7])
    def test_no_boxes(self, method, max_outputs):
        assert taken([], [], iou_threshold=0.5, max_outputs=max_outputs, method=method) == ([], [])

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_equal_scores_go_by_lower_index(self, method):
        boxes = np.arange(300)[:, np.newaxis] * 5.0 + BOXES[0]
        indices, scores = taken(boxes, np.full(300, 0.5), iou_threshold=0.2, max_outputs=300, method=method)
        assert indices == list(range(300))
        np.testing.assert_array_equal(scores, np.full(300, 0.5))

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_nan_scores_are_never_kept_and_lower_nothing(self, method):
        scores = [np.nan, 0.5, np.nan, 0.4]
        indices, lowered = taken([BOXES[0]] * 3 + [BOXES[3]], scores, iou_threshold=0.5, max_outputs=4, method=method)
        assert indices == [1, 3]
        np.testing.assert_allclose(lowered, [0.5, 0.4], rtol=1e-6)

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_infinite_score_stays_finite_for_the_others(self, method):
        scores = [0.5, np.inf, np.inf]
        indices, lowered = taken([BOXES[0]] * 3, scores, iou_threshold=0.5, max_outputs=4, method=method)
        assert indices == ([1] if method == "linear" else [1, 2, 0])
        assert not np.isnan(lowered).any()

    @pytest.mark.parametrize(("threshold", "expected"), [(0.0, [0, 2, 3, 1]), (0.2, [0, 2, 3]), (0.7, [0]), (0.9, [])])
    def test_scores_below_the_threshold_are_never_kept(self, threshold, expected):
        indices, _ = taken(BOXES, SCORES, iou_threshold=0.3, max_outputs=9, score_threshold=threshold)
        assert indices == expected

    @pytest.mark.parametrize(("threshold", "expected"), [(0.25, [0, 1]), (0.2501, [0])])
    def test_score_that_falls_to_the_threshold_is_kept(self, threshold, expected):
        assert taken(BOXES[:2], [0.75, 0.5], iou_threshold=0.3, max_outputs=2, score_threshold=threshold)[0] == expected

    def test_threshold_of_zero_takes_every_box_once(self):
        settings = {"iou_threshold": 0.5, "max_outputs": 9, "score_threshold": 0.0}
        indices, scores = taken([BOXES[0]] * 4, [0.5, 0.75, 0.5, 0.25], **settings)
        assert (indices, scores) == ([1, 0, 2, 3], [0.75, 0, 0, 0])

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_empty_boxes_overlap_nothing(self, method):
        boxes = np.stack([np.zeros(6), np.zeros(6), [3, 3, 3, 1, 1, 1]])
        indices, scores = taken(boxes, [0.25, 0.75, 0.5], iou_threshold=0.0, max_outputs=4, method=method)
        assert (indices, scores) == ([1, 2, 0], [0.75, 0.5, 0.25])

    def test_other_classes_lower_nothing(self):
        class_ids = np.array([1, 2, 1, 3], np.int32)
        scores = [0.5, 0.625, 0.75, 0.875]
        result = taken([BOXES[0]] * 4, scores, iou_threshold=0.5, max_outputs=9, class_ids=class_ids)
        assert result == ([3, 2, 1], [0.875, 0.75, 0.625])

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    @pytest.mark.parametrize(("num", "max_outputs"), [(1, 4), (40, 60), (200, 50)])
    @pytest.mark.parametrize("has_classes", [False, True])
    def test_random_boxes_equal_reference(self, method, num, max_outputs, has_classes):
        boxes, scores, class_ids = random_case(num, num)
        assert_equals_reference(
            boxes,
            scores,
            class_ids=class_ids if has_classes else None,
            iou_threshold=0.2,
            max_outputs=max_outputs,
            method=method,
            sigma=0.3,
            score_threshold=0.05,
        )

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, axes):
        rng = np.random.default_rng(5)
        boxes, scores = reference.random_boxes(rng, 40, SHAPE, smallest=2), rng.random(40)
        settings = {"iou_threshold": 0.3, "max_outputs": 40}
        indices, lowered = taken(reference.permute_boxes(boxes, axes), scores, **settings)
        expected, expected_lowered = taken(boxes, scores, **settings)
        assert indices == expected
        np.testing.assert_allclose(lowered, expected_lowered, rtol=1e-5)

    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    def test_fewer_outputs_are_the_first_of_more(self, method):
        boxes, scores, _ = random_case(7, 150)
        settings = {"iou_threshold": 0.3, "method": method}
        indices, lowered = taken(boxes, scores, max_outputs=100, **settings)
        assert taken(boxes, scores, max_outputs=20, **settings) == (indices[:20], lowered[:20])

    def test_narrow_gaussian_is_hard_suppression_at_zero(self):
        boxes, scores, _ = random_case(8, 150)
        settings = {"iou_threshold": 0.0, "max_outputs": 100}
        indices, valid = nms3d(boxes, scores, score_threshold=0.001, **settings)
        found, lowered = taken(boxes, scores, method="gaussian", sigma=1e-12, **settings)
        assert found == indices.numpy()[valid.numpy()].tolist()
        np.testing.assert_array_equal(lowered, scores[found])

    def test_huge_boxes_equal_reference(self):
        boxes, scores, _ = random_case(9, 60)
        assert_equals_reference(boxes * np.float32(1e5), scores, iou_threshold=0.2, max_outputs=60)

    any_threshold = staticmethod(
        tf.function(
            lambda boxes, scores, class_ids: {
                method: soft_nms3d(boxes, scores, class_ids=class_ids, iou_threshold=0.25, max_outputs=6, method=method)
                for method in ("linear", "gaussian")
            },
            input_signature=SIGNATURE,
        )
    )

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        rows=st.lists(
            st.tuples(
                st.tuples(*[st.sampled_from([-(10**6), -3, 0, 1, 2])] * 3),
                st.tuples(*[st.sampled_from([-2, 0, 1, 2, 4, 10**6])] * 3),
                st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -1.0, float("nan")]),
                st.integers(1, 2),
            ),
            max_size=12,
        )
    )
    def test_generated_boxes_follow_the_definition(self, rows):
        boxes = np.array([[*lo, *np.add(lo, size)] for lo, size, _, _ in rows], np.float32).reshape(-1, 6)
        scores = np.array([row[2] for row in rows], np.float32)
        class_ids = np.array([row[3] for row in rows], np.int32)
        for method, outputs in self.any_threshold(boxes, scores, class_ids).items():
            indices, lowered = checked(6, *outputs)
            # The order of ties that rounding breaks is open, so the reference follows the order taken.
            left = {i: float(score) for i, score in enumerate(scores) if score >= 0.001}
            for index, score in zip(indices, lowered, strict=True):
                np.testing.assert_allclose(score, left[index], rtol=1e-5)
                assert score >= max(left.values()) * (1 - 1e-5)
                del left[index]
                for i in left:
                    overlap = reference.iou(boxes[i], boxes[index]) * (class_ids[i] == class_ids[index])
                    linear = 1 - overlap if overlap > 0.25 else 1
                    left[i] *= linear if method == "linear" else math.exp(-(overlap**2) / 0.5)
                left = {i: score for i, score in left.items() if score >= 0.001}
            assert len(indices) == 6 or not left

    def test_unknown_count_equals_eager(self):
        for num in (0, 1, 50, 200):
            boxes, scores, class_ids = random_case(num, num)
            for method, outputs in self.any_threshold(boxes, scores, class_ids).items():
                settings = {"class_ids": class_ids, "iou_threshold": 0.25, "method": method}
                assert checked(6, *outputs) == taken(boxes, scores, max_outputs=6, **settings)

    def test_saved_model_equals_eager(self, tmp_path):
        module = tf.Module()
        module.soft_nms = self.any_threshold
        tf.saved_model.save(module, str(tmp_path))
        boxes, scores, class_ids = random_case(3, 90)
        for method, outputs in tf.saved_model.load(str(tmp_path)).soft_nms(boxes, scores, class_ids).items():
            settings = {"class_ids": class_ids, "iou_threshold": 0.25, "method": method}
            assert checked(6, *outputs) == taken(boxes, scores, max_outputs=6, **settings)

    @pytest.mark.parametrize(
        ("shapes", "settings", "message"),
        [
            ([(4, 6), (5,)], {}, r"expected boxes \[N, 6\], scores \[N\].*; came boxes \[4, 6\], scores \[5\]"),
            ([(4, 7), (4,)], {}, r"came boxes \[4, 7\], scores \[4\]"),
            ([(1, 4, 6), (4,)], {}, r"came boxes \[1, 4, 6\], scores \[4\]"),
            ([(4, 6), (4,)], {"class_ids": np.ones(3, np.int32)}, r"scores \[4\], class_ids \[3\]"),
            ([(4, 6), (4,)], {"iou_threshold": 1.5}, r"expected iou_threshold in \[0, 1\], came 1.5"),
            ([(4, 6), (4,)], {"max_outputs": 0}, "expected max_outputs above 0, came 0"),
            ([(4, 6), (4,)], {"sigma": 0}, "expected sigma above 0, came 0"),
            ([(4, 6), (4,)], {"method": "hard"}, "expected method 'linear' or 'gaussian', came 'hard'"),
        ],
    )
    def test_errors_name_both_sides(self, shapes, settings, message):
        boxes, scores = (np.ones(shape, np.float32) for shape in shapes)
        with pytest.raises(ValueError, match=message):
            soft_nms3d(boxes, scores, **{"iou_threshold": 0.5, "max_outputs": 3, **settings})


class BatchedSoftNms3dTest:
    @pytest.mark.parametrize("method", ["linear", "gaussian"])
    @pytest.mark.parametrize("has_classes", [False, True])
    def test_every_row_equals_reference(self, method, has_classes):
        boxes, scores, class_ids = (
            np.stack(rows) for rows in zip(*(random_case(s, 80) for s in range(3)), strict=True)
        )
        scores[1] = np.nan
        scores[2, ::2] = np.nan
        settings = {"iou_threshold": 0.2, "max_outputs": 30, "method": method, "sigma": 0.4, "score_threshold": 0.1}
        outputs = batched_soft_nms3d(boxes, scores, class_ids=class_ids if has_classes else None, **settings)
        for row in range(3):
            result = checked(30, *(values[row] for values in outputs))
            classes = class_ids[row] if has_classes else None
            assert_equals_reference(boxes[row], scores[row], result, class_ids=classes, **settings)

    def test_unknown_batch_and_count_equal_eager(self):
        settings = {"iou_threshold": 0.3, "max_outputs": 12}
        compiled = tf.function(
            lambda boxes, scores: batched_soft_nms3d(boxes, scores, **settings),
            input_signature=[tf.TensorSpec([None, None, 6], tf.float32), tf.TensorSpec([None, None], tf.float32)],
        )
        for batch, num in [(2, 40), (1, 90), (3, 0), (0, 4)]:
            boxes, scores, _ = random_case(batch, batch * num)
            boxes, scores = boxes.reshape(batch, num, 6), scores.reshape(batch, num)
            eager = batched_soft_nms3d(boxes, scores, **settings)
            for a, b in zip(compiled(boxes, scores), eager, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_errors_name_both_sides(self):
        with pytest.raises(ValueError, match=r"expected boxes \[B, N, 6\].*; came boxes \[4, 6\], scores \[4\]"):
            batched_soft_nms3d(np.ones((4, 6)), np.ones(4), iou_threshold=0.5, max_outputs=3)
        with pytest.raises(ValueError, match="expected max_outputs above 0, came -1"):
            batched_soft_nms3d(np.ones((2, 4, 6)), np.ones((2, 4)), iou_threshold=0.5, max_outputs=-1)
