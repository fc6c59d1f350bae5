"""Folders of image and label files to training cases: a volume, its instances and their classes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np

from data.atomic import replacing
from data.errors import InputError
from data.readers import SUFFIXES, Volume, case_stem, read_volume, volume_suffix

SPLITS = ("train", "val", "test")
_NOTES = ("", ".json", ".txt", ".md", ".csv")  # What may lie beside the volumes.


@dataclass(frozen=True)
class CaseFiles:
    """One image with its label file; `split` is one of SPLITS or None where nothing says it."""

    name: str
    image: Path
    labels: Path
    split: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One annotated volume.

    Attributes:
      name: the case's name.
      volume: the image.
      instance_ids: [Z, Y, X] int32, 0 background, 1..N the instances.
      class_ids: [N] int32 in 1..K; entry i is the class of instance i + 1.
      attributes: [N, T] float32; T is 0 for file formats that hold none.
      source: where it came from.
    """

    name: str
    volume: Volume
    instance_ids: np.ndarray
    class_ids: np.ndarray
    attributes: np.ndarray
    source: str


def find_cases(source: str | os.PathLike) -> list[CaseFiles]:
    """Lists the cases of a folder, sorted by name.

    The folder holds either `images/` and `labels/` with equal names, or `<case>_image` beside
    `<case>_labels`. The split is that of `split.json` ({"train": [names], "val": [...]}), or else the
    `_train`, `_val` or `_test` at the end of the case's name, or else None.

    Raises:
      InputError: no such folder, no volumes in it, an image or label file that has no partner, two
        files of one name, a format that is not read, or a split of cases that are not there.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: expected a folder of volumes, got no such folder")
    if (source / "images").is_dir():
        images, labels = _by_stem(source / "images"), _by_stem(source / "labels")
    else:
        images, labels = _side_by_side(source)
    _check_pairs(source, images, labels)
    splits = _read_splits(source / "split.json", images, labels)
    return [
        CaseFiles(name, images[name], labels[name], splits.get(name, _split_in_name(name))) for name in sorted(images)
    ]


def load_case(
    files: CaseFiles, *, labels: str, classes: tuple[str, ...], min_voxels: int
) -> tuple[Case, dict[str, int]]:
    """Reads a case and makes its instances.

    Args:
      files: from `find_cases`.
      labels: "instances": each id is an object, whose class `<label stem>.json` beside the label file
        tells ({"1": "cell", "7": 2}: id to class name or 1-based class id), or which is of the only
        class where there is no such file. "semantic": value v is class v, and its 26-connected
        components are the objects.
      classes: the K class names; class id 1 is the first.
      min_voxels: smaller objects become background.

    Returns:
      The case, with instances in ascending order of their id in the file; no objects is valid. And
      what was left out: {"below_min_voxels": number of objects}.

    Raises:
      InputError: a file that cannot be read, labels on another grid than the image, labels that are
        not integers from 0, or ids and classes that do not fit together.
    """
    if labels not in ("instances", "semantic"):
        raise ValueError(f"labels must be 'instances' or 'semantic', got {labels!r}")
    volume = read_volume(files.image)
    label_volume = read_volume(files.labels)
    values = _label_values(files.labels, label_volume.array)
    _check_same_grid(files, volume, label_volume, values)
    if labels == "semantic":
        _check_semantic_values(files.labels, values, classes)
        ids = cc3d.connected_components(values, connectivity=26)
    else:
        ids = values
    instance_ids, old_ids, first_values, kept = _relabel(ids, values, min_voxels)
    if labels == "semantic":
        class_ids = first_values.astype(np.int32)[kept]
    else:
        class_ids = _classes_of_ids(files.labels, old_ids, classes)[kept]
    attributes = np.zeros((len(class_ids), 0), np.float32)
    case = Case(files.name, volume, instance_ids, class_ids, attributes, str(files.image))
    return case, {"below_min_voxels": int(np.sum(~kept))}


def write_case_classes(path: str | os.PathLike, class_names: list[str]) -> None:
    """Writes the JSON beside a label file: entry i is the class of instance i + 1."""
    classes = {str(i): name for i, name in enumerate(class_names, start=1)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")


def _data_files(folder):
    """The volume files of a folder; hidden files and notes are passed over, other files are refused."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of volumes, got no such folder")
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [p for p in files if not p.name.startswith(".") and p.suffix.lower() not in _NOTES]
    for path in files:
        volume_suffix(path)
    return files


def _by_stem(folder):
    return _unique((case_stem(path), path) for path in _data_files(folder))


def _side_by_side(folder):
    images, labels = [], []
    for path in _data_files(folder):
        stem = case_stem(path)
        if stem.endswith("_image"):
            images.append((stem.removesuffix("_image"), path))
        elif stem.endswith("_labels"):
            labels.append((stem.removesuffix("_labels"), path))
        else:
            raise InputError(f"{path}: expected the name <case>_image or <case>_labels")
    return _unique(images), _unique(labels)


def _unique(named_paths):
    paths = {}
    for name, path in named_paths:
        if name in paths:
            raise InputError(f"{path}: expected one file for {name!r}, got {paths[name].name} too")
        paths[name] = path
    return paths


def _check_pairs(source, images, labels):
    if not images and not labels:
        raise InputError(
            f"{source}: expected images/ and labels/, or files <case>_image and <case>_labels "
            f"({', '.join(SUFFIXES)}), got no volumes"
        )
    for kind, ours, other, theirs in (("label file", images, "image", labels), ("image", labels, "label file", images)):
        alone = [ours[name].name for name in sorted(ours.keys() - theirs.keys())]
        if alone:
            raise InputError(f"{source}: expected one {kind} for every {other}, got none for {_some(alone)}")


def _some(names):
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _read_splits(path, images, labels):
    """{case name: split} from split.json, which may call a case by its name or by one of its files."""
    if not path.exists():
        return {}
    aliases = {name: name for name in images}
    for paths in (images, labels):
        aliases.update({paths[name].name: name for name in images})
        aliases.update({case_stem(paths[name]): name for name in images})
    splits = {}
    unknown = []
    for split, listed in _split_lists(path).items():
        for entry in listed:
            name = aliases.get(str(entry))
            if name is None:
                unknown.append(str(entry))
            elif splits.setdefault(name, split) != split:
                raise InputError(f"{path}: expected {name} in one split, got {splits[name]} and {split}")
    if unknown:
        raise InputError(f"{path}: expected names of cases in its folder, got {_some(unknown)}")
    return splits


def _split_lists(path):
    lists = _read_json(path)
    if not set(lists) <= set(SPLITS) or not all(isinstance(v, list) for v in lists.values()):
        raise InputError(f"{path}: expected lists of names for {SPLITS}, got {_some(sorted(lists))}")
    return lists


def _split_in_name(name):
    return next((split for split in SPLITS if name.endswith(f"_{split}")), None)


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _label_values(path, array):
    """The label array as [Z, Y, X] unsigned integers."""
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(f"{path}: expected labels with 3 axes, got sizes {array.shape}")
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):  # NaN: not equal
        raise InputError(f"{path}: expected integer labels, got fractions or NaN ({array.dtype})")
    if not (array.min() >= 0 and array.max() < 2**63):
        raise InputError(f"{path}: expected labels in 0..2^63 - 1, got {array.min()} to {array.max()}")
    return array.astype(np.min_scalar_type(int(array.max())))


def _check_same_grid(files, image, labels, values):
    """Refuses labels that do not lie on the image; only NIfTI says where it lies and how its axes point."""
    names = f"{files.image} and {files.labels}"
    if image.array.shape[:3] != values.shape:
        raise InputError(f"{names}: expected one shape, got {image.array.shape[:3]} and {values.shape} (z, y, x)")
    if not np.allclose(image.spacing, labels.spacing, rtol=1e-3, atol=0):
        raise InputError(
            f"{names}: expected one spacing, got {image.spacing.tolist()} and {labels.spacing.tolist()} mm (z, y, x)"
        )
    if all(".nii" in volume_suffix(path) for path in (files.image, files.labels)):
        difference = (image.affine - labels.affine)[:3, :3] / image.spacing
        if np.abs(difference).max() > 1e-2:
            raise InputError(f"{names}: expected one orientation, got two (a flip or a rotation)")
        origins = image.affine[:3, 3], labels.affine[:3, 3]
        offset = np.linalg.solve(image.affine[:3, :3], origins[1] - origins[0])  # voxels along z, y, x
        if np.abs(offset).max() > 0.5:
            raise InputError(
                f"{names}: expected one origin, got {origins[0].tolist()} and {origins[1].tolist()} mm (x, y, z)"
            )


def _check_semantic_values(path, values, classes):
    if values.max() > len(classes):
        raise InputError(f"{path}: expected labels 0..{len(classes)} for the classes {classes}, got {values.max()}")


def _relabel(ids, values, min_voxels):
    """Numbers the objects of at least `min_voxels` voxels 1..N in ascending order of their id.

    Returns:
      [Z, Y, X] int32 new ids; and of each of the M objects in `ids`, in ascending order: [M] its id,
      [M] its value in `values`, [M] bool whether it is large enough.
    """
    inside = ids > 0
    old_ids, first, index, counts = np.unique(ids[inside], return_index=True, return_inverse=True, return_counts=True)
    kept = counts >= min_voxels
    new_ids = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    relabelled = np.zeros(ids.shape, np.int32)
    relabelled[inside] = new_ids[index]
    return relabelled, old_ids, values[inside][first], kept


def _classes_of_ids(path, ids, classes):
    """[N] int32 class ids of instance ids, from the JSON beside the label file."""
    json_path = path.with_name(f"{case_stem(path)}.json")
    if json_path.exists():
        table = _read_class_table(json_path, classes)
        missing = [str(i) for i in ids.tolist() if i not in table]
        if missing:
            raise InputError(
                f"{json_path}: expected a class for every id in {path.name}, got none for {_some(missing)}"
            )
        return np.array([table[i] for i in ids.tolist()], np.int32)
    if len(classes) != 1 and len(ids):
        raise InputError(
            f"{path}: expected {json_path.name} beside it, which tells the classes {classes} apart, got no such file"
        )
    return np.ones(len(ids), np.int32)


def _read_class_table(path, classes):
    """{instance id: class id} of a class file."""
    class_of = {name: i for i, name in enumerate(classes, start=1)}
    class_of.update({i: i for i in range(1, len(classes) + 1)})
    table = {}
    for key, value in _read_json(path).items():
        if not key.isdecimal():
            raise InputError(f"{path}: expected instance ids as keys, got {key!r}")
        if not isinstance(value, str | int) or isinstance(value, bool) or value not in class_of:
            raise InputError(
                f"{path}: id {key}: expected one of the classes {classes} or its number "
                f"1..{len(classes)}, got {value!r}"
            )
        table[int(key)] = class_of[value]
    return table
