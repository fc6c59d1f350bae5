"""Patches that stay as they are, and networks in which nothing is drawn but anchors and rois."""

import copy
import dataclasses

import numpy as np
import tensorflow as tf

from data import pipeline
from data.errors import InputError
from training import restore


def examples(config, manifest, split, count):
    """Patches without augmentation, each of another record and around an instance where the record has one.

    Args:
      config: a Config.
      manifest: of its records.
      split: "train" or "val".
      count: how many; fewer where the split has not so many records.

    Returns:
      dict of arrays, as a batch of data/pipeline; None where the split has no records.

    Raises:
      InputError: as `pipeline.train_batches`, or a damaged record.
    """
    shards = manifest["shards"][split]
    num_records = sum(shard["records"] for shard in shards)
    if num_records == 0:
        return None
    batches = pipeline.train_batches(
        config.data.records,
        {**manifest, "shards": {**manifest["shards"], "train": shards}},  # it reads that split
        _without_augmentation(config.input),
        batch_size=1,
        seed=config.train.seed,
        stop=min(count, num_records),
    )
    try:
        each = list(batches.as_numpy_iterator())
    except tf.errors.OpError as error:
        line = pipeline.damage(error)
        if line is None:
            raise
        raise InputError(line) from error
    return {name: np.concatenate([one[name] for one in each]) for name in each[0] if name != "skipped"}


def rows(batch, begin, end):
    """The examples begin..end of a dict of arrays."""
    return {name: value[begin:end] for name, value in batch.items()}


def as_tensors(batch):
    """As a dataset gives them."""
    return {name: tf.convert_to_tensor(value) for name, value in batch.items()}


def new_model(config):
    """The network of a Config with its first weights, the same every time."""
    tf.keras.utils.set_random_seed(config.train.seed)
    return restore.make_model(config)


def without_chance(config):
    """A copy of a Config in float32 without dropout and stochastic depth."""
    config = copy.deepcopy(config)
    config.train.precision = "float32"
    config.model.backbone.dropout = config.model.backbone.stochastic_depth = config.model.box_head.dropout = 0.0
    return config


def seeds(batch_size, seed):
    """[B, 2] int32: of what is drawn for each example, whatever the others are."""
    return tf.stack([tf.fill([batch_size], seed), tf.range(batch_size)], axis=1)


def _without_augmentation(input_config):
    config = copy.deepcopy(input_config)
    config.flip_axes, config.rotate_planes, config.case_weights = (False,) * 3, (), ""
    config.foreground = 1.0
    for field in dataclasses.fields(config.augment):
        part = getattr(config.augment, field.name)
        if hasattr(part, "probability"):
            part.probability = 0.0
    config.augment.channel_drop = 0.0
    return config
