import h5py
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.training.inflate_cases import SIZE, make, save_flat
from tests.training.weights_test import assert_complete, values
from training import inflate, weights

STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture(name="flat", scope="module")
def fixture_flat(tmp_path_factory):
    return save_flat(tmp_path_factory.mktemp("flat"))


def features_2d(flat, volume):
    """[1, Z, Y, X, 3] -> {level: [1, Z, y, x, C]}, slice by slice."""
    return {level: x[tf.newaxis].numpy() for level, x in enumerate(flat[0](volume[0], training=False), start=2)}


def assert_near(ours, theirs):
    """Within 1e-4 of the largest feature."""
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours / np.abs(theirs).max(), theirs / np.abs(theirs).max(), atol=1e-4)


def volume_of(depth, seed=2):
    return np.random.default_rng(seed).standard_normal((1, depth, *SIZE, 3)).astype(np.float32)


class InflateKernelTest:
    KERNEL = np.arange(2 * 3 * 2 * 1, dtype=np.float32).reshape(2, 3, 2, 1)

    @pytest.mark.parametrize(("depth", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
    def test_centre(self, depth, middle):
        inflated = inflate.inflate_kernel(self.KERNEL, depth, "centre")
        assert inflated.shape == (depth, 2, 3, 2, 1)
        np.testing.assert_array_equal(inflated[middle], self.KERNEL)
        assert np.count_nonzero(inflated) == np.count_nonzero(self.KERNEL)

    @pytest.mark.parametrize("depth", [1, 2, 3, 7])
    def test_repeat(self, depth):
        inflated = inflate.inflate_kernel(self.KERNEL, depth, "repeat")
        np.testing.assert_allclose(inflated, np.stack([self.KERNEL / depth] * depth), rtol=1e-6)
        assert inflated.dtype == np.float32


class AdaptChannelsTest:
    KERNEL = np.array([[[[1.0], [2.0], [6.0]]]], np.float32)  # [1, 1, 3, 1]

    @pytest.mark.parametrize(
        ("channels", "expected"), [(1, [9.0]), (2, [4.5, 4.5]), (3, [1.0, 2.0, 6.0]), (4, [2.25] * 4)]
    )
    def test_table(self, channels, expected):
        adapted = inflate.adapt_channels(self.KERNEL, channels)
        np.testing.assert_allclose(adapted[0, 0, :, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(adapted.sum(), 9.0, rtol=1e-6)  # equal channels give the same answer


class FeaturesTest:
    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
    @pytest.mark.parametrize("full", [False, True])
    def test_centre_gives_every_slice_the_features_of_the_image(self, flat, tmp_path, full):
        path = flat[1]
        if full:  # the network with its optimizer instead of the weights alone
            whole = tf.keras.Model(flat[0].input, flat[0].outputs[:1])
            whole.compile("adam", "mse")
            whole.optimizer.build(whole.trainable_variables)
            path = tmp_path / "whole.hdf5"
            whole.save(path, save_format="h5")
            with h5py.File(path) as file:
                assert len(file["optimizer_weights"]) > 0
        stages = 1 if full else 4
        model = make(stages)
        report = weights.load(path, model, inflate="centre")
        assert_complete(report, model)
        assert len(report.loaded) == len(model.variables)
        assert report.notes == report.partly == report.missing == report.skipped == []
        volume = volume_of(3)
        ours, theirs = model(volume), features_2d(flat, volume)
        for level in range(2, 2 + stages):
            assert_near(ours[level].numpy(), theirs[level])

    @pytest.mark.parametrize("norm", ["batch", "sync_batch"])
    def test_the_moving_statistics_of_a_trained_normalisation(self, flat, norm):
        model = make(norm=norm)
        weights.load(flat[1], model, inflate="centre")
        volume = volume_of(2)
        assert_near(model(volume, training=False)[2].numpy(), features_2d(flat, volume)[2])

    def test_centre_with_strides_along_z_reads_the_slices_of_the_stride(self, flat):
        model = make(2, z_stride=2, stem_pool=(1, 2, 2), z_kernel=5)
        weights.load(flat[1], model, inflate="centre")
        volume = volume_of(9)
        assert_near(model(volume)[3].numpy(), features_2d(flat, volume)[3][:, ::4])

    def test_repeat_gives_a_volume_that_is_constant_along_z_the_features_of_the_image(self, flat):
        model = make()
        weights.load(flat[1], model, inflate="repeat")
        volume = np.repeat(volume_of(1), 17, axis=1)
        ours, theirs = model(volume)[2].numpy(), features_2d(flat, volume)[2]
        # Padding reaches 3 slices through the stem and 1 through each of three blocks.
        assert_near(ours[:, 6:-6], theirs[:, 6:-6])
        assert np.abs(ours[:, 0] - theirs[:, 0]).max() > 0.01 * np.abs(theirs).max()

    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_equal_channels_give_what_a_grey_image_gives(self, flat, channels):
        model = make(channels=channels)
        report = weights.load(flat[1], model, inflate="centre")
        times = {
            1: "the kernels of red, green and blue are added for the one channel",
            2: "each of the 2 channels reads the mean kernel of red, green and blue, times 3 / 2",
            5: "each of the 5 channels reads the mean kernel of red, green and blue, times 3 / 5",
        }
        assert report.notes == [f"stem: {times[channels]}"]
        grey = volume_of(2)[..., :1]
        ours = model(np.repeat(grey, channels, axis=-1))[2].numpy()
        assert_near(ours, features_2d(flat, np.repeat(grey, 3, axis=-1))[2])


class ReportTest:
    @pytest.mark.parametrize("norm", ["group", "instance", "none"])
    def test_without_batch_norm_the_kernels_alone(self, flat, norm):
        model = make(norm=norm)
        before = values(model)
        report = weights.load(flat[1], model, inflate="centre")
        assert_complete(report, model)
        assert report.loaded == [name for name in before if name.endswith("kernel")]
        skipped = dict(report.skipped)
        reason = "the model has no batch normalisation there"
        for name in (*(f"conv1_bn/{s}" for s in STATISTICS), "conv1_conv/bias", "conv2_block3_2_bn/gamma"):
            assert skipped[name] == reason
        assert {reason for _, reason in report.missing} == {"nothing in the file matches"}
        for name, value in values(model).items():
            assert np.array_equal(value, before[name]) == (name not in report.loaded)

    def test_nothing_in_the_file_is_lost(self, flat):
        """Every entry of the file is used or in the report."""
        model = make()
        report = weights.load(flat[1], model, inflate="centre")
        with h5py.File(flat[1]) as file:
            layers = inflate._layers(file)
        names = {f"{layer}/{weight}" for layer, entries in layers.items() for weight in entries}
        assert len(names) == 318
        skipped = [name for name, _ in report.skipped]
        assert len(set(skipped)) == len(skipped)
        used = names - set(skipped)
        assert set(skipped) < names
        # Stem, three blocks of three convolutions and one projection, with a bias of each and four statistics.
        assert len(used) == (1 + 3 * 3 + 1) * 6
        assert {name.split("_")[0] for name in used} == {"conv1", "conv2"}
        assert ("conv3_block1_0_conv/kernel", "the model has no stages/1/0/projection/conv/kernel") in report.skipped

    def test_kernels_of_another_size(self, flat):
        model = make(stem_kernel=(5, 5, 5))
        report = weights.load(flat[1], model, inflate="centre")
        assert_complete(report, model)
        reason = "kernel [7, 7, 3, 64] in the file, [5, 5, 5, 3, 64] in the model"
        assert ("stem/conv/kernel", reason) in report.missing
        assert [(f"conv1_bn/{s}", reason) in report.skipped for s in STATISTICS] == [True] * 4
        assert "stages/0/0/first/conv/kernel" in report.loaded

    def test_basic_blocks_take_the_stem_alone(self, flat):
        model = make(block="basic", stage_channels=(64,))
        report = weights.load(flat[1], model, inflate="centre")
        assert_complete(report, model)
        assert {name.split("/")[0] for name in report.loaded} == {"stem"}
        reason = "stages/0/0 of the model is no bottleneck block"
        assert ("conv2_block1_2_conv/kernel", reason) in report.skipped

    def test_grouped_convolutions(self, flat):
        model = make(cardinality=32, bottleneck_ratio=2)
        report = weights.load(flat[1], model, inflate="centre")
        assert_complete(report, model)
        reason = "kernel [3, 3, 64, 64] in the file, [3, 3, 3, 4, 128] in the model"
        assert ("stages/0/0/second/conv/kernel", reason) in report.missing

    def test_blocks_that_stride_elsewhere(self, flat):
        report = weights.load(flat[1], make(2, in_pointwise=False), inflate="centre")
        assert [note.split(":")[-1] for note in report.notes] == [" what they compute differs"]

    def test_backbone_of_a_whole_network(self, flat):
        settings = tiny.config()
        section = settings.model.backbone
        section.block, section.stem_channels, section.stem_kernel = "bottleneck", 64, (3, 7, 7)
        section.stage_channels, section.stage_blocks = (256, 512), (1, 1)
        settings.model.style.norm = "batch"
        model = tiny.model(settings.validate())
        report = weights.load(flat[1], model, inflate="repeat", classes=tiny.CLASSES)
        assert_complete(report, model)
        assert report.loaded == [name for name in values(model) if name.startswith("backbone/")]
        with h5py.File(flat[1]) as file:
            kernel = file["conv1_conv/conv1_conv/kernel:0"][()]
        ours = values(model)["backbone/stem/conv/kernel"]
        np.testing.assert_allclose(ours[1, :, :, 0], kernel.sum(axis=2) / 3, rtol=1e-5, atol=1e-6)
