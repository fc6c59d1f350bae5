"""A folder of records of boxes in empty volumes, written without a source."""

import json

import numpy as np

from data import cases, chunks, records, statistics
from data.readers import Volume, spacing_affine

CLASSES = ("ellipsoid", "cuboid", "pyramid")  # those of the default config


def chunk(name, shape, boxes, class_ids, *, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0), numbers=None, case_shape=None):
    """A data.chunks.Chunk in which box i has the id i + 1 and the intensity 10 (i + 1), on a background of 1."""
    ids = np.zeros(shape, np.int32)
    for number, box in enumerate(boxes, start=1):
        ids[tuple(slice(lo, hi) for lo, hi in zip(box[:3], box[3:], strict=True))] = number
    volume = np.where(ids > 0, 10 * ids, 1).astype(np.float32)
    case = cases.Case(
        name=name,
        volume=Volume(volume, np.array(spacing), spacing_affine(np.array(spacing, np.float64))),
        instance_ids=ids,
        class_ids=np.array(class_ids, np.int32).reshape(-1),
        attributes=np.zeros((len(boxes), 0), np.float32),
        keypoints=np.zeros((len(boxes), 0, 3), np.float32),
        source=name,
    )
    numbers = np.arange(1, len(boxes) + 1) if numbers is None else np.array(numbers)
    return chunks.Chunk(case, origin, case_shape or shape, 0, 1, numbers, statistics.of_array(volume))


def write(folder, train, val=(), classes=CLASSES):
    """Writes chunks per split; the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = {"train": [], "val": [], "test": []}
    for split, of_split in (("train", list(train)), ("val", list(val))):
        if of_split:
            shard = records.write_shard(folder / f"{split}.tfrecord", of_split, classes)
            shards[split] = [{**shard, "records": len(shard["records"])}]
    manifest = {
        "format_version": records.FORMAT_VERSION,
        "classes": list(classes),
        "attributes": [],
        "channels": 1,
        "num_cases": {"train": len(list(train)), "val": len(list(val)), "test": 0},
        "shards": shards,
    }
    (folder / records.MANIFEST).write_text(json.dumps(manifest))
    return manifest
