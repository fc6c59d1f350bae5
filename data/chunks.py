"""Cases in overlapping pieces of bounded size, such that every training patch lies whole inside one piece."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from data import slabs
from data.cases import Case


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A piece of a case: what one record holds.

    Attributes:
      case: the piece, a Case of its own: its instances are 1..N, its landmarks and its affine count from its corner.
      origin: [3] its corner in the case, voxels.
      case_shape: [3] of the case, voxels.
      number: which piece of the case this is, from 0.
      count: how many pieces the case has.
      instance_numbers: [N] int64, the number that each instance has in the whole case, ascending.
      intensity: [C, S] float32 statistics of the whole case, see data/statistics.py.
    """

    case: Case
    origin: tuple[int, int, int]
    case_shape: tuple[int, int, int]
    number: int
    count: int
    instance_numbers: np.ndarray
    intensity: np.ndarray


def regions(shape, chunk_size, overlap):
    """The regions of a case's chunks, in the order of their records: the last axis varies fastest.

    An axis no longer than the chunk is not cut. Otherwise it has the fewest chunks of full length of which neighbours
    share at least `overlap` voxels; the last one ends with the case. So every patch of `overlap` + 1 voxels, or fewer,
    lies whole inside one of them.

    Args:
      shape: [3] voxels of the case.
      chunk_size: [3] voxels.
      overlap: [3] voxels, patch size - 1.

    Returns:
      List of three slices each.

    Raises:
      ValueError: a chunk that is no longer than the overlap, on an axis that has to be cut.
    """
    return list(itertools.product(*map(_cuts, shape, chunk_size, overlap)))


def whole(case: Case, intensity: np.ndarray) -> Chunk:
    """The only chunk of a case, with its statistics."""
    numbers = np.arange(1, len(case.class_ids) + 1)
    return Chunk(case, (0, 0, 0), case.volume.array.shape[:3], 0, 1, numbers, intensity)


def cut(case: Case, region, number: int, count: int, intensity: np.ndarray) -> Chunk:
    """One chunk of a case, whose arrays may stay on disk: only the region is read.

    Args:
      case: instance ids 1..N.
      region: three slices, from `regions`.
      number: the position of the region among all.
      count: the number of regions.
      intensity: of the whole case.
    """
    ids = case.instance_ids[region]
    numbers, _ = slabs.present([ids])
    origin = np.array([part.start for part in region])
    affine = case.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ origin
    piece = replace(
        case,
        volume=replace(case.volume, array=case.volume.array[region], affine=affine),
        instance_ids=slabs.renumbered(ids, numbers),
        class_ids=case.class_ids[numbers - 1],
        attributes=case.attributes[numbers - 1],
        keypoints=case.keypoints[numbers - 1] - origin.astype(np.float32),
    )
    shape = case.volume.array.shape[:3]
    return Chunk(piece, tuple(origin.tolist()), shape, number, count, numbers, intensity)


def _cuts(length, size, overlap):
    """Slices of one axis."""
    if length <= size:
        return [slice(0, length)]
    if size <= overlap:
        raise ValueError(f"chunk_size {size} must be larger than the overlap {overlap} (patch_size - 1)")
    count = -(-(length - overlap) // (size - overlap))
    starts = [min(i * (size - overlap), length - size) for i in range(count)]
    return [slice(start, start + size) for start in starts]
