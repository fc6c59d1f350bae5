import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data import convert, instance_table, records, synthetic
from data.cases import find_cases
from data.errors import InputError
from data.readers import read_volume
from data.writers import write_volume

SHAPE = (9, 11, 14)


def synthetic_config(records_folder="unused", **changes):
    settings = {"shape": SHAPE, "count": (0, 3), "base_size": 2.0, "num_train": 3, "num_val": 2, "num_test": 1}
    return schema.Data(records=str(records_folder), synthetic=schema.Synthetic(**{**settings, **changes}))


def folder_config(source, **changes):
    return schema.Data(source=str(source), **{"classes": ("cell",), **changes})


def write_cases(folder, names, *, channels=1, shape=SHAPE):
    """A folder of cases with one cell of 8 voxels and one of a single voxel."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 1000, (*shape, channels)).astype(np.uint16)
        ids = np.zeros(shape, np.int32)
        ids[1:3, 1:3, 1:3] = 7
        ids[6, 7, 8] = 3
        write_volume(folder / f"{name}_image.nii.gz", image[..., 0] if channels == 1 else image, (2.0, 1.0, 0.5))
        write_volume(folder / f"{name}_labels.nii.gz", ids.astype(np.uint8), (2.0, 1.0, 0.5))


def read_records(folder):
    """{split: list of parsed records} of a folder."""
    manifest = records.read_manifest(folder)
    return {
        split: [
            {key: value.numpy() for key, value in records.parse(record).items()}
            for shard in shards
            for record in tf.data.TFRecordDataset(os.path.join(folder, shard["file"]))
        ]
        for split, shards in manifest["shards"].items()
    }


class SyntheticTest:
    def test_records_hold_the_drawn_volumes_in_consecutive_ranges(self, tmp_path):
        config = synthetic_config()
        convert.convert(config, tmp_path / "out", progress=False)
        found = read_records(tmp_path / "out")
        assert {split: len(cases) for split, cases in found.items()} == {"train": 3, "val": 2, "test": 1}
        for index, case in enumerate(found["train"] + found["val"] + found["test"]):
            image, ids, class_ids, _, _ = synthetic.draw("shapes", config.synthetic, index)
            np.testing.assert_array_equal(case["volume"][..., 0], image)
            np.testing.assert_array_equal(case["instance_ids"], ids)
            np.testing.assert_array_equal(case["class_ids"], class_ids)
            assert case["name"].decode() == f"shapes_0_{index:05d}"

    def test_manifest(self, tmp_path):
        config = synthetic_config()
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert records.read_manifest(tmp_path / "out") == manifest
        records.check_shards(tmp_path / "out", manifest)
        records.check_matches(manifest, config.classes, 1)
        assert manifest["source"] == "synthetic:shapes"
        assert manifest["num_cases"] == {"train": 3, "val": 2, "test": 1}
        assert manifest["largest_shape"] == list(SHAPE)
        assert manifest["spacing_median"] == [1.0, 1.0, 1.0]
        assert (manifest["attributes"], manifest["num_attributes"], manifest["keypoints"]) == ([], 0, [])
        found = read_records(tmp_path / "out")
        assert manifest["max_instances"] == max(len(case["class_ids"]) for cases in found.values() for case in cases)
        for split, cases in found.items():
            counts = np.bincount(np.concatenate([case["class_ids"] for case in cases]), minlength=4)[1:]
            names = synthetic.CLASSES["shapes"]
            assert manifest["num_instances"][split] == dict(zip(names, counts.tolist(), strict=True))
            assert sum(shard["records"] for shard in manifest["shards"][split]) == len(cases)

    def test_classes_in_another_order_are_translated(self, tmp_path):
        config = synthetic_config()
        usual = [case.class_ids for _, case, _ in convert.cases(config)]
        config.classes = ("pyramid", "ellipsoid", "cuboid")
        other = [case.class_ids for _, case, _ in convert.cases(config)]
        assert sum(len(ids) for ids in usual) > 3
        for ours, theirs in zip(usual, other, strict=True):
            np.testing.assert_array_equal(np.array([0, 2, 3, 1])[ours], theirs)

    def test_small_instances_are_taken_out_and_counted(self):
        config = synthetic_config(count=(3, 3))
        everything = [case for _, case, _ in convert.cases(config)]
        config.min_voxels = 40
        total = 0
        for whole, (_, case, dropped) in zip(everything, convert.cases(config), strict=True):
            kept = np.flatnonzero(np.bincount(whole.instance_ids.ravel())[1:] >= 40) + 1
            assert dropped == {"below_min_voxels": len(whole.class_ids) - len(kept)}
            np.testing.assert_array_equal(case.class_ids, whole.class_ids[kept - 1])
            for new, old in enumerate(kept, start=1):
                np.testing.assert_array_equal(case.instance_ids == new, whole.instance_ids == old)
            total += len(kept)
        assert 0 < total < sum(len(case.class_ids) for case in everything)

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("source", "synthetic:tubes", "expected a folder or synthetic:shapes .*, came 'synthetic:tubes'"),
            ("classes", ("ellipsoid", "cube"), r"data.classes: .*came \('ellipsoid', 'cube'\)"),
            ("synthetic", schema.Synthetic(num_train=0, num_val=0, num_test=0), "at least one case, came none"),
        ],
    )
    def test_settings_that_do_not_fit(self, tmp_path, field, value, words):
        config = synthetic_config()
        setattr(config, field, value)
        with pytest.raises(InputError, match=words):
            convert.convert(config, tmp_path / "out", progress=False)
        assert list(tmp_path.iterdir()) == []


class FolderTest:
    def test_cases_split_by_name_keep_their_split(self, tmp_path):
        write_cases(tmp_path / "in", ["a_train", "b_val"])
        manifest = convert.convert(folder_config(tmp_path / "in", min_voxels=2), tmp_path / "out", progress=False)
        assert manifest["num_cases"] == {"train": 1, "val": 1, "test": 0}
        assert manifest["num_instances"]["train"] == {"cell": 1}
        assert manifest["dropped"] == {"below_min_voxels": 2}
        assert manifest["settings"] == {"labels": "instances", "min_voxels": 2}
        assert manifest["spacing_median"] == [2.0, 1.0, 0.5]
        assert manifest["shards"]["test"] == []
        case = read_records(tmp_path / "out")["val"][0]
        assert (case["name"], case["source"]) == (b"b_val", b"b_val_image.nii.gz")
        np.testing.assert_array_equal(case["spacing"], [2.0, 1.0, 0.5])
        image = read_volume(tmp_path / "in" / "b_val_image.nii.gz").array
        np.testing.assert_array_equal(case["volume"][..., 0], image)
        assert np.argwhere(case["instance_ids"] == 1).tolist() == [
            [z, y, x] for z in (1, 2) for y in (1, 2) for x in (1, 2)
        ]

    def test_cases_of_unequal_channels_are_refused(self, tmp_path):
        write_cases(tmp_path / "in", ["a"])
        write_cases(tmp_path / "in", ["b"], channels=2)
        with pytest.raises(InputError, match=r"case b: expected 1 channel\(s\) as in case a, came 2"):
            convert.convert(folder_config(tmp_path / "in"), tmp_path / "out", progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_a_class_that_the_config_does_not_know(self, tmp_path):
        write_cases(tmp_path / "in", ["a"])
        instance_table.write(tmp_path / "in" / "a_labels.json", ["cell"] * 2 + ["?"] * 4 + ["wall"])
        with pytest.raises(InputError, match=r"a_labels.*(wall|\?)"):
            convert.convert(folder_config(tmp_path / "in"), tmp_path / "out", progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


class AttributesTest:
    def write(self, folder):
        """Two cases, of whose cells 3 and 7 not all is known."""
        write_cases(folder, ["a_train", "b_val"])
        tables = {
            "a_train": {"3": {"class": "cell", "energy": 0.1}, "7": {"class": "cell", "charge": -1, "energy": 7}},
            "b_val": {"3": "cell", "7": {"class": 1, "charge": 2, "energy": None, "time": 1, "note": ""}},
        }
        for name, table in tables.items():
            (folder / f"{name}_labels.json").write_text(json.dumps(table))

    @pytest.mark.parametrize("names", [("charge", "energy"), ("energy", "charge")])
    def test_reach_the_records_and_are_counted(self, tmp_path, names):
        self.write(tmp_path / "in")
        config = folder_config(tmp_path / "in", attributes=names)
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert (manifest["attributes"], manifest["num_attributes"]) == (list(names), 2)
        assert manifest["dropped"] == {
            "below_min_voxels": 0,
            "attribute charge unknown": 2,
            "attribute energy unknown": 2,
            "attribute note unlisted": 1,
            "attribute time unlisted": 1,
        }
        found = read_records(tmp_path / "out")
        order = [names.index(name) for name in ("charge", "energy")]
        nan = np.nan
        for split, expected in (("train", [[nan, 0.1], [-1, 7]]), ("val", [[nan, nan], [2, nan]])):
            np.testing.assert_array_equal(found[split][0]["attributes"][:, order], np.float32(expected))
        lines = convert.summary(manifest).splitlines()
        assert "left out: 0 instances (below_min_voxels)" in lines
        assert "left out: 2 values (attribute energy unknown)" in lines
        assert "left out: 1 values (attribute time unlisted)" in lines

    def test_of_small_instances_are_not_counted(self, tmp_path):
        self.write(tmp_path / "in")
        config = folder_config(tmp_path / "in", attributes=("energy",), min_voxels=2)
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert manifest["dropped"]["below_min_voxels"] == 2
        assert manifest["dropped"]["attribute energy unknown"] == 1

    def test_come_back_from_written_files(self, tmp_path):
        self.write(tmp_path / "in")
        config = folder_config(tmp_path / "in", attributes=("charge", "energy"))
        convert.convert(config, tmp_path / "direct", progress=False)
        totals = convert.write_files(config, tmp_path / "files", progress=False)
        assert totals["attributes"] == ["charge", "energy"]
        written = json.loads((tmp_path / "files" / "labels" / "a_train.json").read_text())
        assert written == {
            "1": {"class": "cell", "charge": None, "energy": 0.1},
            "2": {"class": "cell", "charge": -1.0, "energy": 7.0},
        }
        config.source = str(tmp_path / "files")
        convert.convert(config, tmp_path / "again", progress=False)
        direct, again = read_records(tmp_path / "direct"), read_records(tmp_path / "again")
        for split in ("train", "val"):
            np.testing.assert_array_equal(direct[split][0]["attributes"], again[split][0]["attributes"])

    def test_synthetic_objects_have_none_that_are_known(self, tmp_path):
        config = synthetic_config(count=(2, 2))
        config.attributes = ("energy",)
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert manifest["dropped"] == {"below_min_voxels": 0, "attribute energy unknown": 12}
        np.testing.assert_array_equal(read_records(tmp_path / "out")["val"][0]["attributes"], [[np.nan]] * 2)

    def test_synthetic_showers_have_an_energy(self, tmp_path):
        sections = ((5, "tungsten", 2.8, 2.0), (6, "iron", 25.0, 8.0))
        config = schema.Data(
            source="synthetic:showers",
            classes=("muon", "photon", "pion"),
            attributes=("charge", "energy"),
            synthetic=schema.Synthetic(shape=(11, 7, 9), count=(2, 3), num_train=2, num_val=0, num_test=0),
        )
        config.synthetic.showers.sections = sections
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert manifest["spacing_median"] == pytest.approx([(5 * 4.8 + 6 * 33.0) / 11, 10.0, 10.0])
        assert {"showers", "seed", "min_voxels"} <= set(manifest["settings"])
        assert not {"cubes", "digits", "nuclei"} & set(manifest["settings"])
        for index, case in enumerate(read_records(tmp_path / "out")["train"]):
            image, ids, class_ids, attributes, _ = synthetic.draw("showers", config.synthetic, index)
            assert case["name"].decode() == f"showers_0_{index:05d}"
            np.testing.assert_array_equal(case["volume"][..., 0], image)
            np.testing.assert_array_equal(case["instance_ids"], ids)
            np.testing.assert_array_equal(case["class_ids"], np.array([2, 3, 1])[class_ids - 1])
            np.testing.assert_array_equal(case["attributes"], np.insert(attributes, 0, np.nan, axis=1))

    def test_what_is_not_listed_is_not_in_the_records_nor_lost(self):
        config = synthetic_config(count=(2, 3))
        found = list(convert.cases(config))
        config.attributes = ("contrast",)
        for index, ((_, without, dropped), (_, case, _)) in enumerate(zip(found, convert.cases(config), strict=True)):
            image, ids, class_ids, contrasts, _ = synthetic.draw("shapes", config.synthetic, index)
            assert dropped == {"below_min_voxels": 0}
            assert without.attributes.shape == (len(class_ids), 0)
            np.testing.assert_array_equal(case.attributes, contrasts)
            for one in (without, case):
                np.testing.assert_array_equal(one.volume.array, image)
                np.testing.assert_array_equal(one.instance_ids, ids)
                np.testing.assert_array_equal(one.class_ids, class_ids)


class KeypointsTest:
    def write(self, folder):
        """Two cases, of whose cells 3 and 7 not all is known."""
        write_cases(folder, ["a_train", "b_val"])
        tables = {
            "a_train": {
                "3": {"class": "cell", "energy": 0.1, "keypoints": {"tail": [6.5, 7.5, 8.1]}},
                "7": {"class": "cell", "keypoints": {"nose": [1, 2, 2.5], "tail": None}},
            },
            "b_val": {"3": "cell", "7": {"class": 1, "keypoints": {"nose": [1.5, 1.5, 3], "ear": [0, 0, 0]}}},
        }
        for name, table in tables.items():
            (folder / f"{name}_labels.json").write_text(json.dumps(table))

    def test_reach_the_records_and_are_counted(self, tmp_path):
        self.write(tmp_path / "in")
        config = folder_config(tmp_path / "in", attributes=("energy",), keypoints=("nose", "tail"))
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert manifest["keypoints"] == ["nose", "tail"]
        assert manifest["dropped"] == {
            "below_min_voxels": 0,
            "attribute energy unknown": 3,
            "keypoint nose unknown": 2,
            "keypoint tail unknown": 3,
            "keypoint ear unlisted": 1,
        }
        found, nowhere = read_records(tmp_path / "out"), [np.nan] * 3
        expected = {
            "train": [[nowhere, [6.5, 7.5, 8.1]], [[1, 2, 2.5], nowhere]],
            "val": [[nowhere, nowhere], [[1.5, 1.5, 3], nowhere]],
        }
        for split, points in expected.items():
            np.testing.assert_array_equal(found[split][0]["keypoints"], np.float32(points))
        lines = convert.summary(manifest).splitlines()
        assert "left out: 3 values (keypoint tail unknown)" in lines
        assert "left out: 1 values (keypoint ear unlisted)" in lines

    def test_come_back_from_written_files(self, tmp_path):
        self.write(tmp_path / "in")
        config = folder_config(tmp_path / "in", keypoints=("tail", "nose"))
        convert.convert(config, tmp_path / "direct", progress=False)
        totals = convert.write_files(config, tmp_path / "files", progress=False)
        assert totals["keypoints"] == ["tail", "nose"]
        written = json.loads((tmp_path / "files" / "labels" / "a_train.json").read_text())
        assert written == {
            "1": {"class": "cell", "keypoints": {"tail": [6.5, 7.5, 8.1], "nose": None}},
            "2": {"class": "cell", "keypoints": {"tail": None, "nose": [1.0, 2.0, 2.5]}},
        }
        config.source = str(tmp_path / "files")
        convert.convert(config, tmp_path / "again", progress=False)
        direct, again = read_records(tmp_path / "direct"), read_records(tmp_path / "again")
        for split in ("train", "val"):
            np.testing.assert_array_equal(direct[split][0]["keypoints"], again[split][0]["keypoints"])

    def test_synthetic_objects_have_none_that_are_known(self, tmp_path):
        config = synthetic_config(count=(2, 2))
        config.keypoints = ("nose",)
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert manifest["dropped"] == {"below_min_voxels": 0, "keypoint nose unknown": 12}
        np.testing.assert_array_equal(read_records(tmp_path / "out")["val"][0]["keypoints"], np.full((2, 1, 3), np.nan))


def fail_at(monkeypatch, number):
    """Synthetic volume `number` cannot be drawn; the list returned grows by those that are."""
    original, drawn = synthetic.draw, []

    def draw(kind, settings, index):
        if index == number:
            raise OSError("disk full")
        drawn.append(index)
        return original(kind, settings, index)

    monkeypatch.setattr(synthetic, "draw", draw)
    return drawn


def contents(folder):
    """{name: bytes} of all files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class OutputTest:
    @pytest.mark.parametrize("write", [convert.convert, convert.write_files])
    def test_a_folder_with_something_in_it_is_refused(self, tmp_path, write):
        (tmp_path / "mine.txt").write_text("keep")
        with pytest.raises(InputError, match="expected a new or empty output folder"):
            write(synthetic_config(), tmp_path, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    @pytest.mark.parametrize("write", [convert.convert, convert.write_files])
    def test_a_file_is_refused_before_any_case_is_made(self, tmp_path, write, monkeypatch):
        (tmp_path / "mine.txt").write_text("keep")
        monkeypatch.setattr(convert, "cases", lambda _: pytest.fail("no case must be made"))
        for output, words in (
            (tmp_path / "mine.txt", "mine.txt: expected a new or empty output folder, got a file"),
            (tmp_path / "mine.txt" / "out", "mine.txt to be a folder, got a file"),
        ):
            with pytest.raises(InputError, match=words):
                write(synthetic_config(), output, progress=False)
        assert (tmp_path / "mine.txt").read_text() == "keep"

    @pytest.mark.parametrize("write", [convert.convert, convert.write_files])
    def test_an_error_before_anything_is_complete_leaves_nothing(self, tmp_path, write, monkeypatch):
        fail_at(monkeypatch, 2)
        with pytest.raises(OSError, match="disk full"):
            write(synthetic_config(), tmp_path / "deep" / "out", progress=False)
        assert list((tmp_path / "deep").iterdir()) == []

    def test_an_empty_folder_is_filled(self, tmp_path):
        (tmp_path / "out").mkdir()
        manifest = convert.convert(synthetic_config(), tmp_path / "out", progress=False)
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        shards = [f"{split}-00000-of-00001.tfrecord" for split in ("test", "train", "val")]
        indices = [f"{shard}.index.json" for shard in shards]
        others = ["conversion.json", "dataset_info.json", "features.json", "manifest.json"]
        assert names == sorted([*shards, *indices, *others])
        assert manifest["shards"]["train"][0]["file"] == "train-00000-of-00001.tfrecord"

    def test_a_shard_is_closed_when_it_has_its_size(self, tmp_path):
        config = synthetic_config(shape=(70, 70, 70), count=(0, 0), num_train=7, num_val=0, num_test=0)
        config.shard_megabytes = 1
        shards = convert.convert(config, tmp_path / "out", progress=False)["shards"]["train"]
        assert [shard["records"] for shard in shards] == [3, 3, 1]  # 343 kB each, and some for the ids
        for shard in shards:
            content = (tmp_path / "out" / shard["file"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])

    def test_conversion_of_written_files_equals_direct_conversion(self, tmp_path):
        config = synthetic_config()
        convert.convert(config, tmp_path / "direct", progress=False)
        totals = convert.write_files(config, tmp_path / "files", progress=False)
        assert totals["num_cases"] == {"train": 3, "val": 2, "test": 1}
        assert json.loads((tmp_path / "files" / "split.json").read_text())["test"] == ["shapes_0_00005"]
        assert len(find_cases(tmp_path / "files")) == 6
        config.source = str(tmp_path / "files")
        again = convert.convert(config, tmp_path / "again", progress=False)
        for key in ("num_cases", "num_instances", "max_instances", "spacing_median", "largest_shape", "dropped"):
            assert again[key] == totals[key]
        direct, found = read_records(tmp_path / "direct"), read_records(tmp_path / "again")
        for split, cases in direct.items():
            for ours, theirs in zip(cases, found[split], strict=True):
                for key in ours.keys() - {"source"}:
                    np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)

    def test_half_precision_is_written_as_files_too(self, tmp_path):
        (tmp_path / "in").mkdir()
        image = np.linspace(0, 1, 5 * 7 * 11, dtype=np.float16).reshape(5, 7, 11)
        np.savez(tmp_path / "in" / "a_image.npz", image=image)
        np.savez(tmp_path / "in" / "a_labels.npz", labels=np.zeros((5, 7, 11), np.uint8))
        convert.write_files(folder_config(tmp_path / "in"), tmp_path / "out", progress=False)
        written = read_volume(tmp_path / "out" / "images" / "a.nii.gz").array
        np.testing.assert_array_equal(written, image.astype(np.float32))


class ResumeTest:
    def test_an_error_leaves_complete_shards_and_the_same_command_continues(self, tmp_path, monkeypatch):
        config = synthetic_config()
        convert.convert(config, tmp_path / "whole", progress=False)
        with monkeypatch.context() as patch:
            fail_at(patch, 3)
            with pytest.raises(OSError, match="disk full"):
                convert.convert(config, tmp_path / "out", progress=False)
        shard = tmp_path / "out" / "train-00000-of-00001.tfrecord"
        written = shard.stat().st_mtime_ns
        with pytest.raises(
            InputError,
            match=r"out: expected finished records, came a conversion that was not; the same command continues it",
        ):
            records.read_manifest(tmp_path / "out")
        drawn = fail_at(monkeypatch, -1)
        convert.convert(config, tmp_path / "out", progress=False)
        assert shard.stat().st_mtime_ns == written
        assert set(drawn) == {0, 3, 4, 5}  # the first once more for its size
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")

    def test_a_finished_conversion_is_left_as_it_is(self, tmp_path):
        manifest = convert.convert(synthetic_config(), tmp_path / "out", progress=False)
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
        assert convert.convert(synthetic_config(), tmp_path / "out", progress=False) == manifest
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times

    def test_other_settings_are_refused_by_name(self, tmp_path):
        convert.convert(synthetic_config(), tmp_path / "out", progress=False)
        before = contents(tmp_path / "out")
        for change, words in (
            ({"shard_megabytes": 7}, r"\(shard_megabytes: 128 -> 7\); choose another output"),
            ({"min_voxels": 9}, r"settings: .*'min_voxels': 1.* -> .*'min_voxels': 9"),
            ({"chunk_size": (50, 60, 70)}, r"chunk_size: \[256, 256, 256\] -> \[50, 60, 70\]"),
        ):
            config = synthetic_config()
            for name, value in change.items():
                setattr(config, name, value)
            with pytest.raises(InputError, match=words):
                convert.convert(config, tmp_path / "out", progress=False)
        assert contents(tmp_path / "out") == before

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
    def test_a_killed_conversion_continues(self, tmp_path):
        settings = {"shape": (80, 90, 100), "count": (2, 5), "base_size": 9.0, "num_train": 30, "num_val": 1}
        config = synthetic_config(**settings)
        config.shard_megabytes = 1
        script = (
            "import json, sys; from configs import schema; from data import convert\n"
            "synthetic = schema.Synthetic(num_test=1, **json.loads(sys.argv[1]))\n"
            "config = schema.Data(synthetic=synthetic, shard_megabytes=1)\n"
            "convert.convert(config, sys.argv[2], progress=False)"
        )
        command = [sys.executable, "-c", script, json.dumps(settings), str(tmp_path / "out")]
        process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[2])
        while process.poll() is None and len(list(tmp_path.glob("out/[!.]*.index.json"))) < 2:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/[!.]*.index.json")}
        times |= {path.with_name(path.name[: -len(".index.json")]): None for path in times}
        times = {path: path.stat().st_mtime_ns for path in times}
        assert len(times) >= 4
        assert not (tmp_path / "out" / "manifest.json").exists()
        convert.convert(config, tmp_path / "out", progress=False)
        assert {path: path.stat().st_mtime_ns for path in times} == times
        convert.convert(config, tmp_path / "whole", progress=False)
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class EnsureRecordsTest:
    def test_draws_what_is_missing_and_reads_it_the_next_time(self, tmp_path):
        config = synthetic_config(tmp_path / "records")
        manifest = convert.ensure_records(config)
        written = (tmp_path / "records" / "manifest.json").stat().st_mtime_ns
        assert convert.ensure_records(config) == manifest
        assert (tmp_path / "records" / "manifest.json").stat().st_mtime_ns == written

    def test_records_of_other_settings_are_refused(self, tmp_path):
        convert.ensure_records(synthetic_config(tmp_path / "records"))
        with pytest.raises(InputError, match=r"came others \(num_train: 3 -> 4\); choose another data.records"):
            convert.ensure_records(synthetic_config(tmp_path / "records", num_train=4))

    def test_records_of_a_folder_with_other_labels_or_min_voxels_are_refused(self, tmp_path):
        write_cases(tmp_path / "in", ["a"])
        config = folder_config(tmp_path / "in", records=str(tmp_path / "records"), min_voxels=2)
        manifest = convert.convert(config, config.records, progress=False)
        assert convert.ensure_records(config) == manifest
        config.min_voxels = 1
        words = r"records made with the config's data.min_voxels=1, came min_voxels=2; convert .*in again into another"
        with pytest.raises(InputError, match=words):
            convert.ensure_records(config)
        config.labels = "semantic"
        words = (
            "data.labels=semantic, data.min_voxels=1, came labels=instances, min_voxels=2; convert .* or set the config"
        )
        with pytest.raises(InputError, match=words):
            convert.ensure_records(config)

    def test_records_of_written_files_serve_the_config_that_wrote_them(self, tmp_path):
        config = synthetic_config(tmp_path / "records")
        convert.write_files(config, tmp_path / "files", progress=False)
        config.source = str(tmp_path / "files")
        manifest = convert.convert(config, config.records, progress=False)
        config.source = "synthetic:shapes"
        assert convert.ensure_records(config) == manifest
        config.min_voxels = 5
        with pytest.raises(InputError, match=r"data\.min_voxels=5, came min_voxels=1"):
            convert.ensure_records(config)

    def test_drawn_records_serve_the_config_of_a_folder(self, tmp_path):
        manifest = convert.convert(synthetic_config(), tmp_path / "records", progress=False)
        config = folder_config(tmp_path / "in", records=str(tmp_path / "records"), min_voxels=20)
        assert convert.ensure_records(config) == manifest

    def test_other_sources_are_not_converted_unasked(self, tmp_path):
        config = folder_config(tmp_path, records=str(tmp_path / "records"))
        with pytest.raises(InputError, match=r"no records at .*; make them with convert_main.py"):
            convert.ensure_records(config)

    def test_another_worker_may_be_faster(self, tmp_path, monkeypatch):
        config = synthetic_config(tmp_path / "records")
        original = convert.convert

        def beaten(data_config, output, patch_size):
            original(data_config, output, progress=False)
            raise OSError("Directory not empty")

        monkeypatch.setattr(convert, "convert", beaten)
        assert convert.ensure_records(config)["num_cases"]["train"] == 3

    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        with pytest.raises(InputError, match="expected a new or empty output folder"):
            convert.ensure_records(synthetic_config(tmp_path))


class SummaryTest:
    def test_says_what_is_there_and_what_is_not(self, tmp_path):
        write_cases(tmp_path / "in", ["a_train", "b_val"])
        manifest = convert.convert(folder_config(tmp_path / "in", min_voxels=2), tmp_path / "out", progress=False)
        lines = convert.summary(manifest).splitlines()
        assert lines[0].startswith("train: 1 cases, 1 instances (cell 1), 0.0 MB in 1 shard(s)")
        assert lines[2] == "test: 0 cases, 0 instances (cell 0), 0.0 MB in 0 shard(s)"
        assert lines[3].startswith("largest volume [9, 11, 14] voxels, median spacing [2.0, 1.0, 0.5] mm")
        assert lines[4] == "left out: 2 instances (below_min_voxels)"
