"""Connected components of a label volume of any size, slab by slab."""

import cc3d
import numpy as np

from data import slabs

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class SlabComponents:
    """26-connected components of equal values above 0, of a volume that comes in slabs along z, in order.

    `add` numbers the components of a slab provisionally; when all slabs have been seen, `finish` tells which of these
    numbers are one component. Components are then numbered 1..N by their first voxel in raster order, as cc3d numbers
    those of a whole volume. Kept in memory: one plane, and a few numbers per provisional component.
    """

    def __init__(self):
        self._parents = [0]  # of each provisional number, a lower one of the same component or itself
        self._values, self._sizes = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        self._last = None  # (labels, values) of the last plane seen

    def add(self, values):
        """Provisional numbers of the next slab.

        Args:
          values: [z, Y, X] unsigned integers, 0 background.

        Returns:
          [z, Y, X] uint32, 0 background; ascending by first voxel in raster order over all slabs.
        """
        found, count = cc3d.connected_components(values, connectivity=26, return_N=True)
        first = len(self._parents)
        labels = np.where(found, found.astype(np.uint32) + np.uint32(first - 1), np.uint32(0))
        self._parents.extend(range(first, first + count))
        self._sizes.append(slabs.voxel_counts(found, count))
        of_component = np.zeros(count + 1, np.int64)
        of_component[found.reshape(-1)] = values.reshape(-1)
        self._values.append(of_component[1:])
        if self._last is not None:
            self._join(*self._last, labels[0], values[0])
        self._last = labels[-1].copy(), values[-1].copy()
        return labels

    def finish(self):
        """Which component each provisional number belongs to, and what the components are.

        Returns:
          table: [P + 1] uint32, provisional number to component; 0 stays 0.
          values: [N] int64, the value of each component.
          sizes: [N] int64 voxels.
        """
        roots = np.array([self._root(i) for i in range(len(self._parents))])
        # The root is the lowest number, whose first voxel is that of the whole component.
        kept, table = np.unique(roots, return_inverse=True)
        sizes = np.bincount(table, weights=np.concatenate(self._sizes)).astype(np.int64)
        return table.astype(np.uint32), np.concatenate(self._values)[kept][1:], sizes[1:]

    def _join(self, labels, values, next_labels, next_values):
        """Unites components that touch across the face between two planes, diagonally too."""
        pairs = [np.zeros((0, 2), np.uint32)]
        for dy, dx in _NEIGHBOURS:
            here, there = _overlap(dy, dx)
            touching = (labels[here] > 0) & (values[here] == next_values[there])
            pairs.append(np.stack([labels[here][touching], next_labels[there][touching]], axis=1))
        for a, b in np.unique(np.concatenate(pairs), axis=0).tolist():
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low

    def _root(self, number):
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def _overlap(dy, dx):
    """Index pairs of a plane and of the plane moved by (dy, dx) where both are defined."""
    spans = {-1: (slice(1, None), slice(None, -1)), 0: (slice(None), slice(None)), 1: (slice(None, -1), slice(1, None))}
    (y, next_y), (x, next_x) = spans[dy], spans[dx]
    return (y, x), (next_y, next_x)
