"""What a volume measured of each object: sums over its voxels, which an energy, say, is proportional to."""

import tensorflow as tf

from ops.roi_sum3d import roi_sum3d

# Largest argument of a hyperbolic sine: 10^8 voxels of it, near 6e33, still sum up in float32.
MAX_SINH = 60.0
# Sums are counted in thousands of the unit, so that the logarithms of those of some hundred voxels are near 0, where
# what learns from them begins; what is smaller than the smallest, as a sum over noise may be, counts as the smallest.
TYPICAL, SMALLEST = 1000.0, 0.01


def log_sums(volume, boxes, masks, *, kind, intensity):
    """Logarithms of the sums over objects of what was measured in each voxel.

    Args:
      volume: [B, Z, Y, X, C] float32, as the network sees it.
      boxes: [B, R, 6] float32, voxels.
      masks: [B, R, M, M, M] float32 in [0, 1] over the box: which share of a bin counts. No gradient flows to them.
      kind: see `measured`.
      intensity: see `measured`.

    Returns:
      [B, R, C] float32, log(max(sum, SMALLEST) / TYPICAL): finite, also where a box or a mask is empty.

    Raises:
      ValueError: an unknown kind.
    """
    bins = roi_sum3d(measured(volume, kind, intensity), boxes, output_size=tuple(masks.shape[2:]))
    sums = tf.einsum("brzyx,brzyxc->brc", tf.stop_gradient(masks), bins)
    return tf.math.log(tf.maximum(sums, SMALLEST) / TYPICAL)


def measured(volume, kind, intensity):
    """What each voxel measured.

    Args:
      volume: [B, Z, Y, X, C] float32, as the network sees it.
      kind: "linear" for the intensity as it was before normalisation, in units of the gain; "sinh" for its sinh, where
        the asinh of what was measured was stored, in the unit in which that was 1.
      intensity: gains and offsets, C numbers each: gain * volume + offset is the intensity before normalisation. None:
        the volume is the intensity.

    Returns:
      [B, Z, Y, X, C] float32; without gradient.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in ("linear", "sinh"):
        raise ValueError(f"expected kind of sums 'linear' or 'sinh', came {kind!r}")
    volume = tf.cast(tf.stop_gradient(volume), tf.float32)
    gains, offsets = (tf.constant(values, tf.float32) for values in intensity or ([1.0], [0.0]))
    if kind == "linear":
        return volume + tf.math.divide_no_nan(offsets, gains)
    return tf.sinh(tf.clip_by_value(gains * volume + offsets, -MAX_SINH, MAX_SINH))
