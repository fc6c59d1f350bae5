import numpy as np
import pytest

from data import statistics


class StatisticsTest:
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
    @pytest.mark.parametrize("channels", [(), (1,), (3,)])
    def test_equal_numpy(self, dtype, channels):
        array = (np.random.default_rng(0).normal(100, 30, (5, 7, 11, *channels))).astype(dtype)
        found = statistics.of_array(array)
        voxels = array.reshape(-1, *(channels or (1,))).astype(np.float64)
        expected = [voxels.mean(0), voxels.std(0), voxels.min(0), voxels.max(0)]
        expected += list(np.percentile(voxels, [0.5, 5, 50, 95, 99.5], axis=0))
        assert found.dtype == np.float32
        assert found.shape == (*(channels or (1,)), len(statistics.NAMES))
        np.testing.assert_allclose(found[:, :-1], np.stack(expected, 1), rtol=1e-6)
        np.testing.assert_array_equal(found[:, -1], 0)

    def test_a_far_mean_keeps_the_deviation(self):
        array = np.float32(1e6) + np.arange(60, dtype=np.float32).reshape(3, 4, 5)
        assert statistics.of_array(array)[0, 1] == pytest.approx(np.arange(60).std(), rel=1e-6)

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_slabs_give_what_the_whole_gives(self, depth, monkeypatch):
        monkeypatch.setattr(statistics, "MAX_SAMPLE", 100)  # 385 voxels: every fourth
        array = np.random.default_rng(1).normal(size=(5, 7, 11))
        found = statistics.Statistics(array.shape)
        for z in range(0, 5, depth):
            found.add(array[z : z + depth])
        np.testing.assert_allclose(found.result(), statistics.of_array(array), rtol=1e-6)
        expected = np.percentile(array.reshape(-1)[::4], [0.5, 5, 50, 95, 99.5])
        np.testing.assert_allclose(found.result()[0, 4:9], expected, rtol=1e-6)

    def test_a_constant_volume(self):
        found = statistics.of_array(np.full((2, 3, 4), 7, np.uint8))
        np.testing.assert_array_equal(found, [[7, 0, 7, 7, 7, 7, 7, 7, 7, 0]])
