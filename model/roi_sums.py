"""What a volume measured of each object: sums over its voxels, which an energy, say, is proportional to."""

import tensorflow as tf

from ops.roi_sum3d import roi_sum3d

# Largest argument of a hyperbolic sine: 10^8 voxels of it, near 6e33, still sum up in float32.
MAX_SINH = 60.0
# Sums are counted in thousands of the unit, so that the logarithms of those of some hundred voxels are near 0, where
# what learns from them begins; what is smaller than the smallest, as a sum over noise may be, counts as the smallest.
TYPICAL, SMALLEST = 1000.0, 0.01


def object_sums(volume, boxes, masks, *, kind, intensity, by_layer=False):
    """Sums over objects of what was measured in each voxel.

    Args:
      volume: [B, Z, Y, X, C] float32, as the network sees it.
      boxes: [B, R, 6] float32, voxels.
      masks: [B, R, M, M, M] float32 in [0, 1] over the box: which share of a bin counts. No gradient flows to them.
      kind: see `measured`.
      intensity: see `measured`.
      by_layer: whether every layer of the volume along z is summed up by itself; a bin counts for the layer in which
        its middle lies.

    Returns:
      [B, R, L, C] float32, L = Z by layer, otherwise 1; 0 where a box or a mask is empty.

    Raises:
      ValueError: an unknown kind.
    """
    bins = roi_sum3d(measured(volume, kind, intensity), boxes, output_size=tuple(masks.shape[2:]))
    sums = tf.einsum("brzyx,brzyxc->brzc", tf.stop_gradient(masks), bins)
    if not by_layer:
        return tf.reduce_sum(sums, axis=2, keepdims=True)
    return tf.einsum("brzl,brzc->brlc", _layers_of_bins(boxes, sums.shape[2], volume.shape[1]), sums)


def logarithm(sums):
    """[...] float32 -> [...]: log(max(sum, SMALLEST) / TYPICAL), finite also of nothing and of less."""
    return tf.math.log(tf.maximum(sums, SMALLEST) / TYPICAL)


def _layers_of_bins(boxes, num_bins, num_layers):
    """[B, R, P, L] float32: 1 where the middle of a bin along z of a box [B, R, 6] lies in a layer."""
    steps = (tf.range(num_bins, dtype=tf.float32) + 0.5) / num_bins
    middles = boxes[..., :1] * (1.0 - steps) + boxes[..., 3:4] * steps
    # A box that is not finite has no sums to count anywhere.
    inside = tf.where(tf.math.is_finite(middles), middles, 0.0)
    layers = tf.cast(tf.clip_by_value(tf.floor(inside), 0.0, num_layers - 1.0), tf.int32)
    return tf.one_hot(layers, num_layers)


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
