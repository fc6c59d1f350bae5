import json

import numpy as np
import pytest
import tensorstore

from data.errors import InputError
from data.readers import case_stem, read_volume, volume_suffix
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both, shared

UNITS = {"z": "micrometer", "y": "nanometer", "x": "millimeter"}


def write_array(path, array, version, **metadata):
    if version == "0.4":
        metadata = {"shape": array.shape, "chunks": [3] * array.ndim, "dtype": array.dtype.str, **metadata}
        spec = {"driver": "zarr", "metadata": {"dimension_separator": "/", **metadata}}
    else:
        grid = {"name": "regular", "configuration": {"chunk_shape": [3] * array.ndim}}
        spec = {
            "driver": "zarr3",
            "metadata": {"shape": array.shape, "chunk_grid": grid, "data_type": array.dtype.name, **metadata},
        }
    spec |= {"kvstore": {"driver": "file", "path": f"{path}/"}, "create": True}
    tensorstore.open(spec).result().write(array).result()


def write_attributes(path, attributes, version):
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **attributes}}}
        (path / "zarr.json").write_text(json.dumps(group))


def multiscales(names, transformations, **more):
    axes = [{"name": name, "unit": UNITS[name], "type": "space"} if name in UNITS else {"name": name} for name in names]
    datasets = [{"path": "0", "coordinateTransformations": transformations}, {"path": "1"}]
    return {"multiscales": [{"axes": axes, "datasets": datasets, **more}]}


def write_image(path, array, version="0.4", names="zyx", scale=(2.0, 750.0, 0.5), **more):
    lead = len(names) - 3
    transformations = [{"type": "scale", "scale": [*[1.0] * lead, *scale]}]
    write_attributes(path, multiscales(names, transformations, **more), version)
    write_array(path / "0", array, version)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
class BothVersionsTest:
    @pytest.mark.parametrize("suffix", [".zarr", ".ome.zarr", ".OME.zarr"])
    def test_finest_level_and_units(self, tmp_path, version, suffix):
        path = write_image(tmp_path / f"a{suffix}", ramp("int16"), version)
        write_array(path / "1", ramp("int16")[::2], version)
        volume = read_both(path)
        np.testing.assert_array_equal(volume.array, ramp("int16"))
        np.testing.assert_allclose(volume.spacing, [2e-3, 7.5e-4, 0.5], rtol=1e-12)
        np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [0.5, 7.5e-4, 2e-3, 1], rtol=1e-12)
        assert (volume_suffix(path), case_stem(path)) == (suffix.lower(), "a")

    @pytest.mark.parametrize(
        "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"]
    )
    def test_dtypes(self, tmp_path, version, dtype):
        volume = read_both(write_image(tmp_path / "a.zarr", ramp(dtype), version))
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, ramp(dtype))

    @pytest.mark.parametrize(
        ("names", "shape", "order"),
        [
            ("tczyx", (1, 1, 5, 7, 11), (0, 1, 2)),
            ("tczyx", (1, 2, 5, 7, 11), (1, 2, 3, 0)),
            ("tczyx", (2, 1, 5, 7, 11), (1, 2, 3, 0)),
            ("czyx", (2, 5, 7, 11), (1, 2, 3, 0)),
            ("zcyx", (5, 2, 7, 11), (0, 2, 3, 1)),
            ("xyz", (11, 7, 5), (2, 1, 0)),
        ],
    )
    def test_axes(self, tmp_path, version, names, shape, order):
        array = ramp("uint16", shape)
        path = tmp_path / "a.zarr"
        write_attributes(path, multiscales(names, [{"type": "scale", "scale": [1] * len(names)}]), version)
        write_array(path / "0", array, version)
        expected = array.squeeze().transpose(order)
        np.testing.assert_array_equal(read_both(path).array, expected)

    def test_transformations_apply_one_after_the_other(self, tmp_path, version):
        path = tmp_path / "a.zarr"
        own = [{"type": "scale", "scale": [2, 3, 4]}, {"type": "translation", "translation": [10, 20, 30]}]
        more = {"coordinateTransformations": [{"type": "scale", "scale": [10, 10, 1]}]}
        attributes = multiscales("zyx", own, **more)
        for axis in attributes["multiscales"][0]["axes"]:
            axis["unit"] = "millimeter"
        write_attributes(path, attributes, version)
        write_array(path / "0", ramp("uint8"), version)
        volume = read_both(path)
        np.testing.assert_array_equal(volume.spacing, [20, 30, 4])
        np.testing.assert_array_equal(volume.affine @ [0, 0, 0, 1], [30, 200, 100, 1])
        np.testing.assert_array_equal(volume.affine @ [1, 1, 1, 1], [34, 230, 120, 1])

    def test_labels_beside_the_image(self, tmp_path, version):
        path = write_image(tmp_path / "a.ome.zarr", ramp("int16"), version)
        write_attributes(path / "labels", {"labels": ["cells"]}, version)
        labels = write_image(path / "labels" / "cells", ramp("uint8"), version)
        np.testing.assert_array_equal(read_both(labels).array, ramp("uint8"))
        np.testing.assert_array_equal(read_both(path).array, ramp("int16"))
        assert (volume_suffix(labels), case_stem(labels)) == (".zarr", "cells")

    def test_bioformats2raw_layout(self, tmp_path, version):
        path = tmp_path / "a.zarr"
        write_attributes(path, {"bioformats2raw.layout": 3}, version)
        write_image(path / "0", ramp("int16"), version)
        (path / "OME").mkdir()
        np.testing.assert_array_equal(read_both(path).array, ramp("int16"))
        write_image(path / "1", ramp("int16"), version)
        assert_input_error(path, r"expected one image, '0', got \['0', '1'\]; give the path of one of them")
        assert read_both(path / "1").array.shape == SHAPE

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"axes": ["z", "y"]}, "expected the axes z, y, x .* got 'zy' of sizes"),
            ({"axes": ["t", "z", "y"]}, "expected the axes z, y, x .* got 'tzy' of sizes"),
            ({"axes": [{"name": "z", "unit": "furlong"}, "y", "x"]}, "expected a unit of length .*'furlong'"),
            ({"datasets": [{"path": "../secret"}]}, r"inside the group, got '\.\./secret'"),
            ({"datasets": [{"path": "9"}]}, "cannot be read as .zarr"),
            ({"datasets": []}, "cannot be read as .zarr"),
            (
                {"coordinateTransformations": [{"type": "rotation", "rotation": [1]}]},
                "expected a scale or a translation, got {'type': 'rotation'",
            ),
            ({"coordinateTransformations": [{"type": "scale", "scale": [1, 0, 1]}]}, "finite spacing above 0"),
            ({"coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}, "cannot be read as .zarr"),
        ],
    )
    def test_not_a_volume(self, tmp_path, version, change, words):
        path = write_image(tmp_path / "a.zarr", ramp("int16"), version)
        attributes = multiscales("zyx", [])
        attributes["multiscales"][0].update(change)
        write_attributes(path, attributes, version)
        assert_input_error(path, words)

    def test_group_without_an_image(self, tmp_path, version):
        write_attributes(tmp_path / "a.zarr", {}, version)
        assert_input_error(tmp_path / "a.zarr", "expected a group with one multiscale image .* got 0")
        write_array(tmp_path / "b.zarr", ramp("int16"), version)
        assert_input_error(tmp_path / "b.zarr", "expected a group with one multiscale image .* got 0")

    def test_damaged_chunk_is_found_when_it_is_read(self, tmp_path, version):
        path = write_image(tmp_path / "a.zarr", ramp("int16"), version)
        chunk = path / "0" / ("c/1/0/0" if version == "0.5" else "1/0/0")
        chunk.write_bytes(chunk.read_bytes()[:5])
        array = read_volume(path, lazy=True).array
        np.testing.assert_array_equal(array[:3], ramp("int16")[:3])
        with pytest.raises(InputError, match=r"a.zarr: cannot be read as a volume"):
            array[3:4]
        assert_input_error(path, "cannot be read")

    def test_chunk_of_more_than_memory_holds(self, tmp_path, version):
        path = write_image(tmp_path / "a.zarr", ramp("int16"), version)
        file = path / "0" / ("zarr.json" if version == "0.5" else ".zarray")
        metadata = json.loads(file.read_text())
        huge = [2**15, 2**15, 2**15]
        metadata["shape"] = huge
        if version == "0.4":
            metadata["chunks"] = huge
        else:
            metadata["chunk_grid"]["configuration"]["chunk_shape"] = huge
        file.write_text(json.dumps(metadata))
        assert_input_error(path, "expected voxels that fit in .* GB of memory", lazy=True)


class OmeZarrTest:
    def test_names_of_axes_alone_and_no_unit(self, tmp_path):
        path = tmp_path / "a.zarr"
        write_attributes(path, {"multiscales": [{"axes": ["z", "y", "x"], "datasets": [{"path": "0"}]}]}, "0.4")
        write_array(path / "0", ramp("int16"), "0.4")
        volume = read_both(path)
        np.testing.assert_array_equal(volume.array, ramp("int16"))
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])

    def test_big_endian(self, tmp_path):
        np.testing.assert_array_equal(read_both(write_image(tmp_path / "a.zarr", ramp(">f4"))).array, ramp("f4"))

    def test_missing_or_no_folder(self, tmp_path):
        (tmp_path / "b.zarr").touch()
        assert_input_error(tmp_path / "a.ome.zarr", "expected a .ome.zarr folder, got nothing at that path")
        assert_input_error(tmp_path / "b.zarr", "expected a .zarr folder, got a file")

    def test_shared_image_equals_the_tiff_voxel_for_voxel(self):
        name = "conversion/xyz_8bit__mitotic_plate_calibrated"
        zarr, tiff = read_both(shared(f"{name}.ome.zarr")), read_both(shared(f"{name}.tiff"))
        assert zarr.array.dtype == tiff.array.dtype == np.uint8
        np.testing.assert_array_equal(zarr.array, tiff.array)
        np.testing.assert_allclose(zarr.spacing, tiff.spacing, rtol=1e-5)
        np.testing.assert_allclose(zarr.affine, tiff.affine, rtol=1e-5)
