"""From records to batches for training and to whole volumes for evaluation; only this file chains tf.data."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from data import augment, intensity, records
from data.errors import InputError
from data.readers import spacing_affine
from ops import masks

_EXAMPLE = ("volume", "instance_ids", "class_ids", "attributes", "keypoints")
# Mosaics for evaluation are the same in every run and for every config.
_EVALUATION_SEED = 0


def train_batches(
    folder, manifest, input_config, *, batch_size, seed, num_input_pipelines=1, input_pipeline_id=0
) -> tf.data.Dataset:
    """Endless batches of random patches of the training split.

    Args:
      folder: of the records.
      manifest: from `records.read_manifest`.
      input_config: the `input` section of a Config.
      batch_size: B, examples per batch.
      seed: int; equal seeds give equal batches.
      num_input_pipelines: workers that read these records, each its own share of the cases.
      input_pipeline_id: which of them this is.

    Returns:
      tf.data.Dataset of dicts with static shapes: volume [B, Z, Y, X, C] float32, normalised; instance_ids
      [B, Z, Y, X] int32; and of the truths, see `truth`: boxes [B, G, 6], class_ids [B, G], attributes [B, G, T],
      valid [B, G], keypoints [B, G, L, 3] and keypoints_valid [B, G, L] bool, whether the place is known; 0 elsewhere.

    Raises:
      InputError: no training cases, fewer than workers, or a shard that is missing, cut or not ours. A record that is
        damaged further in raises tf.errors.DataLossError from the iterator; `records.reading` words it.
    """
    records.check_shards(folder, manifest, ["train"])
    paths = records.shard_paths(folder, manifest, "train")
    _check_first_record(paths[0])
    num_cases = manifest["num_cases"]["train"]
    if num_cases < num_input_pipelines:
        raise InputError(
            f"{folder}: expected a training case for each of {num_input_pipelines} workers, came {num_cases}"
        )
    dataset = _serialized(paths, input_config.shuffle_buffer, seed, num_input_pipelines, input_pipeline_id)
    maker = _ExampleMaker(input_config, tf.constant([seed, input_pipeline_id], tf.int32))
    if tuple(input_config.mosaic) == (1, 1, 1):
        dataset = dataset.enumerate().map(maker.patch, tf.data.AUTOTUNE)
    else:
        num_tiles = math.prod(input_config.mosaic)
        dataset = dataset.enumerate().map(maker.tile, tf.data.AUTOTUNE).batch(num_tiles, drop_remainder=True)
        dataset = dataset.enumerate().map(maker.mosaic, tf.data.AUTOTUNE)
    # Manifests did not always name landmarks: then there are none.
    num_keypoints = len(manifest.get("keypoints", []))
    dataset = dataset.map(lambda e: _with_static_shapes(e, manifest["num_attributes"], num_keypoints))
    options = tf.data.Options()
    options.deterministic = True
    # The shards have been dealt out above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)


def volumes(folder, manifest, split, input_config):
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


def truth(example, max_instances, min_visible_voxels):
    """The instances that a patch shows, in slots.

    An instance counts if it has `min_visible_voxels` voxels, or fewer but lies whole inside the patch. Where there are
    more than G, the largest are kept. All others become background.

    Args:
      example: dict with instance_ids [Z, Y, X] int32, ids 1..N, any of which may be absent; class_ids [N] int32,
        attributes [N, T] float32, keypoints [N, L, 3] float32 voxels.
      max_instances: G.
      min_visible_voxels: for instances that touch the patch's border.

    Returns:
      dict: instance_ids [Z, Y, X] int32 where slot g has id g + 1; boxes [G, 6] float32 voxels, class_ids [G] int32,
      attributes [G, T] float32, keypoints [G, L, 3] float32, all 0 in empty slots; valid [G] bool. Slots are in
      descending order of size.
    """
    ids, num_instances = example["instance_ids"], tf.shape(example["class_ids"])[0]
    boxes, voxels = masks.instance_boxes(ids, num_instances)
    shape = tf.cast(tf.shape(ids), tf.float32)
    cut = tf.reduce_any((boxes[:, :3] <= 0.0) | (boxes[:, 3:] >= shape), axis=-1)
    sizes = tf.where(cut & (voxels < min_visible_voxels), 0, voxels)
    # Empty rows behind the instances, so that G slots can always be filled.
    sizes, rows = tf.math.top_k(tf.pad(sizes, [[0, max_instances]]), max_instances)
    valid = sizes > 0
    slots = tf.where(valid, tf.range(1, max_instances + 1), 0)
    table = tf.scatter_nd(rows[:, tf.newaxis] + 1, slots, [num_instances + max_instances + 1])

    def in_slots(values):
        padding = [[0, max_instances]] + [[0, 0]] * (values.shape.rank - 1)
        chosen = tf.gather(tf.pad(values, padding), rows)
        return tf.where(tf.reshape(valid, [-1] + [1] * (values.shape.rank - 1)), chosen, tf.zeros_like(chosen))

    return {
        "instance_ids": tf.gather(table, ids),
        "boxes": in_slots(boxes),
        **{name: in_slots(example[name]) for name in ("class_ids", "attributes", "keypoints")},
        "valid": valid,
    }


def _serialized(paths, buffer, seed, num_workers, worker):
    """Endless records of this worker's share, shuffled anew in every epoch."""
    # Whole files only where that gives every worker equally many; otherwise all read all, and keep their share.
    whole_files = len(paths) % num_workers == 0
    files = tf.data.Dataset.from_tensor_slices(paths[worker::num_workers] if whole_files else paths)
    if whole_files:  # Otherwise the workers' shares are disjoint only while all read in the same order.
        files = files.shuffle(len(paths), seed)
    dataset = files.interleave(tf.data.TFRecordDataset, cycle_length=min(4, len(paths)))
    if not whole_files:
        dataset = dataset.shard(num_workers, worker)
    # Shuffle before repeat: an epoch is seen whole before the next begins.
    return dataset.shuffle(buffer, seed).repeat()


@dataclasses.dataclass(frozen=True)
class _ExampleMaker:
    """The random steps from a record to an example; step i draws from (seed, i) alone."""

    config: object  # the `input` section of a Config
    seed: tf.Tensor  # int32 [2]

    def patch(self, index, record):
        """One record to one patch with its truths."""
        seeds = self._seeds(index, 4)
        example = _parse(record, self.config)
        example = augment.crop(example, self.config.patch_size, self.config.foreground, seeds[0])
        example = augment.flip(example, self.config.flip_axes, seeds[1])
        return self._finish(example, seeds[2:])

    def tile(self, index, record):
        """One record to one tile of a mosaic."""
        # One further seed than `patch` and `mosaic` draw, so that none is drawn twice.
        example = _fitted(record, self.config, self._seeds(index, 5)[4])
        found = self._truth(example)
        return {"volume": example["volume"], **{name: found[name] for name in _EXAMPLE[1:]}}

    def mosaic(self, index, tiles):
        """A stack of tiles to one example with its truths."""
        return self._finish(augment.mosaic(tiles, self.config.mosaic), self._seeds(index, 4)[2:])

    def _finish(self, example, seeds):
        config = self.config
        example = augment.rotate90(example, config.rotate_planes, seeds[0])
        volume = augment.jitter(
            example["volume"], config.intensity_scale, config.intensity_shift, config.noise, seeds[1]
        )
        return {"volume": volume, **_without_unknown_keypoints(self._truth(example))}

    def _truth(self, example):
        return truth(example, self.config.max_instances, self.config.min_visible_voxels)

    def _seeds(self, index, number):
        seed = tf.random.experimental.stateless_fold_in(self.seed, tf.cast(index % 2**31, tf.int32))
        return tf.random.experimental.stateless_split(seed, number)


def _parse(record, config):
    """A parsed, normalised case with the config's number of channels."""
    example = records.parse(record)
    volume = tf.ensure_shape(example["volume"], [None, None, None, config.channels])
    return {**example, "volume": intensity.normalize(volume, config.normalization)}


def _fitted(record, config, seed):
    """A case cut or padded to the size of a tile, then mirrored at random."""
    size = [p // m for p, m in zip(config.patch_size, config.mosaic, strict=True)]
    return augment.flip(augment.fit(_parse(record, config), size), config.flip_axes, seed)


def _without_unknown_keypoints(found):
    """What `truth` returns with 0 in the place of unknown landmarks, and keypoints_valid [G, L], which are known."""
    points = found["keypoints"]
    valid = found["valid"][:, tf.newaxis] & tf.reduce_all(tf.math.is_finite(points), axis=-1)
    return {**found, "keypoints": tf.where(valid[..., tf.newaxis], points, 0.0), "keypoints_valid": valid}


def _with_static_shapes(example, num_attributes, num_keypoints):
    slots = example["valid"].shape[0]
    shapes = {
        "attributes": [slots, num_attributes],
        "keypoints": [slots, num_keypoints, 3],
        "keypoints_valid": [slots, num_keypoints],
    }
    return {**example, **{name: tf.ensure_shape(example[name], shape) for name, shape in shapes.items()}}


def _check_first_record(path):
    with records.reading(path):
        for record in tf.data.TFRecordDataset(path).take(1):
            records.parse(record)


def _read(paths, function):
    """Yields `function(index, record)` of every record as a dict of NumPy arrays."""
    start = 0
    for path in paths:
        dataset = tf.data.TFRecordDataset(path).enumerate(start).map(function).prefetch(1)
        with records.reading(path):
            for example in dataset.as_numpy_iterator():
                start += 1
                yield {**example, "name": example["name"].decode()}


def _whole_volumes(paths, config):
    def load(_, record):
        example = _parse(record, config)
        boxes, _ = masks.instance_boxes(example["instance_ids"], tf.shape(example["class_ids"])[0])
        keys = (*_EXAMPLE, "spacing", "affine", "name")
        return {"boxes": boxes, **{key: example[key] for key in keys}}

    yield from _read(paths, load)


def _mosaics(paths, config):
    num_tiles = math.prod(config.mosaic)
    tiles = []
    index = 0

    def load(number, record):
        seed = tf.stack([tf.constant(_EVALUATION_SEED, tf.int32), tf.cast(number, tf.int32)])
        return _fitted(record, config, seed)

    for tile in _read(paths, load):
        tiles.append(tile)
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
    found = truth(example, num_slots, min_visible_voxels)
    return {"volume": np.asarray(example["volume"]), **{key: value.numpy() for key, value in found.items()}}
