import json
import pathlib
import signal
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
    is_first = not (folder / "begun.txt").exists()
    with (folder / "begun.txt").open("a") as begun:
        begun.write(json.dumps({**flags, "pid": os.getpid()}) + "\\n")
    if flags["a"] == flags.get("slow") and is_first:
        time.sleep(60)
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
    grid = {name: list(kind.choices) for name, kind in space.items()} if sampler == "grid" else None
    shared = {"flags": list(flags), "patience": patience}
    made = study.make(folder, space, "mask_ap50", seed=0, grid=grid, **shared)
    return made, study.run(made, folder, space, "mask_ap50", trials=trials, is_grid=grid is not None, **shared)


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
        space, shared = {"a": kinds.CategoricalDistribution([9, 8, 1])}, {"flags": ["--seconds=2"], "patience": 1}
        made = study.make(tmp_path, space, "mask_ap50", seed=0, grid={"a": [9, 8, 1]}, **shared)
        study.run(made, tmp_path, space, "mask_ap50", trials=3, is_grid=True, **shared)
        assert [trial.state for trial in made.get_trials()] == [states.COMPLETE, states.COMPLETE, states.PRUNED]

    @pytest.mark.parametrize(("done", "how"), [(0, "SIGKILL"), (1, "SIGKILL"), (1, "SIGTERM")])
    def test_a_search_that_is_cut_off_goes_on_with_the_trial_it_was_at(self, tmp_path, done, how):
        space, flags = {"a": kinds.CategoricalDistribution([1, 2])}, [f"--slow={done + 1}"]
        script = (
            "import sys, pathlib, signal; from tests.tuning import study_test as t; t.study.TRAIN_MAIN = sys.argv[1]; "
            "signal.signal(signal.SIGTERM, signal.default_int_handler); "
            "space = {'a': t.kinds.CategoricalDistribution([1, 2])}; "
            "t.search(pathlib.Path(sys.argv[2]), flags=[sys.argv[3]], space=space)"
        )
        if done:
            search(tmp_path, trials=done, flags=flags, space=space)
        with subprocess.Popen([sys.executable, "-c", script, str(study.TRAIN_MAIN), str(tmp_path), *flags]) as process:
            end = time.monotonic() + 60
            while not list(tmp_path.glob(f"trial_{done}/model/begun.txt")) and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(0.5)
            process.send_signal(getattr(signal, how))
        (cut,) = [given for given in begun(tmp_path) if f"trial_{done}/" in given["workdir"]]
        # It does not leave its training behind.
        end = time.monotonic() + 10
        while (is_there := pathlib.Path(f"/proc/{cut['pid']}").exists()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not is_there
        made, _ = search(tmp_path, flags=flags, space=space)
        again = [given for given in begun(tmp_path) if given["workdir"] == cut["workdir"]]
        assert [given["a"] for given in again] == [cut["a"]] * 2
        assert sorted(trial.params["a"] for trial in made.get_trials(states=[states.COMPLETE])) == [1, 2]


class MakeTest:
    @pytest.mark.parametrize(
        ("changes", "name"),
        [({"space": {"c": SPACE["a"]}}, "space"), ({"flags": ["--x=1"]}, "flags"), ({"metric": "box_ap50"}, "metric")],
    )
    def test_study_that_asked_something_else(self, tmp_path, changes, name):
        first = {"space": SPACE, "metric": "mask_ap50", "flags": [], "seed": 0, "patience": 0}
        study.make(tmp_path, **first)
        study.make(tmp_path, **first)
        with pytest.raises(InputError, match=f"expected the {name} of its trials, "):
            study.make(tmp_path, **{**first, **changes})

    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="expected a folder of a study, or for one, came: "):
            study.make(tmp_path / "file" / "study", SPACE, "mask_ap50", flags=[], seed=0, patience=0)

    def test_database_that_is_none(self, tmp_path):
        (tmp_path / study.STORAGE).write_text("no database")
        with pytest.raises(InputError, match=r"expected a folder of a study, or for one, came: .*database"):
            study.make(tmp_path, SPACE, "mask_ap50", flags=[], seed=0, patience=0)
