import json

import numpy as np
import pytest

from data import box_table
from data.errors import InputError

SHAPE = (5, 7, 11)
# Voxels of 2 x 0.75 x 0.5 mm (z, y, x) with the first centre at x 1, y -2, z 30 mm.
AFFINE = np.array([[0, 0, 0.5, 1], [0, 0.75, 0, -2], [2, 0, 0, 30], [0, 0, 0, 1]])
CLASSES = ("cell", "debris")
EDGES = "z0,y0,x0,z1,y1,x1"


def read(path, *, shape=SHAPE, affine=AFFINE, unit="voxels", classes=CLASSES, attributes=()):
    return box_table.read(path, shape, affine, unit=unit, classes=classes, attributes=attributes)


def write_csv(folder, *lines):
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    return folder / "a.csv"


def write_json(folder, *boxes):
    rows = [dict(zip(EDGES.split(","), box[:6], strict=True)) | box[6] for box in boxes]
    (folder / "a.json").write_text(json.dumps({"boxes": rows}))
    return folder / "a.json"


def in_mm(box, affine=AFFINE):
    """The same box in mm, from its corners: voxel edges lie half a voxel beside the centres."""
    corners = np.array([box[:3], box[3:]], float) - 0.5
    world = (affine @ np.column_stack([corners, np.ones(2)]).T)[:3].T[:, ::-1]
    return np.concatenate([world.min(axis=0), world.max(axis=0)])


class ReadTest:
    def test_csv(self, tmp_path):
        lines = (f"{EDGES},class,energy", "1,2,3,4,5.5,6,cell,12.5", "0,0,0,5,7,11,2,", "0,0,0,1,1,1, debris ,1e-3")
        boxes, class_ids, attributes, notes = read(write_csv(tmp_path, *lines), attributes=("energy",))
        np.testing.assert_array_equal(boxes, [[1, 2, 3, 4, 5.5, 6], [0, 0, 0, 5, 7, 11], [0, 0, 0, 1, 1, 1]])
        np.testing.assert_array_equal(class_ids, [1, 2, 2])
        np.testing.assert_array_equal(attributes, np.array([[12.5], [np.nan], [1e-3]], np.float32))
        assert (boxes.dtype, class_ids.dtype, attributes.dtype) == (np.float32, np.int32, np.float32)
        assert notes == {}

    def test_columns_in_any_order_as_spreadsheets_write_them(self, tmp_path):
        (tmp_path / "a.csv").write_bytes("\ufeffclass,x1,y1,z1,x0,y0,z0\r\ncell,6,5,4,3,2,1\r\n".encode())
        boxes, class_ids, _, _ = read(tmp_path / "a.csv")
        np.testing.assert_array_equal(boxes, [[1, 2, 3, 4, 5, 6]])
        np.testing.assert_array_equal(class_ids, [1])

    def test_json(self, tmp_path):
        path = write_json(
            tmp_path,
            (1, 2, 3, 4, 5.5, 6, {"class": "debris", "energy": 12.5, "mass": 3}),
            (0, 0, 0, 1, 1, 1, {"class": 1, "energy": None, "mass": 4, "note": "?"}),
        )
        boxes, class_ids, attributes, notes = read(path, attributes=("energy",))
        np.testing.assert_array_equal(boxes, [[1, 2, 3, 4, 5.5, 6], [0, 0, 0, 1, 1, 1]])
        np.testing.assert_array_equal(class_ids, [2, 1])
        np.testing.assert_array_equal(attributes, [[12.5], [np.nan]])
        assert notes == {"attribute mass unlisted": 2, "attribute note unlisted": 1}

    @pytest.mark.parametrize("attributes", [(), ("energy", "mass")])
    def test_no_box(self, tmp_path, attributes):
        for path in (write_csv(tmp_path, EDGES), write_json(tmp_path)):
            boxes, class_ids, measured, notes = read(path, attributes=attributes)
            assert (boxes.shape, class_ids.shape, measured.shape, notes) == ((0, 6), (0,), (0, len(attributes)), {})

    def test_the_only_class_need_not_be_named(self, tmp_path):
        path = write_csv(tmp_path, EDGES, "0,0,0,1,1,1")
        np.testing.assert_array_equal(read(path, classes=("cell",))[1], [1])
        with pytest.raises(InputError, match=r"a.csv: box 1: expected one of the classes \('cell', 'debris'\)"):
            read(path)

    def test_boxes_are_clipped_and_counted(self, tmp_path):
        path = write_csv(tmp_path, EDGES, "-1,0,0,1,1,1", "0,0,0,1,1,1", "4,6,10,9,9,11.5")
        boxes, _, _, notes = read(path, classes=("cell",))
        np.testing.assert_array_equal(boxes, [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [4, 6, 10, 5, 7, 11]])
        assert notes == {"boxes clipped": 2}

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("0,0,0,0,1,1,cell", "box 2: expected finite z0, y0, x0, z1, y1, x1 with z0 < z1"),
            ("0,0,0,1,nan,1,cell", "box 2: expected finite"),
            ("0,0,0,1,inf,1,cell", "box 2: expected finite"),
            ("0,0,0,1,,1,cell", "box 2: expected finite"),
            ("0,0,0,1,one,1,cell", "box 2: expected finite"),
            ("0,0,0,1,1,1,dog", "box 2: expected one of the classes .*, got 'dog'"),
            ("0,0,0,1,1,1,3", "box 2: expected one of the classes .*, got 3"),
            ("0,0,0,1,1,1", "box 2: expected 7 cells, got more or fewer"),
            ("0,0,0,1,1,1,cell,5", "box 2: expected 7 cells, got more or fewer"),
            ("5,0,0,6,1,1,cell", r"box 2: expected a box inside the image of \(5, 7, 11\) voxels .*, got \[5.0, 0.0"),
        ],
    )
    def test_bad_line(self, tmp_path, line, words):
        path = write_csv(tmp_path, f"{EDGES},class", "0,0,0,1,1,1,cell", line)
        with pytest.raises(InputError, match=f"a.csv: {words}"):
            read(path)

    def test_bad_attribute(self, tmp_path):
        path = write_csv(tmp_path, f"{EDGES},class,energy", "0,0,0,1,1,1,cell,hot")
        with pytest.raises(InputError, match=r"a.csv: box 1: energy: expected a finite number .*, got 'hot'"):
            read(path, attributes=("energy",))

    def test_bad_file(self, tmp_path):
        with pytest.raises(InputError, match=r"a.csv: expected the columns .*, got none for y1, x1"):
            read(write_csv(tmp_path, "z0,y0,x0,z1", "0,0,0,1"))
        (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match=r"a.csv: cannot be read as CSV"):
            read(tmp_path / "a.csv")
        with pytest.raises(InputError, match=r"b.csv: cannot be read as CSV: .*No such file"):
            read(tmp_path / "b.csv")
        for text in ("[]", '{"boxes": 1}', '{"boxes": [1]}', "{}"):
            (tmp_path / "a.json").write_text(text)
            with pytest.raises(InputError, match=r"a.json: expected "):
                read(tmp_path / "a.json")

    def test_unit(self, tmp_path):
        with pytest.raises(ValueError, match=r"unit must be one of \('voxels', 'mm'\), got 'cm'"):
            read(write_csv(tmp_path, EDGES), unit="cm")


class MillimetresTest:
    def test_by_hand(self, tmp_path):
        # z: edges of voxels 1 to 3 at 30 + 2 * (1 - 0.5) = 31 and 30 + 2 * 2.5 = 35, and so on.
        path = write_csv(tmp_path, EDGES, "31,-1.625,2.25,35,0.625,3.75")
        np.testing.assert_array_equal(read(path, unit="mm", classes=("cell",))[0], [[1, 1, 3, 3, 4, 6]])

    @pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
    def test_flipped_and_permuted_images(self, tmp_path, flips, axes):
        affine = AFFINE.copy()
        affine[:3, :3] = AFFINE[:3, :3][list(axes)] * flips
        box = [1, 2, 3, 3, 6, 9]
        path = write_csv(tmp_path, EDGES, ",".join(map(str, in_mm(box, affine).tolist())))
        found, _, _, notes = read(path, unit="mm", affine=affine, classes=("cell",))
        np.testing.assert_allclose(found, [box], rtol=1e-6)
        assert notes == {}

    def test_whole_image_is_not_clipped(self, tmp_path):
        path = write_csv(tmp_path, EDGES, ",".join(map(str, in_mm([0, 0, 0, *SHAPE]).tolist())))
        found, _, _, notes = read(path, unit="mm", classes=("cell",))
        np.testing.assert_array_equal(found, [[0, 0, 0, 5, 7, 11]])
        assert notes == {}

    def test_oblique_image(self, tmp_path):
        c, s = np.cos(0.2), np.sin(0.2)
        affine = np.block(
            [[np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AFFINE[:3, :3], AFFINE[:3, 3:]], [0, 0, 0, 1]]
        )
        path = write_csv(tmp_path, EDGES, "31,-1.625,2.25,35,0.625,3.75")
        words = "expected an image along the world's axes for boxes in mm, got one turned 11.5 degrees"
        with pytest.raises(InputError, match=words):
            read(path, unit="mm", affine=affine, classes=("cell",))


class BoxesToIdsTest:
    def test_smaller_boxes_win(self):
        boxes = np.array([[1, 1, 1, 3, 4, 5], [0, 0, 0, 5, 7, 11], [2, 3, 4, 4, 5, 6]], np.float32)
        ids, hidden = box_table.boxes_to_ids("a.csv", boxes, SHAPE)
        expected = np.full(SHAPE, 2)
        expected[1:3, 1:4, 1:5] = 1
        expected[2:4, 3:5, 4:6] = 3
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_array_equal(hidden, [1, 24 + 8 - 1, 0])

    def test_of_equal_boxes_the_first_wins(self):
        boxes = np.array([[1, 1, 1, 3, 4, 5]] * 2, np.float32)
        ids, hidden = box_table.boxes_to_ids("a.csv", boxes, SHAPE)
        np.testing.assert_array_equal(np.unique(ids), [0, 1])
        np.testing.assert_array_equal(hidden, [0, 24])

    def test_voxels_whose_centre_is_inside(self):
        ids, _ = box_table.boxes_to_ids("a.csv", np.array([[0.5, 1.51, 2.4, 2.5, 3.49, 4.6]], np.float32), SHAPE)
        found = np.argwhere(ids)
        np.testing.assert_array_equal(found.min(axis=0), [0, 2, 2])
        np.testing.assert_array_equal(found.max(axis=0), [1, 2, 4])

    def test_against_the_definition(self):
        rng = np.random.default_rng(0)
        centres = np.stack(np.meshgrid(*(np.arange(size) + 0.5 for size in SHAPE), indexing="ij"), axis=-1)
        for _ in range(50):
            lo = rng.uniform(0, np.array(SHAPE) - 1.1)
            hi = np.minimum(lo + rng.uniform(1.05, 6, 3), SHAPE)
            box = np.concatenate([lo, hi])[np.newaxis].astype(np.float32)
            inside = np.all((centres >= box[0, :3]) & (centres < box[0, 3:]), axis=-1)
            if inside.any():
                np.testing.assert_array_equal(box_table.boxes_to_ids("a", box, SHAPE)[0], inside)

    def test_box_thinner_than_a_voxel_keeps_one(self):
        boxes = np.array([[1.6, 2, 3, 1.9, 4, 5], [4.6, 6.6, 10.6, 5, 7, 11]], np.float32)
        ids, hidden = box_table.boxes_to_ids("a.csv", boxes, SHAPE)
        np.testing.assert_array_equal(np.argwhere(ids == 1), [[1, 2, 3], [1, 2, 4], [1, 3, 3], [1, 3, 4]])
        np.testing.assert_array_equal(np.argwhere(ids == 2), [[4, 6, 10]])
        np.testing.assert_array_equal(hidden, [0, 0])

    def test_no_box(self):
        ids, hidden = box_table.boxes_to_ids("a.csv", np.zeros((0, 6), np.float32), SHAPE)
        assert (ids.shape, ids.any(), hidden.shape) == (SHAPE, False, (0,))
