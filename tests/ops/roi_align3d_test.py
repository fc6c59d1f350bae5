import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ops import roi_windows
from ops.roi_align3d import multilevel_roi_align3d, roi_align3d
from ops.roi_levels import roi_levels
from tests import reference

SHAPE = (5, 7, 11)
STRIDE = (1, 2, 4)
EXTENT = np.multiply(SHAPE, STRIDE)
OUTPUT = (2, 3, 4)
PERMUTATIONS = [(2, 0, 1), (1, 2, 0), (0, 2, 1)]
FEATURES = tf.TensorSpec([None, None, None, None, 3], tf.float32)
BOXES = tf.TensorSpec([None, None, 6], tf.float32)


def random_features(rng, batch=2, shape=SHAPE, channels=3):
    return rng.normal(size=(batch, *shape, channels)).astype(np.float32)


def random_rois(rng, batch=2, num=4, extent=EXTENT):
    return reference.random_boxes(rng, batch * num, extent).reshape(batch, num, 6)


def run_alone(script):
    """The last line that a script prints in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()[-1]


class RoiAlign3dTest:
    def test_hand_values_on_a_ramp(self):
        z, y, x = np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij")
        features = (25 * z + 5 * y + x)[None, ..., None].astype(np.float32)
        boxes = tf.constant([[[1.0, 1, 1, 3, 3, 3]]])
        result = roi_align3d(features, boxes, output_size=4, stride=1)
        i, j, k = np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij")
        expected = 23.25 + 12.5 * i + 2.5 * j + 0.5 * k
        assert result.shape == (1, 1, 4, 4, 4, 1)
        np.testing.assert_allclose(result[0, 0, ..., 0], expected, rtol=1e-5)
        np.testing.assert_allclose(result[0, 0, -1, -1, -1, 0], 69.75, rtol=1e-5)
        truth = reference.roi_align3d(features, boxes.numpy(), output_size=(4, 4, 4), stride=(1, 1, 1))
        np.testing.assert_allclose(truth[0, 0, ..., 0], expected, rtol=1e-12)

    def test_box_on_whole_cells_returns_them(self):
        features = random_features(np.random.default_rng(0), batch=1)
        boxes = tf.constant([[[1.0, 2, 4, 3, 8, 20]]])  # cells 1:3, 1:4 and 1:5
        result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE, sampling_ratio=1)
        np.testing.assert_allclose(result[0, 0], features[0, 1:3, 1:4, 1:5], atol=1e-5)

    @pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
    def test_equals_reference(self, sampling_ratio):
        rng = np.random.default_rng(sampling_ratio)
        features, boxes = random_features(rng, channels=2), random_rois(rng, num=3)
        settings = {"output_size": OUTPUT, "stride": STRIDE, "sampling_ratio": sampling_ratio}
        np.testing.assert_allclose(
            roi_align3d(features, boxes, **settings),
            reference.roi_align3d(features, boxes, **settings),
            atol=2e-5,
        )

    @pytest.mark.parametrize(
        "box",
        [
            [-3.0, -4, -9, 2, 5, 9],  # over the lower corner
            [3.0, 9, 30, 9, 20, 60],  # over the upper corner
            [-2.0, -5, -11, 8, 21, 57],  # around everything
            [-20.0, 1, 1, 40, 3, 5],  # most samples outside
            [2.0, 3, 5, 2.01, 3.01, 5.01],  # far smaller than a cell
        ],
    )
    def test_odd_boxes_equal_reference(self, box):
        features = random_features(np.random.default_rng(4), batch=1, channels=2)
        boxes = np.array([[box]], np.float32)
        settings = {"output_size": OUTPUT, "stride": STRIDE}
        np.testing.assert_allclose(
            roi_align3d(features, boxes, **settings),
            reference.roi_align3d(features, boxes, **settings),
            atol=2e-5,
        )

    def test_box_over_many_cells_equals_reference(self):
        # Two samples per axis of forty cells: the cells in between are not looked at.
        features = random_features(np.random.default_rng(5), batch=1, shape=(9, 40, 23), channels=1)
        boxes = np.array([[[0, 0, 0, 9, 40, 23], [0.3, 1.7, 2.1, 8.2, 39, 22]]], np.float32)
        settings = {"output_size": (1, 2, 3), "stride": (1, 1, 1), "sampling_ratio": 1}
        np.testing.assert_allclose(
            roi_align3d(features, boxes, **settings),
            reference.roi_align3d(features, boxes, **settings),
            atol=2e-5,
        )

    def test_grid_of_one_cell_equals_reference(self):
        features = random_features(np.random.default_rng(6), batch=1, shape=(1, 1, 3), channels=2)
        boxes = np.array([[[0, 0, 0, 1, 2, 12], [0.5, -1, 3, 1.5, 3, 14]]], np.float32)
        settings = {"output_size": OUTPUT, "stride": STRIDE}
        np.testing.assert_allclose(
            roi_align3d(features, boxes, **settings),
            reference.roi_align3d(features, boxes, **settings),
            atol=2e-5,
        )

    def test_equals_scipy_interpolation(self):
        rng = np.random.default_rng(7)
        features, boxes = random_features(rng, batch=1, channels=1), random_rois(rng, 1, 30)
        result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)[0, ..., 0].numpy()
        for box, values in zip(boxes[0], result, strict=True):
            positions = [
                lo + (np.arange(2 * n) + 0.5) / (2 * n) * (hi - lo)
                for lo, hi, n in zip(box[:3], box[3:], OUTPUT, strict=True)
            ]
            index = [p / s - 0.5 for p, s in zip(positions, STRIDE, strict=True)]
            samples = ndimage.map_coordinates(
                features[0, ..., 0], np.meshgrid(*index, indexing="ij"), order=1, mode="nearest"
            )
            means = samples.reshape(2, 2, 3, 2, 4, 2).mean(axis=(1, 3, 5))
            np.testing.assert_allclose(values, means, atol=2e-5)

    @pytest.mark.parametrize(
        ("centre", "expected"),
        [
            (0.5, 1.0),
            (0.0, 1.0),  # between border and centre of the first cell: clamped
            (-0.49, 1.0),
            (-0.51, 0.0),  # more than one cell from the centre of the first
            (3.5, 4.0),
            (4.49, 4.0),
            (4.51, 0.0),
            (2.0, 2.5),
        ],
    )
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_samples_outside_the_grid(self, axis, centre, expected):
        features = np.moveaxis(np.arange(1.0, 5.0).reshape(1, 4, 1, 1, 1), 1, axis + 1)
        lo, hi = np.zeros(3), np.ones(3)
        lo[axis], hi[axis] = centre - 0.001, centre + 0.001
        boxes = np.concatenate([lo, hi]).reshape(1, 1, 6).astype(np.float32)
        result = roi_align3d(features.astype(np.float32), boxes, output_size=1, stride=1, sampling_ratio=1)
        np.testing.assert_allclose(np.ravel(result), [expected], atol=1e-5)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_permute_the_output(self, axes):
        rng = np.random.default_rng(8)
        features, boxes = random_features(rng), random_rois(rng)
        result = roi_align3d(
            np.transpose(features, (0, *[a + 1 for a in axes], 4)),
            reference.permute_boxes(boxes, axes),
            output_size=[OUTPUT[a] for a in axes],
            stride=[STRIDE[a] for a in axes],
        )
        plain = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
        expected = np.transpose(plain, (0, 1, *[a + 2 for a in axes], 5))
        np.testing.assert_allclose(result, expected, atol=1e-5)

    def test_flipped_volume_flips_the_output(self):
        rng = np.random.default_rng(9)
        features, boxes = random_features(rng), random_rois(rng)
        flipped = np.concatenate([EXTENT - boxes[..., 3:], EXTENT - boxes[..., :3]], axis=-1)
        settings = {"output_size": OUTPUT, "stride": STRIDE}
        result = roi_align3d(features[:, ::-1, ::-1, ::-1].copy(), flipped.astype(np.float32), **settings)
        expected = roi_align3d(features, boxes, **settings)[:, :, ::-1, ::-1, ::-1]
        np.testing.assert_allclose(result, expected, atol=1e-4)

    def test_constant_features_stay_constant(self):
        boxes = random_rois(np.random.default_rng(10), num=20)
        result = roi_align3d(tf.fill([2, *SHAPE, 1], 3.0), boxes, output_size=OUTPUT, stride=STRIDE)
        np.testing.assert_allclose(result, np.full((2, 20, *OUTPUT, 1), 3.0), rtol=1e-5)

    def test_integer_sizes_mean_equal_triples(self):
        rng = np.random.default_rng(11)
        features, boxes = random_features(rng), random_rois(rng, extent=np.multiply(SHAPE, 2))
        np.testing.assert_array_equal(
            roi_align3d(features, boxes, output_size=3, stride=2),
            roi_align3d(features, boxes, output_size=(3, 3, 3), stride=(2, 2, 2)),
        )

    @pytest.mark.parametrize("empty", [[0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 5, 9], [1, 2, 3, 4, 5, 3], [3, 2, 3, 2, 5, 9]])
    def test_empty_box_is_zero_and_has_no_gradient(self, empty):
        features = tf.constant(random_features(np.random.default_rng(12)))
        boxes = tf.constant([[empty], [empty]], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
            loss = tf.reduce_sum(result)
        np.testing.assert_array_equal(result, np.zeros((2, 1, *OUTPUT, 3)))
        gradient = tape.gradient(loss, features)
        np.testing.assert_array_equal(tf.convert_to_tensor(gradient), np.zeros(features.shape))

    @pytest.mark.parametrize("axis", [1, 2, 3])
    def test_grid_without_cells_gives_zeros(self, axis):
        features = tf.constant(np.delete(random_features(np.random.default_rng(24)), np.s_[:], axis=axis))
        boxes = random_rois(np.random.default_rng(25))
        compiled = tf.function(
            lambda features: roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE),
            input_signature=[tf.TensorSpec([None, None, None, None, 3])],
        )
        for function in (compiled, compiled.python_function):
            with tf.GradientTape() as tape:
                tape.watch(features)
                result = function(features)
            np.testing.assert_array_equal(result, np.zeros((2, 4, *OUTPUT, 3)))
            assert tape.gradient(result, features).shape == features.shape

    def test_no_boxes(self):
        features = tf.constant(random_features(np.random.default_rng(13)))
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = roi_align3d(features, tf.zeros([2, 0, 6]), output_size=OUTPUT, stride=STRIDE)
            loss = tf.reduce_sum(result)
        assert result.shape == (2, 0, *OUTPUT, 3)
        gradient = tf.convert_to_tensor(tape.gradient(loss, features))
        np.testing.assert_array_equal(gradient, np.zeros(features.shape))

    def test_gradient_equals_finite_differences(self):
        rng = np.random.default_rng(14)
        features = tf.constant(random_features(rng, shape=(2, 3, 4), channels=1))
        boxes = random_rois(rng, num=2, extent=(2, 6, 16))
        boxes[1, 1] = boxes[1, 0]  # two rois that share their cells
        boxes[0, 1] = [-1, -1, -3, 4, 7, 9]
        settings = {"output_size": (1, 3, 2), "stride": STRIDE, "sampling_ratio": 1}
        weights = rng.normal(size=(2, 2, 1, 3, 2, 1))
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = roi_align3d(features, boxes, **settings)
            loss = tf.reduce_sum(weights.astype(np.float32) * result)
        expected = reference.finite_differences(
            lambda f: (weights * reference.roi_align3d(f, boxes, **settings)).sum(), features
        )
        assert np.any(expected != 0)
        gradient = tf.convert_to_tensor(tape.gradient(loss, features))
        np.testing.assert_allclose(gradient, expected, atol=1e-4)

    def test_gradient_is_the_transpose_of_the_forward_pass(self):
        # The op is linear in the features: <w, op(f)> = <gradient, f>.
        rng = np.random.default_rng(15)
        features = tf.constant(random_features(rng))
        boxes = random_rois(rng, num=9)
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
            weights = rng.normal(size=result.shape).astype(np.float32)
            loss = tf.reduce_sum(weights * result)
        gradient = tf.convert_to_tensor(tape.gradient(loss, features))
        np.testing.assert_allclose(tf.reduce_sum(gradient * features), loss, rtol=1e-3)

    def test_no_gradient_to_boxes(self):
        rng = np.random.default_rng(16)
        features, boxes = random_features(rng), tf.constant(random_rois(rng))
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
            loss = tf.reduce_sum(result)
        gradient = tape.gradient(loss, boxes, unconnected_gradients="zero")
        np.testing.assert_array_equal(gradient, np.zeros(boxes.shape))

    def test_unknown_sizes_equal_eager(self):
        rng = np.random.default_rng(17)
        settings = {"output_size": OUTPUT, "stride": STRIDE}
        compiled = tf.function(
            lambda features, boxes: roi_align3d(features, boxes, **settings),
            input_signature=[FEATURES, BOXES],
        )
        for batch, num, shape in [(2, 4, SHAPE), (1, 0, SHAPE), (3, 1, (4, 2, 3))]:
            features = random_features(rng, batch, shape)
            boxes = random_rois(rng, batch, num, np.multiply(shape, STRIDE))
            result = compiled(features, boxes)
            assert result.shape == (batch, num, *OUTPUT, 3)
            np.testing.assert_allclose(result, roi_align3d(features, boxes, **settings), atol=1e-5)

    def test_long_rois_in_one_axis_each_equal_reference(self):
        # Their windows list the cells of the samples, not all cells in between.
        rng = np.random.default_rng(18)
        features = random_features(rng, batch=1, shape=(40, 37, 43), channels=1)
        boxes = np.array([[[3, 3, 3, 5, 6, 7]] * 4], np.float32)
        for axis, length in enumerate(features.shape[1:4]):
            boxes[0, axis, axis], boxes[0, axis, axis + 3] = 0.4, length - 0.3
        sizes = {"output_size": (2, 1, 3), "stride": (1, 1, 1)}
        np.testing.assert_allclose(
            roi_align3d(features, boxes, **sizes), reference.roi_align3d(features, boxes, **sizes), atol=2e-5
        )

    @pytest.mark.parametrize("chunk_bytes", [1, 20_000])
    def test_many_chunks_equal_rois_one_by_one(self, monkeypatch, chunk_bytes):
        rng = np.random.default_rng(19)
        features, boxes = tf.constant(random_features(rng)), random_rois(rng, num=40)
        boxes[:, 5], boxes[1, 7] = 0, np.nan
        upstream = tf.constant(rng.normal(size=(2, 40, *OUTPUT, 3)), tf.float32)

        def run(boxes, upstream):
            with tf.GradientTape() as tape:
                tape.watch(features)
                result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
            return result, tape.gradient(result, features, upstream)

        ones = [run(boxes[:, i : i + 1], upstream[:, i : i + 1]) for i in range(40)]
        monkeypatch.setattr(roi_windows, "CHUNK_BYTES", chunk_bytes)
        result, gradient = tf.function(run)(boxes, upstream)
        np.testing.assert_allclose(result, tf.concat([one for one, _ in ones], axis=1), atol=1e-5)
        np.testing.assert_allclose(gradient, tf.add_n([one for _, one in ones]), atol=1e-4)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6, -1e6, 3e38, -3e38])
    def test_odd_coordinates_leave_other_rois_alone(self, value):
        rng = np.random.default_rng(20)
        features, boxes = tf.constant(random_features(rng)), random_rois(rng, num=13)
        boxes[0, np.arange(6), np.arange(6)] = value
        boxes[1, 3] = value
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
        assert np.all(np.isfinite(result))
        assert np.all(np.isfinite(tape.gradient(result, features)))
        if not np.isfinite(value):
            np.testing.assert_array_equal(result[0, :6], np.zeros((6, *OUTPUT, 3)))
        np.testing.assert_allclose(
            result[:, 6:],
            reference.roi_align3d(features.numpy(), boxes[:, 6:], output_size=OUTPUT, stride=STRIDE),
            atol=2e-5,
        )

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(
        st.lists(
            st.tuples(
                *[st.integers(-80, 240).map(lambda n: n / 4)] * 3, *[st.sampled_from([0, 0.5, 1, 3, 44, 1e6])] * 3
            ),
            min_size=3,
            max_size=3,
        )
    )
    def test_any_boxes_equal_reference(self, drawn):
        corners = np.array(drawn, np.float32)
        boxes = np.concatenate([corners[:, :3], corners[:, :3] + corners[:, 3:]], axis=-1)[np.newaxis]
        features = random_features(np.random.default_rng(21), batch=1, channels=1)
        sizes = {"output_size": (1, 2, 3), "stride": STRIDE, "sampling_ratio": 1}
        expected = reference.roi_align3d(features, boxes, **sizes)
        result = roi_align3d(features, boxes, **sizes)
        # A sample within rounding of where clamping ends may fall on either side.
        lo, hi = boxes[..., :3] / STRIDE, boxes[..., 3:] / STRIDE
        steps = [(np.arange(n) + 0.5) / n for n in (1, 2, 3)]
        samples = [lo[..., a, None] + (hi - lo)[..., a, None] * steps[a] for a in range(3)]
        borders = [
            np.minimum(np.abs(s + 0.5), np.abs(s - n - 0.5)).min(axis=-1) for s, n in zip(samples, SHAPE, strict=True)
        ]
        clear = np.min(borders, axis=0) > 1e-3
        np.testing.assert_allclose(result.numpy()[clear], expected[clear], atol=1e-3)

    def test_half_precision_features(self):
        rng = np.random.default_rng(22)
        features, boxes = random_features(rng), random_rois(rng)
        half = tf.constant(features, tf.float16)
        with tf.GradientTape() as tape:
            tape.watch(half)
            result = roi_align3d(half, boxes, output_size=OUTPUT, stride=STRIDE)
        assert result.dtype == tape.gradient(result, half).dtype == tf.float16
        expected = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
        np.testing.assert_allclose(result, expected, atol=1e-2)

    def test_gradient_of_a_loss_on_some_rois(self):
        rng = np.random.default_rng(23)
        features, boxes = tf.constant(random_features(rng, batch=1)), random_rois(rng, batch=1)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(features)
            result = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
            some = tf.reduce_sum(tf.gather(result, [2, 0], axis=1))
            alone = tf.reduce_sum(roi_align3d(features, boxes[:, [2, 0]], output_size=OUTPUT, stride=STRIDE))
        np.testing.assert_allclose(tape.gradient(some, features), tape.gradient(alone, features), atol=1e-5)

    def test_replicas_equal_one_device(self):
        script = """
            import numpy as np
            import tensorflow as tf
            from ops.roi_align3d import roi_align3d
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
            strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
            rng = np.random.default_rng(24)
            features = rng.normal(size=(4, 5, 7, 11, 3)).astype("f")
            lo = rng.uniform(0, 3, (4, 9, 3))
            boxes = np.concatenate([lo, lo + rng.uniform(0, 8, (4, 9, 3))], axis=-1).astype("f")

            def run(features, boxes):
                with tf.GradientTape() as tape:
                    tape.watch(features)
                    result = roi_align3d(features, boxes, output_size=(2, 3, 4), stride=(1, 2, 1))
                return result, tape.gradient(result, features)

            batches = tf.data.Dataset.from_tensor_slices((features, boxes)).batch(4)
            batch = next(iter(strategy.experimental_distribute_dataset(batches)))
            parts = tf.function(lambda batch: strategy.run(run, batch))(batch)
            for part, expected in zip(parts, run(tf.constant(features), boxes)):
                values = strategy.experimental_local_results(part)
                assert len(values) == 2
                np.testing.assert_allclose(tf.concat(values, axis=0), expected, atol=1e-5)
            print("equal")
        """
        assert run_alone(script) == "equal"

    def test_saved_and_loaded(self, tmp_path):
        rng = np.random.default_rng(25)
        module = tf.Module()
        module.run = tf.function(
            lambda features, boxes: roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE),
            input_signature=[FEATURES, BOXES],
        )
        tf.saved_model.save(module, str(tmp_path))
        features, boxes = random_features(rng), random_rois(rng)
        expected = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
        loaded = tf.saved_model.load(str(tmp_path))
        np.testing.assert_allclose(loaded.run(features, boxes), expected, atol=1e-5)

    def test_thin_rois_of_a_large_grid_take_little_memory(self):
        # 90 windows as long as the longest one along each axis would take 90 * 56^3 cells of 64 bytes, a gigabyte.
        script = """
            import resource
            import numpy as np
            from ops.roi_align3d import roi_align3d
            features = np.ones((1, 100, 100, 100, 16), np.float32)
            boxes = np.tile(np.float32([40, 40, 40, 42, 42, 42]), (1, 90, 1))
            for axis in range(3):
                boxes[0, axis::3, axis], boxes[0, axis::3, axis + 3] = 0, 100
            roi_align3d(features[:, :8, :8, :8], boxes[:, :3], output_size=50, stride=1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = roi_align3d(features, boxes, output_size=(14, 14, 14), stride=1)
            np.testing.assert_allclose(result, 1, rtol=1e-5)
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """
        assert int(run_alone(script)) < 400  # MB

    @pytest.mark.parametrize(
        ("features", "boxes", "changes", "words"),
        [
            ((2, 5, 7, 11), (2, 4, 6), {}, r"expected finest \[B, Z, Y, X, C\], features \[B, z, y, x, C\]"),
            ((2, 5, 7, 11, 3), (4, 6), {}, r"boxes \[B, R, 6\]; came .*boxes \[4, 6\]"),
            ((2, 5, 7, 11, 3), (2, 4, 7), {}, r"boxes \[2, 4, 7\]"),
            ((2, 5, 7, 11, 3), (3, 4, 6), {}, r"boxes \[3, 4, 6\]"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"output_size": 0}, "expected output_size as one number above 0"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"output_size": (2, 3)}, "expected output_size as one number above 0"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"stride": (1, -2, 4)}, "expected stride as one number above 0"),
            ((2, 5, 7, 11, 3), (2, 4, 6), {"sampling_ratio": 0}, "expected sampling_ratio above 0, came 0"),
        ],
    )
    def test_wrong_arguments_raise(self, features, boxes, changes, words):
        arguments = {"output_size": OUTPUT, "stride": STRIDE, **changes}
        with pytest.raises(ValueError, match=words):
            roi_align3d(tf.zeros(features), tf.zeros(boxes), **arguments)


LEVELS = {
    "strides": [(2, 4, 4), (4, 8, 8), (8, 16, 16)],
    "canonical_size": (16, 32, 32),
    "canonical_level": 1,
}


def sized_boxes(*sizes):
    """Boxes [N, 6] of the given sizes, off the origin."""
    lo = np.tile([3.0, 5.0, 7.0], (len(sizes), 1))
    return np.concatenate([lo, lo + sizes], axis=-1).astype(np.float32)


def level_features(rng, batch=2, channels=3):
    """Feature maps of a 40 x 56 x 88 volume at the strides of LEVELS."""
    return [random_features(rng, batch, n, channels) for n in [(20, 14, 22), (10, 7, 11), (5, 4, 6)]]


class MultilevelRoiAlign3dTest:
    def test_every_roi_comes_from_its_level(self):
        rng = np.random.default_rng(1)
        features = level_features(rng)
        boxes = random_rois(rng, 2, 15, (40, 56, 88))
        boxes[:, 3] = [0, 0, 0, 40, 56, 88]
        boxes[:, 7] = 0
        levels = roi_levels(boxes, num_levels=3, **LEVELS).numpy()
        assert len(np.unique(levels)) == 3
        result = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS)
        assert result.shape == (2, 15, *OUTPUT, 3)
        for level, (maps, stride) in enumerate(zip(features, LEVELS["strides"], strict=True)):
            single = roi_align3d(maps, boxes, output_size=OUTPUT, stride=stride)
            here = levels == level
            np.testing.assert_allclose(result.numpy()[here], single.numpy()[here], atol=1e-5)
        np.testing.assert_array_equal(result[:, 7], np.zeros((2, *OUTPUT, 3)))

    def test_level_without_cells_gives_zeros_and_leaves_the_others_alone(self):
        rng = np.random.default_rng(9)
        features, boxes = level_features(rng), random_rois(rng, 2, 15, (40, 56, 88))
        is_of_middle = roi_levels(boxes, num_levels=3, **LEVELS).numpy() == 1
        assert 0 < is_of_middle.sum() < is_of_middle.size
        whole = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS).numpy()
        features[1] = features[1][:, :, :0]
        result = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS)
        np.testing.assert_array_equal(result, np.where(is_of_middle[..., None, None, None, None], 0, whole))

    def test_gradient_reaches_only_the_level_of_the_roi(self):
        features = [tf.constant(f) for f in level_features(np.random.default_rng(2), batch=1)]
        boxes = sized_boxes((17, 34, 34))[None]
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS)
            loss = tf.reduce_sum(result)
        gradients = tape.gradient(loss, features, unconnected_gradients="zero")
        sums = [float(tf.reduce_sum(tf.convert_to_tensor(gradient))) for gradient in gradients]
        # Every bin is a mean of cells with weights that sum to one: 24 bins, 3 channels.
        np.testing.assert_allclose(sums, [0, 72, 0], atol=1e-3)

    @pytest.mark.parametrize("num", [0, 3])
    def test_nothing_there_is_zero_with_zero_gradient(self, num):
        features = [tf.constant(f) for f in level_features(np.random.default_rng(3))]
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = multilevel_roi_align3d(features, tf.zeros([2, num, 6]), output_size=OUTPUT, **LEVELS)
            loss = tf.reduce_sum(result)
        np.testing.assert_array_equal(result, np.zeros((2, num, *OUTPUT, 3)))
        for gradient in tape.gradient(loss, features, unconnected_gradients="zero"):
            gradient = tf.convert_to_tensor(gradient)
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))

    def test_single_level_is_roi_align(self):
        rng = np.random.default_rng(4)
        features, boxes = random_features(rng), random_rois(rng)
        result = multilevel_roi_align3d(
            [features],
            boxes,
            strides=[STRIDE],
            output_size=OUTPUT,
            canonical_size=(16, 16, 16),
            canonical_level=0,
        )
        expected = roi_align3d(features, boxes, output_size=OUTPUT, stride=STRIDE)
        np.testing.assert_allclose(result, expected, atol=1e-5)

    def test_unknown_sizes_equal_eager(self):
        rng = np.random.default_rng(5)
        compiled = tf.function(
            lambda a, b, c, boxes: multilevel_roi_align3d([a, b, c], boxes, output_size=OUTPUT, **LEVELS),
            input_signature=[FEATURES] * 3 + [BOXES],
        )
        for batch, num in [(2, 6), (1, 0), (3, 1)]:
            features = level_features(rng, batch)
            boxes = random_rois(rng, batch, num, (40, 56, 88))
            expected = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS)
            np.testing.assert_allclose(compiled(*features, boxes), expected, atol=1e-5)

    def test_gradients_of_all_levels_are_the_transpose_of_the_forward_pass(self):
        rng = np.random.default_rng(6)
        features = [tf.constant(f) for f in level_features(rng)]
        boxes = random_rois(rng, 2, 12, (40, 56, 88))
        boxes[:, 3] = [0, 0, 0, 40, 56, 88]
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = multilevel_roi_align3d(features, boxes, output_size=OUTPUT, **LEVELS)
            loss = tf.reduce_sum(rng.normal(size=result.shape).astype(np.float32) * result)
        gradients = tape.gradient(loss, features)
        assert all(np.any(gradient != 0) for gradient in gradients)
        inner = tf.add_n([tf.reduce_sum(g * f) for g, f in zip(gradients, features, strict=True)])
        np.testing.assert_allclose(inner, loss, rtol=1e-3)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"strides": LEVELS["strides"][:2]}, "expected one stride for each of 3 levels, came 2"),
            ({"canonical_level": 3}, r"expected canonical_level in \[0, 2\], came 3"),
            ({"canonical_size": (16, 0, 32)}, "expected canonical_size as one number above 0"),
        ],
    )
    def test_wrong_levels_raise(self, changes, words):
        features = level_features(np.random.default_rng(7))
        with pytest.raises(ValueError, match=words):
            multilevel_roi_align3d(features, np.zeros((2, 1, 6)), output_size=OUTPUT, **{**LEVELS, **changes})

    def test_levels_that_do_not_belong_together_raise(self):
        features = level_features(np.random.default_rng(8))
        with pytest.raises(ValueError, match=r"came finest \[2, 20, 14, 22, 3\], features \[2, 5, 4, 6, 2\]"):
            multilevel_roi_align3d(
                [*features[:2], features[2][..., :2]], np.zeros((2, 1, 6)), output_size=OUTPUT, **LEVELS
            )
        with pytest.raises(ValueError, match="expected the features of at least one level, came none"):
            multilevel_roi_align3d([], np.zeros((2, 1, 6)), output_size=OUTPUT, **LEVELS)
