import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data import intensity, statistics

SHAPE = (5, 7, 11, 2)


def settings(kind, **changes):
    return schema.Input(normalization=kind, channels=2, **changes)


class NormalizeTest:
    def volume(self):
        rng = np.random.default_rng(0)
        return (rng.normal(size=SHAPE) * [3.0, 4000.0] + [-7.0, 90000.0]).astype(np.float32)

    def test_zscore_is_per_channel(self):
        volume = self.volume()
        expected = (volume - volume.mean((0, 1, 2), np.float64)) / volume.std((0, 1, 2), np.float64)
        np.testing.assert_allclose(intensity.normalize(tf.constant(volume), settings("zscore")), expected, atol=2e-5)

    def test_minmax_is_per_channel(self):
        found = intensity.normalize(tf.constant(self.volume()), settings("minmax")).numpy()
        np.testing.assert_allclose(found.min((0, 1, 2)), [0.0, 0.0])
        np.testing.assert_allclose(found.max((0, 1, 2)), [1.0, 1.0])
        volume = self.volume().astype(np.float64)
        expected = (volume - volume.min((0, 1, 2))) / (volume.max((0, 1, 2)) - volume.min((0, 1, 2)))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_none_changes_nothing(self):
        np.testing.assert_array_equal(intensity.normalize(tf.constant(self.volume()), settings("none")), self.volume())

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    @pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 12345.678, 1e-20, 1e30])
    def test_constant_volume_becomes_zero(self, kind, value):
        volume = tf.fill([31, 37, 41, 1], tf.constant(value, tf.float32))
        np.testing.assert_array_equal(intensity.normalize(volume, settings(kind)), np.zeros([31, 37, 41, 1]))

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    def test_one_voxel(self, kind):
        np.testing.assert_array_equal(intensity.normalize(tf.fill([1, 1, 1, 1], 5.0), settings(kind)), [[[[0.0]]]])

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    def test_unit_and_offset_do_not_matter(self, kind):
        volume = self.volume()
        found = intensity.normalize(tf.constant(volume * 1e3 - 500), settings(kind))
        np.testing.assert_allclose(found, intensity.normalize(tf.constant(volume), settings(kind)), atol=1e-4)

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile", "window", "none"])
    def test_eager_equals_function_of_unknown_shape(self, kind):
        signature = [tf.TensorSpec([None, None, None, None], tf.float32)]
        compiled = tf.function(lambda v: intensity.normalize(v, settings(kind)), input_signature=signature)
        expected = intensity.normalize(tf.constant(self.volume()), settings(kind))
        np.testing.assert_allclose(compiled(self.volume()), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile", "window", "dataset", "none"])
    def test_channels_that_are_known_stay_known(self, kind):
        numbers = {"intensity_mean": (0.0, 1.0), "intensity_std": (1.0, 2.0)} if kind == "dataset" else {}
        signature = [tf.TensorSpec([None, None, None, 2], tf.float32)]
        normal = tf.function(lambda v: intensity.normalize(v, settings(kind, **numbers)), input_signature=signature)
        assert normal.get_concrete_function().output_shapes.as_list() == [None, None, None, 2]

    def test_unknown_kind(self):
        with pytest.raises(
            ValueError, match="must be one of zscore, minmax, percentile, window, dataset, none, got 'robust'"
        ):
            intensity.normalize(tf.zeros([1, 1, 1, 1]), settings("robust"))

    def test_percentiles_are_per_channel_and_cut_off(self):
        volume = self.volume()
        low, high = np.percentile(volume.astype(np.float64), [0.5, 99.5], axis=(0, 1, 2))
        expected = np.clip((volume - low) / (high - low), 0, 1)
        found = intensity.normalize(tf.constant(volume), settings("percentile")).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (found == 0).sum() >= 2 * 2
        assert (found == 1).sum() >= 2 * 2

    def test_window_by_hand(self):
        volume = tf.constant([-500.0, -160.0, -60.0, 40.0, 240.0, 3000.0], shape=(1, 2, 3, 1))
        found = intensity.normalize(volume, settings("window", window=(-160, 240)))
        np.testing.assert_allclose(found[0, ..., 0], [[0, 0, 0.25], [0.5, 1, 1]])

    def test_dataset_by_hand(self):
        volume = tf.constant([[1.0, 5.0], [3.0, 5.0]], shape=(1, 1, 2, 2))
        config = settings("dataset", intensity_mean=(2.0, 4.0), intensity_std=(0.5, 0.0))
        np.testing.assert_allclose(intensity.normalize(volume, config)[0, 0], [[-2, 0], [2, 0]])
        with pytest.raises(ValueError, match=r"needs input.intensity_mean and intensity_std, got none"):
            intensity.normalize(volume, settings("dataset"))
        with pytest.raises(ValueError, match=r"needs input.intensity_mean and intensity_std, got none"):
            intensity.common_scale(settings("dataset"))

    @pytest.mark.parametrize("kind", ["window", "dataset", "none"])
    def test_common_scale_undoes_what_is_the_same_for_all_volumes(self, kind):
        numbers = {"intensity_mean": (100.0, -3.0), "intensity_std": (20.0, 7.0)} if kind == "dataset" else {}
        config = settings(kind, window=(-1e5, 2e5), **numbers)
        volume = self.volume()
        gains, offsets = intensity.common_scale(config)
        normal = intensity.normalize(tf.constant(volume), config)
        np.testing.assert_allclose(np.multiply(normal, gains) + offsets, volume, atol=0.1)
        assert len(gains) == len(offsets) == volume.shape[-1] == 2

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    def test_no_common_scale_where_every_volume_has_its_own(self, kind):
        assert intensity.common_scale(settings(kind)) is None

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    def test_a_part_with_the_statistics_of_its_case_is_a_part_of_the_normalised_case(self, kind):
        volume = self.volume()
        given = tf.constant(statistics.of_array(volume))
        part = intensity.normalize(tf.constant(volume[1:4, 2:, 3:9]), settings(kind), given)
        whole = intensity.normalize(tf.constant(volume), settings(kind))
        np.testing.assert_allclose(part, whole[1:4, 2:, 3:9], atol=2e-5)

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "percentile"])
    @pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 12345.678, 1e-20, 1e30])
    def test_constant_volume_becomes_zero_by_given_statistics_too(self, kind, value):
        volume = np.full([31, 37, 41, 1], value, np.float32)
        given = tf.constant(statistics.of_array(volume))
        np.testing.assert_array_equal(intensity.normalize(tf.constant(volume), settings(kind), given), volume * 0)

    def test_a_sample_of_a_large_volume_as_in_its_record(self, monkeypatch):
        monkeypatch.setattr(statistics, "MAX_SAMPLE", 60)
        volume = self.volume()
        given = tf.constant(statistics.of_array(volume))
        ours = intensity.normalize(tf.constant(volume), settings("percentile"))
        theirs = intensity.normalize(tf.constant(volume), settings("percentile"), given)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
