import numpy as np
import pytest
import tensorflow as tf

from data import augment, places
from ops import masks

SHAPE = (9, 12, 17)
CLASS_IDS = (2, 1, 3)
NOWHERE = [np.nan] * 3
# Centres of voxels of each instance, of which the second has one landmark that is not known.
KEYPOINTS = np.float32(
    [[[1.5, 2.5, 3.5], [2.5, 5.5, 9.5]], [[7.5, 8.5, 2.5], NOWHERE], [[8.5, 11.5, 16.5], [8.5, 11.5, 16.5]]]
)


def make_example(shape=SHAPE, channels=1):
    """Three boxes of ids; every voxel's intensity names its place, so that ids and volume can be compared."""
    places = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    volume = np.stack([places + 10000 * c for c in range(channels)], axis=-1)
    ids = np.zeros(shape, np.int32)
    ids[1:3, 2:6, 3:10] = 1
    ids[5:8, 7:11, 0:4] = 2
    ids[8, 11, 16] = 3
    return {
        "volume": tf.constant(volume),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.constant(CLASS_IDS),
        "attributes": tf.zeros([3, 0]),
        "keypoints": tf.constant(KEYPOINTS),
        "name": tf.constant("kept"),
    }


def empty_example(shape):
    ids = tf.zeros(shape, tf.int32)
    return {
        "volume": tf.ones([*shape, 1]),
        "instance_ids": ids,
        "class_ids": tf.zeros([0], tf.int32),
        "attributes": tf.zeros([0, 2]),
        "keypoints": tf.zeros([0, 2, 3]),
    }


def seed(i):
    return tf.constant([7, i], tf.int32)


def assert_moved_together(example):
    """Every voxel of the result still has the id that its place in the source has."""
    source = make_example()["instance_ids"].numpy().ravel()
    places = example["volume"].numpy()[..., 0].astype(int)
    expected = np.where(places > 0, source[np.maximum(places, 1) - 1], 0)
    np.testing.assert_array_equal(example["instance_ids"], expected)
    assert_in_their_voxels(example)


def assert_in_their_voxels(example):
    """Every landmark lies at the centre of its voxel of before, or beyond the border; returns how many lie inside."""
    points, volume = example["keypoints"].numpy(), example["volume"].numpy()[..., 0]
    np.testing.assert_array_equal(np.isnan(points), np.isnan(KEYPOINTS))
    inside = np.all((points > 0) & (points < volume.shape), axis=-1)
    for row, column in np.argwhere(inside):
        point = points[row, column]
        assert np.all(point % 1 == 0.5)
        z, y, x = np.floor(point).astype(int)
        place = np.floor(KEYPOINTS[row, column]).astype(int)
        assert volume[z, y, x] == 1 + np.ravel_multi_index(place, SHAPE)
        assert example["instance_ids"][z, y, x] == row + 1
    hidden = {int(place) - 1 for place in volume.ravel()}
    for row, column in np.argwhere(~inside & ~np.isnan(points[..., 0])):
        assert np.ravel_multi_index(np.floor(KEYPOINTS[row, column]).astype(int), SHAPE) not in hidden
    return int(inside.sum())


def crop(example, size, foreground, seed):
    """A random patch."""
    return places.window(example, places.random_corner(example, size, foreground, seed), size)


class CropTest:
    @pytest.mark.parametrize("patch", [(4, 5, 6), (9, 12, 17), (9, 4, 1)])
    def test_volume_and_ids_are_cut_together(self, patch):
        for i in range(10):
            found = crop(make_example(), patch, 0.5, seed(i))
            assert found["volume"].shape == (*patch, 1)
            assert found["instance_ids"].shape == patch
            assert found["name"].numpy() == b"kept"
            assert_moved_together(found)

    def test_foreground_patches_hold_every_instance_equally_often(self):
        counts = np.zeros(4)
        num_patches = 150
        for i in range(num_patches):
            present = np.unique(crop(make_example(), (2, 3, 4), 1.0, seed(i))["instance_ids"])
            assert present.max() > 0
            counts[present] += 1
        # Binomial(150, 1/3) has a standard deviation of 5.8; the instances are too far apart to be seen together.
        np.testing.assert_allclose(counts[1:], num_patches / 3, atol=20)
        assert counts[1:].sum() == num_patches

    def test_share_of_foreground(self):
        held = [np.max(crop(make_example(), (1, 1, 1), 0.6, seed(i))["instance_ids"]) > 0 for i in range(200)]
        # Foreground draws, and the few uniform ones that happen to hit: 0.6 + 0.4 * 105 / 1836 = 0.62, sigma 0.034.
        assert abs(np.mean(held) - 0.62) < 0.11

    def test_an_instance_lies_anywhere_in_the_patch(self):
        example = empty_example((31, 31, 31))
        ids = np.zeros((31, 31, 31), np.int32)
        ids[15, 15, 15] = 1
        example |= {"instance_ids": tf.constant(ids), "class_ids": tf.constant([1])}
        patch = (3, 4, 5)
        places = [np.argwhere(crop(example, patch, 1.0, seed(i))["instance_ids"])[0] for i in range(200)]
        for axis in range(3):
            found = np.bincount(np.array(places)[:, axis], minlength=patch[axis])
            np.testing.assert_allclose(found / 200, 1 / patch[axis], atol=0.12)

    def test_uniform_patches_reach_every_corner(self):
        example = empty_example((3, 4, 5))
        example["volume"] = tf.reshape(tf.range(1.0, 61.0), [3, 4, 5, 1])
        patches = [crop(example, (2, 3, 4), 0.0, seed(i))["volume"] for i in range(100)]
        starts = {int(patch[0, 0, 0, 0]) for patch in patches}
        assert starts == {1 + 20 * z + 5 * y + x for z in (0, 1) for y in (0, 1) for x in (0, 1)}

    @pytest.mark.parametrize("foreground", [0.0, 1.0])
    def test_short_axes_are_padded_on_both_sides(self, foreground):
        found = crop(make_example(), (12, 5, 20), foreground, seed(0))
        assert found["volume"].shape == (12, 5, 20, 1)
        inside = found["volume"].numpy()[..., 0] > 0
        assert np.argwhere(inside).min(0).tolist() == [1, 0, 1]
        assert np.argwhere(inside).max(0).tolist() == [9, 4, 17]
        assert_moved_together(found)

    @pytest.mark.parametrize("shape", [(5, 7, 11), (1, 1, 1), (3, 20, 30)])
    def test_no_instances(self, shape):
        found = crop(empty_example(shape), (4, 6, 8), 1.0, seed(0))
        assert found["volume"].shape == (4, 6, 8, 1)
        kept = np.prod(np.minimum(shape, (4, 6, 8)))
        assert found["volume"].numpy().sum() == kept
        assert found["instance_ids"].numpy().max() == 0

    def test_an_instance_without_voxels_does_no_harm(self):
        example = empty_example((5, 7, 11)) | {"class_ids": tf.constant([1])}
        found = crop(example, (4, 6, 8), 1.0, seed(0))
        assert found["volume"].numpy().sum() == 4 * 6 * 8

    def test_same_seed_same_patch(self):
        patches = [crop(make_example(), (3, 4, 5), 0.5, seed(i))["volume"].numpy() for i in (1, 1, 2, 3)]
        np.testing.assert_array_equal(patches[0], patches[1])
        assert any((patches[0] != other).any() for other in patches[2:])

    def test_eager_equals_function_of_unknown_shape(self):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, None, 1], tf.float32),
                tf.TensorSpec([None, None, None], tf.int32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None, None, 3], tf.float32),
            ]
        )
        def compiled(volume, ids, class_ids, keypoints):
            example = {"volume": volume, "instance_ids": ids, "class_ids": class_ids, "keypoints": keypoints}
            found = augment.flip(crop(example, (10, 5, 6), 0.7, seed(3)), (True, True, True), seed(4))
            assert found["volume"].shape == (10, 5, 6, 1)
            return found["volume"], found["keypoints"]

        example = make_example()
        volume, keypoints = compiled(*(example[key] for key in ("volume", "instance_ids", "class_ids", "keypoints")))
        found = augment.flip(crop(example, (10, 5, 6), 0.7, seed(3)), (True, True, True), seed(4))
        np.testing.assert_array_equal(volume, found["volume"])
        np.testing.assert_array_equal(keypoints, found["keypoints"])


class FitTest:
    def test_cuts_the_middle_and_pads_both_sides(self):
        found = augment.fit(make_example(), (4, 15, 17))
        source = make_example()["volume"].numpy()
        np.testing.assert_array_equal(found["volume"][:, 1:13], source[2:6])
        assert not found["volume"].numpy()[:, [0, 13, 14]].any()
        assert_moved_together(found)

    def test_the_same_size_changes_nothing(self):
        np.testing.assert_array_equal(augment.fit(make_example(), SHAPE)["volume"], make_example()["volume"])


class FlipTest:
    def test_boxes_of_a_flipped_volume_are_flipped_boxes(self):
        example = make_example()
        boxes = masks.instance_boxes(example["instance_ids"], 3)[0].numpy()
        seen = set()
        for i in range(40):
            found = augment.flip(example, (True, True, True), seed(i))
            assert_moved_together(found)
            # The first voxel's intensity tells which axes were mirrored.
            corner = np.unravel_index(int(found["volume"][0, 0, 0, 0]) - 1, SHAPE)
            mirrored = np.array(corner) > 0
            flipped = np.where(np.tile(mirrored, 2), np.roll(np.tile(SHAPE, 2) - boxes, 3, axis=-1), boxes)
            np.testing.assert_array_equal(masks.instance_boxes(found["instance_ids"], 3)[0], flipped)
            seen.add(tuple(mirrored.tolist()))
        assert len(seen) == 8

    @pytest.mark.parametrize("channels", [1, 3])
    def test_only_allowed_axes_are_mirrored(self, channels):
        example = make_example(channels=channels)
        seen = set()
        for i in range(12):
            found = augment.flip(example, (False, False, True), seed(i))["volume"].numpy()
            mirrored = found[0, 0, 0, 0] != 1
            source = example["volume"].numpy()
            np.testing.assert_array_equal(found, source[:, :, ::-1] if mirrored else source)
            seen.add(bool(mirrored))
        assert seen == {True, False}

    def test_no_axes_change_nothing(self):
        example = make_example()
        assert augment.flip(example, (False, False, False), seed(0)) is example


class Rotate90Test:
    def cube(self, shape=(6, 6, 6)):
        example = make_example(shape=(9, 12, 17))
        return augment.fit(example, shape)

    @pytest.mark.parametrize(
        ("planes", "shape", "count"),
        [
            ([(1, 2)], (5, 6, 6), 4),
            ([(0, 2)], (6, 5, 6), 4),
            ([(2, 1)], (5, 6, 6), 4),
            ([(0, 1), (1, 2)], (6, 6, 6), 24),
            ([(0, 1), (0, 2), (1, 2)], (6, 6, 6), 24),
        ],
    )
    def test_reaches_exactly_the_rotations_of_its_planes(self, planes, shape, count):
        reference = self.rotations(self.cube(shape)["volume"].numpy(), planes)
        assert len(reference) == count
        found = set()
        for i in range(40 if count == 4 else 160):
            example = augment.rotate90(self.cube(shape), planes, seed(i))
            assert example["volume"].shape == (*shape, 1)
            assert example["instance_ids"].shape == shape
            found.add(example["volume"].numpy().tobytes())
            if i < 10:
                assert_moved_together(example)
        assert found <= reference
        assert len(found) >= count - 2  # 24 rotations in 160 draws: each is missed with 0.1 %

    def rotations(self, volume, planes):
        """All volumes that np.rot90 in the planes leads to."""
        found, new = {}, [volume]
        while new:
            found |= {v.tobytes(): v for v in new}
            turned = [np.rot90(v, 1, plane) for v in new for plane in planes]
            new = [np.ascontiguousarray(v) for v in turned if v.tobytes() not in found]
        return set(found)

    def test_is_never_a_reflection(self):
        for order, mirrored in augment._rotations([(0, 1), (0, 2), (1, 2)]):
            matrix = np.eye(3)[list(order)] * np.where(mirrored, -1, 1)[:, np.newaxis]
            assert np.linalg.det(matrix) == pytest.approx(1.0)

    def test_no_planes_change_nothing(self):
        example = make_example()
        assert augment.rotate90(example, (), seed(0)) is example

    def test_a_plane_of_unequal_sizes_is_refused(self):
        with pytest.raises(ValueError, match=r"equal sizes on the axes \(0, 1\), got \(9, 12, 17\)"):
            augment.rotate90(make_example(), [(0, 1)], seed(0))


def place(number):
    """Where in the source a voxel of `make_example` lay."""
    return np.array(np.unravel_index(int(number) - 1, SHAPE))


class KeypointsTest:
    def test_a_crop_takes_its_corner_off(self):
        for i in range(10):
            found = crop(make_example(), (4, 5, 6), 0.5, seed(i))
            corner = place(found["volume"][0, 0, 0, 0])
            np.testing.assert_array_equal(found["keypoints"], KEYPOINTS - corner)

    def test_cut_and_padded_by_hand(self):
        # z is cut by 5, 2 of them in front; y is padded by 3, 1 of them in front; x stays.
        found = augment.fit(make_example(), (4, 15, 17))
        np.testing.assert_array_equal(found["keypoints"][0], [[-0.5, 3.5, 3.5], [0.5, 6.5, 9.5]])
        np.testing.assert_array_equal(found["keypoints"][1], [[5.5, 9.5, 2.5], NOWHERE])

    def test_mirrored_by_hand(self):
        mirrored = augment._reverse(make_example(), tf.constant([True, False, False]))
        np.testing.assert_array_equal(mirrored["keypoints"][0], [[7.5, 2.5, 3.5], [6.5, 5.5, 9.5]])
        mirrored = augment._reverse(make_example(), tf.constant([False, True, True]))
        np.testing.assert_array_equal(mirrored["keypoints"][1], [[7.5, 3.5, 14.5], NOWHERE])
        np.testing.assert_array_equal(mirrored["keypoints"][2], [[8.5, 0.5, 0.5], [8.5, 0.5, 0.5]])

    def test_a_quarter_turn_by_hand(self):
        """On (5, 6, 6), y' = x and x' = 6 - y, or the other way round, or both axes mirrored, or nothing."""
        example = empty_example((5, 6, 6)) | {"keypoints": tf.constant([[[4.5, 1.0, 2.5]]])}
        found = set()
        for i in range(30):
            turned = augment.rotate90(example, [(1, 2)], seed(i))
            found.add(tuple(turned["keypoints"].numpy().ravel().tolist()))
        assert found == {(4.5, 1.0, 2.5), (4.5, 2.5, 5.0), (4.5, 5.0, 3.5), (4.5, 3.5, 1.0)}

    @pytest.mark.parametrize("planes", [((0, 1),), ((0, 1), (1, 2)), ()])
    @pytest.mark.parametrize("patch", [(8, 8, 8), (13, 13, 13)])
    def test_stay_in_the_voxels_of_their_instances_through_everything(self, planes, patch):
        seen = 0
        for i in range(25):
            example = crop(make_example(), patch, 0.8, seed(i))
            example = augment.flip(example, (True, True, True), seed(i + 1))
            seen += assert_in_their_voxels(augment.rotate90(example, planes, seed(i + 2)))
        assert seen >= 25

    def test_a_mosaic_adds_the_corner_of_each_tile(self):
        points = np.arange(6 * 2 * 3, dtype=np.float32).reshape(6, 2, 1, 3) / 10
        points[4, 1] = np.nan
        tiles = {
            "volume": tf.zeros([6, 2, 3, 4, 1]),
            "instance_ids": tf.zeros([6, 2, 3, 4], tf.int32),
            "class_ids": tf.zeros([6, 2], tf.int32),
            "attributes": tf.zeros([6, 2, 0]),
            "keypoints": tf.constant(points),
        }
        corners = [[0, 0, 0], [0, 0, 4], [0, 0, 8], [0, 3, 0], [0, 3, 4], [0, 3, 8]]
        found = augment.mosaic(tiles, (1, 2, 3))["keypoints"]
        expected = [points[tile, slot] + corners[tile] for tile in range(6) for slot in range(2)]
        np.testing.assert_array_equal(found, np.float32(expected))
        corners = [[0, 0, 0], [0, 3, 0], [2, 0, 0], [2, 3, 0], [4, 0, 0], [4, 3, 0]]
        found = augment.mosaic(tiles, (3, 2, 1))["keypoints"]
        np.testing.assert_array_equal(found[10], np.float32(points[5, 0] + corners[5]))

    def test_none_at_all(self):
        example = make_example() | {"keypoints": tf.zeros([3, 0, 3])}
        example = augment.flip(crop(example, (4, 5, 5), 0.5, seed(0)), (True, True, True), seed(1))
        assert augment.rotate90(example, ((1, 2),), seed(2))["keypoints"].shape == (3, 0, 3)


class MosaicTest:
    def test_places_and_ids(self):
        tiles = {
            "volume": tf.reshape(tf.range(6, dtype=tf.float32), [6, 1, 1, 1, 1]) * tf.ones([6, 2, 3, 4, 1]),
            "instance_ids": tf.constant([0, 1, 2, 1, 0, 2])[:, None, None, None] * tf.ones([6, 2, 3, 4], tf.int32),
            "class_ids": tf.constant([[0, 0], [5, 6], [7, 8], [9, 0], [0, 0], [1, 2]]),
            "attributes": tf.reshape(tf.range(12, dtype=tf.float32), [6, 2, 1]),
            "keypoints": tf.zeros([6, 2, 0, 3]),
        }
        found = augment.mosaic(tiles, (1, 2, 3))
        assert found["volume"].shape == (2, 6, 12, 1)
        np.testing.assert_array_equal(found["volume"][0, ::3, ::4, 0], [[0, 1, 2], [3, 4, 5]])
        np.testing.assert_array_equal(found["volume"][1, 2::3, 3::4, 0], [[0, 1, 2], [3, 4, 5]])
        ids = found["instance_ids"].numpy()
        np.testing.assert_array_equal(ids[1, 2::3, 3::4], [[0, 3, 6], [7, 0, 12]])
        classes = {i: int(found["class_ids"][i - 1]) for i in np.unique(ids) if i > 0}
        assert classes == {3: 5, 6: 8, 7: 9, 12: 2}
        np.testing.assert_array_equal(found["attributes"][:, 0], np.arange(12))
        assert found["keypoints"].shape == (12, 0, 3)

    def test_tiles_keep_their_inside(self):
        rng = np.random.default_rng(0)
        volume = rng.normal(size=(8, 2, 3, 4, 2)).astype(np.float32)
        tiles = {
            "volume": tf.constant(volume),
            "instance_ids": tf.zeros([8, 2, 3, 4], tf.int32),
            "class_ids": tf.zeros([8, 0], tf.int32),
            "attributes": tf.zeros([8, 0, 0]),
            "keypoints": tf.zeros([8, 0, 2, 3]),
        }
        found = augment.mosaic(tiles, (2, 2, 2))
        for n, (z, y, x) in enumerate(np.ndindex(2, 2, 2)):
            part = found["volume"][2 * z : 2 * z + 2, 3 * y : 3 * y + 3, 4 * x : 4 * x + 4]
            np.testing.assert_array_equal(part, volume[n])
        assert found["class_ids"].shape == (0,)
        assert found["attributes"].shape == (0, 0)
        assert found["keypoints"].shape == (0, 2, 3)
        assert not found["instance_ids"].numpy().any()
