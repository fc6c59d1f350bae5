"""What the records say about the data, as far as a network or its training depends on it."""

import dataclasses

import numpy as np
import tensorflow as tf

from data import records, statistics
from ops import masks


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Instances and cases of one split, in the order of the records.

    classes: K names; class id 1 is the first.
    boxes: [N, 6] float32, voxels, whole instances in their case.
    class_ids: [N] int32 in 1..K.
    voxels: [N] int64, of each instance.
    cases: [N] int32, the case of each instance, a row of what follows.
    shapes: [M, 3] int64, voxels.
    spacings: [M, 3] float32, mm.
    intensities: [M, 2, C, S] float32, `statistics.NAMES` per case and channel, of all voxels and of the foreground;
      NaN where a case has no foreground. Of the foreground of chunks it is the mean of theirs.
    """

    classes: tuple
    boxes: np.ndarray
    class_ids: np.ndarray
    voxels: np.ndarray
    cases: np.ndarray
    shapes: np.ndarray
    spacings: np.ndarray
    intensities: np.ndarray

    @property
    def sizes(self):
        """Edges of the boxes: [N, 3] float32 voxels."""
        return self.boxes[:, 3:] - self.boxes[:, :3]

    def counts(self):
        """{class: number of instances}, in the order of the class ids."""
        numbers = np.bincount(self.class_ids, minlength=len(self.classes) + 1)[1:]
        return dict(zip(self.classes, numbers.tolist(), strict=True))


def of_records(folder, manifest, split="train"):
    """Reads every record of a split once.

    Args:
      folder: of the records.
      manifest: from `records.read_manifest`.
      split: "train", "val" or "test".

    Returns:
      Fingerprint; its boxes are [0, 6] where no case has an instance.

    Raises:
      InputError: no such split, no cases in it, or a shard that is missing, cut, damaged or not ours.
    """
    records.check_shards(folder, manifest, [split] if split in manifest["shards"] else [])
    chunks = []
    for path in records.shard_paths(folder, manifest, split):
        with records.reading(path):
            chunks += [_chunk(records.parse(record)) for record in tf.data.TFRecordDataset(path)]
    return _joined(tuple(manifest["classes"]), chunks)


def class_weights(num_instances, balance):
    """Weights of the classes in a loss, heavier for those that are rare: frequency ** -balance.

    Args:
      num_instances: {class: how many there are}, in the order of the class ids; as in the manifest of a split.
      balance: 0 for equal weights, 1 for classes that weigh the same together, however many objects they have.

    Returns:
      tuple of K + 1 floats, background first. The mean over all objects is 1, and so is the weight of the background
      and of a class that does not occur, so that objects and background keep their shares in the loss.
    """
    total = sum(num_instances.values())
    raw = [(total / count) ** balance if count else 0.0 for count in num_instances.values()]
    mean = sum(weight * count for weight, count in zip(raw, num_instances.values(), strict=True)) / max(total, 1)
    return (1.0, *(weight / mean if weight else 1.0 for weight in raw))


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """What is kept of one record: boxes in voxels of the case, of the instances that it shows; see `Fingerprint`."""

    name: bytes
    shape: np.ndarray
    spacing: np.ndarray
    intensities: np.ndarray
    numbers: np.ndarray
    boxes: np.ndarray
    class_ids: np.ndarray
    voxels: np.ndarray


def _chunk(example):
    ids, class_ids = example["instance_ids"], example["class_ids"].numpy()
    boxes, voxels = masks.instance_boxes(ids, len(class_ids))
    origin, seen = example["origin"].numpy(), voxels.numpy() > 0
    return _Chunk(
        name=example["name"].numpy(),
        shape=example["case_shape"].numpy(),
        spacing=example["spacing"].numpy(),
        intensities=np.stack([example["intensity"].numpy(), _of_foreground(example["volume"].numpy()[ids > 0])]),
        numbers=example["instance_numbers"].numpy()[seen],
        boxes=boxes.numpy()[seen] + np.tile(origin, 2).astype(np.float32),
        class_ids=class_ids[seen],
        voxels=voxels.numpy()[seen].astype(np.int64),
    )


def _of_foreground(voxels):
    """Statistics of [V, C] voxels: [C, S] float32; NaN where there are none."""
    if not len(voxels):
        return np.full((voxels.shape[1], len(statistics.NAMES)), np.nan, np.float32)
    return statistics.of_array(voxels[:, np.newaxis, np.newaxis])


def _joined(classes, chunks):
    """The Fingerprint of the cases that the chunks are of."""
    of_case = {}
    for chunk in chunks:
        of_case.setdefault(chunk.name, []).append(chunk)
    cases = list(of_case.values())
    found = [_whole_instances(case) for case in cases]
    boxes, class_ids, voxels = (np.concatenate([instances[part] for instances in found]) for part in range(3))
    return Fingerprint(
        classes=classes,
        boxes=boxes,
        class_ids=class_ids,
        voxels=voxels,
        cases=np.repeat(np.arange(len(cases), dtype=np.int32), [len(instances[0]) for instances in found]),
        shapes=np.stack([case[0].shape for case in cases]).astype(np.int64),
        spacings=np.stack([case[0].spacing for case in cases]),
        intensities=np.stack([_mean_of_known([chunk.intensities for chunk in case]) for case in cases]),
    )


def _whole_instances(chunks):
    """The instances of one case from chunks that may overlap: boxes [N, 6], class_ids [N], voxels [N].

    Parts of one number are one instance. Its box is the smallest around all parts; its voxels are those of the chunk
    that shows most, which is all of them where it is no longer than the chunks overlap.
    """
    numbers, row = np.unique(np.concatenate([chunk.numbers for chunk in chunks]), return_inverse=True)
    boxes = np.concatenate([chunk.boxes for chunk in chunks])
    whole = np.tile(np.float32([np.inf] * 3 + [-np.inf] * 3), (len(numbers), 1))
    np.minimum.at(whole[:, :3], row, boxes[:, :3])
    np.maximum.at(whole[:, 3:], row, boxes[:, 3:])
    class_ids, voxels = np.zeros(len(numbers), np.int32), np.zeros(len(numbers), np.int64)
    class_ids[row] = np.concatenate([chunk.class_ids for chunk in chunks])
    np.maximum.at(voxels, row, np.concatenate([chunk.voxels for chunk in chunks]))
    return whole, class_ids, voxels


def _mean_of_known(values):
    """Mean of arrays where they are not NaN; NaN where all are."""
    known = np.sum(np.isfinite(values), axis=0)
    return np.where(known, np.nansum(values, axis=0) / np.maximum(known, 1), np.nan).astype(np.float32)
