"""Which anchors or rois train: random subsets with a bounded share of positives."""

import math

import tensorflow as tf

from ops import checks

# A pool of so many times the negatives wanted holds all of them in any case.
MAX_POOL_FACTOR = 1e6


def balanced_sample(labels, *, num_samples, positive_fraction, seed):
    """A random subset with a bounded share of positives; negatives fill the rest (Ren et al. 2015, section 3.1.3).

    Args:
      labels: [..., A] int32: 1 positive, 0 negative, -1 ignored.
      num_samples: size of the subset.
      positive_fraction: at most round(num_samples * positive_fraction) of it are positives.
      seed: [2] int32, or [B, 2], one of each row of the first axis; the same seed gives the same subset.

    Returns:
      positive: [..., A] bool, the positives drawn.
      negative: [..., A] bool, the negatives drawn. Fewer than num_samples in all where labels has fewer.

    Raises:
      ValueError: other shapes, num_samples not positive, positive_fraction not in [0, 1].
    """
    _check(labels, None, num_samples, positive_fraction, seed)
    priority = uniform(tf.shape(labels), seed)
    positive, wanted = _positives(labels, priority, num_samples, positive_fraction)
    return positive, _highest(labels == 0, priority, wanted, num_samples)


def hard_negative_sample(labels, scores, *, num_samples, positive_fraction, pool_factor, seed):
    """Like `balanced_sample`, with the negatives drawn from those that look most like an object.

    The pool holds pool_factor times as many negatives as are wanted, those of the highest scores (Baumgartner et al.
    2021, nnDetection): the larger, the more random; with 1 the hardest are taken without chance.

    Args:
      labels: [..., A] int32: 1 positive, 0 negative, -1 ignored.
      scores: [..., A] float32, the higher the harder, of equals the first; any range. A NaN is never in the pool.
      num_samples: size of the subset.
      positive_fraction: at most round(num_samples * positive_fraction) of it are positives, drawn uniformly.
      pool_factor: size of the pool in negatives wanted, rounded up; at least 1.
      seed: [2] int32, or [B, 2], one of each row of the first axis; the same seed gives the same subset.

    Returns:
      positive: [..., A] bool, the positives drawn.
      negative: [..., A] bool, the negatives drawn. Fewer than num_samples in all where labels has fewer.

    Raises:
      ValueError: other shapes, num_samples not positive, positive_fraction not in [0, 1], or pool_factor not in
        [1, 1e6].
    """
    _check(labels, scores, num_samples, positive_fraction, seed)
    checks.within("pool_factor", pool_factor, 1, MAX_POOL_FACTOR)
    priority = uniform(tf.shape(labels), seed)
    positive, wanted = _positives(labels, priority, num_samples, positive_fraction)
    pool_size = tf.cast(tf.math.ceil(pool_factor * tf.cast(wanted, tf.float64)), tf.int32)
    candidates = (labels == 0) & ~tf.math.is_nan(scores)
    pool = _highest(candidates, scores, pool_size, math.ceil(pool_factor * num_samples))
    return positive, _highest(pool, priority, wanted, num_samples)


def uniform(shape, seed):
    """Uniform random numbers.

    Args:
      shape: [D] int32 or list, of the result; D >= 1.
      seed: [2] int32, one draw of them all, or [B, 2] with B = shape[0]: row b depends on its own seed alone.

    Returns:
      float32 in [0, 1) of that shape.
    """
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return tf.random.stateless_uniform(shape, seed)
    return tf.map_fn(lambda row: tf.random.stateless_uniform(shape[1:], row), seed, fn_output_signature=tf.float32)


def _check(labels, scores, num_samples, positive_fraction, seed):
    seed = tf.convert_to_tensor(seed)
    # One for all, or one for each row of the first axis.
    spec = (
        "labels [B, A], scores [B, A], seed [B, 2]"
        if seed.shape.rank == 2
        else "labels [..., A], scores [..., A], seed [2]"
    )
    checks.shapes(spec, labels, scores, seed)
    checks.positive("num_samples", num_samples)
    checks.within("positive_fraction", positive_fraction, 0, 1)


def _positives(labels, priority, num_samples, positive_fraction):
    """The positives drawn, [..., A] bool, and how many negatives are wanted beside them, [..., 1] int32."""
    max_positives = round(num_samples * positive_fraction)
    positive = _highest(labels == 1, priority, max_positives, max_positives)
    return positive, num_samples - tf.reduce_sum(tf.cast(positive, tf.int32), axis=-1, keepdims=True)


def _highest(candidates, values, count, max_count):
    """The candidates with the highest values, of equals the first.

    Args:
      candidates: [..., A] bool.
      values: [..., A] float32, not NaN where candidates is True.
      count: [..., 1] int32 or a number, how many; all where there are fewer.
      max_count: a number, the largest count.

    Returns:
      [..., A] bool.
    """
    shape = tf.shape(candidates)
    num_rows, length = tf.reduce_prod(shape[:-1]), shape[-1]
    # Even a candidate of value -inf goes before what is no candidate.
    values = tf.where(candidates, tf.maximum(values, tf.float32.min), -math.inf)
    best, index = tf.math.top_k(values, tf.minimum(max_count, length))
    is_drawn = (best > -math.inf) & (tf.range(tf.shape(index)[-1]) < count)
    row_starts = tf.reshape(tf.range(num_rows) * length, tf.concat([shape[:-1], [1]], axis=0))
    flat = tf.scatter_nd((row_starts + index)[..., tf.newaxis], tf.cast(is_drawn, tf.float32), [num_rows * length])
    return tf.reshape(flat > 0.0, shape)
