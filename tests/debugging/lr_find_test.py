import json
import math

import numpy as np
import pytest
import tensorflow as tf

from data.errors import InputError
from debugging import lr_find
from training import loop

RATES = [10 ** (-6 + number / 10) for number in range(61)]  # 1e-6 to 1


def valley(rates):
    """4 before 1e-4, falls by 1 for every tenfold from there to 1e-2, then rises steeply."""
    logs = np.log10(rates)
    return (4 - np.clip(logs + 4, 0, 2) + 5 * np.clip(logs + 2, 0, None)).tolist()


class SuggestTest:
    def test_the_steepest_and_the_lowest_are_found(self):
        found = lr_find.suggest(RATES, valley(RATES))
        # Smoothing lags by some steps of 10^0.1 each.
        assert 1e-2 <= found["minimum"] <= 3e-2
        # Slopes over ten steps to either side are full from 10^-3.0 to 10^-3.0.
        assert 8e-4 <= found["steepest"] <= 1.3e-3
        assert found["suggestion"] == min(found["steepest"], found["minimum"] / 10)

    def test_a_tenth_of_the_lowest_bounds_it(self):
        # Falls ever faster to the last step but ten.
        losses = [10.0 - 0.002 * number**2 for number in range(51)] + [50.0] * 10
        found = lr_find.suggest(RATES, losses)
        assert found["minimum"] == RATES[50]
        assert found["steepest"] == RATES[40]  # ten steps to either side
        assert found["suggestion"] == pytest.approx(RATES[40])

    @pytest.mark.parametrize("losses", [[], [math.inf], [5.0] + [6.0] * 59, list(range(60))])
    def test_a_loss_that_never_falls_gives_none(self, losses):
        found = lr_find.suggest(RATES, losses)
        assert (found["minimum"], found["steepest"], found["suggestion"]) == (None, None, None)

    def test_the_average_does_not_begin_at_zero(self):
        # 0.1 a / 0.1; (0.09 a + 0.1 b) / 0.19
        np.testing.assert_allclose(lr_find.smoothed([3.0, 1.0]), [3.0, 0.37 / 0.19])

    @pytest.mark.parametrize(
        ("losses", "is_over"),
        [([], False), ([1.0, 2.0], False), ([1.0, 100.0], True), ([1.0, math.inf], True), ([1.0, math.nan], True)],
    )
    def test_it_ends_where_all_is_lost(self, losses, is_over):
        assert bool(lr_find._is_over(losses)) is is_over

    def test_rates_rise_by_equal_factors(self):
        schedule = lr_find.rising(1e-6, 1.0, 7)
        np.testing.assert_allclose([float(schedule(step)) for step in range(7)], np.logspace(-6, 0, 7), rtol=1e-4)


class RunTest:
    def test_a_network_gets_a_rate(self, made, tmp_path, capsys):
        settings, manifest = made
        found = lr_find.run(settings, manifest, tmp_path / "run", tf.distribute.get_strategy(), 1e-4, 1e2, 60)
        told = json.loads((tmp_path / "run" / "lr_find" / "lr_find.json").read_text())
        assert len(told["rates"]) == len(told["losses"]) < 60  # a rate of 100 is not survived
        assert found is True
        out = capsys.readouterr().out
        assert f"\ntrain.learning_rate={told['suggestion']:.2g}\n" in out
        assert 1e-4 < told["suggestion"] < 0.1
        assert (tmp_path / "run" / "lr_find" / "lr_find.png").stat().st_size > 5000
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["lr_find"]  # no checkpoint

    def test_rates_that_only_harm_fail(self, made, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(lr_find, "measure", lambda *_: [5.0, 6.0, math.inf])
        assert lr_find.run(*made, tmp_path / "run", tf.distribute.get_strategy()) is False
        out = capsys.readouterr().out
        assert "FAILED   lr_find: expected a loss that falls, came none in 3 of 120 steps" in out
        told = json.loads((tmp_path / "run" / "lr_find" / "lr_find.json").read_text())
        assert told["losses"] == [5.0, 6.0, None]
        assert told["suggestion"] is None

    @pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.0, 1.0, 50), (1.0, 1.0, 50), (1e-3, 1.0, 20)])
    def test_settings_without_sense_are_refused(self, lowest, highest, steps, made, tmp_path):
        words = "expected 0 < lowest < highest and > 20 steps, came "
        with pytest.raises(ValueError, match=words):
            lr_find.run(*made, tmp_path, tf.distribute.get_strategy(), lowest, highest, steps)

    def test_a_damaged_record_is_an_error(self, made, tmp_path, monkeypatch):
        settings, manifest = made

        def only_read(*_):
            return lambda batches, _: {"total": len(next(batches)), "non_finite": 0.0}

        monkeypatch.setattr(loop, "make_train_steps", only_read)
        shard = tmp_path / "records" / manifest["shards"]["train"][0]["file"]
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 255
        shard.write_bytes(content)
        with pytest.raises(InputError, match="expected a whole record of case train"):
            lr_find.run(settings, manifest, tmp_path, tf.distribute.get_strategy(), 1e-6, 1e-5, 25)
