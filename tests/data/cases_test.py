import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from data import instance_table
from data.cases import CaseFiles, find_cases, load_case
from data.errors import GridError, InputError
from data.formats import dicom_seg
from data.lazy import LazyArray
from data.writers import write_volume

SHAPE = (5, 7, 11)
SPACING = (2.0, 0.75, 0.5)
CLASSES = ("ellipsoid", "cuboid")
SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def instances():
    """Ids 9 (12 voxels), 2 (2 voxels) and 70000 (1 voxel)."""
    ids = np.zeros(SHAPE, np.int32)
    ids[0:3, 1:3, 4:6] = 9
    ids[4, 6, 0:2] = 2
    ids[0, 6, 10] = 70000
    return ids


def write_case(folder, labels, *, suffix=".npz", labels_spacing=SPACING, classes=None):
    files = CaseFiles("a", (folder / f"a_image{suffix}",), folder / f"a_labels{suffix}", None)
    write_volume(files.images[0], np.ones(SHAPE, np.int16), SPACING)
    write_volume(files.labels, labels, labels_spacing)
    if classes is not None:
        (folder / "a_labels.json").write_text(json.dumps(classes))
    return files


def load(files, *, labels="instances", classes=CLASSES, min_voxels=1, **names):
    return load_case(files, labels=labels, classes=classes, min_voxels=min_voxels, **names)


class FindCasesTest:
    def test_image_and_label_folders(self, tmp_path):
        touch(tmp_path, "images/b.nii.gz", "images/a.tif", "labels/a.npz", "labels/b.nii.gz")
        touch(tmp_path, "labels/b.json", "images/._b.nii.gz", "images/LICENSE", "README.md")
        cases = find_cases(tmp_path)
        assert cases == [
            CaseFiles("a", (tmp_path / "images" / "a.tif",), tmp_path / "labels" / "a.npz", None),
            CaseFiles("b", (tmp_path / "images" / "b.nii.gz",), tmp_path / "labels" / "b.nii.gz", None),
        ]

    def test_side_by_side_and_split_in_the_name(self, tmp_path):
        for name in ("d_test", "c_val", "b_train", "a"):
            touch(tmp_path, f"{name}_image.nii", f"{name}_labels.tif", f"{name}_labels.json")
        cases = find_cases(str(tmp_path))
        assert [(case.name, case.split) for case in cases] == [
            ("a", None),
            ("b_train", "train"),
            ("c_val", "val"),
            ("d_test", "test"),
        ]
        assert cases[0].labels == tmp_path / "a_labels.tif"

    def test_split_file_takes_case_and_file_names(self, tmp_path):
        for name in ("a", "b", "c_val", "d_val", "e"):
            touch(tmp_path, f"{name}_image.nii.gz", f"{name}_labels.nii.gz")
        split = {"train": ["a", "b_image.nii.gz", "c_val_labels"], "test": []}
        (tmp_path / "split.json").write_text(json.dumps(split))
        splits = [case.split for case in find_cases(tmp_path)]
        assert splits == ["train", "train", "train", "val", None]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            ([], "got no volumes"),
            (["images/a.tif"], "labels: expected a folder of volumes, got no such folder"),
            (["images/x.txt", "labels/x.txt"], "got no volumes"),
            (
                ["images/a.tif", "images/b.tif", "labels/b.tif"],
                "expected one label file for every image, got none for a.tif",
            ),
            (
                ["images/b.tif", "labels/a.tif", "labels/b.tif"],
                "expected one image for every label file, got none for a.tif",
            ),
            (["a_image.tif"], "expected one label file for every image, got none for a_image.tif"),
            (["a_image.tif", "mask.tif"], "mask.tif: expected the name <case>_image or"),
            (["images/a.tif", "images/a.npz", "labels/a.tif"], "one file for 'a', got a.npz too"),
            (["a_image.vtk", "a_labels.vtk"], r"expected a volume file \(.*'a_image.vtk'"),
        ],
    )
    def test_folders_that_hold_no_cases(self, tmp_path, names, words):
        touch(tmp_path, *names)
        with pytest.raises(InputError, match=words):
            find_cases(tmp_path)

    def test_many_lonely_files_are_shortened(self, tmp_path):
        touch(tmp_path, "labels/z.txt", *(f"images/{i}.tif" for i in range(8)))
        with pytest.raises(InputError, match=r"0.tif, 1.tif, 2.tif, 3.tif, 4.tif and 3 more"):
            find_cases(tmp_path)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"nowhere: expected a folder of volumes, got no such"):
            find_cases(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"train": ["a", "x", "y.tif"]}', "names of cases in its folder, got x, y.tif"),
            ('{"train": ["a"], "val": ["a_image.tif"]}', "a in one split, got train and val"),
            ('{"training": ["a"]}', "expected lists of names for .*'train'.* got training"),
            ('{"train": "a"}', "expected lists of names"),
            ('["a"]', "expected a JSON object, got list"),
            ('{"train": ["a"', "cannot be read as JSON"),
        ],
    )
    def test_split_file_that_does_not_fit(self, tmp_path, text, words):
        touch(tmp_path, "a_image.tif", "a_labels.tif")
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(InputError, match=words):
            find_cases(tmp_path)


class LoadInstancesTest:
    def test_ids_are_relabelled_in_ascending_order(self, tmp_path):
        table = {"9": "cuboid", "2": 1, "70000": "ellipsoid", "5": "cuboid"}
        case, dropped = load(write_case(tmp_path, instances(), classes=table))
        expected = np.zeros(SHAPE, np.int32)
        for new_id, old_id in enumerate((2, 9, 70000), start=1):
            expected[instances() == old_id] = new_id
        assert case.instance_ids.dtype.kind in "iu"
        assert case.class_ids.dtype == np.int32
        np.testing.assert_array_equal(case.instance_ids, expected)
        np.testing.assert_array_equal(case.class_ids, [1, 2, 1])
        assert (case.attributes.shape, case.attributes.dtype) == ((3, 0), np.float32)
        assert dropped == {"below_min_voxels": 0}
        assert (case.name, case.source) == ("a", str(tmp_path / "a_image.npz"))
        np.testing.assert_array_equal(case.volume.spacing, SPACING)
        assert case.volume.array.dtype == np.int16

    def test_small_instances_become_background_and_are_counted(self, tmp_path):
        table = {"9": 2, "2": 1, "70000": 1}
        files = write_case(tmp_path, instances(), classes=table)
        case, dropped = load(files, min_voxels=3)
        np.testing.assert_array_equal(case.instance_ids, instances() == 9)
        np.testing.assert_array_equal(case.class_ids, [2])
        assert dropped == {"below_min_voxels": 2}
        assert load(files, min_voxels=2)[1] == {"below_min_voxels": 1}

    def test_one_class_needs_no_json(self, tmp_path):
        case, _ = load(write_case(tmp_path, instances()), classes=("cell",))
        np.testing.assert_array_equal(case.class_ids, [1, 1, 1])

    @pytest.mark.parametrize("kind", ["instances", "semantic"])
    def test_no_objects(self, tmp_path, kind):
        case, dropped = load(write_case(tmp_path, np.zeros(SHAPE, np.uint8)), labels=kind)
        assert case.instance_ids.shape == SHAPE
        assert not case.instance_ids.any()
        assert (case.class_ids.shape, case.attributes.shape) == ((0,), (0, 0))
        assert dropped == {"below_min_voxels": 0}

    @pytest.mark.parametrize("dtype", ["float32", "int64", "uint64", "bool"])
    def test_any_dtype_that_holds_integers(self, tmp_path, dtype):
        labels = (instances() == 9).astype(dtype)
        files = write_case(tmp_path, labels)
        np.savez(files.labels, labels=labels, spacing=SPACING)
        case, _ = load(files, classes=("cell",))
        np.testing.assert_array_equal(case.instance_ids, instances() == 9)

    def test_single_channel_is_dropped(self, tmp_path):
        case, _ = load(write_case(tmp_path, instances()[..., None]), classes=("cell",))
        assert case.instance_ids.shape == SHAPE

    def test_tables_that_the_project_writes(self, tmp_path):
        ids = np.where(instances() == 9, 2, instances() == 2).astype(np.int32)
        files = write_case(tmp_path, ids)
        instance_table.write(tmp_path / "a_labels.json", ["cuboid", "ellipsoid"])
        np.testing.assert_array_equal(load(files)[0].class_ids, [2, 1])
        values = np.array([[12.5, np.nan], [3, -1]], np.float32)
        instance_table.write(tmp_path / "a_labels.json", ["cuboid", "ellipsoid"], ("energy", "charge"), values)
        case, _ = load(files, attributes=("energy", "charge"))
        np.testing.assert_array_equal(case.class_ids, [2, 1])
        np.testing.assert_array_equal(case.attributes, values)

    def test_small_instance_without_class_is_no_less_wrong(self, tmp_path):
        files = write_case(tmp_path, instances(), classes={"9": 1, "2": 1})
        with pytest.raises(InputError, match="none for 70000"):
            load(files, min_voxels=5)

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"9": 1, "2": 1}, "a_labels.json: expected a class for every id .* none for 70000"),
            ({"9": "pyramid"}, r"id 9: .* \('ellipsoid', 'cuboid'\) .* 1..2, got 'pyramid'"),
            ({"9": 3}, "a_labels.json: id 9: .* got 3"),
            ({"9": 0}, "got 0"),
            ({"9": True}, "got True"),
            ({"9": None}, "got None"),
            ({"9": [1]}, r"got \[1\]"),
            ({"nine": 1}, "expected instance ids as keys, got 'nine'"),
            ([1, 2], "expected a JSON object, got list"),
            (None, "expected a_labels.json beside it"),
        ],
    )
    def test_classes_that_do_not_fit(self, tmp_path, table, words):
        with pytest.raises(InputError, match=words):
            load(write_case(tmp_path, instances(), classes=table))


# Neither in the order of the ids nor in that of the config.
TABLE = {
    "70000": {"class": "ellipsoid", "energy": 70.5, "charge": 7},
    "2": {"class": "cuboid", "energy": 2.5, "charge": None, "time": 0},
    "9": "cuboid",
}
NAMES = ("charge", "energy")


class AttributesTest:
    def test_follow_their_instances(self, tmp_path):
        case, left_out = load(write_case(tmp_path, instances(), classes=TABLE), attributes=NAMES)
        np.testing.assert_array_equal(case.class_ids, [2, 2, 1])  # ids 2, 9, 70000
        np.testing.assert_array_equal(case.attributes, [[np.nan, 2.5], [np.nan, np.nan], [7, 70.5]])
        assert case.attributes.dtype == np.float32
        assert left_out == {"below_min_voxels": 0, "attribute time unlisted": 1}

    def test_of_small_instances_go_with_them(self, tmp_path):
        files = write_case(tmp_path, instances(), classes={**TABLE, "9": {"class": 1, "energy": 9, "charge": 8}})
        case, left_out = load(files, attributes=NAMES, min_voxels=3)
        np.testing.assert_array_equal(case.attributes, [[8, 9]])
        assert left_out == {"below_min_voxels": 2, "attribute time unlisted": 1}

    def test_that_nobody_asked_for_are_counted(self, tmp_path):
        case, left_out = load(write_case(tmp_path, instances(), classes=TABLE))
        assert case.attributes.shape == (3, 0)
        assert left_out == {
            "below_min_voxels": 0,
            "attribute charge unlisted": 2,
            "attribute energy unlisted": 2,
            "attribute time unlisted": 1,
        }

    def test_are_unknown_without_a_table(self, tmp_path):
        case, _ = load(write_case(tmp_path, instances()), classes=("cell",), attributes=NAMES)
        np.testing.assert_array_equal(case.attributes, np.full((3, 2), np.nan))
        case, _ = load(write_case(tmp_path, (instances() == 9).astype(np.uint8)), labels="semantic", attributes=("a",))
        np.testing.assert_array_equal(case.attributes, [[np.nan]])

    @pytest.mark.parametrize("classes", [None, {}, {"1": {"class": 1, "energy": 2}}])
    def test_no_objects(self, tmp_path, classes):
        case, _ = load(write_case(tmp_path, np.zeros(SHAPE, np.uint8), classes=classes), attributes=NAMES)
        assert (case.attributes.shape, case.attributes.dtype) == ((0, 2), np.float32)

    def test_that_are_no_numbers(self, tmp_path):
        files = write_case(tmp_path, instances(), classes={"9": {"class": 1, "energy": "high"}})
        with pytest.raises(InputError, match=r"a_labels.json: id 9: energy: expected a finite number .* got 'high'"):
            load(files, attributes=NAMES)


LANDMARKS = {
    "70000": {"class": 1, "keypoints": {"nose": [0.5, 6.5, 10.5], "tail": None}},
    "2": {"class": 2, "energy": 2.5, "keypoints": {"tail": [4.5, 6.5, 0.25], "ear": [0, 0, 0]}},
    "9": "cuboid",
}
PLACES = ("tail", "nose")


class KeypointsTest:
    def test_follow_their_instances(self, tmp_path):
        case, left_out = load(write_case(tmp_path, instances(), classes=LANDMARKS), keypoints=PLACES)
        nowhere = [np.nan] * 3
        expected = [[[4.5, 6.5, 0.25], nowhere], [nowhere, nowhere], [nowhere, [0.5, 6.5, 10.5]]]  # ids 2, 9, 70000
        np.testing.assert_array_equal(case.keypoints, np.float32(expected))
        assert case.keypoints.dtype == np.float32
        assert left_out == {"below_min_voxels": 0, "attribute energy unlisted": 1, "keypoint ear unlisted": 1}

    def test_of_small_instances_go_with_them(self, tmp_path):
        files = write_case(tmp_path, instances(), classes=LANDMARKS)
        case, _ = load(files, keypoints=PLACES, min_voxels=2)
        np.testing.assert_array_equal(case.keypoints[:, 0], [[4.5, 6.5, 0.25], [np.nan] * 3])

    def test_that_nobody_asked_for_are_counted(self, tmp_path):
        case, left_out = load(write_case(tmp_path, instances(), classes=LANDMARKS), attributes=("energy",))
        assert (case.keypoints.shape, case.keypoints.dtype) == ((3, 0, 3), np.float32)
        assert left_out == {
            "below_min_voxels": 0,
            "keypoint ear unlisted": 1,
            "keypoint nose unlisted": 1,
            "keypoint tail unlisted": 2,
        }

    def test_are_unknown_without_a_table(self, tmp_path):
        case, _ = load(write_case(tmp_path, instances()), classes=("cell",), keypoints=PLACES)
        np.testing.assert_array_equal(case.keypoints, np.full((3, 2, 3), np.nan))
        case, _ = load(write_case(tmp_path, (instances() == 9).astype(np.uint8)), labels="semantic", keypoints=("a",))
        np.testing.assert_array_equal(case.keypoints, [[[np.nan] * 3]])

    @pytest.mark.parametrize("classes", [None, {}])
    def test_no_objects(self, tmp_path, classes):
        case, _ = load(write_case(tmp_path, np.zeros(SHAPE, np.uint8), classes=classes), keypoints=PLACES)
        assert (case.keypoints.shape, case.keypoints.dtype) == ((0, 2, 3), np.float32)

    def test_that_are_no_places(self, tmp_path):
        files = write_case(tmp_path, instances(), classes={"9": {"class": 1, "keypoints": {"nose": [1, 2]}}})
        with pytest.raises(InputError, match=r"a_labels.json: id 9: keypoint nose: expected three .* got \[1, 2\]"):
            load(files, keypoints=PLACES)


class LoadSemanticTest:
    def test_touching_corners_are_one_object_but_other_values_are_not(self, tmp_path):
        labels = np.zeros(SHAPE, np.uint8)
        labels[0, 0, 0] = labels[1, 1, 1] = 2  # 26-connected
        labels[1, 1, 2] = 1
        labels[4, 6, 8:11] = 2
        case, dropped = load(write_case(tmp_path, labels), labels="semantic")
        assert dropped == {"below_min_voxels": 0}
        groups = {(int(case.class_ids[i - 1]), int(np.sum(case.instance_ids == i))) for i in (1, 2, 3)}
        assert groups == {(2, 2), (1, 1), (2, 3)}
        assert case.instance_ids.max() == len(case.class_ids) == 3
        assert case.instance_ids[0, 0, 0] == case.instance_ids[1, 1, 1]
        np.testing.assert_array_equal(case.instance_ids > 0, labels > 0)

    def test_small_components(self, tmp_path):
        labels = np.zeros(SHAPE, np.uint8)
        labels[0, 0, 0] = 1
        labels[4, 6, 8:11] = 2
        case, dropped = load(write_case(tmp_path, labels), labels="semantic", min_voxels=2)
        np.testing.assert_array_equal(case.instance_ids, labels == 2)
        np.testing.assert_array_equal(case.class_ids, [2])
        assert dropped == {"below_min_voxels": 1}

    def test_value_without_class(self, tmp_path):
        files = write_case(tmp_path, np.full(SHAPE, 3, np.uint8))
        with pytest.raises(InputError, match=r"expected labels 0..2 .*'cuboid'.*, got 3"):
            load(files, labels="semantic")


class LoadCaseGridTest:
    def test_other_shape(self, tmp_path):
        files = write_case(tmp_path, np.zeros((7, 5, 11), np.uint8))
        with pytest.raises(InputError, match=r"image.npz and .*labels.npz: .*\(5, 7, 11\) and \(7"):
            load(files)

    def test_spacing(self, tmp_path):
        files = write_case(tmp_path, instances(), labels_spacing=(2.0, 0.75, 0.5001))
        assert load(files, classes=("cell",))[0].class_ids.shape == (3,)
        files = write_case(tmp_path, instances(), labels_spacing=(2.0, 0.5, 0.75))
        with pytest.raises(InputError, match=r"\[2.0, 0.75, 0.5\] and \[2.0, 0.5, 0.75\] mm"):
            load(files, classes=("cell",))

    def test_flipped_nifti(self, tmp_path):
        files = write_case(tmp_path, instances(), suffix=".nii")
        image = SimpleITK.ReadImage(str(files.labels))
        image.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, 1])
        SimpleITK.WriteImage(image, str(files.labels))
        with pytest.raises(InputError, match="expected one orientation, got two"):
            load(files, classes=("cell",))

    def move(self, path, origin, direction):
        image = SimpleITK.ReadImage(str(path))
        image.SetOrigin(origin)
        image.SetDirection(direction)
        SimpleITK.WriteImage(image, str(path))

    def test_shifted_nifti(self, tmp_path):
        files = write_case(tmp_path, instances(), suffix=".nii")
        turned = (0, 0, 1, 0, 1, 0, -1, 0, 0)  # the file's x axis runs along -z of the world, its z axis along x
        self.move(files.images[0], (10, 20, 30), turned)
        # Spacing: 2 mm along z, 0.75 along y, 0.5 along x.
        for origin in ((10.9, 20, 30), (10, 20.35, 30), (10, 20, 30.2)):
            self.move(files.labels, origin, turned)
            assert load(files, classes=("cell",))[0].class_ids.shape == (3,)
        for origin in ((11.1, 20, 30), (10, 20.4, 30), (10, 20, 30.3)):
            self.move(files.labels, origin, turned)
            with pytest.raises(InputError, match=r"a_image.nii and .*a_labels.nii: expected one origin, got") as raised:
                load(files, classes=("cell",))
            assert "got [10.0, 20.0, 30.0] and [" in str(raised.value)
            assert np.allclose(json.loads(str(raised.value).split(" and ")[-1].split(" mm")[0]), origin)

    def test_shifted_nrrd_beside_nifti(self, tmp_path):
        image, labels = tmp_path / "a_image.nii", tmp_path / "a_labels.nrrd"
        for path, array in ((image, np.ones(SHAPE, np.int16)), (labels, instances())):
            stored = SimpleITK.GetImageFromArray(array)
            stored.SetSpacing(SPACING[::-1])
            SimpleITK.WriteImage(stored, str(path))
        files = CaseFiles("a", (image,), labels, None)
        assert load(files, classes=("cell",))[0].class_ids.shape == (3,)
        self.move(labels, (0, 0, 1.1), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        with pytest.raises(
            GridError, match=r"a_image.nii and .*a_labels.nrrd: expected one origin, got \[0.0, 0.0, 0.0"
        ):
            load(files, classes=("cell",))

    def test_formats_without_a_world_have_no_origin(self, tmp_path):
        files = write_case(tmp_path, instances(), suffix=".nii")
        self.move(files.images[0], (10, 20, 30), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        labels = tmp_path / "a_labels.npz"
        write_volume(labels, instances(), SPACING)
        case, _ = load(CaseFiles("a", files.images, labels, None), classes=("cell",))
        assert case.class_ids.shape == (3,)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            (np.full(SHAPE, 0.5), "expected integer labels, got fractions or NaN"),
            (np.full(SHAPE, np.nan), "expected integer labels, got fractions or NaN"),
            (np.full(SHAPE, np.inf), "got inf to inf"),
            (np.full(SHAPE, -1), r"expected labels in 0..2\^63 - 1, got -1 to -1"),
            (np.zeros((*SHAPE, 2)), r"expected labels with 3 axes, got sizes \(5, 7, 11, 2\)"),
        ],
    )
    def test_values_that_are_no_labels(self, tmp_path, labels, words):
        with pytest.raises(InputError, match=words):
            load(write_case(tmp_path, labels))

    def test_unknown_kind(self, tmp_path):
        files = write_case(tmp_path, instances())
        with pytest.raises(ValueError, match="must be instances, semantic, boxes, dicom_seg or hits, got 'panoptic'"):
            load(files, labels="panoptic")


def channels_of(folder, *names, suffixes=("_0000", "_0001")):
    touch(folder, *names)
    return find_cases(folder, channel_suffixes=suffixes)


class ChannelFilesTest:
    SUFFIXES = ("_t1", "_flair")

    def test_are_listed_in_the_order_of_the_suffixes(self, tmp_path):
        names = ("images/a_flair.nii", "images/a_t1.nii", "images/b_t1.npz", "images/b_flair.nii")
        cases = channels_of(tmp_path, *names, "labels/a.nii", "labels/b.nii", suffixes=self.SUFFIXES)
        assert [case.name for case in cases] == ["a", "b"]
        assert [[path.name for path in case.images] for case in cases] == [
            ["a_t1.nii", "a_flair.nii"],
            ["b_t1.npz", "b_flair.nii"],
        ]

    def test_beside_their_labels(self, tmp_path):
        names = ("a_image_0000.tif", "a_image_0001.tif", "a_labels.tif")
        (case,) = channels_of(tmp_path, *names)
        assert (case.name, [path.name for path in case.images]) == ("a", list(names[:2]))
        (tmp_path / "split.json").write_text('{"val": ["a_image_0001"]}')
        assert find_cases(tmp_path, channel_suffixes=("_0000", "_0001"))[0].split == "val"

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (
                ["images/a_0000.nii", "images/b_0000.nii", "images/b_0001.nii", "labels/a.nii", "labels/b.nii"],
                "expected the channels _0000, _0001 of every case, got none for a_0001",
            ),
            (["images/a.nii", "labels/a.nii"], "a.nii: expected a name that ends with _0000 or _0001 .data.channel_su"),
            (["a_image.nii", "a_labels.nii"], "expected the name <case>_image_0000 or <case>_image_0001 or <case>_lab"),
            (["images/a_0000.nii", "images/a_0000.tif", "labels/a.nii"], "one file for 'a_0000', got a_0000.nii too"),
        ],
    )
    def test_that_do_not_fit(self, tmp_path, names, words):
        with pytest.raises(InputError, match=words):
            channels_of(tmp_path, *names)

    def test_become_one_volume(self, tmp_path):
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, 9, (2, *SHAPE)).astype(np.int16)
        write_volume(tmp_path / "images" / "a_t1.nii", first, SPACING)
        write_volume(tmp_path / "images" / "a_flair.nii", second, SPACING)
        write_volume(tmp_path / "labels" / "a.nii", (instances() > 0).astype(np.uint8), SPACING)
        (files,) = find_cases(tmp_path, channel_suffixes=self.SUFFIXES)
        for lazy in (False, True):
            case, _ = load_case(files, labels="semantic", classes=("cell",), min_voxels=1, lazy=lazy)
            np.testing.assert_array_equal(np.asarray(case.volume.array), np.stack([first, second], axis=-1))
            assert isinstance(case.volume.array, LazyArray) == lazy
            assert len(case.class_ids) == 3
        write_volume(tmp_path / "images" / "a_flair.nii", second[1:], SPACING)
        with pytest.raises(GridError, match=r"a_t1.nii and .*a_flair.nii: expected one shape"):
            load_case(files, labels="semantic", classes=("cell",), min_voxels=1)


class FoldersAsCasesTest:
    def test_series_and_stores_are_cases(self, tmp_path):
        touch(tmp_path, "images/ct.1/1.dcm", "images/b.zarr/.zattrs", "images/.hidden/x", "labels/ct.1.nii.gz")
        touch(tmp_path, "labels/b.zarr/.zattrs")
        assert [(case.name, case.images[0].name, case.labels.name) for case in find_cases(tmp_path)] == [
            ("b", "b.zarr", "b.zarr"),
            ("ct.1", "ct.1", "ct.1.nii.gz"),
        ]

    def test_side_by_side_folders_of_other_names_are_passed_over(self, tmp_path):
        touch(tmp_path, "a_image/1.dcm", "a_labels.nii", "records/manifest.json")
        assert [(case.name, case.images[0].name) for case in find_cases(tmp_path)] == [("a", "a_image")]

    def test_series_with_labels_in_another_format(self, tmp_path):
        folder = shared("conversion") / "ct_dicom_dcmqi"
        files = CaseFiles("ct", (folder / "ct-3slice",), folder / "liver_spine_seg.nrrd", None)
        case, dropped = load(files, classes=("organ",))
        assert case.volume.array.shape == case.instance_ids.shape == (3, 512, 512)
        assert len(case.class_ids) == case.instance_ids.max() > 0
        assert dropped == {"below_min_voxels": 0}


def write_boxes(folder, text, suffix=".csv"):
    write_volume(folder / "images" / "a.npz", np.ones(SHAPE, np.int16), SPACING)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / f"a{suffix}").write_text(text)
    return find_cases(folder, labels="boxes")[0]


BOXES = "z0,y0,x0,z1,y1,x1,class,energy\n"


class LoadBoxesTest:
    def test_are_filled_and_the_smaller_one_lies_on_top(self, tmp_path):
        text = BOXES + "0,0,0,2,3,4,cuboid,2.5\n1,1,1,2,2,2,ellipsoid,\n4,6,10,5,7,99,ellipsoid,7\n"
        case, dropped = load(write_boxes(tmp_path, text), labels="boxes", attributes=("energy",), keypoints=("tip",))
        expected = np.zeros(SHAPE, np.int32)
        expected[0:2, 0:3, 0:4], expected[1, 1, 1], expected[4, 6, 10] = 1, 2, 3
        np.testing.assert_array_equal(case.instance_ids, expected)
        np.testing.assert_array_equal(case.class_ids, [2, 1, 1])
        np.testing.assert_array_equal(case.attributes, [[2.5], [np.nan], [7]])
        np.testing.assert_array_equal(case.keypoints, np.full((3, 1, 3), np.nan))
        assert dropped == {"below_min_voxels": 0, "voxels hidden": 1, "boxes clipped": 1}

    def test_a_box_that_others_hide_is_reported(self, tmp_path):
        text = BOXES + "0,0,0,1,1,2,1,1\n0,0,0,1,1,1,2,2\n0,0,1,1,1,2,2,3\n"
        case, dropped = load(write_boxes(tmp_path, text), labels="boxes", attributes=("energy",))
        np.testing.assert_array_equal(case.attributes, [[2], [3]])
        np.testing.assert_array_equal(case.instance_ids[0, 0], [1, 2, *[0] * 9])
        assert dropped == {"below_min_voxels": 0, "without a voxel": 1, "voxels hidden": 2}

    def test_in_millimetres(self, tmp_path):
        # The centre of voxel 0 lies at the world's origin; spacing 2, 0.75 and 0.5 mm.
        row = {"z0": 1, "y0": -0.375, "x0": 0.25, "z1": 5, "y1": 1.125, "x1": 0.75}
        files = write_boxes(tmp_path, json.dumps({"boxes": [row]}), ".json")
        case, _ = load(files, labels="boxes", classes=("cell",), box_unit="mm")
        assert np.argwhere(case.instance_ids).tolist() == [[1, 0, 1], [1, 1, 1], [2, 0, 1], [2, 1, 1]]

    def test_no_boxes(self, tmp_path):
        case, dropped = load(write_boxes(tmp_path, BOXES), labels="boxes")
        assert not case.instance_ids.any()
        assert (case.class_ids.shape, dropped) == ((0,), {"below_min_voxels": 0})

    def test_beside_their_images(self, tmp_path):
        touch(tmp_path, "a_image.nii", "a_labels.json", "b_image.nii", "b_labels.csv", "groups.csv", "split.json")
        touch(tmp_path, "._a_labels.csv")
        (tmp_path / "split.json").write_text('{"val": ["a"]}')
        cases = find_cases(tmp_path, labels="boxes")
        assert [(case.name, case.labels.name, case.split) for case in cases] == [
            ("a", "a_labels.json", "val"),
            ("b", "b_labels.csv", None),
        ]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["images/a.nii", "labels/a.nii"], "a.nii: expected a table of boxes .*.csv, .json.*, got 'a.nii'"),
            (["a_image.nii", "a_labels.nii"], "a_labels.nii: expected a table of boxes"),
            (["images/a.nii", "labels/a.csv", "labels/a.json"], "expected one file for 'a', got a.csv too"),
            (["images/a.nii", "labels/x.txt"], "expected one label file for every image, got none for a.nii"),
        ],
    )
    def test_files_that_are_no_tables(self, tmp_path, names, words):
        touch(tmp_path, *names)
        with pytest.raises(InputError, match=words):
            find_cases(tmp_path, labels="boxes")


class LoadDicomSegTest:
    def files(self, tmp_path, table=None):
        folder = shared("conversion") / "ct_dicom_dcmqi"
        (tmp_path / "a.dcm").symlink_to(folder / "partial_overlaps.dcm")
        if table is not None:
            (tmp_path / "a.json").write_text(json.dumps(table))
        return CaseFiles("a", (folder / "ct-3slice",), tmp_path / "a.dcm", None)

    def test_segments_of_one_class(self, tmp_path):
        case, dropped = load(self.files(tmp_path), labels="dicom_seg", classes=("organ",))
        assert len(case.class_ids) == len(np.unique(case.instance_ids)) - 1 > 1
        assert dropped["voxels hidden"] > 0

    def test_segments_whose_labels_are_no_classes(self, tmp_path):
        with pytest.raises(InputError, match=r"a.dcm: 1: expected one of the classes \('ellipsoid', 'cuboid'\)"):
            load(self.files(tmp_path), labels="dicom_seg")

    def test_classes_from_labels_and_from_json(self, tmp_path):
        files = self.files(tmp_path)
        labels = dicom_seg.read_labels(files.labels)
        classes = ("nothing", *sorted(set(labels.values())))
        case, _ = load(files, labels="dicom_seg", classes=classes)
        visible = sorted(labels)
        assert case.class_ids.tolist() == [classes.index(labels[number]) + 1 for number in visible]
        table = {str(number): {"class": "cuboid", "energy": number} for number in labels}
        (tmp_path / "a.json").write_text(json.dumps(table))
        case, _ = load(files, labels="dicom_seg", attributes=("energy",))
        assert set(case.class_ids.tolist()) == {2}
        assert case.attributes[:, 0].tolist() == visible


class SharedFoldersTest:
    def test_hippocampus(self):
        cases = find_cases(shared("msd_hippocampus"))
        assert len(cases) == 234
        assert sum(case.split == "train" for case in cases) == 208
        assert sum(case.split == "val" for case in cases) == 26
        case, dropped = load(cases[0], labels="semantic", classes=("anterior", "posterior"), min_voxels=10)
        assert case.name == "hippocampus_001"
        assert sorted(case.class_ids.tolist()) == [1, 2]
        assert dropped == {"below_min_voxels": 0}

    def test_nuclei(self):
        cases = find_cases(shared("nuclei"))
        assert [case.split for case in cases] == ["train", "train", "train", "val"]
        loaded = [load(case, classes=("nucleus",))[0] for case in cases]
        counts = {case.name: len(case.class_ids) for case in loaded}
        assert counts == {
            "embryo_16cell_train": 16,
            "monolayer_left_train": 10,
            "ovule_1135_train": 44,
            "ovule_1135_val": 18,
        }
        for case in loaded:
            assert len(np.unique(case.instance_ids)) == len(case.class_ids) + 1

    def test_ms_lesions(self):
        folder = shared("ms_lesions") / "patient26"
        files = CaseFiles("p26", (folder / "flair.nii.gz", folder / "t1.nii.gz"), folder / "lesions.nii.gz", "val")
        case, dropped = load(files, labels="semantic", classes=("lesion",), min_voxels=4)
        assert case.volume.array.shape == (182, 218, 182, 2)
        sizes = np.bincount(case.instance_ids.ravel())[1:]
        assert sizes.min() >= 4
        assert len(sizes) == len(case.class_ids)
        assert dropped["below_min_voxels"] > 0
        cases = find_cases(folder.parent, labels="semantic", channel_suffixes=("flair", "t1"))
        assert [case.name for case in cases] == ["patient19", "patient26"]
        assert (cases[1].images, cases[1].labels) == (files.images, files.labels)
