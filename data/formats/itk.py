"""NIfTI, NRRD and MetaImage: geometry by SimpleITK, voxels on disk where they are not compressed."""

import contextlib
from collections.abc import Iterator

import numpy as np
import SimpleITK

from data import lazy
from data.errors import InputError
from data.formats import geometry, itk_headers


def read_nifti(path):
    """A NIfTI-1 file, .nii or .nii.gz."""
    return _read(path, "NiftiImageIO", itk_headers.nifti(path))


def read_nrrd(path):
    """An NRRD file, .nrrd or .nhdr with its data file."""
    return _read(path, "NrrdImageIO", itk_headers.nrrd(path))


def read_meta(path):
    """A MetaImage file, .mha or .mhd with its data file."""
    return _read(path, "MetaImageIO", itk_headers.meta(path))


def _read(path, image_io, stored):
    """Array, spacing and affine; a fourth axis and vector voxels are channels.

    Args:
      path: the file, whose header has been checked.
      image_io: SimpleITK's name of the format.
      stored: itk_headers.Stored where the voxels lie in a file as they are, or None.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    with _shear(path):
        reader.ReadImageInformation()
        num_axes, sizes = reader.GetDimension(), reader.GetSize()
        if num_axes not in (3, 4):
            raise InputError(f"{path}: expected 3 or 4 axes, got sizes {sizes} (x, y, ...)")
        components = reader.GetNumberOfComponents()
        shape = sizes[::-1] if components == 1 else (*sizes[::-1], components)
        if stored is not None and stored.shape == shape:
            axes = (0, 1, 2, 3)[: len(shape)] if num_axes == 3 else (1, 2, 3, 0)
            array = lazy.mapped(stored.path, stored.dtype, shape, stored.offset, axes)
        else:
            lazy.check_memory(path, shape, np.uint8)
            array = SimpleITK.GetArrayFromImage(reader.Execute())
            array = np.moveaxis(array, 0, -1) if num_axes == 4 else array
    spacing = np.array(reader.GetSpacing()[2::-1])
    geometry.check_spacing(path, spacing)
    # The columns of the direction are those of the x, y and z axis.
    direction = np.reshape(reader.GetDirection(), (num_axes, -1))[:3, 2::-1]
    return array, spacing, geometry.direction_affine(path, spacing, direction, np.array(reader.GetOrigin()[:3]))


@contextlib.contextmanager
def _shear(path) -> Iterator[None]:
    """Says in our words what SimpleITK says of a NIfTI file with a sheared sform."""
    try:
        yield
    except RuntimeError as error:
        if "orthonormal" not in str(error):
            raise
        raise InputError(
            f"{path}: expected voxel axes at right angles, got a sheared sform and no qform; "
            "resample it to an orthogonal grid"
        ) from error
