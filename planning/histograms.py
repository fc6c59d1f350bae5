"""How sizes and aspect ratios are distributed, at several bin counts: one alone may hide a second mode."""

import dataclasses

import numpy as np

BIN_COUNTS = (10, 20, 50)
RATIOS = ("z / y", "y / x", "z / x")


@dataclasses.dataclass(frozen=True)
class Histogram:
    """A distribution of N values in equal bins.

    edges: [bins + 1] float64, ascending; empty where there are no values.
    counts: [bins] int64, the last bin with its upper edge.
    count: N.
    mean, variance: of the values, not of the bins; the variance divides by N. NaN without values.
    mode: (low, high) edges of the fullest bin, the lowest of those that tie.
    mode_share: of the values that lie in it; 0 without values.
    """

    edges: np.ndarray
    counts: np.ndarray
    count: int
    mean: float
    variance: float
    mode: tuple
    mode_share: float


def histogram(values, bins):
    """The Histogram of [N] finite values between the least and the largest of them."""
    values = np.asarray(values, np.float64)
    if not len(values):
        nothing = np.zeros(0)
        return Histogram(nothing, nothing.astype(np.int64), 0, np.nan, np.nan, (np.nan, np.nan), 0.0)
    counts, edges = np.histogram(values, bins)
    fullest = int(np.argmax(counts))
    return Histogram(
        edges=edges,
        counts=counts,
        count=len(values),
        mean=float(values.mean()),
        variance=float(values.var()),
        mode=(float(edges[fullest]), float(edges[fullest + 1])),
        mode_share=float(counts[fullest] / len(values)),
    )


def box_measures(sizes):
    """What of boxes is looked at: {name: [N] float64}, edges and their geometric mean in voxels, then ratios of edges.

    Args:
      sizes: [N, 3] voxels, above 0.
    """
    z, y, x = np.asarray(sizes, np.float64).T
    edges = {"z": z, "y": y, "x": x, "mean edge": np.cbrt(z * y * x)}
    return edges | dict(zip(RATIOS, (z / y, y / x, z / x), strict=True))


def per_class(classes, class_ids, sizes, bin_counts=BIN_COUNTS):
    """Histograms of every measure of every class.

    Args:
      classes: K names.
      class_ids: [N] ints in 1..K.
      sizes: [N, 3] voxels, above 0.
      bin_counts: numbers of bins.

    Returns:
      {class: {measure: {bins: Histogram}}}.
    """
    return {
        name: {
            measure: {bins: histogram(values, bins) for bins in bin_counts}
            for measure, values in box_measures(sizes[class_ids == number]).items()
        }
        for number, name in enumerate(classes, start=1)
    }
