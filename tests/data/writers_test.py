import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK
import tifffile

from data.errors import InputError
from data.readers import read_volume
from data.writers import labels_suffix, write_labels, write_volume
from tests.data.formats.dicom_test import write_series
from tests.data.formats.ome_zarr_test import multiscales, write_array, write_attributes

SHAPE = (5, 7, 11)
SPACING = (2.5, 0.75, 0.5)
SHARED = Path(__file__).parents[3] / "shared" / "data"
FORMATS = [".nii", ".nii.gz", ".tif", ".tiff", ".ome.tif", ".npz"]
FORMATS += [".nrrd", ".mha", ".h5", ".hdf5", ".zarr", ".ome.zarr"]


def some_labels(top, shape=SHAPE):
    labels = np.zeros(shape, np.int32)
    labels[..., 1] = 3
    labels[0, 0, 0] = top
    return labels


class WriteVolumeTest:
    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2), (1, 7, 11), (1, 7, 11, 2), (5, 7, 1)])
    def test_round_trip(self, tmp_path, suffix, dtype, shape):
        path = tmp_path / f"a{suffix}"
        array = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
        write_volume(path, array, SPACING)
        volume = read_volume(path)
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
        expected = [[0, 0, 0.5, 0], [0, 0.75, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, expected, rtol=1e-6)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_bool_becomes_uint8(self, tmp_path, suffix):
        write_volume(tmp_path / f"a{suffix}", some_labels(1) > 0, SPACING)
        array = read_volume(tmp_path / f"a{suffix}").array
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, some_labels(1) > 0)

    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2)])
    def test_npy_holds_the_array_alone(self, tmp_path, shape):
        array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        write_volume(tmp_path / "a.npy", array, SPACING)
        volume = read_volume(tmp_path / "a.npy")
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])

    @pytest.mark.parametrize(("shape", "axes"), [(SHAPE, "zyx"), ((*SHAPE, 2), "czyx")])
    def test_ome_zarr_metadata(self, tmp_path, shape, axes):
        write_volume(tmp_path / "a.ome.zarr", np.ones(shape, np.uint16), SPACING)
        assert json.loads((tmp_path / "a.ome.zarr" / ".zgroup").read_text()) == {"zarr_format": 2}
        (image,) = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())["multiscales"]
        assert image["version"] == "0.4"
        assert "".join(axis["name"] for axis in image["axes"]) == axes
        assert image["axes"][-1] == {"name": "x", "type": "space", "unit": "millimeter"}
        assert image["axes"][0]["type"] == ("channel" if axes == "czyx" else "space")
        scale = [1.0] * (len(axes) - 3) + list(SPACING)
        assert image["datasets"][0]["coordinateTransformations"][0] == {"type": "scale", "scale": scale}
        array = json.loads((tmp_path / "a.ome.zarr" / "0" / ".zarray").read_text())
        assert (array["dtype"], array["dimension_separator"], array["zarr_format"]) == ("<u2", "/", 2)

    def test_an_ome_zarr_folder_is_not_replaced(self, tmp_path):
        write_volume(tmp_path / "a.ome.zarr", np.ones(SHAPE, np.uint8), SPACING)
        with pytest.raises(InputError, match=r"a.ome.zarr: expected a new or empty output folder"):
            write_volume(tmp_path / "a.ome.zarr", np.zeros(SHAPE, np.uint8), SPACING)
        assert read_volume(tmp_path / "a.ome.zarr").array.all()

    def test_ome_zarr_below_a_relative_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_volume("a.ome.zarr", np.ones(SHAPE, np.uint8), SPACING)
        assert read_volume("a.ome.zarr").array.shape == SHAPE

    @pytest.mark.parametrize("suffix", [".nhdr", ".mhd", ".dcm"])
    def test_formats_that_are_only_read(self, tmp_path, suffix):
        with pytest.raises(InputError, match=rf"expected a format that is written \(.*\), got {suffix}"):
            write_volume(tmp_path / f"a{suffix}", np.ones(SHAPE, np.uint8), SPACING)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_imagej_opens_the_usual_dtypes(self, tmp_path, dtype):
        write_volume(tmp_path / "a.tif", np.ones(SHAPE, dtype), SPACING)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.is_imagej
            assert tiff.imagej_metadata["unit"] == "um"
            assert tiff.imagej_metadata["slices"] == 5

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".tif", ".h5", ".npy", ".npz", ".ome.zarr"])
    def test_a_file_that_the_system_refuses_is_an_os_error(self, tmp_path, suffix):
        path = tmp_path / ("a" * (250 - len(suffix)) + suffix)  # too long for the temporary name, which adds to it
        with pytest.raises(OSError, match=r"too long|cannot be written"):
            write_volume(path, np.ones(SHAPE, np.uint8), SPACING)
        assert list(tmp_path.iterdir()) == []

    def test_old_file_survives_a_failed_write(self, tmp_path):
        write_volume(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8), SPACING)
        with pytest.raises(TypeError):
            write_volume(tmp_path / "a.nii.gz", np.ones(SHAPE, np.float16), SPACING)
        assert read_volume(tmp_path / "a.nii.gz").array.sum() == 5 * 7 * 11
        assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]

    def test_wrong_arguments(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a volume file .* got 'a.png'"):
            write_volume(tmp_path / "a.png", np.ones(SHAPE), SPACING)
        with pytest.raises(ValueError, match=r"must be \[Z, Y, X\] .* got shape \(7, 11\)"):
            write_volume(tmp_path / "a.tif", np.ones((7, 11)), SPACING)
        with pytest.raises(ValueError, match=r"must be finite and above 0, got \[1.0, 0.0, 1.0\]"):
            write_volume(tmp_path / "a.tif", np.ones(SHAPE), (1, 0, 1))
        assert list(tmp_path.iterdir()) == []


class WriteLabelsTest:
    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize(("top", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (2**31 - 1, "uint32")])
    def test_round_trip_in_the_smallest_dtype(self, tmp_path, suffix, top, dtype):
        like, path = tmp_path / f"scan{suffix}", tmp_path / "out" / f"found{suffix}"
        labels = some_labels(top) if top else np.zeros(SHAPE, np.int32)
        write_volume(like, np.ones((*SHAPE, 2), np.float32), SPACING)
        write_labels(path, labels, like)
        found, source = read_volume(path), read_volume(like)
        assert found.array.dtype == dtype
        np.testing.assert_array_equal(found.array, labels)
        np.testing.assert_allclose(found.affine, source.affine, rtol=1e-6)
        assert list(path.parent.iterdir()) == [path]

    def test_nifti_keeps_an_oblique_geometry(self, tmp_path):
        c, s = np.cos(0.4), np.sin(0.4)
        image = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.int16))
        image.SetSpacing((0.5, 0.75, 2.0))
        image.SetOrigin((-10.0, 20.0, 31.0))
        image.SetDirection([-c, s, 0, s, c, 0, 0, 0, 1])
        SimpleITK.WriteImage(image, str(tmp_path / "scan.nii"))
        write_labels(tmp_path / "found.nii.gz", some_labels(7), tmp_path / "scan.nii")
        self.assert_same_geometry(tmp_path / "found.nii.gz", tmp_path / "scan.nii")

    @pytest.mark.parametrize(
        ("suffix", "written"), [(".nrrd", ".nrrd"), (".nhdr", ".nrrd"), (".mha", ".mha"), (".mhd", ".mha")]
    )
    def test_nrrd_and_meta_keep_an_oblique_geometry(self, tmp_path, suffix, written):
        c, s = np.cos(0.4), np.sin(0.4)
        image = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.int16))
        image.SetSpacing((0.5, 0.75, 2.0))
        image.SetOrigin((-10.0, 20.0, 31.0))
        image.SetDirection([-c, s, 0, s, c, 0, 0, 0, 1])
        like = tmp_path / f"scan{suffix}"
        SimpleITK.WriteImage(image, str(like))
        assert labels_suffix(like) == written
        write_labels(tmp_path / f"found{written}", some_labels(7), like)
        self.assert_same_geometry(tmp_path / f"found{written}", like)
        np.testing.assert_array_equal(read_volume(tmp_path / f"found{written}").array, some_labels(7))

    def test_labels_of_a_dicom_series_are_nrrd(self, tmp_path):
        c, s = np.cos(0.3), np.sin(0.3)
        orientation = np.round([c, s, 0, -s, c, 0], 9).tolist()
        folder = write_series(tmp_path / "scan", np.zeros(SHAPE, np.int16), ImageOrientationPatient=orientation)
        assert labels_suffix(folder) == ".nrrd"
        write_labels(tmp_path / "scan_labels.nrrd", some_labels(7), folder)
        found = read_volume(tmp_path / "scan_labels.nrrd")
        np.testing.assert_array_equal(found.array, some_labels(7))
        np.testing.assert_allclose(found.affine, read_volume(folder).affine, atol=1e-6)
        with pytest.raises(InputError, match=r"expected the format of its source .* \(.nrrd\)"):
            write_labels(tmp_path / "scan_labels.mha", some_labels(7), folder)

    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_ome_zarr_keeps_its_place(self, tmp_path, version):
        transformations = [
            {"type": "scale", "scale": [1, 2.0, 750.0, 0.5]},
            {"type": "translation", "translation": [0, 10.0, 2000.0, 3.0]},
        ]
        like = tmp_path / "scan.ome.zarr"
        write_attributes(like, multiscales("czyx", transformations), version)
        write_array(like / "0", np.zeros((2, *SHAPE), np.uint8), version)
        write_labels(tmp_path / "found.zarr", some_labels(300), like)
        found, source = read_volume(tmp_path / "found.zarr"), read_volume(like)
        np.testing.assert_array_equal(found.array, some_labels(300))
        np.testing.assert_allclose(found.affine, source.affine, rtol=1e-12)
        attributes = json.loads((tmp_path / "found.zarr" / ".zattrs").read_text())
        assert attributes["image-label"] == {"version": "0.4"}

    def test_hdf5_names(self, tmp_path):
        write_volume(tmp_path / "scan.h5", np.ones(SHAPE), SPACING)
        write_labels(tmp_path / "found.h5", some_labels(1), tmp_path / "scan.h5")
        with h5py.File(tmp_path / "found.h5") as file:
            assert list(file) == ["labels"]
            np.testing.assert_array_equal(file["labels"].attrs["spacing"], SPACING)

    def test_npy(self, tmp_path):
        write_volume(tmp_path / "scan.npy", np.ones(SHAPE), SPACING)
        write_labels(tmp_path / "found.npy", some_labels(300), tmp_path / "scan.npy")
        assert np.load(tmp_path / "found.npy").dtype == np.uint16

    def assert_same_geometry(self, path, like):
        found, source = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(like))
        assert found.GetSize() == source.GetSize()[:3]
        num_axes = source.GetDimension()
        direction = np.reshape(source.GetDirection(), (num_axes, num_axes))[:3, :3]
        np.testing.assert_allclose(found.GetSpacing(), source.GetSpacing()[:3], rtol=1e-6)
        np.testing.assert_allclose(found.GetOrigin(), source.GetOrigin()[:3], rtol=1e-6)
        np.testing.assert_allclose(found.GetDirection(), direction.ravel(), atol=1e-6)

    @pytest.mark.parametrize(
        "name",
        [
            "msd_hippocampus/images/hippocampus_003.nii.gz",
            "ct_organs/ct.nii.gz",
            "conversion/nifti_oblique/CT_pitch.nii.gz",
            "conversion/nifti_oblique/nibabel_example4d.nii.gz",
        ],
    )
    def test_shared_nifti(self, tmp_path, name):
        like = SHARED / name
        if not like.exists():
            pytest.skip(f"{like} is not here")
        labels = some_labels(300, read_volume(like).array.shape[:3])
        write_labels(tmp_path / "found.nii.gz", labels, like)
        self.assert_same_geometry(tmp_path / "found.nii.gz", like)
        np.testing.assert_array_equal(read_volume(tmp_path / "found.nii.gz").array, labels)

    def test_shared_tiff(self, tmp_path):
        like = SHARED / "nuclei" / "ovule_1135_val_image.tif"
        if not like.exists():
            pytest.skip(f"{like} is not here")
        source = read_volume(like)
        write_labels(tmp_path / "found.tif", some_labels(300, source.array.shape), like)
        found = read_volume(tmp_path / "found.tif")
        np.testing.assert_array_equal(found.array, some_labels(300, source.array.shape))
        np.testing.assert_allclose(found.spacing, source.spacing, rtol=1e-6)

    def test_npz_keys(self, tmp_path):
        write_volume(tmp_path / "scan.npz", np.ones(SHAPE), SPACING)
        write_labels(tmp_path / "found.npz", some_labels(1), tmp_path / "scan.npz")
        with np.load(tmp_path / "found.npz") as archive:
            assert sorted(archive.files) == ["labels", "spacing"]
            np.testing.assert_array_equal(archive["spacing"], SPACING)

    def test_wrong_arguments(self, tmp_path):
        like = tmp_path / "scan.nii.gz"
        write_volume(like, np.ones(SHAPE, np.uint8), SPACING)
        with pytest.raises(InputError, match=r"found.tif: expected the format of its source .*gz"):
            write_labels(tmp_path / "found.tif", some_labels(1), like)
        with pytest.raises(ValueError, match=r"labels \(7, 5, 11\) must have the shape \(5, 7, 11\)"):
            write_labels(tmp_path / "found.nii", some_labels(1, (7, 5, 11)), like)
        with pytest.raises(ValueError, match="must be integers from 0, got int32 from -1"):
            write_labels(tmp_path / "found.nii", some_labels(-1), like)
        with pytest.raises(ValueError, match="must be integers from 0, got float64"):
            write_labels(tmp_path / "found.nii", np.ones(SHAPE), like)
        assert list(tmp_path.iterdir()) == [like]
