"""What the header of a volume file says, without reading its voxels where the format allows it."""

import contextlib
import math
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK

from data.formats.arrays import NPZ_NAMES
from data.readers import read_volume, volume_suffix

_ITK = (".nii.gz", ".nrrd", ".mha")


class Header(NamedTuple):
    """A volume's [3] voxels (z, y, x), channels, bytes per voxel and channel, and [3] mm (z, y, x)."""

    shape: tuple[int, int, int]
    channels: int
    item_bytes: int
    spacing: tuple[float, float, float]


def read_header(path: Path) -> Header:
    """The header of a volume of any format; InputError as `data.readers.read_volume`."""
    suffix = volume_suffix(path)
    with contextlib.suppress(Exception):  # A damaged file raises whatever its library trips over: the reader words it.
        if suffix in _ITK:
            return _itk(path)
        if suffix == ".npz":
            return _npz(path)
    volume = read_volume(path, lazy=True)
    return of_array(volume.array, volume.spacing)


def of_array(array, spacing) -> Header:
    """The header of a volume in memory, or of one that is left on disk."""
    channels = math.prod(array.shape[3:])
    return Header(tuple(array.shape[:3]), channels, array.dtype.itemsize, tuple(map(float, spacing)))


def _itk(path):
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    sizes, channels = reader.GetSize(), reader.GetNumberOfComponents()
    channels *= sizes[3] if len(sizes) == 4 else 1
    # "16-bit signed integer", "vector of 32-bit float"
    bits = re.search(r"(\d+)-bit", SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())).group(1)
    return Header(tuple(sizes[2::-1]), channels, int(bits) // 8, tuple(reader.GetSpacing()[2::-1]))


def _npz(path):
    """Shape and dtype from the head of the array in the archive."""
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()} - {"spacing"}
        (name,) = names if len(names) == 1 else names & set(NPZ_NAMES)
        with archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    with np.load(path, allow_pickle=False) as archive:
        spacing = archive["spacing"] if "spacing" in archive.files else np.ones(3)
    return Header(shape[:3], math.prod(shape[3:]), dtype.itemsize, tuple(spacing.tolist()))
