"""Voxels as bytes: in their own dtype, little-endian, and back to tensors, of which only a part need be decoded."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data.errors import InputError

# What tf.io.decode_raw reads. Bytes come with the name of their dtype, whose position here picks the decoder.
DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")
_ID_DTYPES = ("uint8", "uint16", "int32")


def storable(case):
    """The case's voxels in a dtype of DTYPES that holds each of them exactly.

    Raises:
      InputError: voxels that are not finite in float32, or a dtype without a lossless stand-in.
    """
    array = case.volume.array
    if array.dtype.kind == "f" and not _fits_float32(array):
        raise InputError(f"case {case.name}: expected finite voxels within float32, came NaN or infinite ones")
    if array.dtype.name in DTYPES:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8)
    wide = {"u": np.int64, "f": np.float64}.get(array.dtype.kind)
    wider = None if wide is None else array.astype(wide)
    # Unsigned values beyond int64 come out negative.
    if wider is None or wider.min() < min(array.min(), 0) or not np.array_equal(wider, array):
        raise InputError(f"case {case.name}: expected voxels of {', '.join(DTYPES)}, came {array.dtype}")
    narrow = wider.dtype.kind == "i" and wider.max() <= np.iinfo(np.int32).max
    return wider.astype(np.int32) if narrow else wider


def storable_ids(ids):
    """Instance ids >= 0 in the narrowest dtype that is stored."""
    narrow = ids.astype(np.min_scalar_type(int(ids.max())), copy=False)
    return narrow if narrow.dtype.name in _ID_DTYPES else narrow.astype(np.int32)


def to_bytes(array):
    """[n] uint8: the voxels, x fastest, little-endian; no copy where they lie in memory like that."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def part(data, dtype, shape, first, size):
    """A part of a volume.

    Args:
      data: scalar string, of `to_bytes`.
      dtype: scalar string, its dtype's name. Another than those of DTYPES raises tf.errors.InvalidArgumentError, as
        does another number of bytes.
      shape: [4] int32, of the volume [Z, Y, X, C].
      first: [3] int32, first voxel of the part.
      size: [3] int32.

    Returns:
      [*size, C] float32.
    """
    return _part(data, dtype, DTYPES, shape, first, size, tf.float32)


def ids_part(data, dtype, shape, first, size):
    """A part [*size] int32 of ids; as `part`, but `shape` is [3]."""
    whole = tf.concat([shape, [1]], 0)
    return tf.squeeze(_part(data, dtype, _ID_DTYPES, whole, first, size, tf.int32), -1)


def of_ids(data, dtype, function):
    """`function(ids)`, which returns int32, of the ids [Z * Y * X] in the dtype in which they are stored."""
    return _decoded(data, dtype, _ID_DTYPES, function)


def _part(data, dtype, known, shape, first, size, out_type):
    # One axis of x and channels: along an axis of a single channel TensorFlow would copy voxel by voxel.
    channels = shape[3]
    rows = tf.stack([size[0], shape[1], shape[2] * channels])
    start, kept = tf.stack([0, first[1], first[2] * channels]), tf.stack([size[0], size[1], size[2] * channels])

    def cut(flat):
        found = tf.cast(tf.slice(tf.reshape(flat, rows), start, kept), out_type)
        return tf.reshape(found, tf.concat([size, [channels]], 0))

    # Only the slices z that the part touches are decoded, and of them only the part is cast.
    slices = _Slices(tf.cast(shape, tf.int64), tf.cast(first[0], tf.int64), tf.cast(size[0], tf.int64))
    return tf.ensure_shape(_decoded(data, dtype, known, cut, slices), [None] * 4)


class _Slices(NamedTuple):
    """`count` slices from slice `first` on of a volume of shape [4], all int64: its bytes may be 2 GB and more."""

    shape: tf.Tensor
    first: tf.Tensor
    count: tf.Tensor

    def bytes_of(self, data, voxel_bytes):
        """The bytes of the slices among those of the volume."""
        step = voxel_bytes * tf.reduce_prod(self.shape[1:])
        surplus = tf.strings.substr(data, step * self.shape[0], 1)  # raises where the volume's end is not there
        fits = tf.debugging.Assert(tf.equal(surplus, ""), ["more bytes than a volume has"])
        with tf.control_dependencies([fits] if fits else []):  # eagerly there is nothing to wait for
            return tf.strings.substr(data, step * self.first, step * self.count)


def _decoded(data, dtype, known, function, slices=None):
    def decoder(name):
        def decode():
            kind = tf.as_dtype(name)
            return function(tf.io.decode_raw(slices.bytes_of(data, kind.size) if slices else data, kind))

        return decode

    # An unknown name has no row here, so that indexing raises.
    index = tf.where(tf.equal(tf.constant(known), dtype))[0, 0]
    return tf.switch_case(tf.cast(index, tf.int32), [decoder(name) for name in known])


def _fits_float32(array):
    # NaN fails both comparisons; a minimum and a maximum need no temporary copy.
    return -np.finfo(np.float32).max <= array.min() and array.max() <= np.finfo(np.float32).max
