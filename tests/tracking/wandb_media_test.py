import json

import numpy as np
import pytest
import wandb
from PIL import Image

from evaluation import answers, listing, report
from tests.tracking import cases
from tracking import pixels, wandb_media
from tracking.wandb_run import WandbRun
from training.internals import Internals

CLASSES = ("plate", "rod")


def drawn():
    return answers.of(*cases.case(), cases.config())


def only(paths):
    (path,) = paths
    with open(path) as file:
        return json.load(file)


@pytest.fixture(name="run")
def fixture_run(tmp_path):
    """The folder of a run that has logged the evaluation, and the picture of its volume."""
    answer = drawn()
    image = pixels.of(answer.figure())
    run = WandbRun(tmp_path, "tests", {}, "offline")
    evaluation = cases.evaluation(cases.config())
    run.log(8, lambda: wandb_media.of_evaluation(evaluation, [answer], [image], CLASSES, "val"))
    assert run.is_on
    run.close()
    return tmp_path, image


class OfEvaluationTest:
    def test_picture(self, run):
        folder, image = run
        (path,) = cases.wandb_files(folder, "images/val/pictures_*.png")
        np.testing.assert_array_equal(Image.open(path), image)
        assert cases.wandb_history(folder)[8]["val/pictures"]["captions"] == ["case_a"]

    def test_table_of_every_detection(self, run):
        table = only(cases.wandb_files(run[0], "table/val/detections_*.table.json"))
        assert table["columns"] == list(listing.COLUMNS)
        assert [(row[0], row[1], row[-3]) for row in table["data"]] == [
            ("case_a", "plate", 1),
            ("case_a", "plate", None),
            ("case_a", "plate", 2),
            ("case_a", "rod", None),
        ]

    def test_curves(self, run):
        table = only(cases.wandb_files(run[0], "table/val/precision_recall_table_*.table.json"))
        lines = {}
        for recall, name, precision in table["data"]:
            lines.setdefault(name, []).append((recall, pytest.approx(precision)))
        assert lines["pooled"] == [(0.5, 1.0), (0.5, 0.5), (0.5, 0.5), (1.0, 0.5)]
        assert lines["rod"] == [(1.0, 1.0)]

    def test_cloud_file(self, run):
        cloud = only(cases.wandb_files(run[0], "object3D/val/clouds_*.pts.json"))
        assert cloud["type"] == "lidar/beta"
        assert [box["label"] for box in cloud["boxes"]] == [
            *("plate 0.90", "plate 0.80", "plate 0.60"),
            *("truth plate", "truth rod"),
        ]
        assert len(cloud["points"]) == 24 + 24 + 8 + 24 + 12

    def test_slice_with_boxes_and_masks_to_switch(self, run):
        shown = cases.wandb_history(run[0])[8]["val/slices"]
        assert shown["captions"] == ["case_a, z = 1"]
        assert [sorted(masks) for masks in shown["all_masks"]] == [["detections", "truth"]]
        (path,) = cases.wandb_files(run[0], "images/val/slices_*.png")
        expected = 255 * (drawn().truth[1] > 0)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)

    def test_without_volumes_and_detections(self, tmp_path):
        run = WandbRun(tmp_path, "tests", {}, "offline")
        nothing = cases.evaluation(cases.config())._replace(matches=[], rows=())
        run.log(8, lambda: wandb_media.of_evaluation(nothing, [], [], CLASSES, "val"))
        assert run.is_on
        run.close()
        assert only(cases.wandb_files(tmp_path, "table/val/detections_*.table.json"))["data"] == []


class SliceOverlayTest:
    def test_boxes_that_it_crosses_and_masks_by_class(self):
        image = wandb_media.slice_overlay(drawn(), CLASSES)
        boxes = image._boxes["detections"]._val
        assert [(box["class_id"], box["box_caption"], box["position"]) for box in boxes] == [
            (1, "plate 0.90", {"minX": 0.0, "maxX": 4.0, "minY": 0.0, "maxY": 3.0}),
            (1, "plate 0.60", {"minX": 6.0, "maxX": 8.0, "minY": 4.0, "maxY": 6.0}),
        ]
        assert [box["class_id"] for box in image._boxes["truth"]._val] == [1, 2]
        mask = np.asarray(Image.open(image._masks["truth"]._path))
        np.testing.assert_array_equal(np.unique(mask, return_counts=True), [[0, 1, 2], [44, 12, 4]])
        np.testing.assert_array_equal(mask[4:6, 6:8], 2)


class CloudTest:
    def test_millimetres_in_the_order_x_y_z(self):
        cloud = wandb_media.cloud(drawn())
        colours = np.round(255 * report.detection_colours(3))
        # Voxel (z 1, y 4, x 6) of the third detection: 2, 1 and 0.5 mm per voxel.
        rod = cloud["points"][(cloud["points"][:, 3:] == colours[3]).all(axis=1)]
        np.testing.assert_allclose(rod[0, :3], [6.5 * 0.5, 4.5, 1.5 * 2])
        assert len(rod) == 8
        white = (cloud["points"][:, 3:] == 255).all(axis=1)
        assert white.sum() == 24 + 12
        corners = np.array(cloud["boxes"][2]["corners"])
        np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [[3, 4, 2], [4, 6, 6]])
        assert len(np.unique(corners, axis=0)) == 8
        assert cloud["boxes"][2]["color"] == colours[3].tolist()
        assert cloud["boxes"][4]["color"] == [255, 255, 255]

    def test_a_large_object_is_thinned_out(self, monkeypatch):
        monkeypatch.setattr(wandb_media, "MOST_POINTS", 10)
        points = wandb_media.cloud(drawn())["points"]
        assert len(points) == 10 + 9  # every sixth of 56 and every fourth of 36

    def test_nothing_found_and_nothing_there(self):
        found, truth = cases.case()
        nothing = {
            **truth,
            "instance_ids": truth["instance_ids"] * 0,
            "boxes": truth["boxes"][:0],
            "class_ids": truth["class_ids"][:0],
        }
        cloud = wandb_media.cloud(answers.of(found, nothing, cases.config(), min_score=1.0))
        assert (len(cloud["points"]), len(cloud["boxes"])) == (0, 0)


class OfInspectionTest:
    def test_histograms_and_pictures(self, tmp_path):
        values = np.array([0.0, 1.0, 1.0, np.nan, np.inf], np.float32)
        inside = Internals({"conv/kernel": values}, {"conv/kernel": values * 2}, {"conv": values[:0]})
        image = np.zeros((3, 4, 3), np.uint8)
        run = WandbRun(tmp_path, "tests", {}, "offline")
        run.log(4, lambda: wandb_media.of_inspection(inside, {"train/truth": image}))
        assert run.is_on
        run.close()
        logged = cases.wandb_history(tmp_path)[4]
        weights = logged["weights/conv/kernel"]
        assert weights["_type"] == "histogram"
        assert (weights["values"][0], weights["values"][-1], sum(weights["values"])) == (1, 2, 3)
        assert (weights["bins"][0], weights["bins"][-1]) == (0.0, 1.0)
        assert logged["gradients/conv/kernel"]["bins"][-1] == 2.0
        assert sum(logged["activations/conv"]["values"]) == 0
        (path,) = cases.wandb_files(tmp_path, "images/train/truth_*.png")
        assert Image.open(path).size == (4, 3)
        assert isinstance(wandb_media.of_inspection(inside, {})["activations/conv"], wandb.Histogram)
