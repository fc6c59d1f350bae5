"""The cases of a source, whatever it is: which there are, how large they are, and each of them read or drawn."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import headers, slabs, splits, synthetic
from data.cases import SPLITS, Case, CaseFiles, find_cases, load_case
from data.errors import InputError
from data.objects import unknown
from data.readers import Volume, spacing_affine


class Source(NamedTuple):
    """One case that can be loaded: its name, its split, and its files, or its number in a synthetic set."""

    name: str
    split: str
    files: CaseFiles | None
    index: int = 0


def find(data_config) -> list[Source]:
    """The cases of a config's source, by name within a folder.

    Raises:
      InputError: no such source, no cases in it, or files that do not fit together.
    """
    kind = synthetic.kind_of(data_config.source)
    found = _synthetic(kind, data_config) if kind else _folder(data_config)
    if not found:
        raise InputError(f"data.source {data_config.source}: expected at least one case, came none")
    return found


def sizes(found: list[Source], data_config) -> list[headers.Header]:
    """Size and spacing of the image of each case, from its header alone where the format has one.

    All volumes of a synthetic set, and all grids of hits, are like the first, which is drawn or read.
    """
    if found[0].files is None or data_config.labels == "hits":
        volume = load(found[0], data_config)[0].volume
        return [headers.of_array(volume.array, volume.spacing)] * len(found)
    return [_of_images(source.files.images) for source in found]


def load(source: Source, data_config) -> tuple[Case, dict[str, int]]:
    """A case in memory, and what was left out of it: {reason: number}; InputError as `data.cases.load_case`."""
    if source.files is None:
        return _draw(source, data_config)
    return load_case(
        source.files,
        labels=data_config.labels,
        classes=tuple(data_config.classes),
        min_voxels=data_config.min_voxels,
        attributes=tuple(data_config.attributes),
        keypoints=tuple(data_config.keypoints),
        box_unit=data_config.box_unit,
        part_longer_than=data_config.part_longer_than,
        hit_settings=data_config.hits,
    )


def _of_images(paths):
    parts = [headers.read_header(path) for path in paths]
    channels = sum(part.channels for part in parts)
    return parts[0]._replace(channels=channels, item_bytes=max(part.item_bytes for part in parts))


def _folder(data_config):
    found = find_cases(
        Path(data_config.source), labels=data_config.labels, channel_suffixes=tuple(data_config.channel_suffixes)
    )
    split_of = splits.assign(found, data_config) if found else {}
    return [Source(files.name, split_of[files.name], files) for files in found]


def _synthetic(kind, data_config):
    classes = synthetic.CLASSES[kind]
    if set(data_config.classes) != set(classes):
        raise InputError(
            f"data.classes: expected those of {data_config.source}, {classes}, came {tuple(data_config.classes)}"
        )
    settings = data_config.synthetic
    counts = zip(SPLITS, (settings.num_train, settings.num_val, settings.num_test), strict=True)
    drawn = [split for split, count in counts for _ in range(count)]
    return [Source(f"{kind}_{settings.seed}_{i:05d}", split, None, i) for i, split in enumerate(drawn)]


def _draw(source, data_config):
    """A case of the synthetic source, of which no landmarks are known, and what was left out."""
    kind = synthetic.kind_of(data_config.source)
    image, ids, class_ids, measured, spacing = synthetic.draw(kind, data_config.synthetic, source.index)
    kept = slabs.voxel_counts(ids, len(class_ids)) >= data_config.min_voxels
    ids = slabs.renumbered(ids, np.flatnonzero(kept) + 1)
    order = np.array([0] + [1 + list(data_config.classes).index(name) for name in synthetic.CLASSES[kind]], np.int32)
    class_ids = order[class_ids[kept]]
    values, points = unknown(len(class_ids), data_config.attributes, data_config.keypoints)
    dropped = {"below_min_voxels": int(np.sum(~kept))}
    for attribute, column in zip(synthetic.ATTRIBUTES[kind], measured[kept].T, strict=True):
        # One that the config does not name is not lost: the same settings and index draw it again.
        if attribute in data_config.attributes:
            values[:, list(data_config.attributes).index(attribute)] = column
    volume = Volume(image, spacing, spacing_affine(spacing))
    return Case(source.name, volume, ids, class_ids, values, points, data_config.source), dropped
