import json

import numpy as np
import pytest

from data import instance_table
from data.errors import InputError

CLASSES = ("cell", "wall")
ATTRIBUTES = ("energy", "charge")


def read(folder, table, *, attributes=ATTRIBUTES):
    (folder / "a.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return instance_table.read(folder / "a.json", CLASSES, attributes)


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
        assert {key: class_id for key, (class_id, _) in table.items()} == {1: 2, 7: 1, 3: 1, 4: 2, 5: 1}
        nan = float("nan")
        expected = [[nan, nan], [nan, nan], [12.5, -1.0], [nan, 0.0], [nan, 2.0]]
        np.testing.assert_array_equal([table[key][1] for key in (1, 7, 3, 4, 5)], expected)
        assert others == {"note": 1, "time": 2}

    def test_the_config_gives_the_order(self, tmp_path):
        table = {"1": {"class": "cell", "energy": 12.5, "charge": -1}}
        assert read(tmp_path, table)[0] == {1: (1, [12.5, -1.0])}
        assert read(tmp_path, table, attributes=("charge", "energy"))[0] == {1: (1, [-1.0, 12.5])}
        assert read(tmp_path, table, attributes=("charge",)) == ({1: (1, [-1.0])}, {"energy": 1})
        assert read(tmp_path, table, attributes=()) == ({1: (1, [])}, {"charge": 1, "energy": 1})

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

    def test_no_attribute_may_be_called_class(self, tmp_path):
        with pytest.raises(InputError, match=r"data.attributes: expected names other than 'class', got \('class',\)"):
            read(tmp_path, {}, attributes=("class",))


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

    def test_every_float32_comes_back(self, tmp_path):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(50, 2)).astype(np.float32) * np.float32(10.0) ** rng.integers(-30, 30, (50, 2))
        values[3, 1] = np.nan
        instance_table.write(tmp_path / "a.json", ["cell"] * 50, ATTRIBUTES, values)
        table, others = instance_table.read(tmp_path / "a.json", CLASSES, ATTRIBUTES)
        np.testing.assert_array_equal(np.float32([table[i][1] for i in range(1, 51)]), values.astype(np.float32))
        assert others == {}
