"""What the network's grid should be: spacing, strides and kernels per axis, the patch, and resolutions of rois."""

import itertools
import math

import numpy as np

MAX_ANISOTROPY = 3  # beyond, the target spacing of the coarsest axis is one that finer cases can keep (nnU-Net)
NEAR = 2.0  # an axis is strided, and convolved over, while its spacing is less than so many times the finest
MIN_CELLS = 4  # of the coarsest level along every axis, as in nnU-Net
COVERED = 95  # percentile of the objects that a patch, and the overlap of tiles, covers
MASK_SIZES, ROI_LEAST = (4, 14), 3  # bins per axis of a mask's roi, a mask has twice this; of any other roi


def target_spacing(spacings, shapes):
    """One spacing for all cases: the median, with finer slices where they are thick (nnU-Net, Isensee et al. 2021).

    Args:
      spacings: [M, 3] mm.
      shapes: [M, 3] voxels.

    Returns:
      [3] float64 mm: the median of every axis. Where the coarsest axis is more than 3 times as coarse as the finest of
      the others and has fewer than a third of their voxels, its 10th percentile, which stays the coarsest.
    """
    spacings = np.asarray(spacings)
    target, shape = np.median(spacings, axis=0).astype(np.float64), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    is_thick = target[worst] > MAX_ANISOTROPY * target[others].min()
    if is_thick and shape[worst] * MAX_ANISOTROPY < shape[others].min():
        target[worst] = max(np.percentile(spacings[:, worst], 10), target[others].max() + 1e-5)
    return target


def strides_and_kernels(steps, kernels, spacing, patch):
    """Strides and kernels that make voxels cubes before they treat axes alike (as nnU-Net plans its poolings).

    Args:
      steps: strides (z, y, x) of the layers that may stride, in their order; each as it is on its longest axis.
      kernels: the kernel of the same layers' convolutions, likewise; one per step.
      spacing: [3] mm.
      patch: (Z, Y, X).

    Returns:
      steps: an axis keeps its stride where `MIN_CELLS` cells remain, and its spacing, grown by the strides before, is
        less than `NEAR` times the finest of such axes; else 1.
      kernels: 1 along an axis until its spacing, as it comes to the layer, is that near to the finest of all.
    """
    spacing, size = np.array(spacing, np.float64), np.array(patch, np.float64)
    found_steps, found_kernels, mixed = [], [], np.zeros(3, bool)
    for step, kernel in zip(steps, kernels, strict=True):
        factor = max(step)
        mixed |= spacing < NEAR * spacing.min()
        found_kernels.append(tuple(np.where(mixed, max(kernel), 1).tolist()))
        long = size / factor >= MIN_CELLS
        near = spacing < NEAR * spacing.min(where=long, initial=np.inf)
        step = np.where(long & near, factor, 1)
        spacing, size = spacing * step, size / step
        found_steps.append(tuple(step.tolist()))
    return tuple(found_steps), tuple(found_kernels)


def patch_size(extents, least, multiple, fits):
    """The largest patch within the volumes that the memory holds, shrunk where it covers most of them.

    Args:
      extents: [3] voxels, the volume to be covered at best.
      least: [3] voxels that it must not fall below.
      multiple: (z, y, x), of which it is made.
      fits: f(patch) -> whether the memory holds it.

    Returns:
      (Z, Y, X); where even the least does not fit, that.
    """
    extents, multiple = np.asarray(extents, np.float64), np.asarray(multiple)
    patch = _up(extents, multiple)
    floor = np.minimum(patch, _up(np.asarray(least, np.float64), multiple))
    while not fits(tuple(patch.tolist())):
        shrinkable = patch - multiple >= floor
        if not shrinkable.any():
            break
        axis = int(np.argmax(np.where(shrinkable, patch / extents, -np.inf)))
        patch[axis] -= multiple[axis]
    return tuple(patch.tolist())


def roi_size(sizes, stride, most):
    """Bins of a roi per axis: the most along the axis of the most cells, fewer where the median object has fewer.

    Args:
      sizes: [N, 3] voxels, N >= 1.
      stride: (z, y, x) of the finest level.
      most: bins.

    Returns:
      (z, y, x), at least `ROI_LEAST` unless `most` is less.
    """
    cells = np.median(sizes, axis=0) / stride
    bins = np.rint(most * cells / cells.max())
    return tuple(np.clip(bins, min(ROI_LEAST, most), most).astype(int).tolist())


def mask_roi_size(sizes):
    """Bins of a mask's roi per axis: half the median object's voxels, as a mask has twice the bins, within bounds."""
    bins = np.ceil(np.median(sizes, axis=0) / 2)
    return tuple(np.clip(bins, *MASK_SIZES).astype(int).tolist())


def canonical_size(sizes, stride, bins):
    """Size of a roi up to twice which the finest level is read: the median object, at one to two cells per bin.

    Two cells of its level per bin is where Lin et al. 2017 change the level (224 pixels, stride 16, 7 bins).

    Args:
      sizes: [N, 3] voxels, N >= 1.
      stride: (z, y, x) of the finest level.
      bins: (z, y, x) of a roi.

    Returns:
      (z, y, x) floats, voxels.
    """
    one_cell = np.asarray(stride, np.float64) * bins
    return tuple(np.clip(np.median(sizes, axis=0), one_cell, 2 * one_cell).tolist())


def most_in_a_patch(boxes, cases, shapes, patch):
    """The most instances that a patch around one of them shows, whole or in part.

    Args:
      boxes: [N, 6] voxels.
      cases: [N] rows of shapes.
      shapes: [M, 3] voxels.
      patch: (Z, Y, X).

    Returns:
      int; 0 without boxes.
    """
    most = 0
    for case in np.unique(cases):
        found = boxes[cases == case]
        centres = (found[:, :3] + found[:, 3:]) / 2
        corners = np.clip(centres - np.asarray(patch) / 2, 0, np.maximum(shapes[case] - patch, 0))
        for corner in corners:
            shown = (found[:, :3] < corner + patch) & (found[:, 3:] > corner)
            most = max(most, int(shown.all(axis=1).sum()))
    return most


def turnable_planes(planes, patch, spacing):
    """Those of the axis pairs in which a patch may be turned by 90 degrees: as long in voxels, and about as fine."""
    return tuple(
        tuple(plane)
        for plane in planes
        if len({patch[axis] for axis in plane}) == 1
        and all(spacing[a] < NEAR * spacing[b] for a, b in itertools.permutations(plane))
    )


def common_multiple(stride, mosaic):
    """(z, y, x) of which a patch is made that has whole cells and whole tiles."""
    return tuple(math.lcm(s, m) for s, m in zip(stride, mosaic, strict=True))


def _up(size, multiple):
    return (np.maximum(np.ceil(size / multiple), 1) * multiple).astype(int)
