import numpy as np
import pytest
import tensorflow as tf

from data import intensity

SHAPE = (5, 7, 11, 2)


class NormalizeTest:
    def volume(self):
        rng = np.random.default_rng(0)
        return (rng.normal(size=SHAPE) * [3.0, 4000.0] + [-7.0, 90000.0]).astype(np.float32)

    def test_zscore_is_per_channel(self):
        volume = self.volume()
        expected = (volume - volume.mean((0, 1, 2), np.float64)) / volume.std((0, 1, 2), np.float64)
        np.testing.assert_allclose(intensity.normalize(tf.constant(volume), "zscore"), expected, atol=2e-5)

    def test_minmax_is_per_channel(self):
        found = intensity.normalize(tf.constant(self.volume()), "minmax").numpy()
        np.testing.assert_allclose(found.min((0, 1, 2)), [0.0, 0.0])
        np.testing.assert_allclose(found.max((0, 1, 2)), [1.0, 1.0])
        volume = self.volume().astype(np.float64)
        expected = (volume - volume.min((0, 1, 2))) / (volume.max((0, 1, 2)) - volume.min((0, 1, 2)))
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_none_changes_nothing(self):
        np.testing.assert_array_equal(intensity.normalize(tf.constant(self.volume()), "none"), self.volume())

    @pytest.mark.parametrize("kind", ["zscore", "minmax"])
    @pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 12345.678, 1e-20, 1e30])
    def test_constant_volume_becomes_zero(self, kind, value):
        volume = tf.fill([31, 37, 41, 1], tf.constant(value, tf.float32))
        np.testing.assert_array_equal(intensity.normalize(volume, kind), np.zeros([31, 37, 41, 1]))

    @pytest.mark.parametrize("kind", ["zscore", "minmax"])
    def test_one_voxel(self, kind):
        np.testing.assert_array_equal(intensity.normalize(tf.fill([1, 1, 1, 1], 5.0), kind), [[[[0.0]]]])

    @pytest.mark.parametrize("kind", ["zscore", "minmax"])
    def test_unit_and_offset_do_not_matter(self, kind):
        volume = self.volume()
        found = intensity.normalize(tf.constant(volume * 1e3 - 500), kind)
        np.testing.assert_allclose(found, intensity.normalize(tf.constant(volume), kind), atol=1e-4)

    @pytest.mark.parametrize("kind", ["zscore", "minmax", "none"])
    def test_eager_equals_function_of_unknown_shape(self, kind):
        signature = [tf.TensorSpec([None, None, None, None], tf.float32)]
        compiled = tf.function(lambda v: intensity.normalize(v, kind), input_signature=signature)
        expected = intensity.normalize(tf.constant(self.volume()), kind)
        np.testing.assert_allclose(compiled(self.volume()), expected, atol=1e-6)

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="must be one of zscore, minmax, none, got 'robust'"):
            intensity.normalize(tf.zeros([1, 1, 1, 1]), "robust")
