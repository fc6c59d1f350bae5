import numpy as np
import pytest

from data.errors import InputError
from data.readers import read_volume
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both


class NpyTest:
    @pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", ">i2", "<u2", ">f4", "int64", "float16", "float64"])
    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2)])
    def test_array(self, tmp_path, dtype, backwards, shape):
        array = ramp(dtype, shape)
        np.save(tmp_path / "a.npy", np.asfortranarray(array) if backwards else array)
        volume = read_both(tmp_path / "a.npy")
        assert volume.array.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(volume.spacing, [1, 1, 1])
        np.testing.assert_array_equal(volume.affine @ [1, 2, 3, 1], [3, 2, 1, 1])

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.zeros(SHAPE, object), "cannot be read as .npy: .*Python objects"),
            (np.zeros(SHAPE, complex), "real voxels, got complex128"),
            (np.zeros(SHAPE, [("a", "i4")]), "expected integer or real voxels"),
            (np.zeros((7, 11)), r"3 or 4 axes, got 2 of sizes \(7, 11\)"),
            (np.zeros((5, 0, 11)), "every axis|empty"),
        ],
    )
    def test_not_a_volume(self, tmp_path, array, words):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        assert_input_error(tmp_path / "a.npy", words)

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
    def test_truncated(self, tmp_path, share):
        np.save(tmp_path / "a.npy", ramp("int32"))
        data = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(data[: int(len(data) * share)])
        assert_input_error(tmp_path / "a.npy", "cannot be read as .npy", lazy=True)

    def test_file_that_is_cut_after_it_was_opened(self, tmp_path):
        path = tmp_path / "a.npy"
        np.save(path, ramp("int32"))
        array = read_volume(path, lazy=True).array
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(InputError, match=r"a.npy: cannot be read as a volume"):
            array[:1]
        path.unlink()
        with pytest.raises(InputError, match=r"a.npy: cannot be read as a volume: .*No such file"):
            array[:1]


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
            ({"spacing": np.ones(3)}, r"expected one array, .* got \[\]"),
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

    def test_is_read_whole(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", image=ramp("int16"), spacing=[3, 2, 1])
        np.testing.assert_array_equal(read_both(tmp_path / "a.npz", on_disk=False).array, ramp("int16"))
