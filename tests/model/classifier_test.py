import numpy as np
import pytest
import tensorflow as tf

from model.classifier import Classifier, crop_around

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
        layer = Classifier(3, (3, 3, 3))

        def backbone(crop, training):
            assert training
            np.testing.assert_array_equal(crop[0, ..., 0], VOLUME[0, 1:4, 2:5, 3:6, 0])
            return {2: crop * 0.0 + 7.0, 3: tf.ones([1, 1, 2, 1, 2]) * tf.constant([1.0, 2.0])}

        layer({3: tf.zeros([1, 1, 1, 1, 2])})
        layer.set_weights([np.float32([[1, 0, 0], [0, 1, 0]]), np.float32([0, 0, 0.5])])
        loss = layer.loss(backbone, self.batch([2, 0], [True, False]), tf.constant([0, 1]))
        logits = np.array([1.0, 2.0, 0.5])
        np.testing.assert_allclose(loss["classifier"], [np.log(np.exp(logits).sum()) - 2.0], rtol=1e-6)

    def test_volume_without_objects_counts_nothing(self):
        layer = Classifier(2, (3, 3, 3))
        batch = self.batch([0, 0], [False, False])
        with tf.GradientTape() as tape:
            loss = layer.loss(lambda crop, training: {1: crop}, batch, tf.constant([0, 1]))["classifier"]
        np.testing.assert_array_equal(loss, [0.0])
        for gradient in tape.gradient(loss, layer.trainable_variables):
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))

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
