"""Sums of a volume over the bins of boxes: what is measured, not averaged, stays whole.

Voxels and bins are boxes, so the share of a voxel in a bin is a product of three overlaps, one per axis, and the sum
is separable as ROIAlign is (ops/roi_align3d.py).
"""

import tensorflow as tf

from ops import roi_windows


def roi_sum3d(volume, boxes, *, output_size):
    """The integral of a volume over each bin of each box.

    Voxel i covers [i, i + 1) and is constant there; a bin is one of P equal parts of the box along each axis. So the
    bins of a box add up to the sum of its voxels, each by the share of it that lies in the box. Outside the volume
    there is nothing.

    Args:
      volume: [B, Z, Y, X, C] float32; float16 and bfloat16 are summed in float32.
      boxes: [B, R, 6] float32, voxels. No gradient flows to them.
      output_size: P, or three of them for z, y, x.

    Returns:
      [B, R, P, P, P, C] of the volume's type, in its unit times voxels; 0, with gradient 0, where a box is empty, not
      finite or outside, or the volume has no voxels.

    Raises:
      ValueError: if a shape or a type is not as above, or a size is not positive.
    """
    return _sum(*roi_windows.checked([volume], boxes, [(1, 1, 1)], output_size, (1, 1, 1), 0))


@roi_windows.in_graph
def _sum(volume, boxes, levels, strides, size):
    return roi_windows.pool_pyramid(
        volume,
        boxes,
        levels,
        strides=strides,
        size=size,
        plan_axis=_axis_overlaps,
        pool=roi_windows.contract,
        pool_gradient=roi_windows.spread,
    )


def _axis_overlaps(lo, hi, dim, num_bins):
    """Which voxels every roi touches along one axis, and how much of each lies in each bin.

    Args:
      lo: [M] float32, where the roi starts, voxels.
      hi: [M] float32, where it ends.
      dim: [M] int32, voxels of the volume.
      num_bins: P.

    Returns:
      cells: [M, K] int32 in [0, dim): the voxels, ascending.
      widths: [M] int32 in [1, K], the length of each roi's list.
      overlaps: [M, P, K] float32 in [0, 1], voxels; 0 behind the end of a list.
    """
    # A mean of the ends, not a step from one of them: exact at both, and finite between the largest numbers.
    steps = tf.range(num_bins + 1, dtype=tf.float32) / num_bins
    edges = lo[:, tf.newaxis] * (1.0 - steps) + hi[:, tf.newaxis] * steps  # [M, P + 1]

    length = tf.cast(dim, tf.float32)
    first = tf.cast(tf.clip_by_value(tf.floor(lo), 0.0, length), tf.int32)
    end = tf.cast(tf.clip_by_value(tf.math.ceil(hi), 0.0, length), tf.int32)
    widths = tf.maximum(end - first, 1)
    window = tf.range(tf.maximum(tf.reduce_max(widths), 0))
    voxels = first[:, tf.newaxis] + window  # [M, K]

    starts = tf.cast(voxels, tf.float32)[:, tf.newaxis]
    low, high = edges[:, :-1, tf.newaxis], edges[:, 1:, tf.newaxis]
    overlaps = tf.maximum(tf.minimum(high, starts + 1.0) - tf.maximum(low, starts), 0.0)
    is_inside = voxels < dim[:, tf.newaxis]
    overlaps = tf.where(is_inside[:, tf.newaxis], overlaps, 0.0)
    return tf.minimum(voxels, dim[:, tf.newaxis] - 1), widths, overlaps
