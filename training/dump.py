"""What a step needs to be run again: written where a loss or gradient was not finite, read by debugging/replay.py."""

import json
import os
import pathlib
import shutil
import zipfile

import numpy as np
import tensorflow as tf

from data.atomic import replacing_folder
from data.errors import InputError

MODEL, BATCH, WHAT = "model", "batch.npz", "what.json"
FIELDS = {"step": int, "part": str, "records": list, "seed": list, "stage": str, "learns": list}


def write(folder, model, batch, what):
    """Writes a dump, which appears when it is complete; an earlier one of the same name goes.

    Args:
      folder: where to, <workdir>/nonfinite_<step>.
      model: MaskRCNN with the variables that the step began with.
      batch: dict of arrays or tensors, as data/pipeline makes it.
      what: {step: int, part: which loss or gradient was not finite, records: [names], seed: as
        `model.compute_losses` took it, [2] or [B, 2], nested lists; stage: name, learns: [kinds of losses]}.

    Raises:
      ValueError: other fields.
      OSError: the disk is full.
    """
    _check_fields(what)
    shutil.rmtree(folder, ignore_errors=True)
    with replacing_folder(folder) as temporary:
        tf.train.Checkpoint(model=model).write(os.fspath(temporary / MODEL))
        np.savez(temporary / BATCH, **{name: np.asarray(value) for name, value in batch.items()})
        (temporary / WHAT).write_text(json.dumps(what, indent=2) + "\n")


def read(folder):
    """The batch, a dict of arrays, and what.json of a dump.

    Raises:
      InputError: there is none, or it is damaged.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a dump, nonfinite_<step>, came none")
    try:
        what = json.loads((folder / WHAT).read_text())
        _check_fields(what)
        with np.load(folder / BATCH, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, what
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise InputError(f"{folder}: expected a whole dump of a step, came: {error}") from error


def load(folder, model):
    """Gives a model, built, the variables of a dump; raises InputError as `read_variables`."""
    read_variables(pathlib.Path(folder) / MODEL, model)


def read_variables(path, model):
    """Gives a model, built, the variables that tf.train.Checkpoint(model=...).write has written.

    Raises:
      InputError: they are gone, damaged or of another network.
    """
    try:
        tf.train.Checkpoint(model=model).read(os.fspath(path)).assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected the network of the config, came: {reason}") from error


def _check_fields(what):
    if not isinstance(what, dict) or set(what) != set(FIELDS):
        raise ValueError(f"{WHAT}: expected {', '.join(FIELDS)}, came {what if isinstance(what, list) else list(what)}")
    for name, kind in FIELDS.items():
        if not isinstance(what[name], kind):
            raise ValueError(f"{WHAT} {name}: expected {kind.__name__}, came {what[name]!r}")
