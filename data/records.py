"""Cases as TFRecords, and the manifest that says what a folder of them holds; only this file knows feature names."""

import contextlib
import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import remote, statistics, voxels, wire
from data.atomic import replacing
from data.cases import SPLITS
from data.errors import InputError

FORMAT_VERSION = 2
MANIFEST, CONVERSION = "manifest.json", "conversion.json"  # written last, and first

_FRAME_BYTES, _FRAME_HEAD_BYTES = 16, 12  # A record follows its length and a checksum; another one ends it.
_ID_COMPRESSION = 1  # zlib's fastest: at 6 the ids took longer than all else that is done to a case
_MAX_RECORD_BYTES = 2**31 - 1  # A protocol buffer ends there; what reads a longer one ends the process.
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
    "num_keypoints": tf.io.FixedLenFeature([], tf.int64),
    "instance_numbers": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "intensity": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "spacing": tf.io.FixedLenFeature([3], tf.float32),
    "affine": tf.io.FixedLenFeature([4, 4], tf.float32),
    "origin": tf.io.FixedLenFeature([3], tf.int64),
    "case_shape": tf.io.FixedLenFeature([3], tf.int64),
    "chunk": tf.io.FixedLenFeature([], tf.int64),
    "num_chunks": tf.io.FixedLenFeature([], tf.int64),
    "name": tf.io.FixedLenFeature([], tf.string),
    "source": tf.io.FixedLenFeature([], tf.string),
}


def to_example(chunk):
    """One record: a chunk of a case, or all of it.

    Args:
      chunk: data.chunks.Chunk. The volume keeps its dtype where TensorFlow can decode it; others become a wider one.

    Returns:
      bytes, a serialized tf.train.Example.

    Raises:
      InputError: voxels that are not finite in float32, a dtype without a lossless stand-in, or more than 2 GB.
    """
    case = chunk.case
    array = voxels.storable(case)
    array = array if array.ndim == 4 else array[..., np.newaxis]
    ids = voxels.storable_ids(case.instance_ids)
    compressed_ids = zlib.compress(voxels.to_bytes(ids), _ID_COMPRESSION)
    _check_size(case, array.nbytes + len(compressed_ids))  # before it is copied
    features = {
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
        "instance_numbers": _ints(chunk.instance_numbers),
        "intensity": _floats(chunk.intensity),
        "origin": _ints(chunk.origin),
        "case_shape": _ints(chunk.case_shape),
        "chunk": _ints([chunk.number]),
        "num_chunks": _ints([chunk.count]),
        "name": _bytes(case.name),
        "source": _bytes(Path(case.source).name),
    }
    example = wire.example(features, "volume", voxels.to_bytes(array))
    _check_size(case, len(example))
    return example


def parse(serialized):
    """The chunk of one record, as tensors; runs inside tf.data.

    Args:
      serialized: scalar string, from `to_example`. Another record raises tf.errors.InvalidArgumentError, which
        `reading` turns into an InputError.

    Returns:
      dict: volume [Z, Y, X, C] float32 in the source's intensities, instance_ids [Z, Y, X] int32 with ids 1..N (0 is
      background), class_ids [N] int32 in 1..K, attributes [N, T] float32, keypoints [N, L, 3] float32 voxels, spacing
      [3] float32 mm, affine [4, 4] float32, name and source (file name) strings of the case. And where the chunk lies:
      origin [3] int32 voxels (its corner in the case), case_shape [3], chunk and num_chunks int32, instance_numbers [N]
      int32 (those of ids 1..N in the whole case), intensity [C, S] float32 of the whole case (data/statistics.py).
    """
    example, parts = parse_but_voxels(serialized)
    whole = tf.zeros([3], tf.int32), example.pop("shape")
    return {"volume": parts.volume(*whole), "instance_ids": parts.ids(*whole), **example}


def parse_but_voxels(serialized):
    """What `parse` returns of one record without its volume and its ids, and how to read parts of them.

    Args:
      serialized: scalar string, from `to_example`.

    Returns:
      dict, with shape [3] int32 beside, and Parts: what is not read of them is not decoded either, which saves most of
      the time and memory where a patch is much smaller than its chunk.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.cast(record["volume_shape"], tf.int32)
    num_instances = tf.size(record["class_ids"], tf.int64)
    return {
        "shape": shape[:3],
        "class_ids": tf.cast(record["class_ids"], tf.int32),
        "attributes": tf.reshape(record["attributes"], [num_instances, record["num_attributes"]]),
        "keypoints": tf.reshape(record["keypoints"], [num_instances, record["num_keypoints"], 3]),
        "spacing": record["spacing"],
        "affine": record["affine"],
        **{name: tf.cast(record[name], tf.int32) for name in ("origin", "case_shape", "chunk", "num_chunks")},
        "instance_numbers": tf.cast(record["instance_numbers"], tf.int32),
        "intensity": tf.reshape(record["intensity"], [shape[3], len(statistics.NAMES)]),
        "name": record["name"],
        "source": record["source"],
    }, _parts(record, shape)


class Parts(NamedTuple):
    """Readers of the voxels of one record.

    volume: f(first [3] int32, size [3] int32) -> [*size, C] float32.
    ids: f(first, size) -> [*size] int32.
    of_ids: f(function) -> what that returns, int32, of all ids [Z * Y * X] in the dtype in which they are stored.
    """

    volume: Callable
    ids: Callable
    of_ids: Callable


def _parts(record, shape):
    ids = tf.io.decode_compressed(record["instance_ids_zlib"], "ZLIB"), record["instance_ids_dtype"]
    return Parts(
        volume=functools.partial(voxels.part, record["volume"], record["volume_dtype"], shape),
        ids=functools.partial(voxels.ids_part, *ids, shape[:3]),
        of_ids=functools.partial(voxels.of_ids, *ids),
    )


def feature_specs():
    """{name: (dtype name, shape)} of all features of a record; -1 stands for any number."""
    return {
        name: (spec.dtype.name, (-1,) if isinstance(spec, tf.io.FixedLenSequenceFeature) else tuple(spec.shape))
        for name, spec in _FEATURES.items()
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


def write_shard(path: Path, chunks: Iterable, classes) -> dict:
    """Writes chunks as one file, which appears when it is complete.

    Args:
      path: of the shard, in a folder that exists.
      chunks: data.chunks.Chunk in order, made as they are written.
      classes: the K class names.

    Returns:
      The shard's entry for the manifest, {file, bytes, sha256}, with `records`: a list of {offset and length (of the
      Example, in bytes), hash (of tf.strings.to_hash_bucket_fast, 62 bits), case, chunk, instances {class: n}}.

    Raises:
      InputError: from `to_example` or from the chunks; OSError: the disk is full.
    """
    listed, position = [], 0
    with replacing(path) as temporary, _writing(), tf.io.TFRecordWriter(str(temporary)) as writer:
        for chunk in chunks:
            example = to_example(chunk)
            writer.write(example)
            place = {"offset": position + _FRAME_HEAD_BYTES, "length": len(example)}
            listed.append({**place, **_listed(chunk, example, classes)})
            position += len(example) + _FRAME_BYTES
        writer.close()  # before the file takes its name: what is still to be written may not fit
        digest = _sha256(temporary)
    return {"file": path.name, "bytes": position, "sha256": digest, "records": listed}


def _listed(chunk, example, classes):
    counts = np.bincount(chunk.case.class_ids, minlength=len(classes) + 1)[1:]
    return {
        "hash": _hash(example),
        "case": chunk.case.name,
        "chunk": chunk.number,
        "instances": dict(zip(classes, counts.tolist(), strict=True)),
    }


def _hash(example):
    """What tf.strings.to_hash_bucket_fast(example, 2**62) gives, for which the bytes would be copied more often."""
    fingerprint = tf.fingerprint(np.frombuffer(example, np.uint8)[np.newaxis])  # [1, 8] uint8, little-endian
    return int.from_bytes(fingerprint.numpy().tobytes(), "little") % 2**62


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
    remote.load_file_systems(folder)
    path = os.path.join(folder, MANIFEST)
    try:
        manifest = json.loads(tf.io.gfile.GFile(path).read())
    except tf.errors.NotFoundError as error:
        if tf.io.gfile.exists(os.path.join(folder, CONVERSION)):
            raise InputError(
                f"{folder}: expected finished records, came a conversion that was not; the same command continues it"
            ) from error
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


def check_patch(manifest, patch_size):
    """InputError where cases were cut into chunks that hold only smaller patches whole."""
    made_for = manifest.get("patch_size")
    cut = made_for and any(case["chunks"] > 1 for cases in manifest["cases"].values() for case in cases)
    if cut and any(ours > theirs for ours, theirs in zip(patch_size, made_for, strict=True)):
        raise InputError(
            f"records: expected chunks made for input.patch_size {list(patch_size)}, came those for {made_for}; "
            "convert the source again"
        )


def _check_size(case, size):
    if size > _MAX_RECORD_BYTES:
        raise InputError(f"case {case.name}: expected a volume below 2 GB with its ids, came {size / 2**30:.1f} GB")


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
