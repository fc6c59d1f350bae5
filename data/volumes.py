"""Whole volumes of records, for evaluation, and the cases that training patches come from."""

import math

import numpy as np
import tensorflow as tf

from data import assembly, augment, intensity, records, truth
from data.readers import spacing_affine
from ops import masks

_EXAMPLE = ("volume", "instance_ids", "class_ids", "attributes", "keypoints")
# Mosaics for evaluation are the same in every run and for every config.
_EVALUATION_SEED = 0


def of_split(folder, manifest, split, input_config):
    """Yields the volumes of a split for evaluation, in the order of the records.

    With `input.mosaic` other than (1, 1, 1) these are mosaics of the cases in that order, put together as in training
    but the same every time; empty tiles fill up the last one.

    Args:
      folder: of the records.
      manifest: from `records.read_manifest`.
      split: "train", "val" or "test".
      input_config: the `input` section of a Config.

    Yields:
      dict of NumPy arrays: volume [Z, Y, X, C] float32, normalised; instance_ids [Z, Y, X] int32 with ids 1..N;
      class_ids [N] int32; attributes [N, T] float32; keypoints [N, L, 3] float32 voxels; both NaN where unknown; boxes
      [N, 6] float32 voxels; spacing [3] float32 mm; affine [4, 4] float32; name str. N may be 0.

    Raises:
      InputError: no such split, no cases in it, or a shard that is missing, cut, damaged or not ours.
    """
    records.check_shards(folder, manifest, [split] if split in manifest["shards"] else [])
    paths = records.shard_paths(folder, manifest, split)
    if tuple(input_config.mosaic) == (1, 1, 1):
        return _whole_volumes(paths, input_config)
    return _mosaics(paths, input_config)


def parse(serialized, config):
    """A parsed, normalised case, or chunk, with the config's number of channels."""
    example = records.parse(serialized)
    return {**example, "volume": normalized(example["volume"], example, config)}


def normalized(volume, example, config):
    """All of a volume or a part of it, by the statistics of the case."""
    volume = tf.ensure_shape(volume, [None, None, None, config.channels])
    return intensity.normalize(volume, config, tf.ensure_shape(example["intensity"], [config.channels, None]))


def tile(record, config, seed):
    """A case cut or padded to the size of a tile, then mirrored at random."""
    return augment.flip(augment.fit(parse(record, config), config.tile()), config.flip_axes, seed)


def _read(paths, function):
    """Yields `function(index, record)` of every record as a dict of NumPy arrays."""
    start = 0
    function = tf.autograph.experimental.do_not_convert(function)  # a graph already
    for path in paths:
        dataset = tf.data.TFRecordDataset(path).enumerate(start).map(function).prefetch(1)
        with records.reading(path):
            for example in dataset.as_numpy_iterator():
                start += 1
                yield {**example, "name": example["name"].decode()}


def _whole_volumes(paths, config):
    for case in assembly.whole_cases(_read(paths, lambda _, record: records.parse(record))):
        with records.reading(f"case {case['name']}"):
            volume = normalized(case["volume"], case, config).numpy()
        boxes, _ = masks.instance_boxes(case["instance_ids"], len(case["class_ids"]))
        keys = (*_EXAMPLE, "spacing", "affine", "name")
        yield {"boxes": boxes.numpy(), **{key: case[key] for key in keys}, "volume": volume}


def _mosaics(paths, config):
    num_tiles = math.prod(config.mosaic)
    tiles = []
    index = 0

    def load(number, record):
        seed = tf.stack([tf.constant(_EVALUATION_SEED, tf.int32), tf.cast(number, tf.int32)])
        return tile(record, config, seed)

    for example in _read(paths, load):
        tiles.append(example)
        if len(tiles) == num_tiles:
            yield _joined(tiles, config, index)
            tiles, index = [], index + 1
    if tiles:
        yield _joined(tiles + [_empty_like(tiles[0])] * (num_tiles - len(tiles)), config, index)


def _empty_like(tile):
    return {**tile, **{key: np.zeros_like(tile[key]) for key in ("volume", "instance_ids")}}


def _joined(tiles, config, index):
    """One mosaic of tiles, with the instances that they show as ids 1..N."""
    num_slots = max(len(tile["class_ids"]) for tile in tiles)
    shown = [_truth_of(tile, num_slots, config.min_visible_voxels) for tile in tiles]
    stacked = {key: np.stack([example[key] for example in shown]) for key in _EXAMPLE}
    joined = augment.mosaic({key: tf.constant(value) for key, value in stacked.items()}, config.mosaic)
    found = _truth_of(joined, len(tiles) * num_slots, 1)
    valid = found.pop("valid")
    for key in ("boxes", "class_ids", "attributes", "keypoints"):
        found[key] = found[key][valid]
    spacing = tiles[0]["spacing"]
    affine = spacing_affine(spacing.astype(np.float64)).astype(np.float32)
    return {**found, "spacing": spacing, "affine": affine, "name": f"mosaic_{index:05d}"}


def _truth_of(example, num_slots, min_visible_voxels):
    example = {key: tf.constant(example[key]) for key in _EXAMPLE}
    found = truth.of_patch(example, num_slots, min_visible_voxels)
    return {"volume": np.asarray(example["volume"]), **{key: value.numpy() for key, value in found.items()}}
