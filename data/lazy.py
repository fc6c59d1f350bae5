"""Arrays that stay in their file until a region of them is asked for."""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class LazyArray:
    """The voxels of a volume on disk: `lazy[z0:z1, y0:y1, x0:x1]` reads a region, `np.asarray(lazy)` all of them.

    Nothing is held open between two reads, so that it can be pickled into other processes.

    Attributes:
      path: the file or folder, for messages.
      shape: [Z, Y, X] or [Z, Y, X, C].
      dtype: of what is read; native byte order.
      read: function of three slices (z, y, x; step 1, within the shape) to that region, with all its channels.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[tuple[slice, slice, slice]], np.ndarray]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key) -> np.ndarray:
        """Reads a region.

        Args:
          key: up to three slices of step 1, for z, y and x; as in NumPy they may reach beyond the volume.

        Returns:
          [z, y, x] or [z, y, x, C], C-contiguous, in memory; of size 0 where a slice is empty.

        Raises:
          InputError: the file is damaged there, or the region does not fit in memory.
        """
        region = _region(key, self.shape)
        sizes = (*(part.stop - part.start for part in region), *self.shape[3:])
        check_memory(self.path, sizes, self.dtype)
        if 0 in sizes:
            return np.empty(sizes, self.dtype)
        with library_errors(self.path):
            values = np.ascontiguousarray(self.read(region), dtype=self.dtype)
        if values.shape != sizes:
            raise InputError(f"{self.path}: expected {sizes} voxels at {region}, got {values.shape}")
        return values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = self[:, :, :]
        return values if dtype is None else values.astype(dtype, copy=False)


def _region(key, shape):
    """Three slices with a start and a stop from what stands between the brackets."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) > 3 or not all(isinstance(part, slice) and part.step in (None, 1) for part in keys):
        raise TypeError(f"expected up to three slices of step 1 (z, y, x), got {key!r}")
    keys = (*keys, *(slice(None),) * (3 - len(keys)))
    bounds = (part.indices(size)[:2] for part, size in zip(keys, shape[:3], strict=True))
    return tuple(slice(start, max(start, stop)) for start, stop in bounds)


def mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int, axes: tuple[int, ...]) -> LazyArray:
    """Voxels that lie in a file as they lie in memory.

    Args:
      path: the file.
      dtype: as stored, with its byte order.
      shape: as stored, C order.
      offset: of the first voxel, bytes.
      axes: which stored axis becomes z, y, x (and c).

    Raises:
      InputError: the file is shorter than that.
    """
    check_bytes(path, offset + math.prod(shape) * dtype.itemsize, os.path.getsize(path))
    read = functools.partial(_read_mapped, path, dtype, shape, offset, axes)
    return LazyArray(path, tuple(shape[axis] for axis in axes), dtype.newbyteorder("="), read)


def _read_mapped(path, dtype, shape, offset, axes, region):
    np.memmap(path, dtype, "r", offset, shape)  # raises where the file has been cut meanwhile
    spans = (*region, *(slice(0, shape[axis]) for axis in axes[3:]))
    values = np.empty([part.stop - part.start for part in spans], dtype)
    slowest, others = axes.index(0), [axis - 1 for axis in axes if axis != 0]
    inside = tuple(part for axis, part in zip(axes, spans, strict=True) if axis != 0)
    plane_bytes = math.prod(shape[1:]) * dtype.itemsize
    # Plane by plane: what is mapped counts as memory, in pages that may be larger than what is read of a plane.
    for plane, number in zip(
        np.moveaxis(values, slowest, 0), range(spans[slowest].start, spans[slowest].stop), strict=True
    ):
        plane[:] = np.memmap(path, dtype, "r", offset + number * plane_bytes, shape[1:]).transpose(others)[inside]
    return values


def check_bytes(path: Path, expected: int, num_bytes: int) -> None:
    """InputError where a file has fewer bytes than its header promises."""
    if num_bytes < expected:
        raise InputError(f"{path}: truncated: expected {expected} bytes, got {num_bytes}")


def check_memory(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """InputError where an array is larger than the machine's memory: a damaged header, or one to be read lazily."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if num_bytes > memory:
        raise InputError(
            f"{path}: expected voxels that fit in {memory / 1e9:.1f} GB of memory, got sizes {tuple(shape)} of "
            f"{dtype}, {num_bytes / 1e9:.1f} GB"
        )


@contextlib.contextmanager
def library_errors(path: Path, what: str = "a volume") -> Iterator[None]:
    """Turns what a library happens to trip over in a damaged file into one line, without its place in the source."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        message = lines[-1] if lines else type(error).__name__
        raise InputError(f"{path}: cannot be read as {what}: {message}") from error
