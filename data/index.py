"""Where each record of a split lies, and which one is read for which draw."""

import dataclasses
import json
import math
import os

import numpy as np
import tensorflow as tf

from data.errors import InputError

_FRAME_HEAD_BYTES = 12  # before the bytes of a record


@dataclasses.dataclass(frozen=True)
class Index:
    """The N records of a split, in the order of their shards.

    paths: of the shards.
    shard: [N] int64, a row of paths.
    offset: [N] int64, byte at which the record's frame begins.
    length: [N] int64, bytes of the Example in it.
    hash: [N] int64, `tf.strings.to_hash_bucket_fast` of them into 2^62.
    cases: [N] str, the case's name.
    """

    paths: list
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    hash: np.ndarray
    cases: list

    def __len__(self):
        return len(self.cases)


def read(folder, manifest, split):
    """The Index of a split.

    Args:
      folder: of the records.
      manifest: from `records.read_manifest`.
      split: one that has shards.

    Raises:
      InputError: an index is missing, cannot be read, or has not as many records as the manifest says.
    """
    rows, paths = [], []
    for number, shard in enumerate(manifest["shards"][split]):
        paths.append(os.path.join(folder, shard["file"]))
        found = _load(f"{paths[-1]}.index.json", "an index of records").get("records", [])
        if len(found) != shard["records"]:
            raise InputError(f"{paths[-1]}.index.json: expected {shard['records']} records, came {len(found)}")
        rows += [(number, r["offset"] - _FRAME_HEAD_BYTES, r["length"], r["hash"], r["case"]) for r in found]
    shard, offset, length, hashes, cases = zip(*rows, strict=True)
    return Index(paths, *(np.array(column, np.int64) for column in (shard, offset, length, hashes)), list(cases))


def shares(found, path):
    """How often each record is drawn at most: the sums of the shares up to each of them.

    Args:
      found: Index.
      path: JSON {case: weight >= 0}; cases that it does not name weigh 1. All records of a case weigh the same.

    Returns:
      [N] float64, ascending, the last is 1.

    Raises:
      InputError: no such file, other things in it, a case that the split does not hold, or all weights 0.
    """
    given = _load(path, "weights of cases")
    for case, weight in given.items():
        if type(weight) not in (int, float) or not 0 <= weight < math.inf:
            raise InputError(f"{path}: expected a finite weight >= 0 for case {case}, came {weight!r}")
    unknown = sorted(set(given) - set(found.cases))
    if unknown:
        raise InputError(f"{path}: expected cases of the training split, came {', '.join(unknown[:5])}")
    summed = np.cumsum([given.get(case, 1.0) for case in found.cases], dtype=np.float64)
    if summed[-1] == 0:
        raise InputError(f"{path}: expected a case of weight > 0, came none")
    return summed / summed[-1]


def draw(number, count, seed, stream, summed=None):
    """The record of a draw: in each epoch of `count` draws every record once, or each as often as its share says.

    Args:
      number: int64 scalar, of the draw.
      count: N.
      seed: int.
      stream: int32 scalar; streams are independent of each other.
      summed: from `shares`, or None.

    Returns:
      int64 scalar in [0, N), a function of the arguments alone.
    """
    epoch = tf.cast(number // count % 2**31, tf.int32)
    key = tf.random.experimental.stateless_fold_in(tf.stack([seed, stream]), epoch)
    if summed is None:
        return tf.random.experimental.index_shuffle(number % count, key, tf.constant(count - 1, tf.int64))
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(number % count, tf.int32))
    place = tf.random.stateless_uniform([1], key, dtype=tf.float64)
    # Right of equal sums: a record of weight 0 adds nothing and is passed over.
    return tf.cast(tf.searchsorted(tf.constant(summed), place, side="right")[0], tf.int64)


def _load(path, what):
    """The dict in a JSON file."""
    try:
        found = json.loads(tf.io.gfile.GFile(str(path)).read())
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"{path}: expected {what}, cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected {what}, came {type(found).__name__}")
    return found
