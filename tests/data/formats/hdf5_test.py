import h5py
import numpy as np
import pytest

from data.errors import InputError
from data.readers import read_volume
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both


def write(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


class Hdf5Test:
    @pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".H5"])
    @pytest.mark.parametrize("dtype", ["bool", "uint8", ">i2", "<u4", "int64", "float16", ">f4", "float64"])
    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2)])
    def test_array_of_any_dtype(self, tmp_path, dtype, suffix, shape):
        array = ramp(dtype, shape)
        volume = read_both(write(tmp_path / f"a{suffix}", {"anything": array}))
        assert volume.array.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(volume.array, array)

    def test_compressed_chunks(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("a/b", data=ramp("int16"), chunks=(2, 3, 4), compression="gzip")
        np.testing.assert_array_equal(read_both(tmp_path / "a.h5").array, ramp("int16"))

    @pytest.mark.parametrize("name", ["image", "labels", "volume", "raw", "group/raw"])
    def test_named_dataset_among_others(self, tmp_path, name):
        others = {"other": np.zeros(SHAPE), "table": np.zeros((3, 4)), "more/other": np.zeros(SHAPE)}
        path = write(tmp_path / "a.h5", {name: ramp("int16"), **others})
        np.testing.assert_array_equal(read_both(path).array, ramp("int16"))

    @pytest.mark.parametrize(("name", "mm"), [("spacing", 1.0), ("element_size_um", 1e-3)])
    def test_spacing(self, tmp_path, name, mm):
        path = write(tmp_path / "a.h5", {"a": ramp("int16")}, **{name: [2, 0.75, 0.5]})
        volume = read_both(path)
        np.testing.assert_allclose(volume.spacing, np.array([2, 0.75, 0.5]) * mm, rtol=1e-12)
        np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [0.5 * mm, 0.75 * mm, 2 * mm, 1])
        with h5py.File(path, "a") as file:
            file["a"].attrs[name] = [4, 5, 6]  # What the dataset says counts more.
        np.testing.assert_allclose(read_both(path).spacing, np.array([4, 5, 6]) * mm, rtol=1e-12)

    def test_no_spacing(self, tmp_path):
        np.testing.assert_array_equal(read_both(write(tmp_path / "a.h5", {"a": ramp("int16")})).spacing, [1, 1, 1])

    @pytest.mark.parametrize(
        ("arrays", "attributes", "words"),
        [
            ({}, {}, r"expected one dataset with 3 or 4 axes, 'image' or 'labels' .*, got \[\]"),
            ({"a": np.zeros((7, 11))}, {}, r"expected one dataset .*, got \[\]"),
            ({"a": np.zeros(SHAPE), "b": np.zeros(SHAPE)}, {}, r"got \['a', 'b'\]"),
            ({"raw": np.zeros(SHAPE), "labels": np.zeros(SHAPE)}, {}, r"got \['labels', 'raw'\]"),
            ({"a": np.zeros((5, 0, 11))}, {}, r"every axis, got sizes \(5, 0, 11\)"),
            ({"a": np.zeros(SHAPE, complex)}, {}, "real voxels, got complex128"),
            ({"a": np.zeros(SHAPE, "S3")}, {}, "real voxels, got "),
            ({"a": np.zeros(SHAPE)}, {"spacing": [1, 1]}, r"a spacing of 3 numbers, got .* of shape \(2,\)"),
            ({"a": np.zeros(SHAPE)}, {"spacing": "1 1 1"}, "a spacing of 3 numbers"),
            ({"a": np.zeros(SHAPE)}, {"spacing": [1, np.nan, 1]}, r"finite spacing above 0, got \[1.0, nan, 1.0\]"),
            ({"a": np.zeros(SHAPE)}, {"element_size_um": [1, -1, 1]}, "finite spacing above 0"),
        ],
    )
    def test_not_a_volume(self, tmp_path, arrays, attributes, words):
        assert_input_error(write(tmp_path / "a.h5", arrays, **attributes), words)

    def test_voxels_in_other_files(self, tmp_path):
        write(tmp_path / "b.h5", {"a": ramp("int16")})
        with h5py.File(tmp_path / "link.h5", "w") as file:
            file["image"] = h5py.ExternalLink("b.h5", "a")
        assert_input_error(tmp_path / "link.h5", r"expected one dataset .*, got \[\]")
        layout = h5py.VirtualLayout(SHAPE, "i2")
        layout[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "a", SHAPE)
        with h5py.File(tmp_path / "virtual.h5", "w") as file:
            file.create_virtual_dataset("image", layout)
        assert_input_error(tmp_path / "virtual.h5", "expected voxels in this file, got /image, which points to others")
        with h5py.File(tmp_path / "external.h5", "w") as file:
            external = [(str(tmp_path / "x.raw"), 0, 770)]
            file.create_dataset("image", SHAPE, "i2", external=external)
        assert_input_error(tmp_path / "external.h5", "expected voxels in this file")

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
    def test_truncated(self, tmp_path, share):
        path = write(tmp_path / "a.h5", {"a": ramp("int32")})
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        assert_input_error(path, "cannot be read as .h5", lazy=True)

    def test_damaged_chunk_is_found_when_it_is_read(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
            dataset = file.create_dataset("a", data=noise, chunks=(1, 7, 11), compression="gzip", fletcher32=True)
            offset = dataset.id.get_chunk_info(3).byte_offset
        data = bytearray((tmp_path / "a.h5").read_bytes())
        data[offset + 20] ^= 255
        (tmp_path / "a.h5").write_bytes(bytes(data))
        array = read_volume(tmp_path / "a.h5", lazy=True).array
        np.testing.assert_array_equal(array[:3], noise[:3])
        with pytest.raises(InputError, match=r"a.h5: cannot be read as a volume"):
            array[3:4]
