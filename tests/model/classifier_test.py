import numpy as np
import pytest
import tensorflow as tf

from model.classifier import Classifier, crop_around, empty_centres

VOLUME = np.arange(5 * 7 * 11, dtype=np.float32).reshape(1, 5, 7, 11, 1) + 1.0


class CropAroundTest:
    @pytest.mark.parametrize(
        ("centre", "size", "start"),
        [
            ((2.5, 3.5, 5.5), (1, 3, 5), (2, 2, 3)),
            ((2, 3, 5), (2, 2, 4), (1, 2, 3)),
            ((1.5, 1.5, 1.5), (3, 3, 3), (0, 0, 0)),
        ],
    )
    def test_inside(self, centre, size, start):
        crop = crop_around(VOLUME, np.float32([centre]), size)
        where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        np.testing.assert_array_equal(crop[0], VOLUME[0][where])

    def test_beyond_the_border_are_zeros(self):
        crop = crop_around(VOLUME, np.float32([[0.5, 6.5, 10.5]]), (3, 3, 5)).numpy()[0, ..., 0]
        padded = np.pad(VOLUME[0, ..., 0], 3)
        np.testing.assert_array_equal(crop, padded[2:5, 8:11, 11:16])

    def test_each_volume_has_its_own(self):
        volumes = np.concatenate([VOLUME, -VOLUME])
        crop = crop_around(volumes, np.float32([[0.5, 0.5, 0.5], [4.5, 6.5, 10.5]]), 1)
        np.testing.assert_array_equal(crop[:, 0, 0, 0, 0], [1.0, -385.0])

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match=r"expected volume \[B, Z, Y, X, C\], centres \[B, 3\]; came"):
            crop_around(VOLUME, np.zeros((1, 2), np.float32), 3)
        with pytest.raises(ValueError, match="expected size"):
            crop_around(VOLUME, np.zeros((1, 3), np.float32), 0)


class EmptyCentresTest:
    SHAPE, SIZE = (8, 16, 24), (3, 4, 5)
    BOXES = np.float32([[[0, 0, 0, 8, 16, 12], [0, 0, 12, 8, 9, 24], [0, 0, 0, 8, 16, 24]]])

    def test_crops_meet_no_box_wherever_they_are_rounded_to(self):
        boxes, valid = np.repeat(self.BOXES, 200, axis=0), np.tile([True, True, False], (200, 1))
        centres, found = empty_centres(boxes, valid, self.SHAPE, self.SIZE, tf.constant([0, 1]))
        assert np.all(found)
        ids = np.ones((200, *self.SHAPE, 1), np.float32)
        ids[:, :, 9:, 12:] = 0.0
        assert not np.any(crop_around(ids, centres, self.SIZE))
        assert np.all((centres >= 0.0) & (centres <= np.float32(self.SHAPE)))
        spread = centres.numpy()
        np.testing.assert_allclose(spread.min(0), [0, 11.5, 15], atol=0.6)  # all of the room is made use of
        np.testing.assert_allclose(spread.max(0), self.SHAPE, atol=0.6)

    def test_without_objects_every_place_will_do_and_without_room_none(self):
        boxes, valid = np.repeat(self.BOXES, 2, axis=0), np.array([[False] * 3, [True] * 3])
        _, found = empty_centres(boxes, valid, self.SHAPE, self.SIZE, tf.constant([0, 1]))
        np.testing.assert_array_equal(found, [True, False])

    def test_padding_counts_nothing_whatever_stands_in_it(self):
        boxes = np.float32([[[np.nan] * 6, [-1e9] * 3 + [1e9] * 3, [0] * 6]])
        _, found = empty_centres(boxes, np.zeros((1, 3), bool), self.SHAPE, self.SIZE, tf.constant([0, 1]))
        np.testing.assert_array_equal(found, [True])


class LossTest:
    def batch(self, class_ids, valid):
        boxes = np.tile(np.float32([1, 2, 3, 4, 5, 6]), (1, len(class_ids), 1))
        return {
            "volume": VOLUME,
            "boxes": boxes,
            "class_ids": np.int32([class_ids]),
            "valid": np.array([valid]),
        }

    def test_hand_value(self):
        layer = Classifier(2, (3, 3, 3))

        def backbone(crops, training):
            assert training
            np.testing.assert_array_equal(crops[0, ..., 0], VOLUME[0, 1:4, 2:5, 3:6, 0])
            assert not np.any(np.isin(crops[1], VOLUME[0, 1:4, 2:5, 3:6]))
            features = tf.ones([2, 1, 2, 1, 2]) * tf.reshape([1.0, 2.0, 3.0, 1.0], [2, 1, 1, 1, 2])
            return {2: crops * 0.0 + 7.0, 3: features}

        layer({3: tf.zeros([1, 1, 1, 1, 2])})
        layer.set_weights([np.float32([[1, 0, 0], [0, 1, 0]]), np.float32([0, 0, 0.5])])
        loss = layer.loss(backbone, self.batch([2, 0], [True, False]), tf.constant([0, 1]))
        of_object = np.log(np.exp([1.0, 2.0, 0.5]).sum()) - 0.5
        of_background = np.log(np.exp([3.0, 1.0, 0.5]).sum()) - 3.0
        np.testing.assert_allclose(loss["classifier"], [(of_object + of_background) / 2], rtol=1e-6)

    def test_one_class_is_told_from_background(self):
        layer = Classifier(1, (3, 3, 3))
        with tf.GradientTape() as tape:
            loss = layer.loss(lambda crop, training: {1: crop}, self.batch([1], [True]), tf.constant([0, 1]))
        kernel, bias = tape.gradient(loss, layer.trainable_variables)
        assert kernel.shape == (1, 2)
        assert bias.shape == (2,)
        assert np.all(np.abs(kernel) > 1e-3)

    def test_of_a_volume_without_objects_or_without_room_the_other_crop_counts(self):
        layer = Classifier(2, (3, 3, 3))
        layer({1: tf.zeros([1, 1, 1, 1, 1])})
        layer.set_weights([np.zeros((1, 3)), np.float32([3, 2, 1])])
        base = np.log(np.exp([3.0, 2.0, 1.0]).sum())
        full = self.batch([2, 2], [True, True])
        full["boxes"][:] = [0, 0, 0, 5, 7, 11]
        for batch, expected in ((self.batch([0, 0], [False, False]), base - 3.0), (full, base - 1.0)):
            loss = layer.loss(lambda crop, training: {1: crop}, batch, tf.constant([0, 1]))["classifier"]
            np.testing.assert_allclose(loss, [expected], rtol=1e-6)

    def test_every_object_is_drawn_and_padding_never(self):
        layer = Classifier(2, (1, 1, 1))
        batch = self.batch([1, 2, 1, 2], [True, False, True, True])
        batch["boxes"][0] = [[z, 0, 0, z + 1, 1, 1] for z in range(4)]
        seen = []
        for number in range(40):
            layer.loss(
                lambda crop, training: seen.append(float(crop[0, 0, 0, 0, 0])) or {1: crop},
                batch,
                tf.constant([0, number]),
            )
        assert {round((value - 1) / 77) for value in seen} == {0, 2, 3}
