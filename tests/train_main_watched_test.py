import json

import pytest

from tests import mains
from tests.train_main_test import SMALL


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What a look at a network, misuse, and a run that evaluates and shows what it does end with, and their folder."""
    folder = tmp_path_factory.mktemp("watched")
    few = [*SMALL, f"--config.data.records={folder}/records"]
    commands = {
        "summary": [*few, f"--workdir={folder}/watched", "--mode=summary"],
        "no such metric": [*few, "--config.train.evaluation.steps=2", "--config.train.evaluation.metric=dice"],
        "no such split": [*few, "--config.train.evaluation.final_split=test"],
    }
    watched = [*few, f"--workdir={folder}/watched", "--config.train.steps=4", "--wandb=disabled", "--profile=3:4"]
    watched += ["--config.train.evaluation.steps=2", "--config.train.evaluation.final_split=val"]
    watched += ["--config.train.average.name=ema", "--config.train.inspect_steps=4", "--config.train.recompute=True"]
    found = {name: mains.run("train_main", *command) for name, command in commands.items()}
    return {**found, "watched": mains.run("train_main", *watched)}, folder  # in the folder of the summary


class WatchedRunTest:
    def test_evaluates_and_shows_what_it_trains_on(self, runs):
        results, folder = runs
        assert results["watched"].code == 0, results["watched"].err
        lines = [json.loads(line) for line in (folder / "watched" / "metrics.jsonl").read_text().splitlines()]
        # The 2nd and 4th step are evaluated; checkpoints of every third, and the profile, end loops, too.
        assert [(line["step"], "val/mask_ap50" in line) for line in lines] == [
            (2, False),
            (2, True),
            (3, False),
            (4, False),
            (4, True),
        ]
        best = {path.name for path in (folder / "watched" / "best").glob("*.index")}
        assert best <= {"ckpt-2.index", "ckpt-4.index"}
        assert len(best) == 1
        assert (folder / "watched" / "final_val" / "metrics.json").is_file()
        assert list((folder / "watched" / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
        assert list((folder / "watched" / "tensorboard").glob("events.*"))
        assert "profile: tensorboard --logdir=" in results["watched"].out
        assert "step 4: mask_ap50 0." in results["watched"].out

    def test_a_summary_needs_no_training_and_leaves_its_folder_to_one(self, runs):
        results, folder = runs
        assert results["summary"].code == 0, results["summary"].err
        assert "mask_head" in (folder / "watched" / "summary" / "summary.txt").read_text()

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("no such metric", "train.evaluation.metric: expected one of mask_ap10, "),
            ("no such split", "'test'"),
        ],
    )
    def test_what_cannot_be_evaluated_is_said_at_once(self, runs, name, expected):
        results, _ = runs
        mains.assert_misuse(results[name], expected)
