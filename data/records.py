"""Cases as TFRecords, and the manifest that says what a folder of them holds; only this file knows feature names."""

import contextlib
import hashlib
import json
import os
import zlib
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.cases import SPLITS
from data.errors import InputError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# What tf.io.decode_raw reads; a record names its dtype, and the position here picks the decoder.
_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")
_FRAME_BYTES = 16  # A record is framed by its length and two checksums.
_MAX_RECORD_BYTES = 2**31 - 2**20  # A protocol buffer ends at 2 GB.
_FEATURES = {
    "volume": tf.io.FixedLenFeature([], tf.string),
    "volume_dtype": tf.io.FixedLenFeature([], tf.string),
    "volume_shape": tf.io.FixedLenFeature([4], tf.int64),
    "instance_ids_zlib": tf.io.FixedLenFeature([], tf.string),
    "instance_ids_dtype": tf.io.FixedLenFeature([], tf.string),
    "class_ids": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "attributes": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "num_attributes": tf.io.FixedLenFeature([], tf.int64),
    "keypoints": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "num_keypoints": tf.io.FixedLenFeature([], tf.int64, default_value=0),  # records did not always have them
    "spacing": tf.io.FixedLenFeature([3], tf.float32),
    "affine": tf.io.FixedLenFeature([4, 4], tf.float32),
    "origin": tf.io.FixedLenFeature([3], tf.int64),
    "name": tf.io.FixedLenFeature([], tf.string),
    "source": tf.io.FixedLenFeature([], tf.string),
}


def to_example(case):
    """One record of a case.

    Args:
      case: data.cases.Case. The volume keeps its dtype where TensorFlow can decode it; others become a wider one.

    Returns:
      bytes, a serialized tf.train.Example.

    Raises:
      InputError: voxels that are not finite in float32, a dtype without a lossless stand-in, or more than 2 GB.
    """
    array = _storable(case)
    array = array if array.ndim == 4 else array[..., np.newaxis]
    ids = case.instance_ids.astype(np.min_scalar_type(int(case.instance_ids.max())))
    ids = ids if ids.dtype.name in _DTYPES else ids.astype(np.int32)
    compressed_ids = zlib.compress(_little_endian(ids))
    size = array.nbytes + len(compressed_ids)
    if size > _MAX_RECORD_BYTES:
        raise InputError(f"case {case.name}: expected a volume below 2 GB with its ids, came {size / 2**30:.1f} GB")
    features = {
        "volume": _bytes(_little_endian(array)),
        "volume_dtype": _bytes(array.dtype.name),
        "volume_shape": _ints(array.shape),
        "instance_ids_zlib": _bytes(compressed_ids),
        "instance_ids_dtype": _bytes(ids.dtype.name),
        "class_ids": _ints(case.class_ids),
        "attributes": _floats(case.attributes),
        "num_attributes": _ints([case.attributes.shape[1]]),
        "keypoints": _floats(case.keypoints),
        "num_keypoints": _ints([case.keypoints.shape[1]]),
        "spacing": _floats(case.volume.spacing),
        "affine": _floats(case.volume.affine),
        "origin": _ints([0, 0, 0]),
        "name": _bytes(case.name),
        "source": _bytes(Path(case.source).name),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def parse(serialized):
    """The case of one record, as tensors; runs inside tf.data.

    Args:
      serialized: scalar string, from `to_example`. Another record raises tf.errors.InvalidArgumentError, which
        `reading` turns into an InputError.

    Returns:
      dict: volume [Z, Y, X, C] float32 in the source's intensities, instance_ids [Z, Y, X] int32 with ids 1..N (0 is
      background), class_ids [N] int32 in 1..K, attributes [N, T] float32, keypoints [N, L, 3] float32 voxels, spacing
      [3] float32 mm, affine [4, 4] float32, origin [3] int32 voxels (this volume's corner in the source), name and
      source (file name) strings.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.cast(record["volume_shape"], tf.int32)
    ids = tf.io.decode_compressed(record["instance_ids_zlib"], "ZLIB")
    volume = tf.reshape(_decode(record["volume"], record["volume_dtype"], tf.float32), shape)
    num_instances = tf.size(record["class_ids"], tf.int64)
    return {
        "volume": tf.ensure_shape(volume, [None, None, None, None]),
        "instance_ids": tf.reshape(_decode(ids, record["instance_ids_dtype"], tf.int32), shape[:3]),
        "class_ids": tf.cast(record["class_ids"], tf.int32),
        "attributes": tf.reshape(record["attributes"], [num_instances, record["num_attributes"]]),
        "keypoints": tf.reshape(record["keypoints"], [num_instances, record["num_keypoints"], 3]),
        "spacing": record["spacing"],
        "affine": record["affine"],
        "origin": tf.cast(record["origin"], tf.int32),
        "name": record["name"],
        "source": record["source"],
    }


@contextlib.contextmanager
def reading(what):
    """Turns TensorFlow's errors about damaged or foreign records into one InputError about `what` (a file, say)."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        reason = error.message.splitlines()[0].split("[Op:")[0].strip()
        raise InputError(
            f"{what}: expected records of convert_main.py, came something damaged or else: {reason}"
        ) from error


@contextlib.contextmanager
def _writing():
    """Turns TensorFlow's errors about files into the OSError that Python's own writers raise."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


class ShardWriter:
    """Records of one split in files of at most `max_bytes` (one record at least), named when their number is known."""

    def __init__(self, folder, split, max_bytes):
        self._folder, self._split, self._max_bytes = folder, split, max_bytes
        self._writer, self._shards = None, []

    def write(self, record):
        """Appends a serialized record; OSError where the disk is full."""
        size = len(record) + _FRAME_BYTES
        if self._writer is None or self._shards[-1]["bytes"] + size > self._max_bytes:
            self._roll()
        with _writing():
            self._writer.write(record)
        self._shards[-1]["records"] += 1
        self._shards[-1]["bytes"] += size

    def close(self):
        """Finishes the files; returns their entries for the manifest; OSError where the disk is full."""
        self._finish()
        for number, shard in enumerate(self._shards):
            path = self._folder / shard["file"]
            shard["file"] = f"{self._split}-{number:05d}-of-{len(self._shards):05d}.tfrecord"
            path.rename(self._folder / shard["file"])
            shard["sha256"] = _sha256(self._folder / shard["file"])
        return self._shards

    def _finish(self):
        if self._writer is not None:
            with _writing():
                self._writer.close()

    def _roll(self):
        self._finish()
        name = f"{self._split}-{len(self._shards):05d}.part"
        self._writer = tf.io.TFRecordWriter(str(self._folder / name))
        self._shards.append({"file": name, "records": 0, "bytes": 0})


def project_version():
    """The version of the installed project, or "not installed" where it runs from its source folder."""
    try:
        return metadata.version("mask-rcnn-3d")
    except metadata.PackageNotFoundError:
        return "not installed"


def read_manifest(folder):
    """The manifest of a folder of records (see data/convert.py for its fields).

    Raises:
      InputError: there is none, it cannot be read, or it is of another format version.
    """
    path = os.path.join(folder, MANIFEST)
    try:
        manifest = json.loads(tf.io.gfile.GFile(path).read())
    except tf.errors.NotFoundError as error:
        raise InputError(f"no records at {folder}; make them with convert_main.py --output={folder}") from error
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a manifest: {str(error).splitlines()[0]}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: expected format version {FORMAT_VERSION}, came {version}; convert the source again")
    return manifest


def check_shards(folder, manifest, splits=SPLITS):
    """Raises InputError where a shard is missing or has not the size that the manifest states.

    A shard cut between two records raises nothing when it is read, so sizes are compared beforehand.
    """
    for split in splits:
        for shard in manifest["shards"][split]:
            path = os.path.join(folder, shard["file"])
            try:
                found = tf.io.gfile.stat(path).length
            except tf.errors.NotFoundError as error:
                raise InputError(f"{path}: expected a shard of {shard['bytes']} bytes, came no such file") from error
            if found != shard["bytes"]:
                raise InputError(f"{path}: expected a shard of {shard['bytes']} bytes, came {found}; convert again")


def shard_paths(folder, manifest, split):
    """The shard files of a split, at least one.

    Raises:
      InputError: no such split, or it holds no cases.
    """
    if split not in manifest["shards"]:
        raise InputError(f"{folder}: expected a split out of {', '.join(manifest['shards'])}, came {split!r}")
    if not manifest["shards"][split]:
        sizes = ", ".join(f"{name} {count}" for name, count in manifest["num_cases"].items())
        raise InputError(f"{folder}: expected cases in the split {split!r}, came none (cases: {sizes})")
    return [os.path.join(folder, shard["file"]) for shard in manifest["shards"][split]]


def check_matches(manifest, classes, channels, attributes=(), keypoints=()):
    """InputError where records hold other classes, attributes, landmarks (or another order) or channels."""
    if list(classes) != manifest["classes"]:
        raise InputError(f"records: expected the config's classes {list(classes)}, came {manifest['classes']}")
    for kind, mine in (("attributes", attributes), ("keypoints", keypoints)):
        found = manifest.get(kind, [])  # Manifests did not always name them: then there are none.
        if list(mine) != found:
            raise InputError(f"records: expected the config's {kind} {list(mine)}, came {found}")
    if channels != manifest["channels"]:
        raise InputError(f"records: expected the config's {channels} channel(s), came {manifest['channels']}")


def _storable(case):
    """The case's voxels in a dtype of _DTYPES that holds each of them exactly."""
    array = case.volume.array
    if array.dtype.kind == "f" and not _fits_float32(array):
        raise InputError(f"case {case.name}: expected finite voxels within float32, came NaN or infinite ones")
    if array.dtype.name in _DTYPES:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8)
    wide = {"u": np.int64, "f": np.float64}.get(array.dtype.kind)
    wider = None if wide is None else array.astype(wide)
    # Unsigned values beyond int64 come out negative.
    if wider is None or wider.min() < min(array.min(), 0) or not np.array_equal(wider, array):
        raise InputError(f"case {case.name}: expected voxels of {', '.join(_DTYPES)}, came {array.dtype}")
    narrow = wider.dtype.kind == "i" and wider.max() <= np.iinfo(np.int32).max
    return wider.astype(np.int32) if narrow else wider


def _fits_float32(array):
    # NaN fails both comparisons; a minimum and a maximum need no temporary copy.
    return -np.finfo(np.float32).max <= array.min() and array.max() <= np.finfo(np.float32).max


def _decode(data, dtype, out_type):
    """Raw bytes of a dtype of _DTYPES, named by a string tensor, as a flat tensor of `out_type`."""

    def decoder(name):
        return lambda: tf.cast(tf.io.decode_raw(data, tf.as_dtype(name)), out_type)

    # An unknown name has no row here, so that indexing raises.
    index = tf.where(tf.equal(tf.constant(_DTYPES), dtype))[0, 0]
    return tf.switch_case(tf.cast(index, tf.int32), [decoder(name) for name in _DTYPES])


def _little_endian(array):
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _bytes(value):
    value = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values).tolist()))


def _floats(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(values).tolist()))


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
