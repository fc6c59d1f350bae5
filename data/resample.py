"""Volumes to another voxel size, region by region.

The outer corner of the grid stays where it is: voxel i of the new grid has its centre at (i + 0.5) * new / old of the
old grid, in voxels whose centres are at 0.5, 1.5, ... (so landmarks and boxes only scale).
"""

from dataclasses import replace

import numpy as np
import SimpleITK

from data import slabs
from data.cases import Case

_INTERPOLATORS = {"linear": SimpleITK.sitkLinear, "spline": SimpleITK.sitkBSpline}
# Old voxels around a region that its new ones depend on. The influence of a voxel on a cubic spline fades by
# 2 - sqrt(3) per voxel (Unser, "Splines: a perfect fit for signal and image processing", 1999): 0.268^16 < 1e-9.
_MARGIN = {"linear": 1, "spline": 16}


def new_shape(shape, spacing, target):
    """[3] voxels of the new grid: the nearest to the old extent, at least 1."""
    return tuple(max(1, int(np.floor(n * s / t + 0.5))) for n, s, t in zip(shape[:3], spacing, target, strict=True))


def new_affine(affine, spacing, target):
    """[4, 4] affine of the new grid; `affine`, `spacing` and `target` as in data.readers.Volume."""
    ratio = np.asarray(target, np.float64) / spacing
    changed = affine.copy()
    changed[:3, :3] = affine[:3, :3] * ratio
    changed[:3, 3] += affine[:3, :3] @ (0.5 * ratio - 0.5)
    return changed


def image_region(array, spacing, target, region, interpolation):
    """Voxels of a region of the resampled image.

    Args:
      array: [Z, Y, X] or [Z, Y, X, C] of the old grid, may be lazy; only what is needed is read.
      spacing: [3] mm, old.
      target: [3] mm, new.
      region: three slices of the new grid.
      interpolation: "linear", or "spline" (cubic; equals that of the whole volume to about 1e-9 of its range).

    Returns:
      The region in the dtype of `array`, integers rounded to the nearest and kept within their range.
    """
    ratio = np.asarray(target, np.float64) / spacing
    margin, sizes = _MARGIN[interpolation], array.shape[:3]
    start = np.array([part.start for part in region])
    stop = np.array([part.stop for part in region])
    low = np.maximum(np.floor((start + 0.5) * ratio - 0.5).astype(int) - margin, 0)
    high = np.minimum(np.ceil((stop - 0.5) * ratio - 0.5).astype(int) + margin + 1, sizes)
    block = array[tuple(map(slice, low, high))]
    # Whole numbers beyond 2^24 need more than float32.
    exact = np.float64 if block.dtype.itemsize >= 4 and block.dtype != np.float32 else np.float32
    offset = (start + 0.5) * ratio - 0.5 - low
    channels = [block] if block.ndim == 3 else np.moveaxis(block, -1, 0)
    found = [_resampled(channel.astype(exact), stop - start, ratio, offset, interpolation) for channel in channels]
    values = found[0] if block.ndim == 3 else np.stack(found, axis=-1)
    if block.dtype.kind in "iu":
        limits = np.iinfo(block.dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(block.dtype)
    if block.dtype == bool:
        return values >= 0.5
    return values.astype(block.dtype)


def labels_region(array, spacing, target, region):
    """Labels of a region of the resampled grid: each voxel takes the label of the old voxel that holds its centre."""
    indices = []
    for n, s, t, part in zip(array.shape[:3], spacing, target, region, strict=True):
        centres = (np.arange(part.start, part.stop) + 0.5) * (t / s)
        indices.append(np.clip(np.floor(centres).astype(int), 0, n - 1))
    block = array[tuple(slice(int(index[0]), int(index[-1]) + 1) for index in indices)]
    return block[np.ix_(*(index - index[0] for index in indices))]


def whole_case(case: Case, target, interpolation) -> tuple[Case, dict[str, int]]:
    """A case in memory on a grid of another spacing.

    Args:
      case: a Case.
      target: [3] mm; () leaves the case as it is.
      interpolation: of the image, see `image_region`.

    Returns:
      The case, and {"vanished in resampling": number of instances that have no voxel any more} where there are any.
    """
    if not len(target):
        return case, {}
    spacing = case.volume.spacing
    region = tuple(slice(0, n) for n in new_shape(case.volume.array.shape, spacing, target))
    ids = labels_region(case.instance_ids, spacing, target, region)
    image = image_region(case.volume.array, spacing, target, region, interpolation)
    counts = slabs.voxel_counts(ids, len(case.class_ids))
    case, table, vanished = without_vanished(case, counts, target)
    volume = replace(case.volume, array=image)
    return replace(case, volume=volume, instance_ids=table[ids]), vanished


def without_vanished(case: Case, counts, target) -> tuple[Case, np.ndarray, dict[str, int]]:
    """A case whose arrays are still to be changed, with the new geometry, landmarks and remaining instances.

    Args:
      case: on the old grid.
      counts: [N] voxels that each instance has on the new grid.
      target: [3] mm.

    Returns:
      The case, a table [N + 1] int32 of old to new ids, and {"vanished in resampling": number} where there are any.
    """
    spacing, stays = case.volume.spacing, np.asarray(counts) > 0
    table = np.concatenate([[0], np.where(stays, np.cumsum(stays), 0)]).astype(np.int32)
    affine = new_affine(case.volume.affine, spacing, target)
    changed = replace(
        case,
        volume=replace(case.volume, spacing=np.asarray(target, np.float64), affine=affine),
        class_ids=case.class_ids[stays],
        attributes=case.attributes[stays],
        keypoints=(case.keypoints[stays] * (spacing / np.asarray(target))).astype(np.float32),
    )
    return changed, table, {} if stays.all() else {"vanished in resampling": int(np.sum(~stays))}


def _resampled(block, shape, ratio, offset, interpolation):
    """Values at `offset` + i * `ratio`, indices of the block, for i below `shape`; the last voxels reach outward."""
    # Cubic splines of ITK need four voxels on an axis.
    padding = [(0, max(0, 4 - n)) for n in block.shape]
    image = SimpleITK.GetImageFromArray(np.pad(block, padding, mode="edge"))
    image.SetOrigin([0.0] * 3)
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(n) for n in shape[::-1]])
    resampler.SetOutputSpacing([float(r) for r in ratio[::-1]])
    resampler.SetOutputOrigin([float(o) for o in offset[::-1]])
    resampler.SetInterpolator(_INTERPOLATORS[interpolation])
    resampler.UseNearestNeighborExtrapolatorOn()
    return SimpleITK.GetArrayFromImage(resampler.Execute(image))
