import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.box_clustering import weighted_box_clustering
from ops.nms3d import TILE, nms3d
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
# 1 shares 4 of 8 voxels with 0 (IoU 1/2); 2 lies apart.
BOXES = np.array([[0, 0, 0, 1, 1, 6], [0, 0, 2, 1, 1, 8], [7, 0, 0, 8, 2, 3]], np.float32)
DTYPES = (tf.float32, tf.float32, tf.int32, tf.int32, tf.bool)


def clusters(boxes, scores, *, max_outputs=5, iou_threshold=0.25, **settings):
    """Runs the op, checks the form of its outputs and returns what is valid: boxes, scores, members, indices."""
    boxes, scores = np.reshape(boxes, (-1, 6)).astype(np.float32), np.asarray(scores, np.float32)
    settings |= {"max_outputs": max_outputs, "iou_threshold": iou_threshold}
    return checked(max_outputs, weighted_box_clustering(boxes, scores, **settings))


def checked(max_outputs, outputs):
    *outputs, joined = outputs
    assert joined.dtype == tf.int32
    assert tuple(values.dtype for values in outputs) == DTYPES
    assert outputs[0].shape == (max_outputs, 6)
    assert all(values.shape == (max_outputs,) for values in outputs[1:])
    *values, valid = (values.numpy() for values in outputs)
    count = valid.sum()
    np.testing.assert_array_equal(valid, np.arange(max_outputs) < count)
    for value in values:
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(value[count:], np.zeros_like(value[count:]))
    assert (np.diff(values[1]) <= 0).all()
    joined = joined.numpy()
    assert set(joined) <= set(range(-1, count))
    np.testing.assert_array_equal(np.bincount(joined[joined >= 0], minlength=count), values[2][:count])
    np.testing.assert_array_equal(joined[values[3][:count]], np.arange(count))
    return [value[:count] for value in values]


def assert_equals_reference(result, boxes, scores, **settings):
    expected = reference.weighted_box_clustering(boxes, scores, **settings)
    assert result[3].tolist() == [members[0] for *_, members in expected]
    assert result[2].tolist() == [len(members) for *_, members in expected]
    np.testing.assert_allclose(result[1], [score for _, score, _ in expected], rtol=1e-5)
    merged = np.reshape([box for box, *_ in expected], (-1, 6))
    np.testing.assert_allclose(result[0], merged, rtol=1e-5, atol=1e-5 * max(np.abs(boxes).max(initial=0), 1e-3))


def views_of_objects(seed, num, objects=12):
    """Boxes [num, 6] jittered around few objects, and scores, classes, weights and views of each."""
    rng = np.random.default_rng(seed)
    of_object = rng.integers(0, objects, num)
    size = rng.uniform(3, 12, (objects, 3))[of_object] * np.exp(rng.normal(0, 0.1, (num, 3)))
    centre = rng.uniform(-40, 40, (objects, 3))[of_object] + rng.normal(0, 0.1, (num, 3)) * size
    return {
        "boxes": np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32),
        "scores": rng.uniform(0.05, 1, num).astype(np.float32),
        "class_ids": rng.integers(1, 3, num).astype(np.int32),
        "weights": rng.uniform(0.1, 1, num).astype(np.float32),
        "num_views": rng.integers(1, 9, num).astype(np.float32),
    }


class WeightedBoxClusteringTest:
    @pytest.mark.parametrize("scale", [1e-14, 1e-3, 1.0, 1e10])
    def test_weights_are_known_up_to_a_factor(self, scale):
        boxes = np.float32([[0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2], [0, 0, 0, 1, 2, 2]])
        weights = np.full(3, scale, np.float32)
        merged, scores, *_ = weighted_box_clustering(
            boxes, np.float32([0.9, 0.8, 0.7]), iou_threshold=0.3, max_outputs=1, weights=weights
        )
        # w = IoU x relative volume: 1, 1 and a quarter.
        np.testing.assert_allclose(merged[0, 3], 2 - 0.175 / 1.875, rtol=1e-6)
        np.testing.assert_allclose(scores, [1.875 / 2.25], rtol=1e-6)

    @pytest.mark.parametrize("where", ["box", "score", "weight"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_is_left_out(self, where, value):
        boxes, scores = np.tile(np.float32([0, 0, 0, 2, 3, 4]), (3, 1)), np.float32([0.9, 0.8, 0.7])
        weights = np.ones(3, np.float32)
        {"box": boxes[0], "score": scores[:1], "weight": weights[:1]}[where][-1] = value
        merged, merged_scores, members, indices, valid, joined = weighted_box_clustering(
            boxes, scores, iou_threshold=0.5, max_outputs=2, weights=weights
        )
        np.testing.assert_array_equal(valid, [True, False])
        np.testing.assert_array_equal(merged[0], [0, 0, 0, 2, 3, 4])
        np.testing.assert_allclose(merged_scores[0], 0.75)
        assert (int(members[0]), int(indices[0])) == (2, 1)
        np.testing.assert_array_equal(joined, [-1, 0, 0])

    def test_one_box_is_unchanged(self):
        boxes, scores, members, indices = clusters(BOXES[2:], [0.75])
        np.testing.assert_array_equal(boxes, BOXES[2:])
        np.testing.assert_allclose(scores, [0.75], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([1], [0])

    def test_two_identical_boxes_keep_the_box_and_average_the_score(self):
        boxes, scores, members, indices = clusters(BOXES[[2, 2]], [0.5, 0.75])
        np.testing.assert_array_equal(boxes, BOXES[2:])
        np.testing.assert_allclose(scores, [0.625], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([2], [1])

    def test_hand_values(self):
        # Box 0 weighs 1 * 6, box 1 1/2 * 6; their scores make that 6 * 0.8 to 3 * 0.4, or 4 to 1.
        boxes, scores, members, indices = clusters(BOXES, [0.8, 0.4, 0.9])
        np.testing.assert_allclose(boxes, [BOXES[2], [0, 0, 0.4, 1, 1, 6.4]], rtol=1e-6)
        np.testing.assert_allclose(scores, [0.9, (6 * 0.8 + 3 * 0.4) / 9], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([1, 2], [2, 0])

    def test_weights_count(self):
        # 6 * 0.8 * 0.25 to 3 * 0.4 * 1: alike.
        weights = np.array([0.25, 1, 1], np.float32)
        boxes, scores, _, _ = clusters(BOXES, [0.8, 0.4, 0.9], weights=weights)
        np.testing.assert_allclose(boxes[1], [0, 0, 1, 1, 1, 7], rtol=1e-6)
        np.testing.assert_allclose(scores[1], (1.5 * 0.8 + 3 * 0.4) / 4.5, rtol=1e-6)

    def test_volume_counts(self):
        # The smaller box lies inside the larger: IoU 1/2, volumes 4 and 2, so weights 4 to 1.
        boxes, scores, _, _ = clusters([[0, 0, 0, 1, 1, 4], [0, 0, 0, 1, 1, 2]], [0.5, 0.5])
        np.testing.assert_allclose(boxes, [[0, 0, 0, 1, 1, 3.6]], rtol=1e-6)
        np.testing.assert_allclose(scores, [0.5], rtol=1e-6)

    @pytest.mark.parametrize(
        ("num_views", "share"), [(1, 1.0), (2, 1.0), (4, 0.5), (8, 0.25), (np.array([2, 6], np.float32), 0.5)]
    )
    def test_views_that_saw_nothing_lower_the_score(self, num_views, share):
        boxes, scores, _, _ = clusters(BOXES[[2, 2]], [0.5, 0.75], num_views=num_views)
        np.testing.assert_allclose(scores, [0.625 * share], rtol=1e-6)
        np.testing.assert_array_equal(boxes, BOXES[2:])

    def test_order_is_by_the_merged_score(self):
        # Seen by one of four views, the best-scored box comes last.
        boxes = np.stack([BOXES[2], *[BOXES[0]] * 4])
        _, scores, members, indices = clusters(boxes, [0.9, 0.5, 0.5, 0.5, 0.5], num_views=4)
        np.testing.assert_allclose(scores, [0.5, 0.225], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([4, 1], [1, 0])

    def test_a_box_joins_the_best_scored_box_it_overlaps(self):
        # The last box overlaps both others by 1/2, which overlap each other by 1/5.
        lo = np.zeros((3, 3))
        lo[:, 2] = [4, 0, 2]
        _, _, members, indices = clusters(np.concatenate([lo, lo + [1, 1, 6]], axis=1), [0.8, 0.9, 0.7])
        assert (members.tolist(), indices.tolist()) == ([2, 1], [1, 0])

    @pytest.mark.parametrize(("threshold", "members"), [(0.5, [1, 1]), (0.499, [2])])
    def test_pair_exactly_at_the_threshold_stays_apart(self, threshold, members):
        assert clusters(BOXES[:2], [0.9, 0.8], iou_threshold=threshold)[2].tolist() == members

    def test_classes_do_not_mix(self):
        class_ids = np.array([1, 2, 1], np.int32)
        boxes, scores, members, indices = clusters(BOXES[[0, 0, 0]], [0.5, 0.75, 0.25], class_ids=class_ids)
        np.testing.assert_array_equal(boxes, BOXES[[0, 0]])
        np.testing.assert_allclose(scores, [0.75, 0.375], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([1, 2], [1, 0])

    def test_empty_boxes_stay_as_they_are(self):
        empty = [[0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 5, 5], [4, 4, 4, 3, 3, 3]]
        boxes, scores, members, _ = clusters(empty, [0.5, 0.75, 0.25], iou_threshold=0.0, num_views=2)
        np.testing.assert_array_equal(boxes, np.float32(empty)[[1, 0, 2]])
        np.testing.assert_allclose(scores, [0.375, 0.25, 0.125], rtol=1e-6)
        assert members.tolist() == [1, 1, 1]

    def test_scores_and_weights_of_zero_give_the_best_box(self):
        boxes, scores, members, _ = clusters(BOXES[:2], [0, 0])
        np.testing.assert_array_equal(boxes, BOXES[:1])
        assert (scores.tolist(), members.tolist()) == ([0], [2])
        boxes, scores, _, _ = clusters(BOXES[:2], [0.5, 0.5], weights=np.zeros(2, np.float32))
        np.testing.assert_allclose(boxes, [[0, 0, 1, 1, 1, 7]], rtol=1e-6)
        np.testing.assert_allclose(scores, [0.5], rtol=1e-6)

    def test_a_box_that_weighs_nothing_changes_nothing(self):
        boxes, scores, members, _ = clusters(BOXES[:2], [0.5, 0.25], weights=np.array([1, 0], np.float32))
        np.testing.assert_allclose(boxes, BOXES[:1], atol=1e-6)
        np.testing.assert_allclose(scores, [0.5], rtol=1e-6)
        assert members.tolist() == [2]

    @pytest.mark.parametrize("scores", [[], [np.nan] * 3])
    def test_nothing_gives_nothing(self, scores):
        boxes, found, members, indices = clusters(BOXES[: len(scores)], scores, num_views=3)
        assert [len(values) for values in (boxes, found, members, indices)] == [0, 0, 0, 0]

    def test_nan_scores_join_nothing(self):
        _, scores, members, indices = clusters(BOXES[[0, 0, 0]], [np.nan, 0.5, np.nan])
        np.testing.assert_allclose(scores, [0.5], rtol=1e-6)
        assert (members.tolist(), indices.tolist()) == ([1], [1])

    def test_scores_below_the_threshold_join_nothing(self):
        _, scores, members, _ = clusters(BOXES[[0, 0, 0, 2]], [0.5, 0.25, 0.75, 0.125], score_threshold=0.5)
        np.testing.assert_allclose(scores, [0.625], rtol=1e-6)
        assert members.tolist() == [2]

    def test_members_count_even_when_the_places_are_full(self):
        _, _, members, indices = clusters(BOXES[[0, 2, 1]], [0.9, 0.8, 0.7], max_outputs=1)
        assert (members.tolist(), indices.tolist()) == ([2], [0])

    @pytest.mark.parametrize("num", [1, 60, TILE, TILE + 1])
    @pytest.mark.parametrize("max_outputs", [4, 60])
    def test_views_of_objects_equal_reference(self, num, max_outputs):
        case = views_of_objects(num, num)
        settings = {"iou_threshold": 0.2, "max_outputs": max_outputs, "score_threshold": 0.1}
        assert_equals_reference(clusters(**case, **settings), **case, **settings)

    def test_random_boxes_without_settings_equal_reference(self):
        rng = np.random.default_rng(0)
        boxes, scores = reference.random_boxes(rng, 150, SHAPE, smallest=2), rng.random(150).astype(np.float32)
        settings = {"iou_threshold": 0.4, "max_outputs": 200}
        result = clusters(boxes, scores, **settings)
        assert_equals_reference(result, boxes, scores, **settings)
        assert result[2].sum() == 150

    @pytest.mark.parametrize("max_outputs", [3, 40])
    def test_where_each_box_went(self, max_outputs):
        case = views_of_objects(7, 90)
        case["scores"][::9] = np.nan
        settings = {"iou_threshold": 0.2, "max_outputs": max_outputs, "score_threshold": 0.1}
        expected = np.full(90, -1)
        for row, (_, _, members) in enumerate(reference.weighted_box_clustering(**case, **settings)):
            expected[members] = row
        np.testing.assert_array_equal(weighted_box_clustering(**case, **settings)[-1], expected)

    def test_best_boxes_are_those_of_nms(self):
        case = views_of_objects(1, 400)
        settings = {"iou_threshold": 0.3, "max_outputs": 30}
        kept, valid = nms3d(case["boxes"], case["scores"], class_ids=case["class_ids"], **settings)
        assert sorted(clusters(**case, **settings)[3]) == sorted(kept.numpy()[valid.numpy()])

    @pytest.mark.parametrize(("scale", "offset"), [(1e5, 0), (1e-3, 0), (1, -1000)])
    def test_scaled_and_shifted_boxes_give_scaled_and_shifted_clusters(self, scale, offset):
        case = views_of_objects(2, 80)
        plain = clusters(**case)
        case["boxes"] = np.float32(case["boxes"] * scale + offset)
        moved = clusters(**case)
        np.testing.assert_allclose(moved[0], plain[0] * scale + offset, rtol=1e-4, atol=5e-3 * scale)
        np.testing.assert_allclose(moved[1], plain[1], rtol=1e-3)
        np.testing.assert_array_equal(moved[2:], plain[2:])

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_the_boxes(self, axes):
        rng = np.random.default_rng(5)
        boxes, scores = reference.random_boxes(rng, 40, SHAPE, smallest=2), rng.random(40)
        plain = clusters(boxes, scores)
        permuted = clusters(reference.permute_boxes(boxes, axes), scores)
        np.testing.assert_allclose(permuted[0], reference.permute_boxes(plain[0], axes), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(permuted[1], plain[1], rtol=1e-5)
        np.testing.assert_array_equal(permuted[2:], plain[2:])

    compiled = staticmethod(
        tf.function(
            lambda boxes, scores, class_ids, weights, num_views: weighted_box_clustering(
                boxes,
                scores,
                class_ids=class_ids,
                weights=weights,
                num_views=num_views,
                iou_threshold=0.25,
                max_outputs=6,
            ),
            input_signature=[
                tf.TensorSpec([None, 6], tf.float32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ],
        )
    )

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        rows=st.lists(
            st.tuples(
                st.tuples(*[st.sampled_from([-(10**6), -3, 0, 1, 2])] * 3),
                st.tuples(*[st.sampled_from([-2, 0, 1, 2, 4, 10**6])] * 3),
                st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]),
                st.integers(1, 2),
                st.sampled_from([0.25, 0.5, 1.0]),
                st.sampled_from([0.5, 1.0, 3.0]),
            ),
            max_size=12,
        )
    )
    def test_generated_boxes_equal_reference_but_for_the_order_of_ties(self, rows):
        boxes = np.array([[*lo, *np.add(lo, size)] for lo, size, *_ in rows], np.float32).reshape(-1, 6)
        scores, class_ids, weights, num_views = (
            np.array([row[2 + k] for row in rows], dtype)
            for k, dtype in enumerate((np.float32, np.int32, np.float32, np.float32))
        )
        result = checked(6, self.compiled(boxes, scores, class_ids, weights, num_views))
        settings = {"class_ids": class_ids, "weights": weights, "num_views": num_views}
        expected = reference.weighted_box_clustering(boxes, scores, iou_threshold=0.25, max_outputs=6, **settings)
        by_index = {members[0]: (box, score, len(members)) for box, score, members in expected}
        assert sorted(result[3]) == sorted(by_index)
        for box, score, members, index in zip(*result, strict=True):
            assert members == by_index[index][2]
            np.testing.assert_allclose(score, by_index[index][1], rtol=1e-5)
            np.testing.assert_allclose(box, by_index[index][0], rtol=1e-5, atol=1e-5 * np.abs(boxes).max())

    @pytest.mark.parametrize("num", [0, 1, 100])
    def test_unknown_count_equals_eager(self, num):
        case = views_of_objects(3, num)
        for a, b in zip(checked(6, self.compiled(**case)), clusters(**case, max_outputs=6), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)

    def test_saved_model_equals_eager(self, tmp_path):
        module = tf.Module()
        module.merge = self.compiled
        tf.saved_model.save(module, str(tmp_path))
        case = views_of_objects(4, 70)
        loaded = tf.saved_model.load(str(tmp_path)).merge(**case)
        for a, b in zip(checked(6, loaded), clusters(**case, max_outputs=6), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        ("shapes", "settings", "message"),
        [
            ([(4, 6), (5,)], {}, r"expected boxes \[N, 6\], scores \[N\].*; came boxes \[4, 6\], scores \[5\]"),
            ([(4, 7), (4,)], {}, r"came boxes \[4, 7\], scores \[4\]"),
            ([(1, 4, 6), (4,)], {}, r"came boxes \[1, 4, 6\], scores \[4\]"),
            ([(4, 6), (4,)], {"class_ids": np.ones(3, np.int32)}, r"scores \[4\], class_ids \[3\]"),
            ([(4, 6), (4,)], {"weights": np.ones((4, 1), np.float32)}, r"scores \[4\], weights \[4, 1\]"),
            ([(4, 6), (4,)], {"num_views": np.ones(5, np.float32)}, r"scores \[4\], num_views \[5\]"),
            ([(4, 6), (4,)], {"num_views": 0}, "expected num_views above 0, came 0"),
            ([(4, 6), (4,)], {"iou_threshold": 1.5}, r"expected iou_threshold in \[0, 1\], came 1.5"),
            ([(4, 6), (4,)], {"max_outputs": 0}, "expected max_outputs above 0, came 0"),
        ],
    )
    def test_errors_name_both_sides(self, shapes, settings, message):
        boxes, scores = (np.ones(shape, np.float32) for shape in shapes)
        with pytest.raises(ValueError, match=message):
            weighted_box_clustering(boxes, scores, **{"iou_threshold": 0.5, "max_outputs": 3, **settings})
