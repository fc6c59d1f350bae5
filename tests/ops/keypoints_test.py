import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from scipy import ndimage

from ops import keypoints
from tests import reference

SHAPE = (5, 7, 11)
SIZE = (2, 3, 4)
PERMUTATIONS = [(2, 0, 1), (1, 2, 0), (0, 2, 1)]


def random_ids(rng, num, batch=2, shape=SHAPE):
    """Ids of `num` solid blocks per volume, later ones over earlier ones."""
    ids = np.zeros((batch, *shape), np.int32)
    for b, slot in np.ndindex(batch, num):
        lo = rng.integers(0, shape)
        hi = np.minimum(lo + rng.integers(1, 6, 3), shape)
        ids[(b, *(slice(a, e) for a, e in zip(lo, hi, strict=True)))] = slot + 1
    return ids


def random_rois(rng, rois=4, points=3):
    """Boxes [2, rois, 6] and landmarks [2, rois, points, 3] inside and outside of them."""
    boxes = reference.random_boxes(rng, 2 * rois, SHAPE).reshape(2, rois, 6)
    places = (rng.random((2, rois, points, 3)) * 1.4 - 0.2).astype(np.float32)
    lo, hi = boxes[:, :, None, :3], boxes[:, :, None, 3:]
    return lo + places * (hi - lo), rng.random((2, rois, points)) < 0.8, boxes


def swap_ends(points, axis):
    """Landmarks with the two ends along an axis exchanged."""
    order = np.arange(7)
    order[[1 + 2 * axis, 2 + 2 * axis]] = order[[2 + 2 * axis, 1 + 2 * axis]]
    return points[:, :, order]


class MirroredOrderTest:
    @pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 1, 2)])
    def test_of_a_mirrored_volume_it_gives_back_the_landmarks(self, axes):
        ids = random_ids(np.random.default_rng(0), 3)
        points, _ = keypoints.from_ids(ids, 3)
        mirrored, _ = keypoints.from_ids(np.flip(ids, [axis + 1 for axis in axes]).copy(), 3)
        back = np.where([axis in axes for axis in range(3)], np.float32(SHAPE) - mirrored, mirrored)
        there = np.isin(np.arange(1, 4), ids[0])
        np.testing.assert_allclose(back[0][there][:, keypoints.mirrored_order(axes)], points[0][there], rtol=1e-5)


class KeypointsTest:
    def test_names(self):
        assert keypoints.KEYPOINTS == ("centroid", "z_min", "z_max", "y_min", "y_max", "x_min", "x_max")


class FromIdsTest:
    def test_hand_values(self):
        ids = np.zeros((1, *SHAPE), np.int32)
        ids[0, 1:3, 2:6, 4:9] = 1  # a block
        ids[0, 4, 6, 10] = 2  # one voxel in the last corner
        ids[0, 0, 0, 0] = ids[0, 0, 0, 1] = ids[0, 0, 3, 0] = ids[0, 3, 3, 0] = 4
        ids[0, 0, 0, 10] = 9  # not asked for
        ids[0, 4, 0, 0] = -3
        points, valid = keypoints.from_ids(ids, 4)
        block = [[2, 4, 6.5], [1.5, 4, 6.5], [2.5, 4, 6.5], [2, 2.5, 6.5], [2, 5.5, 6.5], [2, 4, 4.5], [2, 4, 8.5]]
        pieces = [
            [1.25, 2, 0.75],
            [0.5, 1.5, 0.5 + 1 / 3],
            [3.5, 3.5, 0.5],
            [0.5, 0.5, 1],
            [2, 3.5, 0.5],
            [1.5, 2.5, 0.5],
            [0.5, 0.5, 1.5],
        ]
        np.testing.assert_allclose(points, [[block, [[4.5, 6.5, 10.5]] * 7, [[0, 0, 0]] * 7, pieces]], rtol=1e-6)
        np.testing.assert_array_equal(valid, [[[True] * 7, [True] * 7, [False] * 7, [True] * 7]])
        assert (points.dtype, valid.dtype) == (tf.float32, tf.bool)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed):
        ids = random_ids(np.random.default_rng(seed), 6)
        points, valid = keypoints.from_ids(ids, 5)
        for b in range(2):
            expected_points, expected_valid = reference.instance_keypoints(ids[b], 5)
            np.testing.assert_allclose(points[b], expected_points, rtol=1e-6)
            np.testing.assert_array_equal(valid[b], expected_valid)

    def test_scattered_ids_equal_reference(self):
        ids = np.random.default_rng(3).integers(-2, 60, (1, *SHAPE)).astype(np.int32)
        points, valid = keypoints.from_ids(ids, 50)
        expected_points, expected_valid = reference.instance_keypoints(ids[0], 50)
        np.testing.assert_allclose(points[0], expected_points, rtol=1e-6)
        np.testing.assert_array_equal(valid[0], expected_valid)

    def test_centroid_equals_scipy(self):
        ids = random_ids(np.random.default_rng(4), 4, batch=1)
        points, valid = keypoints.from_ids(ids, 4)
        for slot in np.flatnonzero(valid[0, :, 0]):
            centre = ndimage.center_of_mass(ids[0] == slot + 1)
            np.testing.assert_allclose(points[0, slot, 0], np.array(centre) + 0.5, rtol=1e-6)

    @pytest.mark.parametrize("axis", range(3))
    def test_a_mirrored_volume_gives_mirrored_points_with_the_ends_exchanged(self, axis):
        ids = random_ids(np.random.default_rng(5), 4)
        points, valid = keypoints.from_ids(ids, 4)
        mirrored, mirrored_valid = keypoints.from_ids(np.flip(ids, axis + 1), 4)
        expected = points.numpy()
        expected[..., axis] = np.where(valid, SHAPE[axis] - expected[..., axis], 0)
        np.testing.assert_allclose(mirrored, swap_ends(expected, axis), rtol=1e-6)
        np.testing.assert_array_equal(mirrored_valid, valid)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes(self, axes):
        ids = random_ids(np.random.default_rng(6), 4)
        points, _ = keypoints.from_ids(ids, 4)
        permuted, _ = keypoints.from_ids(np.transpose(ids, (0, *(a + 1 for a in axes))), 4)
        order = [0, *(1 + 2 * a + end for a in axes for end in range(2))]
        np.testing.assert_allclose(permuted, points.numpy()[:, :, order][..., list(axes)], rtol=1e-6)

    def test_each_extremal_point_lies_on_the_box(self):
        ids = np.random.default_rng(7).integers(0, 9, (1, *SHAPE)).astype(np.int32)
        points, _ = keypoints.from_ids(ids, 8)
        boxes, _ = reference.instance_boxes(ids[0], 8)
        for axis in range(3):
            np.testing.assert_array_equal(points[0, :, 1 + 2 * axis, axis], boxes[:, axis] + 0.5)
            np.testing.assert_array_equal(points[0, :, 2 + 2 * axis, axis], boxes[:, axis + 3] - 0.5)

    def test_a_large_instance_has_its_exact_centroid(self):
        ids = np.ones((1, 60, 70, 300), np.int32)
        ids[0, 0, 0, 0] = 0
        points, _ = keypoints.from_ids(ids, 1)
        count = 60 * 70 * 300
        expected = [(count * size / 2 - 0.5) / (count - 1) for size in (60, 70, 300)]
        np.testing.assert_allclose(points[0, 0, 0], expected, rtol=3e-7)

    @pytest.mark.parametrize("batch", [0, 1, 3])
    def test_nothing_there(self, batch):
        points, valid = keypoints.from_ids(np.zeros((batch, *SHAPE), np.int32), 4)
        np.testing.assert_array_equal(points, np.zeros((batch, 4, 7, 3)))
        np.testing.assert_array_equal(valid, np.zeros((batch, 4, 7), bool))

    def test_unknown_shape_equals_eager(self):
        function = tf.function(
            lambda ids: keypoints.from_ids(ids, 4), input_signature=[tf.TensorSpec([None] * 4, tf.int32)]
        )
        assert function.get_concrete_function().structured_outputs[0].shape.as_list() == [None, 4, 7, 3]
        for seed in range(2):
            ids = random_ids(np.random.default_rng(seed), 4)
            for ours, theirs in zip(function(ids), keypoints.from_ids(ids, 4), strict=True):
                np.testing.assert_array_equal(ours, theirs)

    @hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
    @hypothesis.given(
        st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 5), st.integers(0, 8)
    )
    def test_any_ids_equal_reference(self, seed, shape, num, largest):
        ids = np.random.default_rng(seed).integers(-1, largest + 1, (1, *shape)).astype(np.int32)
        points, valid = keypoints.from_ids(ids, num)
        expected_points, expected_valid = reference.instance_keypoints(ids[0], num)
        np.testing.assert_allclose(points[0], expected_points, rtol=1e-6)
        np.testing.assert_array_equal(valid[0], expected_valid)

    def test_wrong_input_raises(self):
        with pytest.raises(ValueError, match=r"expected ids \[B, Z, Y, X\]; came ids \[5, 7, 11\]"):
            keypoints.from_ids(np.zeros(SHAPE, np.int32), 3)
        with pytest.raises(ValueError, match="expected num_instances above 0, came 0"):
            keypoints.from_ids(np.zeros((1, *SHAPE), np.int32), 0)


class ToHeatMapsTest:
    @pytest.mark.parametrize(
        ("point", "expected"),
        [  # bins of 2 x 3 x 5 voxels
            ((1, 11.5, 22.5), {(0, 0, 0): 1}),  # the centre of the first
            ((0, 10, 20), {(0, 0, 0): 1}),  # beyond it
            ((3.99, 18.99, 39.99), {(1, 2, 3): 1}),
            ((3, 14.5, 27.5), {(1, 1, 1): 1}),
            ((2, 14.5, 27.5), {(0, 1, 1): 0.5, (1, 1, 1): 0.5}),  # on a border
            ((3, 14.5, 28.5), {(1, 1, 1): 0.8, (1, 1, 2): 0.2}),
            ((2, 13, 28.5), {(z, y, x): (0.2, 0.05)[x - 1] for z in (0, 1) for y in (0, 1) for x in (1, 2)}),
            ((4, 12, 24), None),  # half-open
            ((0, 19, 20), None),
            ((0, 9.99, 20), None),
            ((0, 10, 40), None),
            ((np.nan, 10, 20), None),
            ((1e30, 10, 20), None),
        ],
    )
    def test_hand_values(self, point, expected):
        box = np.float32([[[0, 10, 20, 4, 19, 40]]])
        maps, inside = keypoints.to_heat_maps(np.float32([[[point]]]), np.array([[[True]]]), box, SIZE)
        assert inside.numpy().item() == (expected is not None)
        assert maps.dtype == tf.float32
        whole = np.zeros(SIZE)
        for cell, share in (expected or {(0, 0, 0): 1}).items():
            whole[cell] = share
        np.testing.assert_allclose(maps[0, 0, 0], whole, atol=1e-6)

    def test_a_symmetric_object_in_a_box_that_shakes_has_maps_that_do_not_leap(self):
        ids = np.zeros((1, *SHAPE), np.int32)
        ids[0, 1:5, 2:6, 3:9] = 1
        points, valid = keypoints.from_ids(ids, 1)
        maps = []
        for shake in (-1e-3, 1e-3):
            box = np.float32([[[1, 2, 3, 5, 6, 9]]]) + np.float32(shake)
            maps.append(keypoints.to_heat_maps(points, valid, box, (4, 6, 8))[0].numpy())
        np.testing.assert_allclose(maps[0], maps[1], atol=0.01)
        np.testing.assert_allclose(maps[0][0, 0, 0, 1:3, 2:4, 3:5], np.full((2, 2, 2), 1 / 8), atol=0.01)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed):
        points, valid, boxes = random_rois(np.random.default_rng(seed))
        maps, inside = keypoints.to_heat_maps(points, valid, boxes, SIZE)
        expected_maps, expected_inside = reference.keypoint_heat_maps(points, valid, boxes, SIZE)
        assert 0 < expected_inside.sum() < valid.sum() < valid.size
        np.testing.assert_array_equal(inside, expected_inside)
        np.testing.assert_allclose(maps, expected_maps, atol=1e-5)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes(self, axes):
        points, valid, boxes = random_rois(np.random.default_rng(3))
        maps, inside = keypoints.to_heat_maps(points, valid, boxes, SIZE)
        permuted, permuted_inside = keypoints.to_heat_maps(
            points[..., list(axes)], valid, reference.permute_boxes(boxes, axes), [SIZE[a] for a in axes]
        )
        np.testing.assert_array_equal(permuted_inside, inside)
        np.testing.assert_allclose(permuted, np.transpose(maps, (0, 1, 2, *(a + 3 for a in axes))), atol=1e-6)

    def test_one_size_stands_for_three(self):
        points, valid, boxes = random_rois(np.random.default_rng(4))
        one, three = (keypoints.to_heat_maps(points, valid, boxes, size) for size in (5, (5, 5, 5)))
        for ours, theirs in zip(one, three, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_nothing_is_inside_an_empty_box(self):
        points = np.ones((1, 1, 2, 3), np.float32)
        for box in ([1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 5, 5], [0] * 6):
            maps, inside = keypoints.to_heat_maps(points, np.ones((1, 1, 2), bool), np.float32([[box]]), SIZE)
            np.testing.assert_array_equal(inside, [[[False, False]]])
            np.testing.assert_array_equal(maps[0, 0, :, 0, 0, 0], [1, 1])
            np.testing.assert_array_equal(np.sum(maps, (3, 4, 5)), [[[1, 1]]])

    @pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
    def test_no_landmarks(self, shape):
        maps, inside = keypoints.to_heat_maps(
            np.zeros((*shape, 3)), np.zeros(shape, bool), np.zeros((*shape[:2], 6)), SIZE
        )
        assert maps.shape == (*shape, *SIZE)
        assert inside.shape == shape

    @hypothesis.settings(deadline=None, max_examples=50, derandomize=True)
    @hypothesis.given(
        lo=st.floats(-1e6, 1e6, width=32),
        size=st.floats(0, 1e6, width=32),
        share=st.floats(0, 1),
    )
    def test_maps_of_any_box_sum_to_one(self, lo, size, share):
        box = np.full((1, 1, 6), lo, np.float32)
        box[..., 3:] += np.float32(size)
        point = (box[..., :3] + np.float32(share) * (box[..., 3:] - box[..., :3]))[:, :, None]
        maps, inside = keypoints.to_heat_maps(point, np.ones((1, 1, 1), bool), box, SIZE)
        assert np.min(maps) >= 0
        np.testing.assert_allclose(np.sum(maps), 1, rtol=1e-5)
        assert inside.numpy().item() == bool(np.all((point >= box[..., :3]) & (point < box[..., 3:])))

    def test_unknown_shape_equals_eager(self):
        points, valid, boxes = random_rois(np.random.default_rng(5))
        specs = [
            tf.TensorSpec([None, None, None, 3]),
            tf.TensorSpec([None, None, None], tf.bool),
            tf.TensorSpec([None, None, 6]),
        ]
        function = tf.function(lambda *args: keypoints.to_heat_maps(*args, SIZE), input_signature=specs)
        eager = keypoints.to_heat_maps(points, valid, boxes, SIZE)
        for ours, theirs in zip(function(points, valid, boxes), eager, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    def test_wrong_input_raises(self):
        points, valid, boxes = random_rois(np.random.default_rng(6))
        with pytest.raises(ValueError, match=r"expected points \[B, R, N, 3\], .*came points \[2, 4, 3, 2\]"):
            keypoints.to_heat_maps(points[..., :2], valid, boxes, SIZE)
        with pytest.raises(ValueError, match="expected size as one number above 0 or three"):
            keypoints.to_heat_maps(points, valid, boxes, (2, 3))


class FromHeatMapsTest:
    def test_hand_values(self):
        logits = np.zeros((1, 1, 2, *SIZE), np.float32)
        logits[0, 0, 0, 1, 0, 2] = np.log(23.0)  # as likely as all others together
        points, scores = keypoints.from_heat_maps(logits, np.float32([[[0, 10, 20, 4, 19, 40]]]))
        np.testing.assert_allclose(points, [[[[3, 11.5, 32.5], [1, 11.5, 22.5]]]], rtol=1e-6)
        # Around the cell there are 2 x 2 x 3 cells; 2 x 2 x 2 around the first one.
        np.testing.assert_allclose(scores, [[[(23 + 11) / 46, 8 / 24]]], rtol=1e-5)

    @pytest.mark.parametrize("place", [(2.5, 3.1, 4.4), (1.5, 4.49, 2.01), (3.0, 3.9, 8.5)])
    def test_the_top_of_a_gaussian_is_found_between_the_bins(self, place):
        size = (5, 7, 11)
        centres = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size), indexing="ij"), axis=-1)
        logits = -0.5 * ((centres - place) ** 2 / (1.0, 2.0, 3.0)).sum(-1)
        box = np.float32([[[0, 10, 20, 10, 31, 31]]])
        points, scores = keypoints.from_heat_maps(np.float32(logits)[None, None, None], box)
        expected = [2 * place[0], 10 + 3 * place[1], 20 + place[2]]
        np.testing.assert_allclose(points[0, 0, 0], expected, rtol=1e-4)
        around = np.all(np.abs(centres - np.floor(place) - 0.5) <= 1, axis=-1)
        np.testing.assert_allclose(scores[0, 0, 0], np.exp(logits)[around].sum() / np.exp(logits).sum(), rtol=1e-4)

    def test_two_bins_that_share_a_landmark_have_it_between_them(self):
        logits = np.full((1, 1, 1, *SIZE), -9.0, np.float32)
        logits[..., 1, 1, 1:3] = 4.0
        points, scores = keypoints.from_heat_maps(logits, np.float32([[[0, 10, 20, 4, 19, 40]]]))
        np.testing.assert_allclose(points, [[[[3, 14.5, 30]]]], rtol=1e-5)
        np.testing.assert_allclose(scores, [[[1]]], rtol=1e-3)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed):
        rng = np.random.default_rng(seed)
        logits, (_, _, boxes) = rng.normal(size=(2, 4, 3, *SIZE)).astype(np.float32), random_rois(rng)
        points, scores = keypoints.from_heat_maps(logits, boxes)
        expected_points, expected_scores = reference.heat_map_peaks(logits, boxes)
        np.testing.assert_allclose(points, expected_points, rtol=1e-5)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)

    def test_the_centre_of_a_bin_returns_from_its_heat_map(self):
        cells = np.random.default_rng(0).integers(0, SIZE, (2, 4, 3, 3))
        boxes = random_rois(np.random.default_rng(1))[2]
        lo, hi = boxes[:, :, None, :3], boxes[:, :, None, 3:]
        points = (lo + (hi - lo) * (cells + 0.5) / SIZE).astype(np.float32)
        maps, inside = keypoints.to_heat_maps(points, np.ones((2, 4, 3), bool), boxes, SIZE)
        assert inside.numpy().all()
        found, scores = keypoints.from_heat_maps(np.log(maps.numpy() + 1e-4), boxes)
        np.testing.assert_allclose(found, points, atol=1e-3)
        np.testing.assert_allclose(scores, np.ones((2, 4, 3)), rtol=0.01)

    def test_a_landmark_returns_within_half_a_bin(self):
        points, valid, boxes = random_rois(np.random.default_rng(2), rois=20)
        maps, inside = keypoints.to_heat_maps(points, valid, boxes, SIZE)
        found, _ = keypoints.from_heat_maps(np.log(maps.numpy() + 1e-4), boxes)
        half = 0.5 * (boxes[..., 3:] - boxes[..., :3]) / SIZE
        assert np.all((np.abs(found - points) <= 1.001 * half[:, :, None])[inside.numpy()])

    def test_the_score_of_a_landmark_does_not_depend_on_its_place_between_the_bins(self):
        box = np.float32([[[0, 0, 0, 2, 3, 4]]])
        points = np.random.default_rng(4).uniform(0, 2, (1, 1, 50, 3)).astype(np.float32)
        maps, _ = keypoints.to_heat_maps(points, np.ones((1, 1, 50), bool), box, SIZE)
        _, scores = keypoints.from_heat_maps(np.log(maps.numpy() + 1e-6), box)
        np.testing.assert_allclose(scores, np.ones((1, 1, 50)), rtol=1e-4)

    def test_a_landmark_between_the_outermost_centres_returns_within_a_quarter_of_a_bin(self):
        box, size = np.float32([[[0, 0, 0, 7, 7, 7]]]), (7, 7, 7)
        points = np.random.default_rng(3).uniform(1.5, 5.5, (1, 1, 200, 3)).astype(np.float32)
        maps, _ = keypoints.to_heat_maps(points, np.ones((1, 1, 200), bool), box, size)
        found, _ = keypoints.from_heat_maps(np.log(maps.numpy() + 1e-4), box)
        assert np.abs(found - points).max() < 1 / 4

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes(self, axes):
        rng = np.random.default_rng(3)
        logits, (_, _, boxes) = rng.normal(size=(2, 4, 3, *SIZE)).astype(np.float32), random_rois(rng)
        points, scores = keypoints.from_heat_maps(logits, boxes)
        permuted, permuted_scores = keypoints.from_heat_maps(
            np.transpose(logits, (0, 1, 2, *(a + 3 for a in axes))), reference.permute_boxes(boxes, axes)
        )
        np.testing.assert_allclose(permuted, points.numpy()[..., list(axes)], rtol=1e-5)
        np.testing.assert_allclose(permuted_scores, scores, rtol=1e-5)

    @pytest.mark.parametrize("axis", range(3))
    def test_a_mirrored_map_in_a_mirrored_box_gives_mirrored_points(self, axis):
        rng = np.random.default_rng(4)
        logits, (_, _, boxes) = rng.normal(size=(2, 4, 3, *SIZE)).astype(np.float32), random_rois(rng)
        mirrored_boxes = boxes.copy()
        mirrored_boxes[..., axis] = SHAPE[axis] - boxes[..., axis + 3]
        mirrored_boxes[..., axis + 3] = SHAPE[axis] - boxes[..., axis]
        expected = keypoints.from_heat_maps(logits, boxes)[0].numpy()
        expected[..., axis] = SHAPE[axis] - expected[..., axis]
        points, _ = keypoints.from_heat_maps(np.flip(logits, axis + 3), mirrored_boxes)
        np.testing.assert_allclose(points, expected, rtol=1e-4, atol=1e-5)

    def test_huge_logits_and_empty_boxes_stay_finite(self):
        logits = np.float32(1e30) * np.random.default_rng(5).normal(size=(1, 2, 1, *SIZE)).astype(np.float32)
        points, scores = keypoints.from_heat_maps(logits, np.float32([[[0] * 6, [3] * 6]]))
        np.testing.assert_array_equal(points, [[[[0, 0, 0]], [[3, 3, 3]]]])
        np.testing.assert_array_equal(scores, [[[1], [1]]])

    def test_no_rois(self):
        points, scores = keypoints.from_heat_maps(np.zeros((2, 0, 7, *SIZE), np.float32), np.zeros((2, 0, 6)))
        assert points.shape == (2, 0, 7, 3)
        assert scores.shape == (2, 0, 7)

    def test_unknown_count_equals_eager(self):
        rng = np.random.default_rng(6)
        logits, (_, _, boxes) = rng.normal(size=(2, 4, 3, *SIZE)).astype(np.float32), random_rois(rng)
        specs = [tf.TensorSpec([None, None, None, *SIZE]), tf.TensorSpec([None, None, 6])]
        function = tf.function(keypoints.from_heat_maps, input_signature=specs)
        for ours, theirs in zip(function(logits, boxes), keypoints.from_heat_maps(logits, boxes), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)

    def test_wrong_input_raises(self):
        with pytest.raises(ValueError, match=r"expected logits \[B, R, N, z, y, x\], boxes \[B, R, 6\]; came .*4, 5\]"):
            keypoints.from_heat_maps(np.zeros((1, 2, 7, *SIZE)), np.zeros((1, 4, 5)))
