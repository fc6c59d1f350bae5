import numpy as np
import pytest

from planning import histograms


class HistogramTest:
    def test_by_hand(self):
        found = histograms.histogram([0, 1, 1, 2, 10], 5)
        assert found.edges.tolist() == [0, 2, 4, 6, 8, 10]
        assert found.counts.tolist() == [3, 1, 0, 0, 1]
        assert found.count == 5
        assert found.mean == pytest.approx(2.8)
        assert found.variance == pytest.approx((2.8**2 + 2 * 1.8**2 + 0.8**2 + 7.2**2) / 5)
        assert found.mode == (0, 2)
        assert found.mode_share == 0.6

    def test_the_lowest_of_two_modes(self):
        found = histograms.histogram([1, 1, 5, 9, 9], 2)
        assert found.mode == (5, 9)  # three of five; 5 is the edge and belongs above
        assert histograms.histogram([1, 1, 9, 9], 2).mode == (1, 5)

    def test_nothing_there(self):
        found = histograms.histogram([], 10)
        assert (found.count, found.mode_share, len(found.edges)) == (0, 0.0, 0)
        assert np.isnan([found.mean, found.variance]).all()


class PerClassTest:
    def test_measures_of_each_class_at_every_bin_count(self):
        sizes, class_ids = np.float32([[2, 4, 8], [2, 4, 8], [3, 3, 6]]), np.array([1, 1, 3])
        found = histograms.per_class(("a", "b", "c"), class_ids, sizes, (3, 7))
        assert list(found) == ["a", "b", "c"]
        means = {name: by_bins[3].mean for name, by_bins in found["a"].items()}
        assert means == pytest.approx(
            {"z": 2, "y": 4, "x": 8, "mean edge": 4, "z / y": 0.5, "y / x": 0.5, "z / x": 0.25}
        )
        assert found["b"]["z"][7].count == 0
        assert len(found["c"]["y / x"][7].counts) == 7
        assert found["c"]["y / x"][3].mean == 0.5
