"""Intensity statistics of a volume of any size, slab by slab."""

import math

import numpy as np

NAMES = ("mean", "std", "min", "max", "p0.5", "p5", "p50", "p95", "p99.5", "reserved")
_PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
MAX_SAMPLE = 2**18  # voxels; percentiles of larger volumes are those of evenly chosen ones, at most so many
_BLOCK = 2**16  # voxels that are worked on at a time, which stay in the processor's cache


def of_array(array):
    """Statistics of a volume in memory: [Z, Y, X] or [Z, Y, X, C] to [C, len(NAMES)] float32."""
    found = Statistics(array.shape)
    found.add(array)
    return found.result()


class Statistics:
    """Collects the statistics of a volume that comes in slabs along z, in order.

    Mean (float64 sums), standard deviation (of the population), minimum and maximum are of all voxels. Percentiles
    (linear between neighbours) are exact up to 2^18 voxels and else of every k-th voxel in raster order, with the
    least k for which that is no more; so they do not depend on how the volume is cut into slabs.
    """

    def __init__(self, shape):
        self._channels = shape[3] if len(shape) == 4 else 1
        self._step = -(-math.prod(shape[:3]) // MAX_SAMPLE)
        self._seen, self._sample = 0, []
        self._mean, self._squares = np.zeros(self._channels), np.zeros(self._channels)
        self._min, self._max = np.full(self._channels, np.inf), np.full(self._channels, -np.inf)

    def add(self, slab):
        """Takes the next slab, [z, Y, X] or [z, Y, X, C]."""
        voxels = slab.reshape(-1, self._channels)
        for start in range(0, len(voxels), _BLOCK):
            block = voxels[start : start + _BLOCK]
            self._sample.append(block[-self._seen % self._step :: self._step].copy())
            self._min = np.minimum(self._min, block.min(axis=0))
            self._max = np.maximum(self._max, block.max(axis=0))
            self._add_moments(block.astype(np.float64))

    def result(self):
        """[C, len(NAMES)] float32."""
        std = np.sqrt(self._squares / self._seen)
        percentiles = _percentiles(np.concatenate(self._sample))
        rows = [self._mean, std, self._min, self._max, *percentiles, np.zeros(self._channels)]
        return np.stack(rows, axis=1).astype(np.float32)

    def _add_moments(self, block):
        """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979)."""
        mean = block.mean(axis=0)
        block -= mean
        seen, difference = self._seen + len(block), mean - self._mean
        self._squares += np.einsum("vc,vc->c", block, block) + difference**2 * self._seen * len(block) / seen
        self._mean += difference * len(block) / seen
        self._seen = seen


def _percentiles(voxels):
    """[len(_PERCENTILES), C] of voxels [n, C], as np.percentile gives them of float64, sorted in their own dtype."""
    place = np.array(_PERCENTILES) / 100 * (len(voxels) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(voxels) - 1)
    ordered = np.partition(voxels, np.union1d(low, high), axis=0)
    below, above = ordered[low].astype(np.float64), ordered[high].astype(np.float64)
    return below + (above - below) * (place - low)[:, np.newaxis]
