"""The objects of a case, from label files of every kind: numbered voxels and what is known of each number."""

from pathlib import Path
from typing import NamedTuple

import cc3d
import numpy as np

from data import box_table, instance_table, parting, slabs
from data.errors import GridError, InputError
from data.formats import dicom_seg
from data.readers import Volume, case_stem, read_volume, volume_suffix

TABLES = (".csv", ".json")
# Formats that say where a volume lies and how its axes point, in one world.
_IN_WORLD = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")


class Names(NamedTuple):
    """What a config calls things: the K classes (class id 1 is the first), T attributes and L landmarks."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()


class Objects(NamedTuple):
    """The M objects of a label file.

    Attributes:
      ids: [Z, Y, X] integers, 0 background, 1..M the objects; an object may have lost all of its voxels to others.
      numbers: [M] ints, ascending; what the file calls each.
      class_ids: [M] int32 in 1..K.
      attributes: [M, T] float32, NaN where unknown.
      keypoints: [M, L, 3] float32, voxels, NaN where unknown.
      left_out: {reason: number of things} that the file tells and this does not hold.
    """

    ids: np.ndarray
    numbers: np.ndarray
    class_ids: np.ndarray
    attributes: np.ndarray
    keypoints: np.ndarray
    left_out: dict[str, int | float]


def read_labels(path: Path) -> tuple[np.ndarray, Volume]:
    """[Z, Y, X] unsigned integers, and the volume that they come from.

    Raises:
      InputError: the file cannot be read, or holds other than integers from 0 on three axes.
    """
    volume = read_volume(path)
    return label_values(path, volume.array), volume


def components(path: Path, values: np.ndarray, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The 26-connected components of a volume of classes: ids [Z, Y, X] integers and class ids [M] int32."""
    check_classes(path, values, classes)
    ids, num_objects = cc3d.connected_components(values, connectivity=26, return_N=True)
    class_ids = np.zeros(num_objects + 1, np.int32)
    for plane, plane_values in zip(ids, values, strict=True):
        class_ids[plane] = plane_values  # All voxels of a component have one value.
    return ids, class_ids[1:]


def check_classes(path: Path, values: np.ndarray, classes: tuple[str, ...]) -> None:
    """InputError where a volume of classes, or a part of it, holds more than there are."""
    if values.max() > len(classes):
        raise InputError(f"{path}: expected labels 0..{len(classes)} for the classes {classes}, got {values.max()}")


def from_instances(path: Path, image_path: Path, volume: Volume, names: Names) -> Objects:
    """Objects of a volume of ids, whose classes, attributes and landmarks the JSON beside it tells."""
    values = _labels_of(image_path, path, volume)
    numbers, _ = slabs.present([values])
    return Objects(slabs.renumbered(values, numbers), numbers, *described(path, numbers, names))


def from_semantic(path: Path, image_path: Path, volume: Volume, names: Names, longer_than: float = 0.0) -> Objects:
    """Objects of a volume of classes: its 26-connected components; those longer than so many mm parted, but for 0."""
    ids, class_ids = components(path, _labels_of(image_path, path, volume), names.classes)
    if longer_than:
        ids, parents = parting.part(ids, volume.spacing, longer_than)
        class_ids = class_ids[parents - 1]
    known = unknown(len(class_ids), names.attributes, names.keypoints)
    return Objects(ids, np.arange(1, len(class_ids) + 1), class_ids, *known, {})


def from_boxes(path: Path, volume: Volume, names: Names, unit: str) -> Objects:
    """Objects of a table of boxes, each filled; where they overlap the smaller one keeps the voxel."""
    shape = volume.array.shape[:3]
    boxes, class_ids, attributes, notes = box_table.read(
        path, shape, volume.affine, unit=unit, classes=names.classes, attributes=names.attributes
    )
    ids, hidden = box_table.boxes_to_ids(path, boxes, shape)
    left_out = {"voxels hidden": int(hidden.sum()), **notes}
    _, keypoints = unknown(len(boxes), (), names.keypoints)
    return Objects(ids, np.arange(1, len(boxes) + 1), class_ids, attributes, keypoints, left_out)


def from_dicom_seg(path: Path, volume: Volume, names: Names) -> Objects:
    """Objects of a DICOM segmentation: its segments, whose class is their label where no JSON beside tells it."""
    found = dicom_seg.read_segments(path, volume.array.shape[:3], volume.affine)
    numbers = np.array(sorted(found.labels), np.int64)
    # Segment numbers are 1..65535, so that a table of them is small.
    index = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    index[numbers] = np.arange(1, len(numbers) + 1)
    *known, left_out = described(path, numbers, names, segment_classes(found.labels, names))
    left_out = {"voxels hidden": sum(found.hidden.values()), **left_out}
    return Objects(index[found.ids], numbers, *known, left_out)


def segment_classes(labels: dict[int, str], names: Names) -> dict[int, str] | None:
    """The classes of segments: their labels; None where there is one class, whatever the labels say."""
    return labels if len(names.classes) > 1 else None


def described(path: Path, numbers: np.ndarray, names: Names, labels: dict[int, str | int] | None = None) -> tuple:
    """What `<stem>.json` beside a label file tells of its objects (see data/instance_table.py).

    Args:
      path: the label file.
      numbers: [M] what it calls them.
      names: classes, attributes and landmarks that are looked up.
      labels: {number: class name or number} of a file that tells the classes itself; without, and without a JSON, all
        are of the only class.

    Returns:
      class_ids [M] int32, attributes [M, T] float32, keypoints [M, L, 3] float32, and {"attribute <name> unlisted" or
      "keypoint <name> unlisted": number of objects of which the JSON tells more than was asked for}.
    """
    values, points = unknown(len(numbers), names.attributes, names.keypoints)
    json_path = path.with_name(f"{file_stem(path)}.json")
    if json_path.exists():
        table, others = instance_table.read(json_path, *names)
        missing = [str(i) for i in numbers.tolist() if i not in table]
        if missing:
            raise InputError(f"{json_path}: expected a class for every id in {path.name}, got none for {some(missing)}")
        rows = [table[i] for i in numbers.tolist()]
        for row, (_, measured, places) in enumerate(rows):
            values[row], points[row] = measured, np.reshape(places, (-1, 3))
        class_ids = [class_id for class_id, *_ in rows]
        return np.array(class_ids, np.int32), values, points, {f"{name} unlisted": n for name, n in others.items()}
    if labels is not None:
        class_ids = [instance_table.class_id(f"{path}: {i}", labels[i], names.classes) for i in numbers.tolist()]
        return np.array(class_ids, np.int32), values, points, {}
    if len(names.classes) == 1:
        return np.ones(len(numbers), np.int32), values, points, {}
    if len(numbers):
        raise InputError(
            f"{path}: expected {json_path.name} beside it, which tells the classes {names.classes} apart, got no such "
            "file"
        )
    return np.zeros(0, np.int32), values, points, {}


def kept(objects: Objects, min_voxels: int) -> Objects:
    """The objects of at least `min_voxels` voxels, numbered again; `left_out` says how many others there were."""
    counts = voxel_counts(objects)
    stays = counts >= min_voxels
    ids = slabs.renumbered(objects.ids, np.flatnonzero(stays) + 1)
    left_out = {"below_min_voxels": int(np.sum(~stays & (counts > 0)))}
    if np.any(counts == 0):
        left_out["without a voxel"] = int(np.sum(counts == 0))
    known = (values[stays] for values in objects[1:5])
    return Objects(ids, *known, {**left_out, **{reason: n for reason, n in objects.left_out.items() if n}})


def voxel_counts(objects: Objects) -> np.ndarray:
    """[M] int64 voxels of each object."""
    return slabs.voxel_counts(objects.ids, len(objects.numbers))


def unknown(num_objects: int, attributes: tuple[str, ...], keypoints: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """[M, T] float32 attributes and [M, L, 3] float32 landmarks of which nothing is known."""
    shapes = (num_objects, len(attributes)), (num_objects, len(keypoints), 3)
    return tuple(np.full(shape, np.nan, np.float32) for shape in shapes)


def file_stem(path: Path) -> str:
    """The name of a volume or a table without its format."""
    return path.stem if path.suffix.lower() in TABLES else case_stem(path)


def some(names: list[str]) -> str:
    """The first five of some names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _labels_of(image_path, path, image):
    values, labels = read_labels(path)
    check_same_grid(image_path, path, image, labels, values.shape)
    return values


def label_values(path, array):
    """[Z, Y, X] unsigned integers of the labels of a file, or of a part of them; InputError where they are others."""
    check_axes(path, array.shape)
    array = array[..., 0] if array.ndim == 4 else array
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):  # NaN: not equal
        raise InputError(f"{path}: expected integer labels, got fractions or NaN ({array.dtype})")
    if not (array.min() >= 0 and array.max() < 2**63):
        raise InputError(f"{path}: expected labels in 0..2^63 - 1, got {array.min()} to {array.max()}")
    return array.astype(np.min_scalar_type(int(array.max())), copy=False)


def check_axes(path, shape):
    """InputError where labels of a shape have other than three axes, or a fourth of one channel."""
    if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
        raise InputError(f"{path}: expected labels with 3 axes, got sizes {tuple(shape)}")


def check_same_grid(image_path, path, image, labels, label_shape):
    """Refuses labels that do not lie on the image; only some formats say where it lies and how its axes point."""
    names = f"{image_path} and {path}"
    shape, origins = image.array.shape[:3], (image.affine[:3, 3], labels.affine[:3, 3])
    if shape != label_shape:
        raise GridError(f"{names}: expected one shape, got {shape} and {label_shape} (z, y, x)")
    if not np.allclose(image.spacing, labels.spacing, rtol=1e-3, atol=0):
        spacings = f"{image.spacing.tolist()} and {labels.spacing.tolist()}"
        raise GridError(f"{names}: expected one spacing, got {spacings} mm (z, y, x)")
    if not all(volume_suffix(each) in _IN_WORLD for each in (image_path, path)):
        return
    difference = (image.affine - labels.affine)[:3, :3] / image.spacing
    if np.abs(difference).max() > 1e-2:
        raise GridError(f"{names}: expected one orientation, got two (a flip or a rotation)")
    offset = np.linalg.solve(image.affine[:3, :3], origins[1] - origins[0])  # voxels along z, y, x
    if np.abs(offset).max() > 0.5:
        places = f"{origins[0].tolist()} and {origins[1].tolist()}"
        raise GridError(f"{names}: expected one origin, got {places} mm (x, y, z)")
