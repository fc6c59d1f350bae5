import numpy as np
import pytest
import tensorflow as tf

from ops.masks import covered_voxels, instance_boxes, label_volume, mask_targets, resample
from tests import reference

SHAPE = (5, 7, 11)
SIZE = (2, 3, 4)
PERMUTATIONS = [(2, 0, 1), (1, 2, 0), (0, 2, 1)]


def random_ids(rng, num, shape=SHAPE):
    """Ids of `num` solid blocks, later blocks over earlier ones, some of one voxel."""
    ids = np.zeros(shape, np.int32)
    for i in range(num):
        lo = rng.integers(0, shape)
        hi = np.minimum(lo + rng.integers(1, 6, 3), shape)
        ids[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] = i + 1
    return ids


def random_masks(rng, num, size=SIZE):
    return rng.random((num, *size)).astype(np.float32)


class InstanceBoxesTest:
    def test_hand_values(self):
        ids = np.zeros(SHAPE, np.int32)
        ids[1:3, 2:6, 4:9] = 1
        ids[4, 6, 10] = 2  # one voxel in the last corner
        ids[0, 0, 0] = ids[0, 3, 0] = 4  # in two pieces
        ids[0, 0, 10] = 9  # not asked for
        ids[4, 0, 0] = -3
        boxes, voxels = instance_boxes(ids, 4)
        expected = [[1, 2, 4, 3, 6, 9], [4, 6, 10, 5, 7, 11], [0] * 6, [0, 0, 0, 1, 4, 1]]
        np.testing.assert_array_equal(boxes, expected)
        np.testing.assert_array_equal(voxels, [40, 1, 0, 2])
        assert (boxes.dtype, voxels.dtype) == (tf.float32, tf.int32)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed):
        ids = random_ids(np.random.default_rng(seed), 9)
        boxes, voxels = instance_boxes(ids, 7)
        expected_boxes, expected_voxels = reference.instance_boxes(ids, 7)
        np.testing.assert_array_equal(boxes, expected_boxes)
        np.testing.assert_array_equal(voxels, expected_voxels)

    def test_scattered_ids_equal_reference(self):
        ids = np.random.default_rng(3).integers(-2, 400, SHAPE).astype(np.int32)
        boxes, voxels = instance_boxes(ids, 390)
        expected_boxes, expected_voxels = reference.instance_boxes(ids, 390)
        np.testing.assert_array_equal(boxes, expected_boxes)
        np.testing.assert_array_equal(voxels, expected_voxels)

    def test_volume_filled_by_one(self):
        boxes, voxels = instance_boxes(np.ones(SHAPE, np.int32), 1)
        np.testing.assert_array_equal(boxes, [[0, 0, 0, *SHAPE]])
        np.testing.assert_array_equal(voxels, [5 * 7 * 11])

    @pytest.mark.parametrize("num", [0, 3])
    def test_nothing_there(self, num):
        boxes, voxels = instance_boxes(np.zeros(SHAPE, np.int32), num)
        np.testing.assert_array_equal(boxes, np.zeros((num, 6)))
        np.testing.assert_array_equal(voxels, np.zeros(num))

    def test_volume_without_voxels(self):
        boxes, voxels = instance_boxes(np.zeros((5, 0, 11), np.int32), 2)
        np.testing.assert_array_equal(boxes, np.zeros((2, 6)))
        np.testing.assert_array_equal(voxels, [0, 0])

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_boxes(self, axes):
        ids = random_ids(np.random.default_rng(4), 6)
        boxes, voxels = instance_boxes(np.transpose(ids, axes).copy(), 6)
        expected_boxes, expected_voxels = instance_boxes(ids, 6)
        np.testing.assert_array_equal(boxes, reference.permute_boxes(expected_boxes, axes))
        np.testing.assert_array_equal(voxels, expected_voxels)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flipped_volume_gives_flipped_boxes(self, axis):
        ids = random_ids(np.random.default_rng(5), 4)
        flipped, _ = instance_boxes(np.flip(ids, axis).copy(), 4)
        boxes, voxels = (tensor.numpy() for tensor in instance_boxes(ids, 4))
        present = voxels > 0
        expected = boxes.copy()
        expected[:, axis] = SHAPE[axis] - boxes[:, axis + 3]
        expected[:, axis + 3] = SHAPE[axis] - boxes[:, axis]
        np.testing.assert_array_equal(flipped.numpy()[present], expected[present])

    def test_unknown_shape_equals_eager(self):
        compiled = tf.function(
            lambda ids: instance_boxes(ids, 5),
            input_signature=[tf.TensorSpec([None, None, None], tf.int32)],
        )
        for shape in [SHAPE, (1, 2, 3), (0, 2, 3)]:
            ids = np.random.default_rng(6).integers(-1, 7, shape).astype(np.int32)
            for a, b in zip(compiled(ids), instance_boxes(ids, 5), strict=True):
                np.testing.assert_array_equal(a, b)


class MaskTargetsTest:
    def test_hand_values(self):
        ids = np.zeros((1, *SHAPE), np.int32)
        ids[0, 1:3, 2:4, 5:9] = 3
        boxes = tf.constant([[[0.0, 2, 3, 4, 4, 11]]])  # bins of 2 x 2 x 2 voxels
        result = mask_targets(ids, boxes, tf.constant([[2]]), (2, 1, 4))
        # Bin centres: z 1, 3; y 3; x 4, 6, 8, 10. A centre on a border is in the upper voxel.
        np.testing.assert_array_equal(result, [[[[[0, 1, 1, 0]], [[0, 0, 0, 0]]]]])
        assert result.dtype == tf.float32

    @pytest.mark.parametrize("size", [SIZE, (5, 3, 7)])
    def test_equals_reference(self, size):
        rng = np.random.default_rng(7)
        ids = np.stack([random_ids(rng, 6) for _ in range(2)])
        boxes = rng.uniform(-2, 6, (2, 12, 6)).astype(np.float32)
        boxes[..., 3:] = boxes[..., :3] + rng.uniform(0.2, 9, (2, 12, 3))
        slots = rng.integers(-1, 6, (2, 12)).astype(np.int32)
        expected = reference.mask_targets(ids, boxes, slots, size)
        assert expected.any()
        np.testing.assert_array_equal(mask_targets(ids, boxes, slots, size), expected)

    def test_box_on_whole_voxels_crops_the_instance(self):
        ids = random_ids(np.random.default_rng(8), 5)
        boxes, _ = instance_boxes(ids, 5)
        lo, hi = (boxes[4, :3].numpy().astype(int), boxes[4, 3:].numpy().astype(int))
        result = mask_targets(ids[None], boxes[None, 4:], tf.constant([[4]]), tuple(hi - lo))
        crop = ids[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] == 5
        np.testing.assert_array_equal(result[0, 0], crop)

    def test_outside_the_volume_is_zero(self):
        ids = np.ones((1, *SHAPE), np.int32)
        boxes = tf.constant([[[-4.0, 0, 0, 4, 7, 11], [0, 0, 11, 5, 7, 33], [3, 3, 9, 7, 5, 13]]])
        result = mask_targets(ids, boxes, tf.zeros([1, 3], tf.int32), 2).numpy()[0]
        np.testing.assert_array_equal(result[0, 0], np.zeros((2, 2)))
        np.testing.assert_array_equal(result[0, 1], np.ones((2, 2)))
        np.testing.assert_array_equal(result[1], np.zeros((2, 2, 2)))
        np.testing.assert_array_equal(result[2], [[[1, 0], [1, 0]], [[0, 0], [0, 0]]])

    def test_negative_slot_is_all_zero(self):
        boxes = tf.constant([[[0.0, 0, 0, 5, 7, 11]] * 3])
        # Slot -1 must not take the background, id 0, for its instance.
        for ids in (np.zeros((1, *SHAPE), np.int32), np.ones((1, *SHAPE), np.int32)):
            result = mask_targets(ids, boxes, tf.constant([[-1, -2, -7]]), SIZE)
            np.testing.assert_array_equal(result, np.zeros((1, 3, *SIZE)))

    def test_no_rois(self):
        result = mask_targets(np.ones((2, *SHAPE), np.int32), tf.zeros([2, 0, 6]), tf.zeros([2, 0], tf.int32), SIZE)
        assert result.shape == (2, 0, *SIZE)

    def test_integer_size_means_equal_triple(self):
        rng = np.random.default_rng(9)
        ids = random_ids(rng, 4)[None]
        boxes = reference.random_boxes(rng, 4, SHAPE)[None]
        slots = np.arange(4, dtype=np.int32)[None]
        result = mask_targets(ids, boxes, slots, 3)
        assert result.shape == (1, 4, 3, 3, 3)
        np.testing.assert_array_equal(result, mask_targets(ids, boxes, slots, (3, 3, 3)))

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_masks(self, axes):
        rng = np.random.default_rng(10)
        ids = np.stack([random_ids(rng, 4) for _ in range(2)])
        boxes = reference.random_boxes(rng, 10, SHAPE).reshape(2, 5, 6)
        slots = rng.integers(-1, 4, (2, 5)).astype(np.int32)
        result = mask_targets(
            np.transpose(ids, (0, *[a + 1 for a in axes])).copy(),
            reference.permute_boxes(boxes, axes),
            slots,
            [SIZE[a] for a in axes],
        )
        plain = mask_targets(ids, boxes, slots, SIZE)
        np.testing.assert_array_equal(result, np.transpose(plain, (0, 1, *[a + 2 for a in axes])))

    def test_unknown_sizes_equal_eager(self):
        rng = np.random.default_rng(11)
        compiled = tf.function(
            lambda ids, boxes, slots: mask_targets(ids, boxes, slots, SIZE),
            input_signature=[
                tf.TensorSpec([None] * 4, tf.int32),
                tf.TensorSpec([None, None, 6], tf.float32),
                tf.TensorSpec([None, None], tf.int32),
            ],
        )
        for batch, num in [(2, 5), (1, 0), (3, 1)]:
            ids = np.stack([random_ids(rng, 4) for _ in range(batch)])
            boxes = reference.random_boxes(rng, batch * num, SHAPE).reshape(batch, num, 6)
            slots = rng.integers(-1, 4, (batch, num)).astype(np.int32)
            result = compiled(ids, boxes, slots)
            assert result.shape == (batch, num, *SIZE)
            np.testing.assert_array_equal(result, mask_targets(ids, boxes, slots, SIZE))


class CoveredVoxelsTest:
    @pytest.mark.parametrize("shape", [SHAPE, tf.constant(SHAPE)], ids=["triple", "tensor"])
    def test_hand_values(self, shape):
        boxes = tf.constant(
            [
                [1.0, 2, 3, 4, 5, 6],
                [0.4, 1.6, 2.5, 2.6, 4.4, 5.5],  # half-open: the centre 2.5 is in, 5.5 is not
                [-9, -0.5, 8, 1e9, 99, 10.51],
                [1.6, 0, 0, 2.4, 7, 11],  # between two centres
                [4, 4, 4, 1, 1, 1],
                [20, -8, 0, 30, -3, 11],
                [0, 0, 0, 0, 0, 0],
            ]
        )
        lo, hi = covered_voxels(boxes, shape)
        expected_lo = [[1, 2, 3], [0, 2, 2], [0, 0, 8], [2, 0, 0], [4, 4, 4], [5, 0, 0], [0, 0, 0]]
        expected_hi = [[4, 5, 6], [3, 4, 5], [5, 7, 11], [2, 7, 11], [4, 4, 4], [5, 0, 11], [0, 0, 0]]
        np.testing.assert_array_equal(lo, expected_lo)
        np.testing.assert_array_equal(hi, expected_hi)
        assert (lo.dtype, hi.dtype) == (tf.int32, tf.int32)

    def test_random_boxes_hold_just_the_centres_inside(self):
        boxes = np.random.default_rng(16).uniform(-3, 14, (2, 20, 6)).astype(np.float32)
        lo, hi = (tensor.numpy() for tensor in covered_voxels(boxes, SHAPE))
        for index in np.ndindex(2, 20, 3):
            centres = np.arange(SHAPE[index[-1]]) + 0.5
            start, stop = boxes[index], boxes[(*index[:-1], index[-1] + 3)]
            inside = np.flatnonzero((centres >= start) & (centres < stop))
            np.testing.assert_array_equal(np.arange(lo[index], hi[index]), inside)

    def test_no_boxes(self):
        lo, hi = covered_voxels(tf.zeros([2, 0, 6]), SHAPE)
        assert (lo.shape, hi.shape) == ((2, 0, 3), (2, 0, 3))


class ResampleTest:
    def test_hand_values_along_x(self):
        mask = tf.constant([[[0.0, 1.0]]])  # cell centres at x = 1 and x = 3
        box = tf.constant([0.0, 0, 0, 1, 1, 4])
        result = resample(mask, box, tf.constant([0, 0, 0]), tf.constant([1, 1, 4]))
        np.testing.assert_allclose(result, [[[0, 0.25, 0.75, 1]]], atol=1e-6)

    def test_same_grid_returns_the_mask(self):
        mask = random_masks(np.random.default_rng(17), 1)[0]
        box = tf.constant([1.0, 2, 3, 3, 5, 7])
        result = resample(mask, box, tf.constant([1, 2, 3]), tf.constant([3, 5, 7]))
        np.testing.assert_allclose(result, mask, atol=1e-6)

    def test_equals_reference(self):
        rng = np.random.default_rng(18)
        mask, box = random_masks(rng, 1)[0], np.float32([0.3, 1.1, 2.2, 4.4, 6.8, 10.1])
        lo, hi = (tensor.numpy() for tensor in covered_voxels(box, SHAPE))
        result = resample(mask, box, lo, hi).numpy()
        assert result.shape == tuple(hi - lo) == (4, 6, 8)
        for position in np.ndindex(*result.shape):
            inside = (lo + position + 0.5 - box[:3]) / (box[3:] - box[:3])
            expected = reference.trilinear(np.float64(mask)[..., None], inside * SIZE - 0.5)
            np.testing.assert_allclose(result[position], expected[0], atol=1e-5)

    def test_no_voxels(self):
        mask = random_masks(np.random.default_rng(19), 1)[0]
        result = resample(mask, tf.constant([1.6, 0, 0, 2.4, 7, 11]), [2, 0, 0], [2, 7, 11])
        assert result.shape == (0, 7, 11)


class LabelVolumeTest:
    def test_hand_values(self):
        masks = np.zeros((3, 2, 2, 2), np.float32)
        masks[0, :, :, 0] = 0.9  # the lower half along x of its box
        masks[1] = 0.5  # exactly at the threshold
        masks[2] = 0.49
        boxes = tf.constant([[0.0, 0, 0, 2, 2, 4], [0, 0, 1, 1, 1, 6], [2, 2, 2, 4, 4, 4]])
        result = label_volume(masks, boxes, np.full(3, True), (4, 4, 6)).numpy()
        # Along x the mask 0.9, 0 of box 0 reads 0.9, 0.675, 0.225, 0 at the voxel centres.
        np.testing.assert_array_equal(result[0, 0], [1, 1, 2, 2, 2, 2])
        np.testing.assert_array_equal(result[1, 1], [1, 1, 0, 0, 0, 0])
        assert result.sum() == 4 * 2 + 4 * 2
        assert result.dtype == np.int32

    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.65])
    def test_equals_reference(self, threshold):
        rng = np.random.default_rng(12)
        lo = rng.uniform(-2, np.array(SHAPE) - 1, (12, 3))  # some reach over the border
        boxes = np.concatenate([lo, lo + rng.uniform(1, 6, (12, 3))], axis=-1).astype(np.float32)
        boxes[3, 4] = boxes[3, 1] - 1  # one is empty
        masks, valid = random_masks(rng, 12), rng.random(12) < 0.8
        result = label_volume(masks, boxes, valid, SHAPE, threshold)
        expected = reference.label_volume(masks, boxes, valid, SHAPE, threshold)
        assert len(np.unique(expected)) > 3
        np.testing.assert_array_equal(result, expected)

    def test_only_voxels_whose_centre_lies_inside_the_box(self):
        boxes = tf.constant([[0.4, 1.6, 2.5, 2.6, 4.4, 5.5]])
        result = label_volume(np.ones((1, *SIZE), np.float32), boxes, np.array([True]), SHAPE).numpy()
        expected = np.zeros(SHAPE, np.int32)
        expected[0:3, 2:4, 2:5] = 1  # half-open: the centre 2.5 is in, 5.5 is not
        np.testing.assert_array_equal(result, expected)

    def test_mask_is_clamped_at_the_edge_of_the_box(self):
        # Nearer the border than the outermost cell centres nothing fades.
        boxes = tf.constant([[0.0, 0, 0, 5, 7, 11]])
        result = label_volume(np.full((1, 1, 1, 1), 0.5, np.float32), boxes, np.array([True]), SHAPE)
        np.testing.assert_array_equal(result, np.ones(SHAPE))

    def test_first_detection_wins_where_masks_overlap(self):
        boxes = tf.constant([[0.0, 0, 0, 3, 7, 11], [0, 0, 0, 5, 7, 11]])
        masks = np.ones((2, *SIZE), np.float32)
        result = label_volume(masks, boxes, np.array([True, True]), SHAPE).numpy()
        np.testing.assert_array_equal(np.unique(result[:3]), [1])
        np.testing.assert_array_equal(np.unique(result[3:]), [2])
        result = label_volume(masks, boxes, np.array([False, True]), SHAPE).numpy()
        np.testing.assert_array_equal(np.unique(result), [2])

    def test_inverts_mask_targets(self):
        ids = random_ids(np.random.default_rng(13), 6)
        boxes, voxels = instance_boxes(ids, 6)
        for slot in np.flatnonzero(voxels.numpy()):
            size = boxes[slot, 3:] - boxes[slot, :3]
            masks = mask_targets(ids[None], boxes[None, slot : slot + 1], np.array([[slot]]), size.numpy().astype(int))
            result = label_volume(masks[0], boxes[slot : slot + 1], np.array([True]), SHAPE)
            np.testing.assert_array_equal(result, ids == slot + 1)

    def test_coarse_mask_is_close_to_the_instance(self):
        z, y, x = np.meshgrid(*[np.arange(n) for n in (15, 21, 33)], indexing="ij")
        ids = ((z - 7) ** 2 / 36 + (y - 10) ** 2 / 64 + (x - 16) ** 2 / 196 < 1).astype(np.int32)
        boxes, _ = instance_boxes(ids, 1)
        masks = mask_targets(ids[None], boxes[None], np.array([[0]]), 14)
        result = label_volume(masks[0], boxes, np.array([True]), ids.shape).numpy()
        overlap = np.sum((result == 1) & (ids == 1)) / np.sum((result == 1) | (ids == 1))
        assert overlap > 0.9

    @pytest.mark.parametrize(("num", "valid"), [(0, []), (2, [False, False])], ids=["no detections", "all padding"])
    def test_nothing_there(self, num, valid):
        masks, boxes = np.ones((num, *SIZE), np.float32), np.tile(np.float32([0, 0, 0, 9, 9, 9]), (num, 1))
        result = label_volume(masks, boxes, np.array(valid, bool), SHAPE)
        np.testing.assert_array_equal(result, np.zeros(SHAPE))

    def test_empty_and_outside_boxes_mark_nothing(self):
        boxes = tf.constant(
            [[0.0] * 6, [2, 2, 2, 2, 5, 5], [4, 4, 4, 1, 1, 1], [20, 0, 0, 30, 7, 11],
             [-9, 0, 0, -1, 7, 11]]
        )  # fmt: skip
        result = label_volume(np.ones((5, *SIZE), np.float32), boxes, np.full(5, True), SHAPE)
        np.testing.assert_array_equal(result, np.zeros(SHAPE))

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_labels(self, axes):
        rng = np.random.default_rng(14)
        masks, boxes = random_masks(rng, 5), reference.random_boxes(rng, 5, SHAPE)
        plain = label_volume(masks, boxes, np.full(5, True), SHAPE)
        result = label_volume(
            np.transpose(masks, (0, *[a + 1 for a in axes])).copy(),
            reference.permute_boxes(boxes, axes),
            np.full(5, True),
            [SHAPE[a] for a in axes],
        )
        np.testing.assert_array_equal(result, np.transpose(plain, axes))

    def test_unknown_count_and_shape_equal_eager(self):
        rng = np.random.default_rng(15)
        compiled = tf.function(
            label_volume,
            input_signature=[
                tf.TensorSpec([None, *SIZE], tf.float32),
                tf.TensorSpec([None, 6], tf.float32),
                tf.TensorSpec([None], tf.bool),
                tf.TensorSpec([3], tf.int32),
            ],
        )
        for num, shape in [(4, SHAPE), (0, SHAPE), (1, (3, 2, 4))]:
            masks, boxes = random_masks(rng, num), reference.random_boxes(rng, num, shape)
            valid = np.ones(num, bool)
            result = compiled(masks, boxes, valid, tf.constant(shape))
            np.testing.assert_array_equal(result, label_volume(masks, boxes, valid, shape))
