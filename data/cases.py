"""Folders of image and label files to training cases: a volume, its instances and what is known of them."""

import os
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np

from data import instance_table
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
      attributes: [N, T] float32, NaN where unknown; T may be 0.
      keypoints: [N, L, 3] float32, landmarks in voxels, NaN where unknown; L may be 0.
      source: where it came from.
    """

    name: str
    volume: Volume
    instance_ids: np.ndarray
    class_ids: np.ndarray
    attributes: np.ndarray
    keypoints: np.ndarray
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
    files: CaseFiles,
    *,
    labels: str,
    classes: tuple[str, ...],
    min_voxels: int,
    attributes: tuple[str, ...] = (),
    keypoints: tuple[str, ...] = (),
) -> tuple[Case, dict[str, int]]:
    """Reads a case and makes its instances.

    Args:
      files: from `find_cases`.
      labels: "instances": each id is an object, whose class, attributes and landmarks `<label stem>.json`
        beside the label file tells (see data/instance_table.py), or which is of the only class where there
        is no such file. "semantic": value v is class v, and its 26-connected components are the objects.
      classes: the K class names; class id 1 is the first.
      min_voxels: smaller objects become background.
      attributes: names of what the JSON tells of an object beside its class; NaN where it does not.
      keypoints: names of landmarks, likewise.

    Returns:
      The case, with instances in ascending order of their id in the file; no objects is valid. And
      what was left out: {"below_min_voxels": number of objects}, and "attribute <name> unlisted" or
      "keypoint <name> unlisted": number of objects of which the JSON tells more than was asked for.

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
        class_ids, unlisted = first_values.astype(np.int32), {}
        values, points = unknown(len(old_ids), attributes, keypoints)
    else:
        class_ids, values, points, unlisted = _described(files.labels, old_ids, classes, attributes, keypoints)
    case = Case(files.name, volume, instance_ids, class_ids[kept], values[kept], points[kept], str(files.image))
    left_out = {f"{name} unlisted": number for name, number in unlisted.items()}
    return case, {"below_min_voxels": int(np.sum(~kept)), **left_out}


def unknown(
    num_instances: int, attributes: tuple[str, ...], keypoints: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """[N, T] float32 attributes and [N, L, 3] float32 landmarks of which nothing is known."""
    shapes = (num_instances, len(attributes)), (num_instances, len(keypoints), 3)
    return tuple(np.full(shape, np.nan, np.float32) for shape in shapes)


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
    lists = instance_table.read_json(path)
    if not set(lists) <= set(SPLITS) or not all(isinstance(v, list) for v in lists.values()):
        raise InputError(f"{path}: expected lists of names for {SPLITS}, got {_some(sorted(lists))}")
    return lists


def _split_in_name(name):
    return next((split for split in SPLITS if name.endswith(f"_{split}")), None)


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


def _described(path, ids, classes, attributes, keypoints):
    """Class ids [N], attributes [N, T] and landmarks [N, L, 3] of instance ids, and what else the JSON tells."""
    json_path = path.with_name(f"{case_stem(path)}.json")
    if json_path.exists():
        table, unlisted = instance_table.read(json_path, classes, attributes, keypoints)
        missing = [str(i) for i in ids.tolist() if i not in table]
        if missing:
            raise InputError(
                f"{json_path}: expected a class for every id in {path.name}, got none for {_some(missing)}"
            )
        rows = [table[i] for i in ids.tolist()]
        values, points = unknown(len(ids), attributes, keypoints)
        for row, (_, numbers, places) in enumerate(rows):
            values[row], points[row] = numbers, np.reshape(places, (-1, 3))
        return np.array([class_id for class_id, *_ in rows], np.int32), values, points, unlisted
    if len(classes) != 1 and len(ids):
        raise InputError(
            f"{path}: expected {json_path.name} beside it, which tells the classes {classes} apart, got no such file"
        )
    return np.ones(len(ids), np.int32), *unknown(len(ids), attributes, keypoints), {}
