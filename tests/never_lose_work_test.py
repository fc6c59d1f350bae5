"""Runs of train_main.py that are killed, asked to stop and started again end as if nothing had happened."""

import resource
import shutil
import signal

import pytest

from tests.train_main_test import SMALL
from tests.training import workers

pytestmark = pytest.mark.timeout(1200)
# Everything that has a state: moments of the optimizer, a mean of the weights, evaluations from which the rate follows.
STATEFUL = [
    *(flag for flag in SMALL if "checkpoint_steps" not in flag),
    "--config.train.steps=20",
    "--config.train.checkpoint_steps=6",
    "--config.train.evaluation.steps=8",
    "--config.train.average.name=ema",
    "--config.train.schedule.name=plateau",
    "--config.train.schedule.patience=1",
    "--wandb=disabled",
]
FORMS = {
    "one_device": ["--strategy=one_device"],
    "mirrored": ["--strategy=mirrored", "--logical_devices=2"],
}


def command(folder, name, *more):
    return [*STATEFUL, f"--config.data.records={folder}/records", f"--workdir={folder}/{name}", *more]


def uninterrupted(folder, form):
    process = workers.Worker(folder, f"{form}-whole", command(folder, f"{form}-whole", *FORMS[form]))
    process.wait_for(lambda: (folder / "records" / "manifest.json").exists())
    return process


def interrupted(folder, form):
    """Killed while the checkpoint of step 12 is written, asked to stop in the evaluation of step 16, finished."""
    arguments, processes = command(folder, form, *FORMS[form]), []

    def start():
        processes.append(workers.Worker(folder, f"{form}-{len(processes)}", arguments))
        return processes[-1]

    with workers.started(start()) as (process,):
        process.wait_for(lambda: any((folder / form / "checkpoints").glob("ckpt-12*")))
        process.signal(signal.SIGKILL)
        process.end()
        left = {path.name for path in (folder / form / "checkpoints").glob("ckpt-12*")}
    with workers.started(start()) as (process,):
        process.wait_for_line("step 16/20 loss")
        process.signal(signal.SIGTERM)
        process.end()
    with workers.started(start()) as (process,):
        process.end()
    return left, processes


@pytest.fixture(scope="module", params=["one_device", pytest.param("mirrored", marks=pytest.mark.slow)])
def runs(request, tmp_path_factory):
    """The folder of a whole and of an interrupted run, what the kill left of a checkpoint, and the processes."""
    folder, form = tmp_path_factory.mktemp(request.param), request.param
    with workers.started(uninterrupted(folder, form)) as (whole,):
        left, processes = interrupted(folder, form)
        assert whole.end() == 0, whole.err
    return folder / f"{form}-whole", folder / form, left, processes


class NeverLoseWorkTest:
    def test_kill_in_the_middle_of_a_checkpoint_costs_that_one_alone(self, runs):
        _, workdir, left, (killed, resumed, _) = runs
        assert killed.process.returncode == -signal.SIGKILL
        assert any("temp" in name for name in left)
        assert "ckpt-12.index" not in left
        assert f"resumed from {workdir}/checkpoints/ckpt-6\n" in resumed.out

    def test_sigterm_breaks_the_evaluation_off_and_keeps_the_step(self, runs):
        _, workdir, _, (_, stopped, finished) = runs
        assert stopped.process.returncode == 75
        assert "\nasked to stop: checkpoint of step 16 written; start again to go on\n" in stopped.out
        assert "step 8: mask_ap50" in stopped.out
        assert "step 16: mask_ap50" not in stopped.out
        assert stopped.err == ""
        assert f"resumed from {workdir}/checkpoints/ckpt-16\n" in finished.out
        assert "step 16: mask_ap50" in finished.out
        assert finished.process.returncode == 0

    def test_every_step_and_evaluation_is_there_once_as_without_interruption(self, runs):
        whole, workdir, *_ = runs
        expected = workers.metrics(whole)
        steps = [line["step"] for line in expected]
        assert steps == [2, 4, 6, 8, 8, 10, 12, 14, 16, 16, 18, 20, 20]
        rates = [line["learning_rate"] for line in expected if "learning_rate" in line]
        assert rates[-1] < 0.5 * rates[0]  # the plateau was found, twice interrupted
        assert workers.metrics(workdir) == expected

    def test_weights_are_the_same_bits(self, runs):
        whole, workdir, *_ = runs
        expected = workers.variables(whole, 20)
        found = workers.variables(workdir, 20)
        assert any(name.startswith("average") for name in found)
        assert any(name.startswith("progress") for name in found)
        assert found.keys() == expected.keys()
        different = [name for name, value in expected.items() if (found[name] != value).any()]
        assert different == []


@pytest.fixture
def copied(runs, tmp_path):
    """f(*arguments, limit) that goes on with a copy of the finished run, in which no file grows past a limit in bytes.

    Its newest checkpoint is damaged.
    """
    whole = runs[0]
    form = whole.name.removesuffix("-whole")
    shutil.copytree(whole, tmp_path / "copy")
    workers.truncate(tmp_path / "copy", 20)
    arguments = [*command(whole.parent, "-", *FORMS[form]), f"--workdir={tmp_path}/copy"]

    def go_on(limit=resource.RLIM_INFINITY):
        process = workers.Worker(
            *(tmp_path, "copy", arguments),
            before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        with workers.started(process):
            process.end()
        return process

    return go_on, tmp_path / "copy"


@pytest.mark.parametrize("runs", ["one_device"], indirect=True)
class DamageTest:
    def test_no_checkpoint_that_can_be_read_is_one_line(self, copied):
        go_on, folder = copied
        for path in (folder / "checkpoints").glob("*.data*"):
            workers.truncate(folder, int(path.name.split(".")[0].removeprefix("ckpt-")))
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        process = go_on()
        assert process.process.returncode == 2
        assert process.err.startswith(f"error: checkpoint {folder}/checkpoints/ckpt-20: expected a whole one of this ")
        assert process.err.count("\n") == 1
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    @pytest.mark.slow
    def test_full_disk_is_one_line_and_costs_nothing_that_was_there(self, copied, runs):
        go_on, folder = copied
        kept = (folder / "checkpoints" / "ckpt-18.data-00000-of-00001").read_bytes()
        lines = workers.metrics(folder)
        written = (folder / "metrics.jsonl").read_text().splitlines()
        size = sum(len(line) + 1 for line in written if '"step": 20' not in line)
        for limit, words in (
            (size + 100, "tfevents"),
            (size + 100, f"{folder}/metrics.jsonl: step 20 cannot be written: File too large"),
            (2**20, "checkpoints: checkpoint 20 cannot be written: "),
        ):
            process = go_on(limit)
            assert process.process.returncode == 1
            assert process.err.startswith("error: ")
            assert words in process.err
            assert process.err.count("\n") == 1
            assert (folder / "checkpoints" / "ckpt-18.data-00000-of-00001").read_bytes() == kept
            # After the first time: of the files it is the largest.
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)

        process = go_on()
        assert process.process.returncode == 0, process.err
        assert f"warning: checkpoint {folder}/checkpoints/ckpt-20: expected a whole one" in process.out
        assert f"; going on with {folder}/checkpoints/ckpt-18\n" in process.out
        assert workers.metrics(folder) == lines
        assert workers.apart(workers.variables(folder, 20), workers.variables(runs[0], 20)) == 0.0
