"""Weights of an earlier run for a network that may differ from it, in its classes above all."""

import dataclasses
import json
import re

import numpy as np
import tensorflow as tf

from data.errors import InputError
from ops.keypoints import KEYPOINTS
from training import checkpoints, meanings

_MODEL, _VALUE = "model/", "/.ATTRIBUTES/VARIABLE_VALUE"  # around a name in a checkpoint
# What the entries of the last axis of a variable are about: classes, attributes or landmarks, how many entries each
# of them has, whether background comes first, and the section whose `class_agnostic` makes it about none of them.
_OUTPUTS = (
    (re.compile(r"box_heads/\d+/logits/(kernel|bias)"), "classes", 1, True, None),
    (re.compile(r"box_heads/\d+/deltas/(kernel|bias)"), "classes", 6, False, "box_head"),
    (re.compile(r"mask_head/logits/(kernel|bias)"), "classes", 1, False, "mask_head"),
    (re.compile(r"segmentation/maps/(kernel|bias)"), "classes", 1, False, None),
    (re.compile(r"classifier/logits/(kernel|bias)"), "classes", 1, True, None),
    (re.compile(r"attribute_head/((values|factors)/(kernel|bias)|powers/kernel)"), "attributes", 1, False, None),
    (re.compile(r"keypoint_head/logits/(kernel|bias)"), "keypoints", 1, False, None),
)


@dataclasses.dataclass(slots=True)
class Found:
    """What a file holds for the variables of a model."""

    values: dict = dataclasses.field(default_factory=dict)  # variable -> array of its shape
    partly: dict = dataclasses.field(default_factory=dict)  # those of which some entries are fresh -> which
    unfit: dict = dataclasses.field(default_factory=dict)  # variable -> why what the file has does not fit
    skipped: list = dataclasses.field(default_factory=list)  # (name in the file, why it is not used)
    notes: list = dataclasses.field(default_factory=list)

    def skip(self, name, reason, variable=None):
        """Notes what is not used, and for which variable it would have been."""
        self.skipped.append((name, reason))
        if variable is not None:
            self.unfit[variable] = reason


def from_checkpoint(prefix, variables, names, settings=None):
    """Takes the variables of the same name, shape and meaning, and outputs by the names of what they are about.

    The config beside the checkpoint says which classes the outputs of an earlier run are about. Those of classes that
    the model has too, and of background, are copied; those of its other classes stay as they are. It also says which
    settings were others; see training/meanings.py.

    Args:
      prefix: path of a checkpoint without `.index`.
      variables: dict of name -> tf.Variable.
      names: {"classes": tuple of str, "attributes": ..., "keypoints": ...} of the model; None where they are not known.
      settings: the `model` section of its config as a dict; None for a model without.

    Returns:
      Found.

    Raises:
      InputError: the checkpoint is cut, of something else than a run, or its config cannot be read.
    """
    theirs, agnostic, trained = _read_config(prefix)
    settings = json.loads(json.dumps(settings or {}))  # lists for tuples, as in the file
    found = Found(notes=meanings.shifted(trained, settings))
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        saved = {key[len(_MODEL) : -len(_VALUE)]: key for key in sorted(shapes) if _is_of_model(key)}
        if not saved:
            came = ", ".join(sorted(shapes)[:3])
            raise InputError(f"init_weights {prefix}: expected the checkpoint of a run (model/...), came {came}")
        for name, key in saved.items():
            if name not in variables:
                found.skip(name, "the model has no such variable")
                continue
            reason = meanings.broken(name, trained, settings)
            if reason:
                found.skip(name, reason, name)
                continue
            _take(found, name, reader.get_tensor(key), variables[name], _labels(name, theirs, names, agnostic))
    except (tf.errors.OpError, IndexError, RuntimeError) as error:
        # IndexError is how TensorFlow reports a file that ends too early.
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"init_weights {prefix}: expected a whole checkpoint, came: {reason}") from error
    _note_names(found, theirs, names, variables)
    return found


def _is_of_model(key):
    return key.startswith(_MODEL) and key.endswith(_VALUE) and "/.OPTIMIZER_SLOT/" not in key


def _take(found, name, value, variable, labels):
    """Finds a place for one value: as it is, or entry by entry where `labels` of (theirs, ours) are given."""
    shape, dtype = tuple(variable.shape), variable.dtype.as_numpy_dtype
    if value.dtype != dtype:
        found.skip(name, f"{value.dtype} in the file, {np.dtype(dtype)} in the model", name)
    elif labels and (value.shape[-1], shape[-1]) == tuple(map(len, labels)) and value.shape[:-1] == shape[:-1]:
        _take_entries(found, name, value, variable, *labels)
    elif value.shape == shape:
        found.values[name] = value
    else:
        found.skip(name, f"shape {list(value.shape)} in the file, {list(shape)} in the model", name)


def _take_entries(found, name, value, variable, theirs, ours):
    place = {label: index for index, label in enumerate(theirs)}
    shared = [label for label in ours if label in place]
    if not shared:
        found.skip(name, f"of {_listed(theirs)} in the file, of {_listed(ours)} in the model", name)
        return
    result = np.array(variable.numpy())
    result[..., [ours.index(label) for label in shared]] = value[..., [place[label] for label in shared]]
    found.values[name] = result
    if len(shared) < len(ours):
        fresh = [label for label in ours if label not in place]
        found.partly[name] = f"{_listed(shared)} from the file, {_listed(fresh)} fresh"


def _labels(name, theirs, ours, agnostic):
    """What the entries of the last axis are about, in the file and in the model; None where that is not known.

    A label is a tuple (name of a class, index), so that no class can be mistaken for background, ().
    """
    for pattern, kind, each, has_background, section in _OUTPUTS:
        if pattern.fullmatch(name):
            if theirs[kind] is None or ours[kind] is None or section in agnostic:
                return None
            return [
                [()] * has_background + [(label, index) for label in names[kind] for index in range(each)]
                for names in (theirs, ours)
            ]
    return None


def _listed(labels):
    return ", ".join(dict.fromkeys(label[0] if label else "background" for label in labels))


def _read_config(prefix):
    """What the run that wrote a checkpoint learnt, by name, which of its heads are agnostic, and its settings.

    Returns:
      {"classes": tuple of str, "attributes": ..., "keypoints": ...}, all None where there is no config; a list of
      sections; and the section `model` as a dict, empty where there is none.
    """
    beside = [folder / checkpoints.CONFIG_FILE for folder in (prefix.parent, prefix.parent.parent)]
    path = next((path for path in beside if path.is_file()), None)
    if path is None:
        return dict.fromkeys(("classes", "attributes", "keypoints")), [], {}
    try:
        config = json.loads(path.read_text())
        names = {kind: tuple(map(str, config["data"][kind])) for kind in ("classes", "attributes")}
        # Configs did not always name landmarks: then they are those derived from masks.
        landmarks = tuple(map(str, config["data"].get("keypoints", ()))) or KEYPOINTS
        names["keypoints"] = landmarks if config["model"]["keypoint_head"]["enabled"] else ()
        model = {section: dict(fields) for section, fields in config["model"].items()}
        return names, [head for head in ("box_head", "mask_head") if model[head]["class_agnostic"]], model
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected the config of a run, came: {type(error).__name__} {error}") from error


def _note_names(found, theirs, ours, variables):
    """Notes where names of the file are not known, or have no place in the model, of those that the model learns."""
    learnt = {kind for pattern, kind, *_ in _OUTPUTS if any(map(pattern.fullmatch, variables))}
    for kind, names in ours.items():
        if not names or kind not in learnt:
            continue
        if theirs[kind] is None:
            found.notes.append(
                f"no config beside the checkpoint: its {kind} are taken for those of the model, in order"
            )
            continue
        dropped = [name for name in theirs[kind] if name not in names]
        if dropped:
            found.notes.append(f"{kind} of the file that the model does not have: {', '.join(dropped)}")
