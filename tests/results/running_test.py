import json
import pathlib

import pytest
import tensorflow as tf

from data.errors import InputError
from results import running, tasks
from training import precision


class Commands:
    """Takes the place of the commands: remembers them, makes the folder of a training, and says what it is told to."""

    def __init__(self, said="trained", error=None):
        self.said, self.error, self.made = said, error, []

    def __call__(self, main, *arguments):
        self.made.append([main, *map(str, arguments)])
        for argument in map(str, arguments):
            if argument.startswith("--workdir="):
                pathlib.Path(argument.removeprefix("--workdir=")).mkdir(parents=True, exist_ok=True)
        if self.error:
            raise self.error
        return self.said


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by ten seconds at every look."""
    times = iter(range(100, 1000, 10))
    monkeypatch.setattr(running.time, "monotonic", lambda: next(times))


class HardwareTest:
    @pytest.mark.parametrize(
        ("cores", "expected"), [({0, 1}, "Some CPU @ 2 GHz, 2 cores"), ({5}, "Some CPU @ 2 GHz, 1 core")]
    )
    def test_processor_and_the_cores_that_may_be_used(self, tmp_path, monkeypatch, cores, expected):
        (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\n")
        monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(running.os, "sched_getaffinity", lambda process: cores, raising=False)
        assert running.hardware() == expected

    def test_what_computes_bfloat16_in_float32_is_told_apart(self, tmp_path, monkeypatch):
        (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: avx avx2\n")
        monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(running.os, "sched_getaffinity", lambda process: {0}, raising=False)
        assert running.hardware() == "Some CPU without AVX-512, 1 core"

    @pytest.mark.parametrize(
        ("name", "expected"), [("Intel(R) Xeon(R) Processor", "Intel Xeon"), ("AMD EPYC 9B14", "AMD EPYC 9B14")]
    )
    def test_a_processor_is_named_without_signs(self, name, expected, tmp_path, monkeypatch):
        (tmp_path / "cpuinfo").write_text(f"model name\t: {name}\nflags\t\t: avx512bw\n")
        monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(running.os, "sched_getaffinity", lambda process: {0}, raising=False)
        assert running.hardware() == f"{expected}, 1 core"

    def test_gpus_go_before(self, monkeypatch):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"] if kind == "GPU" else ["c"])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "Some GPU"})
        assert running.hardware() == "2 x Some GPU"

    def test_where_there_is_no_such_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "none")
        monkeypatch.setattr(running.platform, "processor", lambda: "")
        monkeypatch.setattr(running.platform, "machine", lambda: "arm64")
        assert running.hardware().startswith("arm64, ")


class TrainTest:
    RUN = tasks.Run("two stages", ("model.rpn.nms_iou=0.5",), seed=2, form="alternating")

    def test_a_run_has_its_config_overrides_seed_and_folder(self, tmp_path, monkeypatch, clock):
        commands = Commands()
        monkeypatch.setattr(running, "_command", commands)
        workdir, cost = running.train("shapes_small", self.RUN, tmp_path)
        assert workdir == tmp_path / "shapes_small" / "two_stages-2"
        assert cost == {"seconds": 10, "hardware": [running.hardware()]}
        assert commands.made == [
            [
                "train_main.py",
                "--config=configs/shapes_small.py:alternating",
                f"--workdir={workdir}",
                "--wandb=disabled",
            ]
            + ["--config.model.rpn.nms_iou=0.5", "--config.train.seed=2"]
        ]

    def test_records_of_its_own_are_made_before(self, tmp_path, monkeypatch, clock):
        commands = Commands()
        monkeypatch.setattr(running, "_command", commands)
        settings = ("data.records=" + str(tmp_path / "few"), "data.synthetic.num_train=25", "train.steps=9")
        running.train("shapes_small", tasks.Run("25", settings), tmp_path)
        converted = ["convert_main.py", "--config=configs/shapes_small.py", f"--output={tmp_path}/few"]
        assert commands.made[0] == converted + [f"--config.{setting}" for setting in settings[:2]]
        assert [command[0] for command in commands.made] == ["convert_main.py", "train_main.py"]

    def test_what_it_begins_with_is_trained_before(self, tmp_path, monkeypatch, clock):
        commands = Commands()
        monkeypatch.setattr(running, "_command", commands)
        monkeypatch.chdir(tmp_path)
        running.train("nuclei", tasks.Run("a", begins_with="nuclei_synthetic"), tmp_path)
        assert [command[:2] for command in commands.made] == [
            ["convert_main.py", "--config=configs/nuclei_synthetic.py"],
            ["train_main.py", "--config=configs/nuclei_synthetic.py"],
            ["train_main.py", "--config=configs/nuclei.py"],
        ]
        first = commands.made[1][2].removeprefix("--workdir=")
        assert commands.made[2][-1] == f"--config.train.init_weights={first}"

    def test_cost_is_that_of_all_starts(self, tmp_path, monkeypatch, clock):
        def start(machine, **commands):
            monkeypatch.setattr(running, "hardware", lambda: machine)
            monkeypatch.setattr(running, "_command", Commands(**commands))
            return running.train("shapes_small", self.RUN, tmp_path)

        with pytest.raises(InputError, match="stopped"):
            start("one core", error=InputError("stopped"))
        workdir, cost = start("two cores")
        assert cost == {"seconds": 20, "hardware": ["one core", "two cores"]}
        assert json.loads((workdir / "cost.json").read_text()) == cost
        assert start("two cores")[1] == {"seconds": 30, "hardware": ["one core", "two cores"]}
        # What is measured once more elsewhere was not trained there.
        again = start("another", said="already trained for 1800 steps")
        assert again == (workdir, {"seconds": 30, "hardware": ["one core", "two cores"]})


class PrepareTest:
    def test_records_are_made_where_there_are_none(self, tmp_path, monkeypatch):
        commands = Commands()
        monkeypatch.setattr(running, "_command", commands)
        monkeypatch.chdir(tmp_path)
        task = tasks.Task("Things", {}, (), unseen=("data.synthetic.seed=1",))
        assert running.prepare("shapes_small", task, tmp_path) == tmp_path / "shapes_small" / "unseen"
        assert commands.made == [
            ["convert_main.py", "--config=configs/shapes_small.py", "--output=runs/shapes_small/records"],
            ["convert_main.py", "--config=configs/shapes_small.py", f"--output={tmp_path}/shapes_small/unseen"]
            + ["--config.data.synthetic.seed=1"],
        ]

    def test_records_that_are_there_stay(self, tmp_path, monkeypatch):
        commands = Commands()
        monkeypatch.setattr(running, "_command", commands)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs" / "shapes_small" / "records").mkdir(parents=True)
        (tmp_path / "runs" / "shapes_small" / "records" / "manifest.json").write_text("{}")
        assert running.prepare("shapes_small", tasks.Task("Things", {}, ()), tmp_path) is None
        assert commands.made == []


class CommandTest:
    def test_shows_and_gives_what_is_printed(self, tmp_path, monkeypatch, capfd):
        (tmp_path / "say.py").write_text("import sys; print('said', sys.argv[1])")
        monkeypatch.setattr(running, "ROOT", tmp_path)
        assert running._command("say.py", "this") == "said this\n"
        assert capfd.readouterr().out == "$ python say.py this\nsaid this\n"

    def test_a_failure_is_one_line(self, tmp_path, monkeypatch):
        (tmp_path / "fail.py").write_text("import sys; sys.exit(3)")
        monkeypatch.setattr(running, "ROOT", tmp_path)
        with pytest.raises(InputError, match=r"fail.py: expected exit code 0, came 3"):
            running._command("fail.py")
