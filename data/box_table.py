"""Boxes without masks: a JSON or CSV table to boxes in voxels, and boxes to instance ids."""

import csv
import math

import numpy as np

from data import instance_table, slabs
from data.errors import InputError
from data.lazy import check_memory

EDGES = ("z0", "y0", "x0", "z1", "y1", "x1")
UNITS = ("voxels", "mm")
_ALONG_WORLD = 1e-2  # radians by which the axes of an image may be turned against the world's


def read(path, shape, affine, *, unit, classes, attributes=()):
    """Reads the boxes of a case.

    A CSV file has the columns z0, y0, x0, z1, y1, x1 and perhaps class and attributes; a JSON file is
    {"boxes": [{"z0": 1, ..., "x1": 9, "class": "cell", "energy": 12.5}, ...]}. An attribute that is empty or null is
    unknown; the class may be left out where there is only one.

    Args:
      path: pathlib.Path of the .json or .csv file.
      shape: [3] voxels of the image.
      affine: [4, 4] of the image, voxel index (z, y, x, 1) to world (x, y, z, 1) mm.
      unit: "voxels", half-open; or "mm" in the world, LPS: z0 and z1 are the ends along the world's z axis.
      classes: the K class names; class id 1 is the first.
      attributes: the T names that are looked up.

    Returns:
      boxes [N, 6] float32, voxels, half-open, inside the image; class ids [N] int32; attributes [N, T] float32, NaN
      where unknown; and notes {"boxes clipped": number, "attribute <name> unlisted": number}. No box is valid.

    Raises:
      InputError: the file cannot be read, a box is not finite, has no size or lies outside the image, a class or an
        attribute is none, or boxes in mm belong to an image whose axes do not lie along the world's (the box of a
        turned box would be larger than the object).
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {UNITS}, got {unit!r}")
    rows = _rows(path)
    entries = [_entry(f"{path}: box {i}", row, classes, attributes) for i, row in enumerate(rows, start=1)]
    edges = np.array([edges for edges, _, _ in entries], np.float64).reshape(-1, 6)
    boxes = edges if unit == "voxels" else _to_voxels(path, edges, affine)
    clipped = np.clip(boxes, 0, np.tile(shape, 2))
    outside = np.flatnonzero(np.any(clipped[:, 3:] <= clipped[:, :3], axis=1))
    if len(outside):
        raise InputError(
            f"{path}: box {outside[0] + 1}: expected a box inside the image of {tuple(shape)} voxels (z, y, x), got "
            f"{np.round(boxes[outside[0]], 2).tolist()}"
        )
    known = {*EDGES, instance_table.CLASS, *attributes}
    unlisted = [name for row in rows for name in row if name not in known]
    notes = {f"attribute {name} unlisted": unlisted.count(name) for name in sorted(set(unlisted))}
    # Rounding to float32 and back through an affine is not clipping.
    num_clipped = int(np.sum(np.any(np.abs(clipped - boxes) > 1e-3, axis=1)))
    notes = {"boxes clipped": num_clipped, **notes} if num_clipped else notes
    measured = np.array([values for _, _, values in entries], np.float32).reshape(len(entries), len(attributes))
    class_ids = np.array([class_id for _, class_id, _ in entries], np.int32)
    return clipped.astype(np.float32), class_ids, measured, notes


def read_class_ids(path, classes):
    """The class ids [N] int32 of the boxes of a table; InputError as `read`."""
    rows = enumerate(_rows(path), start=1)
    return np.array([_entry(f"{path}: box {i}", row, classes, ())[1] for i, row in rows], np.int32)


def boxes_to_ids(path, boxes, shape):
    """Fills boxes with instance ids; where they overlap the smaller one keeps the voxel.

    A voxel belongs to a box that holds its centre; a box that holds none gets the voxel around its own centre. Of
    boxes of one size the first keeps the voxel.

    Args:
      path: of the table, for messages.
      boxes: [N, 6] float32, voxels, inside the volume.
      shape: [3] voxels.

    Returns:
      [Z, Y, X] int32 ids, 0 background, box i is i + 1; and [N] int64, how many voxels of each box others hide.
    """
    check_memory(path, shape, np.int32)
    lo = np.ceil(boxes[:, :3].astype(np.float64) - 0.5).astype(np.int64)
    hi = np.ceil(boxes[:, 3:].astype(np.float64) - 0.5).astype(np.int64)
    centre = np.floor((boxes[:, :3].astype(np.float64) + boxes[:, 3:]) / 2).astype(np.int64)
    lo, hi = np.where(hi > lo, lo, centre), np.where(hi > lo, hi, centre + 1)
    ids = np.zeros(tuple(shape), np.int32)
    sizes = np.prod(hi - lo, axis=1)
    for i in np.lexsort((-np.arange(len(boxes)), -sizes)):
        ids[tuple(map(slice, lo[i], hi[i]))] = i + 1
    visible = slabs.voxel_counts(ids, len(boxes))
    return ids, sizes - visible


def _rows(path):
    return _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)


def _json_rows(path):
    rows = instance_table.read_json(path).get("boxes")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: expected {{"boxes": [{{"z0": ..., "class": ...}}, ...]}}, got no such list')
    return rows


def _csv_rows(path):
    """One dict per line; a cell that reads as a number is one, and an empty one is None."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    if missing := [name for name in EDGES if name not in columns]:
        raise InputError(f"{path}: expected the columns {', '.join(EDGES)}, got none for {', '.join(missing)}")
    for i, line in enumerate(lines, start=1):
        if None in line or None in line.values():
            raise InputError(f"{path}: box {i}: expected {len(columns)} cells, got more or fewer")
    return [{name: _cell(name, text.strip()) for name, text in line.items()} for line in lines]


def _cell(name, text):
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text or None


def _entry(what, row, classes, attributes):
    """(six edges, class id, T attributes) of one row."""
    edges = [row.get(name) for name in EDGES]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in edges)
    if not numbers or not all(low < high for low, high in zip(edges[:3], edges[3:], strict=True)):
        raise InputError(f"{what}: expected finite {', '.join(EDGES)} with z0 < z1, y0 < y1, x0 < x1, got {edges}")
    said = row.get(instance_table.CLASS)
    said = 1 if said is None and len(classes) == 1 else said
    class_id = instance_table.class_id(what, said, classes)
    return edges, class_id, [instance_table.number(f"{what}: {name}", row.get(name)) for name in attributes]


def _to_voxels(path, edges, affine):
    """Boxes in mm along the world's axes to boxes in voxels; a flipped axis swaps the two ends."""
    steps = affine[:3, :3]
    main = np.argmax(np.abs(steps), axis=0)  # The world axis of each voxel axis.
    along = steps[main, np.arange(3)]
    off = np.abs(steps / np.linalg.norm(steps, axis=0))
    off[main, np.arange(3)] = 0
    if off.max() > _ALONG_WORLD:
        angle = np.degrees(np.arcsin(off.max()))
        raise InputError(
            f"{path}: expected an image along the world's axes for boxes in mm, got one turned {angle:.1f} degrees"
        )
    world = edges.reshape(-1, 2, 3)[:, :, ::-1]  # [N, 2, 3] mm, x, y, z
    # Index i is the centre of voxel i, which covers [i, i + 1).
    ends = (world[:, :, main] - affine[main, 3]) / along + 0.5
    return np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)
