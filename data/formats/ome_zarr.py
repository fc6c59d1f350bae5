"""OME-Zarr: NGFF 0.4 (zarr v2) and 0.5 (zarr v3) folders, read region by region (https://ngff.openmicroscopy.org)."""

import functools
import json
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.formats import geometry
from data.lazy import LazyArray, check_memory

_MARKS = (".zgroup", ".zattrs", ".zarray", "zarr.json")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array, whatever its name."""
    return any((folder / mark).is_file() for mark in _MARKS)


def read(path):
    """The finest level of the multiscale image in a group, or in its only image "0" as bioformats2raw lays it out.

    `<image>/labels/<name>` is such a group too: give its path. The axes are named z, y, x and, of size 1 but for at
    most one of them, c and t. Scales and translations give spacing and place; lengths without a unit are mm. A chunk
    that is not on disk has the fill value: the format cannot tell it from a lost one.

    Tensorstore has threads, so that a process forked from one that has read a store dies when it reads one itself:
    start worker processes with "spawn".

    Raises:
      InputError: no such group, another version, other axes, or a transformation other than scale and translation.
    """
    group, image = _multiscales(path)
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]  # 0.3 has names alone.
    dataset = image["datasets"][0]
    folder = _inside(path, group, dataset["path"])
    store = _open(folder)
    check_memory(path, store.chunk_layout.read_chunk.shape, store.dtype.numpy_dtype)
    kept = _kept_axes(path, "".join(axis["name"] for axis in axes), store.shape)
    shape = tuple(store.shape[axis] for axis in kept)
    dtype = store.dtype.numpy_dtype.newbyteorder("=")
    array = LazyArray(path, shape, dtype, functools.partial(_read_region, folder, kept))
    spacing, corner = _grid(path, axes, [dataset, image], kept[:3])
    return array, spacing, geometry.spacing_affine(spacing, corner[::-1])


def _multiscales(path):
    """The group that is an image, and its multiscales entry."""
    attributes = _attributes(path)
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes:
        images = sorted(entry.name for entry in path.iterdir() if entry.name.isdecimal())
        if images != ["0"]:
            raise InputError(f"{path}: expected one image, '0', got {images}; give the path of one of them")
        return _multiscales(path / "0")
    images = attributes.get("multiscales", [])
    if len(images) != 1:
        raise InputError(f"{path}: expected a group with one multiscale image (OME-Zarr 0.4 or 0.5), got {len(images)}")
    return path, images[0]


def _attributes(folder):
    """The attributes of a group: of zarr v2 in .zattrs, of zarr v3 in zarr.json below "ome"."""
    path = folder / "zarr.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8")).get("attributes", {}).get("ome", {})
    path = folder / ".zattrs"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _inside(path, group, name):
    folder = (group / name).resolve()
    if not folder.is_relative_to(group.resolve()):
        raise InputError(f"{path}: expected the path of a level inside the group, got {name!r}")
    return folder


def _open(folder):
    import tensorstore  # A third of a second, which only these files need.

    driver = "zarr3" if (folder / "zarr.json").is_file() else "zarr"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
    return tensorstore.open(spec, read=True, open=True).result()


def _read_region(folder, kept, region):
    """Axes that are not kept have size 1."""
    store = _open(folder)
    index = [0] * store.ndim
    for axis, part in zip(kept, (*region, slice(None)), strict=False):
        index[axis] = part
    values = store[tuple(index)].read().result()
    order = np.argsort(np.argsort(kept))  # Where each kept axis stands among those that are left.
    return values.transpose(order)


def _kept_axes(path, names, shape):
    """The places of z, y, x and, where one is longer than 1, of the channels or time points."""
    rest = [i for i, name in enumerate(names) if name not in "zyx" and shape[i] != 1]
    if len(names) != len(shape) or sorted(set(names) & set("zyx")) != ["x", "y", "z"] or len(rest) > 1:
        raise InputError(
            f"{path}: expected the axes z, y, x and at most one more that is longer than 1, got {names!r} of sizes "
            f"{tuple(shape)}"
        )
    return tuple([names.index(name) for name in "zyx"] + rest)


def _grid(path, axes, described, kept):
    """Spacing and first voxel's centre, [3] mm each, z, y, x; transformations apply one after the other."""
    scale, shift = np.ones(len(axes)), np.zeros(len(axes))
    for entry in described:
        for transformation in entry.get("coordinateTransformations", []):
            kind = transformation["type"]
            if kind not in ("scale", "translation", "identity") or "path" in transformation:
                raise InputError(f"{path}: expected a scale or a translation, got {transformation}")
            if kind == "scale":
                scale, shift = scale * transformation[kind], shift * transformation[kind]
            elif kind == "translation":
                shift = shift + transformation[kind]
    mm = np.array([geometry.millimetres(path, axes[i].get("unit", "")) for i in kept])
    return scale[list(kept)] * mm, shift[list(kept)] * mm
