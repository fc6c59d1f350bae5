import numpy as np
import pytest
import tensorflow as tf

from model.roi_sums import MAX_SINH, SMALLEST, TYPICAL, logarithm, measured, object_sums
from tests import reference

SHAPE = (5, 7, 11)
SIZE = (2, 3, 4)  # M
KINDS = ("linear", "sinh")
SCALE = ((0.5, 2.0), (0.25, -1.0))  # gains and offsets of two channels


def volume_of(seed, channels=2):
    return np.random.default_rng(seed).uniform(0.5, 2.0, (2, *SHAPE, channels)).astype(np.float32)


def masks_of(seed, num=3):
    return np.random.default_rng(seed).uniform(size=(2, num, *SIZE)).astype(np.float32)


def boxes_of(seed, num=3):
    return reference.random_boxes(np.random.default_rng(seed), 2 * num, SHAPE).reshape(2, num, 6)


def log_sums(*inputs, **kwargs):
    """[B, R, C] float32, of all layers."""
    return logarithm(object_sums(*inputs, **kwargs)[:, :, 0])


class ObjectSumsTest:
    def test_hand_values(self):
        # Two rows of voxels 1..11; the box holds 3 to 6 of both, the mask all of the first and half of the second.
        volume = np.zeros((1, *SHAPE, 1), np.float32)
        volume[0, 1, 2:4, :, 0] = np.arange(1.0, 12.0)
        masks = np.ones((1, 1, 1, 2, 4), np.float32)
        masks[0, 0, 0, 1] = 0.5
        boxes = tf.constant([[[1.0, 2, 2, 2, 4, 6]]])
        found = log_sums(volume, boxes, masks, kind="linear", intensity=None)
        np.testing.assert_allclose(found, [[[np.log(1.5 * (3 + 4 + 5 + 6) / TYPICAL)]]], rtol=1e-5)
        found = log_sums(np.arcsinh(volume), boxes, masks, kind="sinh", intensity=None)
        np.testing.assert_allclose(found, [[[np.log(27 / TYPICAL)]]], rtol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_reference(self, kind):
        volume, boxes, masks = volume_of(0), boxes_of(1), masks_of(2)
        voxels = {"linear": volume + [0.5, -0.5], "sinh": np.sinh(volume * [0.5, 2.0] + [0.25, -1.0])}[kind]
        sums = (masks[..., np.newaxis] * reference.roi_sum3d(voxels, boxes, output_size=SIZE)).sum(axis=(2, 3, 4))
        found = log_sums(volume, boxes, masks, kind=kind, intensity=SCALE)
        assert found.shape == (2, 3, 2)
        np.testing.assert_allclose(found, np.log(sums / TYPICAL), atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_normalisation_did_is_undone(self, kind):
        signal, boxes, masks = volume_of(3), boxes_of(4), masks_of(5)
        mean, deviation = np.float32([0.3, 2.0]), np.float32([0.5, 1.5])
        scaled = log_sums(
            (signal - mean) / deviation, boxes, masks, kind=kind, intensity=(tuple(deviation), tuple(mean))
        )
        plain = log_sums(signal, boxes, masks, kind=kind, intensity=None)
        unit = np.log(deviation) if kind == "linear" else 0.0
        np.testing.assert_allclose(scaled, plain - unit, atol=1e-4)

    @pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
    def test_permuted_axes_change_nothing(self, axes):
        volume, boxes, masks = volume_of(6), boxes_of(7), masks_of(8)
        turned = log_sums(
            np.transpose(volume, (0, *[a + 1 for a in axes], 4)),
            reference.permute_boxes(boxes, axes),
            np.transpose(masks, (0, 1, *[a + 2 for a in axes])),
            kind="sinh",
            intensity=SCALE,
        )
        np.testing.assert_allclose(turned, log_sums(volume, boxes, masks, kind="sinh", intensity=SCALE), atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_nothing_and_of_less_it_is_the_smallest(self, kind):
        volume = np.full((1, *SHAPE, 1), -1.0, np.float32)
        boxes = np.float32([[[1, 2, 3, 4, 5, 6]] * 2 + [[0] * 6, [np.nan] * 6, [9, 9, 9, 12, 12, 12]]])
        masks = np.ones((1, 5, *SIZE), np.float32)
        masks[:, 0] = 0.0
        found = log_sums(volume, boxes, masks, kind=kind, intensity=None)
        np.testing.assert_allclose(found, np.full((1, 5, 1), np.log(SMALLEST / TYPICAL)), rtol=1e-6)

    @pytest.mark.parametrize("value", [1e6, -1e6, 3e38])
    def test_any_volume_gives_finite_numbers(self, value):
        volume = np.full((1, 50, 70, 110, 1), value, np.float32)
        box, masks = tf.constant([[[0.0, 0, 0, 50, 70, 110]]]), np.ones((1, 1, *SIZE), np.float32)
        assert np.all(np.isfinite(log_sums(volume, box, masks, kind="sinh", intensity=((2.0,), (1.0,)))))

    def test_no_gradient_to_masks_boxes_or_volume(self):
        inputs = [tf.constant(x) for x in (volume_of(9), boxes_of(10), masks_of(11))]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = log_sums(*inputs, kind="sinh", intensity=SCALE)
        assert tape.gradient(found, inputs) == [None] * 3

    def test_no_rois(self):
        found = log_sums(volume_of(12), tf.zeros([2, 0, 6]), masks_of(13, num=0), kind="linear", intensity=None)
        assert found.shape == (2, 0, 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_unknown_sizes_equal_eager(self, kind):
        compiled = tf.function(
            lambda *inputs: log_sums(*inputs, kind=kind, intensity=SCALE),
            input_signature=[
                tf.TensorSpec([None, *SHAPE, 2]),
                tf.TensorSpec([None, None, 6]),
                tf.TensorSpec([None, None, *SIZE]),
            ],
        )
        inputs = volume_of(14), boxes_of(15), masks_of(16)
        found = compiled(*inputs)
        np.testing.assert_allclose(found, log_sums(*inputs, kind=kind, intensity=SCALE), atol=1e-5)


class LayersTest:
    def test_hand_values(self):
        # Bins along z of a box from 1 to 4 are 0.75 voxels long: their middles are 1.375, 2.125, 2.875, 3.625.
        volume = np.zeros((1, *SHAPE, 1), np.float32)
        volume[0, :, 2, 3, 0] = [1.0, 10.0, 100.0, 1000.0, 1e4]
        masks = np.float32([1.0, 0.5, 1.0, 1.0]).reshape(1, 1, 4, 1, 1)
        boxes = tf.constant([[[1.0, 2, 3, 4, 3, 4]]])
        found = object_sums(volume, boxes, masks, kind="linear", intensity=None, by_layer=True)
        bins = [7.5, 0.5 * (2.5 + 50.0), 50.0 + 250.0, 750.0]
        np.testing.assert_allclose(found[0, 0, :, 0], [0.0, bins[0], bins[1] + bins[2], bins[3], 0.0], rtol=1e-5)

    def test_equals_reference(self):
        volume, boxes, masks = volume_of(19), boxes_of(20), masks_of(21)
        bins = masks[..., np.newaxis] * reference.roi_sum3d(volume, boxes, output_size=SIZE)
        expected = np.zeros((2, 3, SHAPE[0], 2))
        for image, roi, k in np.ndindex(2, 3, SIZE[0]):
            start, end = boxes[image, roi, [0, 3]]
            layer = int(np.clip(np.floor(start + (k + 0.5) * (end - start) / SIZE[0]), 0, SHAPE[0] - 1))
            expected[image, roi, layer] += bins[image, roi, k].sum(axis=(0, 1))
        found = object_sums(volume, boxes, masks, kind="linear", intensity=None, by_layer=True)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_layers_add_up_to_the_whole_also_of_boxes_of_any_place(self, kind):
        volume, masks = volume_of(22), masks_of(23, num=5)
        boxes = np.tile(
            np.float32([[-9, -9, -9, 20, 20, 20], [1, 2, 3, 4, 5, 6], [0] * 6, [np.nan] * 6, [90] * 6]), (2, 1, 1)
        )
        layers = object_sums(volume, boxes, masks, kind=kind, intensity=SCALE, by_layer=True)
        whole = object_sums(volume, boxes, masks, kind=kind, intensity=SCALE)
        assert layers.shape == (2, 5, SHAPE[0], 2)
        assert whole.shape == (2, 5, 1, 2)
        np.testing.assert_allclose(tf.reduce_sum(layers, axis=2), whole[:, :, 0], rtol=1e-4, atol=1e-4)
        assert np.any(whole[:, 1])
        assert not np.any(whole[:, 2:])


class MeasuredTest:
    def test_hand_values(self):
        volume = np.float32([[0.0, 1.0], [-2.0, 0.25]]).reshape(1, 1, 1, 2, 2)
        linear = measured(volume, "linear", SCALE)
        np.testing.assert_allclose(np.reshape(linear, (2, 2)), [[0.5, 0.5], [-1.5, -0.25]], rtol=1e-6)
        sinh = measured(volume, "sinh", SCALE)
        expected = np.sinh([[0.25, 1.0], [-0.75, -0.5]])
        np.testing.assert_allclose(np.reshape(sinh, (2, 2)), expected, rtol=1e-6)

    def test_without_a_scale_the_volume_is_the_intensity(self):
        np.testing.assert_array_equal(measured(volume_of(17), "linear", None), volume_of(17))

    def test_channel_that_never_varied_is_left(self):
        volume = np.zeros((1, *SHAPE, 1), np.float32)
        np.testing.assert_array_equal(measured(volume, "linear", ((0.0,), (7.0,))), volume)

    def test_sinh_is_held_finite(self):
        volume = np.full((1, *SHAPE, 1), 3e38, np.float32)
        np.testing.assert_allclose(measured(volume, "sinh", None), np.full(volume.shape, np.sinh(MAX_SINH)), rtol=1e-5)

    def test_half_precision_counts_in_float32(self):
        assert measured(tf.zeros([1, *SHAPE, 1], tf.bfloat16), "sinh", None).dtype == tf.float32

    def test_unknown_kind_raises(self):
        with pytest.raises(ValueError, match="expected kind of sums 'linear' or 'sinh', came 'none'"):
            measured(volume_of(18), "none", None)
