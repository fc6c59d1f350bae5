"""Objects that have grown into one, parted where they are thin."""

import cc3d
import numpy as np
import SimpleITK

# In voxels of the finest axis: two parts are as much thicker than the neck between them, in radius. Less would part at
# every dent of the surface.
_NECK = 0.5


def part(ids: np.ndarray, spacing: tuple[float, float, float], longer_than: float) -> tuple[np.ndarray, np.ndarray]:
    """Parts of objects, those of an object being the basins of the distance to its surface, flooded from within.

    A watershed (Beucher and Lantuejoul 1979) whose basins go together where the pass between them is not deep.

    Args:
      ids: [Z, Y, X] integers, 0 background, 1..M the objects, each of a voxel at least.
      spacing: mm along z, y, x.
      longer_than: mm; objects that are no longer than this along any axis stay as they are, and so do those that are
        thin nowhere.

    Returns:
      ids [Z, Y, X] uint32, 1..P in the order of the objects, 0 background; and [P] int64, the object 1..M that each is
      a part of. Each part is one 26-connected component where its object was.
    """
    boxes = cc3d.statistics(ids)["bounding_boxes"][1:]
    parted, parents, count = np.zeros(ids.shape, np.uint32), [], 0
    for number, box in enumerate(boxes, start=1):
        mask = ids[box] == number
        is_long = any(voxels * mm > longer_than for voxels, mm in zip(mask.shape, spacing, strict=True))
        parts = _basins(mask, spacing) if is_long else mask.astype(np.uint32)
        parted[box][mask] = parts[mask] + count
        new = int(parts.max(initial=0))
        parents += [number] * new
        count += new
    return parted, np.array(parents, np.int64)


def _basins(mask, spacing):
    """The parts of one object, 1..P where `mask` is."""
    image = SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    distance = SimpleITK.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    level = _NECK * min(spacing)
    basins = SimpleITK.MorphologicalWatershed(distance, level=level, markWatershedLine=False, fullyConnected=True)
    inner = SimpleITK.GetArrayFromImage(basins)[1:-1, 1:-1, 1:-1]
    return cc3d.connected_components(np.where(mask, inner, 0).astype(np.uint32), connectivity=26)
