import json
import shutil

import pytest

from configs import schema
from data import convert
from ops.keypoints import KEYPOINTS
from tests import mains, measuring, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where there are records, good and bad, and where what evaluations write goes."""
    folder = tmp_path_factory.mktemp("evaluate")
    volumes = schema.Synthetic(shape=(9, 20, 31), count=(1, 2), base_size=2.0, num_train=1, num_val=3, num_test=0)
    data = schema.Data(classes=("ellipsoid", "cuboid", "pyramid"), synthetic=volumes)
    convert.convert(data, folder / "other_classes", progress=False)
    _write_files(folder / "files")
    convert.convert(schema.Data(source=str(folder / "files"), classes=tiny.CLASSES), folder / "records", progress=False)
    measured = schema.Data(source=str(folder / "files"), classes=tiny.CLASSES, attributes=measuring.ATTRIBUTES)
    convert.convert(measured, folder / "measured", progress=False)
    _damage_last_record(folder / "records", folder / "damaged")
    return folder


@pytest.fixture(scope="module")
def results(untrained_run, folder):
    """What evaluations of the tiny run end with."""
    run, none = f"--workdir={untrained_run}", f"--output={folder}/none"
    commands = {
        "val": [run, f"--records={folder}/records", f"--output={folder}/out", "--num_pictures=1"],
        "no run": [f"--workdir={folder}/absent"],
        "no records": [run, f"--records={folder}/absent"],
        "empty split": [run, f"--records={folder}/records", "--split=test", none],
        "other attributes": [run, f"--records={folder}/measured", none],
        "other classes": [run, f"--records={folder}/other_classes", none],
        "damaged": [run, f"--records={folder}/damaged", none],
        "below a file": [run, f"--records={folder}/records", f"--output={folder}/records/manifest.json/out"],
    }
    return mains.run_each("evaluate_main", commands)


@pytest.fixture(scope="module")
def measuring_results(folder):
    """What evaluations of a network with attributes and landmarks end with; apart, as each takes a while."""
    measuring.run(folder / "measuring")
    run = f"--workdir={folder}/measuring"
    commands = {
        "measured": [run, f"--records={folder}/measured", f"--output={folder}/out_measured"],
        "no attributes": [run, f"--records={folder}/records", f"--output={folder}/none"],
    }
    return mains.run_each("evaluate_main", commands)


def _write_files(folder):
    """Three validation cases, the last of them without any object, and one training case."""
    import numpy as np

    from data import instance_table
    from data.writers import write_volume

    rng = np.random.default_rng(0)
    names = {"train": ["a"], "val": ["b", "c", "d"]}
    for name in [n for split in names.values() for n in split]:
        labels = np.zeros((9, 20, 31), np.uint8)
        if name != "d":
            labels[2:5, 3:9, 4:13] = 1
            labels[6:8, 12:18, 20:25] = 2
        write_volume(folder / "images" / f"{name}.nii.gz", labels + rng.normal(0, 0.1, labels.shape), (2.0, 1.0, 1.0))
        write_volume(folder / "labels" / f"{name}.nii.gz", labels, (2.0, 1.0, 1.0))
        classes, values = list(tiny.CLASSES[: int(labels.max())]), np.array([[12.5, 3.0], [np.nan, 4.0]])
        path = folder / "labels" / f"{name}.json"
        instance_table.write(path, classes, measuring.ATTRIBUTES, values[: len(classes)])
    (folder / "split.json").write_text(json.dumps(names))


def _damage_last_record(records, target):
    shutil.copytree(records, target)
    shard = next(target.glob("val-*"))
    data = bytearray(shard.read_bytes())
    data[-100] ^= 0xFF
    shard.write_bytes(data)


class EvaluateMainTest:
    def test_help_names_every_flag(self):
        text = mains.run("evaluate_main", "--help").out
        assert all(f"--{flag}" in text for flag in ("workdir", "records", "split", "output", "num_pictures"))

    def test_writes_metrics_and_a_picture_and_prints_the_table(self, results, folder):
        assert results["val"].code == 0, results["val"].err
        summary = json.loads((folder / "out" / "metrics.json").read_text())
        assert summary["num_volumes"] == 3
        assert summary["num_truths"] == 4
        assert list(summary["mask_ap"]) == ["0.10", "0.20", "0.30", "0.40", "0.50", "0.60", "0.70", "0.75"]
        assert set(summary["box_ap"]["0.50"]) == {"pooled", "mean", *tiny.CLASSES}
        assert (folder / "out" / "metrics.txt").read_text() in results["val"].out
        assert len(list((folder / "out").glob("*.png"))) == 1
        assert "box AP" in results["val"].out
        assert "mask AP" in results["val"].out

    def test_attributes_and_landmarks_only_of_networks_that_have_them(self, results, measuring_results, folder):
        done = measuring_results["measured"]
        assert done.code == 0, done.err
        summary = json.loads((folder / "out_measured" / "metrics.json").read_text())
        assert list(summary["attributes"]) == list(measuring.ATTRIBUTES)
        assert list(summary["keypoints"]) == list(KEYPOINTS)
        for row in [*summary["attributes"].values(), *summary["keypoints"].values()]:
            assert row["num_values"] + row.get("num_unknown", 0) == summary["num_matched"]
        text = (folder / "out_measured" / "metrics.txt").read_text()
        assert text in done.out
        assert "\nattributes  num values  num unknown" in text
        assert "\nkeypoints  num values  num unknown  mean distance\n" in text
        plain = json.loads((folder / "out" / "metrics.json").read_text())
        assert summary.keys() - plain.keys() == {"attributes", "keypoints"}
        assert "num unknown" not in results["val"].out

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("no run", "expected a run with config.json, found none"),
            ("no records", "no records at"),
            ("empty split", "test"),
            ("other classes", "ellipsoid"),
            ("other attributes", "expected the config's attributes [], came ['energy', 'charge']"),
            ("no attributes", "expected the config's attributes ['energy', 'charge'], came []"),
            ("damaged", "val-"),
            ("below a file", "expected a folder, came the file"),
        ],
    )
    def test_misuse_is_one_line_and_leaves_nothing(self, results, measuring_results, folder, name, words):
        results = results | measuring_results
        assert results[name].code == 2
        progress, *error = results[name].err.strip().split("error: ")
        assert len(error) == 1
        assert words in error[0]
        assert "\n" not in error[0]
        assert progress.strip() == "" or (name == "damaged" and progress.strip().startswith("evaluate:"))
        assert not (folder / "none").exists()
