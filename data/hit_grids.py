"""Where a detector hit lies: positions to voxels of Cartesian grids, layers and cylinders."""

import numpy as np

from data.formats.geometry import MILLIMETRES, spacing_affine


def voxel_of(settings, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The flat index of the voxel of each hit.

    Args:
      settings: configs.hits_schema.Hits: unit, grid, shape, origin, cell and layers. A voxel holds its lower edge.
      x, y, z: [N] float64 positions in its unit, finite.

    Returns:
      [N] int64; -1 outside the grid.
    """
    places = np.stack(_AXES[settings.grid](settings, x, y, z), axis=1)  # [N, 3]
    inside = np.all((places >= 0) & (places < settings.shape), axis=1)
    flat = np.full(len(x), -1, np.int64)
    flat[inside] = np.ravel_multi_index(tuple(places[inside].astype(np.int64).T), settings.shape)
    return flat


def placed(settings) -> tuple[np.ndarray, np.ndarray]:
    """Spacing [3] mm and affine [4, 4] of the volume, see data/readers.py.

    Layers lie as far apart as the median of their distances; a cell of phi is as long as it is at the middle radius,
    and a cylinder, rolled out, has no place in the world.
    """
    scale = MILLIMETRES[settings.unit]
    cell, origin = np.array(settings.cell, float), np.array(settings.origin, float)
    if settings.grid == "cylindrical":
        cell[1] *= origin[2] + settings.shape[2] * cell[2] / 2
        return cell * scale, spacing_affine(cell * scale)
    if settings.grid == "layers":
        cell[0] = np.median(np.diff(settings.layers))
        origin[0] = settings.layers[0] - cell[0] / 2
    return cell * scale, spacing_affine(cell * scale, tuple((origin + cell / 2)[::-1] * scale))


def _cartesian(settings, x, y, z):
    return [_cells(settings, axis, values) for axis, values in enumerate((z, y, x))]


def _layers(settings, x, y, z):
    """The nearest layer; the first and the last reach as far outwards as half the distance to their neighbour."""
    layers = np.array(settings.layers, float)
    edges = (layers[1:] + layers[:-1]) / 2
    edges = np.concatenate([[2 * layers[0] - edges[0]], edges, [2 * layers[-1] - edges[-1]]])
    return [np.searchsorted(edges, z, side="right") - 1, _cells(settings, 1, y), _cells(settings, 2, x)]


def _cylindrical(settings, x, y, z):
    """Along z, phi and r; phi goes on at 2 pi from the start of the grid."""
    turned = np.mod(np.arctan2(y, x) - settings.origin[1], 2 * np.pi)
    # Rounding must not put what lies just before a full turn behind the last cell of a grid that closes.
    phi = np.floor(turned / settings.cell[1])
    closes = settings.shape[1] * settings.cell[1] >= 2 * np.pi * (1 - 1e-6)
    phi = np.minimum(phi, settings.shape[1] - 1) if closes else phi
    return [_cells(settings, 0, z), phi, _cells(settings, 2, np.hypot(x, y))]


def _cells(settings, axis, values):
    return np.floor((values - settings.origin[axis]) / settings.cell[axis])


_AXES = {"cartesian": _cartesian, "layers": _layers, "cylindrical": _cylindrical}
