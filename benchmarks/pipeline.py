"""The input pipeline beside a plain read, and its memory: `python -m benchmarks.pipeline`.

A plain read is the file in pieces of one record, each cast to float32 by NumPy; the pipeline checks, parses and cuts
beside. Both have the file in the page cache. What the bound is: a plain read touches 2 bytes of a voxel that come out
of the page cache and 4 that are cast, once each. A record is read whole, too (its checksums, that of TFRecord and that
of the index, are those of all its bytes); these passes over 2 bytes of every voxel come beside: two checksums and the
copy in which parsing ends. And over the ids, 1 byte of every voxel where there are up to 255: inflated (with a checksum
of its own), decoded, compared, counted. What follows is of the slices z of a patch, or of the patch alone.

The memory's bound is that of 8 patches and 2 chunks, each of a float32 volume and int32 ids.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import json
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from benchmarks import measure
from configs import schema
from data import chunks, pipeline, records
from data import statistics as intensities
from data.cases import Case
from data.readers import Volume

CASE, PATCH = (128, 128, 128), (64, 64, 64)
CHUNK = (192, 192, 192)
EPOCHS = 4


def write(folder, shape, count):
    """A folder of `count` training cases of int16 noise with 20 boxes of ids, in one shard; its manifest."""
    rng = np.random.default_rng(0)
    ids = np.zeros(shape, np.int32)
    for number in range(1, 21):
        z, y, x = (int(rng.integers(0, size - 24)) for size in shape)
        ids[z : z + 20, y : y + 16, x : x + 24] = number
    ids = np.unique(ids, return_inverse=True)[1].reshape(shape).astype(np.int32)
    classes = np.ones(ids.max(), np.int64)

    def made():
        for number in range(count):
            array = rng.integers(-1000, 1000, shape, dtype=np.int16)
            case = Case(
                name=f"case_{number}",
                volume=Volume(array, np.ones(3), np.eye(4)),
                instance_ids=ids,
                class_ids=classes,
                attributes=np.zeros((len(classes), 0), np.float32),
                keypoints=np.zeros((len(classes), 0, 3), np.float32),
                source="noise",
            )
            yield chunks.whole(case, intensities.of_array(array))

    folder = pathlib.Path(folder)
    entry = records.write_shard(folder / "train.tfrecord", made(), ("box",))
    (folder / "train.tfrecord.index.json").write_text(json.dumps(entry))
    shard = {**entry, "records": count}
    return {"shards": {"train": [shard]}, "num_attributes": 0, "keypoints": [], "num_cases": {"train": count}}


def settings(patch_size=PATCH):
    """`input` with the patch's place and mirrors alone, so that reading is what counts."""
    found = schema.Input(patch_size=patch_size, rotate_planes=())
    for name in ("affine", "elastic", "blur", "low_resolution", "gamma", "contrast", "brightness", "noise"):
        getattr(found.augment, name).probability = 0.0
    return found


def plain_read(path, length):
    """What any reader has to do."""
    with open(path, "rb", buffering=0) as stream:
        while len(piece := stream.read(length)) == length:
            np.frombuffer(piece, np.int16).astype(np.float32)


def drain(dataset):
    """Takes all of a dataset."""
    for _ in dataset:
        pass


def timed(read, datasets, repeats=7):
    """{name: (processor, clock)} median seconds of a function and of datasets, each read to its end, that run in turn.

    The first element of a dataset comes beforehand: to make the iterator takes as long as many epochs.
    """
    taken = {name: [] for name in ("plain read and cast", *datasets)}
    for _ in range(repeats):
        for name in taken:
            rest = iter(datasets[name]) if name in datasets else None
            if rest:
                next(rest)
            start = time.process_time(), time.perf_counter()
            drain(rest) if rest else read()
            taken[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return {name: tuple(map(statistics.median, zip(*rows, strict=True))) for name, rows in taken.items()}


def speed():
    """Markdown: epochs of 24 cases of 128³ int16, by the parts of the pipeline."""
    count, length = 24, 2 * CASE[0] * CASE[1] * CASE[2]
    with tempfile.TemporaryDirectory() as folder:
        manifest = write(folder, CASE, count)
        path = f"{folder}/train.tfrecord"

        def cut_after_cast(serialized):
            return records.parse(serialized)["volume"][: PATCH[0], : PATCH[1], : PATCH[2]]

        def cut_before_cast(serialized):
            return records.parse_but_voxels(serialized)[1].volume(tf.zeros([3], tf.int32), tf.constant(PATCH))

        def read():
            for _ in range(EPOCHS):
                plain_read(path, length)

        shard = tf.data.TFRecordDataset(path).repeat(EPOCHS)
        datasets = {
            "TFRecordDataset": shard,
            "parsed with ids, all of the volume cast, then cut": shard.map(cut_after_cast),
            "parsed, cut to 64³, then cast": shard.map(cut_before_cast),
            "batches: 64³ patches with truths": pipeline.train_batches(
                folder, manifest, settings(), batch_size=2, seed=0, stop=EPOCHS * count
            ),
        }
        found = timed(read, datasets)
    base = found["plain read and cast"]
    lines = [
        "| an epoch of 24 x 128³ int16, of 4 | ms of the processor | share | ms of the clock | share |",
        "|---|---|---|---|---|",
    ]
    for name, (processor, clock) in found.items():
        shares = [f"{b / own:.0%}" for b, own in zip(base, (processor, clock), strict=True)]
        lines.append(
            f"| {name} | {processor * 1e3 / EPOCHS:.0f} | {shares[0]} | {clock * 1e3 / EPOCHS:.0f} | {shares[1]} |"
        )
    return lines


def _memory(count):
    folder = tempfile.mkdtemp()
    manifest = write(folder, CHUNK, count)
    small = tempfile.mkdtemp()
    warm = write(small, (64, 64, 64), 2)

    def read(folder, manifest, batches):
        return lambda: drain(pipeline.train_batches(folder, manifest, settings(), batch_size=2, seed=0).take(batches))

    return read(small, warm, 4), read(folder, manifest, 12)


def few():
    """Batches out of 3 chunks."""
    return _memory(3)


def many():
    """The same number of batches out of 12 chunks."""
    return _memory(12)


def memory():
    """Markdown: peak memory of 12 batches out of 3 and out of 12 chunks."""
    voxels, patch = np.prod(CHUNK), np.prod(PATCH)
    bound = 8 * (8 * patch + 2 * voxels)  # 4 bytes each of a volume and of ids
    lines = ["| chunks of 192³ int16 on disk | peak, MB | bound: 8 patches and 2 chunks, MB |", "|---|---|---|"]
    for count, function in ((3, few), (12, many)):
        lines.append(f"| {count} | {measure.peak_extra_bytes(function) / 1e6:.0f} | {bound / 1e6:.0f} |")
    return lines


if __name__ == "__main__":
    from benchmarks import pipeline as this  # the functions of a fresh process are looked up by this name

    print("\n".join([*this.speed(), "", *this.memory()]))
    sys.exit(0)
