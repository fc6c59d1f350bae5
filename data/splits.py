"""Which case is for training, validation or test: as stated, or drawn by group, in folds, alike in classes."""

import csv
import hashlib
import math
from pathlib import Path

import numpy as np

from data import box_table, hits, instance_table, objects, slabs
from data.components import SlabComponents
from data.errors import InputError
from data.formats import dicom_seg
from data.objects import Names, file_stem, some
from data.readers import read_volume

SPLITS = ("train", "val", "test")


def assign(cases, data_config, count=None) -> dict[str, str]:
    """The split of every case.

    What is stated comes first: `CaseFiles.split`, or the split of the case's group in `data.groups`. With
    `data.folds` a stated test stays test, fold `data.fold` of all others is val, and the rest is train, whatever else
    is stated of them. Without, the others are drawn in numbers as near to `data.split_fractions` as their groups allow.
    The draw depends on `data.split_seed`, names and objects alone, so that it is the same on every machine.

    Args:
      cases: CaseFiles, as of `data.cases.find_cases`.
      data_config: the `data` section of a Config.
      count: function of CaseFiles and `data_config` to [K] objects of each class, called if `data.stratify` is set, of
        cases that are drawn; None: `class_counts`.

    Returns:
      {case name: "train", "val" or "test"}.

    Raises:
      InputError: `data.groups` does not name every case once, knows other cases, or a group is stated to be in two
        splits; fewer groups than folds; or a label file that cannot be read.
    """
    groups, given = _read_groups(data_config.groups, [files.name for files in cases])
    stated = _stated(cases, groups, given, data_config)
    drawn = [files for files in cases if groups[files.name] not in stated]
    members = {}
    for files in drawn:
        members.setdefault(groups[files.name], []).append(files)
    order = sorted(members, key=lambda group: _lot(data_config.split_seed, group))
    table = np.zeros((len(order), len(data_config.classes)))
    if data_config.stratify:
        for row, group in enumerate(order):
            table[row] = sum((count or class_counts)(files, data_config) for files in members[group])
    sizes = np.array([len(members[group]) for group in order], int)
    if data_config.folds:
        splits = _fold_splits(sizes, table, data_config)
    else:
        splits = [SPLITS[i] for i in distribute(sizes, table, data_config.split_fractions)]
    stated.update(zip(order, splits, strict=True))
    return {files.name: stated[groups[files.name]] for files in cases}


def distribute(sizes: np.ndarray, counts: np.ndarray, fractions) -> np.ndarray:
    """Spreads groups over subsets with like shares of every class.

    Iterative stratification (K. Sechidis, G. Tsoumakas, I. Vlahavas: "On the Stratification of Multi-Label Data",
    ECML 2011), greedily: the groups of the class that the fewest of those left hold are next, and go where most of
    that class is still missing. Here a group counts with its objects, the number of cases of a subset is a limit, and
    large groups go first.

    Args:
      sizes: [G] ints, cases of each group, in the order that ties are broken by.
      counts: [G, K] objects of each class; all 0 spreads the cases alone.
      fractions: [S] shares of the subsets, which add up to 1.

    Returns:
      [G] ints in 0..S - 1. Without groups of several cases, subsets have the number of cases nearest to their shares.
    """
    # The number of cases is one more class, which every group holds: it is the last one's turn.
    counts = np.column_stack([counts, sizes])
    missing = np.outer(fractions, counts.sum(axis=0))  # [S, K + 1]
    missing[:, -1] = _whole_shares(int(sizes.sum()), np.asarray(fractions))
    subsets = np.full(len(sizes), -1)
    while np.any(subsets < 0):
        holds = (subsets < 0)[:, np.newaxis] & (counts > 0)
        holders = holds.sum(axis=0)
        rarest = np.argmin(np.where(holders > 0, holders, len(sizes) + 1))
        members = np.flatnonzero(holds[:, rarest])
        for group in members[np.argsort(-sizes[members], kind="stable")]:
            best = _place(missing[:, rarest], missing[:, -1], sizes[group])
            subsets[group] = best
            missing[best] -= counts[group]
    return subsets


def class_counts(files, data_config) -> np.ndarray:
    """How many objects of each class [K] a case has, from its labels alone.

    The JSON beside labels, a table of boxes and the header of a DICOM segmentation tell it at once; other label
    volumes are read, slab by slab where their format can (see `data.readers.read_volume`), and so are tables of hits.
    """
    path, names = files.labels, Names(tuple(data_config.classes))
    json_path = path.with_name(f"{file_stem(path)}.json")
    if data_config.labels == "boxes":
        class_ids = box_table.read_class_ids(path, names.classes)
    elif data_config.labels == "semantic":
        class_ids = _classes_of_components(path, names, data_config)
    elif json_path.exists():
        class_ids = [class_id for class_id, *_ in instance_table.read(json_path, *names)[0].values()]
    elif data_config.labels == "hits":
        class_ids = hits.read(path, data_config.hits, names)[1].class_ids
    elif data_config.labels == "dicom_seg":
        labels = dicom_seg.read_labels(path)
        known = objects.segment_classes(labels, names)
        class_ids = objects.described(path, np.array(sorted(labels), np.int64), names, known)[0]
    else:
        numbers, _ = slabs.present(_label_slabs(path, data_config))
        class_ids = objects.described(path, numbers, names)[0]
    return np.bincount(class_ids, minlength=len(names.classes) + 1)[1:]


def _classes_of_components(path, names, data_config):
    found = SlabComponents()
    for values in _label_slabs(path, data_config):
        objects.check_classes(path, values, names.classes)
        found.add(values)
    return found.finish()[1]


def _label_slabs(path, data_config):
    """Yields a volume of labels in slabs of no more voxels than a chunk."""
    array = read_volume(path, lazy=True).array
    objects.check_axes(path, array.shape)
    for part in slabs.of_shape(array.shape, math.prod(data_config.chunk_size)):
        yield objects.label_values(path, array[part])


def read_split_file(path: Path, images: dict[str, tuple[Path, ...]], labels: dict[str, Path]) -> dict[str, str]:
    """{case name: split} of split.json, {"train": [...], "val": [...]}; empty where there is no such file.

    Args:
      path: of split.json.
      images: {case name: its image files}, by any of which, with or without their format, the file may call a case.
      labels: {case name: its label file}, likewise.

    Raises:
      InputError: other splits than SPLITS, names of no case, or a case in two splits.
    """
    if not path.exists():
        return {}
    aliases = {name: name for name in images}
    for name, files in [*images.items(), *((name, (file,)) for name, file in labels.items())]:
        aliases.update({alias: name for file in files for alias in (file.name, file_stem(file))})
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
        raise InputError(f"{path}: expected names of cases in its folder, got {some(unknown)}")
    return splits


def _split_lists(path):
    lists = instance_table.read_json(path)
    if not set(lists) <= set(SPLITS) or not all(isinstance(v, list) for v in lists.values()):
        raise InputError(f"{path}: expected lists of names for {SPLITS}, got {some(sorted(lists))}")
    return lists


def _read_groups(path, names):
    """{case: group} and {group: split} of a CSV file; without one every case is a group."""
    if not path:
        return {name: name for name in names}, {}
    groups, given = {}, {}
    for line, row in enumerate(_group_rows(path), start=2):
        case, group, split = (row.get(column, "").strip() for column in ("case", "group", "split"))
        if not case or not group:
            raise InputError(f"{path}: line {line}: expected a case and its group, got {case!r} and {group!r}")
        if split not in ("", *SPLITS):
            raise InputError(f"{path}: line {line}: expected a split of {', '.join(SPLITS)} or nothing, got {split!r}")
        if groups.setdefault(case, group) != group:
            raise InputError(f"{path}: line {line}: expected {case} in one group, got {groups[case]} and {group}")
        if split and given.setdefault(group, split) != split:
            raise InputError(
                f"{path}: line {line}: expected group {group} in one split, got {given[group]} and {split}"
            )
    if unknown := sorted(groups.keys() - set(names)):
        raise InputError(f"{path}: expected names of cases, got {some(unknown)}, which the source does not have")
    if missing := sorted(set(names) - groups.keys()):
        raise InputError(f"{path}: expected a group for every case, got none for {some(missing)}")
    return groups, given


def _group_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"data.groups {path}: cannot be read as CSV: {error}") from error
    if not {"case", "group"} <= set(columns) <= {"case", "group", "split"}:
        raise InputError(f"{path}: expected the columns case,group or case,group,split, got {','.join(columns)}")
    for line, row in enumerate(rows, start=2):
        if None in row:
            raise InputError(f"{path}: line {line}: expected {len(columns)} cells, got more")
    return rows


def _stated(cases, groups, given, data_config):
    """{group: split} of those that are not drawn."""
    counts = ("test",) if data_config.folds else SPLITS
    stated = {group: split for group, split in given.items() if split in counts}
    for files in cases:
        group = groups[files.name]
        if files.split in counts and stated.setdefault(group, files.split) != files.split:
            raise InputError(
                f"{data_config.groups}: expected group {group} in one split, got {stated[group]}, and {files.split} "
                f"for case {files.name}"
            )
    return stated


def _fold_splits(sizes, table, data_config):
    if len(sizes) < data_config.folds:
        raise InputError(f"data.folds: expected at most {len(sizes)}, one group or case each, got {data_config.folds}")
    folds = distribute(sizes, table, np.full(data_config.folds, 1 / data_config.folds))
    return ["val" if fold == data_config.fold else "train" for fold in folds]


def _place(wanted, room, size):
    """The subset with room for a group that wants it most; then the one with most room; then the first."""
    fits = room >= size
    candidates = np.flatnonzero(fits if fits.any() else room == room.max())
    return candidates[np.lexsort((-room[candidates], -wanted[candidates]))[0]]


def _whole_shares(count, fractions):
    """[S] whole numbers that add up to `count`, as near to their shares of it as can be."""
    shares = fractions * count
    numbers = np.floor(shares + 1e-9).astype(int)
    for subset in np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]:
        numbers[subset] += 1
    return numbers


def _lot(seed, name):
    """What names are drawn by: unlike random streams, the same with every version of NumPy."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
