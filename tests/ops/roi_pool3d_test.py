import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import roi_windows
from ops.roi_levels import roi_levels
from ops.roi_pool3d import multilevel_roi_pool3d, roi_pool3d
from tests import reference

SHAPE = (5, 7, 11)
STRIDE = (1, 2, 4)
EXTENT = np.multiply(SHAPE, STRIDE)
OUTPUT = (2, 3, 4)
SETTINGS = {"output_size": OUTPUT, "stride": STRIDE}


def random_features(rng, batch=2, shape=SHAPE, channels=3):
    return rng.normal(size=(batch, *shape, channels)).astype(np.float32)


def random_rois(rng, batch=2, num=4, extent=EXTENT):
    return reference.random_boxes(rng, batch * num, extent).reshape(batch, num, 6)


def gradient_of(features, boxes, upstream=None, **arguments):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        result = roi_pool3d(features, boxes, **arguments)
    return tf.convert_to_tensor(tape.gradient(result, features, upstream))


class RoiPool3dTest:
    @pytest.mark.parametrize(
        ("lo", "hi", "expected"),
        [
            (0.0, 16.0, [2, 4, 6, 8]),  # eight cells: two to a bin
            (2.0, 10.0, [2, 3, 4, 5]),  # cells 1 to 4: one to a bin
            (3.9, 8.1, [2, 3, 4, 5]),  # cells 1 to 4 again, rounded outward
            (0.0, 12.0, [2, 3, 5, 6]),  # six cells: 0-1, 1-2, 3-4, 4-5
            (7.0, 7.5, [4, 4, 4, 4]),  # one cell for all
            (6.0, 6.5, [4, 4, 4, 4]),
            (-8.0, 8.0, [0, 0, 2, 4]),  # cells -4 to 3: the bins outside are 0
            (12.0, 20.0, [7, 8, 0, 0]),
            (-9.0, -1.0, [0, 0, 0, 0]),
        ],
    )
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_hand_values_along_one_axis(self, axis, lo, hi, expected):
        features = np.moveaxis(np.arange(1.0, 9.0).reshape(1, 8, 1, 1, 1), 1, axis + 1).astype(np.float32)
        box, stride, size = np.array([0.0, 0, 0, 1, 1, 1]), [1, 1, 1], [1, 1, 1]
        box[axis], box[axis + 3], stride[axis], size[axis] = lo, hi, 2, 4
        result = roi_pool3d(features, box.reshape(1, 1, 6), output_size=size, stride=stride)
        np.testing.assert_array_equal(np.ravel(result), expected)

    @pytest.mark.parametrize("output_size", [(1, 1, 1), OUTPUT, (7, 3, 5)])
    def test_equals_reference(self, output_size):
        rng = np.random.default_rng(0)
        features, boxes = random_features(rng), random_rois(rng, num=12)
        boxes[0, 0] = [-3, -4, -9, 2, 5, 9]
        boxes[0, 1] = [3, 9, 30, 9, 20, 60]
        boxes[0, 2] = [-2, -5, -11, 8, 21, 57]
        boxes[0, 3] = [2, 3, 5, 2.01, 3.01, 5.01]
        boxes[0, 4] = [9, 3, 5, 12, 6, 8]
        arguments = {"output_size": output_size, "stride": STRIDE}
        np.testing.assert_array_equal(
            roi_pool3d(features, boxes, **arguments),
            reference.roi_pool3d(features, boxes, **arguments).astype(np.float32),
        )

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(
        st.lists(
            st.tuples(
                *[st.integers(-80, 240).map(lambda n: n / 4)] * 3, *[st.sampled_from([0, 0.5, 1, 3, 44, 90])] * 3
            ),
            min_size=3,
            max_size=3,
        )
    )
    def test_any_boxes_equal_reference(self, drawn):
        corners = np.array(drawn, np.float32)
        boxes = np.concatenate([corners[:, :3], corners[:, :3] + corners[:, 3:]], axis=-1)[np.newaxis]
        features = random_features(np.random.default_rng(1), batch=1, channels=1)
        np.testing.assert_array_equal(
            roi_pool3d(features, boxes, **SETTINGS), reference.roi_pool3d(features, boxes, **SETTINGS).astype("f")
        )

    @pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
    def test_permuted_axes_permute_the_output(self, axes):
        rng = np.random.default_rng(2)
        features, boxes = random_features(rng), random_rois(rng)
        result = roi_pool3d(
            np.transpose(features, (0, *[a + 1 for a in axes], 4)),
            reference.permute_boxes(boxes, axes),
            output_size=[OUTPUT[a] for a in axes],
            stride=[STRIDE[a] for a in axes],
        )
        plain = roi_pool3d(features, boxes, **SETTINGS)
        np.testing.assert_array_equal(result, np.transpose(plain, (0, 1, *[a + 2 for a in axes], 5)))

    def test_flipped_volume_flips_the_output(self):
        rng = np.random.default_rng(3)
        features, boxes = random_features(rng), random_rois(rng)
        flipped = np.concatenate([EXTENT - boxes[..., 3:], EXTENT - boxes[..., :3]], axis=-1)
        result = roi_pool3d(features[:, ::-1, ::-1, ::-1].copy(), flipped, **SETTINGS)
        expected = roi_pool3d(features, boxes, **SETTINGS)[:, :, ::-1, ::-1, ::-1]
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("chunk_bytes", [1, 20_000])
    def test_many_chunks_equal_rois_one_by_one(self, monkeypatch, chunk_bytes):
        rng = np.random.default_rng(4)
        features, boxes = random_features(rng), random_rois(rng, num=20)
        upstream = tf.constant(rng.normal(size=(2, 20, *OUTPUT, 3)), tf.float32)

        def run(boxes, upstream):
            return roi_pool3d(features, boxes, **SETTINGS), gradient_of(features, boxes, upstream, **SETTINGS)

        ones = [run(boxes[:, i : i + 1], upstream[:, i : i + 1]) for i in range(20)]
        monkeypatch.setattr(roi_windows, "CHUNK_BYTES", chunk_bytes)
        result, gradient = tf.function(run)(boxes, upstream)
        np.testing.assert_array_equal(result, tf.concat([one for one, _ in ones], axis=1))
        np.testing.assert_allclose(gradient, tf.add_n([one for _, one in ones]), atol=1e-5)

    def test_gradient_equals_finite_differences(self):
        rng = np.random.default_rng(5)
        features = rng.permutation(24).reshape(1, 2, 3, 4, 1).astype(np.float32)  # no ties
        boxes = random_rois(rng, batch=1, num=4, extent=(2, 6, 16))
        boxes[0, 1] = boxes[0, 0]
        boxes[0, 2] = [-1, -1, -3, 4, 7, 9]
        weights = rng.normal(size=(1, 4, *OUTPUT, 1))
        expected = reference.finite_differences(
            lambda f: (weights * reference.roi_pool3d(f, boxes, **SETTINGS)).sum(), features
        )
        assert np.any(expected != 0)
        gradient = gradient_of(features, boxes, weights.astype(np.float32), **SETTINGS)
        np.testing.assert_allclose(gradient, expected, atol=1e-4)

    def test_ties_share_the_gradient(self):
        features = np.array([3.0, 1, 3, 0], np.float32).reshape(1, 1, 1, 4, 1)
        gradient = gradient_of(features, tf.constant([[[0.0, 0, 0, 1, 1, 4]]]), output_size=1, stride=1)
        np.testing.assert_array_equal(np.ravel(gradient), [0.5, 0, 0.5, 0])

    @pytest.mark.parametrize(
        "box", [[0] * 6, [1, 2, 3, 1, 5, 9], [3, 2, 3, 2, 5, 9], [np.nan] * 6, [0, 0, 0, 1, 1, np.inf]]
    )
    def test_empty_box_is_zero_and_has_no_gradient(self, box):
        rng = np.random.default_rng(6)
        features, boxes = random_features(rng, batch=1), random_rois(rng, batch=1, num=3)
        others = roi_pool3d(features, boxes[:, 1:], **SETTINGS)
        boxes[0, 0] = box
        result = roi_pool3d(features, boxes, **SETTINGS)
        np.testing.assert_array_equal(result[:, 0], np.zeros((1, *OUTPUT, 3)))
        np.testing.assert_array_equal(result[:, 1:], others)
        np.testing.assert_array_equal(gradient_of(features, boxes[:, :1], **SETTINGS), np.zeros_like(features))

    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_grid_without_cells_gives_zeros(self, axis):
        features = np.delete(random_features(np.random.default_rng(10)), np.s_[:], axis=axis)
        boxes = random_rois(np.random.default_rng(11))
        np.testing.assert_array_equal(roi_pool3d(features, boxes, **SETTINGS), np.zeros((2, 4, *OUTPUT, 3)))
        assert gradient_of(features, boxes, **SETTINGS).shape == features.shape

    def test_no_boxes(self):
        features = random_features(np.random.default_rng(7))
        assert roi_pool3d(features, tf.zeros([2, 0, 6]), **SETTINGS).shape == (2, 0, *OUTPUT, 3)
        np.testing.assert_array_equal(gradient_of(features, tf.zeros([2, 0, 6]), **SETTINGS), np.zeros_like(features))

    @pytest.mark.parametrize("far", [1e6, 1e12, 3e38])
    def test_huge_box_is_finite(self, far):
        features = np.ones((1, *SHAPE, 1), np.float32)
        boxes = tf.constant([[[-far] * 3 + [far] * 3, [far / 2] * 3 + [far] * 3]])
        result = roi_pool3d(features, boxes, output_size=3, stride=1).numpy()
        np.testing.assert_array_equal(result[0, 0, 1, 1, 1], [1])  # the bin that holds the whole grid
        assert result.sum() == 1
        np.testing.assert_allclose(gradient_of(features, boxes, output_size=3, stride=1).numpy().sum(), 1, rtol=1e-5)

    def test_unknown_sizes_equal_eager(self):
        rng = np.random.default_rng(8)
        compiled = tf.function(
            lambda features, boxes: roi_pool3d(features, boxes, **SETTINGS),
            input_signature=[tf.TensorSpec([None, None, None, None, 3]), tf.TensorSpec([None, None, 6])],
        )
        for batch, num, shape in [(2, 4, SHAPE), (1, 0, SHAPE), (3, 1, (4, 2, 3))]:
            features = random_features(rng, batch, shape)
            boxes = random_rois(rng, batch, num, np.multiply(shape, STRIDE))
            result = compiled(features, boxes)
            assert result.shape == (batch, num, *OUTPUT, 3)
            np.testing.assert_array_equal(result, roi_pool3d(features, boxes, **SETTINGS))

    @pytest.mark.parametrize(
        ("features", "boxes", "changes", "words"),
        [
            ((2, 5, 7, 11), (2, 4, 6), {}, r"features \[B, z, y, x, C\]"),
            ((2, 5, 7, 11, 3), (3, 4, 6), {}, r"boxes \[B, R, 6\]; came .*boxes \[3, 4, 6\]"),
            ((2, 5, 7, 11, 3), (2, 4, 7), {}, r"boxes \[2, 4, 7\]"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"output_size": (2, 0, 1)}, "expected output_size as one number above 0"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"stride": -1}, "expected stride as one number above 0"),
        ],
    )
    def test_wrong_arguments_raise(self, features, boxes, changes, words):
        with pytest.raises(ValueError, match=words):
            roi_pool3d(tf.zeros(features), tf.zeros(boxes), **{**SETTINGS, **changes})


class MultilevelRoiPool3dTest:
    def test_every_roi_comes_from_its_level(self):
        rng = np.random.default_rng(9)
        features = [random_features(rng, 2, shape) for shape in [(20, 14, 22), (10, 7, 11), (5, 4, 6)]]
        strides = [(2, 4, 4), (4, 8, 8), (8, 16, 16)]
        choice = {"strides": strides, "canonical_size": (16, 32, 32), "canonical_level": 1}
        boxes = random_rois(rng, 2, 15, (40, 56, 88))
        boxes[:, 3] = [0, 0, 0, 40, 56, 88]
        levels = roi_levels(boxes, num_levels=3, **choice).numpy()
        assert len(np.unique(levels)) == 3
        result = multilevel_roi_pool3d(features, boxes, output_size=OUTPUT, **choice).numpy()
        for level, (maps, stride) in enumerate(zip(features, strides, strict=True)):
            single = roi_pool3d(maps, boxes, output_size=OUTPUT, stride=stride).numpy()
            np.testing.assert_array_equal(result[levels == level], single[levels == level])

    def test_wrong_levels_raise(self):
        features = [tf.zeros([1, 5, 7, 11, 3])] * 2
        with pytest.raises(ValueError, match="expected one stride for each of 2 levels, came 1"):
            multilevel_roi_pool3d(
                features,
                tf.zeros([1, 1, 6]),
                strides=[STRIDE],
                output_size=2,
                canonical_size=16,
                canonical_level=0,
            )
