"""RoIPool in 3D (Girshick 2015): maxima over whole cells, on one or several feature levels."""

import tensorflow as tf

from ops import checks, roi_windows

# Cells beyond this many from the origin count as this far away: no grid is so large, and products with a bin's number
# stay within an int32.
FARTHEST = float(2**20)


def roi_pool3d(features, boxes, *, output_size, stride):
    """Maxima of the features in the bins of each box, everything rounded outward to whole cells.

    A box covers the cells from floor(lo / stride) to ceil(hi / stride), exclusive: all that it touches. Of n cells
    along an axis, bin i of P takes those from floor(i * n / P) to ceil((i + 1) * n / P), exclusive: at least one, so
    neighbouring bins share a cell where P does not divide n. Cells outside the grid are left out; a bin of which none
    is left is 0. The gradient of a bin goes to the cell of its maximum and is divided among cells that tie.

    Args:
      features: [B, z, y, x, C] float32; float16 and bfloat16 are pooled in float32.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      output_size: P, or three of them for z, y, x.
      stride: input voxels per feature cell, or three of them.

    Returns:
      [B, R, P, P, P, C] of the features' type; 0, with gradient 0, where a box is empty or not finite, or its grid has
      no cells.

    Raises:
      ValueError: if a shape or a type is not as above, or a size is not positive.
    """
    stride = checks.triple("stride", stride)
    return multilevel_roi_pool3d(
        [features], boxes, strides=[stride], output_size=output_size, canonical_size=stride, canonical_level=0
    )


def multilevel_roi_pool3d(features, boxes, *, strides, output_size, canonical_size, canonical_level):
    """RoIPool over a feature pyramid; each box is computed once, on its own level (`roi_levels`).

    Beyond the result, memory is that of a few chunks of rois (`roi_windows.CHUNK_BYTES`, or a roi that needs more),
    and in the backward pass a few times that.

    Args:
      features: L tensors [B, z, y, x, C] float32, finest first; float16 and bfloat16 are pooled in float32.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      strides: L (z, y, x) triples.
      output_size: P, or three of them for z, y, x.
      canonical_size: (z, y, x) voxels of the box that reads the canonical level.
      canonical_level: index into features.

    Returns:
      [B, R, P, P, P, C] of the features' type; 0, with gradient 0, where a box is empty or not finite, or its grid has
      no cells.

    Raises:
      ValueError: if a shape or a type is not as above, there are not L strides, the level is none of them, or a size
        is not positive.
    """
    return _pool(*roi_windows.checked(features, boxes, strides, output_size, canonical_size, canonical_level))


@roi_windows.in_graph
def _pool(features, boxes, levels, strides, size):
    return roi_windows.pool_pyramid(
        features,
        boxes,
        levels,
        strides=strides,
        size=size,
        plan_axis=_axis_bins,
        pool=_maxima,
        pool_gradient=_maxima_gradient,
    )


def _axis_bins(lo, hi, dim, num_bins):
    """Which cells are in every bin of every roi along one axis.

    Args:
      lo: [M] float32, where the roi starts, in cells from the border of the grid.
      hi: [M] float32, where it ends.
      dim: [M] int32, cells of the roi's level.
      num_bins: P.

    Returns:
      cells: [M, W * P] int32 in [0, dim): the first cell of each bin, then the second of each, and so on to the widest
        bin; bins with fewer repeat their last one.
      widths: [M] int32, W * P with the W of this roi.
      is_inside: [M, P] bool, whether the bin has any cell in the grid.
    """
    first = tf.cast(tf.clip_by_value(tf.floor(lo), -FARTHEST, FARTHEST), tf.int32)[:, tf.newaxis]
    end = tf.cast(tf.clip_by_value(tf.math.ceil(hi), -FARTHEST, FARTHEST), tf.int32)[:, tf.newaxis]
    count, dim = tf.maximum(end - first, 1), dim[:, tf.newaxis]
    bins = tf.range(num_bins)
    lows = tf.clip_by_value(first + bins * count // num_bins, 0, dim)  # [M, P]
    highs = tf.clip_by_value(first - (-(bins + 1) * count) // num_bins, 0, dim)  # -(-a // b) is ceil(a / b)

    widest = tf.maximum(tf.reduce_max(highs - lows, axis=1), 1)
    steps = tf.range(tf.maximum(tf.reduce_max(widest), 0))[:, tf.newaxis]  # [W, 1]
    cells = tf.minimum(lows[:, tf.newaxis] + steps, tf.maximum(highs - 1, 0)[:, tf.newaxis])  # [M, W, P]
    return tf.reshape(cells, [tf.size(lo), tf.size(steps) * num_bins]), widest * num_bins, highs > lows


def _maxima(windows, is_inside):
    """Maximum of every bin, one axis after the other: [n, Wz*Pz, Wy*Py, Wx*Px, C] -> [n, Pz, Py, Px, C]."""
    z, y, x = is_inside
    count, _, ky, kx, channels = tf.unstack(tf.shape(windows))
    pz, py, px = (tf.shape(inside)[1] for inside in is_inside)
    along_z = tf.reduce_max(tf.reshape(windows, [count, -1, pz, ky * kx * channels]), axis=1)
    along_y = tf.reduce_max(tf.reshape(along_z, [count, pz, -1, py, kx * channels]), axis=2)
    along_x = tf.reduce_max(tf.reshape(along_y, [count, pz, py, -1, px, channels]), axis=3)
    has_cells = (z[:, :, tf.newaxis] & y[:, tf.newaxis, :])[..., tf.newaxis] & x[:, tf.newaxis, tf.newaxis, :]
    return tf.where(has_cells[..., tf.newaxis], along_x, 0.0)


def _maxima_gradient(upstream, gather_windows, is_inside):
    windows = gather_windows()
    with tf.GradientTape() as tape:
        tape.watch(windows)
        pooled = _maxima(windows, is_inside)
    return tape.gradient(pooled, windows, output_gradients=upstream)
