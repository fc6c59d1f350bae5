import numpy as np
import pytest

from data.cases import CaseFiles, find_cases, load_case, survey
from data.errors import InputError
from data.writers import write_volume
from tests.data.cases_test import touch

SHAPE = (5, 7, 11)
SPACING = (2.0, 0.75, 0.5)


class CaseFoldersTest:
    """A folder for each case, with a file for each channel and one of labels."""

    SUFFIXES = ("flair", "t1")

    def test_channels_in_order_and_the_other_file(self, tmp_path):
        touch(tmp_path, "p2/t1.nii.gz", "p2/flair.nii.gz", "p2/lesions.nii.gz")
        touch(tmp_path, "p1.5_val/P1_t1.nii", "p1.5_val/P1_flair.tif", "p1.5_val/P1_seg.npz", "p1.5_val/P1_seg.json")
        touch(tmp_path, "LICENSE", "names.csv", ".cache/x", "._p2", "p2/._t1.nii.gz", "p2/notes.txt", "p2/README")
        one, two = tmp_path / "p1.5_val", tmp_path / "p2"
        assert find_cases(tmp_path, channel_suffixes=self.SUFFIXES) == [
            CaseFiles("p1.5_val", (one / "P1_flair.tif", one / "P1_t1.nii"), one / "P1_seg.npz", "val"),
            CaseFiles("p2", (two / "flair.nii.gz", two / "t1.nii.gz"), two / "lesions.nii.gz", None),
        ]

    def test_brats_names(self, tmp_path):
        suffixes = ("_t1", "_t1ce", "_t2", "_flair")
        touch(tmp_path, *(f"BraTS_{i}/BraTS_{i}{end}.nii.gz" for i in "12" for end in (*suffixes, "_seg")))
        cases = find_cases(tmp_path, channel_suffixes=suffixes)
        assert [[path.name for path in (*case.images, case.labels)] for case in cases] == [
            [f"BraTS_{i}{end}.nii.gz" for end in (*suffixes, "_seg")] for i in "12"
        ]

    def test_series_and_stores_are_volumes_of_a_case(self, tmp_path):
        touch(tmp_path, "a/t1/1.dcm", "a/flair.zarr/.zattrs", "a/labels.zarr/.zattrs")
        (case,) = find_cases(tmp_path, channel_suffixes=self.SUFFIXES)
        assert [path.name for path in (*case.images, case.labels)] == ["flair.zarr", "t1", "labels.zarr"]

    def test_split_file_calls_a_case_by_its_folder(self, tmp_path):
        touch(tmp_path, *(f"{case}/{name}.nii" for case in ("a", "b_val", "c") for name in ("flair", "t1", "seg")))
        (tmp_path / "split.json").write_text('{"test": ["b_val"], "train": ["c"]}')
        assert [case.split for case in find_cases(tmp_path, channel_suffixes=self.SUFFIXES)] == [None, "test", "train"]
        (tmp_path / "split.json").write_text('{"train": ["flair.nii"]}')  # There is one in every folder.
        with pytest.raises(InputError, match=r"names of cases in its folder, got flair\.nii"):
            find_cases(tmp_path, channel_suffixes=self.SUFFIXES)

    def test_tables_of_boxes(self, tmp_path):
        touch(tmp_path, "a/flair.nii", "a/t1.nii", "a/boxes.csv", "b/b_t1.nii", "b/b_flair.nii", "b/b_t1.json")
        cases = find_cases(tmp_path, labels="boxes", channel_suffixes=self.SUFFIXES)
        assert [case.labels.name for case in cases] == ["boxes.csv", "b_t1.json"]
        touch(tmp_path, "a/seg.nii")
        with pytest.raises(InputError, match=r"a: expected one file, the labels, .* got boxes.csv, seg.nii$"):
            find_cases(tmp_path, labels="boxes", channel_suffixes=self.SUFFIXES)
        (tmp_path / "a" / "boxes.csv").unlink()
        with pytest.raises(InputError, match=r"a/seg.nii: expected a table of boxes .*, got 'seg.nii'$"):
            find_cases(tmp_path, labels="boxes", channel_suffixes=self.SUFFIXES)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["flair.nii", "t1.nii"], "b: expected one file, the labels, beside the channels flair, t1, got none"),
            (
                ["flair.nii", "t1.nii", "t2.nii", "seg.nii"],
                "b: expected one file, the labels, beside the channels flair, t1, got seg.nii, t2.nii",
            ),
            (
                ["flair.nii", "T1.nii", "seg.nii"],
                "b: expected one file whose name ends with t1 (data.channel_suffixes), got T1.nii, flair.nii, seg.nii",
            ),
            (
                ["flair.nii", "x_flair.tif", "t1.nii", "seg.nii"],
                "b: expected one file whose name ends with flair (data.channel_suffixes), got flair.nii, x_flair.tif",
            ),
            ([".nii"], "b: expected one file whose name ends with flair (data.channel_suffixes), got none"),
        ],
    )
    def test_a_folder_that_does_not_fit(self, tmp_path, names, words):
        touch(tmp_path, "a/flair.nii", "a/t1.nii", "a/seg.nii", *(f"b/{name}" for name in names))
        with pytest.raises(InputError) as error:
            find_cases(tmp_path, channel_suffixes=self.SUFFIXES)
        assert str(error.value) == f"{tmp_path}/{words}"

    def test_a_file_of_another_format(self, tmp_path):
        touch(tmp_path, "a/flair.nii", "a/t1.nii", "a/seg.vtk")
        with pytest.raises(InputError, match=r"a/seg.vtk: expected a volume file"):
            find_cases(tmp_path, channel_suffixes=self.SUFFIXES)

    def test_every_folder_that_does_not_fit_has_a_line(self, tmp_path):
        touch(tmp_path, "a/t1.nii", "b/flair.nii", "b/t1.nii", "b/seg.nii", "c/flair.nii", "c/t1.nii")
        cases, problems = survey(tmp_path, labels="semantic", channel_suffixes=self.SUFFIXES)
        assert [case.name for case in cases] == ["b"]
        assert [line.split(": ")[0] for line in problems] == [f"{tmp_path}/a", f"{tmp_path}/c"]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["labels/a.nii"], "got no volumes"),
            (["a/flair.nii", "a/t1.nii", "a/seg.nii", "x.nii"], "x.nii: expected the name <case>_imageflair or"),
            (["images/aflair.nii", "b/flair.nii"], "labels: expected a folder of volumes, got no such folder"),
            (["LICENSE"], "or with data.channel_suffixes a folder for each case, got no volumes"),
        ],
    )
    def test_other_layouts_are_not_taken_for_it(self, tmp_path, names, words):
        touch(tmp_path, *names)
        with pytest.raises(InputError, match=words):
            find_cases(tmp_path, channel_suffixes=self.SUFFIXES)

    def test_series_side_by_side_are_not_taken_for_it(self, tmp_path):
        touch(tmp_path, "a_imageflair/1.dcm", "a_imaget1/1.dcm", "a_labels.zarr/.zattrs", "x/1.dcm")
        (case,) = find_cases(tmp_path, channel_suffixes=self.SUFFIXES)
        assert (case.name, case.labels.name) == ("a", "a_labels.zarr")

    def test_without_channels_folders_are_passed_over(self, tmp_path):
        touch(tmp_path, "a/image.nii", "a/labels.nii")
        with pytest.raises(InputError, match="got no volumes"):
            find_cases(tmp_path)

    def test_become_cases(self, tmp_path):
        for name, value in (("t1", 3), ("flair", 7)):
            write_volume(tmp_path / "a" / f"{name}.nii", np.full(SHAPE, value, np.int16), SPACING)
        ids = np.zeros(SHAPE, np.int32)
        ids[0:3, 1:3, 4:6], ids[4, 6, 0:2], ids[0, 6, 10] = 9, 2, 700
        write_volume(tmp_path / "a" / "cells.nii", ids, SPACING)
        (tmp_path / "a" / "cells.json").write_text('{"9": "cuboid", "2": "ellipsoid", "700": "cuboid"}')
        (files,) = find_cases(tmp_path, channel_suffixes=self.SUFFIXES)
        case, _ = load_case(files, labels="instances", classes=("ellipsoid", "cuboid"), min_voxels=1)
        assert case.volume.array.shape == (*SHAPE, 2)
        assert case.volume.array[0, 0, 0].tolist() == [7, 3]
        assert case.class_ids.tolist() == [1, 2, 2]  # ids 2, 9, 700
        assert (case.name, case.source) == ("a", str(tmp_path / "a" / "flair.nii"))
