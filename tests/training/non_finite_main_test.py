"""A record that no loss survives, through train_main.py: said, kept and replayed, or skipped and counted."""

import json

import numpy as np
import pytest

from data.writers import write_volume
from tests import mains
from tests.train_main_test import SMALL

pytestmark = pytest.mark.slow
SETTINGS = [
    *(flag for flag in SMALL if "synthetic" not in flag),
    "--config.data.classes=('cell',)",
    "--config.input.normalization=none",
    "--config.train.batch_size=1",
    "--config.train.steps=12",
    "--strategy=one_device",
    "--wandb=disabled",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A source of three training cases, of which the intensities of one overflow."""
    folder = tmp_path_factory.mktemp("overflow")
    for name, scale in {"even_train": 1.0, "odd_train": 1.0, "huge_train": 1e30, "some_val": 1.0}.items():
        rng = np.random.default_rng(len(name))
        ids = np.zeros((16, 24, 32), np.uint8)
        ids[4:9, 6:14, 8:18] = 1
        image = (ids + 0.1 * rng.standard_normal(ids.shape)).astype(np.float32) * np.float32(scale)
        write_volume(folder / "source" / f"{name}_image.npz", image, (1, 1, 1))
        write_volume(folder / "source" / f"{name}_labels.npz", ids, (1, 1, 1))
    return folder


def train(folder, name, *more):
    data = [f"--config.data.source={folder}/source", f"--config.data.records={folder}/records"]
    made = mains.run("convert_main", f"--source={folder}/source", f"--output={folder}/records", *SETTINGS[:-2], *data)
    assert made.code == 0 or "expected a new or empty output folder" in made.err, made.err
    return mains.run("train_main", *SETTINGS, *data, f"--workdir={folder}/{name}", *more)


def steps(folder, name):
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


class StopTest:
    def test_one_line_names_step_part_and_record_and_its_dump_is_replayed(self, folder):
        result = train(folder, "stop")
        assert result.code == 1
        assert result.err.count("\n") == 1
        assert result.err.startswith("error: step ")
        step = int(result.err.split()[2].removesuffix(":"))
        assert f"error: step {step}: expected a finite loss and gradient, came " in result.err
        assert ", of the records huge_train; --mode=replay --dump=" in result.err
        dump = folder / "stop" / f"nonfinite_{step}"
        assert json.loads((dump / "what.json").read_text())["records"] == ["huge_train"]

        replayed = mains.run("train_main", "--mode=replay", f"--dump={dump}")
        assert replayed.code == 1, replayed.err  # it is still not finite
        assert replayed.out.startswith(f"step {step}, stage joint: ")
        assert "\nrecords: huge_train\n" in replayed.out
        assert "\norigin: Square in the losses at model/normalization.py:" in replayed.out


class SkipTest:
    def test_skips_are_counted_and_change_nothing(self, folder):
        result = train(folder, "skip", "--config.train.on_non_finite=skip")
        assert result.code == 0, result.err
        logged = steps(folder, "skip")
        skipped = sum(line["non_finite"] for line in logged)
        assert skipped == 4  # of 12 steps of one example, four epochs of three
        assert all(np.isfinite(line["total"]) for line in logged)
        warned = [line["step"] for line in logged if line["non_finite"]]
        assert all(
            f"warning: step {step}: skipped 1 step(s) of a loss or gradient that is" in result.out for step in warned
        )

    def test_more_than_are_allowed_end_the_run(self, folder):
        result = train(folder, "bound", "--config.train.on_non_finite=skip", "--config.train.max_non_finite=2")
        assert result.code == 1
        assert result.err.count("\n") == 1
        words = "expected at most train.max_non_finite=2 steps that are not finite, came 3; checkpoints in "
        assert words in result.err
        assert not list((folder / "bound").glob("nonfinite_*"))
