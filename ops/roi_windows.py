"""Pooling of rois in chunks of bounded memory, on one or several feature levels.

A roi reads a window of cells, listed axis by axis, and pools it to a fixed grid of bins. Windows differ a thousandfold
in size, so rois are put in an order in which neighbours need like windows, and as many of them are gathered and pooled
at a time as fit a budget. Nothing but the plan of the windows is kept for the backward pass, which gathers again.
"""

from typing import NamedTuple

import tensorflow as tf

from ops import checks
from ops.roi_levels import roi_levels

# For the windows of one chunk and for what is made of them. Smaller chunks stay in the caches and waste less on the
# largest roi among them; larger ones start fewer kernels.
CHUNK_BYTES = 4 << 20

# Chunks in flight: one is gathered while another is contracted and a third is added to the result, which alone is done
# in turn. One after the other takes nearly twice the time on two cores.
CHUNKS_AT_ONCE = 4

# Rois whose windows differ by less than this many cells along an axis count as alike.
LIKENESS = 4


class Plan(NamedTuple):
    """What each of the M rois with something to read reads, alike rois side by side.

    Attributes:
      rois: [M] int32, row of the result.
      widths: [M, 3] int32, cells that are read along each axis.
      rows: three [M, K] int32; the row of a cell in the table of all cells is the sum of its three entries.
      shares: three [M, P, K], how the cells of one axis make its bins; or [M, P], what else is known of the bins.
    """

    rois: tf.Tensor
    widths: tf.Tensor
    rows: tuple
    shares: tuple


def in_graph(function):
    """The function, run as a graph even where it is called eagerly.

    A loop adds to its result in place inside a graph; eagerly every step would copy it.
    """
    compiled = tf.function(function, reduce_retracing=True, autograph=False)

    def call(*args, **kwargs):
        return (compiled if tf.executing_eagerly() else function)(*args, **kwargs)

    return call


def checked(features, boxes, strides, output_size, canonical_size, canonical_level):
    """What every pooling over a pyramid is asked for, checked.

    Args:
      features: L tensors [B, z, y, x, C] of floats, finest first.
      boxes: [B, R, 6] float32, input voxels.
      strides: L (z, y, x) triples.
      output_size: P, or three of them for z, y, x.
      canonical_size: see `roi_levels`.
      canonical_level: see `roi_levels`.

    Returns:
      features: as tensors.
      boxes: as a tensor.
      levels: [B, R] int32, the level that each box reads.
      strides: L tuples of three.
      size: (Pz, Py, Px).

    Raises:
      ValueError: if a shape or a type is not as above, there are not L strides, the level is none of them, or a size
        is not positive.
    """
    features = tuple(tf.convert_to_tensor(level) for level in features)
    if not features:
        raise ValueError("expected the features of at least one level, came none")
    for level in features:
        checks.shapes("finest [B, Z, Y, X, C], features [B, z, y, x, C], boxes [B, R, 6]", features[0], level, boxes)
    boxes, size = checks.float32("boxes", boxes), checks.triple("output_size", output_size)
    levels = roi_levels(
        boxes,
        num_levels=len(features),
        strides=strides,
        canonical_size=canonical_size,
        canonical_level=canonical_level,
    )
    return features, boxes, levels, tuple(checks.triple("stride", stride) for stride in strides), size


def pool_pyramid(features, boxes, levels, *, strides, size, plan_axis, pool, pool_gradient):
    """Pools each box from its own level.

    Args:
      features: L tensors [B, z, y, x, C] of floats.
      boxes: [B, R, 6] float32, input voxels. No gradient flows to them.
      levels: [B, R] int32 in [0, L).
      strides: L (z, y, x) triples.
      size: (Pz, Py, Px).
      plan_axis: of lo [M], hi [M] float32 in cells from the border of the grid, dim [M] int32 cells, and P, gives cells
        [M, K] int32 in [0, dim), widths [M] int32, how many of the K a roi reads, and shares [M, P, K] or [M, P].
      pool: of windows [n, Kz, Ky, Kx, C] float32 and their three shares, gives [n, Pz, Py, Px, C].
      pool_gradient: of the gradient [n, Pz, Py, Px, C], a function that gathers the windows, and the shares, gives the
        gradient of the windows.

    Returns:
      [B, R, Pz, Py, Px, C] of the features' type; 0, with gradient 0, where a box is empty or not finite, or its level
      has no cells.
    """
    batch, num_rois = tf.shape(boxes)[0], tf.shape(boxes)[1]
    channels, dtype = tf.shape(features[0])[-1], features[0].dtype
    plan = _plan(features, boxes, levels, strides, size, plan_axis)

    def table_of(levels_of_cells):
        return tf.concat([tf.reshape(level, [-1, channels]) for level in levels_of_cells], axis=0)

    @tf.custom_gradient
    def pooled(*features):
        table = table_of(features)

        def pool_chunk(result, rois, rows, shares):
            chunk = pool(_gather(table, rows), shares)
            return _add_rows(result, rois, tf.cast(tf.reshape(chunk, [tf.size(rois), -1]), dtype))

        row_size = size[0] * size[1] * size[2] * channels
        result = _fold_chunks(pool_chunk, tf.zeros([batch * num_rois, row_size], dtype), plan, size, channels)

        def gradient(upstream):
            upstream = tf.reshape(upstream, [batch * num_rois, *size, channels])
            table = table_of(features)  # again, rather than kept: a graph drops it where no gradient reads it

            def spread_chunk(total, rois, rows, shares):
                chunk = tf.cast(tf.gather(upstream, rois), tf.float32)
                windows = pool_gradient(chunk, lambda: _gather(table, rows), shares)
                return _add_rows(total, tf.reshape(rows, [-1]), tf.reshape(windows, [-1, channels]))

            num_cells = [tf.size(level) // channels for level in features]
            total = _fold_chunks(spread_chunk, tf.zeros([tf.add_n(num_cells), channels]), plan, size, channels)
            parts = tf.split(tf.cast(total, dtype), num_cells)
            return [tf.reshape(part, tf.shape(level)) for part, level in zip(parts, features, strict=True)]

        return tf.reshape(result, [batch, num_rois, *size, channels]), gradient

    return tf.ensure_shape(pooled(*features), [*boxes.shape[:2], *size, features[0].shape[-1]])


def contract(windows, weights):
    """Applies the weights of one axis after the other: [n, Kz, Ky, Kx, C] -> [n, Pz, Py, Px, C]."""
    wz, wy, wx = weights
    count, kz, ky, kx, channels = tf.unstack(tf.shape(windows))
    pz, py = wz.shape[1], wy.shape[1]
    along_z = tf.matmul(wz, tf.reshape(windows, [count, kz, ky * kx * channels]))
    along_y = tf.matmul(wy[:, tf.newaxis], tf.reshape(along_z, [count, pz, ky, kx * channels]))
    return tf.matmul(wx[:, tf.newaxis, tf.newaxis], tf.reshape(along_y, [count, pz, py, kx, channels]))


def spread(upstream, _, weights):
    """The transpose of `contract`, which is linear: [n, Pz, Py, Px, C] -> [n, Kz, Ky, Kx, C]."""
    wz, wy, wx = weights
    count, pz, py, _, channels = tf.unstack(tf.shape(upstream))
    kz, ky, kx = (tf.shape(w)[2] for w in weights)
    along_x = tf.matmul(wx[:, tf.newaxis, tf.newaxis], upstream, transpose_a=True)
    along_y = tf.matmul(wy[:, tf.newaxis], tf.reshape(along_x, [count, pz, py, kx * channels]), transpose_a=True)
    along_z = tf.matmul(wz, tf.reshape(along_y, [count, pz, ky * kx * channels]), transpose_a=True)
    return tf.reshape(along_z, [count, kz, ky, kx, channels])


def _plan(features, boxes, levels, strides, size, plan_axis):
    """The Plan of all rois that have cells to read and are neither empty nor, by accident, infinite or NaN.

    All levels of all volumes are laid end to end as one table of cells, so that one gather serves rois of any level.
    """
    batch, num_rois = tf.shape(boxes)[0], tf.shape(boxes)[1]
    boxes, levels = tf.reshape(tf.stop_gradient(boxes), [-1, 6]), tf.reshape(levels, [-1])
    shapes = tf.stack([tf.shape(level)[1:4] for level in features])  # [L, 3]
    cells_per_volume = tf.reduce_prod(shapes, axis=1)  # [L]
    is_read = tf.reduce_all(boxes[:, 3:] > boxes[:, :3], axis=-1) & tf.reduce_all(tf.math.is_finite(boxes), axis=-1)
    is_read &= tf.gather(cells_per_volume, levels) > 0
    rois = tf.cast(tf.where(is_read)[:, 0], tf.int32)  # [M]
    boxes, levels = tf.gather(boxes, rois), tf.gather(levels, rois)

    level_starts = tf.cumsum(cells_per_volume * batch, exclusive=True)
    volumes = rois // tf.maximum(num_rois, 1)
    starts = tf.gather(level_starts, levels) + volumes * tf.gather(cells_per_volume, levels)

    dims = tf.gather(shapes, levels)  # [M, 3]
    stride = tf.gather(tf.constant(strides, tf.float32), levels)
    lo, hi = boxes[:, :3] / stride, boxes[:, 3:] / stride
    axes = [plan_axis(lo[:, axis], hi[:, axis], dims[:, axis], size[axis]) for axis in range(3)]
    cells, widths, shares = zip(*axes, strict=True)
    rows = (starts[:, tf.newaxis] + cells[0] * dims[:, 1:2] * dims[:, 2:], cells[1] * dims[:, 2:], cells[2])

    widths = tf.stack(widths, axis=1)
    z, y, x = tf.unstack(widths // LIKENESS, axis=1)
    many = tf.reduce_max(widths) // LIKENESS + 1
    order = tf.argsort((z * many + y) * many + x)
    return tf.nest.map_structure(lambda t: tf.gather(t, order), Plan(rois, widths, rows, shares))


def _fold_chunks(step, state, plan, size, channels):
    """Folds `step(state, rois [n], rows [n, Kz, Ky, Kx], shares)` over the chunks of a plan."""
    count = tf.size(plan.rois)

    def num_fitting(widths):
        largest = tf.maximum(tf.reduce_max(widths, axis=0), size)  # what is pooled may be larger than what is read
        roi_bytes = tf.reduce_prod(tf.cast(largest, tf.int64)) * tf.cast(channels, tf.int64) * 4
        return tf.cast(tf.maximum(CHUNK_BYTES // roi_bytes, 1), tf.int32)

    def next_chunk(begin, state):
        # As many as would fit if all were like the first; of these, as many as fit in the windows of the largest.
        end = tf.minimum(begin + num_fitting(plan.widths[begin : begin + 1]), count)
        end = tf.minimum(begin + num_fitting(plan.widths[begin:end]), end)
        lengths = tf.unstack(tf.reduce_max(plan.widths[begin:end], axis=0))
        z, y, x = (rows[begin:end, :length] for rows, length in zip(plan.rows, lengths, strict=True))
        rows = (z[:, :, tf.newaxis] + y[:, tf.newaxis, :])[..., tf.newaxis] + x[:, tf.newaxis, tf.newaxis, :]
        shares = [share[begin:end, ..., :length] for share, length in zip(plan.shares, lengths, strict=True)]
        return end, step(state, plan.rois[begin:end], rows, shares)

    start = (tf.constant(0), state)
    return tf.while_loop(lambda begin, _: begin < count, next_chunk, start, parallel_iterations=CHUNKS_AT_ONCE)[1]


def _gather(table, rows):
    return tf.cast(tf.gather(table, rows), tf.float32)


def _add_rows(state, rows, values):
    """The state [N, M] with values [n, M] added to its rows, in place where nothing else holds the state.

    `tf.tensor_scatter_nd_add` says the same, but on a CPU it copies the state every time.
    """
    return tf.raw_ops.ScatterNdNonAliasingAdd(input=state, indices=rows[:, tf.newaxis], updates=values)
