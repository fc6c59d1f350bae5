"""Intensities of volumes from different scanners and microscopes on one scale; the same for training and serving."""

import tensorflow as tf

from data import statistics

# Which statistics of a volume become 0 and 1, or what a standard deviation is.
_BETWEEN = {"minmax": ("min", "max"), "percentile": ("p0.5", "p99.5")}


def normalize(volume, config, given=None):
    """Scales every channel of a volume.

    Args:
      volume: [Z, Y, X, C] float32, finite.
      config: the `input` section of a Config, of which normalization says how: "zscore" (mean 0, standard deviation
        1), "minmax" (0 to 1), "percentile" (0.5 and 99.5 become 0 and 1, the rest is cut off) by the volume's own
        statistics; "window" (`window` becomes 0 to 1, the rest is cut off), "dataset" (by `intensity_mean` and
        `intensity_std`) or "none".
      given: [C, S] float32, `statistics.NAMES` of the case that the volume is a part of; None: it is the whole case,
        and its statistics are computed here, by the same definitions.

    Returns:
      [Z, Y, X, C] float32; a constant channel becomes 0 by its own statistics.

    Raises:
      ValueError: another kind, or "dataset" without its numbers.
    """
    kind = config.normalization
    if kind == "none":
        return volume
    if kind == "window":
        low, high = config.window
        return tf.clip_by_value((volume - low) / (high - low), 0.0, 1.0)
    if kind == "dataset":
        _check_numbers(config)
        mean, deviation = (tf.constant(v, tf.float32) for v in (config.intensity_mean, config.intensity_std))
        return (volume - mean) * _inverse(deviation)
    if kind == "zscore":
        mean, deviation = _moments(volume) if given is None else _columns(given, ("mean", "std"))
        return (volume - mean) * _inverse(deviation)
    if kind not in _BETWEEN:
        known = "zscore, minmax, percentile, window, dataset, none"
        raise ValueError(f"normalization must be one of {known}, got {kind!r}")
    low, high = _ends(volume, kind) if given is None else _columns(given, _BETWEEN[kind])
    # Also "minmax": rounding, and a record's statistics, must not lead out of the interval.
    return tf.clip_by_value((volume - low) * _inverse(high - low), 0.0, 1.0)


def common_scale(config):
    """How intensities that are normalised alike in all volumes were before.

    Args:
      config: the `input` section of a Config.

    Returns:
      gains and offsets, a number per channel each: gain * normalised + offset is the intensity (of "window" where that
      was not cut off). None where the normalisation differs from volume to volume.

    Raises:
      ValueError: "dataset" without its numbers.
    """
    if config.normalization == "none":
        return (1.0,) * config.channels, (0.0,) * config.channels
    if config.normalization == "window":
        low, high = map(float, config.window)
        return (high - low,) * config.channels, (low,) * config.channels
    if config.normalization == "dataset":
        _check_numbers(config)
        return tuple(config.intensity_std), tuple(config.intensity_mean)
    return None


def _check_numbers(config):
    if not config.intensity_mean:
        raise ValueError("normalization dataset needs input.intensity_mean and intensity_std, got none")


def _columns(given, names):
    return [given[:, statistics.NAMES.index(name)] for name in names]


def _inverse(values):
    """1 / values, and 0 instead of what overflows."""
    return tf.where(values > 1e-30, tf.math.reciprocal_no_nan(values), 0.0)


def _moments(volume):
    """Mean and standard deviation [C] of each channel."""
    # Relative to one of its voxels a constant channel is exactly 0, whatever rounding the mean would suffer.
    first = volume[0, 0, 0]
    moved = volume - first
    mean = tf.reduce_mean(moved, [0, 1, 2])
    return first + mean, tf.sqrt(tf.reduce_mean(tf.square(moved - mean), [0, 1, 2]))


def _ends(volume, kind):
    """What becomes 0 and 1, [C] each."""
    if kind == "minmax":
        return tf.reduce_min(volume, [0, 1, 2]), tf.reduce_max(volume, [0, 1, 2])
    return _percentiles(volume, (0.5, 99.5))


def _percentiles(volume, percents):
    """[C] for each percent: linear between neighbours, of a sample of large volumes as in `statistics.Statistics`."""
    voxels = tf.reshape(volume, [-1, tf.shape(volume)[3]])
    step = -(-tf.shape(voxels)[0] // statistics.MAX_SAMPLE)
    ordered = tf.ensure_shape(tf.sort(tf.transpose(voxels[::step])), [volume.shape[3], None])
    last = tf.shape(ordered)[1] - 1
    found = []
    for percent in percents:
        # float32 would not tell places among a million voxels apart.
        place = tf.cast(last, tf.float64) * (percent / 100)
        low = tf.cast(place, tf.int32)
        share = tf.cast(place - tf.cast(low, tf.float64), tf.float32)
        below, above = ordered[:, low], ordered[:, tf.minimum(low + 1, last)]
        found.append(below + (above - below) * share)
    return found
