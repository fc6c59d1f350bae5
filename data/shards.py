"""Which chunk of which case goes into which shard, decided beforehand, and the writing of one shard.

The plan depends on the headers of the volumes and on the settings alone, and a shard on its own part of the plan: so
shards are equal to the byte whoever writes them, in which order, on however many machines.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import chunks, large_cases, records, resample, sources, statistics
from data.atomic import replacing
from data.cases import SPLITS
from data.errors import InputError

SCRATCH = ".prepared"  # the folder of cases that are made ready to be cut, within the output
_BYTES_OF_IDS = 1 / 16  # per voxel, compressed: a guess


class Piece(NamedTuple):
    """Chunks `first` to `last` (exclusive) out of `count` of one case."""

    source: sources.Source
    first: int
    last: int
    count: int


class Shard(NamedTuple):
    """A file and what belongs into it."""

    file: str
    pieces: tuple[Piece, ...]


def plan(found, data_config, patch_size) -> list[Shard]:
    """Deals the cases out in order; a shard is closed when it has data.shard_megabytes, or so it seems from headers.

    Args:
      found: list of data.sources.Source.
      data_config: the `data` section of a Config.
      patch_size: [3] voxels of training patches; None where no case is to be cut.

    Raises:
      InputError: a header that cannot be read, a case with other channels than the first, or a case larger than
        data.chunk_size while patch_size is None.
    """
    listed = {split: [] for split in SPLITS}
    sizes = sources.sizes(found, data_config)
    for source, header in zip(found, sizes, strict=True):
        if header.channels != sizes[0].channels:
            raise InputError(
                f"case {source.name}: expected {sizes[0].channels} channel(s) as in case {found[0].name}, "
                f"came {header.channels}"
            )
        listed[source.split] += _sized_chunks(source, header, data_config, patch_size)
    shards = []
    for split, sized in listed.items():
        groups = _filled(sized, data_config.shard_megabytes * 10**6)
        for number, group in enumerate(groups):
            file = f"{split}-{number:05d}-of-{len(groups):05d}.tfrecord"
            shards.append(Shard(file, _pieces(group)))
    return shards


def large(shards) -> list[sources.Source]:
    """The cases of a plan that have several chunks, each once."""
    found = {piece.source.name: piece.source for shard in shards for piece in shard.pieces if piece.count > 1}
    return list(found.values())


def prepare(source, folder: Path, data_config) -> None:
    """Makes one of the `large` cases ready to be cut; see data/large_cases.py."""
    large_cases.prepare(source, _scratch(folder, source), data_config)


def write(shard: Shard, folder: Path, data_config, patch_size) -> None:
    """Writes a shard and then, beside it, its index; a shard that has one is left as it is."""
    path = index_path(folder, shard.file)
    if path.exists():
        return
    cases = []
    entry = records.write_shard(
        folder / shard.file,
        _chunks(shard, folder, data_config, patch_size, cases),
        data_config.classes,
    )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**entry, "cases": cases}) + "\n", encoding="utf-8")


def index_path(folder: Path, file: str) -> Path:
    """Where the index of a shard lies."""
    return folder / f"{file}.index.json"


def read_index(folder: Path, file: str) -> dict:
    """What `records.write_shard` returned of a shard, and `cases`: what `describe` says of those that begin in it."""
    return json.loads(index_path(folder, file).read_text(encoding="utf-8"))


def describe(case, left_out, intensity, count) -> dict:
    """What the manifest needs to know of a case; JSON-ready."""
    array = case.volume.array
    return {
        "name": case.name,
        "source": case.source,
        "shape": list(array.shape[:3]),
        "spacing": [float(value) for value in case.volume.spacing],
        "chunks": count,
        "class_ids": case.class_ids.tolist(),
        "left_out": left_out,
        "unknown_attributes": np.isnan(case.attributes).sum(axis=0).tolist(),
        "unknown_keypoints": np.isnan(case.keypoints).any(axis=-1).sum(axis=0).tolist(),
        "intensity": intensity.tolist(),
    }


def _chunks(shard, folder, data_config, patch_size, cases):
    """Yields the chunks of a shard, and appends to `cases` what is to be known of those that begin in it."""
    for source, first, last, count in shard.pieces:
        if count == 1:
            case, left_out = sources.load(source, data_config)
            case, vanished = resample.whole_case(case, data_config.target_spacing, data_config.image_interpolation)
            left_out = {**left_out, **vanished}
            intensity = statistics.of_array(case.volume.array)
        else:
            case, left_out, intensity = large_cases.read(source, _scratch(folder, source))
        regions = _regions(case.volume.array.shape[:3], data_config, patch_size)
        if len(regions) != count:
            shape = case.volume.array.shape
            raise InputError(f"case {source.name}: expected the {count} chunk(s) of its header, came the shape {shape}")
        if first == 0:
            cases.append(describe(case, left_out, intensity, count))
        if count == 1:
            yield chunks.whole(case, intensity)
        else:
            for number in range(first, last):
                yield chunks.cut(case, regions[number], number, count, intensity)


def _sized_chunks(source, header, data_config, patch_size):
    """(source, number, count, bytes) of each chunk."""
    shape = header.shape
    if data_config.target_spacing:
        shape = resample.new_shape(shape, header.spacing, data_config.target_spacing)
    regions = _regions(shape, data_config, patch_size)
    if len(regions) > 1 and patch_size is None:
        raise InputError(f"case {source.name}: expected a patch size to cut it by, as it is {shape}; came none")
    per_voxel = header.channels * header.item_bytes + _BYTES_OF_IDS
    sizes = [per_voxel * math.prod(part.stop - part.start for part in region) for region in regions]
    return [(source, number, len(regions), size) for number, size in enumerate(sizes)]


def _regions(shape, data_config, patch_size):
    overlap = [size - 1 for size in patch_size or (1, 1, 1)]
    return chunks.regions(shape, data_config.chunk_size, overlap)


def _filled(sized, limit):
    """Consecutive groups, each as soon as it has the limit."""
    groups, filled = [], limit
    for item in sized:
        if filled >= limit:
            groups.append([])
            filled = 0
        groups[-1].append(item)
        filled += item[-1]
    return groups


def _pieces(group):
    pieces = []
    for source, number, count, _ in group:
        if pieces and pieces[-1].source == source:
            pieces[-1] = pieces[-1]._replace(last=number + 1)
        else:
            pieces.append(Piece(source, number, number + 1, count))
    return tuple(pieces)


def _scratch(folder, source):
    return folder / SCRATCH / source.name
