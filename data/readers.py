"""Any volume file to one array in z, y, x order with its spacing and its place in the world."""

import contextlib
import gzip
import io
import logging
import math
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import SimpleITK
import tifffile

from data.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An image or label volume on its grid.

    Attributes:
      array: [Z, Y, X] or [Z, Y, X, C], the file's own dtype in native byte order, C-contiguous.
      spacing: [3] float64, mm between voxel centres along z, y, x.
      affine: [4, 4] float64, voxel index (z, y, x, 1) to world (x, y, z, 1) in mm, LPS; index 0 is
        the centre of the first voxel. TIFF and NPZ know no world: their affine holds the spacing.
    """

    array: np.ndarray
    spacing: np.ndarray
    affine: np.ndarray


def read_volume(path: str | os.PathLike) -> Volume:
    """Reads a NIfTI, TIFF (ImageJ, OME or plain) or NPZ volume.

    Channels, samples or time points of a four-axis file become the last axis.

    Raises:
      InputError: the file is missing, damaged, not what its name says or of no supported format; it
        has not 3 or 4 axes, an axis of size 0, values that are not real numbers, or a spacing
        that is not finite and positive.
    """
    path = Path(path)
    suffix = volume_suffix(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing at that path"
        raise InputError(f"{path}: expected a volume file, got {found}")
    try:
        array, spacing, affine = _READERS[suffix](path)
    except InputError:
        raise
    except Exception as error:  # A damaged file raises whatever its library happens to trip over.
        raise InputError(f"{path}: cannot be read as {suffix}: {_last_line(error)}") from error
    _check_array(path, array)
    _check_spacing(path, spacing)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return Volume(array, np.asarray(spacing, np.float64), affine)


def volume_suffix(path: str | os.PathLike) -> str:
    """The format of a volume file by its name: the one of SUFFIXES it ends with, in lower case."""
    name = Path(path).name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise InputError(f"{path}: expected a volume file ({', '.join(SUFFIXES)}), got {name!r}")


def case_stem(path: str | os.PathLike) -> str:
    """The file's name without its format: "a" for "a.nii.gz", "a.ome.tif" and "a"."""
    name = Path(path).name
    for suffix in (".ome.tif", ".ome.tiff", *SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _last_line(error):
    """What a library error says, without the place in its source code that comes first."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _check_array(path, array):
    if array.ndim not in (3, 4):
        raise InputError(f"{path}: expected 3 or 4 axes, got {array.ndim} of sizes {array.shape}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected integer or real voxels, got {array.dtype}")
    _check_sizes(path, array.shape)


def _check_sizes(path, sizes):
    if min(sizes) < 1:
        raise InputError(f"{path}: expected a voxel or more on every axis, got sizes {tuple(sizes)}")


def _check_spacing(path, spacing):
    if not (np.all(np.isfinite(spacing)) and np.all(np.greater(spacing, 0))):
        values = np.asarray(spacing).tolist()
        raise InputError(f"{path}: expected a finite spacing above 0, got {values} (z, y, x)")


def spacing_affine(spacing: np.ndarray) -> np.ndarray:
    """The [4, 4] affine of a grid of which only the spacing ([3] mm, z, y, x) is known."""
    return np.block([[np.fliplr(np.diag(spacing[::-1])), np.zeros((3, 1))], [0, 0, 0, 1]])


# https://nifti.nimh.nih.gov/nifti-1; "codes" of the qform and the sform, "forms" their numbers.
_NIFTI_HEADER = np.dtype(
    {
        "names": ["size", "dim", "bitpix", "pixdim", "vox_offset", "codes", "forms", "magic"],
        "formats": ["i4", "8i2", "i2", "8f4", "f4", "2i2", "18f4", "S4"],
        "offsets": [0, 40, 72, 76, 108, 252, 256, 344],
        "itemsize": 348,
    }
)


def _read_nifti(path):
    _check_nifti(path)
    image = _itk_image(path)
    if image.GetDimension() not in (3, 4):
        raise InputError(f"{path}: expected 3 or 4 axes, got sizes {image.GetSize()} (x, y, ...)")
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetDimension() == 4:
        array = np.moveaxis(array, 0, -1)
    spacing = np.array(image.GetSpacing()[2::-1])
    # The columns of the direction are those of the x, y and z axis.
    direction = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction[:, ::-1] * spacing
    affine[:3, 3] = image.GetOrigin()[:3]
    return array, spacing, affine


def _itk_image(path):
    try:
        return SimpleITK.ReadImage(str(path), imageIO="NiftiImageIO")
    except RuntimeError as error:
        if "orthonormal" not in str(error):
            raise
        raise InputError(
            f"{path}: expected voxel axes at right angles, got a sheared sform and no qform; "
            "resample it to an orthogonal grid"
        ) from error


def _check_nifti(path):
    """Refuses what SimpleITK mends without a word.

    It fills the missing part of a truncated file with whatever is in memory, and turns a size of 0 or
    a spacing of NaN into 1. Reading to the end also makes gzip compare its checksum.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as stream:
        header = _nifti_header(path, stream.read(_NIFTI_HEADER.itemsize))
        num_bytes = stream.seek(0, io.SEEK_END)
    sizes = header["dim"][1 : 1 + header["dim"][0]].tolist()
    _check_sizes(path, sizes[::-1])
    expected = int(header["vox_offset"]) + math.prod(sizes) * int(header["bitpix"]) // 8
    if num_bytes < expected:
        raise InputError(f"{path}: truncated: expected {expected} bytes, got {num_bytes}")
    _check_spacing(path, header["pixdim"][1 : 1 + min(3, len(sizes))][::-1])
    for code, form in zip(header["codes"], np.split(header["forms"], [6]), strict=True):
        if code > 0 and not np.all(np.isfinite(form)):
            raise InputError(f"{path}: expected a finite orientation, got {form.tolist()}")


def _nifti_header(path, data):
    for dtype in (_NIFTI_HEADER.newbyteorder(order) for order in "<>"):
        header = np.frombuffer(data, dtype)[0] if len(data) == dtype.itemsize else None
        if header is not None and (header["size"], header["magic"]) == (348, b"n+1"):
            return header
    raise InputError(f"{path}: expected a NIfTI-1 file, got something else")


_MILLIMETRES = {
    "nm": 1e-6,
    **dict.fromkeys(("um", "µm", "μm", r"\u00b5m", "micron", "microns", "micrometer"), 1e-3),
    "mm": 1.0,
    "cm": 10.0,
    "m": 1e3,
    **dict.fromkeys(("inch", "in"), 25.4),
    **dict.fromkeys(("", "pixel", "pixels", "voxel"), 1.0),  # No unit: the numbers as they are.
}
_RESOLUTION_UNITS = {1: "", 2: "inch", 3: "cm"}


def _read_tiff(path):
    """Reads the only image series of a TIFF.

    The spacing comes from the OME metadata, or else from ImageJ's `spacing` and `unit` and the
    resolution tags. A z spacing that neither OME nor a plain TIFF states is taken as that of x;
    lengths without a unit are taken as mm, and a file that states none has 1.
    """
    with _tiff_errors(path), tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            raise InputError(f"{path}: expected one image series, got {len(tiff.series)}")
        series = tiff.series[0]
        axes = series.get_axes(squeeze=False)
        array = series.asarray(squeeze=False)
        spacing = _ome_spacing(path, tiff) if tiff.is_ome else _tag_spacing(path, tiff)
    array = _volume_axes(path, array, axes, named=series.kind == "ome")
    return array, spacing, spacing_affine(spacing)


@contextlib.contextmanager
def _tiff_errors(path) -> Iterator[None]:
    """Raises what tifffile only logs: it reads a file that has lost its end as one with fewer pages."""
    records = []
    thread = threading.get_ident()

    def take(record):
        ours = record.levelno >= logging.ERROR and record.thread == thread
        if ours:
            records.append(record)
        return not ours

    logger = logging.getLogger("tifffile")
    logger.addFilter(take)
    try:
        yield
    finally:
        logger.removeFilter(take)
    if records:
        raise InputError(f"{path}: damaged or truncated: {records[0].getMessage()}")


def _volume_axes(path, array, axes, *, named):
    """Puts the axes of a TIFF in z, y, x(, c) order.

    Args:
      path: the file, for messages.
      array: its voxels.
      axes: one letter per axis: Z, Y, X, C channel, T time, S sample, I page, Q unknown.
      named: whether the letters are to be believed. Only OME always tells slices from channels;
        elsewhere a stack that has no slices but many channels or frames is a stack of slices.
    """
    kept = [i for i, axis in enumerate(axes) if axis in "ZQYX" or array.shape[i] != 1]
    stacks = [axes[i] for i in kept if axes[i] not in "YXS"]
    if not named and len(stacks) == 2 and "Z" in stacks and array.shape[axes.index("Z")] == 1:
        kept.remove(axes.index("Z"))
        stacks.remove("Z")
    names = "".join(axes[i] for i in kept)
    if len(stacks) == 1:
        names = names.replace(stacks[0], "Z")
    array = array.reshape([array.shape[i] for i in kept])
    rest = [name for name in names if name not in "ZYX"]
    if sorted(names) != sorted(["X", "Y", "Z", *rest]) or len(rest) > 1:
        raise InputError(
            f"{path}: expected the axes z, y, x and at most one more, got {names} of sizes "
            f"{array.shape} (C channel, T time, S sample, I page, Q not named)"
        )
    return array.transpose([names.index(name) for name in ["Z", "Y", "X", *rest]])


def _ome_spacing(path, tiff):
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    sizes = [_ome_length(path, pixels, axis) for axis in "ZYX"]
    default = 1.0 if sizes[-1] is None else sizes[-1]
    return np.array([default if size is None else size for size in sizes])


def _ome_length(path, pixels, axis):
    size = pixels.get(f"PhysicalSize{axis}")
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")  # The default of the OME schema.
    return None if size is None else float(size) * _unit_mm(path, unit)


def _tag_spacing(path, tiff):
    tags = tiff.pages[0].tags
    imagej = tiff.imagej_metadata if tiff.is_imagej else {}
    unit = imagej.get("unit", _RESOLUTION_UNITS[int(tags.valueof("ResolutionUnit", default=1))])
    y, x = (_pixel_size(path, tags, f"{axis}Resolution") for axis in "YX")
    z = float(imagej.get("spacing", 1.0)) if imagej else x  # ImageJ leaves out a spacing of 1.
    return np.array([z, y, x]) * _unit_mm(path, unit)


def _pixel_size(path, tags, name):
    pixels, units = tags.valueof(name, default=(1, 1))
    if pixels == 0:
        raise InputError(f"{path}: expected a {name} above 0, got {pixels}/{units}")
    return units / pixels


def _unit_mm(path, unit):
    key = str(unit).strip().lower()
    if key not in _MILLIMETRES:
        raise InputError(f"{path}: expected a unit of length ({', '.join(_MILLIMETRES)}), got {unit!r}")
    return _MILLIMETRES[key]


def _read_npz(path):
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: expected an NPZ archive, got something else or a part of one")
    with np.load(path, allow_pickle=False) as archive:
        array = archive[_npz_key(path, archive.files)]
        spacing = archive["spacing"] if "spacing" in archive.files else np.ones(3)
    if spacing.shape != (3,) or spacing.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected a spacing of 3 numbers, got {spacing.dtype} of shape {spacing.shape}")
    return array, spacing, spacing_affine(spacing)


def _npz_key(path, keys):
    arrays = [key for key in keys if key != "spacing"]
    named = [key for key in arrays if key in ("image", "labels")] or arrays
    if len(named) != 1:
        raise InputError(f"{path}: expected one array, 'image' or 'labels', got {sorted(keys)}")
    return named[0]


_READERS = {".nii.gz": _read_nifti, ".nii": _read_nifti, ".tif": _read_tiff, ".tiff": _read_tiff, ".npz": _read_npz}
SUFFIXES = tuple(_READERS)
