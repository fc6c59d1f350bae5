import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import roi_windows
from ops.roi_sum3d import roi_sum3d
from tests import reference

SHAPE = (5, 7, 11)
OUTPUT = (2, 3, 4)


def random_volume(rng, batch=2, shape=SHAPE, channels=3):
    return rng.normal(size=(batch, *shape, channels)).astype(np.float32)


def random_rois(rng, batch=2, num=4, extent=SHAPE):
    return reference.random_boxes(rng, batch * num, extent).reshape(batch, num, 6)


def gradient_of(volume, boxes, upstream=None, output_size=OUTPUT):
    volume = tf.constant(volume)
    with tf.GradientTape() as tape:
        tape.watch(volume)
        result = roi_sum3d(volume, boxes, output_size=output_size)
    return tf.convert_to_tensor(tape.gradient(result, volume, upstream))


class RoiSum3dTest:
    @pytest.mark.parametrize(
        ("lo", "hi", "expected"),
        [
            (0.0, 8.0, [3, 7, 11, 15]),  # two voxels to a bin
            (1.0, 5.0, [2, 3, 4, 5]),  # one to a bin
            (2.0, 4.0, [1.5, 1.5, 2, 2]),  # half a one
            (0.5, 6.5, [0.5 + 2, 3 + 2, 2 + 5, 6 + 3.5]),  # one and a half
            (3.2, 3.6, [0.4, 0.4, 0.4, 0.4]),  # a tenth of one
            (-4.0, 4.0, [0, 0, 3, 7]),  # from outside
            (6.0, 14.0, [15, 0, 0, 0]),  # to the outside
            (-9.0, -1.0, [0, 0, 0, 0]),
            (8.0, 9.0, [0, 0, 0, 0]),
        ],
    )
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_hand_values_along_one_axis(self, axis, lo, hi, expected):
        volume = np.moveaxis(np.arange(1.0, 9.0).reshape(1, 8, 1, 1, 1), 1, axis + 1).astype(np.float32)
        box, size = np.array([0.0, 0, 0, 1, 1, 1]), [1, 1, 1]
        box[axis], box[axis + 3], size[axis] = lo, hi, 4
        np.testing.assert_allclose(
            np.ravel(roi_sum3d(volume, box.reshape(1, 1, 6), output_size=size)), expected, rtol=1e-5
        )

    @pytest.mark.parametrize("output_size", [(1, 1, 1), OUTPUT, (7, 3, 5)])
    def test_equals_reference(self, output_size):
        rng = np.random.default_rng(0)
        volume, boxes = random_volume(rng), random_rois(rng, num=8)
        boxes[0, 0] = [-3, -4, -9, 2, 5, 9]  # over the lower corner
        boxes[0, 1] = [3, 4, 9, 9, 20, 60]  # over the upper corner
        boxes[0, 2] = [-2, -5, -11, 8, 21, 57]  # around everything
        boxes[0, 3] = [2, 3, 5, 2.01, 3.01, 5.01]  # far smaller than a voxel
        boxes[0, 4] = [9, 3, 5, 12, 6, 8]  # beside it
        result = roi_sum3d(volume, boxes, output_size=output_size)
        assert result.shape == (2, 8, *output_size, 3)
        np.testing.assert_allclose(result, reference.roi_sum3d(volume, boxes, output_size=output_size), atol=1e-4)

    @settings(deadline=None, max_examples=30, derandomize=True)
    @given(
        st.lists(
            st.tuples(*[st.integers(-20, 60).map(lambda n: n / 4)] * 3, *[st.sampled_from([0, 0.5, 1, 3, 11, 30])] * 3),
            min_size=2,
            max_size=2,
        )
    )
    def test_any_boxes_equal_reference(self, drawn):
        corners = np.array(drawn, np.float32)
        boxes = np.concatenate([corners[:, :3], corners[:, :3] + corners[:, 3:]], axis=-1)[np.newaxis]
        volume = random_volume(np.random.default_rng(1), batch=1, channels=1)
        expected = reference.roi_sum3d(volume, boxes, output_size=(1, 2, 3))
        np.testing.assert_allclose(roi_sum3d(volume, boxes, output_size=(1, 2, 3)), expected, atol=1e-4)

    @pytest.mark.parametrize("output_size", [(1, 1, 1), OUTPUT, (7, 3, 5), (20, 30, 40)])
    def test_bins_of_a_box_of_whole_voxels_add_up_to_its_voxels(self, output_size):
        volume = random_volume(np.random.default_rng(2), batch=1)
        boxes = np.float32([[[1, 0, 2, 4, 7, 9], [0, 0, 0, 5, 7, 11], [4, 6, 10, 5, 7, 11], [-2, 3, 9, 2, 5, 14]]])
        found = roi_sum3d(volume, boxes, output_size=output_size).numpy().sum(axis=(2, 3, 4), dtype=np.float64)
        parts = [volume[0, 1:4, :, 2:9], volume[0], volume[0, 4:, 6:, 10:], volume[0, :2, 3:5, 9:]]
        np.testing.assert_allclose(found[0], [part.sum(axis=(0, 1, 2)) for part in parts], atol=1e-4)

    def test_box_of_as_many_voxels_as_bins_returns_them(self):
        volume = random_volume(np.random.default_rng(3), batch=1)
        result = roi_sum3d(volume, tf.constant([[[1.0, 2, 5, 3, 5, 9]]]), output_size=OUTPUT)
        np.testing.assert_allclose(result[0, 0], volume[0, 1:3, 2:5, 5:9], atol=1e-6)

    @pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
    def test_permuted_axes_permute_the_output(self, axes):
        rng = np.random.default_rng(4)
        volume, boxes = random_volume(rng), random_rois(rng)
        result = roi_sum3d(
            np.transpose(volume, (0, *[a + 1 for a in axes], 4)),
            reference.permute_boxes(boxes, axes),
            output_size=[OUTPUT[a] for a in axes],
        )
        plain = roi_sum3d(volume, boxes, output_size=OUTPUT)
        np.testing.assert_allclose(result, np.transpose(plain, (0, 1, *[a + 2 for a in axes], 5)), atol=1e-5)

    def test_flipped_volume_flips_the_output(self):
        rng = np.random.default_rng(5)
        volume, boxes = random_volume(rng), random_rois(rng)
        flipped = np.concatenate([SHAPE - boxes[..., 3:], SHAPE - boxes[..., :3]], axis=-1).astype(np.float32)
        result = roi_sum3d(volume[:, ::-1, ::-1, ::-1].copy(), flipped, output_size=OUTPUT)
        expected = roi_sum3d(volume, boxes, output_size=OUTPUT)[:, :, ::-1, ::-1, ::-1]
        np.testing.assert_allclose(result, expected, atol=1e-4)

    @pytest.mark.parametrize("chunk_bytes", [1, 20_000])
    def test_many_chunks_equal_rois_one_by_one(self, monkeypatch, chunk_bytes):
        rng = np.random.default_rng(6)
        volume, boxes = random_volume(rng), random_rois(rng, num=20)
        boxes[:, 5], boxes[1, 7] = 0, np.nan
        upstream = tf.constant(rng.normal(size=(2, 20, *OUTPUT, 3)), tf.float32)

        def run(boxes, upstream):
            return roi_sum3d(volume, boxes, output_size=OUTPUT), gradient_of(volume, boxes, upstream)

        ones = [run(boxes[:, i : i + 1], upstream[:, i : i + 1]) for i in range(20)]
        monkeypatch.setattr(roi_windows, "CHUNK_BYTES", chunk_bytes)
        result, gradient = tf.function(run)(boxes, upstream)
        np.testing.assert_allclose(result, tf.concat([one for one, _ in ones], axis=1), atol=1e-5)
        np.testing.assert_allclose(gradient, tf.add_n([one for _, one in ones]), atol=1e-5)

    def test_gradient_equals_finite_differences(self):
        rng = np.random.default_rng(7)
        volume, boxes = random_volume(rng, batch=1, shape=(2, 3, 4), channels=1), random_rois(rng, 1, 4, (2, 3, 4))
        boxes[0, 1] = boxes[0, 0]  # two rois that share their voxels
        boxes[0, 2] = [-1, -1, -3, 4, 7, 9]
        weights = rng.normal(size=(1, 4, *OUTPUT, 1))
        expected = reference.finite_differences(
            lambda v: (weights * reference.roi_sum3d(v, boxes, output_size=OUTPUT)).sum(), volume
        )
        assert np.any(expected != 0)
        np.testing.assert_allclose(gradient_of(volume, boxes, weights.astype(np.float32)), expected, atol=1e-4)

    def test_no_gradient_to_boxes(self):
        rng = np.random.default_rng(8)
        volume, boxes = random_volume(rng), tf.constant(random_rois(rng))
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            result = roi_sum3d(volume, boxes, output_size=OUTPUT)
        gradient = tape.gradient(result, boxes, unconnected_gradients="zero")
        np.testing.assert_array_equal(gradient, np.zeros(boxes.shape))

    @pytest.mark.parametrize(
        "box", [[0] * 6, [1, 2, 3, 1, 5, 9], [3, 2, 3, 2, 5, 9], [np.nan] * 6, [0, 0, 0, 1, 1, np.inf]]
    )
    def test_empty_box_is_zero_and_has_no_gradient(self, box):
        rng = np.random.default_rng(9)
        volume, boxes = random_volume(rng, batch=1), random_rois(rng, batch=1, num=3)
        others = roi_sum3d(volume, boxes[:, 1:], output_size=OUTPUT)
        boxes[0, 0] = box
        result = roi_sum3d(volume, boxes, output_size=OUTPUT)
        np.testing.assert_array_equal(result[:, 0], np.zeros((1, *OUTPUT, 3)))
        np.testing.assert_allclose(result[:, 1:], others, atol=1e-6)
        np.testing.assert_array_equal(gradient_of(volume, boxes[:, :1]), np.zeros_like(volume))

    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_volume_without_voxels_gives_zeros(self, axis):
        volume = np.delete(random_volume(np.random.default_rng(10)), np.s_[:], axis=axis)
        boxes = random_rois(np.random.default_rng(11))
        np.testing.assert_array_equal(roi_sum3d(volume, boxes, output_size=OUTPUT), np.zeros((2, 4, *OUTPUT, 3)))
        assert gradient_of(volume, boxes).shape == volume.shape

    def test_no_boxes(self):
        volume = random_volume(np.random.default_rng(12))
        assert roi_sum3d(volume, tf.zeros([2, 0, 6]), output_size=OUTPUT).shape == (2, 0, *OUTPUT, 3)
        np.testing.assert_array_equal(gradient_of(volume, tf.zeros([2, 0, 6])), np.zeros_like(volume))

    @pytest.mark.parametrize("far", [1e6, 1e12, 3e38])
    def test_huge_box_is_finite(self, far):
        volume = np.ones((1, *SHAPE, 1), np.float32)
        boxes = tf.constant([[[-far] * 3 + [far] * 3]])
        result = roi_sum3d(volume, boxes, output_size=3).numpy()
        np.testing.assert_allclose(result[0, 0, 1, 1, 1], [5 * 7 * 11])  # the bin that holds the whole volume
        assert result.sum() == result[0, 0, 1, 1, 1, 0]

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
    def test_half_precision_is_summed_in_float32(self, dtype):
        volume = tf.cast(tf.fill([1, 2, 30, 50, 1], 0.5), dtype)
        result = roi_sum3d(volume, tf.constant([[[0.0, 0, 0, 2, 30, 50]]]), output_size=1)
        assert result.dtype == dtype
        np.testing.assert_allclose(tf.cast(result, tf.float32), np.full((1, 1, 1, 1, 1, 1), 1500.0), rtol=0.01)

    def test_unknown_sizes_equal_eager(self):
        rng = np.random.default_rng(13)
        compiled = tf.function(
            lambda volume, boxes: roi_sum3d(volume, boxes, output_size=OUTPUT),
            input_signature=[tf.TensorSpec([None, None, None, None, 3]), tf.TensorSpec([None, None, 6])],
        )
        for batch, num, shape in [(2, 4, SHAPE), (1, 0, SHAPE), (3, 1, (4, 2, 3))]:
            volume, boxes = random_volume(rng, batch, shape), random_rois(rng, batch, num, shape)
            result = compiled(volume, boxes)
            assert result.shape == (batch, num, *OUTPUT, 3)
            np.testing.assert_allclose(result, roi_sum3d(volume, boxes, output_size=OUTPUT), atol=1e-5)

    def test_integer_size_means_equal_triples(self):
        rng = np.random.default_rng(14)
        volume, boxes = random_volume(rng), random_rois(rng)
        np.testing.assert_array_equal(
            roi_sum3d(volume, boxes, output_size=3), roi_sum3d(volume, boxes, output_size=(3, 3, 3))
        )

    @pytest.mark.parametrize(
        ("volume", "boxes", "size", "words"),
        [
            ((5, 7, 11, 3), (2, 4, 6), 2, r"features \[B, z, y, x, C\]"),
            ((2, 5, 7, 11, 3), (3, 4, 6), 2, r"boxes \[B, R, 6\]; came .*boxes \[3, 4, 6\]"),
            ((2, 5, 7, 11, 3), (2, 4, 7), 2, r"boxes \[2, 4, 7\]"),
            ((2, 5, 7, 11, 3), (2, 4, 6), (2, 0, 1), "expected output_size as one number above 0"),
        ],
    )
    def test_wrong_arguments_raise(self, volume, boxes, size, words):
        with pytest.raises(ValueError, match=words):
            roi_sum3d(tf.zeros(volume), tf.zeros(boxes), output_size=size)
