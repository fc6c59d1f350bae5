import csv
import json

import numpy as np
import pytest
import SimpleITK

from data.readers import Volume, read_volume
from serving import answers

CLASSES = ("plate", "rod")
SPACING = (2.5, 0.75, 0.5)
# Turned about z by the angle of the 3-4-5 triangle; columns for z, y, x, rows for world x, y, z.
AFFINE = [
    [0.0, -0.6 * 0.75, 0.8 * 0.5, 10.0],
    [0.0, 0.8 * 0.75, 0.6 * 0.5, -20.0],
    [2.5, 0.0, 0.0, 5.0],
    [0.0, 0.0, 0.0, 1.0],
]


def volume(array=None):
    return Volume(np.zeros((5, 7, 11)) if array is None else array, np.array(SPACING), np.array(AFFINE))


def detections(boxes, scores, class_ids, labels):
    """As `segment` returns them, padded to four rows."""
    empty = 4 - len(boxes)
    return {
        "boxes": np.concatenate([np.reshape(boxes, (-1, 6)), np.zeros((empty, 6))]).astype(np.float32),
        "scores": np.array([*scores, *[0] * empty], np.float32),
        "class_ids": np.array([*class_ids, *[0] * empty], np.int32),
        "num_detections": np.int32(len(boxes)),
        "labels": labels,
    }


def two_objects():
    labels = np.zeros((5, 7, 11), np.int32)
    labels[1:4, 2:6, 3:9] = 2
    labels[0, 0, :7] = 1
    return detections([[0, 0, 0, 1, 1, 7], [1, 2, 3, 4, 6, 9]], [0.98767, 0.5], [2, 1], labels)


class ConfidentTest:
    def test_leaves_out_the_tail_and_its_labels(self):
        found = two_objects() | {"valid": np.array([True, True, False, False])}
        kept = answers.confident(found, 0.6)
        assert kept["num_detections"] == 1
        assert np.unique(kept["labels"]).tolist() == [0, 1]
        np.testing.assert_array_equal(kept["labels"] == 1, found["labels"] == 1)
        assert found["labels"].max() == 2  # what came in is as it was

    def test_score_at_the_border_stays(self):
        found = two_objects() | {"valid": np.array([True, True, False, False])}
        assert answers.confident(found, 0.5)["num_detections"] == 2

    def test_padding_does_not_count_even_from_zero(self):
        found = two_objects() | {"valid": np.array([True, True, False, False])}
        assert answers.confident(found, 0.0)["num_detections"] == 2


class RowsTest:
    def test_hand_worked(self):
        first, second = answers.rows(two_objects(), CLASSES, volume())
        assert tuple(first) == answers.COLUMNS
        assert (first["id"], first["class"], first["score"]) == (1, "rod", 0.9877)
        assert (second["id"], second["class"], second["score"]) == (2, "plate", 0.5)
        assert [second[name] for name in answers.BOX] == [1, 2, 3, 4, 6, 9]
        # 7 voxels and 3 * 4 * 6 voxels of 2.5 * 0.75 * 0.5 = 0.9375 mm^3.
        assert (first["voxels"], first["volume_mm3"]) == (7, 6.562)
        assert (second["voxels"], second["volume_mm3"]) == (72, 67.5)
        # The box's centre (2.5, 4, 6) is voxel index (2, 3.5, 5.5):
        # x = 0.4 * 5.5 - 0.45 * 3.5 + 10, y = 0.3 * 5.5 + 0.6 * 3.5 - 20, z = 2.5 * 2 + 5.
        assert [second[name] for name in answers.CENTRE] == [10.625, -16.25, 10.0]

    def test_centre_is_where_itk_sees_it(self, tmp_path):
        image = SimpleITK.GetImageFromArray(np.zeros((5, 7, 11), np.uint8))
        image.SetSpacing(SPACING[::-1])
        image.SetOrigin((10, -20, 5))
        image.SetDirection((0.8, 0.0, 0.6, 0.0, 1.0, 0.0, -0.6, 0.0, 0.8))
        SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
        row = answers.rows(two_objects(), CLASSES, read_volume(tmp_path / "a.nii.gz"))[1]
        expected = image.TransformContinuousIndexToPhysicalPoint((5.5, 3.5, 2.0))
        assert [row[name] for name in answers.CENTRE] == pytest.approx(expected, abs=1e-3)

    def test_detection_behind_a_better_one_has_no_voxels(self):
        labels = np.zeros((5, 7, 11), np.int32)
        labels[1, 1, 1] = 1
        table = answers.rows(detections([[1, 1, 1, 2, 2, 2]] * 2, [0.9, 0.8], [1, 2], labels), CLASSES, volume())
        assert [(row["voxels"], row["volume_mm3"]) for row in table] == [(1, 0.938), (0, 0.0)]

    def test_nothing_found(self):
        empty = detections([], [], [], np.zeros((5, 7, 11), np.int32))
        assert answers.rows(empty, CLASSES, volume()) == []


def measured():
    """`two_objects` with two attributes and the seven landmarks."""
    keypoints = np.zeros((4, 7, 3), np.float32)
    keypoints[1, 0] = [2.5, 4, 6]  # the centre of its box
    keypoints[1, 6] = [2.0, 3.5, 8.5]
    scores = np.zeros((4, 7), np.float32)
    scores[1, [0, 6]] = [0.5, 0.98767]
    attributes = np.array([[1234567.8, 0], [1.25e-7, -3.5], [0, 0], [0, 0]], np.float32)
    return two_objects() | {"attributes": attributes, "keypoints": keypoints, "keypoint_scores": scores}


class MeasuredRowsTest:
    def test_hand_worked(self):
        names = ("energy", "voxels")  # the second is also that of a column
        first, second = answers.rows(measured(), CLASSES, volume(), names)
        assert tuple(first) == answers.columns(measured(), names)
        assert (first["attribute_energy"], first["attribute_voxels"]) == (1234570.0, 0.0)
        assert (second["attribute_energy"], second["attribute_voxels"]) == (1.25e-7, -3.5)
        assert second["voxels"] == 72
        # The first landmark lies in the box's centre, whose place in the world the test above works out.
        landmark = [second[f"centroid_{name}"] for name in answers.LANDMARK]
        assert landmark == [2.5, 4.0, 6.0, 10.625, -16.25, 10.0, 0.5]
        # Index (1.5, 3, 8): x = 0.4 * 8 - 0.45 * 3 + 10, y = 0.3 * 8 + 0.6 * 3 - 20, z = 2.5 * 1.5 + 5.
        landmark = [second[f"x_max_{name}"] for name in answers.LANDMARK]
        assert landmark == [2.0, 3.5, 8.5, 11.85, -15.8, 8.75, 0.9877]
        assert all(isinstance(value, int | float | str) for value in second.values())

    def test_columns(self):
        plain = {name: value for name, value in measured().items() if "keypoint" not in name}
        assert answers.columns(two_objects(), ()) == answers.COLUMNS
        assert answers.columns(plain, ("b", "a")) == (*answers.COLUMNS, "attribute_b", "attribute_a")
        names = answers.columns(measured(), ())[len(answers.COLUMNS) :]
        assert len(names) == len(set(names)) == 49
        assert names[:7] == tuple(f"centroid_{name}" for name in ("z", "y", "x", "x_mm", "y_mm", "z_mm", "score"))
        assert names[7] == "z_min_z"

    def test_given_landmarks_have_their_own_names(self):
        found = {
            name: value[:, :2] if "keypoint" in name else value for name, value in measured().items()
        }  # centroid and z_min, that is
        first, second = answers.rows(found, CLASSES, volume(), (), ("centre", "tip"))
        names = answers.columns(found, (), ("centre", "tip"))[len(answers.COLUMNS) :]
        assert names == tuple(f"keypoint_{name}_{end}" for name in ("centre", "tip") for end in answers.LANDMARK)
        assert second["keypoint_centre_x_mm"] == 10.625
        assert [second[f"keypoint_centre_{name}"] for name in ("z", "y", "x", "score")] == [2.5, 4.0, 6.0, 0.5]
        assert first["centre_x_mm"] == answers.rows(two_objects(), CLASSES, volume())[0]["centre_x_mm"]
        plain = {name: value for name, value in found.items() if "keypoint" not in name}
        assert answers.columns(plain, (), ("centre", "tip")) == answers.COLUMNS  # no head for them

    def test_csv_has_the_columns_also_where_nothing_was_found(self, tmp_path):
        for found, count in ((measured(), 2), (measured() | {"num_detections": 0}, 0)):
            table = answers.rows(found, CLASSES, volume(), ("energy", "charge"))
            names = answers.columns(found, ("energy", "charge"))
            answers.write_csv(tmp_path / "a.csv", table, names)
            with (tmp_path / "a.csv").open(newline="") as file:
                reader = csv.DictReader(file)
                assert list(reader) == [{name: str(value) for name, value in row.items()} for row in table]
                assert len(table) == count
                assert tuple(reader.fieldnames) == names

    def test_confident_ones_keep_theirs(self):
        found = answers.confident(measured() | {"valid": np.array([True, True, False, False])}, 0.6)
        (row,) = answers.rows(found, CLASSES, volume(), ("energy", "charge"))
        assert row["attribute_energy"] == 1234570.0


class FilesTest:
    def test_csv_and_json_hold_the_rows(self, tmp_path):
        table = answers.rows(two_objects(), ('plate, "flat"', "rod"), volume())
        answers.write_csv(tmp_path / "a.csv", table)
        answers.write_json(tmp_path / "a.json", table, "scan.nii.gz")
        with (tmp_path / "a.csv").open(newline="") as file:
            assert list(csv.DictReader(file)) == [{name: str(value) for name, value in row.items()} for row in table]
        assert json.loads((tmp_path / "a.json").read_text()) == {"source": "scan.nii.gz", "detections": table}

    def test_empty_table(self, tmp_path):
        answers.write_csv(tmp_path / "a.csv", [])
        answers.write_json(tmp_path / "a.json", [], "scan.tif")
        assert (tmp_path / "a.csv").read_text().splitlines() == [
            "id,class,score,z0,y0,x0,z1,y1,x1,centre_x_mm,centre_y_mm,centre_z_mm,voxels,volume_mm3"
        ]
        assert json.loads((tmp_path / "a.json").read_text()) == {"source": "scan.tif", "detections": []}
