"""DICOM segmentations: the segments of a SEG object to instance ids on the grid of their image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import iter_pixels

from data.errors import InputError
from data.formats.dicom import SEGMENTATIONS
from data.lazy import check_bytes, check_memory, library_errors

_ON_GRID = 0.1  # voxels; positions in headers are rounded


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Segments on the grid of an image.

    Attributes:
      ids: [Z, Y, X] int32; 0 is background, else the number of a segment.
      labels: {number: SegmentLabel} of every segment that the file describes, also of those without a voxel.
      hidden: {(number, number of the next smaller segment there, which covers it): voxels}; empty where none overlap.
    """

    ids: np.ndarray
    labels: dict[int, str]
    hidden: dict[tuple[int, int], int]


def read_segments(path, shape, affine) -> Segmentation:
    """Reads a binary or label-map segmentation.

    Where segments overlap the smaller one keeps the voxel (of equal ones the one with the lower number), because it
    would vanish in the larger one; what that hides is counted.

    Args:
      path: the SEG file.
      shape: [3] voxels of the image, z, y, x.
      affine: [4, 4] of the image, voxel index (z, y, x, 1) to world.

    Raises:
      InputError: no such file or another object, a fractional segmentation, frames that do not lie on the image's
        grid, or a segment outside the image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a DICOM segmentation, got no such file")
    with library_errors(path, "a DICOM segmentation"):
        dataset = pydicom.dcmread(path)
        _check_kind(path, dataset)
        labels = _labels(dataset)
        voxels = _voxels(path, dataset, tuple(shape), affine)
    unknown = sorted(voxels.keys() - labels.keys())
    if unknown:
        raise InputError(f"{path}: expected a description of every segment, got none for {unknown}")
    check_memory(path, shape, np.int32)
    ids, hidden = _painted(voxels, tuple(shape))
    return Segmentation(ids, labels, hidden)


def read_labels(path) -> dict[int, str]:
    """{number: SegmentLabel} of a segmentation, without its voxels; InputError as `read_segments`."""
    with library_errors(Path(path), "a DICOM segmentation"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        _check_kind(path, dataset)
        return _labels(dataset)


def _labels(dataset):
    labels = {int(each.SegmentNumber): str(each.SegmentLabel) for each in dataset.SegmentSequence}
    labels.pop(0, None)  # The background of a label map.
    return labels


def _check_kind(path, dataset):
    if dataset.get("SOPClassUID") not in SEGMENTATIONS:
        raise InputError(f"{path}: expected a DICOM segmentation, got {dataset.get('Modality', 'another object')}")
    kind = dataset.SegmentationType
    if kind not in ("BINARY", "LABELMAP"):
        raise InputError(f"{path}: expected a BINARY or LABELMAP segmentation, got {kind}, which has no sharp edges")


def _voxels(path, dataset, shape, affine):
    """{segment number: flat indices of its voxels}, int64."""
    to_voxels = np.linalg.inv(affine)
    frames = dataset.PerFrameFunctionalGroupsSequence
    found = {}
    for frame, pixels in zip(frames, _frame_pixels(path, dataset), strict=True):
        rows, columns = np.nonzero(pixels)
        if not len(rows):
            continue
        origin, steps = _frame_grid(path, dataset, frame, to_voxels, pixels.shape)
        points = origin + rows[:, np.newaxis] * steps[0] + columns[:, np.newaxis] * steps[1]
        if np.any(points < 0) or np.any(points >= shape):
            raise InputError(
                f"{path}: expected segments inside the image of {shape} voxels (z, y, x), got one at "
                f"{points.min(axis=0).tolist()} to {points.max(axis=0).tolist()}"
            )
        flat = np.ravel_multi_index(tuple(points.T), shape)
        for number, members in _numbered(dataset, frame, pixels[rows, columns], flat):
            found.setdefault(number, []).append(members)
    return {number: np.unique(np.concatenate(parts)) for number, parts in found.items()}


def _frame_pixels(path, dataset):
    """The [rows, columns] pixels of every frame, one after the other."""
    if dataset.BitsAllocated != 1 or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return iter_pixels(dataset)
    return _packed_frames(path, dataset)


def _packed_frames(path, dataset):
    """Frames of single bits, which need not begin with a byte."""
    size = int(dataset.Rows), int(dataset.Columns)
    num_bits, num_frames = size[0] * size[1], int(dataset.NumberOfFrames)
    data = np.frombuffer(dataset.PixelData, np.uint8)
    check_bytes(path, -(-num_frames * num_bits // 8), len(data))
    for start in range(0, num_frames * num_bits, num_bits):
        part = np.unpackbits(data[start // 8 : (start + num_bits + 7) // 8], bitorder="little")
        yield part[start % 8 :][:num_bits].reshape(size)


def _numbered(dataset, frame, values, flat):
    """Pairs of a segment's number and its voxels in one frame."""
    if dataset.SegmentationType == "BINARY":
        number = int(_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        return [(number, flat)]
    return [(int(number), flat[values == number]) for number in np.unique(values)]


def _group(dataset, frame, name):
    """A functional group of a frame, which may be shared by all frames."""
    shared = dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in dataset else {}
    for groups in (frame, shared):
        if name in groups:
            return groups[name].value[0]
    raise InputError(f"{dataset.filename}: expected frames with {name}, got one without")


def _frame_grid(path, dataset, frame, to_voxels, size):
    """The voxel of a frame's first pixel [3], and the steps to the next row and column [2, 3]; int64, z, y, x."""
    orientation = _group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
    column_step, row_step = np.reshape(np.asarray(orientation, float), (2, 3))
    height, width = (float(value) for value in _group(dataset, frame, "PixelMeasuresSequence").PixelSpacing)
    position = np.asarray(_group(dataset, frame, "PlanePositionSequence").ImagePositionPatient, float)
    origin = to_voxels[:3, :3] @ position + to_voxels[:3, 3]
    steps = np.stack([to_voxels[:3, :3] @ (row_step * height), to_voxels[:3, :3] @ (column_step * width)])
    rounded = np.rint(origin).astype(np.int64), np.rint(steps).astype(np.int64)
    # The farthest pixel is off by the most.
    off = np.abs(origin - rounded[0]) + np.abs(steps - rounded[1]).T @ (np.array(size) - 1)
    if off.max() > _ON_GRID:
        raise InputError(
            f"{path}: expected frames on the grid of the image, got one at voxel {np.round(origin, 2).tolist()} with "
            f"steps {np.round(steps, 3).tolist()} (z, y, x)"
        )
    return rounded


def _painted(voxels, shape):
    """Ids with the larger segments below the smaller ones, and the voxels that each hides of another."""
    ids = np.zeros(shape, np.int32)
    flat = ids.reshape(-1)
    hidden = {}
    for number in sorted(voxels, key=lambda number: (-len(voxels[number]), -number)):
        below, counts = np.unique(flat[voxels[number]], return_counts=True)
        for other, count in zip(below.tolist(), counts.tolist(), strict=True):
            if other:
                hidden[other, number] = count
        flat[voxels[number]] = number
    return ids, hidden
