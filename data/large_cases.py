"""Cases larger than a chunk, made ready to be cut: their objects, statistics and voxels, one slab at a time.

What a case becomes lies in a folder of its own until the conversion ends: `ids.npy` [Z, Y, X] with ids 1..N on the grid
of the records, `image.npy` where the source cannot be read by regions or is resampled, and `case.npz`, written last,
with all else. Memory is that of a chunk where image and labels can be read by regions (see `data.readers.read_volume`)
and the labels are instances or semantic; a case of another kind is held in memory once.
"""

import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from data import objects, resample, slabs, sources
from data.atomic import replacing
from data.cases import Case
from data.channels import stack_channels
from data.components import SlabComponents
from data.lazy import LazyArray
from data.readers import Volume, read_volume
from data.statistics import Statistics

_DONE = "case.npz"


def prepare(source: sources.Source, folder: Path, data_config) -> None:
    """Fills a case's folder; nothing happens where that has been done.

    Args:
      source: the case.
      folder: its own; may hold what a killed conversion left.
      data_config: the `data` section of a Config.

    Raises:
      InputError: the case cannot be read or does not fit the config.
    """
    if (folder / _DONE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    slab_voxels = math.prod(data_config.chunk_size)
    volume, labels = _on_disk(source, data_config)
    if labels is None:
        case, left_out = sources.load(source, data_config)
    else:
        case, left_out = _numbered(source, volume, labels, folder, slab_voxels, data_config)
    if data_config.target_spacing:
        case, vanished = _resampled(case, folder, slab_voxels, data_config)
        left_out = {**left_out, **vanished}
    else:
        if not isinstance(case.volume.array, LazyArray):
            _write_npy(folder / "image.npy", case.volume.array, lambda part: case.volume.array[part], slab_voxels)
        if not isinstance(case.instance_ids, LazyArray):
            ids = case.instance_ids.astype(np.min_scalar_type(len(case.class_ids)))
            _write_npy(folder / "ids.npy", ids, lambda part: ids[part], slab_voxels)
    _write_case(folder, case, left_out, slab_voxels)


def read(source: sources.Source, folder: Path) -> tuple[Case, dict[str, int], np.ndarray]:
    """A prepared case, whose arrays stay on disk; what was left out of it; its [C, S] float32 statistics."""
    with np.load(folder / _DONE, allow_pickle=False) as stored:
        known = {name: stored[name] for name in stored.files}
    image = folder / "image.npy"
    array = read_volume(image, lazy=True).array if image.exists() else _image(source.files).array
    case = Case(
        source.name,
        Volume(array, known["spacing"], known["affine"]),
        read_volume(folder / "ids.npy", lazy=True).array,
        *(known[name] for name in ("class_ids", "attributes", "keypoints")),
        str(known["source"]),
    )
    return case, json.loads(str(known["left_out"])), known["intensity"]


def _on_disk(source, data_config):
    """Image and label volume of a case that can be read by regions; (None, None) of others, and to part objects."""
    if source.files is None or data_config.labels not in ("instances", "semantic") or data_config.part_longer_than:
        return None, None
    volume, labels = _image(source.files), read_volume(source.files.labels, lazy=True)
    if isinstance(volume.array, LazyArray) and isinstance(labels.array, LazyArray):
        return volume, labels
    return None, None


def _image(files):
    volumes = {str(path): read_volume(path, lazy=True) for path in files.images}
    return stack_channels(volumes) if len(volumes) > 1 else volumes[str(files.images[0])]


def _numbered(source, volume, labels, folder, slab_voxels, data_config):
    """The case with its ids in ids.npy, numbered as `data.cases.load_case` does, and what was left out."""
    path, names = source.files.labels, objects.Names(*map(tuple, _names(data_config)))
    objects.check_axes(path, labels.array.shape)
    shape = labels.array.shape[:3]
    objects.check_same_grid(source.files.images[0], path, volume, labels, shape)
    read_slab = functools.partial(_label_slab, path, labels.array)
    if data_config.labels == "semantic":
        ids, numbers, sizes, values = _components(read_slab, shape, folder, slab_voxels, path, names)
        known = values.astype(np.int32), *objects.unknown(len(numbers), names.attributes, names.keypoints)
        left_out = {}
    else:
        ids, (numbers, sizes) = read_slab, slabs.present(map(read_slab, slabs.of_shape(shape, slab_voxels)))
        *known, left_out = objects.described(path, numbers, names)
    stays = sizes >= data_config.min_voxels
    kept_numbers, known = numbers[stays], [values[stays] for values in known]
    dtype = np.min_scalar_type(len(kept_numbers))
    like = np.broadcast_to(dtype.type(0), shape)
    _write_npy(folder / "ids.npy", like, lambda part: slabs.renumbered(ids(part), kept_numbers), slab_voxels)
    (folder / "components.npy").unlink(missing_ok=True)
    stored = read_volume(folder / "ids.npy", lazy=True).array
    case = Case(source.name, volume, stored, *known, str(source.files.images[0]))
    return case, {"below_min_voxels": int(np.sum(~stays)), **left_out}


def _names(data_config):
    return data_config.classes, data_config.attributes, data_config.keypoints


def _label_slab(path, array, part):
    """A slab of labels, checked."""
    return objects.label_values(path, array[part])


def _components(read_slab, shape, folder, slab_voxels, path, names):
    """Function that reads a slab of components 1..M, and their numbers, voxels and classes."""
    found = SlabComponents()

    def label(part):
        values = read_slab(part)
        objects.check_classes(path, values, names.classes)
        return found.add(values)

    provisional = folder / "components.npy"
    _write_npy(provisional, np.broadcast_to(np.uint32(0), shape), label, slab_voxels)
    table, values, sizes = found.finish()
    stored = read_volume(provisional, lazy=True).array
    return lambda part: table[stored[part]], np.arange(1, len(values) + 1), sizes, values


def _resampled(case, folder, slab_voxels, data_config):
    """The case on the grid of data.target_spacing, its voxels in image.npy and ids.npy; and what vanished."""
    spacing, target = case.volume.spacing, data_config.target_spacing
    image, ids = case.volume.array, case.instance_ids
    shape = resample.new_shape(image.shape, spacing, target)

    def ids_at(part):
        return resample.labels_region(ids, spacing, target, part)

    count = len(case.class_ids)
    counts = sum(slabs.voxel_counts(ids_at(part), count) for part in slabs.of_shape(shape, slab_voxels))
    case, table, vanished = resample.without_vanished(case, counts, target)
    table = table.astype(np.min_scalar_type(len(case.class_ids)))
    # Written beside and moved into place: the ids on the old grid are read until then.
    with replacing(folder / "ids.npy") as path:
        _write_npy(path, np.broadcast_to(table[0], shape), lambda part: table[ids_at(part)], slab_voxels)

    def image_at(part):
        return resample.image_region(image, spacing, target, part, data_config.image_interpolation)

    like = np.broadcast_to(np.zeros(1, image.dtype)[0], (*shape, *image.shape[3:]))
    _write_npy(folder / "image.npy", like, image_at, slab_voxels)
    volume = replace(case.volume, array=read_volume(folder / "image.npy", lazy=True).array)
    return replace(case, volume=volume), vanished


def _write_case(folder, case, left_out, slab_voxels):
    array = case.volume.array
    statistics = Statistics(array.shape)
    for part in slabs.of_shape(array.shape, slab_voxels):
        statistics.add(array[part])
    with replacing(folder / _DONE) as path, path.open("wb") as stream:
        np.savez(
            stream,
            spacing=case.volume.spacing,
            affine=case.volume.affine,
            class_ids=case.class_ids,
            attributes=case.attributes,
            keypoints=case.keypoints,
            source=case.source,
            left_out=json.dumps(left_out),
            intensity=statistics.result(),
        )


def _write_npy(path, like, read, slab_voxels):
    """Writes an array of the shape and dtype of `like` whose slabs `read(region)` gives; zeros take no room on disk."""
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": like.shape}
        )
        for part in slabs.of_shape(like.shape, slab_voxels):
            slab = np.ascontiguousarray(read(part), like.dtype)
            if slab.any():
                stream.write(slab.data)
            else:
                stream.seek(slab.nbytes, 1)
        stream.truncate()
