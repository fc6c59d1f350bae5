import numpy as np
import pytest
import tensorflow as tf

from data import voxels

SHAPE = (5, 7, 11)


class PartTest:
    @pytest.mark.parametrize("dtype", voxels.DTYPES)
    @pytest.mark.parametrize(("first", "size"), [((0, 0, 0), SHAPE), ((1, 2, 3), (3, 4, 5)), ((4, 0, 10), (1, 7, 1))])
    def test_a_part_is_the_slice(self, dtype, first, size):
        array = (np.arange(np.prod(SHAPE) * 2) % 251).astype(dtype).reshape(*SHAPE, 2)
        read = tf.function(voxels.part)
        found = read(
            voxels.to_bytes(array).tobytes(), dtype, tf.constant(array.shape), tf.constant(first), tf.constant(size)
        )
        expected = array[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))]
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        assert found.dtype == tf.float32

    def test_an_unknown_dtype_or_another_size_raises(self):
        whole = tf.constant([0, 0, 0]), tf.constant(SHAPE)
        data = voxels.to_bytes(np.zeros(SHAPE, np.int16)).tobytes()
        for name, content in (
            ("complex64", data),
            ("int16", data[:-2]),
            ("int16", data[:-1]),
            ("int16", data + b"\0"),
            ("int32", data),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError):
                voxels.part(content, name, tf.constant([*SHAPE, 1]), *whole)


class IdsTest:
    @pytest.mark.parametrize(("largest", "dtype"), [(0, "uint8"), (256, "uint16"), (65536, "int32")])
    def test_ids_are_stored_narrow_and_read_in_parts(self, largest, dtype):
        ids = np.zeros(SHAPE, np.int32)
        ids[3, 5, 7:] = largest
        stored = voxels.storable_ids(ids)
        assert stored.dtype == dtype
        data, shape = voxels.to_bytes(stored).tobytes(), tf.constant(SHAPE)
        found = voxels.ids_part(data, dtype, shape, tf.constant([2, 5, 6]), tf.constant([2, 2, 4]))
        np.testing.assert_array_equal(found, ids[2:4, 5:7, 6:10])
        assert found.dtype == tf.int32
        seen = []
        total = voxels.of_ids(
            data, dtype, lambda flat: seen.append(flat.dtype.name) or tf.reduce_sum(tf.cast(flat, "int32"))
        )
        assert total == 4 * largest
        assert seen == [dtype]
