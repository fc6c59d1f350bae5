import types

import numpy as np
import pytest
import tensorflow as tf

from configs import augment_schema
from data import augmentation, places
from ops import masks
from tests.data.appearance_test import quiet

SHAPE, SIZE = (12, 14, 18), (6, 8, 10)


def make_example(shape=SHAPE, spacing=(1.0, 1.0, 1.0), number=1):
    """Three boxes; an instance's voxels are as bright as its number times ten, its landmark is its centre."""
    ids = np.zeros(shape, np.int32)
    ids[1:5, 2:7, 3:8], ids[6:10, 8:13, 0:6], ids[5:8, 1:4, 12:17] = 1, 2, 3
    centres = [[[3.0, 4.5, 5.5]], [[8.0, 10.5, 3.0]], [[6.5, 2.5, 14.5]]]
    return {
        "volume": tf.constant(10.0 * number * ids[..., np.newaxis], tf.float32),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.constant([1, 2, 3]) * number,
        "attributes": tf.constant([[0.1], [0.2], [0.3]]),
        "keypoints": tf.constant(centres, tf.float32),
        "spacing": tf.constant(spacing),
        "name": tf.constant("kept"),
    }


def empty_example(shape):
    return {
        "volume": tf.ones([*shape, 1]),
        "instance_ids": tf.zeros(shape, tf.int32),
        "class_ids": tf.zeros([0], tf.int32),
        "attributes": tf.zeros([0, 1]),
        "keypoints": tf.zeros([0, 1, 3]),
        "spacing": tf.ones(3),
        "name": tf.constant("kept"),
    }


def config(flip_axes=(False,) * 3, rotate_planes=(), **probabilities):
    """The `input` section with everything off but the sections named."""
    settings = quiet()
    for name, probability in probabilities.items():
        getattr(settings, name).probability = probability
    return types.SimpleNamespace(
        foreground=0.7,
        foreground_by="instance",
        flip_axes=flip_axes,
        rotate_planes=rotate_planes,
        augment=settings,
    )


def everything():
    names = (
        "mosaic",
        "affine",
        "elastic",
        "paste",
        "blur",
        "low_resolution",
        "gamma",
        "contrast",
        "brightness",
        "noise",
    )
    made = config((True,) * 3, ((1, 2),), **dict.fromkeys(names, 0.5))
    made.augment.elastic.grid, made.augment.elastic.magnitude = (5, 5, 5), (0.0, 2.0)
    return made


def seed(i):
    return tf.constant([9, i], tf.int32)


class AugmentExampleTest:
    def test_nothing_on_is_a_crop(self):
        found = augmentation.augment_example(make_example(), config(), seed(0), SIZE)
        assert found["name"].numpy() == b"kept"
        whole = make_example()["instance_ids"].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(whole, SIZE).reshape(-1, *SIZE)
        assert (windows == found["instance_ids"].numpy()).all(axis=(1, 2, 3)).any()
        np.testing.assert_array_equal(found["volume"][..., 0], 10.0 * found["instance_ids"].numpy())

    def test_default_settings(self):
        made = config()
        made.augment = augment_schema.Augment()
        run = tf.function(lambda s: augmentation.augment_example(make_example(), made, s, SIZE))
        for i in range(6):
            found = run(seed(i))
            assert found["volume"].shape == (*SIZE, 1)
            assert np.isfinite(found["volume"]).all()

    @pytest.mark.parametrize("section", ["affine", "elastic"])
    def test_image_ids_and_boxes_move_together(self, section):
        made = config((True,) * 3, (), **{section: 1.0})
        made.augment.elastic.grid, made.augment.elastic.magnitude = (6, 6, 6), (1.5, 1.5)
        run = tf.function(lambda s: augmentation.augment_example(make_example(), made, s, SIZE))
        for i in range(8):
            found = run(seed(i))
            ids, volume = found["instance_ids"].numpy(), found["volume"].numpy()[..., 0]
            assert set(np.unique(ids)) <= {0, 1, 2, 3}
            # Voxels whose neighbours are all of one instance have that instance's intensity.
            inner = np.ones(SIZE, bool)
            for axis in range(3):
                for step in (-1, 1):
                    inner &= np.roll(ids, step, axis) == ids
            inner[[0, -1]] = inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
            assert (np.abs(volume - 10 * ids)[inner] < 5.1).mean() > 0.9
            boxes, voxels = masks.instance_boxes(found["instance_ids"], 3)
            for number in range(3):
                if voxels[number] > 0:
                    where = np.argwhere(ids == number + 1)
                    np.testing.assert_array_equal(boxes[number], [*where.min(axis=0), *(where.max(axis=0) + 1)])

    def test_landmarks_go_with_their_instances(self):
        made = config((True,) * 3, ((1, 2),), affine=1.0)
        size = (12, 14, 14)
        run = tf.function(lambda s: augmentation.augment_example(make_example(), made, s, size))
        compared = 0
        for i in range(20):
            found = run(seed(i))
            ids = found["instance_ids"].numpy()
            for number, point in enumerate(found["keypoints"].numpy()[:, 0]):
                where = np.argwhere(ids == number + 1)
                inside = len(where) and (where.min(axis=0) > 0).all() and (where.max(axis=0) < np.array(size) - 1).all()
                if inside:
                    np.testing.assert_allclose(point, where.mean(axis=0) + 0.5, atol=0.5)
                    compared += 1
        assert compared > 5

    def test_a_step_switched_off_leaves_the_others_draws(self):
        plain = config((True,) * 3, brightness=1.0)
        more = config((True,) * 3, brightness=1.0, contrast=1.0, noise=0.0)
        more.augment.contrast.interval = (1.0, 1.0)
        for i in range(4):
            a, b = (augmentation.augment_example(make_example(), c, seed(i), SIZE) for c in (plain, more))
            np.testing.assert_array_equal(a["instance_ids"], b["instance_ids"])
            np.testing.assert_allclose(a["volume"], b["volume"], atol=1e-5)
        # The place of the patch is the same whether it is bent or not: its middle shows the same voxel.
        bent = config((True,) * 3, affine=1.0)
        bent.augment.affine.rotation, bent.augment.affine.scale = ((0, 0),) * 3, (1.0, 1.0)
        for i in range(4):
            a, b = (augmentation.augment_example(make_example(), c, seed(i), SIZE) for c in (config((True,) * 3), bent))
            np.testing.assert_array_equal(a["instance_ids"], b["instance_ids"])

    def test_seeds(self):
        made = config((True,) * 3, (), elastic=1.0, noise=1.0)
        run = tf.function(lambda s: augmentation.augment_example(make_example(), made, s, SIZE)["volume"])
        a, b, c = (run(seed(i)).numpy() for i in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()

    @pytest.mark.parametrize("with_donor", [False, True])
    def test_static_shapes_from_unknown_ones(self, with_donor):
        def specs(example):
            shapes = {"volume": [None, None, None, 1], "class_ids": [None], "attributes": [None, 1]}
            shapes |= {"instance_ids": [None] * 3, "keypoints": [None, 1, 3]}
            return {k: tf.TensorSpec(shapes.get(k, v.shape), v.dtype) for k, v in example.items()}

        donor = make_example((12, 14, 20), number=7)

        @tf.function(input_signature=[specs(make_example()), specs(donor), tf.TensorSpec([2], tf.int32)])
        def run(example, other, s):
            found = augmentation.augment_example(example, everything(), s, (6, 8, 8), other if with_donor else None)
            assert found["volume"].shape == (6, 8, 8, 1)
            assert found["instance_ids"].shape == (6, 8, 8)
            return found

        classes = set()
        for i in range(25):
            found = run(make_example(), donor, seed(i))
            ids = found["instance_ids"].numpy()
            assert found["keypoints"].shape == (len(found["class_ids"]), 1, 3)
            assert found["attributes"].shape == (len(found["class_ids"]), 1)
            assert 0 <= ids.min() <= ids.max() <= len(found["class_ids"])
            classes |= {int(found["class_ids"][n - 1]) for n in np.unique(ids) if n > 0}
        assert classes == ({1, 2, 3, 7, 14, 21} if with_donor else {1, 2, 3})

    @pytest.mark.parametrize("shape", [(12, 14, 18), (3, 5, 20), (1, 1, 1)])
    def test_no_instances_and_short_cases(self, shape):
        for i in range(6):
            found = augmentation.augment_example(
                empty_example(shape), everything(), seed(i), (6, 8, 8), empty_example(shape)
            )
            assert found["instance_ids"].numpy().max() == 0
            assert np.isfinite(found["volume"]).all()


class TurnTest:
    @pytest.mark.parametrize(
        ("spacing", "allowed"),
        [((1.0, 1.0, 1.0), {0, 1, 2}), ((3.0, 1.0, 1.0), {0}), ((1.0, 1.0, 0.5), {2}), ((1.0, 2.0, 1.005), {1})],
    )
    def test_planes_of_equal_spacing(self, spacing, allowed):
        # Which axis a line along z, y or x stays on: a turn in a plane leaves the third axis alone.
        cube = make_example((5, 5, 5), spacing)
        planes = ((1, 2), (0, 2), (0, 1))
        run = tf.function(lambda s: augmentation.turn(example, planes, tf.constant(spacing), s)["instance_ids"])
        ids = np.zeros((5, 5, 5), np.int32)
        ids[0, 2, 2], ids[2, 0, 2], ids[2, 2, 0] = 1, 2, 3
        example = cube | {"instance_ids": tf.constant(ids)}
        moved = set()
        for i in range(30):
            found = run(seed(i)).numpy()
            for number in (1, 2, 3):
                axis = int(np.flatnonzero(np.argwhere(found == number)[0] != 2)[0])
                if axis != number - 1:
                    moved |= {number - 1, axis}
        # The axes that took part; the plane's number is that of the axis left alone.
        assert moved == ({0, 1, 2} if len(allowed) == 3 else {0, 1, 2} - allowed)

    def test_no_plane_of_equal_spacing(self):
        example = make_example((5, 5, 5))
        for i in range(8):
            found = augmentation.turn(example, ((0, 1), (1, 2)), tf.constant([1.0, 2.0, 3.0]), seed(i))
            np.testing.assert_array_equal(found["instance_ids"], example["instance_ids"])

    def test_no_planes(self):
        example = make_example((5, 6, 7))
        assert augmentation.turn(example, (), tf.ones(3), seed(0)) is example


class MosaicTest:
    def test_crops_of_two_cases_in_turn(self):
        sources = [make_example(), make_example((12, 14, 20), number=7)]
        found = augmentation.mosaic(sources, (6, 8, 10), (1, 2, 2), 1.0, seed(0))
        assert found["volume"].shape == (6, 8, 10, 1)
        ids = found["instance_ids"].numpy()
        tiles = [ids[:, :4, :5], ids[:, :4, 5:], ids[:, 4:, :5], ids[:, 4:, 5:]]
        for number, tile in enumerate(tiles):
            shown = np.unique(tile[tile > 0])
            assert len(shown) > 0
            assert (shown > 3 * number).all()
            assert (shown <= 3 * number + 3).all()
            classes = found["class_ids"].numpy()[shown - 1]
            assert set(classes) <= ({1, 2, 3} if number % 2 == 0 else {7, 14, 21})

    def test_landmarks_outside_of_their_crop_are_unknown(self):
        found = augmentation.mosaic([make_example()], (6, 8, 10), (1, 2, 2), 1.0, seed(0))
        points = found["keypoints"].numpy().reshape(4, 3, 3)
        known = np.isfinite(points).all(axis=-1)
        assert known.any()
        assert not known.all()
        for number, (y, x) in enumerate([(0, 0), (0, 5), (4, 0), (4, 5)]):
            assert (points[number][known[number]] >= [0, y, x]).all()
            assert (points[number][known[number]] <= [6, y + 4, x + 5]).all()

    def test_fewer_instances_in_one_source(self):
        found = augmentation.mosaic([make_example(), empty_example(SHAPE)], (6, 8, 10), (2, 1, 1), 1.0, seed(0))
        assert found["class_ids"].numpy().tolist() == [1, 2, 3, 0, 0, 0]
        assert found["instance_ids"].numpy()[3:].max() == 0
        assert (found["volume"].numpy()[3:] == 1).all()

    def test_a_grid_of_one_is_a_crop(self):
        found = augmentation.mosaic([make_example()], SIZE, (1, 1, 1), 1.0, seed(3))
        crop_seed = tf.random.experimental.stateless_split(seed(3), 1)[0]
        corner = places.random_corner(make_example(), SIZE, 1.0, crop_seed)
        expected = places.window(make_example(), corner, SIZE)
        for name in ("volume", "instance_ids"):
            np.testing.assert_array_equal(found[name], expected[name])
        known = np.isfinite(found["keypoints"])
        np.testing.assert_array_equal(found["keypoints"][known], expected["keypoints"][known])
