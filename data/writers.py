"""Volumes to files that other programs open in the right place."""

import os
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile

from data.atomic import replacing
from data.errors import InputError
from data.readers import read_volume, spacing_affine, volume_suffix


def write_labels(path: str | os.PathLike, labels: np.ndarray, like: str | os.PathLike) -> None:
    """Writes a label volume in the format and on the grid of its source file.

    Ids keep their values, in the smallest unsigned dtype that holds them. The NPZ keys are "labels"
    and "spacing".

    Args:
      path: the output, of the same format as `like`; replaced only when complete.
      labels: [Z, Y, X] int32, 0 is background; all 0 is valid.
      like: the image that the labels belong to.

    Raises:
      InputError: `path` names another format than `like`, or `like` cannot be read.
      ValueError: `labels` are not ids on the grid of `like`.
    """
    if _format(path) != _format(like):
        raise InputError(f"{path}: expected the format of its source {like}")
    source = read_volume(like)
    if labels.shape != source.array.shape[:3]:
        raise ValueError(f"labels {labels.shape} must have the shape {source.array.shape} of {like}")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels must be integers from 0, got {labels.dtype} from {labels.min()}")
    labels = labels.astype(np.min_scalar_type(labels.max()))
    _write(path, labels, source.spacing, source.affine, key="labels")


def write_volume(path: str | os.PathLike, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Writes an image or label volume to .nii, .nii.gz, .tif, .tiff or .npz, by the name of `path`.

    Args:
      path: the output; replaced only when complete.
      array: [Z, Y, X] or [Z, Y, X, C]; bool is written as uint8.
      spacing: mm along z, y, x. The first voxel's centre is the world's origin, the axes are LPS.

    Raises:
      InputError: unsupported format.
    """
    if array.ndim not in (3, 4):
        raise ValueError(f"array must be [Z, Y, X] or [Z, Y, X, C], got shape {array.shape}")
    array = array.astype(np.uint8) if array.dtype == bool else array
    spacing = np.asarray(spacing, np.float64)
    if not (np.all(spacing > 0) and np.all(np.isfinite(spacing))):
        raise ValueError(f"spacing must be finite and above 0, got {spacing.tolist()}")
    _write(path, array, spacing, spacing_affine(spacing), key="image")


def _format(path):
    return {".nii.gz": "nifti", ".nii": "nifti", ".npz": "npz"}.get(volume_suffix(path), "tiff")


def _write(path, array, spacing, affine, *, key):
    file_format = _format(path)
    with replacing(path) as temporary:
        if file_format == "nifti":
            _write_nifti(temporary, array, spacing, affine)
        elif file_format == "tiff":
            _write_tiff(temporary, array, spacing)
        else:
            np.savez_compressed(temporary, **{key: array, "spacing": spacing})


def _write_nifti(path, array, spacing, affine):
    num_axes = array.ndim
    if num_axes == 4:
        array = np.moveaxis(array, -1, 0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=False)
    direction = np.eye(num_axes)
    direction[:3, :3] = (affine[:3, :3] / spacing)[:, ::-1]
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing([*spacing[::-1].tolist(), 1.0][:num_axes])
    image.SetOrigin([*affine[:3, 3].tolist(), 0.0][:num_axes])
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # What SimpleITK raises where a file cannot be made.
        raise OSError(f"{path}: cannot be written: {str(error).splitlines()[-1]}") from error


def _write_tiff(path, array, spacing):
    """ImageJ metadata where it can say what there is, because more programs read it than OME."""
    axes = "ZYX" if array.ndim == 3 else "ZCYX"
    array = array if array.ndim == 3 else np.moveaxis(array, -1, 1)
    z, y, x = (spacing * 1e3).tolist()  # micrometres
    if _imagej_holds(path, array):
        metadata = {"axes": axes, "spacing": z, "unit": "um"}
        options = {"imagej": True, "resolution": (1 / x, 1 / y)}
    else:
        metadata = {"axes": axes, "PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
        options = {"ome": True}
    tifffile.imwrite(path, array, metadata=metadata, compression="zlib", **options)


def _imagej_holds(path, array):
    """ImageJ knows three dtypes and 4 GB, and does not tell one slice from a flat image."""
    return (
        ".ome." not in Path(path).name.lower()
        and array.dtype in (np.uint8, np.uint16, np.float32)
        and array.nbytes < 2**32 - 2**20
        and min(array.shape) > 1
    )
