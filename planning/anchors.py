"""Anchors that fit the boxes of the data: k-means on 1 - IoU, then a search that minds where anchors lie.

A level is (stride, shapes): its (z, y, x) stride in voxels and [n, 3] anchor shapes in voxels. An anchor lies around
the centre of every cell, so that the centre of a box is up to half a stride per axis away from it. Overlaps are those
with the best anchor at its real place: for given sizes the nearest centre along each axis is the best.
"""

import dataclasses

import numpy as np

MAX_BOXES = 1000  # an even sample of larger sets is as good
PLACES = 8  # of every box on the grid, as patches are cut anywhere
GOOD = (0.5, 0.7)
STARTS = 3  # seeds of k-means
DECIMALS = 1  # of planned sizes
_ROUNDS = 100
_FACTORS = (1.3, 1.12, 1.05, 1.02)  # that the search tries, one after the other
_DIRECTIONS = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
_LEAST_GAIN = 1e-4


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well anchors fit: mean IoU of boxes with their best anchor, and the shares of boxes with at least `GOOD`."""

    mean: float
    share_50: float
    share_70: float

    @property
    def score(self):
        """What the search raises."""
        return self.mean + self.share_50 + self.share_70


@dataclasses.dataclass(frozen=True)
class Truths:
    """Boxes at several places of the grid: sizes and centres, each [3, N * PLACES] float64 voxels."""

    sizes: np.ndarray
    centres: np.ndarray


def truths(boxes, patch, planes=(), seed=0):
    """Boxes as training shows them: cut at the patch's size, turned, anywhere on the grid.

    Args:
      boxes: [N, 6] voxels; more than `MAX_BOXES` are thinned out evenly.
      patch: (Z, Y, X).
      planes: axis pairs in which patches are turned by multiples of 90 degrees.
      seed: of turns and places.

    Returns:
      Truths; N may be 0.
    """
    rng = np.random.default_rng(seed)
    boxes = np.asarray(boxes, np.float64)
    boxes = np.repeat(boxes[:: -(-len(boxes) // MAX_BOXES) or 1], PLACES, axis=0)
    sizes = np.minimum(boxes[:, 3:] - boxes[:, :3], patch)
    for a, b in planes:
        turned = rng.random(len(sizes)) < 0.5
        sizes[np.ix_(turned, [a, b])] = sizes[np.ix_(turned, [b, a])]
    # A power of two: as good as uniform on the grid of every stride.
    corners = boxes[:, :3] + rng.integers(0, 2**16, (len(boxes), 3))
    return Truths(sizes.T, (corners + sizes / 2).T)


def fit(levels, found):
    """The Fit of levels to Truths; zeros where there are none."""
    return _fit(_table(levels, found).max(axis=0))


def served(levels, found):
    """Share of the boxes whose best anchor is on each level: L floats that add up to 1."""
    owners = np.repeat(np.arange(len(levels)), [len(shapes) for _, shapes in levels])
    winners = owners[_table(levels, found).argmax(axis=0)]
    return (np.bincount(winners, minlength=len(levels)) / len(winners)).tolist()


def best(strides, number, found, limits, starts=()):
    """Anchors for every level.

    Args:
      strides: L triples, finest first.
      number: anchors of every level.
      found: Truths, one at least.
      limits: L triples, voxels: no anchor of a level is longer (what the level can see, say).
      starts: further levels to begin with, beside `STARTS` times k-means.

    Returns:
      (begin, end): the levels of the best end, as k-means or `starts` had them and as the search left them.
    """
    clusters = [kmeans(found.sizes.T[::PLACES], len(strides) * number, seed) for seed in range(STARTS)]
    begins = [*(assign(shapes, strides, limits) for shapes in clusters), *starts]
    ends = [refine(levels, found, limits) for levels in begins]
    chosen = int(np.argmax([fit(levels, found).score for levels in ends]))
    return begins[chosen], ends[chosen]


def kmeans(sizes, k, seed=0):
    """Box sizes that represent others best: k-means on 1 - IoU of boxes around one point (Redmon and Farhadi 2017).

    Args:
      sizes: [N, 3] voxels, N >= 1.
      k: number of clusters.
      seed: of the first centres, drawn as in k-means++ (Arthur and Vassilvitskii 2007).

    Returns:
      [k, 3] float64, voxels, the smallest volume first: medians of the clusters, which serve 1 - IoU better than means.
      Some are equal where there are fewer than k different sizes.
    """
    sizes, rng = np.asarray(sizes, np.float64), np.random.default_rng(seed)
    centres = sizes[[rng.integers(len(sizes))]]
    while len(centres) < k:
        # Never all 0, so that there is something to draw where every size is a centre already.
        weight = (1 - _centred_iou(sizes, centres).max(axis=1)) ** 2 + 1e-12
        centres = np.concatenate([centres, sizes[[rng.choice(len(sizes), p=weight / weight.sum())]]])
    for _ in range(_ROUNDS):
        nearest = _centred_iou(sizes, centres).argmax(axis=1)
        members = [sizes[nearest == cluster] for cluster in range(k)]
        moved = np.array([np.median(m, axis=0) if len(m) else c for m, c in zip(members, centres, strict=True)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres[np.argsort(centres.prod(axis=1), kind="stable")]


def assign(shapes, strides, limits):
    """Deals shapes out to levels, the smallest to the finest.

    Args:
      shapes: [L * n, 3] voxels.
      strides: L triples, finest first.
      limits: L triples, voxels.

    Returns:
      list of L levels (stride, [n, 3]).
    """
    ordered = shapes[np.argsort(shapes.prod(axis=1), kind="stable")]
    parts = np.split(ordered, len(strides))
    return [(s, np.minimum(part, limit)) for s, part, limit in zip(strides, parts, limits, strict=True)]


def refine(levels, found, limits):
    """Moves sizes, one anchor and axis (or all axes) at a time, while that raises `Fit.score`.

    Args:
      levels: list of L levels (stride, [n, 3]).
      found: Truths, one at least.
      limits: L triples, voxels.

    Returns:
      Levels of the same form, rounded to `DECIMALS`. Neither share of their Fit is lower than of those given, unless
      limits or rounding cost it.
    """
    levels = [
        (stride, np.round(np.minimum(shapes, limit), DECIMALS))
        for (stride, shapes), limit in zip(levels, limits, strict=True)
    ]
    table = _table(levels, found)
    least = _fit(table.max(axis=0))
    for factor in _FACTORS:
        while _improve(levels, table, found, limits, factor, least):
            pass
    return levels


def _improve(levels, table, found, limits, factor, least):
    """Tries one factor on every anchor, changing `levels` and `table` in place; whether any trial improved the fit."""
    before = best_fit = _fit(table.max(axis=0))
    row = 0
    for (stride, shapes), limit in zip(levels, limits, strict=True):
        distance = _distance(stride, found)
        for shape in shapes:
            others = np.delete(table, row, axis=0).max(axis=0, initial=0.0)
            for change in [np.where(axes, f, 1.0) for axes in _DIRECTIONS for f in (factor, 1 / factor)]:
                trial = np.maximum(np.round(np.minimum(shape * change, limit), DECIMALS), 1.0)
                overlaps = _overlaps(distance, trial, found)
                changed = _fit(np.maximum(others, overlaps))
                keeps = changed.share_50 >= least.share_50 and changed.share_70 >= least.share_70
                if keeps and changed.score > best_fit.score + _LEAST_GAIN:
                    best_fit, shape[:], table[row] = changed, trial, overlaps
            row += 1
    return best_fit is not before


def _fit(ious):
    """The Fit of overlaps with the best anchor, of any shape."""
    return Fit(float(ious.mean()), *(float((ious >= good).mean()) for good in GOOD)) if ious.size else Fit(0, 0, 0)


def _table(levels, found):
    """Overlap of every anchor shape with every box, at its best place: [L * n, N * PLACES]."""
    return np.stack(
        [
            _overlaps(distance, shape, found)
            for distance, shapes in ((_distance(stride, found), shapes) for stride, shapes in levels)
            for shape in shapes
        ]
    )


def _distance(stride, found):
    """From the centre of every box to the nearest centre of a cell: [3, N * PLACES] voxels."""
    stride = np.reshape(stride, (3, 1))
    return np.abs(np.mod(found.centres, stride) - stride / 2)


def _overlaps(distance, shape, found):
    """IoU of boxes and anchors of one shape whose centres are so far apart along each axis: [N * PLACES]."""
    shape = np.reshape(shape, (3, 1))
    shared = np.clip((found.sizes + shape) / 2 - distance, 0, np.minimum(found.sizes, shape)).prod(axis=0)
    return shared / (found.sizes.prod(axis=0) + shape.prod() - shared)


def _centred_iou(sizes, centres):
    """IoU of boxes [N, 3] and [k, 3] around one point: [N, k]."""
    shared = np.minimum(sizes[:, np.newaxis], centres).prod(axis=-1)
    return shared / (sizes.prod(axis=-1)[:, np.newaxis] + centres.prod(axis=-1) - shared)
