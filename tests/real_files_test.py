"""The whole path on real volumes, where they are: convert, train a few steps, evaluate, predict."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

from data.readers import read_volume
from tests import mains

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"
FEW_STEPS = ["--config.train.steps=3", "--config.train.warmup_steps=1", "--config.train.steps_per_loop=3"]


def copied(folder, names, target):
    """A folder with copies of some real files; skips the test where they are not there."""
    if not (REAL / folder).is_dir():
        pytest.skip(f"{REAL / folder} is absent")
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / folder / name, target / name)
    return target


def walk(config, source, folder, *, split, scan, overrides=()):
    """Converts, trains, evaluates and predicts; returns the metrics and the folder of the answers."""
    experiment = f"--config=configs/{config}.py"
    steps = {
        "convert_main": [experiment, f"--source={source}", f"--output={folder}/records"],
        "train_main": [
            *(experiment, f"--config.data.records={folder}/records", f"--workdir={folder}/model", "--wandb=disabled"),
            *(*FEW_STEPS, *overrides),
        ],
        "evaluate_main": [f"--workdir={folder}/model", f"--split={split}", f"--output={folder}/evaluation"],
        "predict_main": [f"--workdir={folder}/model", f"--input={scan}", f"--output={folder}/answers"],
    }
    for main, arguments in steps.items():
        result = mains.run(main, *arguments)
        assert result.code == 0, f"{main}: {result.err}"
    return json.loads((folder / "evaluation" / "metrics.json").read_text()), folder / "answers"


class RealFilesTest:
    def test_hippocampus_mosaics(self, tmp_path):
        cases = ("001", "003", "004", "006", "007", "008", "011", "015", "017", "019")
        names = [f"{kind}/hippocampus_{case}.nii.gz" for kind in ("images", "labels") for case in cases]
        source = copied("msd_hippocampus", names, tmp_path / "source")
        split = {"train": [f"hippocampus_{case}" for case in cases[:8]], "val": [f"hippocampus_{c}" for c in cases[8:]]}
        (source / "split.json").write_text(json.dumps(split))
        scan = source / "images" / "hippocampus_017.nii.gz"
        mosaics = ["--config.input.mosaic=(2,2,2)", "--config.input.tile_size=(40,56,40)", "--config.train.stages=()"]
        views = ["--config.inference.flip_axes=(False,False,False)"]  # one, as eight take eight times the time
        metrics, answers = walk("hippocampus", source, tmp_path, split="val", scan=scan, overrides=mosaics + views)
        assert metrics["num_volumes"] == 1  # two cases share one mosaic
        assert metrics["num_truths"] == 4  # an anterior and a posterior part each
        labels = read_volume(answers / "hippocampus_017_instances.nii.gz")
        original = read_volume(scan)
        assert labels.array.shape == original.array.shape
        np.testing.assert_allclose(labels.affine, original.affine, atol=1e-5)
        table = list(csv.DictReader((answers / "hippocampus_017_detections.csv").open()))
        assert {row["class"] for row in table} <= {"anterior", "posterior"}
        assert labels.array.max() <= len(table)

    def test_nuclei(self, tmp_path):
        names = [
            f"{case}_{kind}.tif" for case in ("embryo_16cell_train", "ovule_1135_val") for kind in ("image", "labels")
        ]
        source = copied("nuclei", names, tmp_path / "source")
        scan = source / "ovule_1135_val_image.tif"
        views = ["--config.inference.flip_axes=(False,False,True)"]  # two, which take a quarter of the time of eight
        metrics, answers = walk("nuclei", source, tmp_path, split="val", scan=scan, overrides=views)
        assert metrics["num_volumes"] == 1
        assert metrics["num_truths"] == 17  # of 18, one has fewer voxels than data.min_voxels
        labels = read_volume(answers / "ovule_1135_val_image_instances.tif")
        original = read_volume(scan)
        assert labels.array.shape == original.array.shape == (34, 100, 100)
        np.testing.assert_allclose(labels.spacing, original.spacing, rtol=1e-4)
        assert (answers / "ovule_1135_val_image_slices.png").stat().st_size > 10_000
