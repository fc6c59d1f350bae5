import gzip
import struct

import numpy as np
import pytest
import SimpleITK

from data.errors import InputError
from data.readers import read_volume
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both, shared


def write_nifti(path, array, spacing=(0.5, 0.75, 2.0), origin=(1.0, -2.0, 30.0), direction=None):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def patch_nifti(path, offset, layout, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(bytes(data))


class NiftiTest:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
    def test_array_spacing_and_dtype(self, tmp_path, suffix, dtype):
        path = tmp_path / f"a{suffix.lower()}"
        write_nifti(path, ramp(dtype))
        volume = read_volume(path.rename(tmp_path / f"a{suffix}"))
        assert volume.array.dtype == dtype
        assert volume.array.flags.c_contiguous
        np.testing.assert_array_equal(volume.array, ramp(dtype))
        np.testing.assert_array_equal(volume.spacing, [2.0, 0.75, 0.5])
        assert volume.spacing.dtype == volume.affine.dtype == np.float64

    def test_affine_maps_z_y_x_index_to_world(self, tmp_path):
        angle = np.deg2rad(20)
        c, s = np.cos(angle), np.sin(angle)
        direction = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
        path = write_nifti(tmp_path / "a.nii", ramp("uint8"), direction=direction)
        image = SimpleITK.ReadImage(str(path))
        world = image.TransformIndexToPhysicalPoint((10, 3, 2))  # x, y, z
        np.testing.assert_allclose(read_volume(path).affine @ [2, 3, 10, 1], [*world, 1], rtol=0, atol=1e-9)

    def test_fourth_axis_becomes_channels(self, tmp_path):
        array = ramp("int16", (3, *SHAPE))
        image = SimpleITK.GetImageFromArray(array, isVector=False)
        image.SetSpacing((0.5, 0.75, 2.0, 9.0))
        SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
        volume = read_volume(tmp_path / "a.nii.gz")
        assert volume.array.shape == (*SHAPE, 3)
        assert volume.array.flags.c_contiguous
        np.testing.assert_array_equal(volume.array[..., 1], array[1])
        np.testing.assert_array_equal(volume.spacing, [2.0, 0.75, 0.5])

    def test_vector_voxels_are_channels(self, tmp_path):
        array = ramp("float32", (*SHAPE, 2))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(tmp_path / "a.nii"))
        np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").array, array)

    def test_one_slice(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ramp("uint8", (1, 7, 11)))
        assert read_volume(path).array.shape == (1, 7, 11)

    def test_scale_slope_is_applied(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ramp("int16"))
        patch_nifti(path, 112, "<2f", 2.0, -1000.0)
        np.testing.assert_array_equal(read_volume(path).array, ramp("float32") * 2 - 1000)

    @pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_truncated(self, tmp_path, suffix, share):
        path = write_nifti(tmp_path / f"a{suffix}", ramp("int16"))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        assert_input_error(path, "truncated|end-of-stream|expected a NIfTI-1 file")

    def test_flipped_bit_in_gzip(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
        path = write_nifti(tmp_path / "a.nii.gz", noise)
        data = bytearray(path.read_bytes())
        data[-60] ^= 4
        path.write_bytes(bytes(data))
        assert_input_error(path, "cannot be read as .nii.gz")

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("a.nii", b"hello " * 100, "expected a NIfTI-1 file"),
            ("a.nii", b"", "expected a NIfTI-1 file"),
            ("a.nii.gz", b"hello " * 100, "Not a gzipped file"),
            ("a.nii.gz", gzip.compress(b"hello " * 100, mtime=0), "expected a NIfTI-1 file"),
            ("a.nii.gz", b"", "expected a NIfTI-1 file"),
        ],
    )
    def test_not_what_the_name_says(self, tmp_path, capfd, name, content, words):
        (tmp_path / name).write_bytes(content)
        assert_input_error(tmp_path / name, words)
        assert capfd.readouterr().err == ""  # The C++ library would have written there itself.

    @pytest.mark.parametrize(
        ("offset", "layout", "values", "words"),
        [
            (40, "<4h", (3, 11, 0, 5), r"a voxel or more on every axis, got sizes \(5, 0, 11\)"),
            (40, "<4h", (3, 11, -2, 5), "a voxel or more on every axis"),
            (40, "<4h", (3, 3000, 3000, 3000), "truncated: expected 54000000352 bytes, got 1122"),
            (40, "<4h", (2, 11, 7, 1), "expected 3 or 4 axes"),
            (40, "<6h", (5, 11, 7, 1, 1, 5), "expected 3 or 4 axes"),
            (40, "<h", (0,), "cannot be read"),
            (40, "<4h", (3, 5, 2, 3), None),
            (84, "<f", (np.nan,), r"finite spacing above 0, got \[2.0, nan, 0.5\]"),
            (84, "<f", (0.0,), r"finite spacing above 0, got \[2.0, 0.0, 0.5\]"),
            (84, "<f", (-0.5,), "finite spacing above 0"),
            (108, "<f", (np.nan,), "cannot be read"),
            (284, "<f", (np.nan,), "expected a finite orientation"),
        ],
    )
    def test_doubtful_header(self, tmp_path, capfd, offset, layout, values, words):
        path = write_nifti(tmp_path / "a.nii", ramp("int16"))
        patch_nifti(path, offset, layout, *values)
        if words is None:  # A smaller volume in a longer file is no error.
            assert read_volume(path).array.shape == (3, 2, 5)
        else:
            assert_input_error(path, words)
        assert capfd.readouterr().err == ""

    def test_complex_voxels(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ramp("complex64"))
        assert_input_error(path, "expected integer or real voxels, got complex64")

    def test_sheared_axes(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", ramp("uint8"))
        patch_nifti(path, 252, "<2h", 0, 1)
        patch_nifti(path, 280, "<12f", 0.5, 0.3, 0, 0, 0, 0.75, 0.2, 0, 0, 0, 2, 0)
        assert_input_error(path, "expected voxel axes at right angles, got a sheared sform")

    def test_hippocampus(self):
        volume = read_volume(shared("msd_hippocampus/images/hippocampus_003.nii.gz"))
        assert (volume.array.shape, volume.array.dtype) == ((35, 52, 34), np.float32)
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])
        expected = [[0, 0, -1, -1], [0, -1, 0, -1], [1, 0, 0, 1], [0, 0, 0, 1]]
        np.testing.assert_array_equal(volume.affine, expected)

    def test_oblique_series(self):
        volume = read_volume(shared("conversion/nifti_oblique/nibabel_example4d.nii.gz"))
        assert (volume.array.shape, volume.array.dtype) == ((24, 96, 128, 2), np.int16)
        np.testing.assert_allclose(volume.spacing, [2.2, 2, 2], rtol=1e-6)
        # The sform of the file, from RAS to LPS and from x, y, z to z, y, x.
        expected = [
            [0, 0, 2, -117.8551],
            [0.355528, -1.97371, 0, 35.72294],
            [2.17108, 0.323208, 0, -7.248798],
            [0, 0, 0, 1],
        ]
        np.testing.assert_allclose(volume.affine, expected, rtol=1e-5, atol=1e-5)

    def test_tilted_gantry(self):
        volume = read_volume(shared("conversion/nifti_oblique/CT_pitch.nii.gz"))
        assert (volume.array.shape, volume.array.dtype) == ((58, 248, 175), np.uint8)
        np.testing.assert_allclose(volume.spacing, [2.39705, 0.8125, 0.8125], rtol=1e-6)
        expected = [
            [0, 0, -0.8125, 69.02076],
            [-0.680799, -0.779041, 0, 134.3856],
            [2.29834, -0.230762, 0, -13.56882],
            [0, 0, 0, 1],
        ]
        np.testing.assert_allclose(volume.affine, expected, rtol=1e-5, atol=1e-5)


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]


class AllItkFormatsTest:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_array_spacing_and_affine(self, tmp_path, suffix, dtype):
        angle = np.deg2rad(20)
        c, s = np.cos(angle), np.sin(angle)
        path = write_nifti(tmp_path / f"a{suffix}", ramp(dtype), direction=[[c, -s, 0], [s, c, 0], [0, 0, -1]])
        volume = read_both(path, on_disk=suffix != ".nii.gz")
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, ramp(dtype))
        np.testing.assert_allclose(volume.spacing, [2.0, 0.75, 0.5], rtol=1e-6)
        expected = [[0, -0.75 * s, 0.5 * c, 1], [0, 0.75 * c, 0.5 * s, -2], [-2, 0, 0, 30], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, expected, atol=1e-6)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_compressed(self, tmp_path, suffix):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ramp("int16")), str(tmp_path / f"a{suffix}"), True)
        volume = read_both(tmp_path / f"a{suffix}", on_disk=suffix == ".nii")
        np.testing.assert_array_equal(volume.array, ramp("int16"))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_vector_voxels_are_channels(self, tmp_path, suffix):
        array = ramp("float32", (*SHAPE, 2))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(tmp_path / f"a{suffix}"))
        # A NIfTI file keeps the components apart, as a fifth axis.
        volume = read_both(tmp_path / f"a{suffix}", on_disk="nii" not in suffix)
        np.testing.assert_array_equal(volume.array, array)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_fourth_axis_becomes_channels(self, tmp_path, suffix):
        array = ramp("int16", (3, *SHAPE))
        image = SimpleITK.GetImageFromArray(array, isVector=False)
        image.SetSpacing((0.5, 0.75, 2.0, 9.0))
        SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
        volume = read_both(tmp_path / f"a{suffix}", on_disk=suffix != ".nii.gz")
        np.testing.assert_array_equal(volume.array, np.moveaxis(array, 0, -1))
        np.testing.assert_array_equal(volume.spacing, [2.0, 0.75, 0.5])

    @pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 0.95])
    @pytest.mark.parametrize("compressed", [False, True])
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_truncated(self, tmp_path, capfd, suffix, compressed, share):
        noise = np.random.default_rng(0).integers(0, 99, (5, 17, 23)).astype(np.int16)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise), str(tmp_path / f"a{suffix}"), compressed)
        data_path = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
        data = data_path.read_bytes()
        data_path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(
            InputError, match=r"truncated|incorrect|end-of-stream|expected an? |cannot be read"
        ) as caught:
            read_volume(tmp_path / f"a{suffix}")
        assert "\n" not in str(caught.value)
        assert capfd.readouterr().err == ""  # The C++ library would have written there itself.

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
    def test_sheared_axes(self, tmp_path, suffix):
        image = SimpleITK.GetImageFromArray(ramp("uint8"))
        image.SetDirection([1, 0.3, 0, 0, 1, 0, 0, 0, 1])
        SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
        assert_input_error(tmp_path / f"a{suffix}", "expected voxel axes at right angles, got sheared ones")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_not_what_the_name_says(self, tmp_path, suffix):
        for content in (b"", b"hello " * 100, b"NRRD0004\n\n", b"DimSize = 1\nElementDataFile = LOCAL\n"):
            (tmp_path / f"a{suffix}").write_bytes(content)
            assert_input_error(tmp_path / f"a{suffix}", "expected |cannot be read|Not a gzipped file")

    @pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
    @pytest.mark.parametrize("name", ["../a.raw", "/etc/hosts", "LIST", "a%d.raw"])
    def test_data_file_elsewhere(self, tmp_path, suffix, name):
        path = write_nifti(tmp_path / f"a{suffix}", ramp("uint8"))
        path.write_text(path.read_text().replace("a.raw", name))
        assert_input_error(path, f"expected one data file in its own folder, got '{name}'")

    @pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
    def test_data_file_missing(self, tmp_path, suffix):
        path = write_nifti(tmp_path / f"a{suffix}", ramp("uint8"))
        (tmp_path / "a.raw").unlink()
        assert_input_error(path, "expected the data file 'a.raw' beside it, got no such file")

    def test_big_endian(self, tmp_path):
        array = ramp("int16")
        geometry = "sizes: 11 7 5\nspacings: 0.5 0.75 2"
        header = f"NRRD0004\ntype: short\ndimension: 3\n{geometry}\nendian: big\nencoding: raw\n\n"
        (tmp_path / "a.nrrd").write_bytes(header.encode() + array.astype(">i2").tobytes())
        volume = read_both(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.spacing, [2, 0.75, 0.5])
        header = "NDims = 3\nDimSize = 11 7 5\nElementSpacing = 0.5 0.75 2\nElementByteOrderMSB = True\n"
        header += "BinaryData = True\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
        (tmp_path / "a.mha").write_bytes(header.encode() + array.astype(">f4").tobytes())
        volume = read_both(tmp_path / "a.mha")
        np.testing.assert_array_equal(volume.array, array.astype(np.float32))
        np.testing.assert_array_equal(volume.spacing, [2, 0.75, 0.5])

    @pytest.mark.parametrize(("suffix", "skip"), [(".nhdr", "byte skip: {}\n"), (".mhd", "HeaderSize = {}\n")])
    @pytest.mark.parametrize("number", [13, -1])
    def test_data_after_a_foreign_header(self, tmp_path, suffix, skip, number):
        path = write_nifti(tmp_path / f"a{suffix}", ramp("int16"))
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:-1], skip.format(number), lines[-1]]))
        (tmp_path / "a.raw").write_bytes(b"thirteenbytes" + (tmp_path / "a.raw").read_bytes())
        np.testing.assert_array_equal(read_both(path).array, ramp("int16"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), ramp("int16"))

    def test_right_anterior_superior_space_becomes_lps(self, tmp_path):
        path = write_nifti(tmp_path / "a.nrrd", ramp("uint8"))
        path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"right-anterior-superior"))
        expected = [[0, 0, -0.5, -1], [0, -0.75, 0, 2], [2, 0, 0, 30], [0, 0, 0, 1]]
        np.testing.assert_array_equal(read_both(path).affine, expected)

    def test_components_that_vary_slowest_are_moved(self, tmp_path):
        array = ramp("uint8", (2, *SHAPE))
        header = "NRRD0004\ntype: uchar\ndimension: 4\nsizes: 11 7 5 2\nkinds: domain domain domain vector\n"
        (tmp_path / "a.nrrd").write_bytes(f"{header}encoding: raw\n\n".encode() + array.tobytes())
        volume = read_both(tmp_path / "a.nrrd", on_disk=False)
        np.testing.assert_array_equal(volume.array, np.moveaxis(array, 0, -1))

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("ElementSpacing = 0.5", "ElementSpacing = nan", r"finite spacing above 0, got \[2.0, 0.75, nan\]"),
            ("ElementSpacing = 0.5", "ElementSpacing = -1", r"finite spacing above 0, got \[2.0, 0.75, -1.0\]"),
            ("ElementSpacing = 0.5", "ElementSpacing = 0", r"finite spacing above 0, got \[2.0, 0.75, 0.0\]"),
            ("Offset = 1", "Offset = nan", "expected a finite Offset, got nan -2 30"),
            ("TransformMatrix = 1", "TransformMatrix = inf", "expected a finite TransformMatrix, got inf 0"),
            ("DimSize = 11 7", "DimSize = 11 0", r"a voxel or more on every axis, got sizes \(5, 0, 11\)"),
            ("DimSize = 11 7", "DimSize = 11 70000", "truncated: expected 7700"),
            ("DimSize = 11 7", "DimSize = 11 x", "expected DimSize of whole numbers, got '11 x 5'"),
            ("ElementDataFile", "DataFile", "header up to ElementDataFile"),
        ],
    )
    def test_doubtful_meta_header(self, tmp_path, old, new, words):
        path = write_nifti(tmp_path / "a.mha", ramp("int16"))
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        assert_input_error(path, words)

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("(0.5,0,0)", "(nan,0,0)", "cannot be read as .nrrd"),
            ("(0.5,0,0)", "(0,0,0)", r"finite spacing above 0, got \[2.0, 0.75, 0.0\]"),
            ("origin: (1,", "origin: (nan,", "cannot be read as .nrrd"),
            ("sizes: 11 7", "sizes: 11 0", r"a voxel or more on every axis, got sizes \(5, 0, 11\)"),
            ("sizes: 11 7", "sizes: 11 70000", "truncated: expected 7700"),
            ("sizes: 11 7", "sizes: 11 x", "expected sizes of whole numbers, got '11 x 5'"),
        ],
    )
    def test_doubtful_nrrd_header(self, tmp_path, old, new, words):
        path = write_nifti(tmp_path / "a.nrrd", ramp("int16"))
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        assert_input_error(path, words)

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
    def test_flipped_bit_in_compressed_voxels(self, tmp_path, suffix):
        noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
        path = tmp_path / f"a{suffix}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise), str(path), True)
        data = bytearray(path.read_bytes())
        data[-60] ^= 4
        path.write_bytes(bytes(data))
        assert_input_error(path, f"cannot be read as {suffix}")

    def test_header_of_more_voxels_than_memory_holds(self, tmp_path):
        path = tmp_path / "a.nrrd"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ramp("uint8")), str(path), True)
        path.write_bytes(path.read_bytes().replace(b"sizes: 11 7 5", b"sizes: 99999 99999 99999"))
        assert_input_error(path, "expected voxels that fit in .* GB of memory")

    def test_shared_labels_lie_on_the_grid_of_their_series(self):
        folder = shared("conversion/ct_dicom_dcmqi")
        image = read_volume(folder / "ct-3slice")
        for name, values in (("heart_seg", [0, 3]), ("liver_spine_seg", [0, 1, 2])):
            labels = read_both(folder / f"{name}.nrrd", on_disk=False)
            assert labels.array.shape == image.array.shape
            np.testing.assert_array_equal(np.unique(labels.array), values)
            np.testing.assert_allclose(labels.affine, image.affine, atol=1e-4)
