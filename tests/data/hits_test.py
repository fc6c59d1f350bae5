import json
from pathlib import Path

import numpy as np
import pytest

from configs.hits_schema import Hits
from data import hits
from data.cases import find_cases, load_case
from data.errors import InputError
from data.objects import Names

SHAPE = (3, 4, 5)
EVENTS = Path(__file__).parents[3] / "shared" / "data" / "hgcal_hits"
NAMES = Names(("photon", "pion"), ("energy",))

# x, y, z, energy, time, shower, class, true energy; cells of 10 mm from (0, 0, 0) on.
TABLE = """x,y,z,energy,time,shower,kind,true
1,1,1,2.0,5,7,photon,30
9,9,9,1.5,9,9,pion,20
5,5,5,1.0,1,9,pion,20
45,35,25,4.0,2,7,photon,30
49.9,39.9,29.9,3.5,2,9,pion,20
12,0,0,1.0,3,3,photon,10
12,0,0,1.0,3,9,pion,20
50,0,0,8.0,1,7,photon,30
0,-0.1,0,0.5,1,0,photon,0
3,3,3,6.0,7,0,photon,0
"""


def settings(**changes):
    return Hits(**{"shape": SHAPE, "shower": "shower", "shower_class": "kind", **changes})


def write(folder, text=TABLE, table=None, name="a.csv"):
    path = folder / name
    path.write_text(text)
    if table is not None:
        (folder / "a.json").write_text(json.dumps(table))
    return path


class ReadTest:
    def test_by_hand(self, tmp_path):
        config = settings(channels=("energy", "time", "count"), time="time")
        config.validate()
        volume, found = hits.read(write(tmp_path), config, NAMES)
        # Voxel (0, 0, 0): 2.0 of shower 7, 2.5 of 9, 6.0 of nobody. (2, 3, 4): 4.0 of 7, 3.5 of 9. (0, 0, 1): a tie.
        expected = np.zeros((*SHAPE, 3), np.float32)
        expected[0, 0, 0] = 10.5, (2 * 5 + 1.5 * 9 + 1 * 1 + 6 * 7) / 10.5, 4
        expected[2, 3, 4] = 7.5, 2, 2
        expected[0, 0, 1] = 2, 3, 2
        assert volume.array.dtype == np.float32
        np.testing.assert_allclose(volume.array, expected, rtol=1e-6)
        ids = np.zeros(SHAPE, np.int32)
        ids[0, 0, 0], ids[2, 3, 4], ids[0, 0, 1] = 3, 2, 1
        np.testing.assert_array_equal(found.ids, ids)
        assert found.numbers.tolist() == [3, 7, 9]
        assert found.class_ids.tolist() == [1, 1, 2]
        # The sum of all hits, that outside the grid too: 4 + 2 + 8 of shower 7.
        np.testing.assert_array_equal(found.attributes, np.float32([[1], [14], [7]]))
        assert found.left_out == {"hits outside the grid": 2, "energy outside the grid": 8.5}
        np.testing.assert_array_equal(volume.spacing, [10, 10, 10])
        np.testing.assert_array_equal(volume.affine @ [2, 3, 4, 1], [45, 35, 25, 1])  # x, y, z of that voxel's centre

    def test_true_energy(self, tmp_path):
        _, found = hits.read(write(tmp_path), settings(true_energy="true"), NAMES)
        np.testing.assert_array_equal(found.attributes, [[10], [30], [20]])

    def test_json_tells_classes_and_more(self, tmp_path):
        table = {"3": "pion", "7": {"class": "photon", "energy": 99, "eta": 1.5}, "9": {"class": 2, "energy": None}}
        path = write(tmp_path, table=table)
        _, found = hits.read(path, settings(shower_class=""), Names(("photon", "pion"), ("eta", "energy")))
        assert found.class_ids.tolist() == [2, 1, 2]
        np.testing.assert_array_equal(found.attributes, np.float32([[np.nan, 1], [1.5, 99], [np.nan, 7]]))

    def test_one_class_needs_no_column(self, tmp_path):
        _, found = hits.read(write(tmp_path), settings(shower_class=""), Names(("shower",)))
        assert (found.class_ids.tolist(), found.attributes.shape) == ([1, 1, 1], (3, 0))
        with pytest.raises(InputError, match=r"a.csv: expected a.json beside it, which tells the classes"):
            hits.read(tmp_path / "a.csv", settings(shower_class=""), NAMES)

    def test_without_truth(self, tmp_path):
        volume, found = hits.read(write(tmp_path), settings(shower="", shower_class=""), NAMES)
        assert volume.array.sum() == 20
        assert not found.ids.any()
        assert (found.numbers.shape, found.attributes.shape) == ((0,), (0, 1))

    def test_first_shower(self, tmp_path):
        path = write(tmp_path, "x,y,z,energy,id\n1,1,1,2,0\n11,1,1,2,-1\n21,1,1,2,4\n")
        _, found = hits.read(path, settings(shower="id", shower_class="", first_shower=0), Names(("shower",)))
        assert found.numbers.tolist() == [0, 4]
        assert found.ids[0, 0].tolist() == [1, 0, 2, 0, 0]

    def test_array_with_numbered_columns(self, tmp_path):
        table = np.array([[9, 1.5, 2, 35, 25, 15, 4], [9, 0.5, 2, 35, 25, 15, -1]], np.float32)
        np.save(tmp_path / "a.npy", table)
        config = settings(x="3", y="4", z="5", energy="1", shower="6", shower_class="2")
        volume, found = hits.read(tmp_path / "a.npy", config, NAMES)
        assert (volume.array[1, 2, 3], volume.array.sum()) == (2, 2)
        assert (found.ids[1, 2, 3], found.numbers.tolist(), found.class_ids.tolist()) == (1, [4], [2])

    @pytest.mark.parametrize("name", ["a.csv", "a.npy"])
    def test_no_hits(self, tmp_path, name):
        if name == "a.csv":
            write(tmp_path, TABLE.splitlines()[0] + "\n")
            config = settings()
        else:
            np.save(tmp_path / name, np.zeros((0, 5), np.float32))
            config = settings(x="0", y="1", z="2", energy="3", shower="4", shower_class="")
        volume, found = hits.read(tmp_path / name, config, Names(("photon",), ("energy",)))
        assert (volume.array.shape, volume.array.sum(), found.ids.sum()) == (SHAPE, 0, 0)
        assert (found.attributes.shape, found.left_out["hits outside the grid"]) == ((0, 1), 0)

    def test_against_the_slow_definition(self, tmp_path):
        rng = np.random.default_rng(0)
        table = rng.uniform(-5, 55, (400, 5))
        table[:, 3] = rng.integers(0, 4, 400) / 4  # ties, and zeros
        table[:, 4] = rng.integers(-1, 6, 400)
        np.save(tmp_path / "a.npy", table)
        config = settings(x="0", y="1", z="2", energy="3", shower="4", shower_class="")
        volume, found = hits.read(tmp_path / "a.npy", config, Names(("shower",)))
        deposits = np.zeros((*SHAPE, 6))
        for x, y, z, energy, shower in table:
            voxel = int(np.floor(z / 10)), int(np.floor(y / 10)), int(np.floor(x / 10))
            if all(0 <= v < s for v, s in zip(voxel, SHAPE, strict=True)):
                deposits[(*voxel, max(int(shower), 0))] += energy
        np.testing.assert_allclose(volume.array, deposits.sum(axis=-1), rtol=1e-6)
        owner = np.argmax(deposits[..., 1:], axis=-1) + 1  # the first of equal ones
        np.testing.assert_array_equal(found.ids, np.where(deposits[..., 1:].max(axis=-1) > 0, owner, 0))

    @pytest.mark.parametrize(
        ("text", "changes", "words"),
        [
            ("x,y,z,energy\n1,1,1,1\n1,1,1,-2\n", {}, "a.csv: row 2: energy: expected an energy >= 0, got -2.0"),
            ("x,y,z,energy\n1,1,1,nan\n", {}, "row 1: energy: expected a finite number, got nan"),
            ("x,y,z,energy\n1,inf,1,1\n", {}, "row 1: y: expected a finite number, got inf"),
            ("x,y,z,energy\n1,1,1,1\n1,one,1,1\n", {}, "a.csv: row 2: y: expected a number, got one"),
            ("x,y,z,energy\n1,1,1,1\n1,1\n", {}, "cannot be read as a table of hits: .* at row"),
            ("x,y,z,e\n1,1,1,1\n", {}, "data.hits.energy: expected one of x, y, z, e, or 0..3, got 'energy'"),
            ("x,y,z,energy,s\n1,1,1,1,1.5\n", {"shower": "s"}, "row 1: shower: expected a whole number, got 1.5"),
            (
                "x,y,z,energy,s,t\n1,1,1,1,1,9\n1,1,1,1,1,8\n",
                {"shower": "s", "true_energy": "t", "shower_class": "s"},
                "row 2: true_energy: expected one value in all hits of a shower, got 8.0",
            ),
            (
                "x,y,z,energy,s,c\n1,1,1,1,1,muon\n",
                {"shower": "s", "shower_class": "c"},
                r"expected one of the classes \('photon', 'pion'\) or its number 1..2, got 'muon'",
            ),
            ("", {}, "data.hits.x: expected the number of a column"),
            ("1,1,1,1\n2,2,2,2\n", {}, "expected the names of the columns in the first line, got 1,1,1,1"),
        ],
    )
    def test_tables_that_do_not_fit(self, tmp_path, text, changes, words):
        config = Hits(shape=SHAPE, **changes)
        with pytest.raises(InputError, match=words):
            hits.read(write(tmp_path, text), config, NAMES)

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.zeros(5), r"expected \[hits, columns\] of real numbers, got sizes \(5,\)"),
            (np.zeros((5, 3), complex), "got sizes .* of complex128"),
            (np.zeros((5, 3)), "data.hits.energy: expected the number of a column, or 0..2, got '3'"),
            (np.array([[{}]]), "cannot be read as a table of hits"),
        ],
    )
    def test_arrays_that_do_not_fit(self, tmp_path, array, words):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(InputError, match=words):
            hits.read(tmp_path / "a.npy", Hits(x="0", y="1", z="2", energy="3"), NAMES)

    def test_grid_larger_than_memory(self, tmp_path):
        with pytest.raises(InputError, match="expected voxels that fit in"):
            hits.read(write(tmp_path), settings(shape=(10**5, 10**5, 10**5)), NAMES)


class CasesTest:
    def test_a_table_is_a_case(self, tmp_path):
        write(tmp_path)
        write(tmp_path, name="b_val.csv")
        cases = find_cases(tmp_path, labels="hits")
        assert [(files.name, files.split) for files in cases] == [("a", None), ("b_val", "val")]
        case, left_out = load_case(
            cases[0], labels="hits", classes=("photon", "pion"), min_voxels=1, hit_settings=settings()
        )
        assert case.volume.array.shape == SHAPE
        assert case.class_ids.tolist() == [1, 1, 2]
        assert left_out == {"below_min_voxels": 0, "hits outside the grid": 2, "energy outside the grid": 8.5}

    def test_a_shower_that_owns_no_voxel_is_reported(self, tmp_path):
        text = TABLE.replace("12,0,0,1.0,3,3", "12,0,0,0.5,3,3")  # Shower 9 has more there.
        write(tmp_path, text)
        (files,) = find_cases(tmp_path, labels="hits")
        case, left_out = load_case(
            files,
            labels="hits",
            classes=("photon", "pion"),
            min_voxels=1,
            attributes=("energy",),
            hit_settings=settings(),
        )
        assert case.class_ids.tolist() == [1, 2]
        np.testing.assert_array_equal(case.attributes, [[14], [7]])
        assert left_out["without a voxel"] == 1

    def test_no_tables(self, tmp_path):
        (tmp_path / "readme.txt").touch()
        with pytest.raises(InputError, match=r"expected tables of hits .*.npy, .csv.*, got none"):
            find_cases(tmp_path, labels="hits")


class CaloEventTest:
    def test_energy_is_kept_but_for_the_reported_loss(self):
        path = EVENTS / "event_0.npy"
        if not path.exists():
            pytest.skip(f"{path} is not here")
        table = np.load(path)
        z = np.unique(table[:, 7].astype(np.float64))
        layers = [float(group.mean()) for group in np.split(z, np.flatnonzero(np.diff(z) > 0.5) + 1)]
        config = Hits(
            x="5", y="6", z="7", energy="0", time="8", channels=("energy", "count"), unit="cm", grid="layers",
            shape=(len(layers), 80, 70), origin=(0.0, -200.0, -175.0), cell=(1.0, 5.0, 5.0), layers=tuple(layers),
        )  # fmt: skip
        config.validate()
        volume, found = hits.read(path, config, NAMES)
        total = float(table[:, 0].astype(np.float64).sum())
        lost = found.left_out["energy outside the grid"]
        assert len(layers) == 50  # 28 of the front part, 22 of the back, silicon and scintillator 2 mm apart
        assert 0 < lost < 0.1 * total
        assert volume.array[..., 0].sum(dtype=np.float64) + lost == pytest.approx(total, rel=1e-6)
        assert volume.array[..., 1].sum() + found.left_out["hits outside the grid"] == len(table)
        counts = [int(np.sum(np.abs(table[:, 7] - layer) < 0.5)) for layer in layers]
        inside = (np.abs(table[:, 5]) < 175) & (np.abs(table[:, 6]) < 200)
        assert inside.sum() == volume.array[..., 1].sum()
        assert sum(counts) == len(table)
        np.testing.assert_array_equal(volume.spacing[1:], [50, 50])
