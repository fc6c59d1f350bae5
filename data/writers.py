"""Volumes to files that other programs open in the right place."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import SimpleITK
import tifffile

from data.atomic import replacing, replacing_folder
from data.errors import InputError
from data.readers import read_volume, spacing_affine, volume_suffix

_CHUNK = 64  # voxels along each axis of a chunk of OME-Zarr


def labels_suffix(like: str | os.PathLike) -> str:
    """The suffix in which labels of an image are written: its own format, in one file.

    Of a DICOM series they are written as NRRD, which keeps every orientation: a DICOM segmentation has to name each
    of its segments in a coded terminology, which a model does not know.
    """
    suffix = volume_suffix(like)
    return {".dcm": ".nrrd", ".nhdr": ".nrrd", ".mhd": ".mha"}.get(suffix, suffix)


def write_labels(path: str | os.PathLike, labels: np.ndarray, like: str | os.PathLike) -> None:
    """Writes a label volume in the format and on the grid of its source file.

    Ids keep their values, in the smallest unsigned dtype that holds them. The NPZ keys are "labels"
    and "spacing", the HDF5 dataset is "labels"; NPY holds no spacing.

    Args:
      path: the output, of the format of `labels_suffix(like)`; a file is replaced only when complete, an OME-Zarr
        folder must be new.
      labels: [Z, Y, X] int32, 0 is background; all 0 is valid.
      like: the image that the labels belong to.

    Raises:
      InputError: `path` names another format than that of `like`, or `like` cannot be read.
      ValueError: `labels` are not ids on the grid of `like`.
    """
    if _format(path) != _format(f"labels{labels_suffix(like)}"):
        raise InputError(f"{path}: expected the format of its source {like} ({labels_suffix(like)})")
    source = read_volume(like, lazy=True)
    if labels.shape != source.array.shape[:3]:
        raise ValueError(f"labels {labels.shape} must have the shape {source.array.shape} of {like}")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels must be integers from 0, got {labels.dtype} from {labels.min()}")
    labels = labels.astype(np.min_scalar_type(labels.max()))
    _write(path, labels, source.spacing, source.affine, key="labels")


def write_volume(path: str | os.PathLike, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Writes an image or label volume in the format that the name of `path` tells, one of `_WRITERS`.

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
    """The suffix that stands for all of one format."""
    suffix = volume_suffix(path)
    suffix = {".nii": ".nii.gz", ".tiff": ".tif", ".zarr": ".ome.zarr", ".hdf5": ".h5"}.get(suffix, suffix)
    if suffix not in _WRITERS:
        raise InputError(f"{path}: expected a format that is written ({', '.join(_WRITERS)}), got {suffix}")
    return suffix


def _write(path, array, spacing, affine, *, key):
    file_format = _format(path)
    with (replacing_folder if file_format == ".ome.zarr" else replacing)(path) as temporary:
        _WRITERS[file_format](temporary, array, spacing, affine, key)


def _write_npy(path, array, spacing, affine, key):
    np.save(path, array)


def _write_npz(path, array, spacing, affine, key):
    np.savez_compressed(path, **{key: array, "spacing": spacing})


def _write_hdf5(path, array, spacing, affine, key):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(key, data=array, compression="gzip", shuffle=True)
        dataset.attrs["spacing"] = spacing


def _write_zarr(path, array, spacing, affine, key):
    """OME-Zarr 0.4 with one level, https://ngff.openmicroscopy.org/0.4; channels come first there."""
    names = "zyx" if array.ndim == 3 else "czyx"
    array = array if array.ndim == 3 else np.moveaxis(array, -1, 0)
    axes = [
        {"name": "c", "type": "channel"} if name == "c" else {"name": name, "type": "space", "unit": "millimeter"}
        for name in names
    ]
    scale = [1.0, *spacing.tolist()][-array.ndim :]
    corner = [0.0, *affine[2::-1, 3].tolist()][-array.ndim :]
    transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": corner}]
    datasets = [{"path": "0", "coordinateTransformations": transformations}]
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    if key == "labels":
        attributes["image-label"] = {"version": "0.4"}
    (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}), encoding="utf-8")
    (path / ".zattrs").write_text(json.dumps(attributes, indent=1), encoding="utf-8")
    _write_zarr_array(path.resolve() / "0", array, [1, _CHUNK, _CHUNK, _CHUNK][-array.ndim :])


def _write_zarr_array(path, array, chunks):
    import tensorstore  # As in data/formats/ome_zarr.py.

    metadata = {
        "shape": array.shape,
        "chunks": np.minimum(chunks, array.shape).tolist(),
        "dtype": array.dtype.str,
        "compressor": {"id": "zlib", "level": 6},
        "dimension_separator": "/",
        "fill_value": 0,
    }
    kvstore = {"driver": "file", "path": f"{path}/"}
    store = tensorstore.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "create": True}).result()
    store.write(array).result()


def _write_itk(path, array, spacing, affine, key):
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


def _write_tiff(path, array, spacing, affine, key):
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


_WRITERS = {
    ".nii.gz": _write_itk,
    ".nrrd": _write_itk,
    ".mha": _write_itk,
    ".tif": _write_tiff,
    ".ome.zarr": _write_zarr,
    ".h5": _write_hdf5,
    ".npy": _write_npy,
    ".npz": _write_npz,
}
