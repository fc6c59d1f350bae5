"""Volumes of numbers piece by piece along z, so that what is worked on at a time is small: counted, numbered anew."""

import math

import numpy as np

_TABLE = 2**24  # Numbers below this are looked up in a table, larger ones are searched for.


def of_shape(shape, voxels):
    """Regions (three slices) that cover a volume in z order, each of at most so many voxels, or one plane."""
    depth = max(1, voxels // math.prod(shape[1:3]))
    plane = slice(0, shape[1]), slice(0, shape[2])
    return [(slice(z, min(z + depth, shape[0])), *plane) for z in range(0, shape[0], depth)]


def voxel_counts(ids: np.ndarray, count: int) -> np.ndarray:
    """[count] int64 voxels of each of the ids 1..count of a volume [Z, Y, X], which holds no other above 0."""
    # A plane at a time: bincount makes int64 of what it counts. Without 0: long runs of one number are slow.
    depth = 1 + count // ids[0].size
    parts = (ids[z : z + depth] for z in range(0, len(ids), depth))
    return sum(np.bincount(part[part > 0], minlength=count + 1) for part in parts)[1:]


def present(slabs) -> tuple[np.ndarray, np.ndarray]:
    """The numbers above 0 of a volume, and their voxels.

    Args:
      slabs: [z, Y, X] unsigned integers, any number of times; those of 64 bits only where they have to be.

    Returns:
      [M] int64 numbers, ascending, and [M] int64 voxels of each.
    """
    total = {}
    for slab in slabs:
        for number, count in zip(*(values.tolist() for values in _present(slab)), strict=True):
            total[number] = total.get(number, 0) + count
    numbers = np.array(sorted(total), np.int64)
    return numbers, np.array([total[number] for number in numbers.tolist()], np.int64)


def renumbered(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The position from 1 of each value among some numbers, and 0 for others.

    Args:
      values: [z, Y, X] integers from 0, unsigned ones of 64 bits only where they have to be.
      numbers: [M] int64 above 0, ascending.

    Returns:
      [z, Y, X] unsigned integers of the least size; `values` themselves where nothing changes.
    """
    highest, count = int(values.max()), len(numbers)
    if highest <= count and (count == 0 or numbers[-1] == count):
        return values
    dtype = np.min_scalar_type(count)
    if highest < _TABLE:
        table = np.zeros(highest + 1, dtype)
        within = numbers[numbers <= highest]
        table[within] = np.arange(1, len(within) + 1)
    found = np.empty(values.shape, dtype)
    for plane, into in zip(values, found, strict=True):
        if highest < _TABLE:
            np.take(table, plane, out=into, mode="clip")  # All are within; "raise" would make a copy.
        else:
            plane = plane.astype(np.int64)  # NumPy would search for unsigned numbers among others as float64.
            place = np.searchsorted(numbers, plane)
            into[...] = np.where(np.append(numbers, -1)[place] == plane, place + 1, 0)
    return found


def _present(values):
    highest = int(values.max())
    if highest > values.size:  # A table would be larger than the volume.
        return np.unique(values[values > 0], return_counts=True)
    counts = voxel_counts(values, highest)
    numbers = np.flatnonzero(counts)
    return numbers + 1, counts[numbers]
