"""ROIAlign in 3D (He et al. 2017), separable, on one or several feature levels.

Boxes are axis-aligned, so the trilinear weight of a cell is a product of three per-axis weights, and averaging the
samples of a bin can be folded into them. Each roi therefore gathers the window of cells that it touches and contracts
it with one small matrix per axis, instead of gathering eight corners for every sample.
"""

import numpy as np
import tensorflow as tf


def roi_align3d(features, boxes, *, output_size, stride, sampling_ratio=2):
    """Features of each box, resampled to a fixed grid.

    Feature cell i has its centre at (i + 0.5) * stride (half-pixel convention). A bin is the mean of sampling_ratio^3
    trilinear samples at regular positions; a sample more than one cell beyond the outermost centres is 0, nearer ones
    are clamped to them.

    Args:
      features: [B, z, y, x, C] float32.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      output_size: P, or three of them for z, y, x.
      stride: input voxels per feature cell, or three of them.
      sampling_ratio: samples per bin and axis.

    Returns:
      [B, R, P, P, P, C] float32; 0, with gradient 0, where a box is empty.
    """
    stride = _triple(stride)
    return multilevel_roi_align3d(
        [features],
        boxes,
        strides=[stride],
        output_size=output_size,
        canonical_size=stride,
        canonical_level=0,
        sampling_ratio=sampling_ratio,
    )


def roi_levels(boxes, *, num_levels, strides, canonical_size, canonical_level):
    """The pyramid level that each box reads (Lin et al. 2017, equation 1, with all three axes).

    A box of the canonical size reads the canonical level; one whose geometric-mean edge, measured in cells of that
    level, is twice as large reads the next level of twice the stride. Levels are compared by the geometric mean of
    their strides, so anisotropic pyramids need no special case.

    Args:
      boxes: [..., 6] float32, voxels.
      num_levels: L.
      strides: L (z, y, x) triples, finest first.
      canonical_size: (z, y, x) voxels.
      canonical_level: index into strides.

    Returns:
      [...] int32 in [0, L); 0 for empty boxes.
    """
    relative = tf.maximum(boxes[..., 3:] - boxes[..., :3], 0.0) / tf.constant(canonical_size, tf.float32)
    growth = tf.reduce_prod(relative, axis=-1) ** (1 / 3)
    scales = np.prod(np.asarray(strides, np.float64), axis=1) ** (1 / 3)
    # Level l is left for the next one as soon as the box has grown by the ratio of that level's stride.
    borders = (scales[1:] / scales[canonical_level]).astype(np.float32)
    # A hair of tolerance, lest rounding of the cube root sends a box of exactly twice the size to the finer level.
    levels = tf.reduce_sum(tf.cast(growth[..., tf.newaxis] * (1 + 1e-5) >= borders, tf.int32), axis=-1)
    return tf.clip_by_value(levels, 0, num_levels - 1)


def multilevel_roi_align3d(features, boxes, *, strides, output_size, canonical_size, canonical_level, sampling_ratio=2):
    """ROIAlign over a feature pyramid; each box is computed once, on its own level.

    Args:
      features: L tensors [B, z, y, x, C] float32, finest first.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      strides: L (z, y, x) triples.
      output_size: P, or three of them for z, y, x.
      canonical_size: (z, y, x) voxels of the box that reads the canonical level, see `roi_levels`.
      canonical_level: index into features.
      sampling_ratio: samples per bin and axis.

    Returns:
      [B, R, P, P, P, C] float32; 0, with gradient 0, where a box is empty.
    """
    size = _triple(output_size)
    boxes = tf.stop_gradient(boxes)
    batch, num_rois = tf.shape(boxes)[0], tf.shape(boxes)[1]
    flat = tf.reshape(boxes, [-1, 6])  # [N, 6] with N = B * R
    levels = roi_levels(
        flat,
        num_levels=len(features),
        strides=strides,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
    )
    shapes = tf.stack([tf.shape(level)[1:4] for level in features])  # [L, 3]
    dims = tf.gather(shapes, levels)  # [N, 3]
    stride = tf.gather(tf.constant(strides, tf.float32), levels)  # [N, 3]
    lo, hi = flat[:, :3] / stride - 0.5, flat[:, 3:] / stride - 0.5  # cell i has its centre at i

    cells, weights = [], []
    for axis in range(3):
        axis_cells, axis_weights = _axis_window(lo[:, axis], hi[:, axis], dims[:, axis], size[axis], sampling_ratio)
        cells.append(axis_cells)
        weights.append(axis_weights)
    volumes = tf.repeat(tf.range(batch), num_rois)
    windows = _gather_windows(features, shapes, levels, volumes, cells)
    pooled = _contract(windows, weights)  # [N, P, P, P, C]

    is_empty = tf.reduce_any(flat[:, 3:] <= flat[:, :3], axis=-1)
    pooled = tf.where(is_empty[:, tf.newaxis, tf.newaxis, tf.newaxis, tf.newaxis], 0.0, pooled)
    return tf.reshape(pooled, [batch, num_rois, *size, features[0].shape[-1]])


def _axis_window(lo, hi, dim, num_bins, sampling_ratio):
    """Which cells every roi reads along one axis, and with which weights.

    Args:
      lo: [N] float32, where the roi starts, in cells.
      hi: [N] float32, where it ends.
      dim: [N] int32, cells of the roi's level.
      num_bins: P.
      sampling_ratio: samples per bin.

    Returns:
      cells: [N, K] int32 in [0, dim); K is what the longest roi needs.
      weights: [N, P, K] float32: share of each cell in each bin.
    """
    num_samples = num_bins * sampling_ratio
    steps = (tf.range(num_samples, dtype=tf.float32) + 0.5) / num_samples
    samples = lo[:, tf.newaxis] + (hi - lo)[:, tf.newaxis] * steps  # [N, S]
    dim = dim[:, tf.newaxis]
    limit = tf.cast(dim, tf.float32)
    is_near = (samples >= -1.0) & (samples <= limit)
    samples = tf.clip_by_value(samples, 0.0, limit - 1.0)

    bounds = tf.cast(tf.floor(samples), tf.int32)
    first = bounds[:, :1]
    width = tf.maximum(tf.reduce_max(bounds[:, -1:] - first), 0) + 2  # a sample reads its cell and the next
    window = first + tf.range(width)  # [N, K]; may run past the level, where the weights are 0
    distance = tf.abs(samples[:, :, tf.newaxis] - tf.cast(window, tf.float32)[:, tf.newaxis, :])
    hat = tf.where(is_near[:, :, tf.newaxis], tf.maximum(1.0 - distance, 0.0), 0.0)  # [N, S, K]
    weights = tf.reduce_mean(tf.reshape(hat, [-1, num_bins, sampling_ratio, width]), axis=2)
    return tf.minimum(window, dim - 1), tf.stop_gradient(weights)


def _gather_windows(features, shapes, levels, volumes, cells):
    """The cells that each roi reads, from its own level and volume: [N, Kz, Ky, Kx, C].

    All levels of all volumes are laid end to end as one table of cells, so that one gather serves rois of any level.
    """
    batch, channels = tf.shape(features[0])[0], features[0].shape[-1]
    table = tf.concat([tf.reshape(level, [-1, channels]) for level in features], axis=0)
    cells_per_volume = tf.reduce_prod(shapes, axis=1)  # [L]
    level_start = tf.cumsum(cells_per_volume * batch, exclusive=True)
    start = tf.gather(level_start, levels) + volumes * tf.gather(cells_per_volume, levels)  # [N]

    z, y, x = cells
    dims = tf.gather(shapes, levels)
    plane, row = dims[:, 1:2] * dims[:, 2:3], dims[:, 2:3]  # [N, 1] cells per step along z and y
    rows = (start[:, tf.newaxis] + z * plane)[:, :, tf.newaxis] + (y * row)[:, tf.newaxis, :]  # [N, Kz, Ky]
    return tf.gather(table, rows[..., tf.newaxis] + x[:, tf.newaxis, tf.newaxis, :])


def _contract(windows, weights):
    """Applies the weights of one axis after the other: [N, Kz, Ky, Kx, C] -> [N, P, P, P, C]."""
    wz, wy, wx = weights
    count, kz, ky, kx, channels = tf.unstack(tf.shape(windows))
    pz, py, px = wz.shape[1], wy.shape[1], wx.shape[1]
    along_z = tf.matmul(wz, tf.reshape(windows, [count, kz, ky * kx * channels]))
    along_y = tf.matmul(wy[:, tf.newaxis], tf.reshape(along_z, [count, pz, ky, kx * channels]))
    along_x = tf.matmul(wx[:, tf.newaxis, tf.newaxis], tf.reshape(along_y, [count, pz, py, kx, channels]))
    return tf.ensure_shape(along_x, [None, pz, py, px, windows.shape[-1]])


def _triple(value):
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)
