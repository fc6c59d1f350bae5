"""Folders of image and label files to training cases: a volume, its instances and what is known of them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import hits, layouts, objects
from data.channels import stack_channels
from data.errors import InputError
from data.objects import Names, Objects, file_stem, some
from data.readers import SUFFIXES, Volume, read_volume
from data.splits import SPLITS, read_split_file


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case.

    Attributes:
      name: the case's name.
      images: the image, a file or a folder; several where each holds some of its channels.
      labels: the label file; of a table of hits, the image too.
      split: one of SPLITS, or None where nothing says it.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path
    split: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One annotated volume.

    Attributes:
      name: the case's name.
      volume: the image.
      instance_ids: [Z, Y, X] integers, 0 background, 1..N the instances.
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


def find_cases(
    source: str | os.PathLike, *, labels: str = "instances", channel_suffixes: tuple[str, ...] = ()
) -> list[CaseFiles]:
    """Lists the cases of a folder, sorted by name.

    The folder holds either `images/` and `labels/` with equal names, or `<case>_image` beside
    `<case>_labels`; with channel suffixes, `images/<case><suffix>` or `<case>_image<suffix>`, or nothing but a folder
    for each case, with a file `...<suffix>` for each channel and one other, the labels. An image or a label volume is
    a file, a .zarr folder or a folder with a DICOM series; boxes are tables. Hit tables lie in the folder itself, and
    are image and labels in one.
    The split is that of `split.json` ({"train": [names], "val": [...]}), or else the `_train`, `_val` or `_test` at
    the end of the case's name, or else None.

    Args:
      source: the folder.
      labels: what the label files are, see `load_case`.
      channel_suffixes: in the order of the channels; none where an image is one file.

    Raises:
      InputError: no such folder, no volumes in it, an image or label file that has no partner, a channel
        that is missing, two files of one name, several that may be a case's labels, a format that is not read, or a
        split of cases that are not there.
    """
    cases, problems = survey(source, labels=labels, channel_suffixes=channel_suffixes)
    if problems:
        raise InputError(problems[0])
    return cases


def survey(
    source: str | os.PathLike, *, labels: str, channel_suffixes: tuple[str, ...]
) -> tuple[list[CaseFiles], list[str]]:
    """The cases whose files are all there, as `find_cases`, and one line about each kind of file that is not.

    Where each case has a folder, there is a line about each folder whose files do not fit.
    """
    source, suffixes = Path(source), channel_suffixes or ("",)
    if labels == "hits":
        found = layouts.unique((file_stem(path), path) for path in hits.tables(layouts.existing(source)))
        images, label_files = {name: {"": path} for name, path in found.items()}, found
    elif (source / "images").is_dir():
        images, label_files = layouts.in_two_folders(source, labels, suffixes)
    elif channel_suffixes and (folders := layouts.case_folders(source, suffixes)):
        return _of_folders(source, folders, labels, suffixes)
    else:
        images, label_files = layouts.side_by_side(source, labels, suffixes)
    if not images and not label_files:
        raise InputError(_nothing(source, labels))
    paths = {name: tuple(parts[suffix] for suffix in suffixes if suffix in parts) for name, parts in images.items()}
    splits = read_split_file(source / "split.json", paths, label_files)
    cases = [
        CaseFiles(name, paths[name], label_files[name], splits.get(name, _split_in_name(name)))
        for name in sorted(paths.keys() & label_files)
        if len(paths[name]) == len(suffixes)
    ]
    return cases, [*_lonely(source, paths, label_files), *_missing_channels(source, images, suffixes)]


def read_case(
    files: CaseFiles,
    *,
    labels: str,
    names: Names,
    box_unit: str = "voxels",
    part_longer_than: float = 0.0,
    hit_settings=None,
    lazy: bool = False,
) -> tuple[Volume, Objects]:
    """The image of a case and the objects of its label file, whatever their size; see `load_case`."""
    if labels == "hits":
        return hits.read(files.labels, hit_settings, names)
    volume = _read_image(files.images, lazy)
    if labels == "instances":
        return volume, objects.from_instances(files.labels, files.images[0], volume, names)
    if labels == "semantic":
        return volume, objects.from_semantic(files.labels, files.images[0], volume, names, part_longer_than)
    if labels == "boxes":
        return volume, objects.from_boxes(files.labels, volume, names, box_unit)
    if labels == "dicom_seg":
        return volume, objects.from_dicom_seg(files.labels, volume, names)
    raise ValueError(f"labels must be instances, semantic, boxes, dicom_seg or hits, got {labels!r}")


def load_case(
    files: CaseFiles,
    *,
    labels: str,
    classes: tuple[str, ...],
    min_voxels: int,
    attributes: tuple[str, ...] = (),
    keypoints: tuple[str, ...] = (),
    box_unit: str = "voxels",
    part_longer_than: float = 0.0,
    hit_settings=None,
    lazy: bool = False,
) -> tuple[Case, dict[str, int | float]]:
    """Reads a case and makes its instances.

    Args:
      files: from `find_cases`.
      labels: "instances": each id is an object, whose class, attributes and landmarks `<label stem>.json`
        beside the label file tells (see data/instance_table.py), or which is of the only class where there
        is no such file. "semantic": value v is class v, and its 26-connected components are the objects.
        "boxes": a table, see data/box_table.py. "dicom_seg": segments, whose class is their label where there
        are several classes and no JSON. "hits": a table that is the image too, see data/hits.py.
      classes: the K class names; class id 1 is the first.
      min_voxels: smaller objects become background.
      attributes: names of what the JSON tells of an object beside its class; NaN where it does not.
      keypoints: names of landmarks, likewise.
      box_unit: of boxes: "voxels" or "mm".
      part_longer_than: mm; components of semantic labels that are longer are parted, see data/parting.py; 0: none.
      hit_settings: of hits: configs.hits_schema.Hits.
      lazy: leave the voxels of the image on disk where its format can, see data/readers.py.

    Returns:
      The case, with instances in ascending order of their number in the file; no objects is valid. And
      what was left out, {reason: number}: "below_min_voxels" objects; where there are any, "without a voxel"
      objects (others hide them), "voxels hidden" (of boxes and segments, by smaller ones), "boxes clipped", "hits
      outside the grid" and "energy outside the grid"; and "attribute <name> unlisted" or "keypoint <name> unlisted"
      objects of which the JSON tells more than was asked for.

    Raises:
      InputError: a file that cannot be read, labels on another grid than the image (a GridError), labels that are
        not integers from 0, or ids and classes that do not fit together.
    """
    volume, found = read_case(
        files,
        labels=labels,
        names=Names(classes, attributes, keypoints),
        box_unit=box_unit,
        part_longer_than=part_longer_than,
        hit_settings=hit_settings,
        lazy=lazy,
    )
    ids, _, *known, left_out = objects.kept(found, min_voxels)
    return Case(files.name, volume, ids, *known, str(files.images[0])), left_out


def _read_image(paths, lazy):
    if len(paths) == 1:
        return read_volume(paths[0], lazy=lazy)
    return stack_channels({str(path): read_volume(path, lazy=lazy) for path in paths})


def _of_folders(source, folders, labels, suffixes):
    """`survey` of a folder for each case, whose name is the case's: files of equal names lie in all of them."""
    splits = read_split_file(source / "split.json", {folder.name: () for folder in folders}, {})
    cases, problems = [], []
    for folder in folders:
        try:
            images, label_file = layouts.in_case_folder(folder, labels, suffixes)
        except InputError as error:
            problems.append(str(error))
            continue
        split = splits.get(folder.name, _split_in_name(folder.name))
        cases.append(CaseFiles(folder.name, images, label_file, split))
    return cases, problems


def _nothing(source, labels):
    if labels == "hits":
        return f"{source}: expected tables of hits ({', '.join(hits.SUFFIXES)}), got none"
    return (
        f"{source}: expected images/ and labels/, or files <case>_image and <case>_labels ({', '.join(SUFFIXES)}), "
        "or with data.channel_suffixes a folder for each case, got no volumes"
    )


def _lonely(source, images, labels):
    """A line about images without labels and one about labels without an image, where there are any."""
    lines = []
    images = {name: paths[0] for name, paths in images.items()}
    for kind, ours, other, theirs in (("label file", images, "image", labels), ("image", labels, "label file", images)):
        alone = [ours[name].name for name in sorted(ours.keys() - theirs.keys())]
        if alone:
            lines.append(f"{source}: expected one {kind} for every {other}, got none for {some(alone)}")
    return lines


def _missing_channels(source, images, suffixes):
    missing = [f"{name}{suffix}" for name in sorted(images) for suffix in suffixes if suffix not in images[name]]
    wanted = f"{source}: expected the channels {', '.join(suffixes)} of every case"
    return [f"{wanted}, got none for {some(missing)}"] if missing else []


def _split_in_name(name):
    return next((split for split in SPLITS if name.endswith(f"_{split}")), None)
