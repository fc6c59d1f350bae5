"""Intensities of volumes from different scanners and microscopes on one scale."""

import tensorflow as tf


def normalize(volume, kind):
    """Scales every channel of a volume by its own statistics.

    Args:
      volume: [Z, Y, X, C] float32, finite.
      kind: "zscore" (mean 0, standard deviation 1), "minmax" (0 to 1) or "none".

    Returns:
      [Z, Y, X, C] float32; a constant channel becomes 0 (except for "none").
    """
    if kind == "none":
        return volume
    # Relative to one of its voxels a constant channel is exactly 0, whatever rounding the mean would suffer.
    volume -= volume[:1, :1, :1]
    axes = [0, 1, 2]
    if kind == "zscore":
        centred = volume - tf.reduce_mean(volume, axes, keepdims=True)
        deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True))
        return centred * tf.math.reciprocal_no_nan(deviation)
    if kind == "minmax":
        low = tf.reduce_min(volume, axes, keepdims=True)
        return (volume - low) * tf.math.reciprocal_no_nan(tf.reduce_max(volume, axes, keepdims=True) - low)
    raise ValueError(f"normalization must be one of zscore, minmax, none, got {kind!r}")
