"""Two processes of train_main.py that train one model: as one process does, stopped together, lost together."""

import signal
import time

import numpy as np
import pytest

from tests.train_main_test import SMALL
from tests.training import workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = 20
SETTINGS = [
    *(flag for flag in SMALL if "checkpoint_steps" not in flag),
    f"--config.train.steps={STEPS}",
    "--config.train.checkpoint_steps=6",
    "--config.train.evaluation.steps=8",
    "--config.train.evaluation.final_split=val",
    "--config.train.average.name=ema",
    # So that what is summed in another order stays apart by no more: no draw decides which anchors and rois train, and
    # no tiny gradient becomes a whole step.
    "--config.train.optimizer.name=sgd",
    "--config.train.learning_rate=2e-4",
    "--config.model.rpn.num_samples=4000",
    "--config.model.rpn.train_post_nms_top_k=40",
    "--config.model.rois.num_samples=100",
    "--wandb=disabled",
]


class Runs:
    """The same training in several ways, in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def settings(self, name):
        return [*SETTINGS, f"--config.data.records={self.folder}/records", f"--workdir={self.folder}/{name}"]

    def mirrored(self):
        arguments = [*self.settings("mirrored"), "--strategy=mirrored", "--logical_devices=2"]
        return workers.started(workers.Worker(self.folder, "mirrored", arguments))

    def pair(self, name, part=""):
        """Two workers, the chief first."""
        arguments = [*self.settings(name), "--strategy=multi_worker"]
        return workers.started(
            *(
                workers.Worker(self.folder, f"{name}{part}-{index}", arguments, environment)
                for index, environment in enumerate(workers.environments(2))
            )
        )

    def lose(self, name, part, victim, line):
        """Kills a worker after the chief has said a line: the other one, and after how many seconds it has ended."""
        with self.pair(name, part) as pair:
            pair[0].wait_for_line(line)
            began = time.monotonic()
            pair[victim].signal(signal.SIGKILL)
            other = pair[1 - victim]
            other.end()
            return other, time.monotonic() - began


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All of them, with their processes."""
    runs = Runs(tmp_path_factory.mktemp("workers"))
    with runs.mirrored() as (whole,):
        assert whole.end() == 0, whole.err
    with runs.pair("together") as pair:
        assert [worker.end() for worker in pair] == [0, 0], pair[0].err + pair[1].err
        runs.together = pair
    with runs.pair("stopped", "-a") as pair:
        pair[0].wait_for_line("step 6/20 loss")
        pair[1].signal(signal.SIGTERM)
        for worker in pair:
            worker.end()
        runs.stopped = pair
        names = (runs.folder / "stopped" / "checkpoints", runs.folder / "stopped" / "checkpoints-worker-1")
        runs.checkpoints = [sorted(path.name for path in name.glob("ckpt-*.index")) for name in names]
    runs.without_other = runs.lose("stopped", "-b", victim=1, line="step 12/20 loss")
    runs.without_chief = runs.lose("stopped", "-c", victim=0, line="step 16/20 loss")
    with runs.pair("stopped", "-d") as pair:
        assert [worker.end() for worker in pair] == [0, 0], pair[0].err + pair[1].err
    return runs


def losses(workdir):
    """{(step, name): value} of what is said of the steps."""
    return {
        (line["step"], name): value
        for line in workers.metrics(workdir)
        if "total" in line
        for name, value in line.items()
        if name != "gradient_norm"  # that of a sum in which much cancels out
    }


class TogetherTest:
    def test_losses_are_those_of_two_devices_of_one_process(self, runs):
        expected, found = (losses(runs.folder / name) for name in ("mirrored", "together"))
        assert {step for step, _ in expected} == {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}
        assert found.keys() == expected.keys()
        differences = {key: abs(found[key] - value) / max(abs(value), 1.0) for key, value in expected.items()}
        worst = max(differences, key=differences.get)
        assert differences[worst] < 1e-5, worst

    def test_weights_are_those_of_two_devices_of_one_process(self, runs):
        expected, found = (workers.variables(runs.folder / name, STEPS) for name in ("mirrored", "together"))
        weights = {name for name in expected if name.startswith(("model/", "average/"))}
        before = workers.variables(runs.folder / "mirrored", 12)
        assert max(np.abs(expected[name] - before[name]).max() for name in weights) > 1e-3  # they have learnt
        worst = max(float(np.abs(expected[name] - found[name]).max()) for name in weights)
        assert worst < 1e-5

    def test_chief_alone_evaluates_and_says_so(self, runs):
        chief, other = runs.together
        assert "step 8: mask_ap50" in chief.out
        assert "mask_ap50" not in other.out
        assert (runs.folder / "together" / "evaluation_val" / "metrics.json").exists()


class StoppedTest:
    def test_sigterm_to_one_worker_stops_both_at_the_same_step(self, runs):
        assert [worker.process.returncode for worker in runs.stopped] == [75, 75]
        said = [worker.out.splitlines()[-1] for worker in runs.stopped]
        assert said[0] == said[1]
        assert said[0] in [f"asked to stop: checkpoint of step {step} written; start again to go on" for step in (6, 8)]
        assert runs.checkpoints[0] == runs.checkpoints[1] != []
        assert "after this loop" in runs.stopped[1].out
        assert "after this loop" not in runs.stopped[0].out

    @pytest.mark.parametrize("name", ["without_other", "without_chief"])
    def test_loss_of_a_worker_ends_the_other_in_a_line(self, runs, name):
        left, seconds = getattr(runs, name)
        assert left.process.returncode == 1
        assert seconds < 60
        assert left.err.startswith("error: a worker is lost (")
        assert left.err.endswith("); start all workers again, to go on from the newest checkpoint\n")
        assert left.err.count("\n") == 1

    def test_started_again_it_ends_as_if_nothing_had_happened(self, runs):
        assert workers.metrics(runs.folder / "stopped") == workers.metrics(runs.folder / "together")
        expected, found = (workers.variables(runs.folder / name, STEPS) for name in ("together", "stopped"))
        assert workers.apart(found, expected) == 0.0
