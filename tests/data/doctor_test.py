import json

import numpy as np
import pytest

from configs import schema
from data import doctor
from data.errors import InputError
from data.writers import write_volume

SHAPE = (5, 7, 11)
SPACING = (2.0, 1.0, 0.5)


def blob():
    """Object 4 of 8 voxels, away from the border."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[1:3, 2:4, 3:5] = 4
    return ids


def image(seed):
    return np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.float32)


def write(folder, name, array=None, ids=None, *, seed=0, labels_spacing=SPACING):
    write_volume(folder / "images" / f"{name}.npz", image(seed) if array is None else array, SPACING)
    write_volume(folder / "labels" / f"{name}.npz", blob() if ids is None else ids, labels_spacing)


def config_of(folder, **changes):
    return schema.Data(source=str(folder), **{"classes": ("cell",), **changes})


def findings(folder, **changes):
    """[(case, severity, check, message)] of a folder beside three good cases."""
    for number in range(3):
        write(folder, f"good{number}_train", seed=100 + number)
    report = doctor.check(config_of(folder, **changes))
    return [tuple(row[key] for key in ("case", "severity", "check", "message")) for row in report["findings"]]


class CheckTest:
    def test_good_cases(self, tmp_path):
        assert findings(tmp_path) == []
        report = doctor.check(config_of(tmp_path))
        assert (report["errors"], report["warnings"], report["source"]) == (0, 0, str(tmp_path))
        assert report["cases"][0] == {
            "name": "good0_train",
            "split": "train",
            "shape": [5, 7, 11],
            "spacing": [2.0, 1.0, 0.5],
            "channels": 1,
            "instances": {"cell": 1},
        }
        assert json.loads(json.dumps(report)) == report

    @pytest.mark.parametrize(
        ("change", "kind", "words"),
        [
            ({"ids": blob()[1:]}, ("error", "grid"), "expected one shape, got (5, 7, 11) and (4, 7, 11) (z, y, x)"),
            ({"labels_spacing": (2.0, 0.5, 1.0)}, ("error", "grid"), "expected one spacing, got [2.0, 1.0, 0.5] and"),
            ({"ids": blob() * -1.0}, ("error", "unreadable"), "expected labels in 0..2^63 - 1, got -4.0 to"),
            ({"ids": blob() * 0}, ("warning", "empty"), "no objects"),
        ],
    )
    def test_one_bad_case_beside_good_ones(self, tmp_path, change, kind, words):
        write(tmp_path, "bad", **change)
        ((name, *found, message),) = findings(tmp_path)
        assert (name, *found) == ("bad", *kind)
        assert words in message

    def test_a_damaged_file(self, tmp_path):
        write(tmp_path, "bad")
        path = tmp_path / "images" / "bad.npz"
        path.write_bytes(path.read_bytes()[:100])
        ((name, *kind, message),) = findings(tmp_path)
        assert (name, *kind) == ("bad", "error", "unreadable")
        assert message.startswith(f"{path}: ")

    def test_files_without_a_partner(self, tmp_path):
        write(tmp_path, "a", seed=1)
        write(tmp_path, "b", seed=2)
        (tmp_path / "images" / "a.npz").unlink()
        (tmp_path / "labels" / "b.npz").unlink()
        found = findings(tmp_path)
        assert [row[:3] for row in found] == [(None, "error", "files")] * 2
        assert "expected one label file for every image, got none for b.npz" in found[0][3]
        assert "expected one image for every label file, got none for a.npz" in found[1][3]

    def test_folders_of_cases(self, tmp_path):
        for number in range(3):
            for seed, name in enumerate(("flair", "t1")):
                write_volume(tmp_path / f"p{number}" / f"{name}.npz", image(2 * number + seed), SPACING)
            write_volume(tmp_path / f"p{number}" / "seg.npz", blob(), SPACING)
        config = config_of(tmp_path, channel_suffixes=("flair", "t1"), folds=3)
        report = doctor.check(config)
        assert (report["findings"], [case["channels"] for case in report["cases"]]) == ([], [2, 2, 2])
        for number, name in ((0, "t1"), (1, "seg"), (2, "seg")):
            (tmp_path / f"p{number}" / f"{name}.npz").unlink()
            folders = [row["message"].split(": ")[0] for row in doctor.check(config)["findings"]]
            assert folders[: number + 1] == [f"{tmp_path}/p{i}" for i in range(number + 1)]

    def test_channels_are_those_of_most_cases(self, tmp_path):
        write(tmp_path, "bad", np.zeros((*SHAPE, 2), np.float32))
        assert findings(tmp_path) == [("bad", "error", "channels", "expected 1 channel(s) as in most cases, got 2")]

    def test_voxels_that_are_not_finite(self, tmp_path):
        array = image(1)
        array[0, 0, :3] = np.nan, np.inf, -np.inf
        write(tmp_path, "bad", array)
        assert findings(tmp_path) == [("bad", "error", "not finite", "3 of 385 voxels are NaN or infinite")]

    def test_objects(self, tmp_path):
        ids = np.zeros(SHAPE, np.uint8)
        ids[1, 1, 1:3] = ids[3, 3, 3] = 9  # two pieces
        ids[3, 5, 9] = 20  # one voxel
        ids[2, 2, 6] = ids[3, 3, 7] = 21  # one piece: 26-connected
        ids[4, 2, 1:3], ids[2, 0, 8], ids[2, 4, 10] = 30, 31, 32  # border
        write(tmp_path, "odd", ids=ids)
        assert findings(tmp_path, min_voxels=3) == [
            ("odd", "warning", "pieces", "1 of 6 objects: 9"),
            ("odd", "warning", "border", "3 of 6 objects: 30, 31, 32"),
            ("odd", "warning", "one voxel", "3 of 6 objects: 20, 31, 32"),
            ("odd", "warning", "left out", "5 below_min_voxels"),
        ]

    def test_duplicates(self, tmp_path):
        write(tmp_path, "a_train", seed=1)
        write(tmp_path, "b_train", seed=1)
        write(tmp_path, "c_val", seed=1)
        nearly = image(1)
        nearly[0, 0, 0] += 1
        write(tmp_path, "d_val", nearly)
        assert findings(tmp_path) == [
            ("c_val", "error", "duplicate across splits", "voxel for voxel the image of case a_train (train)"),
            ("b_train", "warning", "duplicate", "voxel for voxel the image of case a_train (train)"),
        ]

    def test_duplicates_across_drawn_splits(self, tmp_path):
        for name in "abcdef":
            write(tmp_path, name, seed=1)
        report = doctor.check(config_of(tmp_path, folds=2, fold=1))
        first = report["cases"][0]["split"]
        others = {case["name"] for case in report["cases"] if case["split"] != first}
        assert len(others) == 3
        errors = {row["case"] for row in report["findings"] if row["severity"] == "error"}
        assert errors == others
        assert report["errors"] == 3

    def test_intensity(self, tmp_path):
        for number in range(4):
            write(tmp_path, f"case{number}", seed=number)
        write(tmp_path, "bright", image(9) * 50)
        found = findings(tmp_path)
        assert [row[:3] for row in found] == [("bright", "warning", "intensity")] * 2
        assert found[0][3].startswith("median of channel 0 is 2")
        assert found[1][3].startswith("interquartile range of channel 0 is 2")

    def test_intensity_of_few_cases_is_not_judged(self, tmp_path):
        write(tmp_path, "bright", image(9) * 50)
        assert findings(tmp_path) == []

    def test_groups_that_do_not_fit(self, tmp_path):
        (tmp_path / "groups.csv").write_text("case,group\nnobody,1\n")
        ((case, *kind, message),) = findings(tmp_path, groups=str(tmp_path / "groups.csv"))
        assert (case, *kind) == (None, "error", "files")
        assert "expected names of cases, got nobody" in message

    def test_boxes_that_hide_each_other(self, tmp_path):
        write_volume(tmp_path / "images" / "a.npz", image(0), SPACING)
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.csv").write_text("z0,y0,x0,z1,y1,x1\n1,1,1,3,3,3\n1,1,1,2,2,3\n")
        report = doctor.check(config_of(tmp_path, labels="boxes"))
        assert [row["message"] for row in report["findings"]] == ["2 voxels hidden"]

    def test_hits_outside_the_grid(self, tmp_path):
        (tmp_path / "a.csv").write_text("x,y,z,energy\n-1,1,1,2.5\n1,1,1,2\n")
        report = doctor.check(config_of(tmp_path, labels="hits", hits=schema.Hits(shape=SHAPE)))
        assert [(row["check"], row["message"]) for row in report["findings"]] == [
            ("empty", "no objects"),
            ("left out", "1 hits outside the grid"),
            ("left out", "2.5 energy outside the grid"),
        ]

    def test_no_folder(self, tmp_path):
        with pytest.raises(InputError, match="nowhere: expected a folder of volumes, got no such folder"):
            doctor.check(config_of(tmp_path / "nowhere"))


class RobustZTest:
    @pytest.mark.parametrize(
        ("values", "least_spread", "expected"),
        [
            ([1, 2, 3, 4, 10], 0, [1.349, 0.6745, 0, 0.6745, 4.7215]),  # 0.6745 |v - 3| / 1
            ([1, 2, 3, 4, 10], 2, [1, 0.5, 0, 0.5, 3.5]),
            ([5, 5, 5, 5, 10], 0, [0, 0, 0, 0, 3.9895]),  # 5 / (1.2533 * 1)
            ([5, 5, 5, 5, 5], 0, [0] * 5),
            ([1, 2, 3, 1000], 0, [0] * 4),
        ],
    )
    def test_by_hand(self, values, least_spread, expected):
        np.testing.assert_allclose(doctor._robust_z(np.array(values, float), least_spread), expected, atol=1e-4)


class TableTest:
    def test_columns_and_a_line_that_counts(self, tmp_path):
        write(tmp_path, "bad", ids=np.zeros((1, 2, 3), np.uint8))
        write(tmp_path, "empty_val", ids=blob() * 0, seed=3)
        lines = doctor.table(doctor.check(config_of(tmp_path))).splitlines()
        assert lines[0].startswith("error    bad        train  grid   ")
        assert lines[1] == "warning  empty_val  val    empty  no objects"
        assert lines[2] == "2 cases: 1 errors, 1 warnings"

    def test_nothing_found(self, tmp_path):
        write(tmp_path, "a")
        assert doctor.table(doctor.check(config_of(tmp_path))) == "1 cases: 0 errors, 0 warnings"
