"""Tables of detector hits to volumes: deposits in voxels, and the shower that owns each voxel."""

import csv
import warnings
from pathlib import Path

import numpy as np

from data import hit_grids
from data.errors import InputError
from data.lazy import check_memory, library_errors
from data.objects import Names, Objects, described
from data.readers import Volume

SUFFIXES = (".npy", ".csv")
ENERGY = "energy"  # The attribute that the table itself tells.


def tables(folder: Path) -> list[Path]:
    """The tables of hits in a folder, sorted by name."""
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]


def read(path: Path, settings, names: Names) -> tuple[Volume, Objects]:
    """Reads a table of hits as a volume and its showers.

    A voxel holds the sum of its hits' energy (or their mean time, weighted by energy, or their number), and belongs
    to the shower with most energy in it, of equal ones to that with the lower id; hits without a shower do not count
    for that. The class of a shower is that of its column, or as the JSON beside tells it (see
    data/instance_table.py), or the only one. Of the attributes, "energy" is that of the JSON, or else of the column
    for true energy, or else the sum of the shower's hits, those outside the grid too. Memory is that of the table and
    of the grid, whatever the number of showers.

    Args:
      path: a .csv file with a header, or a .npy file of [N, F] real numbers.
      settings: configs.hits_schema.Hits.
      names: classes, attributes and landmarks.

    Returns:
      The volume, [Z, Y, X] or [Z, Y, X, C] float32, and the showers as objects, ascending by their id. A table without
      hits is valid. `left_out` counts "hits outside the grid" and "energy outside the grid".

    Raises:
      InputError: the table cannot be read or lacks a column; a position, time or energy is not finite, or an energy
        negative; an id is no whole number; or hits of one shower differ in class or true energy.
    """
    check_memory(path, (*settings.shape, len(settings.channels)), np.float32)
    columns = _read_columns(path, settings)
    numbers, owner = _showers(path, columns, settings)
    voxel = hit_grids.voxel_of(settings, columns["x"], columns["y"], columns["z"])
    inside = voxel >= 0
    array = _deposited(settings, voxel[inside], {name: values[inside] for name, values in columns.items()})
    ids = _owners(voxel[inside], owner[inside], columns["energy"][inside], settings.shape)
    known = _known(path, columns, owner, numbers, settings, names)
    left_out = {
        "hits outside the grid": int(np.sum(~inside)),
        "energy outside the grid": float(columns["energy"][~inside].sum()),
        **known.pop("left_out"),
    }
    spacing, affine = hit_grids.placed(settings)
    return Volume(array, spacing, affine), Objects(ids=ids, numbers=numbers, **known, left_out=left_out)


def _read_columns(path, settings):
    """{setting: [N] float64}; shower_class is [N] str in a CSV file. InputError with the row of what is no number."""
    wanted = ("x", "y", "z", "energy", "time", "shower", "true_energy", "shower_class")
    wanted = {name: getattr(settings, name) for name in wanted if getattr(settings, name)}
    with library_errors(path, "a table of hits"):
        columns = _read_npy(path, wanted) if path.suffix.lower() == ".npy" else _read_csv(path, wanted)
    for name in columns.keys() - {"shower_class"}:
        _check(path, name, columns[name], np.isfinite(columns[name]), "a finite number")
    _check(path, "energy", columns["energy"], columns["energy"] >= 0, "an energy >= 0")
    if "shower" in columns:
        _check(path, "shower", columns["shower"], columns["shower"] % 1 == 0, "a whole number")
    return columns


def _read_npy(path, wanted):
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    if table.ndim != 2 or table.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected [hits, columns] of real numbers, got sizes {table.shape} of {table.dtype}")
    indices = {name: _column(path, name, column, [], table.shape[1]) for name, column in wanted.items()}
    return {name: np.asarray(table[:, index], np.float64) for name, index in indices.items()}


def _read_csv(path, wanted):
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    if header and all(map(_is_number, header)):
        raise InputError(f"{path}: expected the names of the columns in the first line, got {','.join(header)}")
    indices = {name: _column(path, name, column, header, len(header)) for name, column in wanted.items()}
    texts = {name: indices.pop(name) for name in ("shower_class",) if name in indices}
    columns = dict(zip(indices, _numbers(path, indices).T, strict=True))
    if texts:
        columns["shower_class"] = np.char.strip(_cells(path, list(texts.values()), str)[:, 0])
    return columns


def _numbers(path, indices):
    """[N, columns] float64; InputError with the row of what is no number."""
    try:
        return _cells(path, list(indices.values()), np.float64)
    except ValueError:
        for name, texts in zip(indices, _cells(path, list(indices.values()), str).T, strict=True):
            _check(path, name, texts, np.array([_is_number(text) for text in texts]), "a number")
        raise


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cells(path, indices, dtype):
    """[N, columns] of a CSV file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # No rows.
        cells = np.loadtxt(
            path, dtype, delimiter=",", skiprows=1, usecols=indices, comments=None, quotechar='"', encoding="utf-8-sig",
            ndmin=2,
        )  # fmt: skip
    return cells.reshape(-1, len(indices))


def _column(path, name, column, header, count):
    """The index of a column that a setting gives by its name or number."""
    if column in header:
        return header.index(column)
    if column.isdecimal() and int(column) < count:
        return int(column)
    known = f"one of {', '.join(header)}" if header else "the number of a column"
    raise InputError(f"{path}: data.hits.{name}: expected {known}, or 0..{count - 1}, got {column!r}")


def _check(path, name, values, good, expected):
    """InputError with the first row, from 1, that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(f"{path}: row {row + 1}: {name}: expected {expected}, got {values[row]}")


def _showers(path, columns, settings):
    """[M] int64 ids of the showers, ascending; and of each hit its shower, 0..M - 1, or -1 for none."""
    ids = columns.get("shower")
    if ids is None:
        return np.zeros(0, np.int64), np.full(len(columns["energy"]), -1)
    _check(path, "shower", ids, np.abs(ids) < 2**53, "an id below 2^53")
    numbers, owner = np.unique(ids.astype(np.int64), return_inverse=True)
    none = int(np.searchsorted(numbers, settings.first_shower))
    return numbers[none:], np.maximum(owner - none, -1)


def _deposited(settings, voxel, columns):
    """[Z, Y, X(, C)] float32 channels of hits inside the grid."""
    size = int(np.prod(settings.shape))
    array = np.zeros((size, len(settings.channels)), np.float32)
    energy = np.bincount(voxel, columns["energy"], size)
    for channel, name in enumerate(settings.channels):
        if name == "energy":
            array[:, channel] = energy
        elif name == "count":
            array[:, channel] = np.bincount(voxel, minlength=size)
        else:
            weighted = np.bincount(voxel, columns["energy"] * columns["time"], size)
            array[:, channel] = np.divide(weighted, energy, out=np.zeros(size), where=energy > 0)
    shape = settings.shape if len(settings.channels) == 1 else (*settings.shape, len(settings.channels))
    return array.reshape(shape)


def _owners(voxel, owner, energy, shape):
    """[Z, Y, X] int32: 1 + the shower with most energy in each voxel, 0 where none has any."""
    owned = (owner >= 0) & (energy > 0)
    count = int(owner.max(initial=-1)) + 1
    # One entry for every pair of a voxel and a shower that meet, never voxels times showers.
    pairs, index = np.unique(voxel[owned] * count + owner[owned], return_inverse=True)
    deposits = np.bincount(index, energy[owned], len(pairs))
    voxels, showers = pairs // max(count, 1), pairs % max(count, 1)
    order = np.lexsort((showers, -deposits, voxels))
    owned_voxels, first = np.unique(voxels[order], return_index=True)
    ids = np.zeros(int(np.prod(shape)), np.int32)
    ids[owned_voxels] = showers[order][first] + 1
    return ids.reshape(shape)


def _known(path, columns, owner, numbers, settings, names):
    """Classes, attributes and landmarks of the showers, as fields of Objects."""
    labels = None
    if settings.shower_class:
        said = _of_showers(path, "shower_class", columns, owner, numbers)
        labels = {number: _class_name(value) for number, value in zip(numbers.tolist(), said, strict=True)}
    class_ids, attributes, keypoints, unlisted = described(path, numbers, names, labels)
    if ENERGY in names.attributes:
        column = attributes[:, names.attributes.index(ENERGY)]
        column[:] = np.where(np.isnan(column), _energies(path, columns, owner, numbers, settings), column)
    return {"class_ids": class_ids, "attributes": attributes, "keypoints": keypoints, "left_out": unlisted}


def _energies(path, columns, owner, numbers, settings):
    if settings.true_energy:
        return _of_showers(path, "true_energy", columns, owner, numbers)
    return np.bincount(owner[owner >= 0], columns["energy"][owner >= 0], len(numbers))


def _of_showers(path, name, columns, owner, numbers):
    """[M] values of a column that is the same in all hits of a shower."""
    values = columns[name]
    hits = np.flatnonzero(owner >= 0)
    _, first = np.unique(owner[hits], return_index=True)
    of_shower = values[hits[first]]
    good = np.ones(len(values), bool)
    good[hits] = values[hits] == of_shower[owner[hits]]
    _check(path, name, values, good, "one value in all hits of a shower")
    return of_shower


def _class_name(value):
    """A class as data/instance_table.py takes it: a name, or a number."""
    text = str(value)
    return int(float(text)) if text.replace(".", "", 1).isdecimal() and float(text) % 1 == 0 else text
