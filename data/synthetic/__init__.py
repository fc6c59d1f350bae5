"""Synthetic sets: data without a download, all through one door, `draw`; pictures of them are in docs/."""

import dataclasses

import numpy as np

from data.errors import InputError
from data.synthetic import cubes, digits, nuclei, shapes, showers

_KINDS = {"shapes": shapes, "cubes": cubes, "digits": digits, "nuclei": nuclei, "showers": showers}
CLASSES = {kind: module.CLASSES for kind, module in _KINDS.items()}
ATTRIBUTES = {kind: module.ATTRIBUTES for kind, module in _KINDS.items()}
_PREFIX = "synthetic:"


def kind_of(source):
    """The kind that a source `synthetic:<kind>` names; None where it is not synthetic.

    Raises:
      InputError: there is no such kind.
    """
    if not str(source).startswith(_PREFIX):
        return None
    kind = str(source).removeprefix(_PREFIX)
    if kind not in _KINDS:
        raise InputError(f"data.source: expected a folder or {_PREFIX}{' | '.join(_KINDS)}, came {str(source)!r}")
    return kind


def settings_of(kind, settings):
    """What the volumes of a kind depend on: dict of the shared settings and its own."""
    fields = dataclasses.asdict(settings)
    return {name: value for name, value in fields.items() if name == kind or name not in _KINDS}


def draw(kind, settings, index):
    """Draws volume `index` of the endless set that the settings and their seed name.

    Equal arguments give equal volumes on every machine with the same NumPy random streams.

    Args:
      kind: a key of `CLASSES`.
      settings: a `Synthetic` of configs/synthetic_schema.py, validated.
      index: int >= 0.

    Returns:
      image: [Z, Y, X], of the kind's own dtype.
      ids: [Z, Y, X] int32, 0 background, 1..N the objects.
      class_ids: [N] int32, 1 + the position in `CLASSES[kind]`; N may be 0.
      attributes: [N, T] float32, of the names in `ATTRIBUTES[kind]`; T may be 0.
      spacing: [3] float64, mm along z, y, x.

    Raises:
      InputError: no such index, or the shape does not suit the kind's own settings.
    """
    if not isinstance(index, (int, np.integer)) or index < 0:
        raise InputError(f"index: expected an int >= 0, came {index!r}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, index])))
    return _KINDS[kind].draw(rng, settings)
