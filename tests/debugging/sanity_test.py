import json

import pytest
import tensorflow as tf

from debugging import sanity
from debugging.verdicts import Verdict


def rung(name, calls, *outcomes):
    """A rung that notes its call."""

    def check(config, manifest, folder, strategy, steps):
        calls.append((name, config, manifest, folder, strategy, steps))
        return [Verdict(name, f"part {i}", outcome, "1", "2") for i, outcome in enumerate(outcomes)]

    return check


class RunTest:
    @pytest.fixture
    def calls(self, monkeypatch):
        made = []
        rungs = {"a": rung("a", made, True), "b": rung("b", made, True, None), "c": rung("c", made, False, True)}
        monkeypatch.setattr(sanity, "RUNGS", rungs)
        return made

    def test_all_rungs_run_in_order_and_one_failure_fails(self, calls, tmp_path, capsys):
        assert sanity.run("config", "manifest", tmp_path, "strategy", steps=3) is False
        assert calls == [(name, "config", "manifest", tmp_path / "sanity", "strategy", 3) for name in "abc"]
        out = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in out] == ["ok", "ok", "not", "FAILED", "ok", "sanity:"]
        assert out[-1] == f"sanity: 3 ok, 1 failed, 1 not told; pictures in {tmp_path / 'sanity'}"
        told = json.loads((tmp_path / "sanity" / "sanity.json").read_text())
        assert told["passed"] is False
        assert len(told["verdicts"]) == 5
        assert set(told["seconds"]) == {"a", "b", "c"}

    def test_chosen_rungs_run_alone(self, calls, tmp_path):
        assert sanity.run("config", "manifest", tmp_path, "strategy", rungs=["b", "a"]) is True
        assert [call[0] for call in calls] == ["b", "a"]
        assert calls[0][-1] is None

    def test_an_unknown_rung_is_refused(self, calls, tmp_path):
        with pytest.raises(ValueError, match="rungs: expected some of a, b, c, came d"):
            sanity.run("config", "manifest", tmp_path, "strategy", rungs=["a", "d"])
        assert calls == []


class LadderTest:
    def test_cheap_rungs_come_first(self):
        assert list(sanity.RUNGS) == [
            "initial_losses",
            "gradients",
            "consistency",
            "statistics",
            "overfit",
            "shuffled_labels",
        ]

    @pytest.mark.slow
    def test_the_tiny_network_climbs_what_does_not_train(self, made, tmp_path):
        rungs = list(sanity.RUNGS)[:4]
        assert sanity.run(*made, tmp_path / "run", tf.distribute.get_strategy(), rungs=rungs, steps=1) is True
        names = {path.name for path in (tmp_path / "run" / "sanity").iterdir()}
        assert names == {"sanity.json", "statistics.json", *(f"{rung}.png" for rung in rungs)}
