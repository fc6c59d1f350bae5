import json

import numpy as np
import pytest

from data import instance_table
from data.errors import InputError

CLASSES = ("cell", "wall")
ATTRIBUTES = ("energy", "charge")
KEYPOINTS = ("nose", "tail")
NAN = float("nan")


def read(folder, table, *, attributes=ATTRIBUTES, keypoints=()):
    (folder / "a.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return instance_table.read(folder / "a.json", CLASSES, attributes, keypoints)


class ReadTest:
    def test_by_hand(self, tmp_path):
        table, others = read(
            tmp_path,
            {
                "1": "wall",
                "7": 1,
                "3": {"charge": -1, "class": "cell", "energy": 12.5, "time": 3},
                "4": {"class": 2, "energy": None, "charge": 0.0, "time": None, "note": "seen twice"},
                "5": {"class": "cell", "charge": 2},
            },
        )
        assert {key: class_id for key, (class_id, *_) in table.items()} == {1: 2, 7: 1, 3: 1, 4: 2, 5: 1}
        expected = [[NAN, NAN], [NAN, NAN], [12.5, -1.0], [NAN, 0.0], [NAN, 2.0]]
        np.testing.assert_array_equal([table[key][1] for key in (1, 7, 3, 4, 5)], expected)
        assert others == {"attribute note": 1, "attribute time": 2}

    def test_the_config_gives_the_order(self, tmp_path):
        table = {"1": {"class": "cell", "energy": 12.5, "charge": -1}}
        assert read(tmp_path, table)[0] == {1: (1, [12.5, -1.0], [])}
        assert read(tmp_path, table, attributes=("charge", "energy"))[0] == {1: (1, [-1.0, 12.5], [])}
        assert read(tmp_path, table, attributes=("charge",)) == ({1: (1, [-1.0], [])}, {"attribute energy": 1})
        assert read(tmp_path, table, attributes=()) == (
            {1: (1, [], [])},
            {"attribute charge": 1, "attribute energy": 1},
        )

    @pytest.mark.parametrize(
        ("value", "came"),
        [
            ("12.5", "'12.5'"),
            (True, "True"),
            ([1], r"\[1\]"),
            ({}, "{}"),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            (1e39, r"1e\+39"),
            (10**400, "1000"),
        ],
    )
    def test_attributes_that_are_no_numbers(self, tmp_path, value, came):
        words = rf"a.json: id 3: energy: expected a finite number within float32, or null .* unknown, got {came}"
        with pytest.raises(InputError, match=words):
            read(tmp_path, {"3": {"class": "cell", "energy": value}})

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"3": {"energy": 1.0}}, "id 3: expected one of the classes .* got None"),
            ({"3": {"class": "pore"}}, "id 3: expected one of the classes .* got 'pore'"),
            ({"3": {"class": {"class": "cell"}}}, "id 3: expected one of the classes .* got {'class': 'cell'}"),
            ({"x": {"class": "cell"}}, "expected instance ids as keys, got 'x'"),
            ("{", "cannot be read as JSON"),
        ],
    )
    def test_classes_and_ids_that_are_none(self, tmp_path, table, words):
        with pytest.raises(InputError, match=words):
            read(tmp_path, table)

    @pytest.mark.parametrize("name", ["class", "keypoints"])
    def test_no_attribute_may_have_the_name_of_what_else_is_there(self, tmp_path, name):
        words = rf"data.attributes: expected names other than 'class' and 'keypoints', got \('{name}',\)"
        with pytest.raises(InputError, match=words):
            read(tmp_path, {}, attributes=(name,))


TABLE = {
    "1": "wall",
    "7": {"class": "cell", "keypoints": {"tail": [0.5, 20, -3.25], "nose": None, "ear": [1, 2, 3]}},
    "3": {"class": "cell", "keypoints": None, "energy": 2},
    "4": {"class": "cell", "keypoints": {"nose": [1, 2, 3.5], "ear": None}},
}


class ReadKeypointsTest:
    def test_by_hand(self, tmp_path):
        table, others = read(tmp_path, TABLE, keypoints=KEYPOINTS)
        expected = {
            1: [[NAN] * 3, [NAN] * 3],
            7: [[NAN] * 3, [0.5, 20.0, -3.25]],
            3: [[NAN] * 3, [NAN] * 3],
            4: [[1.0, 2.0, 3.5], [NAN] * 3],
        }
        for key, points in expected.items():
            np.testing.assert_array_equal(table[key][2], points)
        assert table[3][1] == [2.0, pytest.approx(NAN, nan_ok=True)]
        assert others == {"keypoint ear": 2}

    def test_the_config_gives_the_order(self, tmp_path):
        table, _ = read(tmp_path, TABLE, attributes=(), keypoints=("tail", "ear"))
        assert table[7] == (1, [], [[0.5, 20.0, -3.25], [1.0, 2.0, 3.0]])
        table, others = read(tmp_path, TABLE, attributes=())
        assert table[7] == (1, [], [])
        assert others == {"attribute energy": 1, "keypoint ear": 2, "keypoint nose": 2, "keypoint tail": 1}

    @pytest.mark.parametrize(
        ("value", "came"),
        [
            ([1, 2], r"\[1, 2\]"),
            ([1, 2, 3, 4], r"\[1, 2, 3, 4\]"),
            ([1, None, 3], r"\[1, None, 3\]"),
            ([1, "2", 3], r"\[1, '2', 3\]"),
            ([1, 2, True], r"\[1, 2, True\]"),
            ([NAN, 2, 3], r"\[nan, 2, 3\]"),
            ([1e39, 2, 3], r"\[1e\+39, 2, 3\]"),
            (5.0, r"5\.0"),
            ({"z": 1}, "{'z': 1}"),
        ],
    )
    def test_places_that_are_none(self, tmp_path, value, came):
        words = (
            r"a.json: id 7: keypoint nose: expected three finite numbers \[z, y, x\] within float32, or null where "
            f"unknown, got {came}$"
        )
        with pytest.raises(InputError, match=words):
            read(tmp_path, {"7": {"class": "cell", "keypoints": {"nose": value}}}, keypoints=KEYPOINTS)

    @pytest.mark.parametrize("value", [[1, 2, 3], "nose", 0, False])
    def test_landmarks_without_names(self, tmp_path, value):
        with pytest.raises(InputError, match=r"a.json: id 7: keypoints: expected landmarks by name, or null .* got"):
            read(tmp_path, {"7": {"class": "cell", "keypoints": value}}, keypoints=KEYPOINTS)


class WriteTest:
    def test_classes_alone(self, tmp_path):
        instance_table.write(tmp_path / "a.json", ["wall", "cell"])
        assert json.loads((tmp_path / "a.json").read_text()) == {"1": "wall", "2": "cell"}

    def test_attributes_by_hand(self, tmp_path):
        values = np.array([[0.1, np.nan], [-3e38, 2.0]], np.float32)
        instance_table.write(tmp_path / "a.json", ["wall", "cell"], ATTRIBUTES, values)
        assert json.loads((tmp_path / "a.json").read_text()) == {
            "1": {"class": "wall", "energy": 0.1, "charge": None},
            "2": {"class": "cell", "energy": -3e38, "charge": 2.0},
        }

    @pytest.mark.parametrize("attributes", [(), ATTRIBUTES])
    def test_landmarks_by_hand(self, tmp_path, attributes):
        points = np.array([[[0.1, 2, -3], [NAN] * 3], [[NAN, 1, 2], [4, 5.5, 6]]], np.float32)
        values = np.array([[1, 2], [3, 4]], np.float32)
        instance_table.write(tmp_path / "a.json", ["wall", "cell"], attributes, values, KEYPOINTS, points)
        numbers = ({"energy": 1.0, "charge": 2.0}, {"energy": 3.0, "charge": 4.0}) if attributes else ({}, {})
        assert json.loads((tmp_path / "a.json").read_text()) == {
            "1": {"class": "wall", **numbers[0], "keypoints": {"nose": [0.1, 2.0, -3.0], "tail": None}},
            "2": {"class": "cell", **numbers[1], "keypoints": {"nose": None, "tail": [4.0, 5.5, 6.0]}},
        }
        table, _ = instance_table.read(tmp_path / "a.json", CLASSES, attributes, KEYPOINTS)
        points[1, 0] = NAN  # a place is known as a whole
        np.testing.assert_array_equal(np.float32([table[1][2], table[2][2]]), points)

    def test_every_float32_comes_back(self, tmp_path):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(50, 2)).astype(np.float32) * np.float32(10.0) ** rng.integers(-30, 30, (50, 2))
        values[3, 1] = np.nan
        instance_table.write(tmp_path / "a.json", ["cell"] * 50, ATTRIBUTES, values)
        table, others = instance_table.read(tmp_path / "a.json", CLASSES, ATTRIBUTES, ())
        np.testing.assert_array_equal(np.float32([table[i][1] for i in range(1, 51)]), values.astype(np.float32))
        assert others == {}
