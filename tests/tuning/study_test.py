import json
import subprocess
import sys
import textwrap
import time

import optuna
import pytest

from data.errors import InputError
from tuning import study

kinds, states = optuna.distributions, optuna.trial.TrialState
SPACE = {"a": kinds.CategoricalDistribution([1, 2, 3]), "b": kinds.CategoricalDistribution(["x", "y"])}
# Stands for train_main.py: two evaluations, the second of 0.1 a; it notes how often it is begun in its folder, and
# fails or takes long where it is told to.
TRAINING = """
    import json, os, pathlib, signal, sys, time
    flags = dict(part.lstrip("-").split("=", 1) for part in sys.argv[1:])
    folder = pathlib.Path(flags["workdir"])
    folder.mkdir(exist_ok=True)
    with (folder / "begun.txt").open("a") as begun:
        begun.write(json.dumps(flags) + "\\n")
    if flags["a"] == flags.get("fail"):
        sys.exit("error: told to")
    with (folder / "metrics.jsonl").open("w") as file:
        for step, share in ((5, 0.01), (10, 0.1)):
            file.write(json.dumps({"step": step, "total": 1.0}) + "\\n")
            file.write(json.dumps({"step": step, "val/mask_ap50": share * int(flags["a"])}) + "\\n")
            file.flush()
            time.sleep(float(flags.get("seconds", 0)))
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path_factory):
    path = tmp_path_factory.mktemp("main") / "train.py"
    path.write_text(textwrap.dedent(TRAINING))
    monkeypatch.setattr(study, "TRAIN_MAIN", path)
    monkeypatch.setattr(study, "_LOOK_SECONDS", 0.05)


def search(folder, *, sampler="grid", trials=10, flags=(), patience=0, space=SPACE):
    made = study.make(folder, space, sampler=sampler, seed=0, patience=patience)
    failed = study.run(made, folder, space, "mask_ap50", trials=trials, flags=list(flags), patience=patience)
    return made, failed


def begun(folder):
    return [json.loads(line) for path in sorted(folder.glob("trial_*/model/begun.txt")) for line in path.open()]


class RunTest:
    def test_grid_takes_every_combination_once(self, tmp_path, capsys):
        made, failed = search(tmp_path, flags=["--seconds=0"])
        assert failed == 0
        assert sorted((flags["a"], flags["b"]) for flags in begun(tmp_path)) == [(a, b) for a in "123" for b in "xy"]
        assert {flags["wandb"] for flags in begun(tmp_path)} == {"disabled"}
        assert (made.best_value, made.best_params["a"]) == (pytest.approx(0.3), 3)
        assert "trial 0: a=" in capsys.readouterr().out

    def test_goes_on_with_what_is_left(self, tmp_path):
        search(tmp_path, trials=2)
        assert len(begun(tmp_path)) == 2
        made, _ = search(tmp_path, trials=4)
        assert len(begun(tmp_path)) == 4
        assert len(made.get_trials(states=[states.COMPLETE])) == 4
        search(tmp_path, trials=4)
        assert len(begun(tmp_path)) == 4

    def test_tpe(self, tmp_path):
        space = {"a": kinds.IntDistribution(1, 9), "rate": kinds.FloatDistribution(1e-4, 1e-2, log=True)}
        made, _ = search(tmp_path, sampler="tpe", trials=5, space=space)
        values = [trial.value for trial in made.get_trials()]
        assert values == [pytest.approx(0.1 * trial.params["a"]) for trial in made.get_trials()]
        assert all(1e-4 <= float(flags["rate"]) <= 1e-2 for flags in begun(tmp_path))

    def test_trials_that_fail_are_said_to(self, tmp_path, capsys):
        made, failed = search(tmp_path, flags=["--fail=2"])
        assert failed == 2
        assert len(made.get_trials(states=[states.FAIL])) == 2
        assert "failed, see " in capsys.readouterr().out
        logs = [path.read_text() for path in tmp_path.glob("trial_*/log.txt")]
        assert logs.count("error: told to\n") == 2

    def test_a_trial_worse_than_the_median_is_given_up(self, tmp_path):
        space = {"a": kinds.CategoricalDistribution([9, 8, 1])}
        made = study.make(tmp_path, space, sampler="tpe", seed=0, patience=1)
        for a in (9, 8, 1):
            made.enqueue_trial({"a": a})
        study.run(made, tmp_path, space, "mask_ap50", trials=3, flags=["--seconds=2"], patience=1)
        assert [trial.state for trial in made.get_trials()] == [states.COMPLETE, states.COMPLETE, states.PRUNED]

    def test_a_killed_search_goes_on_with_the_trial_it_was_at(self, tmp_path):
        script = (
            "import sys, pathlib; from tests.tuning import study_test as t; t.study.TRAIN_MAIN = sys.argv[1]; "
            "t.search(pathlib.Path(sys.argv[2]), flags=['--seconds=30'])"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(study.TRAIN_MAIN), str(tmp_path)]) as process:
            end = time.monotonic() + 60
            while not list(tmp_path.glob("trial_0/model/begun.txt")) and time.monotonic() < end:
                time.sleep(0.1)
            process.kill()
        (first,) = begun(tmp_path)
        made, _ = search(tmp_path)
        again = [flags for flags in begun(tmp_path) if flags["workdir"] == first["workdir"]]
        assert len(again) == 2
        assert {flags["a"] + flags["b"] for flags in again} == {first["a"] + first["b"]}
        assert len(made.get_trials(states=[states.COMPLETE])) == 6


class MakeTest:
    def test_study_of_another_space(self, tmp_path):
        search(tmp_path, trials=1)
        with pytest.raises(InputError, match=r"expected a study of the same parameters, came one of {'a': "):
            study.make(tmp_path, {"c": SPACE["a"]}, sampler="tpe", seed=0, patience=0)

    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="expected a folder that can be written, came: "):
            study.make(tmp_path / "file" / "study", SPACE, sampler="tpe", seed=0, patience=0)
