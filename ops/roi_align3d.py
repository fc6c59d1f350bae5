"""ROIAlign in 3D (He et al. 2017), separable, on one or several feature levels.

Boxes are axis-aligned, so the trilinear weight of a cell is a product of three per-axis weights, and averaging the
samples of a bin can be folded into them. Each roi therefore gathers the window of cells that it touches and contracts
it with one small matrix per axis, instead of gathering eight corners for every sample.
"""

import tensorflow as tf

from ops import checks, roi_windows


def roi_align3d(features, boxes, *, output_size, stride, sampling_ratio=2):
    """Features of each box, resampled to a fixed grid.

    Feature cell i has its centre at (i + 0.5) * stride (half-pixel convention). A bin is the mean of sampling_ratio^3
    trilinear samples at regular positions; a sample more than one cell beyond the outermost centres is 0, nearer ones
    are clamped to them.

    Args:
      features: [B, z, y, x, C] float32; float16 and bfloat16 are pooled in float32.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      output_size: P, or three of them for z, y, x.
      stride: input voxels per feature cell, or three of them.
      sampling_ratio: samples per bin and axis.

    Returns:
      [B, R, P, P, P, C] of the features' type; 0, with gradient 0, where a box is empty or not finite, or its grid has
      no cells.

    Raises:
      ValueError: if a shape or a type is not as above, or a size is not positive.
    """
    stride = checks.triple("stride", stride)
    return multilevel_roi_align3d(
        [features],
        boxes,
        strides=[stride],
        output_size=output_size,
        canonical_size=stride,
        canonical_level=0,
        sampling_ratio=sampling_ratio,
    )


def multilevel_roi_align3d(features, boxes, *, strides, output_size, canonical_size, canonical_level, sampling_ratio=2):
    """ROIAlign over a feature pyramid; each box is computed once, on its own level.

    Beyond the result, memory is that of a few chunks of rois (`roi_windows.CHUNK_BYTES`, or a roi that needs more);
    the backward pass keeps nothing of the forward pass but where the rois lie.

    Args:
      features: L tensors [B, z, y, x, C] float32, finest first; float16 and bfloat16 are pooled in float32.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      strides: L (z, y, x) triples.
      output_size: P, or three of them for z, y, x.
      canonical_size: (z, y, x) voxels of the box that reads the canonical level, see `roi_levels`.
      canonical_level: index into features.
      sampling_ratio: samples per bin and axis.

    Returns:
      [B, R, P, P, P, C] of the features' type; 0, with gradient 0, where a box is empty or not finite, or its grid has
      no cells.

    Raises:
      ValueError: if a shape or a type is not as above, there are not L strides, the level is none of them, or a size
        is not positive.
    """
    checks.positive("sampling_ratio", sampling_ratio)
    checked = roi_windows.checked(features, boxes, strides, output_size, canonical_size, canonical_level)
    return _align(*checked, sampling_ratio)


@roi_windows.in_graph
def _align(features, boxes, levels, strides, size, sampling_ratio):
    return roi_windows.pool_pyramid(
        features,
        boxes,
        levels,
        strides=strides,
        size=size,
        plan_axis=lambda lo, hi, dim, num_bins: _axis_window(lo, hi, dim, num_bins, sampling_ratio),
        pool=roi_windows.contract,
        pool_gradient=roi_windows.spread,
    )


def _axis_window(lo, hi, dim, num_bins, sampling_ratio):
    """Which cells every roi reads along one axis, and with which weights.

    A window lists only cells that are read: all between the first and the last one while samples are at most two
    cells apart, and two for each sample of a longer roi.

    Args:
      lo: [M] float32, where the roi starts, in cells from the border of the grid.
      hi: [M] float32, where it ends.
      dim: [M] int32, cells of the roi's level.
      num_bins: P.
      sampling_ratio: samples per bin.

    Returns:
      cells: [M, K] int32 in [0, dim), ascending; K <= 2 * P * sampling_ratio is what the longest list needs.
      widths: [M] int32 in [0, K], the length of each roi's list.
      weights: [M, P, K] float32, share of each cell in each bin.
    """
    num_samples = num_bins * sampling_ratio
    steps = (tf.range(num_samples, dtype=tf.float32) + 0.5) / num_samples
    samples = lo[:, tf.newaxis] + (hi - lo)[:, tf.newaxis] * steps - 0.5  # [M, S]; cell i has its centre at i
    last = tf.cast(dim, tf.float32)[:, tf.newaxis] - 1.0
    is_near = (samples >= -1.0) & (samples <= last + 1.0)
    samples = tf.clip_by_value(samples, 0.0, last)

    # A sample reads its cell, at the sample's slot of the list, and the next one, at the slot after it.
    floors = tf.floor(samples)
    below = tf.cast(floors, tf.int32)
    moves = tf.minimum(below[:, 1:] - below[:, :-1], 2)
    slots = tf.cumsum(tf.pad(moves, [[0, 0], [1, 0]]), axis=1)  # [M, S]
    widths = slots[:, -1] + 2

    window = tf.range(tf.maximum(tf.reduce_max(widths), 0))  # [K]
    is_passed = slots[:, :, tf.newaxis] <= window  # [M, S, K]
    offsets = tf.reduce_max(tf.where(is_passed, (below - slots)[:, :, tf.newaxis], 0), axis=1)
    cells = tf.minimum(window + offsets, dim[:, tf.newaxis] - 1)

    positions = tf.cast(slots, tf.float32) + samples - floors
    distance = tf.abs(positions[:, :, tf.newaxis] - tf.cast(window, tf.float32))
    hat = tf.where(is_near[:, :, tf.newaxis], tf.maximum(1.0 - distance, 0.0), 0.0)
    weights = tf.reduce_mean(tf.reshape(hat, [tf.size(lo), num_bins, sampling_ratio, tf.size(window)]), axis=2)
    return cells, widths, weights
