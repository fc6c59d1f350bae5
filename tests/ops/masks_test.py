import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from scipy import interpolate, ndimage

from ops.masks import (
    covered_voxels,
    crop,
    instance_boxes,
    label_volume,
    mask_targets,
    paste,
    resample,
    shrink,
    tight_boxes,
)
from tests import reference

SHAPE = (5, 7, 11)
SIZE = (2, 3, 4)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
DETECTIONS = [
    tf.TensorSpec([None, *SIZE], tf.float32),
    tf.TensorSpec([None, 6], tf.float32),
    tf.TensorSpec([None], tf.bool),
    tf.TensorSpec([3], tf.int32),
]
# Corners may be swapped (an empty box), outside, far away or no number; all are exact in float32.
corners = st.one_of(
    st.integers(-12, 60).map(lambda n: n / 4), st.sampled_from([-(2.0**30), 2.0**30, 3e38, np.inf, -np.inf, np.nan])
)
box_lists = st.lists(st.lists(corners, min_size=6, max_size=6), min_size=1, max_size=4).map(np.float32)
# Boxes that paste nothing, one a row.
NOTHING = np.float32(
    [
        [0, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 5, 5],
        [4, 4, 4, 1, 1, 1],
        [1.6, 0, 0, 2.4, 7, 11],  # between two centres
        [20, 0, 0, 30, 7, 11],
        [-9, 0, 0, -1, 7, 11],
        [1e9, 1e9, 1e9, 2e9, 2e9, 2e9],
        [0, -2e9, 0, 5, -1e9, 11],
        [np.nan, 0, 0, 5, 7, 11],
        [0, 0, 0, 5, 7, np.nan],
        [np.nan] * 6,
        [0, 0, 0, 5, np.inf, 11],
        [-np.inf, 0, 0, 5, 7, 11],
    ]
)


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


def random_detections(rng, num, shape=SHAPE):
    """Masks, boxes and valid of `num` detections of several sizes, some over the border, one empty, some not valid."""
    lo = rng.uniform(-2, np.array(shape) - 1, (num, 3))
    boxes = np.concatenate([lo, lo + rng.uniform(1, 6, (num, 3))], axis=-1).astype(np.float32)
    boxes[num // 2, 4] = boxes[num // 2, 1] - 1
    return random_masks(rng, num), boxes, rng.random(num) < 0.8


def saved(function, signature, folder):
    """A function after a round trip through a SavedModel."""
    module = tf.Module()
    module.call = tf.function(function, input_signature=signature)
    tf.saved_model.save(module, str(folder))
    return tf.saved_model.load(str(folder)).call


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

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(np_st.arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(-2, 5)))
    def test_equals_scipy(self, ids):
        boxes, voxels = instance_boxes(ids, 4)
        wanted = np.where((ids >= 1) & (ids <= 4), ids, 0)
        slices = ndimage.find_objects(wanted, max_label=4)
        expected = [
            [0] * 6 if found is None else [*(s.start for s in found), *(s.stop for s in found)] for found in slices
        ]
        np.testing.assert_array_equal(boxes, expected)
        np.testing.assert_array_equal(voxels, np.bincount(wanted.ravel(), minlength=5)[1:])

    def test_ids_that_go_on_in_the_next_row_equal_reference(self):
        # Equal ids at the end of one row and the beginning of the next are no run.
        ids = np.ones(SHAPE, np.int32)
        ids[:, :, 3:8] = 2
        boxes, voxels = instance_boxes(ids, 2)
        np.testing.assert_array_equal(boxes, [[0, 0, 0, 5, 7, 11], [0, 0, 3, 5, 7, 8]])
        np.testing.assert_array_equal(voxels, [5 * 7 * 6, 5 * 7 * 5])

    def test_every_voxel_its_own_instance(self):
        ids = 1 + np.random.default_rng(21).permutation(5 * 7 * 11).reshape(SHAPE).astype(np.int32)
        boxes, voxels = instance_boxes(ids, ids.size)
        lo = np.transpose(np.unravel_index(np.argsort(ids.ravel()), SHAPE))
        np.testing.assert_array_equal(boxes, np.concatenate([lo, lo + 1], axis=-1))
        np.testing.assert_array_equal(voxels, np.ones(ids.size))

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

    def test_unknown_number_of_instances_equals_eager(self):
        compiled = tf.function(
            instance_boxes,
            input_signature=[tf.TensorSpec([None, None, None], tf.int32), tf.TensorSpec([], tf.int32)],
        )
        ids = np.random.default_rng(22).integers(-1, 7, SHAPE).astype(np.int32)
        for num in (0, 3, 9):
            for a, b in zip(compiled(ids, num), instance_boxes(ids, num), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_same_inside_tf_data(self):
        ids = np.stack([random_ids(np.random.default_rng(seed), 5) for seed in range(3)])
        dataset = tf.data.Dataset.from_tensor_slices(ids).map(lambda i: instance_boxes(i, 5))
        for volume, found in zip(ids, dataset, strict=True):
            for a, b in zip(found, instance_boxes(volume, 5), strict=True):
                np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        ("shape", "num", "message"),
        [
            ((7, 11), 2, r"expected ids \[Z, Y, X\]; came ids \[7, 11\]"),
            ((2, 5, 7, 11), 2, r"expected ids \[Z, Y, X\]; came ids \[2, 5, 7, 11\]"),
            (SHAPE, -1, r"expected num_instances in \[0, 2147483647\], came -1"),
        ],
    )
    def test_error_names_expected_and_came(self, shape, num, message):
        with pytest.raises(ValueError, match=message):
            instance_boxes(np.zeros(shape, np.int32), num)


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

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_volume_without_voxels_gives_zeros(self, axis):
        shape = np.array(SHAPE)
        shape[axis] = 0
        ids, boxes = np.zeros((2, *shape), np.int32), reference.random_boxes(np.random.default_rng(12), 6, SHAPE)
        boxes, slots = boxes.reshape(2, 3, 6), np.int32([[0, 1, -1]] * 2)
        compiled = tf.function(
            lambda ids: mask_targets(ids, boxes, slots, SIZE), input_signature=[tf.TensorSpec([None] * 4, tf.int32)]
        )
        np.testing.assert_array_equal(compiled(ids), np.zeros((2, 3, *SIZE)))
        np.testing.assert_array_equal(mask_targets(ids, boxes, slots, SIZE), np.zeros((2, 3, *SIZE)))

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

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(box_lists)
    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
    def test_any_boxes_equal_reference(self, boxes):
        ids = 1 + random_ids(np.random.default_rng(23), 3)[np.newaxis]
        boxes = np.where(np.abs(boxes) > 2.0**30, np.nan, boxes)[np.newaxis]
        slots = np.zeros(boxes.shape[:2], np.int32)
        size = (4, 2, 1)  # their bins are exact in float32
        expected = reference.mask_targets(ids, boxes, slots, size)
        np.testing.assert_array_equal(mask_targets(ids, boxes, slots, size), expected)

    def test_boxes_far_away_and_not_finite_are_zero(self):
        boxes = [[-3e38, -3e38, -3e38, 3e38, 3e38, 3e38], [3e9, 0, 0, 4e9, 7, 11], [-4e9, 0, 0, -3e9, 7, 11]]
        boxes += [[0, np.nan, 0, 5, 7, 11], [-np.inf, 0, 0, np.inf, 7, 11], [0, 0, 0, 5, 7, np.inf]]
        slots = np.zeros((1, len(boxes)), np.int32)
        result = mask_targets(np.ones((1, *SHAPE), np.int32), tf.constant([boxes], tf.float32), slots, 2)
        np.testing.assert_array_equal(result, np.zeros((1, len(boxes), 2, 2, 2)))

    @pytest.mark.parametrize(
        ("ids", "boxes", "slots", "size", "message"),
        [
            (SHAPE, (1, 3, 6), (1, 3), 2, r"expected ids \[B, Z, Y, X\].*; came ids \[5, 7, 11\]"),
            ((2, *SHAPE), (2, 3, 4), (2, 3), 2, r"boxes \[B, R, 6\].*came .*boxes \[2, 3, 4\]"),
            ((2, *SHAPE), (2, 3, 6), (2, 4), 2, r"slots \[B, R\]; came .*slots \[2, 4\]"),
            ((2, *SHAPE), (1, 3, 6), (1, 3), 2, r"came ids \[2, 5, 7, 11\], boxes \[1, 3, 6\]"),
            ((1, *SHAPE), (1, 3, 6), (1, 3), 0, r"expected size as one number above 0 or three .*, came 0"),
            ((1, *SHAPE), (1, 3, 6), (1, 3), (2, 3), r"expected size as .* three of them for z, y, x, came \(2, 3\)"),
        ],
    )
    def test_error_names_expected_and_came(self, ids, boxes, slots, size, message):
        with pytest.raises(ValueError, match=message):
            mask_targets(np.zeros(ids, np.int32), np.zeros(boxes, np.float32), np.zeros(slots, np.int32), size)


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

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_voxels(self, axes):
        boxes = np.random.default_rng(24).uniform(-3, 14, (20, 6)).astype(np.float32)
        permuted = covered_voxels(reference.permute_boxes(boxes, axes), [SHAPE[a] for a in axes])
        for result, plain in zip(permuted, covered_voxels(boxes, SHAPE), strict=True):
            np.testing.assert_array_equal(result, plain.numpy()[:, list(axes)])

    def test_boxes_that_hold_nothing_have_no_voxels(self):
        lo, hi = (tensor.numpy() for tensor in covered_voxels(NOTHING, SHAPE))
        np.testing.assert_array_equal(np.prod(hi - lo, axis=-1), np.zeros(len(NOTHING)))
        assert np.all((lo >= 0) & (lo <= hi) & (hi <= SHAPE))

    def test_unknown_count_equals_eager(self):
        compiled = tf.function(covered_voxels, input_signature=[DETECTIONS[1], DETECTIONS[3]])
        for num in (7, 0):
            boxes = np.random.default_rng(25).uniform(-3, 14, (num, 6)).astype(np.float32)
            for a, b in zip(compiled(boxes, tf.constant(SHAPE)), covered_voxels(boxes, SHAPE), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_no_boxes(self):
        lo, hi = covered_voxels(tf.zeros([2, 0, 6]), SHAPE)
        assert (lo.shape, hi.shape) == ((2, 0, 3), (2, 0, 3))

    @pytest.mark.parametrize(
        ("boxes", "shape", "message"),
        [
            ((3, 4), SHAPE, r"expected boxes \[..., 6\], shape \[3\]; came boxes \[3, 4\], shape \[3\]"),
            ((3, 6), (5, 7), r"shape \[3\]; came boxes \[3, 6\], shape \[2\]"),
        ],
    )
    def test_error_names_expected_and_came(self, boxes, shape, message):
        with pytest.raises(ValueError, match=message):
            covered_voxels(np.zeros(boxes, np.float32), shape)


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

    @pytest.mark.parametrize("size", [SIZE, (1, 1, 1), (9, 2, 14)])
    def test_equals_scipy(self, size):
        mask, box = random_masks(np.random.default_rng(26), 1, size)[0], np.float32([0.3, 1.1, 2.2, 4.4, 6.8, 10.1])
        lo, hi = (tensor.numpy() for tensor in covered_voxels(box, SHAPE))
        cells = [(np.arange(lo[a], hi[a]) + 0.5 - box[a]) / (box[a + 3] - box[a]) * size[a] - 0.5 for a in range(3)]
        expected = ndimage.map_coordinates(mask, np.meshgrid(*cells, indexing="ij"), order=1, mode="nearest")
        np.testing.assert_allclose(resample(mask, box, lo, hi), expected, atol=1e-5)

    def test_parts_equal_the_whole(self):
        mask, box = random_masks(np.random.default_rng(27), 1)[0], tf.constant([0.3, 1.1, 2.2, 4.4, 6.8, 10.1])
        whole = resample(mask, box, [0, 1, 2], [4, 7, 10])
        parts = [resample(mask, box, [0, 1, 2], [3, 7, 10]), resample(mask, box, [3, 1, 2], [4, 7, 10])]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)

    @pytest.mark.parametrize(
        ("mask", "box", "lo", "message"),
        [
            ((3, 4), 6, [0, 0, 0], r"expected mask \[Mz, My, Mx\], .*; came mask \[3, 4\]"),
            (SIZE, 4, [0, 0, 0], r"box \[6\].*came .*box \[4\]"),
            (SIZE, 6, [0, 0], r"lo \[3\].*came .*lo \[2\]"),
        ],
    )
    def test_error_names_expected_and_came(self, mask, box, lo, message):
        with pytest.raises(ValueError, match=message):
            resample(np.zeros(mask, np.float32), np.zeros(box, np.float32), lo, [1, 1, 1])


class CropTest:
    def test_hand_values(self):
        mask = np.zeros((1, 2, 4, 3), np.float32)
        mask[0] = np.float32([0, 8, 16, 24])[:, None]  # rises along y, as y does from 0.5 to 3.5 of the box
        box, part = np.float32([[0, 10, 0, 2, 14, 3]]), np.float32([[0, 11, 0, 2, 13, 3]])
        found = crop(mask, box, part)[0].numpy()
        # Four cells of half a voxel each, whose centres lie at 11.25, 11.75, 12.25, 12.75: cells 0.75 to 2.25.
        np.testing.assert_allclose(found, np.broadcast_to(np.float32([6, 10, 14, 18])[:, None], (2, 4, 3)), rtol=1e-6)

    def test_outside_a_box_its_outermost_cells_go_on(self):
        mask = np.zeros((1, 2, 4, 3), np.float32)
        mask[0, :, -1] = 1.0
        found = crop(mask, np.float32([[0, 10, 0, 2, 14, 3]]), np.float32([[0, 14, 0, 2, 20, 3]]))
        np.testing.assert_array_equal(found, np.ones((1, 2, 4, 3)))

    def test_the_whole_box_is_the_mask(self):
        rng = np.random.default_rng(4)
        masks, boxes = random_masks(rng, 7), reference.random_boxes(rng, 7, SHAPE)
        np.testing.assert_allclose(crop(masks, boxes, boxes), masks, atol=2e-6)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_masks(self, axes):
        rng = np.random.default_rng(5)
        masks, boxes, parts = random_masks(rng, 6), *(reference.random_boxes(rng, 6, SHAPE) for _ in range(2))
        turned = crop(
            masks.transpose(0, *(a + 1 for a in axes)),
            reference.permute_boxes(boxes, axes),
            reference.permute_boxes(parts, axes),
        )
        expected = crop(masks, boxes, parts).numpy().transpose(0, *(a + 1 for a in axes))
        np.testing.assert_allclose(turned, expected, atol=1e-6)


class ShrinkTest:
    def test_an_instance_in_a_wider_box_keeps_its_voxels(self):
        ids = random_ids(np.random.default_rng(3), 1)
        tight, _ = instance_boxes(ids, 1)
        wide = np.float32([[[0, 0, 0, *SHAPE]]])
        masks = mask_targets(ids[np.newaxis], wide, np.int32([[0]]), SHAPE)  # a cell for each voxel
        boxes, cut = shrink(masks, wide, wide, SHAPE)
        np.testing.assert_array_equal(boxes[0], tight)
        shown = label_volume(cut[0], boxes[0], np.array([True]), SHAPE).numpy() > 0
        own = np.asarray(ids) == 1
        assert np.sum(shown & own) >= 0.9 * np.sum(shown | own)

    def test_a_mask_that_shows_nothing_leaves_all_as_it_is(self):
        rng = np.random.default_rng(6)
        masks, boxes = 0.4 * random_masks(rng, 5)[np.newaxis], reference.random_boxes(rng, 5, SHAPE)[np.newaxis]
        found = shrink(masks, boxes, boxes, SHAPE)
        np.testing.assert_array_equal(found[0], boxes)
        np.testing.assert_allclose(found[1], masks, atol=2e-6)

    def test_without_boxes(self):
        none = np.zeros((2, 0, 6), np.float32)
        found = shrink(np.zeros((2, 0, *SIZE), np.float32), none, none, SHAPE)
        assert [of.shape for of in found] == [(2, 0, 6), (2, 0, *SIZE)]


class TightBoxesTest:
    def test_hand_values(self):
        mask = np.zeros((1, 1, 2, 4, 3), np.float32)
        mask[0, 0, 1, 1:3, 0] = 1.0
        # Along z the four voxels read 0, 0.25, 0.75 and 1 of the profile (0, 1), along y the eight 0, 0.25, 0.75, 1, 1,
        # 0.75, 0.25 and 0 of (0, 1, 1, 0), and along x the three, a cell each, 1, 0 and 0.
        boxes = np.float32([[[0, 1, 2, 4, 9, 5]]])
        found, shown = tight_boxes(mask, boxes, SHAPE)
        np.testing.assert_array_equal(found, [[[2, 3, 2, 4, 7, 3]]])
        assert shown.numpy().all()

    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
    def test_equals_reference(self, threshold):
        rng = np.random.default_rng(0)
        masks, boxes = random_masks(rng, 20), reference.random_boxes(rng, 20, SHAPE)
        masks[::3] **= 4
        expected = [reference.tight_box(m, b, SHAPE, threshold) for m, b in zip(masks, boxes, strict=True)]
        found, shown = tight_boxes(masks.reshape(2, 10, *SIZE), boxes.reshape(2, 10, 6), SHAPE, threshold)
        np.testing.assert_array_equal(found, np.reshape(expected, (2, 10, 6)))
        np.testing.assert_array_equal(shown, found.numpy().any(axis=-1))

    def test_instance_cut_out_of_a_wider_box_has_its_own_box(self):
        ids = random_ids(np.random.default_rng(3), 1)
        tight, _ = instance_boxes(ids, 1)
        wide = np.float32([[[0, 0, 0, *SHAPE]]])
        masks = mask_targets(ids[np.newaxis], wide, np.int32([[0]]), SHAPE)
        np.testing.assert_array_equal(tight_boxes(masks, wide, SHAPE)[0][0], tight)

    def test_mask_that_shows_nothing_has_no_box(self):
        boxes = np.float32([[[0.3, 1.2, 2.1, 4.4, 5.5, 9.9], [1, 1, 1, 1, 1, 1], [0, 0, 0, np.nan, 7, 11]]])
        masks = np.zeros((1, 3, *SIZE), np.float32)
        masks[0, 1:] = 1.0
        found, shown = tight_boxes(masks, boxes, SHAPE)
        assert not shown.numpy().any()
        assert not found.numpy().any()

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_boxes(self, axes):
        rng = np.random.default_rng(1)
        masks, boxes = random_masks(rng, 6)[np.newaxis], reference.random_boxes(rng, 6, SHAPE)
        found = tight_boxes(masks, boxes[np.newaxis], SHAPE, 0.7)[0][0]
        turned, _ = tight_boxes(
            masks.transpose(0, 1, *(a + 2 for a in axes)),
            reference.permute_boxes(boxes, axes)[np.newaxis],
            tuple(SHAPE[a] for a in axes),
            0.7,
        )
        np.testing.assert_array_equal(turned[0], reference.permute_boxes(found.numpy(), axes))

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(2)
        masks, boxes = random_masks(rng, 4)[np.newaxis], reference.random_boxes(rng, 4, SHAPE)[np.newaxis]
        signature = [tf.TensorSpec([None, None, *SIZE]), tf.TensorSpec([None, None, 6])]
        compiled = tf.function(lambda m, b: tight_boxes(m, b, SHAPE), input_signature=signature)
        np.testing.assert_array_equal(compiled(masks, boxes)[0], tight_boxes(masks, boxes, SHAPE)[0])
        assert compiled(np.zeros((2, 0, *SIZE), np.float32), np.zeros((2, 0, 6), np.float32))[0].shape == (2, 0, 6)

    def test_error_names_expected_and_came(self):
        with pytest.raises(ValueError, match=r"expected masks \[B, D, Mz, My, Mx\], boxes \[B, D, 6\]; came"):
            tight_boxes(np.zeros((1, 2, *SIZE), np.float32), np.zeros((1, 3, 6), np.float32), SHAPE)


class PasteTest:
    def test_hand_values(self):
        masks = np.zeros((3, 1, 1, 2), np.float32)
        masks[0, 0, 0] = [0.0, 1.0]  # cell centres at x = 1 and x = 3 of its box
        masks[1] = 0.5
        masks[2] = 1.0
        boxes = tf.constant([[0.0, 0, 0, 1, 1, 4], [0, 0, 1, 2, 1, 5], [0, 0, 0, 2, 2, 6]])
        result = paste(masks, boxes, np.array([True, True, False]), (2, 2, 6))
        expected = [[[0, 0.5, 0.75, 1, 0.5, 0], [0] * 6], [[0, 0.5, 0.5, 0.5, 0.5, 0], [0] * 6]]
        np.testing.assert_allclose(result, expected, atol=1e-6)
        assert result.dtype == tf.float32

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_reference(self, seed):
        masks, boxes, valid = random_detections(np.random.default_rng(seed), 8)
        expected = reference.paste(masks, boxes, valid, SHAPE)
        assert 0.1 < np.mean(expected > 0) < 1.0
        np.testing.assert_allclose(paste(masks, boxes, valid, SHAPE), expected, atol=1e-5)

    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(box_lists)
    def test_any_boxes_equal_reference(self, boxes):
        shape = (3, 4, 6)
        masks, valid = random_masks(np.random.default_rng(28), len(boxes)), np.arange(len(boxes)) != 2
        expected = reference.paste(masks, boxes, valid, shape)
        np.testing.assert_allclose(paste(masks, boxes, valid, shape), expected, atol=1e-5)

    def test_equals_scipy(self):
        # One box over the whole volume: between cell centres SciPy's interpolator, clamped to them.
        mask, size = random_masks(np.random.default_rng(29), 1, (4, 3, 6)), (4, 3, 6)
        cells = [np.arange(n) for n in size]
        voxels = [np.clip((np.arange(n) + 0.5) / n * m - 0.5, 0, m - 1) for n, m in zip(SHAPE, size, strict=True)]
        expected = interpolate.RegularGridInterpolator(cells, mask[0])(tuple(np.meshgrid(*voxels, indexing="ij")))
        result = paste(mask, np.float32([[0, 0, 0, *SHAPE]]), np.array([True]), SHAPE)
        np.testing.assert_allclose(result, expected, atol=1e-5)

    def test_crop_pasted_back_is_the_volume_inside_the_box(self):
        volume = np.random.default_rng(30).random(SHAPE).astype(np.float32)
        inside = (slice(1, 4), slice(2, 7), slice(0, 9))
        result = paste(volume[inside][np.newaxis], np.float32([[1, 2, 0, 4, 7, 9]]), np.array([True]), SHAPE)
        expected = np.zeros(SHAPE)
        expected[inside] = volume[inside]
        np.testing.assert_allclose(result, expected, atol=1e-6)

    def test_together_is_the_largest_of_one_by_one(self):
        masks, boxes, valid = random_detections(np.random.default_rng(31), 12)
        boxes[:4, 3:] = boxes[:4, :3] + [1, 2, 9]
        alone = [paste(*(a[d : d + 1] for a in (masks, boxes, valid)), SHAPE).numpy() for d in range(12)]
        np.testing.assert_array_equal(paste(masks, boxes, valid, SHAPE), np.max(alone, axis=0))

    def test_order_does_not_matter(self):
        masks, boxes, valid = random_detections(np.random.default_rng(32), 8)
        backwards = paste(masks[::-1].copy(), boxes[::-1].copy(), valid[::-1].copy(), SHAPE)
        np.testing.assert_array_equal(backwards, paste(masks, boxes, valid, SHAPE))

    def test_box_of_many_voxels_is_painted_whole(self):
        # More voxels than one step takes. The mask is a product of profiles, so the volume is one too.
        shape, size = (7, 500, 700), (3, 4, 5)
        profiles = [np.random.default_rng(33).random(n).astype(np.float32) for n in size]
        cells = [(np.arange(n) + 0.5) / n * m - 0.5 for n, m in zip(shape, size, strict=True)]
        lines = [np.interp(c, np.arange(len(p)), p) for c, p in zip(cells, profiles, strict=True)]
        mask, expected = (np.einsum("i,j,k->ijk", *factors) for factors in (profiles, lines))
        result = paste(mask[np.newaxis], np.float32([[0, 0, 0, *shape]]), np.array([True]), shape)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        labels = label_volume(mask[np.newaxis], np.float32([[0, 0, 0, *shape]]), np.array([True]), shape, 0.2)
        np.testing.assert_array_equal(labels, result.numpy() >= 0.2)

    def test_boxes_that_hold_nothing_paste_nothing_and_harm_nobody(self):
        masks, boxes, valid = random_detections(np.random.default_rng(34), 6)
        more = np.ones((len(NOTHING), *SIZE), np.float32)
        more_valid = np.full(len(NOTHING), True)
        np.testing.assert_array_equal(paste(more, NOTHING, more_valid, SHAPE), np.zeros(SHAPE))
        joined = [np.concatenate(pair) for pair in [(more, masks), (NOTHING, boxes), (more_valid, valid)]]
        np.testing.assert_array_equal(paste(*joined, SHAPE), paste(masks, boxes, valid, SHAPE))

    def test_box_far_over_the_border_pastes_the_middle_of_its_mask(self):
        mask = np.zeros((1, 3, 1, 1), np.float32)
        mask[0, 1] = 0.7
        for reach in (1e6, 1e9, 1e38):
            result = paste(mask, np.float32([[-reach] * 3 + [reach] * 3]), np.array([True]), SHAPE)
            np.testing.assert_allclose(result, np.full(SHAPE, 0.7), atol=1e-4)

    def test_invalid_rows_may_hold_anything(self):
        masks = np.full((2, *SIZE), np.nan, np.float32)
        result = paste(masks, np.float32([[0, 0, 0, *SHAPE]] * 2), np.array([False, False]), SHAPE)
        np.testing.assert_array_equal(result, np.zeros(SHAPE))

    @pytest.mark.parametrize(("num", "valid"), [(0, []), (2, [False, False])], ids=["no detections", "all padding"])
    def test_nothing_there(self, num, valid):
        masks, boxes = np.ones((num, *SIZE), np.float32), np.tile(np.float32([0, 0, 0, 9, 9, 9]), (num, 1))
        np.testing.assert_array_equal(paste(masks, boxes, np.array(valid, bool), SHAPE), np.zeros(SHAPE))

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_the_volume(self, axes):
        masks, boxes, valid = random_detections(np.random.default_rng(35), 6)
        permuted = np.transpose(masks, (0, *[a + 1 for a in axes])).copy()
        result = paste(permuted, reference.permute_boxes(boxes, axes), valid, [SHAPE[a] for a in axes])
        expected = np.transpose(paste(masks, boxes, valid, SHAPE), axes)
        np.testing.assert_allclose(result, expected, atol=1e-6)

    def test_shape_is_known_at_trace_time_where_it_is_given(self):
        @tf.function(input_signature=DETECTIONS[:3])
        def shapes(masks, boxes, valid):
            assert paste(masks, boxes, valid, SHAPE).shape == SHAPE
            return label_volume(masks, boxes, valid, SHAPE)

        assert shapes.get_concrete_function().output_shapes == SHAPE

    def test_unknown_count_and_shape_equal_eager(self):
        compiled = tf.function(paste, input_signature=DETECTIONS)
        for num, shape in [(4, SHAPE), (1, (3, 2, 4))]:
            detections = random_detections(np.random.default_rng(36), num, shape)
            result = compiled(*detections, tf.constant(shape))
            np.testing.assert_array_equal(result, paste(*detections, shape))
        nothing = np.zeros((0, *SIZE)), np.zeros((0, 6)), np.zeros(0, bool)
        np.testing.assert_array_equal(compiled(*nothing, tf.constant(SHAPE)), np.zeros(SHAPE))

    def test_saved_model_equals_eager(self, tmp_path):
        loaded = saved(paste, DETECTIONS, tmp_path)
        detections = random_detections(np.random.default_rng(37), 6)
        np.testing.assert_array_equal(loaded(*detections, tf.constant(SHAPE)), paste(*detections, SHAPE))

    @pytest.mark.parametrize("function", [paste, label_volume])
    @pytest.mark.parametrize(
        ("masks", "boxes", "valid", "shape", "message"),
        [
            ((2, 3, 4), (2, 6), 2, SHAPE, r"expected masks \[D, Mz, My, Mx\], .*; came masks \[2, 3, 4\]"),
            ((2, *SIZE), (2, 5), 2, SHAPE, r"boxes \[D, 6\].*; came .*boxes \[2, 5\]"),
            ((2, *SIZE), (3, 6), 3, SHAPE, r"came masks \[2, 2, 3, 4\], boxes \[3, 6\], valid \[3\]"),
            ((2, *SIZE), (2, 6), 1, SHAPE, r"valid \[D\].*came .*valid \[1\]"),
            ((2, *SIZE), (2, 6), 2, (5, 7), r"shape \[3\]; came .*shape \[2\]"),
        ],
    )
    def test_error_names_expected_and_came(self, function, masks, boxes, valid, shape, message):
        with pytest.raises(ValueError, match=message):
            function(np.zeros(masks, np.float32), np.zeros(boxes, np.float32), np.zeros(valid, bool), shape)


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
        masks, boxes, valid = random_detections(np.random.default_rng(12), 12)
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

    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(box_lists)
    def test_any_boxes_equal_reference(self, boxes):
        shape = (3, 4, 6)
        masks, valid = random_masks(np.random.default_rng(38), len(boxes)), np.arange(len(boxes)) != 1
        expected = reference.label_volume(masks, boxes, valid, shape)
        np.testing.assert_array_equal(label_volume(masks, boxes, valid, shape), expected)

    def test_together_is_the_first_of_one_by_one(self):
        masks, boxes, valid = random_detections(np.random.default_rng(39), 12)
        expected = np.zeros(SHAPE, np.int32)
        for d in reversed(range(12)):
            expected[label_volume(*(a[d : d + 1] for a in (masks, boxes, valid)), SHAPE).numpy() == 1] = d + 1
        np.testing.assert_array_equal(label_volume(masks, boxes, valid, SHAPE), expected)

    def test_marks_what_paste_holds_at_the_threshold(self):
        detections = random_detections(np.random.default_rng(40), 8)
        labels = label_volume(*detections, SHAPE, 0.6).numpy()
        np.testing.assert_array_equal(labels > 0, paste(*detections, SHAPE).numpy() >= 0.6)

    @pytest.mark.parametrize("threshold", [0, 0.0, tf.constant(0.0)])
    def test_threshold_zero_marks_the_boxes(self, threshold):
        masks, boxes = np.zeros((1, *SIZE), np.float32), np.float32([[1, 2, 3, 3, 6, 8]])
        result = label_volume(masks, boxes, np.array([True]), SHAPE, threshold).numpy()
        expected = np.zeros(SHAPE)
        expected[1:3, 2:6, 3:8] = 1
        np.testing.assert_array_equal(result, expected)

    def test_threshold_one_marks_where_the_mask_is_full(self):
        masks = np.array([1.0, 0.99], np.float32).reshape(2, 1, 1, 1)
        boxes = np.float32([[1, 2, 3, 3, 6, 8], [0, 0, 0, *SHAPE]])
        result = label_volume(masks, boxes, np.array([True, True]), SHAPE, 1).numpy()
        expected = np.zeros(SHAPE)
        expected[1:3, 2:6, 3:8] = 1
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
    def test_threshold_outside_zero_to_one_raises(self, threshold):
        with pytest.raises(ValueError, match=rf"expected threshold in \[0, 1\], came {threshold}"):
            label_volume(
                np.zeros((1, *SIZE), np.float32), np.zeros((1, 6), np.float32), np.array([True]), SHAPE, threshold
            )

    def test_boxes_that_hold_nothing_mark_nothing_and_harm_nobody(self):
        masks, boxes, valid = random_detections(np.random.default_rng(41), 6)
        more, more_valid = np.ones((len(NOTHING), *SIZE), np.float32), np.full(len(NOTHING), True)
        np.testing.assert_array_equal(label_volume(more, NOTHING, more_valid, SHAPE), np.zeros(SHAPE))
        joined = [np.concatenate(pair) for pair in [(masks, more), (boxes, NOTHING), (valid, more_valid)]]
        np.testing.assert_array_equal(label_volume(*joined, SHAPE), label_volume(masks, boxes, valid, SHAPE))

    def test_saved_model_equals_eager(self, tmp_path):
        loaded = saved(lambda *args: label_volume(*args, 0.4), DETECTIONS, tmp_path)
        detections = random_detections(np.random.default_rng(42), 6)
        np.testing.assert_array_equal(loaded(*detections, tf.constant(SHAPE)), label_volume(*detections, SHAPE, 0.4))

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
        compiled = tf.function(label_volume, input_signature=DETECTIONS)
        for num, shape in [(4, SHAPE), (0, SHAPE), (1, (3, 2, 4))]:
            masks, boxes = random_masks(rng, num), reference.random_boxes(rng, num, shape)
            valid = np.ones(num, bool)
            result = compiled(masks, boxes, valid, tf.constant(shape))
            np.testing.assert_array_equal(result, label_volume(masks, boxes, valid, shape))
