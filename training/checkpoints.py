"""A run's folder: its config, its versions, its checkpoints."""

import errno
import json
import os
import pathlib
import platform
from importlib import metadata

import tensorflow as tf

from data.atomic import replacing
from data.errors import InputError

CONFIG_FILE, VERSIONS_FILE = "config.json", "versions.json"
LOOKS = ("summary", "sanity", "lr_find")  # folders of debugging/
CHECKPOINTS, BEST = "checkpoints", "best"  # of the run, to go on with; and of the weights that evaluated best
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
    """Whether `claim` leaves a file of this name before the config is there; see data/atomic.py for the hidden ones.

    Or debugging/, which may look at a config before it trains.
    """
    return name in (VERSIONS_FILE, *LOOKS) or (name.startswith(".") and name.endswith((VERSIONS_FILE, CONFIG_FILE)))


def read_config_text(workdir):
    """The config text of an earlier run; InputError where there is none."""
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"workdir {workdir}: expected a run with {CONFIG_FILE}, found none; train one first")
    return path.read_text()


def manager(workdir, state, train_config, *, worker=None):
    """A CheckpointManager for all that a run goes on with.

    Args:
      workdir: the run's folder.
      state: restore.State, built.
      train_config: the section `train`: how many checkpoints stay.
      worker: a name for a worker that is not the chief. All must take part in writing, but only the chief's
        checkpoints count: those of the others go to folders of their own.
    """
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(**_parts(state)),
        str(_folder(workdir, CHECKPOINTS, worker)),
        max_to_keep=train_config.keep_checkpoints,
        keep_checkpoint_every_n_hours=train_config.keep_hours or None,
    )


def best_manager(workdir, model, *, worker=None):
    """A CheckpointManager for the weights alone, of which the newest stay; see `manager`."""
    folder = _folder(workdir, BEST, worker)
    return tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(folder), max_to_keep=1)


def save(manager, step):
    """Writes a checkpoint, named after the step; the older ones stay until it is complete.

    Returns:
      Its path.

    Raises:
      OSError: the disk is full, say; the older ones are still there.
    """
    try:
        return manager.save(checkpoint_number=step)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0]
        raise OSError(f"{manager.directory}: checkpoint {step} cannot be written: {reason}") from error


def full_disk(error):
    """The line about a disk that is full in an error, which TensorFlow words in many ways, or None for other errors."""
    reasons = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if any(reason in line for reason in reasons)), None)


def restore_latest(workdir, state):
    """Restores the newest checkpoint of a run that can be read, if there is one.

    A kill or a full disk may leave the newest one damaged: then the one before is taken, and said to be.

    Args:
      workdir: the run's folder.
      state: restore.State, built; parts of it that are None are not restored.

    Returns:
      The checkpoint's path, or None where the run has none.

    Raises:
      InputError: none of them can be read, or they belong to another network.
    """
    first_error = None
    for path in newest_first(pathlib.Path(workdir) / CHECKPOINTS):
        try:
            _restore(path, state)
        except InputError as error:
            first_error = first_error or error
            continue
        if first_error:
            print(f"warning: {first_error}; going on with {path}", flush=True)
        return path
    if first_error:
        raise first_error
    return None


def require(workdir, state, which):
    """Restores weights for evaluation or export.

    Args:
      workdir: the run's folder.
      state: restore.State without optimizer and progress.
      which: "best", by the metric of the run's evaluations, or the newest where it made none; or "latest".

    Returns:
      The checkpoint's path.

    Raises:
      InputError: see `restore_latest`; or the run has none yet.
    """
    best = newest_first(pathlib.Path(workdir) / BEST) if which == "best" else []
    if best:
        _restore(best[0], state._replace(average=None))
        return best[0]
    path = restore_latest(workdir, state)
    if path is None:
        raise InputError(f"workdir {workdir}: expected a checkpoint in {CHECKPOINTS}/, found none; train first")
    if state.average:
        state.average.copy_to(state.model)
    return path


def newest_first(folder):
    """Paths of the checkpoints of a folder, that of the most steps first; also where a kill kept TensorFlow from noting
    them.
    """
    complete = [path.with_suffix("") for path in pathlib.Path(folder).glob("ckpt-*.index")]
    return [str(path) for path in sorted(complete, key=lambda path: int(path.name.split("-")[1]), reverse=True)]


def _restore(path, state):
    """Restores one checkpoint, whole; InputError where that cannot be."""
    try:
        status = tf.train.Checkpoint(**_parts(state)).restore(path)
        status.assert_existing_objects_matched()
        if state.optimizer is None:
            status.expect_partial()
        _check_all_used(path, state.model)
    except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:
        # IndexError is how TensorFlow reports a file that ends too early.
        reason = " ".join(str(error).split())[:200]
        if state.progress and _is_without_progress(path):
            reason = "one of an earlier version, of which weights alone can be used (train.init_weights)"
        raise InputError(f"checkpoint {path}: expected a whole one of this network, came: {reason}") from error


def _is_without_progress(path):
    try:
        return not any(name.startswith("progress/") for name, _ in tf.train.list_variables(path))
    except (tf.errors.OpError, ValueError, IndexError):
        return False


def _parts(state):
    return {name: part for name, part in state._asdict().items() if part is not None}


def _folder(workdir, name, worker):
    return pathlib.Path(workdir) / (name if worker is None else f"{name}-{worker}")


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
