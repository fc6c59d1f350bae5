import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile

from data.errors import InputError
from data.readers import SUFFIXES, case_stem, read_volume, volume_suffix

SHAPE = (5, 7, 11)
SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def ramp(dtype, shape=SHAPE):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


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


def assert_input_error(path, words):
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


class NamesTest:
    @pytest.mark.parametrize(
        ("name", "stem"),
        [
            ("a.nii.gz", "a"),
            ("a.b.nii", "a.b"),
            ("x/a.ome.tif", "a"),
            ("a.OME.TIFF", "a"),
            ("a.tiff", "a"),
            ("a.npz", "a"),
            ("a.v2", "a.v2"),
        ],
    )
    def test_case_stem(self, name, stem):
        assert case_stem(name) == stem

    def test_volume_suffix(self):
        assert volume_suffix("A.NII.GZ") == ".nii.gz"
        assert volume_suffix("a.ome.tif") == ".tif"
        assert set(SUFFIXES) == {".nii", ".nii.gz", ".tif", ".tiff", ".npz"}
        with pytest.raises(InputError, match=r"expected a volume file \(.*\.npz\), got 'a.png'"):
            volume_suffix("a.png")


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


class TiffTest:
    @pytest.mark.parametrize(
        ("unit", "mm"),
        [("um", 1e-3), ("micron", 1e-3), ("µm", 1e-3), ("mm", 1.0), ("nm", 1e-6), ("pixel", 1.0)],
    )
    def test_imagej_spacing(self, tmp_path, unit, mm):
        metadata = {"axes": "ZYX", "spacing": 3.0, "unit": unit.replace("µ", r"\u00B5")}
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, ramp("uint16"), imagej=True, resolution=(4, 2), metadata=metadata)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, ramp("uint16"))
        np.testing.assert_allclose(volume.spacing, np.array([3.0, 0.5, 0.25]) * mm, rtol=1e-12)
        np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [0.25 * mm, 0.5 * mm, 3 * mm, 1], rtol=1e-12)

    def test_imagej_leaves_out_a_spacing_of_one(self, tmp_path):
        metadata = {"axes": "ZYX", "unit": "mm"}
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, ramp("uint8"), imagej=True, resolution=(4, 4), metadata=metadata)
        np.testing.assert_array_equal(read_volume(path).spacing, [1.0, 0.25, 0.25])

    def test_imagej_without_unit_takes_the_resolution_unit(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path,
            ramp("uint8"),
            imagej=True,
            resolution=(10, 20),
            resolutionunit="CENTIMETER",
            metadata={"axes": "ZYX", "spacing": 0.5},
        )
        np.testing.assert_allclose(read_volume(path).spacing, [5.0, 0.5, 1.0])

    def test_plain_stack(self, tmp_path):
        path = tmp_path / "a.tiff"
        array = ramp("int16")
        tifffile.imwrite(path, array, byteorder=">", resolution=(10, 20), resolutionunit="CENTIMETER")
        volume = read_volume(path)
        assert volume.array.dtype.isnative
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.spacing, [1.0, 0.5, 1.0])

    def test_stack_that_states_no_length_has_spacing_one(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), metadata=None)
        np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").spacing, [1, 1, 1])

    def test_ome(self, tmp_path):
        path = tmp_path / "a.ome.tif"
        array = ramp("float32", (2, *SHAPE))
        metadata = {
            "axes": "CZYX",
            "PhysicalSizeX": 127.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.25,
            "PhysicalSizeZ": 0.5,
        }
        tifffile.imwrite(path, array, ome=True, metadata=metadata)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, np.moveaxis(array, 0, -1))
        np.testing.assert_allclose(volume.spacing, [5e-4, 2.5e-4, 1.27e-4])

    def test_ome_without_sizes_has_spacing_one(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), ome=True, metadata={"axes": "ZYX"})
        np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").spacing, [1, 1, 1])

    def test_ome_takes_a_missing_z_size_from_x(self, tmp_path):
        metadata = {"axes": "ZYX", "PhysicalSizeX": 250.0, "PhysicalSizeY": 500.0}
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), ome=True, metadata=metadata)
        np.testing.assert_allclose(read_volume(tmp_path / "a.tif").spacing, [0.25, 0.5, 0.25])

    @pytest.mark.parametrize(
        ("axes", "shape", "options", "order"),
        [
            ("ZCYX", (5, 2, 7, 11), {"imagej": True}, (0, 2, 3, 1)),
            ("TZYX", (2, 5, 7, 11), {"imagej": True}, (1, 2, 3, 0)),
            ("CYX", (5, 7, 11), {"imagej": True}, (0, 1, 2)),  # Slices that nobody named.
            ("TYX", (5, 7, 11), {"imagej": True}, (0, 1, 2)),
            ("ZYXS", (5, 7, 11, 3), {"imagej": True, "photometric": "rgb"}, (0, 1, 2, 3)),
            ("QYXS", (5, 7, 11, 3), {"photometric": "rgb"}, (0, 1, 2, 3)),
            ("ZYX", (1, 7, 11), {"imagej": True}, (0, 1, 2)),
            ("QYX", (1, 7, 11), {}, (0, 1, 2)),
            ("ZCYX", (1, 2, 7, 11), {"ome": True}, (0, 2, 3, 1)),
        ],
    )
    def test_axes(self, tmp_path, axes, shape, options, order):
        array = ramp("uint8", shape)
        metadata = {} if "Q" in axes else {"axes": axes}
        tifffile.imwrite(tmp_path / "a.tif", array, metadata=metadata, **options)
        np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array, array.transpose(order))

    @pytest.mark.parametrize(
        ("shape", "options", "got"),
        [
            ((7, 11), {}, r"got YX of sizes \(7, 11\)"),
            ((7, 11, 3), {"photometric": "rgb"}, r"got YXS of sizes"),
            ((5, 7, 11, 13), {}, r"got QQYX of sizes \(5, 7, 11, 13\)"),
            ((2, 5, 3, 7, 11), {"imagej": True, "metadata": {"axes": "TZCYX"}}, "got TZCYX"),
        ],
    )
    def test_axes_that_make_no_volume(self, tmp_path, shape, options, got):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), **options)
        assert_input_error(tmp_path / "a.tif", f"expected the axes z, y, x .*{got}")

    def test_two_images_in_one_file(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            writer.write(ramp("uint8"))
            writer.write(ramp("uint8", (2, 3, 4)))
        assert_input_error(tmp_path / "a.tif", "expected one image series, got 2")

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
    @pytest.mark.parametrize(
        "options",
        [
            {"imagej": True, "metadata": {"axes": "ZYX"}},
            {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
            {"ome": True, "compression": "zlib"},
            {"metadata": None},
        ],
    )
    def test_truncated(self, tmp_path, options, share):
        noise = np.random.default_rng(0).integers(0, 255, (8, 30, 50)).astype(np.uint16)
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, noise, **options)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        assert_input_error(path, "damaged or truncated|cannot be read as .tif")

    def test_pages_lost_at_a_page_border(self, tmp_path, caplog):
        path = tmp_path / "a.tif"
        with tifffile.TiffWriter(path) as writer:
            for page in ramp("uint8"):
                writer.write(page, contiguous=False, metadata=None)
        with tifffile.TiffFile(path) as tiff:
            end = tiff.pages[3].offset
        path.write_bytes(path.read_bytes()[:end])
        assert_input_error(path, "damaged or truncated: .*invalid page offset")
        assert caplog.records == []  # Said once, by the error.

    def test_not_a_tiff(self, tmp_path):
        (tmp_path / "a.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        assert_input_error(tmp_path / "a.tif", "cannot be read as .tif: not a TIFF file")

    @pytest.mark.parametrize("spacing", [float("nan"), -1.0, 0.0, float("inf")])
    def test_spacing_that_is_none(self, tmp_path, spacing):
        metadata = {"axes": "ZYX", "spacing": spacing, "unit": "um"}
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), imagej=True, metadata=metadata)
        assert_input_error(tmp_path / "a.tif", r"expected a finite spacing above 0, got \[")

    def test_resolution_of_zero(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, ramp("uint8"), resolution=(0, 1))
        assert_input_error(path, "expected a XResolution above 0, got 0/1")

    def test_unknown_unit(self, tmp_path):
        metadata = {"axes": "ZYX", "spacing": 1.0, "unit": "furlong"}
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), imagej=True, metadata=metadata)
        assert_input_error(tmp_path / "a.tif", r"expected a unit of length \(nm, .*'furlong'")


class NpzTest:
    @pytest.mark.parametrize("key", ["image", "labels", "anything"])
    def test_array_and_spacing(self, tmp_path, key):
        path = tmp_path / "a.npz"
        np.savez(path, **{key: np.asfortranarray(ramp(">i2"))}, spacing=[3, 2, 1])
        volume = read_volume(path)
        assert volume.array.dtype == np.int16
        assert volume.array.dtype.isnative
        assert volume.array.flags.c_contiguous
        np.testing.assert_array_equal(volume.array, ramp("int16"))
        np.testing.assert_array_equal(volume.spacing, [3, 2, 1])
        np.testing.assert_array_equal(volume.affine @ [1, 1, 1, 1], [1, 2, 3, 1])

    def test_spacing_is_one_where_none_is_given(self, tmp_path):
        np.savez(tmp_path / "a.npz", image=ramp("bool", (*SHAPE, 2)), other=np.zeros(2))
        volume = read_volume(tmp_path / "a.npz")
        assert volume.array.shape == (*SHAPE, 2)
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"image": np.zeros(SHAPE, object)}, "allow_pickle=False"),
            ({"image": np.zeros(SHAPE, complex)}, "real voxels, got complex128"),
            ({"image": np.zeros(SHAPE, "U3")}, "real voxels, got <U3"),
            ({"image": np.zeros((5, 0, 11))}, r"every axis, got sizes \(5, 0, 11\)"),
            ({"image": np.zeros((7, 11))}, r"3 or 4 axes, got 2 of sizes \(7, 11\)"),
            ({"image": np.zeros(SHAPE), "labels": np.zeros(SHAPE)}, "expected one array"),
            ({"a": np.zeros(SHAPE), "b": np.zeros(SHAPE)}, r"got \['a', 'b'\]"),
            ({"spacing": np.ones(3)}, r"expected one array, .* got \['spacing'\]"),
            ({"image": np.zeros(SHAPE), "spacing": [1, np.nan, 1]}, r"got \[1.0, nan, 1.0\]"),
            ({"image": np.zeros(SHAPE), "spacing": [1, 0, 1]}, "finite spacing above 0"),
            ({"image": np.zeros(SHAPE), "spacing": [1, 1]}, "a spacing of 3 numbers"),
            ({"image": np.zeros(SHAPE), "spacing": ["1", "1", "1"]}, "a spacing of 3 numbers"),
        ],
    )
    def test_not_a_volume(self, tmp_path, arrays, words):
        np.savez(tmp_path / "a.npz", **arrays)
        assert_input_error(tmp_path / "a.npz", words)

    def test_not_an_archive_or_a_part_of_one(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, image=ramp("int16"))
        path.write_bytes(path.read_bytes()[:-30])
        assert_input_error(path, "expected an NPZ archive")
        path.write_text("hello")
        assert_input_error(path, "expected an NPZ archive")

    def test_damaged_member(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, image=ramp("int16"))
        data = bytearray(path.read_bytes())
        data[400] ^= 255
        path.write_bytes(bytes(data))
        assert_input_error(path, "cannot be read as .npz: Bad CRC-32")


class ReadVolumeTest:
    def test_missing_file_folder_and_format(self, tmp_path):
        (tmp_path / "b.tif").mkdir()
        (tmp_path / "c.png").touch()
        assert_input_error(tmp_path / "a.tif", "expected a volume file, got nothing at that path")
        assert_input_error(tmp_path / "b.tif", "expected a volume file, got a folder")
        assert_input_error(tmp_path / "c.png", r"expected a volume file \(.nii.gz, .*'c.png'")


class SharedFilesTest:
    def test_hippocampus(self):
        volume = read_volume(shared("msd_hippocampus/images/hippocampus_003.nii.gz"))
        assert (volume.array.shape, volume.array.dtype) == ((35, 52, 34), np.float32)
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])
        expected = [[0, 0, -1, -1], [0, -1, 0, -1], [1, 0, 0, 1], [0, 0, 0, 1]]
        np.testing.assert_array_equal(volume.affine, expected)

    @pytest.mark.parametrize(
        ("name", "shape", "dtype", "spacing"),
        [
            ("ovule_1135_val_image", (34, 100, 100), np.uint8, (0.284, 0.127, 0.127)),
            ("ovule_1135_val_labels", (34, 100, 100), np.uint16, (0.284, 0.127, 0.127)),
            ("embryo_16cell_train_image", (51, 120, 122), np.uint16, (1.75, 0.8, 0.8)),
            ("monolayer_left_train_image", (60, 256, 128), np.uint16, (0.29, 0.26, 0.26)),
        ],
    )
    def test_nuclei(self, name, shape, dtype, spacing):
        volume = read_volume(shared(f"nuclei/{name}.tif"))
        assert (volume.array.shape, volume.array.dtype) == (shape, dtype)
        np.testing.assert_allclose(volume.spacing * 1e3, spacing, rtol=1e-12)

    def test_calibrated_stack_with_an_escaped_unit(self):
        volume = read_volume(shared("conversion/xyz_8bit__mitotic_plate_calibrated.tiff"))
        assert volume.array.shape == (6, 263, 263)
        np.testing.assert_allclose(volume.spacing * 1e3, [3.0, 0.0851964, 0.0851964], rtol=1e-6)

    def test_truncated_stack(self, tmp_path):
        source = shared("nuclei/ovule_1135_val_labels.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(source[: len(source) // 2])
        assert_input_error(tmp_path / "a.tif", "damaged or truncated")

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
