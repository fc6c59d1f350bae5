"""From records to batches for training; only this file chains tf.data."""

import dataclasses
import math
import re

import numpy as np
import tensorflow as tf

from data import augment, augmentation, places, records, truth, volumes, warp
from data import index as indices

_EXAMPLE = ("volume", "instance_ids", "class_ids", "attributes", "keypoints")
# Draws instead of a damaged record, before the data is taken for damaged as a whole.
_ATTEMPTS = 20
_DAMAGED = "expected a whole record"


def train_batches(
    folder,
    manifest,
    input_config,
    *,
    batch_size,
    seed,
    start=0,
    stop=2**62,
    num_input_pipelines=1,
    input_pipeline_id=0,
    data_service="",
) -> tf.data.Dataset:
    """Batches of random patches of the training split.

    Example i (record, place, augmentation) is a function of (seed, i) alone. So what a checkpoint has to know of the
    iterator is how many examples have been taken, which follows from its step: a run that starts there sees exactly
    the batches that it would have seen without an interruption.

    Args:
      folder: of the records.
      manifest: from `records.read_manifest`.
      input_config: the `input` section of a Config.
      batch_size: B, examples per batch.
      seed: int in [0, 2^31); equal seeds give equal batches.
      start: how many examples all workers together have taken before, a multiple of their number.
      stop: with which number of examples to end, likewise.
      num_input_pipelines: workers, of which worker w takes the examples w, w + n, w + 2 n ... of n.
      input_pipeline_id: which of them this is.
      data_service: address (grpc://host:port) of the dispatcher of a tf.data service whose workers see the folder and
        make the examples. Each is then made once, but batches are no longer deterministic: they take what is ready.

    Returns:
      tf.data.Dataset of dicts with static shapes: volume [B, Z, Y, X, C] float32, normalised; instance_ids
      [B, Z, Y, X] int32; and of the truths, see data/truth.py: boxes [B, G, 6], class_ids [B, G], attributes
      [B, G, T], valid [B, G], keypoints [B, G, L, 3] and keypoints_valid [B, G, L] bool, whether the place is known; 0
      elsewhere. number [B] int64: that of the example; rows [B, M] int32: of the index, its records, M > 1 of a mosaic.
      With `input.on_corrupt` "skip" also skipped [B] int32, damaged records in whose place others came.

    Raises:
      InputError: no training cases, chunks of cases for smaller patches, wrong `input.case_weights`, or a shard that is
        missing, cut or not ours. A record that is damaged further in, or in all attempts to skip it, raises a
        tf.errors.InvalidArgumentError from the iterator, which `damage` words.
    """
    records.check_shards(folder, manifest, ["train"])
    records.check_patch(manifest, input_config.patch_size)
    records.shard_paths(folder, manifest, "train")
    found = indices.read(folder, manifest, "train")
    shares = indices.shares(found, input_config.case_weights) if input_config.case_weights else None
    maker = _ExampleMaker(input_config, found, shares, seed)
    workers, worker = num_input_pipelines, input_pipeline_id
    dataset = tf.data.Dataset.range(start // workers, stop // workers)
    # All of it is written as a graph already; to convert it would take longer than to trace it.
    cut, change = map(tf.autograph.experimental.do_not_convert, (maker.cut, maker.change))
    # These numbers bound the memory, whatever the machine has: a chunk is in it while a patch is cut out of it.
    dataset = dataset.map(lambda i: cut(i * workers + worker), input_config.num_readers, deterministic=True)
    dataset = dataset.map(change, input_config.num_augmenters, deterministic=True)
    # Manifests did not always name landmarks: then there are none.
    num_keypoints = len(manifest.get("keypoints", []))
    dataset = dataset.map(lambda e: _with_static_shapes(e, manifest["num_attributes"], num_keypoints))
    if data_service:
        # Dynamic: the dispatcher deals the numbers out, each to one worker.
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        dataset = dataset.apply(tf.data.experimental.service.distribute(policy, data_service))
    options = tf.data.Options()
    # The numbers have been dealt out above.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.batch(batch_size, drop_remainder=True).prefetch(1).with_options(options)


def repeated_batches(examples, batch_size) -> tf.data.Dataset:
    """Batches of the same examples over and over, each time with another number.

    Args:
      examples: dict of arrays [N, ...], examples as `train_batches` makes them.
      batch_size: B, which N need not be a multiple of.

    Returns:
      tf.data.Dataset without an end, of dicts as those of `train_batches`.
    """
    dataset = tf.data.Dataset.from_tensor_slices(examples).repeat().enumerate()
    # What is drawn of an example follows its number.
    dataset = dataset.map(lambda number, example: {**example, "number": number})
    return dataset.batch(batch_size, drop_remainder=True)


def damage(error):
    """The line about a damaged record in an error from an iterator of `train_batches`, or None for other errors."""
    line = re.search(rf"\[\"?([^\"\[\n]*: {_DAMAGED}[^\"\n]*?)\"?\]", error.message)
    return line and line[1]


@dataclasses.dataclass(frozen=True, eq=False)
class _ExampleMaker:
    """The steps from the number of an example to the example."""

    config: object  # the `input` section of a Config
    index: indices.Index
    shares: np.ndarray | None  # see `index.shares`
    seed: int

    def cut(self, number):
        """What an example needs of its record (of a mosaic, records): its patch and what may be bent into it."""
        if tuple(self.config.mosaic) == (1, 1, 1):
            return self._cut(number)
        count = math.prod(self.config.mosaic)
        draws = tf.data.Dataset.range(number * count, (number + 1) * count)
        tiles = draws.map(self._tile).batch(count, drop_remainder=True).get_single_element()
        joined = augment.mosaic({key: tiles[key] for key in _EXAMPLE}, self.config.mosaic)
        return {
            **joined,
            "spacing": tiles["spacing"][0],
            "corner": self._corner_in_mosaic(joined, number),
            "skipped": tf.reduce_sum(tiles["skipped"]),
            "number": number,
            "rows": tf.reshape(tiles["rows"], [count]),
        }

    def change(self, example):
        """The augmented patch with its truths."""
        config = self.config
        patch = augmentation.augment_example(
            {key: example[key] for key in (*_EXAMPLE, "spacing")},
            config,
            self._seeds(example["number"])[1],
            config.patch_size,
            donor=example.get("donor"),
            corner=example["corner"],
        )
        found = truth.with_known_keypoints(self._truth(patch))
        skipped = {"skipped": example["skipped"]} if config.on_corrupt == "skip" else {}
        return {"volume": patch["volume"], **found, "number": example["number"], "rows": example["rows"], **skipped}

    def _cut(self, number):
        config = self.config
        row, serialized, skipped = self._serialized(number)
        example, parts = records.parse_but_voxels(serialized)
        corner = self._corner(example, parts, self._seeds(number)[0])
        first, size = self._window(example, corner)
        example["volume"] = volumes.normalized(parts.volume(first, size), example, config)
        example["instance_ids"] = parts.ids(first, size)
        example["keypoints"] -= tf.cast(first, tf.float32)
        kept = {key: example[key] for key in (*_EXAMPLE, "spacing")}
        if config.augment.paste.probability > 0 or config.augment.mosaic.probability > 0:
            _, donor, skipped_too = self._serialized(number, donor=True)
            kept["donor"] = {key: value for key, value in volumes.parse(donor, config).items() if key in _EXAMPLE}
            skipped += skipped_too
        return {**kept, "corner": corner - first, "skipped": skipped, "number": number, "rows": row[tf.newaxis]}

    def _corner(self, example, parts, seed):
        def voxel(instance, seed):
            return parts.of_ids(lambda ids: places.random_voxel(ids, instance, seed))

        return self._corner_around(example["shape"], example["class_ids"], voxel, seed)

    def _corner_in_mosaic(self, joined, number):
        if not self.config.tile_size:  # The mosaic is the patch.
            return tf.zeros([3], tf.int32)
        ids, class_ids = joined["instance_ids"], joined["class_ids"]
        slots = tf.cast(tf.where(class_ids > 0)[:, 0], tf.int32)  # the others are empty

        def voxel(instance, seed):
            return places.random_voxel(tf.reshape(ids, [-1]), slots[instance - 1] + 1, seed)

        return self._corner_around(tf.shape(ids), tf.gather(class_ids, slots), voxel, self._seeds(number)[0])

    def _corner_around(self, shape, class_ids, voxel, seed):
        share, by = self.config.foreground, self.config.foreground_by
        return places.corner_around(shape, class_ids, voxel, self.config.patch_size, share, seed, by)

    def _window(self, example, corner):
        """First voxel and size of what a patch at a place may show."""
        settings, shape = self.config.augment, example["shape"]
        if settings.mosaic.probability > 0:  # Its crops come from anywhere.
            return tf.zeros([3], tf.int32), shape
        reach = warp.reach(settings.affine, settings.elastic, self.config.patch_size, example["spacing"])
        bends = settings.affine.probability > 0 or settings.elastic.probability > 0
        # One voxel more: values are interpolated between neighbours.
        margin = (reach - self.config.patch_size) // 2 + int(bends)
        first = tf.clip_by_value(corner - margin, 0, shape)
        return first, tf.clip_by_value(corner + self.config.patch_size + margin, 0, shape) - first

    def _tile(self, number):
        """The record of a draw as a tile of a mosaic, with as many instances as a patch has slots."""
        row, serialized, skipped = self._serialized(number)
        # A seed of the draw, not of the example.
        key = tf.random.experimental.stateless_fold_in([self.seed, 1], tf.cast(number % 2**31, tf.int32))
        tile = volumes.tile(serialized, self.config, key)
        kept = {key: {**tile, **self._truth(tile)}[key] for key in (*_EXAMPLE, "spacing")}
        return {**kept, "skipped": skipped, "rows": row[tf.newaxis]}

    def _serialized(self, number, donor=False):
        """The record of a draw, its row in the index first, and how many damaged ones (0 or 1) it came in place of."""

        def read(attempt):
            stream = tf.cast(2 * attempt + int(donor), tf.int32)
            row = indices.draw(number, len(self.index), self.seed, stream, self.shares)
            serialized = self._read(row)
            return row, serialized, self._is_whole(row, serialized)

        attempt = tf.constant(0)
        row, serialized, is_whole = read(attempt)
        if self.config.on_corrupt == "skip":
            attempt, row, serialized, is_whole = tf.while_loop(
                lambda attempt, row, serialized, is_whole: ~is_whole & (attempt < _ATTEMPTS),
                lambda attempt, *_: (attempt + 1, *read(attempt + 1)),
                (attempt, row, serialized, is_whole),
            )
        with tf.control_dependencies([tf.debugging.Assert(is_whole, [self._complaint(row)])]):
            return tf.cast(row, tf.int32), tf.identity(serialized), tf.minimum(attempt, 1)

    def _read(self, row):
        """The bytes of a record; none where they cannot be read or do not fit their checksum."""
        path = tf.gather(self.index.paths, self._at("shard", row))
        # A local file needs no buffer; of a remote one the whole record comes in one request.
        buffer = self._at("length", row) + 16 if "://" in self.index.paths[0] else 0
        found = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[tf.newaxis],
            compression_type="",
            buffer_size=buffer,
            byte_offsets=self._at("offset", row)[tf.newaxis],
        )
        dataset = tf.data.experimental.from_variant(found, tf.TensorSpec([], tf.string)).take(1)
        dataset = dataset.ignore_errors(log_warning=True).concatenate(tf.data.Dataset.from_tensors(""))
        return dataset.take(1).get_single_element()

    def _is_whole(self, row, serialized):
        # Its checksum would be that of any record.
        return tf.equal(tf.strings.to_hash_bucket_fast(serialized, 2**62), self._at("hash", row))

    def _complaint(self, row):
        path = tf.gather(self.index.paths, self._at("shard", row))
        case, offset = tf.gather(self.index.cases, row), tf.strings.as_string(self._at("offset", row))
        end = ", came something damaged or that cannot be read"
        return tf.strings.join([path, f": {_DAMAGED} of case ", case, " at byte ", offset, end])

    def _at(self, name, row):
        return tf.gather(getattr(self.index, name), row)

    def _truth(self, example):
        return truth.of_patch(example, self.config.max_instances, self.config.min_visible_voxels)

    def _seeds(self, number):
        """Of the place of a patch, and of its augmentation."""
        key = tf.random.experimental.stateless_fold_in([self.seed, 0], tf.cast(number % 2**31, tf.int32))
        return tf.unstack(tf.random.experimental.stateless_split(key, 2))


def _with_static_shapes(example, num_attributes, num_keypoints):
    slots = example["valid"].shape[0]
    shapes = {
        "attributes": [slots, num_attributes],
        "keypoints": [slots, num_keypoints, 3],
        "keypoints_valid": [slots, num_keypoints],
    }
    return {**example, **{name: tf.ensure_shape(example[name], shape) for name, shape in shapes.items()}}
