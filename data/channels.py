"""An image whose channels lie in several files."""

import functools

import numpy as np

from data.errors import GridError
from data.lazy import LazyArray
from data.readers import Volume


def stack_channels(volumes: dict[str, Volume]) -> Volume:
    """One volume with the channels of all.

    Args:
      volumes: name of the file, for messages, to volume, in the order of the channels; one or more.

    Returns:
      [Z, Y, X, C] in the dtype that holds all of them, on the grid of the first; lazy where any of them is.

    Raises:
      GridError: they do not lie on one grid.
    """
    (name, first), *others = volumes.items()
    for other_name, other in others:
        check_same_grid(name, first, other_name, other)
    arrays = tuple(volume.array for volume in volumes.values())
    dtype = np.result_type(*(array.dtype for array in arrays))
    if not any(isinstance(array, LazyArray) for array in arrays):
        return Volume(_stacked(arrays).astype(dtype, copy=False), first.spacing, first.affine)
    channels = sum(1 if array.ndim == 3 else array.shape[3] for array in arrays)
    path = next(array.path for array in arrays if isinstance(array, LazyArray))
    array = LazyArray(path, (*arrays[0].shape[:3], channels), dtype, functools.partial(_read_stacked, arrays))
    return Volume(array, first.spacing, first.affine)


def check_same_grid(name: str, volume: Volume, other_name: str, other: Volume) -> None:
    """GridError where two volumes differ in shape, or in spacing, orientation or origin by a tenth of a voxel.

    Formats that know no world (TIFF, HDF5, NPY, NPZ) lie at the world's origin.
    """
    names = f"{name} and {other_name}"
    if volume.array.shape[:3] != other.array.shape[:3]:
        raise GridError(
            f"{names}: expected one shape, got {volume.array.shape[:3]} and {other.array.shape[:3]} (z, y, x)"
        )
    # Where the other's far corner and its origin lie on this grid, in voxels.
    difference = np.linalg.solve(volume.affine, other.affine) - np.eye(4)
    corners = np.array([[0, 0, 0, 1], [*volume.array.shape[:3], 1]], float)
    if np.abs(difference[:3] @ corners.T).max() > 0.1 or np.abs(difference[:3, :3]).max() > 0.1:
        raise GridError(
            f"{names}: expected one grid, got the affines {np.round(volume.affine, 4).tolist()} and "
            f"{np.round(other.affine, 4).tolist()}"
        )


def _stacked(arrays):
    return np.concatenate([array if array.ndim == 4 else array[..., np.newaxis] for array in arrays], axis=-1)


def _read_stacked(arrays, region):
    return _stacked([array[region] for array in arrays])
