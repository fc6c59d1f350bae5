"""HDF5: one volume [Z, Y, X(, C)] of a file, read region by region."""

import functools

import h5py
import numpy as np

from data.errors import InputError
from data.formats import geometry
from data.lazy import LazyArray

NAMES = ("image", "labels", "volume", "raw")


def read(path):
    """The only dataset with 3 or 4 axes, or the only one of that kind which has one of NAMES.

    The spacing (z, y, x) is the attribute `spacing` in mm, or `element_size_um` in micrometres, of the dataset or
    else of the file; 1 mm where neither says it.

    Raises:
      InputError: no such dataset or several, or one that keeps its voxels in another file.
    """
    with _open(path) as file:
        dataset = file[_dataset_name(path, file)]
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{path}: expected voxels in this file, got {dataset.name}, which points to others")
        spacing = _spacing(path, dataset.attrs, file.attrs)
        dtype = dataset.dtype.newbyteorder("=")
        array = LazyArray(path, dataset.shape, dtype, functools.partial(_read_region, path, dataset.name))
    return array, spacing, None


def _open(path):
    # A file on a read-only disk cannot be locked, and need not be.
    return h5py.File(path, "r", locking="best-effort")


def _read_region(path, name, region):
    with _open(path) as file:
        return file[name][region]


def _dataset_name(path, file):
    names = []

    def visit(name, item):  # Passes over links to other files.
        if isinstance(item, h5py.Dataset) and item.ndim in (3, 4):
            names.append(name)

    file.visititems(visit)
    return geometry.only_one(path, "dataset with 3 or 4 axes", names, NAMES)


def _spacing(path, *attributes):
    for attrs in attributes:
        for name, mm in (("spacing", 1.0), ("element_size_um", 1e-3)):
            if name in attrs:
                return geometry.length_of_3(path, name, attrs[name]) * mm
    return np.ones(3)
