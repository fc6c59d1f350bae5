"""Any volume file or folder to one array in z, y, x order with its spacing and its place in the world."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.formats import arrays, dicom, hdf5, itk, ome_zarr, tiff
from data.formats.geometry import check_sizes, check_spacing, spacing_affine
from data.lazy import LazyArray, check_memory, library_errors


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An image or label volume on its grid.

    Attributes:
      array: [Z, Y, X] or [Z, Y, X, C], the file's own dtype in native byte order: C-contiguous in memory, or on disk.
      spacing: [3] float64, mm between voxel centres along z, y, x.
      affine: [4, 4] float64, voxel index (z, y, x, 1) to world (x, y, z, 1) in mm, LPS; index 0 is
        the centre of the first voxel. TIFF, HDF5, NPY and NPZ know no world: their affine holds the spacing. So it
        does for OME-Zarr, whose world axes are taken as LPS, with its translation.
    """

    array: np.ndarray | LazyArray
    spacing: np.ndarray
    affine: np.ndarray


def read_volume(path: str | os.PathLike, lazy: bool = False) -> Volume:
    """Reads a volume of any of SUFFIXES, or a folder with one DICOM series.

    Channels, samples or time points of a four-axis file become the last axis.

    Args:
      path: the file or folder.
      lazy: leave the voxels on disk, see data/lazy.py: OME-Zarr, HDF5 and NPY, uncompressed NIfTI, NRRD, MetaImage
        and TIFF by regions; DICOM series and other TIFF slice by slice. Other files (gzip, NPZ, a NIfTI with a
        scale) are read whole.

    Raises:
      InputError: the file is missing, damaged, not what its name says or of no supported format; it
        has not 3 or 4 axes, an axis of size 0, values that are not real numbers, a spacing
        that is not finite and positive, voxel axes that are not at right angles, or does not fit in memory.
    """
    path = Path(path)
    suffix = volume_suffix(path)
    _check_kind(path, suffix)
    with library_errors(path, suffix):  # A damaged file raises whatever its library happens to trip over.
        array, spacing, affine = _READERS[suffix](path)
    _check_array(path, array)
    check_spacing(path, spacing)
    if not (lazy and isinstance(array, LazyArray)):
        check_memory(path, array.shape, array.dtype)
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    affine = spacing_affine(spacing) if affine is None else affine
    return Volume(array, np.asarray(spacing, np.float64), affine)


def volume_suffix(path: str | os.PathLike) -> str:
    """The format of a volume by its name: the one of SUFFIXES it ends with, in lower case.

    A folder of another name is ".zarr" where it is a part of a zarr store, and else ".dcm", a DICOM series.
    """
    path = Path(path)
    name = path.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    if path.is_dir():
        return ".zarr" if ome_zarr.is_zarr(path) else ".dcm"
    raise InputError(f"{path}: expected a volume file ({', '.join(SUFFIXES)}), got {name!r}")


def case_stem(path: str | os.PathLike) -> str:
    """The file's name without its format: "a" for "a.nii.gz", "a.ome.tif" and "a"."""
    name = Path(path).name
    for suffix in (".ome.tif", ".ome.tiff", *SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _check_kind(path, suffix):
    """Refuses a folder where a file is expected, and the reverse; DICOM may be either."""
    if suffix in _FOLDERS:
        if not path.is_dir():
            found = "a file" if path.exists() else "nothing at that path"
            raise InputError(f"{path}: expected a {suffix} folder, got {found}")
    elif not path.is_file() and not (suffix == ".dcm" and path.is_dir()):
        found = "a folder" if path.is_dir() else "nothing at that path"
        raise InputError(f"{path}: expected a volume file, got {found}")


def _check_array(path, array):
    if array.ndim not in (3, 4):
        raise InputError(f"{path}: expected 3 or 4 axes, got {array.ndim} of sizes {array.shape}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected integer or real voxels, got {array.dtype}")
    check_sizes(path, array.shape)


_FOLDERS = (".ome.zarr", ".zarr")
_READERS = {
    ".nii.gz": itk.read_nifti,
    ".nii": itk.read_nifti,
    ".nrrd": itk.read_nrrd,
    ".nhdr": itk.read_nrrd,
    ".mha": itk.read_meta,
    ".mhd": itk.read_meta,
    ".dcm": dicom.read,
    ".tif": tiff.read,
    ".tiff": tiff.read,
    ".ome.zarr": ome_zarr.read,
    ".zarr": ome_zarr.read,
    ".h5": hdf5.read,
    ".hdf5": hdf5.read,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
}
SUFFIXES = tuple(_READERS)
