"""Starting from other weights: those of an earlier run, or of a 2D ResNet in a Keras file."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from data.errors import InputError
from training import checkpoints, transfer
from training import inflate as inflation

KERAS_SUFFIXES = (".h5", ".hdf5")
NOT_IN_FILE = "nothing in the file matches"


@dataclasses.dataclass(slots=True)
class Report:
    """What became of every variable of the model and of everything in the file.

    A variable of the model is in exactly one of `loaded`, `partly` and `missing`; what is in the file and was not used
    is in `skipped`.
    """

    loaded: list = dataclasses.field(default_factory=list)  # names of variables
    partly: list = dataclasses.field(default_factory=list)  # (variable, which entries)
    skipped: list = dataclasses.field(default_factory=list)  # (name in the file, reason)
    missing: list = dataclasses.field(default_factory=list)  # (variable, reason)
    notes: list = dataclasses.field(default_factory=list)  # what holds for the whole

    def lines(self):
        """Short text: the counts, the notes, then everything that was not simply loaded, with its reason."""
        return [
            f"first weights: {len(self.loaded)} variables loaded, {len(self.partly)} partly, {len(self.missing)} keep "
            f"their initialisation; {len(self.skipped)} entries of the file are not used",
            *self.notes,
            *(f"partly {name}: {reason}" for name, reason in self.partly),
            *(f"missing {name}: {reason}" for name, reason in self.missing),
            *(f"skipped {name}: {reason}" for name, reason in self.skipped),
        ]

    def as_dict(self):
        """For JSON."""
        return dataclasses.asdict(self)


def load(path, model, *, inflate, classes=None, attributes=None, keypoints=None):
    """Gives a model the weights of a file wherever they fit; all or, where this raises, none of them.

    Args:
      path: an earlier run's folder (its best weights count, or those of its newest checkpoint where it evaluated
        none), the prefix of a checkpoint (runs/a/checkpoints/ckpt-12), or a Keras .h5 file of a 2D ResNet; see
        training/transfer.py and training/inflate.py. Optimizer state and means of weights are not read.
      model: MaskRCNN or a backbone, built; of a strategy's scope or not.
      inflate: how 2D kernels become 3D, "centre" or "repeat".
      classes: names of the model's classes, without background; None matches what they concern by shape alone.
      attributes: names of its attributes, likewise.
      keypoints: names of its landmarks, likewise.

    Returns:
      Report.

    Raises:
      InputError: there is no such file, it cannot be read, or nothing in it matches.
      ValueError: a model without variables, or an unknown `inflate`.
    """
    if inflate not in inflation.INFLATIONS:
        raise ValueError(f"inflate: expected one of {', '.join(inflation.INFLATIONS)}, came {inflate!r}")
    variables = named_variables(model)
    if not variables:
        raise ValueError(f"expected a model with variables, came {model.name} before it was built")
    path = pathlib.Path(path)
    prefix = _checkpoint(path)
    if prefix is not None:
        names = {"classes": classes, "attributes": attributes, "keypoints": keypoints}
        settings = getattr(model, "config", None)
        found = transfer.from_checkpoint(prefix, variables, names, settings and dataclasses.asdict(settings))
    elif path.suffix in KERAS_SUFFIXES and path.is_file():
        found = _from_keras(path, model, variables, inflate)
    else:
        came = "one of another kind" if path.exists() else "nothing of this name"
        expected = f"a run's folder, the prefix of a checkpoint or a Keras file ({', '.join(KERAS_SUFFIXES)})"
        raise InputError(f"init_weights {path}: expected {expected}, came {came}")
    report = _report(found, variables)
    _check_values(path, found, variables)
    for name, value in found.values.items():
        variables[name].assign(value)
    return report


def named_variables(model):
    """Every variable of a model under the name by which a checkpoint keeps it.

    That is the path of attributes and indices which leads to it, "backbone/stages/0/1/first/conv/kernel". Unlike the
    names of layers and scopes, these paths are unique, do not depend on what else was built before, and are the same
    for the one box head of a model and for the first of a cascade.

    Args:
      model: a Keras layer or model.

    Returns:
      dict of name -> tf.Variable, in the order of `model.variables`.
    """
    names = {id(part): path for path, part in parts(model).items()}
    return {names[id(variable)]: variable for variable in model.variables}


def parts(model):
    """Every layer, list and variable below a model by its path of attributes and indices: {path: object}."""
    view = tf.train.TrackableView(model)
    paths, queue = {id(model): ""}, [model]
    for parent in queue:  # breadth first, as TensorFlow does it: the shortest path counts
        for name, child in view.children(parent).items():
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(parent)]}/{name}".lstrip("/")
                queue.append(child)
    return {paths[id(part)]: part for part in queue}


def _checkpoint(path):
    """The prefix that a path stands for, or None where it is no checkpoint's."""
    if path.is_dir():
        folders = checkpoints.BEST, checkpoints.CHECKPOINTS
        found = [prefix for folder in folders for prefix in checkpoints.newest_first(path / folder)]
        if not found:
            raise InputError(
                f"init_weights {path}: expected a run with a checkpoint in {checkpoints.CHECKPOINTS}/, found none"
            )
        return pathlib.Path(found[0])
    return path if path.with_name(f"{path.name}.index").is_file() else None


def _from_keras(path, model, variables, inflate):
    """What a Keras file holds for a model that has a backbone, or is one."""
    prefix = "backbone/" if hasattr(model, "backbone") else ""
    inside = {name.removeprefix(prefix): variable for name, variable in variables.items() if name.startswith(prefix)}
    found = inflation.from_keras(path, getattr(model, "backbone", model), inside, inflate)
    found.values = {f"{prefix}{name}": value for name, value in found.values.items()}
    found.unfit = {f"{prefix}{name}": reason for name, reason in found.unfit.items()}
    return found


def _report(found, variables):
    """The Report of what was found for which variables."""
    report = Report(skipped=found.skipped, notes=found.notes)
    for name in variables:
        if name in found.partly:
            report.partly.append((name, found.partly[name]))
        elif name in found.values:
            report.loaded.append(name)
        else:
            report.missing.append((name, found.unfit.get(name, NOT_IN_FILE)))
    return report


def _check_values(path, found, variables):
    """Raises InputError where nothing matches, or a value is not finite."""
    if not found.values:
        name, variable = next(iter(variables.items()))
        ours = f"{len(variables)} variables such as {name} {list(variable.shape)}"
        theirs = f"{len(found.skipped)} such as {found.skipped[0][0]} ({found.skipped[0][1]})"
        raise InputError(f"init_weights {path}: expected some of {ours}, came {theirs}")
    for name, value in found.values.items():
        if not np.isfinite(value).all():
            raise InputError(f"init_weights {path}: expected finite numbers, came NaN or infinity for {name}")
