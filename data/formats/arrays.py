"""NumPy's own files: .npy, which may stay on disk, and .npz."""

import zipfile

import numpy as np

from data import lazy
from data.errors import InputError
from data.formats import geometry

NPZ_NAMES = ("image", "labels")


def read_npy(path):
    """A volume [Z, Y, X(, C)]; the file states no spacing: 1 mm."""
    # The map also compares the length of the file with its header, before anything is allocated.
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    backwards = not stored.flags.c_contiguous
    shape, axes = stored.shape, tuple(range(stored.ndim))
    if backwards:
        shape, axes = shape[::-1], axes[::-1]
    return lazy.mapped(path, stored.dtype, shape, stored.offset, axes), np.ones(3), None


def read_npz(path):
    """The only array beside "spacing" ([3] mm, z, y, x; 1 where there is none), or "image" or "labels"; read whole."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: expected an NPZ archive, got something else or a part of one")
    with np.load(path, allow_pickle=False) as archive:
        names = [name for name in archive.files if name != "spacing"]
        for member in archive.zip.infolist():
            lazy.check_memory(path, (member.file_size,), np.uint8)
        array = archive[geometry.only_one(path, "array", names, NPZ_NAMES)]
        spacing = archive["spacing"] if "spacing" in archive.files else np.ones(3)
    return array, geometry.length_of_3(path, "spacing", spacing), None
