"""The JSON beside a label file: the class of every instance and, where it says more, its attributes and landmarks."""

import collections
import json

import numpy as np

from data.atomic import replacing
from data.errors import InputError

CLASS, KEYPOINTS = "class", "keypoints"
_LARGEST = float(np.finfo(np.float32).max)


def read(path, classes, attributes, keypoints):
    """Reads {"1": "cell", "7": 2, "9": {"class": "cell", "energy": 12.5, "keypoints": {"tip": [4.5, 20, 31.5]}}}.

    An id has a class name or number, or a class and more. A landmark is at z, y, x in voxels; the centre of the first
    voxel is (0.5, 0.5, 0.5).

    Args:
      path: pathlib.Path of the JSON file.
      classes: the K class names; class id 1 is the first.
      attributes: the T names that are looked up; what is missing or null is unknown.
      keypoints: the L names of landmarks, likewise.

    Returns:
      {id: (class id, list of T floats, list of L lists of 3 floats)}, NaN where unknown; and {"attribute <name>" or
      "keypoint <name>": instances} of the file's other names.

    Raises:
      InputError: the file cannot be read, a key is no id, a class is unknown, an attribute is no finite number within
        float32, a landmark is not three of them, or `attributes` has the name "class" or "keypoints".
    """
    if {CLASS, KEYPOINTS} & set(attributes):
        raise InputError(
            f"data.attributes: expected names other than {CLASS!r} and {KEYPOINTS!r}, got {tuple(attributes)}"
        )
    table, others = {}, collections.Counter()
    for key, value in read_json(path).items():
        if not key.isdecimal():
            raise InputError(f"{path}: expected instance ids as keys, got {key!r}")
        said = value if isinstance(value, dict) else {CLASS: value}
        landmarks = _landmarks(f"{path}: id {key}", said.get(KEYPOINTS))
        values = [number(f"{path}: id {key}: {name}", said.get(name)) for name in attributes]
        points = [_point(f"{path}: id {key}: keypoint {name}", landmarks.get(name)) for name in keypoints]
        table[int(key)] = class_id(f"{path}: id {key}", said.get(CLASS), classes), values, points
        others.update(f"attribute {name}" for name in said.keys() - {CLASS, KEYPOINTS, *attributes})
        others.update(f"keypoint {name}" for name in landmarks.keys() - set(keypoints))
    return table, dict(sorted(others.items()))


def write(path, class_names, attributes=(), values=(), keypoints=(), points=()):
    """Writes the JSON that `read` reads.

    Args:
      path: of the file.
      class_names: entry i is the class of instance i + 1.
      attributes: T names; with none and no landmarks, the file tells the classes alone.
      values: [N, T] float32, NaN where unknown; only with `attributes`.
      keypoints: L names of landmarks.
      points: [N, L, 3] float32, voxels, NaN where unknown; only with `keypoints`.
    """
    table = {str(i): name for i, name in enumerate(class_names, start=1)}
    if attributes or keypoints:
        table = {key: {CLASS: name} for key, name in table.items()}
    if attributes:
        for said, row in zip(table.values(), values, strict=True):
            said.update(zip(attributes, map(_decimal, row), strict=True))
    if keypoints:
        for said, row in zip(table.values(), points, strict=True):
            places = [None if np.isnan(point).any() else list(map(_decimal, point)) for point in row]
            said[KEYPOINTS] = dict(zip(keypoints, places, strict=True))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def class_id(what, name, classes):
    """The class id, 1..K, of a class name or number; InputError, which begins with `what`, where it is neither."""
    class_of = {known: i for i, known in enumerate(classes, start=1)}
    class_of.update({i: i for i in range(1, len(classes) + 1)})
    if not isinstance(name, str | int) or isinstance(name, bool) or name not in class_of:
        raise InputError(f"{what}: expected one of the classes {classes} or its number 1..{len(classes)}, got {name!r}")
    return class_of[name]


def read_json(path):
    """The object in a JSON file as a dict; InputError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def number(what, value):
    """A float within float32, NaN where `value` is None; InputError, which begins with `what`, for anything else."""
    if value is None:
        return float("nan")
    if not _is_number(value):
        raise InputError(f"{what}: expected a finite number within float32, or null where it is unknown, got {value!r}")
    return float(value)


def _landmarks(what, value):
    """The landmarks of an instance, {name: place}."""
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{what}: {KEYPOINTS}: expected landmarks by name, or null where none is known, got {value!r}")
    return value or {}


def _point(what, value):
    if value is None:
        return [float("nan")] * 3
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        raise InputError(
            f"{what}: expected three finite numbers [z, y, x] within float32, or null where unknown, got {value!r}"
        )
    return list(map(float, value))


def _is_number(value):
    # NaN fails the comparison.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _decimal(value):
    """The shortest decimal that is this float32: 0.1 is not written as 0.10000000149011612; None where unknown."""
    return None if np.isnan(value) else float(str(np.float32(value)))
