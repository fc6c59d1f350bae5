"""A run's folder: its config, its versions, its checkpoints."""

import json
import os
import pathlib
import platform
from importlib import metadata

import tensorflow as tf

from data.atomic import replacing
from data.errors import InputError

CONFIG_FILE, VERSIONS_FILE, CHECKPOINTS = "config.json", "versions.json", "checkpoints"
PACKAGES = ("tensorflow", "tensorflow-addons", "tensorflow-io", "numpy", "keras", "mask-rcnn-3d")


def claim(workdir, config_json, differences):
    """Makes the folder of a new run, or checks that an existing one belongs to this config.

    Args:
      workdir: folder; made where it does not exist.
      config_json: the resolved config as text.
      differences: f(text) -> list of str, how the running config differs from one written earlier.

    Raises:
      InputError: see `check`; or the folder cannot be made.
    """
    check(workdir, differences)
    workdir = pathlib.Path(workdir)
    path = workdir / CONFIG_FILE
    if path.exists():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with replacing(workdir / VERSIONS_FILE) as temporary:
            temporary.write_text(json.dumps(_versions(), indent=2) + "\n")
        with replacing(path) as temporary:
            temporary.write_text(config_json)
    except OSError as error:
        raise InputError(f"workdir {workdir}: cannot be written: {error.strerror}") from error


def check(workdir, differences):
    """Checks, writing nothing, that a folder may be claimed; also while another process is claiming it.

    Args:
      workdir: folder; it need not exist.
      differences: f(text) -> list of str, how the running config differs from one written earlier.

    Raises:
      InputError: the folder holds a run of another config (names the fields that differ) or other files, or it cannot
        be written.
    """
    workdir = pathlib.Path(workdir)
    _check_writable(workdir)
    # Listed before the config is looked for: what comes with or after the config is not foreign.
    foreign = [name for name in (os.listdir(workdir) if workdir.is_dir() else []) if not _is_of_a_claim(name)]
    path = workdir / CONFIG_FILE
    if path.exists():
        changed = differences(path.read_text())
        if changed:
            raise InputError(
                f"workdir {workdir} belongs to another config ({'; '.join(changed)}); choose another --workdir"
            )
    elif foreign:
        raise InputError(f"workdir {workdir}: expected a new or empty folder or an earlier run, came other files")


def _check_writable(workdir):
    path = workdir.absolute()
    nearest = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    if not nearest.is_dir():
        raise InputError(f"workdir {workdir}: expected a folder, came the file {nearest}")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"workdir {workdir}: expected a folder that can be written, came {nearest} without permission")


def _is_of_a_claim(name):
    """Whether `claim` leaves a file of this name before the config is there; see data/atomic.py for the hidden ones."""
    return name == VERSIONS_FILE or (name.startswith(".") and name.endswith((VERSIONS_FILE, CONFIG_FILE)))


def read_config_text(workdir):
    """The config text of an earlier run; InputError where there is none."""
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"workdir {workdir}: expected a run with {CONFIG_FILE}, found none; train one first")
    return path.read_text()


def manager(workdir, model, optimizer, keep, *, worker=None):
    """A CheckpointManager for model and optimizer (which counts the steps).

    Args:
      workdir: the run's folder.
      model: MaskRCNN, built.
      optimizer: built.
      keep: how many checkpoints stay.
      worker: a name for a worker that is not the chief. All must take part in writing, but only the chief's
        checkpoints count: those of the others go to folders of their own.
    """
    folder = pathlib.Path(workdir) / (CHECKPOINTS if worker is None else f"{CHECKPOINTS}-{worker}")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    return tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep)


def restore_latest(workdir, model, optimizer=None):
    """Restores the newest checkpoint of a run, if there is one.

    Args:
      workdir: the run's folder.
      model: MaskRCNN, built.
      optimizer: built; None restores the model alone.

    Returns:
      The checkpoint's path, or None.

    Raises:
      InputError: the checkpoint cannot be read, or belongs to another network.
    """
    path = latest(pathlib.Path(workdir) / CHECKPOINTS)
    if path is None:
        return None
    parts = {"model": model} if optimizer is None else {"model": model, "optimizer": optimizer}
    try:
        status = tf.train.Checkpoint(**parts).restore(path)
        status.assert_existing_objects_matched()
        if optimizer is None:
            status.expect_partial()
        _check_all_used(path, model)
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        # IndexError is how TensorFlow reports a file that ends too early.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"checkpoint {path}: expected a whole one of this network, came: {reason}") from error
    return path


def require_latest(workdir, model):
    """Restores the newest checkpoint; InputError where the run has none yet."""
    path = restore_latest(workdir, model)
    if path is None:
        raise InputError(f"workdir {workdir}: expected a checkpoint in {CHECKPOINTS}/, found none; train first")
    return path


def latest(folder):
    """The newest checkpoint of a folder, or None; also where a kill kept TensorFlow from noting which that is."""
    complete = [path.with_suffix("") for path in folder.glob("ckpt-*.index")]
    newest = max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)
    return tf.train.latest_checkpoint(str(folder)) or (str(newest) if newest else None)


def _check_all_used(path, model):
    """Raises ValueError where a checkpoint holds more or fewer variables than the network has."""
    names = [name for name, _ in tf.train.list_variables(path)]
    saved = sum(name.startswith("model/") and name.endswith("VARIABLE_VALUE") for name in names)
    if saved != len(model.variables):
        raise ValueError(f"{saved} variables for a network of {len(model.variables)}")


def _versions():
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions
