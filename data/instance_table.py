"""The JSON beside a label file: the class of every instance and, where it says more, its attributes."""

import collections
import json

import numpy as np

from data.atomic import replacing
from data.errors import InputError

CLASS = "class"
_LARGEST = float(np.finfo(np.float32).max)


def read(path, classes, attributes):
    """Reads {"1": "cell", "7": 2, "9": {"class": "cell", "energy": 12.5}}: id to class name or number, or to both.

    Args:
      path: pathlib.Path of the JSON file.
      classes: the K class names; class id 1 is the first.
      attributes: the T names that are looked up; what is missing or null is unknown.

    Returns:
      {id: (class id, list of T floats, NaN where unknown)}; and {name: instances} of the file's other names.

    Raises:
      InputError: the file cannot be read, a key is no id, a class is unknown, an attribute is no finite number within
        float32, or `attributes` has the name "class".
    """
    if CLASS in attributes:
        raise InputError(f"data.attributes: expected names other than {CLASS!r}, got {tuple(attributes)}")
    class_of = {name: i for i, name in enumerate(classes, start=1)}
    class_of.update({i: i for i in range(1, len(classes) + 1)})
    table, others = {}, collections.Counter()
    for key, value in read_json(path).items():
        if not key.isdecimal():
            raise InputError(f"{path}: expected instance ids as keys, got {key!r}")
        said = value if isinstance(value, dict) else {CLASS: value}
        class_name = said.get(CLASS)
        if not isinstance(class_name, str | int) or isinstance(class_name, bool) or class_name not in class_of:
            raise InputError(
                f"{path}: id {key}: expected one of the classes {classes} or its number "
                f"1..{len(classes)}, got {class_name!r}"
            )
        values = [_number(f"{path}: id {key}: {name}", said.get(name)) for name in attributes]
        table[int(key)] = class_of[class_name], values
        others.update(said.keys() - {CLASS, *attributes})
    return table, dict(sorted(others.items()))


def write(path, class_names, attributes=(), values=()):
    """Writes the JSON that `read` reads.

    Args:
      path: of the file.
      class_names: entry i is the class of instance i + 1.
      attributes: T names; with none, the file tells the classes alone.
      values: [N, T] float32, NaN where unknown; only with `attributes`.
    """
    table = {str(i): name for i, name in enumerate(class_names, start=1)}
    if attributes:
        for (key, name), row in zip(list(table.items()), values, strict=True):
            # The shortest decimal that is this float32: 0.1 is not written as 0.10000000149011612.
            numbers = [None if np.isnan(value) else float(str(np.float32(value))) for value in row]
            table[key] = {CLASS: name, **dict(zip(attributes, numbers, strict=True))}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read_json(path):
    """The object in a JSON file as a dict; InputError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _number(what, value):
    if value is None:
        return float("nan")
    # NaN fails the comparison.
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise InputError(f"{what}: expected a finite number within float32, or null where it is unknown, got {value!r}")
    return float(value)
