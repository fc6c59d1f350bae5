"""DICOM series: a folder of single slices to one volume, ordered and spaced by their positions."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import SimpleITK

from data.errors import InputError
from data.formats import geometry
from data.lazy import LazyArray, library_errors

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # SOP classes: segments, label map
_TAGS = (
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
)
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
_EVEN = 0.05  # Slice distances may differ by this share of their mean: positions are rounded.
_NO_STEP = 1e-3  # mm; slices nearer than this lie at one position.


class _Slice(NamedTuple):
    path: Path
    header: pydicom.Dataset


def read(path):
    """The volume of the only series in a folder.

    Slices are ordered by their position along the normal of their plane, and the spacing is the distance between
    positions, never SliceThickness. Rescaled values are kept with their sign, in the smallest integer dtype that
    holds every value the header allows, or float32 where the slope is a fraction.

    Raises:
      InputError: a single file, several series, a slice without a place or unlike the others, two at one place, a
        gap, or a stack that is sheared (a tilted gantry).
    """
    if path.is_file():
        raise InputError(f"{path}: expected a folder with the slices of one DICOM series, got {_described(path)}")
    slices = _slices(path)
    _check_one_series(path, slices)
    _check_alike(slices)
    slices, spacing, affine = _ordered(path, slices)
    header = slices[0].header
    shape = (len(slices), int(header.Rows), int(header.Columns))
    samples = int(header.get("SamplesPerPixel", 1))
    shape = shape if samples == 1 else (*shape, samples)
    dtype = _dtype(slices)
    paths = tuple(each.path for each in slices)
    array = LazyArray(path, shape, dtype, functools.partial(_read_slices, paths, dtype))
    return array, spacing, affine


def _described(path):
    header = _header(path)
    if header.get("SOPClassUID") in SEGMENTATIONS:
        return "a DICOM segmentation, which is read as labels of its image (data.labels = 'dicom_seg')"
    return f"one file of {header.get('NumberOfFrames', 1)} frame(s)"


def _header(path):
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (pydicom.errors.InvalidDicomError, EOFError) as error:
        raise InputError(f"{path}: expected a DICOM file, got something else or a part of one") from error


def _slices(folder):
    """Every DICOM file of a folder; files with another suffix that do not begin as one are notes."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    paths = [path for path in paths if path.name.upper() != "DICOMDIR" and _is_dicom(path)]
    if not paths:
        raise InputError(f"{folder}: expected a folder with the slices of one DICOM series, got no DICOM files")
    return [_Slice(path, _header(path)) for path in paths]


def _is_dicom(path):
    if path.suffix.lower() in ("", ".dcm", ".ima"):
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_one_series(folder, slices):
    series = {}
    for each in slices:
        if "SeriesInstanceUID" not in each.header:
            raise InputError(
                f"{each.path}: expected a DICOM file with SeriesInstanceUID, got none: damaged or truncated"
            )
        name = f"{each.header.SeriesInstanceUID} ({each.header.get('Modality', 'no modality')})"
        series[name] = series.get(name, 0) + 1
    if len(series) != 1:
        listed = ", ".join(f"{name}: {number} file(s)" for name, number in sorted(series.items()))
        raise InputError(f"{folder}: expected one DICOM series, got {len(series)}: {listed}")


def _check_alike(slices):
    first = slices[0]
    for path, header in slices:
        for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "BitsStored"):
            if header.get(tag) in (None, ""):
                raise InputError(f"{path}: expected a slice of a volume with {tag}, got none")
        if int(header.get("NumberOfFrames") or 1) != 1 or "ModalityLUTSequence" in header:
            raise InputError(f"{path}: expected one frame with a linear scale, got several or a look-up table")
        for tag, tolerance in (
            *(("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 0)),
            *(("PixelSpacing", 1e-4), ("ImageOrientationPatient", 1e-4)),
        ):
            ours, theirs = header.get(tag, 1), first.header.get(tag, 1)
            if not np.allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=0, atol=tolerance):
                raise InputError(f"{path}: expected {tag} {theirs} as in {first.path.name}, got {ours}")


def _ordered(folder, slices):
    """The slices along the normal of their plane, , their spacing and affine."""
    header = slices[0].header
    axis_x, axis_y = np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3))
    normal = np.cross(axis_x, axis_y)
    positions = np.array([each.header.ImagePositionPatient for each in slices], float)  # [n, 3] x, y, z
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    slices, positions, along = [slices[i] for i in order], positions[order], along[order]
    distance = _distance(folder, slices, along)
    row, column = (float(value) for value in header.PixelSpacing)
    _check_upright(folder, positions - np.outer(along, normal), min(row, column), along[-1] - along[0])
    spacing = np.array([distance, row, column])
    geometry.check_spacing(folder, spacing)
    direction = np.stack([normal, axis_y, axis_x], axis=1)
    return slices, spacing, geometry.direction_affine(folder, spacing, direction, positions[0])


def _distance(folder, slices, along):
    """The one distance between neighbours, mm."""
    if len(along) == 1:
        raise InputError(f"{folder}: expected two slices or more, whose positions tell their distance, got 1")
    steps = np.diff(along)
    usual = float(np.median(steps[steps > _NO_STEP])) if np.any(steps > _NO_STEP) else 0.0
    for i, step in enumerate(steps):
        names = f"{slices[i].path.name} and {slices[i + 1].path.name}"
        at = f"{along[i]:g} and {along[i + 1]:g} mm"
        if step <= _NO_STEP:
            raise InputError(f"{folder}: expected one slice at every position, got {names} both at {along[i]:g} mm")
        if step > 1.5 * usual:
            missing = round(step / usual) - 1
            raise InputError(
                f"{folder}: expected slices {usual:g} mm apart, got a gap of {step:g} mm between {names} (at {at}): "
                f"{missing} missing"
            )
        if abs(step - usual) > _EVEN * usual:
            raise InputError(f"{folder}: expected slices {usual:g} mm apart, got {step:g} mm between {names} (at {at})")
    return float(along[-1] - along[0]) / len(steps)


def _check_upright(folder, in_plane, pixel, height):
    """Refuses a stack that moves sideways by half a pixel from its first slice to its last."""
    shift = float(np.linalg.norm(in_plane - in_plane[0], axis=1).max())
    if shift > 0.5 * pixel:
        angle = np.degrees(np.arctan2(shift, height))
        raise InputError(
            f"{folder}: expected slices stacked along their normal, got a shear of {angle:.1f} degrees (a tilted "
            "gantry); resample it to an orthogonal grid"
        )


def _dtype(slices):
    """The dtype that holds every rescaled value of every slice."""
    ends = []
    for _, header in slices:
        bits = int(header.BitsStored)
        low = -(2 ** (bits - 1)) if int(header.get("PixelRepresentation", 0)) else 0
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        if not (slope.is_integer() and intercept.is_integer()):
            return np.dtype(np.float32)
        ends += [slope * low + intercept, slope * (low + 2**bits - 1) + intercept]
    fits = (np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max for name in _INTEGERS)
    return np.dtype(next((name for name, fit in zip(_INTEGERS, fits, strict=True) if fit), np.float64))


def _read_slices(paths, dtype, region):
    return np.stack([_read_slice(path, dtype)[region[1:]] for path in paths[region[0]]])


def _read_slice(path, dtype):
    # Not TensorFlow IO: it does not keep signed values. GDCM knows the compressions too.
    with library_errors(path, "a DICOM slice"):
        image = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        return SimpleITK.GetArrayFromImage(image)[0].astype(dtype)
