"""TIFF, ImageJ and OME-TIFF stacks, mapped where they are contiguous and else read page by page."""

import contextlib
import functools
import logging
import math
import threading
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import tifffile

from data.errors import InputError
from data.formats import geometry
from data.lazy import LazyArray, check_bytes, check_memory, mapped

_RESOLUTION_UNITS = {1: "", 2: "inch", 3: "cm"}


def read(path):
    """Reads the only image series of a TIFF.

    The spacing comes from the OME metadata, or else from ImageJ's `spacing` and `unit` and the
    resolution tags. A z spacing that neither OME nor a plain TIFF states is taken as that of x;
    lengths without a unit are taken as mm, and a file that states none has 1.
    """
    with _logged_errors(path), tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            raise InputError(f"{path}: expected one image series, got {len(tiff.series)}")
        series = tiff.series[0]
        shape = series.get_shape(squeeze=False)
        axes = _volume_axes(path, shape, series.get_axes(squeeze=False), named=series.kind == "ome")
        array = _voxels(path, series, shape, axes)
        spacing = _ome_spacing(path, tiff) if tiff.is_ome else _tag_spacing(path, tiff)
    return array, spacing, None


def _voxels(path, series, shape, axes):
    """The voxels of a series in z, y, x(, c) order: on disk where they lie together or page by page, else in memory.

    Args:
      path: the file.
      series: of tifffile.
      shape: its axes, those of size 1 too.
      axes: which of them becomes z, y, x (and c); the others have size 1.
    """
    stored = sorted(axes)
    order = tuple(stored.index(axis) for axis in axes)
    sizes = tuple(shape[axis] for axis in stored)
    dtype = series.dtype.newbyteorder(series.parent.byteorder)
    if series.transform is None and all(page is not None and page.parent is series.parent for page in series.pages):
        if series.dataoffset is not None:
            return mapped(path, dtype, sizes, series.dataoffset, order)
        if len(series.pages) == math.prod(shape[: axes[1]]) and axes[0] < axes[1] == axes[2] - 1:
            return _paged(path, series, shape, axes)
    check_memory(path, sizes, dtype)
    return series.asarray(squeeze=False).reshape(sizes).transpose(order)


def _paged(path, series, shape, axes):
    """The voxels of a series in which each page is one slice, of one channel or with all its samples."""
    check_bytes(path, max(sum(_last_segment(page)) for page in series.pages), series.parent.filehandle.size)
    leading = [axis for axis in axes if axis < axes[1]]
    stored = sorted(leading)
    numbers = np.arange(len(series.pages)).reshape([shape[axis] for axis in stored])
    numbers = numbers.transpose([stored.index(axis) for axis in leading])
    num_samples = tuple(shape[axis] for axis in axes[3:] if axis > axes[2])
    dtype = series.dtype.newbyteorder("=")
    read = functools.partial(_read_pages, path, numbers, num_samples, dtype)
    return LazyArray(path, tuple(shape[axis] for axis in axes), dtype, read)


def _last_segment(page):
    """Offset and length in bytes of the part of a page that lies last in the file."""
    return max(zip(page.dataoffsets, page.databytecounts, strict=True), default=(0, 0))


def _read_pages(path, numbers, num_samples, dtype, region):
    """A region of a stack; `numbers` [Z] or [Z, C] tells the page of each slice, or of each of its channels."""
    numbers, rows, columns = numbers[region[0]], *region[1:]
    sizes = (len(numbers), rows.stop - rows.start, columns.stop - columns.start)
    values = np.empty((*sizes, *numbers.shape[1:], *num_samples), dtype)
    with _logged_errors(path), tifffile.TiffFile(path) as tiff:
        pages = tiff.series[0].pages
        for (z, *channel), number in np.ndenumerate(numbers):
            values[(z, slice(None), slice(None), *channel)] = pages[number].asarray()[rows, columns]
    return values


@contextlib.contextmanager
def _logged_errors(path) -> Iterator[None]:
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
    except InputError:
        if not records:  # What was lost explains what was found.
            raise
    finally:
        logger.removeFilter(take)
    if records:
        raise InputError(f"{path}: damaged or truncated: {records[0].getMessage()}")


def _volume_axes(path, shape, axes, *, named):
    """Which axes of a TIFF are z, y, x and, where there is one, the channel or time axis.

    Args:
      path: the file, for messages.
      shape: its sizes.
      axes: one letter per axis: Z, Y, X, C channel, T time, S sample, I page, Q unknown.
      named: whether the letters are to be believed. Only OME always tells slices from channels;
        elsewhere a stack that has no slices but many channels or frames is a stack of slices.
    """
    kept = [i for i, axis in enumerate(axes) if axis in "ZQYX" or shape[i] != 1]
    stacks = [axes[i] for i in kept if axes[i] not in "YXS"]
    if not named and len(stacks) == 2 and "Z" in stacks and shape[axes.index("Z")] == 1:
        kept.remove(axes.index("Z"))
        stacks.remove("Z")
    names = "".join(axes[i] for i in kept)
    if len(stacks) == 1:
        names = names.replace(stacks[0], "Z")
    rest = [name for name in names if name not in "ZYX"]
    if sorted(names) != sorted(["X", "Y", "Z", *rest]) or len(rest) > 1:
        raise InputError(
            f"{path}: expected the axes z, y, x and at most one more, got {names} of sizes "
            f"{tuple(shape[i] for i in kept)} (C channel, T time, S sample, I page, Q not named)"
        )
    return tuple(kept[names.index(name)] for name in ["Z", "Y", "X", *rest])


def _ome_spacing(path, tiff):
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    sizes = [_ome_length(path, pixels, axis) for axis in "ZYX"]
    default = 1.0 if sizes[-1] is None else sizes[-1]
    return np.array([default if size is None else size for size in sizes])


def _ome_length(path, pixels, axis):
    size = pixels.get(f"PhysicalSize{axis}")
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")  # The default of the OME schema.
    return None if size is None else float(size) * geometry.millimetres(path, unit)


def _tag_spacing(path, tiff):
    tags = tiff.pages[0].tags
    imagej = tiff.imagej_metadata if tiff.is_imagej else {}
    unit = imagej.get("unit", _RESOLUTION_UNITS[int(tags.valueof("ResolutionUnit", default=1))])
    y, x = (_pixel_size(path, tags, f"{axis}Resolution") for axis in "YX")
    z = float(imagej.get("spacing", 1.0)) if imagej else x  # ImageJ leaves out a spacing of 1.
    return np.array([z, y, x]) * geometry.millimetres(path, unit)


def _pixel_size(path, tags, name):
    pixels, units = tags.valueof(name, default=(1, 1))
    if pixels == 0:
        raise InputError(f"{path}: expected a {name} above 0, got {pixels}/{units}")
    return units / pixels
