"""Records of tiny volumes, and the tiny network for them."""

import json

import numpy as np
import pytest

from data import cases, chunks, records, statistics
from data.readers import Volume, spacing_affine
from tests import tiny

NUM_TRAIN, NUM_VAL = 6, 3


def chunk(settings, name, seed):
    """A whole case of the patch's size: three bright boxes on faint noise."""
    drawn = tiny.batch(settings, seed, num_objects=(3,))
    # Ids 1..N without gaps: of a box that others hide nothing is left.
    shown = np.flatnonzero(drawn["valid"][0]) + 1
    ids = np.searchsorted(shown, drawn["instance_ids"][0], side="left") + 1
    ids = np.where(drawn["instance_ids"][0] > 0, ids, 0).astype(np.int32)
    volume, ones = drawn["volume"][0, ..., 0], np.ones(3)
    case = cases.Case(
        name=name,
        volume=Volume(volume, ones, spacing_affine(ones)),
        instance_ids=ids,
        class_ids=drawn["class_ids"][0][shown - 1],
        attributes=np.zeros((len(shown), 0), np.float32),
        keypoints=np.zeros((len(shown), 0, 3), np.float32),
        source=name,
    )
    numbers = np.arange(1, len(shown) + 1)
    return chunks.Chunk(case, (0, 0, 0), volume.shape, 0, 1, numbers, statistics.of_array(volume))


def write(folder, settings, *, num_train=NUM_TRAIN, num_val=NUM_VAL):
    """Writes records and points the Config at them; the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, first = {"train": [], "val": [], "test": []}, {"train": 0, "val": 100}
    for split, count in (("train", num_train), ("val", num_val)):
        if count:
            made = [chunk(settings, f"{split}{i}", first[split] + i) for i in range(count)]
            shard = records.write_shard(folder / f"{split}.tfrecord", made, settings.data.classes)
            index = folder / f"{split}.tfrecord.index.json"
            index.write_text(json.dumps({"records": shard["records"]}))
            shards[split] = [{**shard, "records": len(shard["records"])}]
    settings.data.records = str(folder)
    return {
        "format_version": records.FORMAT_VERSION,
        "classes": list(settings.data.classes),
        "attributes": [],
        "num_attributes": 0,
        "keypoints": [],
        "channels": 1,
        "num_cases": {"train": num_train, "val": num_val, "test": 0},
        "shards": shards,
    }


@pytest.fixture
def made(tmp_path):
    """The tiny Config, and the manifest of its records."""
    settings = tiny.config()
    return settings, write(tmp_path / "records", settings)
