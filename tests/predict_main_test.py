import csv
import json
import math
import shutil

import numpy as np
import pytest
import SimpleITK
from matplotlib import image as matplotlib_image

from configs import schema
from data import readers, writers
from ops.keypoints import KEYPOINTS
from serving import client, export
from tests import mains, measuring

SHAPE, SPACING = (9, 21, 37), (2.5, 0.75, 0.5)
CENTRE = ("x_mm", "y_mm", "z_mm")
DIRECTION = (0.8, 0.0, 0.6, 0.0, 1.0, 0.0, -0.6, 0.0, 0.8)


def write_scans(folder):
    """The same volume as an oblique NIfTI, a TIFF and an NPZ, and three files that cannot be answered."""
    array = np.random.default_rng(0).normal(300, 50, SHAPE).astype(np.float32)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((10, -20, 5))
    image.SetDirection(DIRECTION)
    SimpleITK.WriteImage(image, str(folder / "scan.nii.gz"))
    writers.write_volume(folder / "scan.tif", array, SPACING)
    writers.write_volume(folder / "scan.npz", array, SPACING)
    writers.write_volume(folder / "two_channels.npz", np.stack([array, array], axis=-1), SPACING)
    array[1, 2, 3] = np.inf
    writers.write_volume(folder / "infinite.npz", array, SPACING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def results(folder, untrained_run, saved_model):
    write_scans(folder)
    run, model = f"--workdir={untrained_run}", f"--model={saved_model[0]}"
    output = f"--output={folder / 'answers'}"
    measuring_model = measuring.run(folder / "measuring")
    text = schema.to_json(measuring.config())
    export.export(measuring_model, measuring.config(), text, folder / "measuring_model")
    everything = "--min_score=0"  # nothing that an untrained network says is certain
    return mains.run_each(
        "predict_main",
        {
            ".nii.gz": [run, f"--input={folder / 'scan.nii.gz'}", output, everything],
            ".tif": [model, f"--input={folder / 'scan.tif'}", f"{output}_tif", everything],
            ".npz": [model, f"--input={folder / 'scan.npz'}", f"{output}_npz", everything],
            "certain": [model, f"--input={folder / 'scan.npz'}", f"{output}_certain", "--min_score=0.999"],
            "no model": [f"--input={folder / 'scan.tif'}", output],
            "two models": [run, model, f"--input={folder / 'scan.tif'}", output],
            "missing input": [model, f"--input={folder / 'nowhere.tif'}", output],
            "missing workdir": [f"--workdir={folder / 'nowhere'}", f"--input={folder / 'scan.tif'}", output],
            "missing model": [f"--model={folder / 'nowhere'}", f"--input={folder / 'scan.tif'}", output],
            "channels": [model, f"--input={folder / 'two_channels.npz'}", output],
            "infinite": [model, f"--input={folder / 'infinite.npz'}", output],
            "output": [model, f"--input={folder / 'scan.tif'}", f"--output={folder / 'scan.tif'}"],
            "below a file": [model, f"--input={folder / 'scan.tif'}", f"--output={folder / 'scan.tif' / 'a'}"],
            "full": [f"--workdir={two_places(untrained_run, folder)}", f"--input={folder / 'scan.npz'}"]
            + [f"{output}_full", everything],
            "measuring run": [f"--workdir={folder / 'measuring'}", f"--input={folder / 'scan.nii.gz'}"]
            + [f"{output}_measuring_run", everything],
            "measuring model": [f"--model={folder / 'measuring_model'}", f"--input={folder / 'scan.nii.gz'}"]
            + [f"{output}_measuring_model", everything],
            "measuring nothing": [f"--model={folder / 'measuring_model'}", f"--input={folder / 'scan.nii.gz'}"]
            + [f"{output}_measuring_nothing", "--min_score=0.999"],
        },
    )


def two_places(run, folder):
    """A copy of the run that gives two detections at most."""
    workdir = folder / "two_places"
    shutil.copytree(run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["inference"]["max_detections"] = 2
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


class AnswerTest:
    def test_leaves_out_what_is_less_certain_than_asked_for(self, results, folder):
        assert results["certain"].code == 0, results["certain"].err
        answer = json.loads((folder / "answers_certain" / "scan_detections.json").read_text())
        assert answer["detections"] == []
        assert not readers.read_volume(folder / "answers_certain" / "scan_instances.npz").array.any()
        everything = json.loads((folder / "answers_npz" / "scan_detections.json").read_text())["detections"]
        assert f"0 detection(s), {len(everything)} more score below 0.999" in results["certain"].out

    @pytest.mark.parametrize("suffix", [".nii.gz", ".tif", ".npz"])
    def test_writes_labels_tables_and_a_picture(self, results, folder, suffix):
        assert (results[suffix].code, results[suffix].err) == (0, "")
        output = folder / {".nii.gz": "answers", ".tif": "answers_tif", ".npz": "answers_npz"}[suffix]
        assert sorted(path.name for path in output.iterdir()) == [
            "scan_detections.csv",
            "scan_detections.json",
            f"scan_instances{suffix}",
            "scan_slices.png",
        ]
        answer = json.loads((output / "scan_detections.json").read_text())
        table = answer["detections"]
        assert answer["source"] == f"scan{suffix}"
        assert len(table) > 0
        assert {row["class"] for row in table} <= {"plate", "rod"}
        assert [row["id"] for row in table] == list(range(1, len(table) + 1))
        with (output / "scan_detections.csv").open(newline="") as file:
            assert [row["score"] for row in csv.DictReader(file)] == [str(row["score"]) for row in table]
        labels = readers.read_volume(output / f"scan_instances{suffix}")
        assert labels.array.shape == SHAPE
        np.testing.assert_allclose(labels.spacing, SPACING, rtol=1e-6)
        voxels = np.bincount(labels.array.ravel(), minlength=len(table) + 1)[1:]
        assert [row["voxels"] for row in table] == voxels.tolist()
        assert matplotlib_image.imread(output / "scan_slices.png").ndim == 3
        lines = results[suffix].out.splitlines()
        assert lines[0].split()[:2] == ["1", table[0]["class"]]
        assert lines[len(table)] == f"{len(table)} detection(s), 0 more score below 0.0"
        assert lines[-1] == f"label volume, tables and picture: {output}/scan_*"

    def test_says_that_there_may_be_more_only_where_there_may(self, results):
        assert results["full"].code == 0, results["full"].err
        assert "there may be more: inference.max_detections is 2" in results["full"].out.splitlines()
        assert "there may be more" not in results[".npz"].out

    def test_checkpoint_and_saved_model_agree(self, results, folder):
        tables = [
            json.loads((folder / name / "scan_detections.json").read_text())["detections"]
            for name in ("answers", "answers_tif", "answers_npz")
        ]
        for mine, *others in zip(*tables, strict=True):
            for other in others:
                assert [other[name] for name in ("class", "voxels")] == [mine[name] for name in ("class", "voxels")]
                assert other["score"] == pytest.approx(mine["score"], abs=2e-4)
                assert other["volume_mm3"] == pytest.approx(mine["volume_mm3"], abs=2e-3)
                for edge in ("z0", "y0", "x0", "z1", "y1", "x1"):
                    assert other[edge] == pytest.approx(mine[edge], abs=0.02)

    def test_nifti_labels_lie_where_the_scan_lies(self, results, folder):
        assert results[".nii.gz"].code == 0
        scan, labels = (
            SimpleITK.ReadImage(str(folder / name)) for name in ("scan.nii.gz", "answers/scan_instances.nii.gz")
        )
        assert labels.GetSize() == scan.GetSize()
        np.testing.assert_allclose(labels.GetOrigin(), scan.GetOrigin(), atol=1e-6)
        np.testing.assert_allclose(labels.GetSpacing(), scan.GetSpacing(), atol=1e-6)
        np.testing.assert_allclose(labels.GetDirection(), scan.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(labels.GetDirection(), DIRECTION, atol=1e-6)


class MeasuredAnswerTest:
    def table(self, results, folder, name):
        assert (results[name].code, results[name].err) == (0, "")
        output = folder / f"answers_{name.replace(' ', '_')}"
        table = json.loads((output / "scan_detections.json").read_text())["detections"]
        with (output / "scan_detections.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            assert list(reader) == [{key: str(value) for key, value in row.items()} for row in table]
            return table, reader.fieldnames

    def test_tables_have_columns_for_attributes_and_landmarks(self, results, folder):
        table, columns = self.table(results, folder, "measuring run")
        assert len(table) > 0
        assert columns[14:17] == ["attribute_energy", "attribute_charge", "centroid_z"]
        assert len(columns) == 14 + 2 + 49
        assert self.table(results, folder, "measuring nothing") == ([], columns)
        scan = SimpleITK.ReadImage(str(folder / "scan.nii.gz"))
        for row in table:
            assert all(math.isfinite(row[f"attribute_{name}"]) for name in measuring.ATTRIBUTES)
            for name in KEYPOINTS:
                z, y, x, *world, score = (row[f"{name}_{key}"] for key in ("z", "y", "x", *CENTRE, "score"))
                expected = scan.TransformContinuousIndexToPhysicalPoint((x - 0.5, y - 0.5, z - 0.5))
                assert world == pytest.approx(expected, abs=0.03)  # voxels are rounded to 0.01
                assert 0 < score <= 1
                for axis, at in {"z": z, "y": y, "x": x}.items():
                    assert row[f"{axis}0"] - 0.02 <= at <= row[f"{axis}1"] + 0.02

    def test_checkpoint_saved_model_and_client_agree(self, results, folder):
        mine, columns = self.table(results, folder, "measuring run")
        others, _ = self.table(results, folder, "measuring model")
        volume, _ = client.read(folder / "scan.nii.gz")
        model, names = client.load(folder / "measuring_model", 1)
        _, rows = client.ask(model, names, volume, 0.0)
        measured = [name for name in columns[14:] if "score" not in name]
        for ours, other, row in zip(mine, others, rows, strict=True):
            assert [other[name] for name in measured] == pytest.approx([ours[name] for name in measured], abs=0.02)
            for name in measuring.ATTRIBUTES:
                assert row["attributes"][name] == pytest.approx(other[f"attribute_{name}"], rel=1e-3)
            for name in KEYPOINTS:
                assert row["keypoints"][name] == pytest.approx([other[f"{name}_{axis}"] for axis in "zyx"], abs=0.02)
                assert row["keypoint_scores"][name] == pytest.approx(other[f"{name}_score"], abs=1e-3)


class MisuseTest:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("no model", "expected one of --workdir and --model, came none"),
            ("two models", "expected one of --workdir and --model, came both"),
            ("missing input", "nowhere.tif: expected a volume file, got nothing at that path"),
            ("missing workdir", "nowhere: expected a run with config.json, found none; train one first"),
            ("missing model", "nowhere: expected a SavedModel with config.json among its assets, found none"),
            ("channels", "two_channels.npz: expected 1 channel(s), came 2"),
            ("infinite", "infinite.npz: expected finite voxels, came 1 that are not"),
            ("output", "scan.tif: expected a folder, came the file"),
            ("below a file", "scan.tif/a: expected a folder, came the file"),
        ],
    )
    def test_one_line(self, results, name, words):
        mains.assert_misuse(results[name], words)

    def test_input_is_required(self):
        mains.assert_misuse(mains.run("predict_main", "--workdir=runs"), "flag --input=None")

    def test_help(self):
        result = mains.run("predict_main", "--help")
        assert result.err == ""
        for words in ("python predict_main.py --workdir=... --input=scan.nii.gz", "--model:", "--output:"):
            assert words in result.out
