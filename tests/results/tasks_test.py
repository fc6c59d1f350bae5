import ast
import functools
import importlib
import pathlib

import pytest

from data.errors import InputError
from results import tasks


class TasksTest:
    @pytest.mark.parametrize("name", tasks.TASKS)
    def test_has_a_config_a_result_and_targets(self, name):
        task = tasks.get(name)
        assert importlib.import_module(f"configs.{name}").get_config().name == name
        assert task.parts[tasks.RESULT]
        assert task.targets or name in ("ms_lesions", "nuclei_synthetic")
        rows = {run.name for runs in task.parts.values() for run in runs}
        assert {target.row for target in task.targets} <= rows | {""}

    @pytest.mark.parametrize("name", tasks.TASKS)
    def test_every_run_has_a_folder_of_its_own(self, name):
        runs = [run for part in tasks.get(name).parts.values() for run in part]
        folders = [run.folder for run in runs]
        assert len(set(folders)) == len(runs)
        assert all(pathlib.PurePath(folder).name == folder for folder in folders)

    @pytest.mark.parametrize("name", tasks.TASKS)
    def test_every_run_has_a_config(self, name):
        """Overrides are read as on the command line."""
        module = importlib.import_module(f"configs.{name}")
        for run in [run for part in tasks.get(name).parts.values() for run in part]:
            config = module.get_config(*[run.form] * bool(run.form))
            for override in run.overrides:
                path, _, text = override.partition("=")
                *sections, field = path.split(".")
                section = functools.reduce(getattr, sections, config)
                is_text = isinstance(getattr(section, field), str)
                setattr(section, field, text if is_text else ast.literal_eval(text))
            assert config.validate() != module.get_config() or not (run.overrides or run.form), run

    def test_what_a_run_begins_with_begins_with_nothing_and_has_its_network(self):
        every = [(name, run) for name, task in tasks.TASKS.items() for part in task.parts.values() for run in part]
        begun = [(name, run) for name, run in every if run.begins_with]
        assert begun
        for name, run in begun:
            first = tasks.get(run.begins_with).parts[tasks.RESULT][0]
            assert (first.begins_with, first.overrides, first.form) == ("", (), "")
            ours, theirs = (importlib.import_module(f"configs.{task}").get_config() for task in (name, run.begins_with))
            assert ours.model == theirs.model

    def test_an_unknown_task_is_refused(self):
        with pytest.raises(InputError, match=r"--task: expected one of shapes_small, .* came 'circles'"):
            tasks.get("circles")


class SelectTest:
    TASK = tasks.Task("Things", {"result": (tasks.Run("a"), tasks.Run("a", seed=1), tasks.Run("b"))}, ())

    def test_all_or_some_rows(self):
        assert len(tasks.select(self.TASK, "result", [])) == 3
        assert [run.seed for run in tasks.select(self.TASK, "result", ["a"])] == [0, 1]

    @pytest.mark.parametrize(
        ("part", "names", "message"),
        [
            ("other", [], "--part: expected one of result, came 'other'"),
            ("result", ["c"], "--only: expected some of a, b, came 'c'"),
        ],
    )
    def test_what_is_not_there_is_refused(self, part, names, message):
        with pytest.raises(InputError, match=message):
            tasks.select(self.TASK, part, names)


class TargetTest:
    @pytest.mark.parametrize(
        ("is_upper", "value", "expected"),
        [(False, 0.9, True), (False, 0.89, False), (True, 0.9, True), (True, 0.91, False), (True, None, False)],
    )
    def test_is_met_from_its_bound_on(self, is_upper, value, expected):
        assert tasks.Target("x", 0.9, is_upper).is_met(value) is expected
