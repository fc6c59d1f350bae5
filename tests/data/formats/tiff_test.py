import numpy as np
import pytest
import tifffile

from data.errors import InputError
from data.readers import read_volume
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both, shared


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
        assert_input_error(path, "damaged or truncated|truncated: expected|cannot be read as .tif")

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


class OnDiskTest:
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize(
        "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
    )
    def test_contiguous_stack(self, tmp_path, dtype, byteorder):
        tifffile.imwrite(tmp_path / "a.tif", ramp(dtype), byteorder=byteorder)
        volume = read_both(tmp_path / "a.tif")
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, ramp(dtype))

    @pytest.mark.parametrize(
        "options",
        [
            {"compression": "zlib"},
            {"compression": "zlib", "byteorder": ">"},
            {"compression": "lzw", "predictor": True},
            {"tile": (16, 16)},
            {"rowsperstrip": 2, "compression": "zlib"},
            {"compression": "zlib", "metadata": None},
        ],
    )
    def test_page_by_page(self, tmp_path, options):
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint16"), **options)
        np.testing.assert_array_equal(read_both(tmp_path / "a.tif").array, ramp("uint16"))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize(
        ("axes", "shape", "options", "order"),
        [
            ("CZYX", (2, 5, 7, 11), {"ome": True}, (1, 2, 3, 0)),
            ("ZCYX", (5, 2, 7, 11), {"ome": True}, (0, 2, 3, 1)),
            ("TZYX", (2, 5, 7, 11), {"ome": True}, (1, 2, 3, 0)),
            ("TZCYX", (1, 5, 2, 7, 11), {"ome": True}, (1, 3, 4, 2, 0)),
            ("ZYXS", (5, 7, 11, 3), {"ome": True, "photometric": "rgb"}, (0, 1, 2, 3)),
            ("ZCYX", (5, 2, 7, 11), {"imagej": True}, (0, 2, 3, 1)),
            ("ZYXS", (5, 7, 11, 3), {"imagej": True, "photometric": "rgb"}, (0, 1, 2, 3)),
        ],
    )
    def test_channels(self, tmp_path, axes, shape, options, order, compression):
        array = ramp("uint8", shape)
        tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": axes}, compression=compression, **options)
        expected = array.transpose(order).reshape([array.shape[i] for i in order][:4])
        np.testing.assert_array_equal(read_both(tmp_path / "a.tif").array, expected)

    def test_one_page_that_holds_many_slices_is_read_whole(self, tmp_path):
        options = {"volumetric": True, "tile": (16, 16, 16), "compression": "zlib"}
        tifffile.imwrite(tmp_path / "a.tif", ramp("uint8"), **options)
        np.testing.assert_array_equal(read_both(tmp_path / "a.tif", on_disk=False).array, ramp("uint8"))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
    def test_truncated_file_is_not_opened(self, tmp_path, share, compression):
        noise = np.random.default_rng(0).integers(0, 255, (8, 30, 50)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", noise, compression=compression)
        data = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
        assert_input_error(tmp_path / "a.tif", "truncated|cannot be read as .tif", lazy=True)

    def test_damaged_page_is_found_when_it_is_read(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, ramp("uint16"), compression="zlib")
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[3].dataoffsets[0]
        data = bytearray(path.read_bytes())
        data[offset + 4 : offset + 12] = bytes(8)
        path.write_bytes(bytes(data))
        array = read_volume(path, lazy=True).array
        np.testing.assert_array_equal(array[:3], ramp("uint16")[:3])
        with pytest.raises(InputError, match=r"a.tif: "):
            array[3:4]
        assert_input_error(path, "damaged|cannot be read")

    def test_shared_stacks(self):
        assert read_both(shared("nuclei/ovule_1135_val_image.tif")).array.mean() > 0
        assert read_both(shared("conversion/xyz_8bit__mitotic_plate_calibrated.tiff")).array.mean() > 0
