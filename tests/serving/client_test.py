import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tensorflow as tf
import tifffile
from matplotlib import image as matplotlib_image

from data import readers, writers
from ops.keypoints import KEYPOINTS
from serving import answers, client

PROJECT = {"configs", "data", "evaluation", "model", "ops", "serving", "training"}
# What `python client.py` does, and then which modules of the project it has loaded.
RUN = f"""
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
print(sorted({PROJECT} & set(sys.modules)))
"""
SHAPE, SPACING = (11, 21, 37), (2.5, 0.75, 0.5)
CLIENT = Path(client.__file__)


def volume(shape=SHAPE):
    return np.random.default_rng(0).normal(300, 50, shape).astype(np.float32)


def oblique_image():
    image = SimpleITK.GetImageFromArray(volume())
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((10, -20, 5))
    image.SetDirection((0.8, 0.0, 0.6, 0.0, 1.0, 0.0, -0.6, 0.0, 0.8))
    return image


@pytest.fixture(scope="module")
def loaded(saved_model):
    return tf.saved_model.load(str(saved_model[0]))


@pytest.fixture
def ask(saved_model, loaded, tmp_path, monkeypatch):
    """Runs the client in this process, which has the project and the model loaded; returns the output folder."""
    monkeypatch.setattr(client.tf.saved_model, "load", lambda path: loaded)

    def run(path, *, model=saved_model[0], output=tmp_path / "answers"):
        monkeypatch.setattr(
            sys, "argv", ["client.py", f"--model={model}", f"--input={path}", f"--output={output}", "--min_score=0"]
        )
        client.main()
        return output

    return run


class ClientTest:
    def test_needs_no_project_code(self, saved_model, tmp_path):
        SimpleITK.WriteImage(oblique_image(), str(tmp_path / "scan.nii.gz"))
        output = tmp_path / "answers"
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                RUN,
                str(CLIENT),
                f"--model={saved_model[0]}",
                f"--input={tmp_path / 'scan.nii.gz'}",
                f"--output={output}",
                "--min_score=0",
            ],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=True,
        )
        rows = json.loads((output / "scan.json").read_text())
        assert len(rows) > 0
        *table, last, project_modules = done.stdout.splitlines()
        assert project_modules == "[]"
        assert last == f"{len(rows)} object(s) in {output}/scan_labels.nii.gz"
        assert sorted(path.name for path in output.iterdir()) == ["scan.json", "scan.png", "scan_labels.nii.gz"]
        assert [line.split()[:2] for line in table] == [[str(row["id"]), row["class"]] for row in rows]
        labels = SimpleITK.ReadImage(str(output / "scan_labels.nii.gz"))
        np.testing.assert_allclose(labels.GetOrigin(), (10, -20, 5), atol=1e-5)
        np.testing.assert_allclose(labels.GetSpacing(), SPACING[::-1], atol=1e-6)
        np.testing.assert_allclose(labels.GetDirection(), oblique_image().GetDirection(), atol=1e-6)
        counts = np.bincount(SimpleITK.GetArrayFromImage(labels).ravel(), minlength=len(rows) + 1)
        assert [row["voxels"] for row in rows] == counts[1:].tolist()
        picture = matplotlib_image.imread(output / "scan.png")
        assert picture.shape[:2] == (450, 1200)

    def test_imports_nothing_of_the_project(self):
        imports = [line.split()[1] for line in CLIENT.read_text().splitlines() if line.strip().startswith("import ")]
        froms = [line.split()[1] for line in CLIENT.read_text().splitlines() if line.strip().startswith("from ")]
        third_party = {"numpy", "tensorflow", "SimpleITK", "tifffile", "matplotlib.figure"}
        assert {name.split(".")[0] for name in set(imports + froms) - third_party} <= set(sys.stdlib_module_names)

    @pytest.mark.parametrize("suffix", [".tif", ".npz", ".nii"])
    def test_labels_keep_the_grid(self, ask, tmp_path, suffix):
        path = tmp_path / f"a.b{suffix}"
        writers.write_volume(path, volume(), SPACING)
        output = ask(path)
        labels = readers.read_volume(output / f"a.b_labels{suffix}")
        assert labels.array.shape == SHAPE
        assert labels.array.dtype.kind in "iu"
        np.testing.assert_allclose(labels.spacing, SPACING, rtol=1e-6)
        rows = json.loads((output / "a.b.json").read_text())
        counts = np.bincount(labels.array.ravel(), minlength=len(rows) + 1)
        assert [row["voxels"] for row in rows] == counts[1:].tolist()

    @pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
    def test_reads_channels(self, tmp_path, suffix):
        array = volume((5, 7, 11, 2))
        writers.write_volume(tmp_path / f"a{suffix}", array, SPACING)
        read, write_labels = client.read(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read, array)
        write_labels(tmp_path / f"b{suffix}", np.ones((5, 7, 11), np.int32))
        labels = readers.read_volume(tmp_path / f"b{suffix}")
        assert labels.array.shape == (5, 7, 11)
        np.testing.assert_allclose(labels.spacing, SPACING, rtol=1e-6)

    @pytest.mark.parametrize(
        ("axes", "shape", "options"),
        [
            ("ZYX", (5, 7, 11), {"imagej": True}),
            ("CYX", (5, 7, 11), {"imagej": True}),  # slices that nobody named
            ("TYX", (5, 7, 11), {"imagej": True}),
            ("ZYX", (1, 7, 11), {"imagej": True}),
            ("ZCYX", (5, 2, 7, 11), {"imagej": True}),
            ("TZYX", (2, 5, 7, 11), {"imagej": True}),
            ("ZYXS", (5, 7, 11, 3), {"imagej": True, "photometric": "rgb"}),
            ("QYX", (5, 7, 11), {}),
            ("QYX", (1, 7, 11), {}),
            ("QYXS", (5, 7, 11, 3), {"photometric": "rgb"}),
            ("ZYX", (5, 7, 11), {"ome": True}),
            ("ZYX", (1, 7, 11), {"ome": True}),
            ("CZYX", (2, 5, 7, 11), {"ome": True}),
            ("ZCYX", (1, 2, 7, 11), {"ome": True}),
        ],
    )
    def test_reads_tiff_as_the_project_does(self, tmp_path, axes, shape, options):
        sizes = {"spacing": 2.5, "unit": "um"} if "imagej" in options else {}
        if "ome" in options:
            sizes = {"PhysicalSizeZ": 2.5, "PhysicalSizeY": 750, "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.5}
        metadata = sizes | ({} if "Q" in axes else {"axes": axes})
        resolution = {} if "ome" in options else {"resolution": (2, 4), "resolutionunit": "CENTIMETER"}
        array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
        array = array.astype(np.uint8) if "S" in axes else array  # ImageJ's colours
        tifffile.imwrite(tmp_path / "a.tif", array, metadata=metadata, **options, **resolution)

        expected = readers.read_volume(tmp_path / "a.tif")
        read, write_labels = client.read(tmp_path / "a.tif")
        np.testing.assert_array_equal(read, expected.array.reshape(read.shape))
        assert read.shape[:3] == expected.array.shape[:3]
        ids = np.arange(np.prod(read.shape[:3]), dtype=np.int32).reshape(read.shape[:3])
        write_labels(tmp_path / "b.tif", ids)
        labels = readers.read_volume(tmp_path / "b.tif")
        np.testing.assert_array_equal(labels.array, ids)
        np.testing.assert_allclose(labels.spacing, expected.spacing, rtol=1e-6)

    def test_nothing_found(self, tmp_path):
        labels = np.zeros((5, 7, 11), np.int32)
        client.draw(tmp_path / "a.png", volume((5, 7, 11)), labels, [])
        assert matplotlib_image.imread(tmp_path / "a.png").shape[:2] == (450, 1200)


class Measures:
    """In place of a SavedModel: finds two objects and fills a third row, with what is asked for beside."""

    def __init__(self, *heads):
        labels = np.zeros((5, 7, 11), np.int32)
        labels[1:3, 2:5, 3:7], labels[4] = 1, 2
        rng = np.random.default_rng(0)
        self.answer = {
            "boxes": np.float32([[1, 2, 3, 3, 5, 7], [4, 0, 0, 5, 7, 11], [0] * 6]),
            "scores": np.float32([0.9, 0.6, 0]),
            "class_ids": np.int32([2, 1, 0]),
            "valid": np.array([True, True, False]),
            "num_detections": np.int32(2),
            "labels": labels,
        }
        more = {
            "attributes": np.float32([[1234567.8, -2.5], [1e-7, 0.1], [0, 0]]),
            "keypoints": rng.uniform(0, 11, (3, 7, 3)).astype(np.float32),
            "keypoint_scores": rng.uniform(size=(3, 7)).astype(np.float32),
        }
        self.answer |= {name: more[name] for name in heads}
        self.signatures = {"serving_default": self.segment}

    def segment(self, volume):
        assert volume.shape == (5, 7, 11, 1)
        return {name: tf.constant(value) for name, value in self.answer.items()}


NAMES = {"classes": ["plate", "rod"], "attributes": ["energy", "charge"], "keypoints": list(KEYPOINTS)}


class MeasuredTest:
    def test_says_what_predict_main_says(self, tmp_path):
        model = Measures("attributes", "keypoints", "keypoint_scores")
        _, rows = client.ask(model, NAMES, volume((5, 7, 11, 1)), 0.5)
        writers.write_volume(tmp_path / "a.nii.gz", volume((5, 7, 11)), SPACING)
        source = readers.read_volume(tmp_path / "a.nii.gz")
        table = answers.rows(answers.confident(model.answer, 0.5), ["plate", "rod"], source, ["energy", "charge"])
        assert len(rows) == len(table) == 2
        for ours, theirs in zip(rows, table, strict=True):
            assert [ours[name] for name in ("id", "class", "score", "voxels")] == [
                theirs[name] for name in ("id", "class", "score", "voxels")
            ]
            assert ours["attributes"] == {name: theirs[f"attribute_{name}"] for name in ("energy", "charge")}
            assert list(ours["keypoints"]) == list(ours["keypoint_scores"]) == list(KEYPOINTS)
            for name in KEYPOINTS:
                assert ours["keypoints"][name] == [theirs[f"{name}_{axis}"] for axis in "zyx"]
                assert ours["keypoint_scores"][name] == theirs[f"{name}_score"]
        assert rows[0]["attributes"] == {"energy": 1234570.0, "charge": -2.5}
        json.dumps(rows)

    def test_landmarks_of_the_data_have_their_own_names(self):
        model = Measures("keypoints", "keypoint_scores")
        names = {**NAMES, "attributes": [], "keypoints": list("abcdefg")}
        _, (row, _) = client.ask(model, names, volume((5, 7, 11, 1)), 0.5)
        assert list(row["keypoints"]) == list(row["keypoint_scores"]) == list("abcdefg")
        assert row["keypoints"]["b"] == pytest.approx(model.answer["keypoints"][0, 1].tolist(), abs=0.005)

    def test_of_objects_that_are_certain_enough_alone(self):
        _, rows = client.ask(Measures("attributes"), NAMES, volume((5, 7, 11, 1)), 0.7)
        assert [row["attributes"]["energy"] for row in rows] == [1234570.0]

    def test_models_without_the_heads_say_what_they_said(self):
        _, rows = client.ask(Measures(), {**NAMES, "attributes": []}, volume((5, 7, 11, 1)), 0.5)
        assert [list(row) for row in rows] == [["id", "class", "score", "box", "voxels"]] * 2

    @pytest.mark.parametrize(
        ("data", "attributes", "keypoints"),
        [
            ({}, [], list(KEYPOINTS)),
            ({"attributes": ["energy"], "keypoints": []}, ["energy"], list(KEYPOINTS)),
            ({"keypoints": ["nose", "tail"]}, [], ["nose", "tail"]),
        ],
    )
    def test_names_come_from_the_config(self, tmp_path, data, attributes, keypoints):
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "config.json").write_text(json.dumps({"data": {"classes": ["rod"], **data}}))
        spec = tf.TensorSpec([None, None, None, 1], tf.float32, name="volume")
        model = tf.Module()
        model.segment = tf.function(lambda volume: {"labels": volume}, input_signature=[spec])
        tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": model.segment})
        _, names = client.load(tmp_path, 1)
        assert names == {"classes": ["rod"], "attributes": attributes, "keypoints": keypoints}


class MisuseTest:
    def error(self, capsys, run, *args, **kwargs):
        """The one line that a misuse ends with."""
        with pytest.raises(SystemExit) as stop:
            run(*args, **kwargs)
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    def test_missing_argument(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["client.py", "--model=a"])
        assert "the following arguments are required: --input, --output" in self.error(capsys, client.main)

    def test_missing_input(self, ask, capsys, tmp_path):
        assert "a.npz: expected a file, found none" in self.error(capsys, ask, tmp_path / "a.npz")

    def test_unknown_format(self, ask, capsys, tmp_path):
        (tmp_path / "a.txt").write_text("1")
        assert "a.txt: expected .nii.gz, .nii, .tiff, .tif, .npz" in self.error(capsys, ask, tmp_path / "a.txt")

    @pytest.mark.parametrize("suffix", [".tif", ".npz", ".nii.gz"])
    def test_damaged_input(self, ask, capsys, tmp_path, suffix):
        (tmp_path / f"a{suffix}").write_bytes(b"not a volume")
        assert f"a{suffix}: cannot be read: " in self.error(capsys, ask, tmp_path / f"a{suffix}")

    def test_flat_image(self, ask, capsys, tmp_path):
        np.savez(tmp_path / "a.npz", image=np.ones((7, 11), np.uint8))
        assert "expected numbers [z, y, x] or [z, y, x, channel], came uint8 (7, 11)" in self.error(
            capsys, ask, tmp_path / "a.npz"
        )

    @pytest.mark.parametrize(
        ("shape", "options", "words"),
        [
            ((7, 11), {}, "z, y, x and at most one more, came YX of sizes [7, 11]"),
            ((5, 7, 11, 13), {}, "came QQYX of sizes [5, 7, 11, 13]"),
            ((2, 5, 3, 7, 11), {"imagej": True, "metadata": {"axes": "TZCYX"}}, "came TZCYX of sizes [2, 5, 3, 7, 11]"),
        ],
    )
    def test_tiff_of_other_axes(self, ask, capsys, tmp_path, shape, options, words):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), **options)
        assert words in self.error(capsys, ask, tmp_path / "a.tif")

    def test_tiff_of_two_images(self, ask, capsys, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            writer.write(np.zeros((5, 7, 11), np.uint8))
            writer.write(np.zeros((3, 9, 13), np.uint8))
        assert "expected one image series, came 2" in self.error(capsys, ask, tmp_path / "a.tif")

    def test_voxels_that_are_not_finite(self, ask, capsys, tmp_path):
        array = volume()
        array[1, 2, 3] = np.nan
        np.savez(tmp_path / "a.npz", image=array)
        assert "a.npz: expected finite voxels, came 1 that are not" in self.error(capsys, ask, tmp_path / "a.npz")

    def test_missing_model(self, ask, capsys, tmp_path):
        np.savez(tmp_path / "a.npz", image=volume())
        words = f"--model={tmp_path}: expected a SavedModel of this project"
        assert words in self.error(capsys, ask, tmp_path / "a.npz", model=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]

    def test_wrong_channels(self, ask, capsys, tmp_path):
        np.savez(tmp_path / "a.npz", image=volume((*SHAPE, 2)))
        assert "expected 1 channel(s), came 2" in self.error(capsys, ask, tmp_path / "a.npz")
        assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]

    def test_output_is_a_file(self, ask, capsys, tmp_path):
        np.savez(tmp_path / "a.npz", image=volume())
        assert "a.npz: expected a folder" in self.error(capsys, ask, tmp_path / "a.npz", output=tmp_path / "a.npz")

    def test_answer_that_cannot_be_written_leaves_what_was_there(self, capsys, tmp_path):
        def write_half(path):
            path.write_text("new")
            raise OSError("disk full")

        (tmp_path / "a.json").write_text("old")
        assert "a.json: cannot be written: disk full" in self.error(
            capsys, client.write, tmp_path / "a.json", write_half
        )
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]
