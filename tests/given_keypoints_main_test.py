"""Landmarks of a dataset from its files through every main to the tables."""

import csv
import json

import numpy as np
import pytest

from data import instance_table
from data.writers import write_volume
from tests import mains, tiny

SHAPE = (8, 20, 29)
LANDMARKS = ("nose", "centre")  # the second is also the beginning of a column's name
CONFIG = f"""
from tests import tiny


def get_config():
    config = tiny.config(steps=3, steps_per_loop=1)
    config.data.keypoints = {LANDMARKS}
    config.model.keypoint_head.enabled = True
    config.model.detections.score_threshold = 0.0
    return config
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What each main ends with, and the folder that they wrote into."""
    folder = tmp_path_factory.mktemp("landmarks")
    (folder / "mine.py").write_text(CONFIG)
    write_files(folder / "files")
    config, records = f"--config={folder}/mine.py", f"{folder}/records"
    run = f"--workdir={folder}/run"
    image = folder / "files" / "c_val_image.nii.gz"
    commands = {
        "convert_main": [config, f"--source={folder}/files", f"--output={records}"],
        "train_main": [config, f"--config.data.records={records}", run, "--wandb=disabled", "--strategy=one_device"],
        "evaluate_main": [run, "--num_pictures=0"],
        "predict_main": [run, f"--input={image}", f"--output={folder}/answers", "--min_score=0"],
    }
    return {name: mains.run(name, *arguments) for name, arguments in commands.items()}, folder


def write_files(folder):
    """Three cases of two objects, of whose four landmarks one is not known."""
    rng = np.random.default_rng(0)
    ids = np.zeros(SHAPE, np.uint8)
    ids[2:4, 3:9, 4:13], ids[1:7, 12:16, 20:25] = 1, 2
    points = np.array([[[2.5, 3.5, 4.5], [3, 6, 8.5]], [[1.5, 12.5, 24.5], [np.nan] * 3]])
    for name in ("a_train", "b_train", "c_val"):
        write_volume(folder / f"{name}_image.nii.gz", ids + rng.normal(0, 0.1, SHAPE), (2.0, 1.0, 1.0))
        write_volume(folder / f"{name}_labels.nii.gz", ids, (2.0, 1.0, 1.0))
        path = folder / f"{name}_labels.json"
        instance_table.write(path, tiny.CLASSES, keypoints=LANDMARKS, points=points)


@pytest.mark.slow
class GivenKeypointsTest:
    def test_every_main_is_content(self, done):
        results, folder = done
        assert [result.err for result in results.values() if result.code != 0] == []
        manifest = json.loads((folder / "records" / "manifest.json").read_text())
        assert manifest["keypoints"] == list(LANDMARKS)
        assert "left out: 3 values (keypoint centre unknown)" in results["convert_main"].out

    def test_losses_are_finite(self, done):
        lines = (done[1] / "run" / "metrics.jsonl").read_text().splitlines()
        losses = [value for line in lines for name, value in json.loads(line).items() if "keypoint" in name]
        assert len(losses) >= 2
        assert np.all(np.isfinite(losses))

    def test_metrics_are_those_of_the_given_landmarks(self, done):
        summary = json.loads((done[1] / "run" / "evaluation_val" / "metrics.json").read_text())
        assert list(summary["keypoints"]) == list(LANDMARKS)
        for row in summary["keypoints"].values():
            assert row["num_values"] + row["num_unknown"] == summary["num_matched"]

    def test_tables_name_them(self, done):
        with next((done[1] / "answers").glob("*.csv")).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 0
        for row in rows:
            for axis in "zyx":
                for name in LANDMARKS:
                    place = float(row[f"keypoint_{name}_{axis}"])
                    assert float(row[f"{axis}0"]) - 0.01 <= place <= float(row[f"{axis}1"]) + 0.01
            assert "centroid_z" not in row
