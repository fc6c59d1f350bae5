"""Random changes of intensities, as between scanners, doses and microscopes.

A volume is [Z, Y, X, C] float32, normalised; every change draws for each channel on its own and keeps the shape. A seed
is an int32 [2] tensor, and equal seeds give equal results. Intervals are (low, high), drawn from uniformly.
"""

import tensorflow as tf


def change(volume, settings, seed):
    """All changes, each with its probability: optics, sampling, response of the detector, noise, a lost channel.

    Args:
      volume: see above.
      settings: `input.augment`.
      seed: int32 [2]; whether and how one change is made does not depend on the others' settings.

    Returns:
      [Z, Y, X, C] float32.
    """
    low, inverts = settings.low_resolution, settings.gamma_invert
    steps = (
        (settings.blur.probability, lambda v, s: blur(v, settings.blur.interval, s)),
        (low.probability, lambda v, s: low_resolution(v, low.interval, low.axes, s)),
        (settings.gamma.probability, lambda v, s: gamma(v, settings.gamma.interval, inverts, s)),
        (settings.contrast.probability, lambda v, s: contrast(v, settings.contrast.interval, s)),
        (settings.brightness.probability, lambda v, s: brightness(v, settings.brightness.interval, s)),
        (settings.noise.probability, lambda v, s: noise(v, settings.noise.interval, s)),
        (settings.channel_drop, channel_drop),
    )
    seeds = tf.random.experimental.stateless_split(seed, len(steps))
    for (probability, step), step_seed in zip(steps, tf.unstack(seeds), strict=True):
        volume = sometimes(probability, step, volume, step_seed)
    return volume


def sometimes(probability, step, value, seed):
    """`step(value, seed)` with this probability, otherwise the value; what is not drawn costs nothing."""
    if probability == 0:
        return value
    coin, rest = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    return tf.cond(tf.random.stateless_uniform([], coin) < probability, lambda: step(value, rest), lambda: value)


def blur(volume, interval, seed):
    """Gaussian blur of standard deviation U(interval) voxels; at a border the kernel's part inside counts alone."""
    sigma = _draw(volume, interval, seed)[0, 0, 0]

    def kernel(size, sigma):
        distance = tf.range(size, dtype=tf.float32)[:, tf.newaxis] - tf.range(size, dtype=tf.float32)
        weights = tf.exp(-0.5 * tf.square(distance / sigma))
        return weights / tf.reduce_sum(weights, axis=1, keepdims=True)

    return _along_axes(volume, lambda axis, size, channel: kernel(size, sigma[channel]))


def low_resolution(volume, interval, axes, seed):
    """What a coarser grid keeps: its nearest voxels, interpolated linearly.

    Args:
      volume: see above.
      interval: voxels of the coarser grid for each voxel, in (0, 1].
      axes: three booleans (z, y, x), which axes become coarser.
      seed: int32 [2].
    """
    zoom = _draw(volume, interval, seed)[0, 0, 0]

    def kernel(size, zoom):
        coarse = tf.maximum(tf.round(zoom * tf.cast(size, tf.float32)), 1.0)  # voxels of the coarser grid
        step = tf.cast(size, tf.float32) / coarse
        place = tf.clip_by_value((tf.range(size, dtype=tf.float32) + 0.5) / step - 0.5, 0.0, coarse - 1)
        low = tf.floor(place)
        weight = (place - low)[:, tf.newaxis]

        def nearest(voxel):
            # Rounding must not lead past a boundary between two voxels, which a centre often lies on.
            return tf.one_hot(tf.cast((voxel + 0.5) * step + 1e-3, tf.int32), size)

        return (1 - weight) * nearest(low) + weight * nearest(tf.minimum(low + 1, coarse - 1))

    return _along_axes(volume, lambda axis, size, channel: kernel(size, zoom[channel]) if axes[axis] else None)


def gamma(volume, interval, invert, seed):
    """Every channel, scaled to 0..1, to the power U(interval), and back to its range.

    Args:
      volume: see above.
      interval: of the exponent, > 0.
      invert: probability, for each channel, that 1 minus the scaled channel is raised and the result taken from 1.
      seed: int32 [2].
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    exponent = _draw(volume, interval, seeds[0])
    inverted = _draw(volume, (0.0, 1.0), seeds[1]) < invert
    low = tf.reduce_min(volume, [0, 1, 2], keepdims=True)
    high = tf.reduce_max(volume, [0, 1, 2], keepdims=True)
    # Measured from the end that becomes 0.
    end, span = tf.where(inverted, high, low), tf.where(inverted, low - high, high - low)
    scaled = (volume - end) * tf.math.reciprocal_no_nan(span)
    # A third of the time of tf.pow; log(0) is -inf and its exponential 0 again.
    return tf.exp(tf.math.log(scaled) * exponent) * span + end


def contrast(volume, interval, seed):
    """Distances to each channel's mean times U(interval)."""
    factor = _draw(volume, interval, seed)
    return volume * factor + tf.reduce_mean(volume, [0, 1, 2], keepdims=True) * (1 - factor)


def brightness(volume, interval, seed):
    """Plus U(interval)."""
    return volume + _draw(volume, interval, seed)


def noise(volume, interval, seed):
    """Plus white Gaussian noise of standard deviation U(interval)."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return volume + tf.random.stateless_normal(tf.shape(volume), seeds[1]) * _draw(volume, interval, seeds[0])


def channel_drop(volume, seed):
    """One channel, drawn uniformly, becomes 0; a volume with a single one stays as it is."""
    channels = volume.shape[3]
    if channels == 1:
        return volume
    lost = tf.random.stateless_uniform([], seed, maxval=channels, dtype=tf.int32)
    return tf.where(tf.range(channels) == lost, 0.0, volume)


def _draw(volume, interval, seed):
    """[1, 1, 1, C] U(interval)."""
    low, high = interval
    return low + (high - low) * tf.random.stateless_uniform([1, 1, 1, volume.shape[3]], seed)


def _along_axes(volume, matrix):
    """Multiplies z, y and x of every channel by `matrix(axis, size, channel)`, [size, size]; None leaves the axis."""
    shape = tf.shape(volume)
    changed = []
    for number, channel in enumerate(tf.unstack(volume, axis=-1)):
        along_z, along_y, along_x = (matrix(axis, shape[axis], number) for axis in range(3))
        if along_z is not None:
            channel = tf.reshape(along_z @ tf.reshape(channel, [shape[0], shape[1] * shape[2]]), shape[:3])
        if along_y is not None:
            channel = along_y @ channel
        if along_x is not None:
            rows = tf.reshape(channel, [shape[0] * shape[1], shape[2]])
            channel = tf.reshape(tf.matmul(rows, along_x, transpose_b=True), shape[:3])
        changed.append(channel)
    return tf.ensure_shape(tf.stack(changed, axis=-1), volume.shape)
