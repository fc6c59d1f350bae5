import numpy as np
import pytest

from configs.train_schema import Schedule
from training import progress


def follow(values, schedule):
    """What a run has come to after evaluations at steps 10, 20, ... : whether each was the best, and its state."""
    told = progress.Progress()
    best = [told.evaluated(10 * number, value, schedule) for number, value in enumerate(values, start=1)]
    return best, told


class BeginStageTest:
    def test_forgets_how_long_it_has_waited_but_not_the_best(self):
        _, told = follow([0.5] * 4, Schedule(name="plateau", factor=0.5, patience=2))
        told.begin_stage()
        assert (int(told.stale), int(told.stale_rate), float(told.rate_factor), float(told.best)) == (0, 0, 1.0, 0.5)


class EvaluatedTest:
    def test_best_and_how_long_ago(self):
        best, told = follow([0.2, 0.1, 0.3, 0.3, 0.25], Schedule())
        assert best == [True, False, True, False, False]
        assert (float(told.best), int(told.best_step), int(told.last_step), int(told.stale)) == (0.3, 30, 50, 2)
        assert float(told.rate_factor) == 1.0

    def test_the_first_one_is_the_best_even_at_0(self):
        best, told = follow([0.0, 0.0], Schedule())
        assert best == [True, False]
        assert int(told.best_step) == 10

    @pytest.mark.parametrize(
        ("values", "factor", "stale"),
        [
            ([0.5, 0.4], 1.0, 1),
            ([0.5, 0.4, 0.4], 0.5, 2),
            ([0.5] * 4, 0.5, 3),
            ([0.5] * 5, 0.25, 4),
            ([0.5, 0.4, 0.6], 1.0, 0),
        ],
    )
    def test_plateau_lowers_the_rate_again_and_again(self, values, factor, stale):
        _, told = follow(values, Schedule(name="plateau", factor=0.5, patience=2))
        np.testing.assert_allclose(told.rate_factor, factor)
        assert int(told.stale) == stale  # early stopping counts on
