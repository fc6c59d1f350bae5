"""Landmarks of instances, and their places in the heat maps of rois."""

import tensorflow as tf

from ops import checks

# In the order of every axis of landmarks: the centroid, then the two ends along each axis.
KEYPOINTS = ("centroid", "z_min", "z_max", "y_min", "y_max", "x_min", "x_max")


def mirrored_order(axes):
    """Rows of KEYPOINTS of a volume mirrored along axes, for the landmarks as the volume was: list of 7 integers."""
    order = list(range(len(KEYPOINTS)))
    for axis in axes:
        first, last = 1 + 2 * axis, 2 + 2 * axis
        order[first], order[last] = last, first
    return order


def from_ids(ids, num_instances):
    """Centroid and extremal points of every instance.

    An extremal point is the mean of the voxel centres in the outermost slice of the instance along an axis. It may lie
    outside an instance that is not convex, as the centroid may.

    Args:
      ids: [B, Z, Y, X] int32; instance g has id g + 1, ids outside 1..num_instances are ignored.
      num_instances: G.

    Returns:
      points: [B, G, 7, 3] float32, voxels (z, y, x), in the order of KEYPOINTS; 0 for an id that does not occur.
      valid: [B, G, 7] bool, whether the id occurs.

    Raises:
      ValueError: another shape, num_instances not above 0.
    """
    checks.shapes("ids [B, Z, Y, X]", ids)
    checks.positive("num_instances", num_instances)
    ids = tf.convert_to_tensor(ids, tf.int32)
    # The voxels of instances alone: mostly a small part of the volume.
    found = tf.cast(tf.where((ids >= 1) & (ids <= num_instances)), tf.int32)
    voxels, instances = found[:, 1:], found[:, 0] * num_instances + tf.gather_nd(ids, found) - 1  # [V, 3], [V]
    count = tf.shape(ids)[0] * num_instances

    first = voxels == tf.gather(tf.math.unsorted_segment_min(voxels, instances, count), instances)
    last = voxels == tf.gather(tf.math.unsorted_segment_max(voxels, instances, count), instances)
    means = [_mean(voxels, instances, count)]
    for axis in range(3):
        for at_end in (first[:, axis], last[:, axis]):
            means.append(_mean(tf.boolean_mask(voxels, at_end), tf.boolean_mask(instances, at_end), count))

    occurs = tf.math.unsorted_segment_sum(tf.ones_like(instances), instances, count) > 0
    points = tf.where(occurs[:, tf.newaxis, tf.newaxis], tf.stack(means, axis=1) + 0.5, 0.0)  # [B * G, 7, 3]
    valid = tf.tile(occurs[:, tf.newaxis], [1, len(KEYPOINTS)])
    shape = [-1, num_instances, len(KEYPOINTS)]
    return tf.reshape(points, [*shape, 3]), tf.reshape(valid, shape)


def to_heat_maps(points, valid, boxes, size):
    """The heat map that a roi should have for each landmark: the bins around it share it.

    Along each axis the two bins whose centres are next to the landmark divide it as in linear interpolation; the
    outermost bin has what lies beyond its centre. A single bin, as in He et al. 2017, would leap to the next one
    where a landmark lies on the border of two. The middle of a roi with an even number of bins is such a border, and
    there the landmarks of symmetric objects are: no head can say which bin it is.

    Args:
      points: [B, R, N, 3] float32, voxels.
      valid: [B, R, N] bool.
      boxes: [B, R, 6] float32, voxels.
      size: bins of a heat map along an axis, or three of them for z, y, x.

    Returns:
      heat_maps: [B, R, N, z, y, x] float32 in [0, 1] of sum 1; all in the first bin where the landmark is not inside.
      inside: [B, R, N] bool, whether a valid landmark lies in the half-open box.

    Raises:
      ValueError: other shapes, size not above 0.
    """
    size = checks.triple("size", size)
    checks.shapes("points [B, R, N, 3], valid [B, R, N], boxes [B, R, 6]", points, valid, boxes)
    points, boxes = checks.float32("points", points), checks.float32("boxes", boxes)
    lo, hi = boxes[:, :, tf.newaxis, :3], boxes[:, :, tf.newaxis, 3:]
    inside = valid & tf.reduce_all((points >= lo) & (points < hi), axis=-1)
    share = tf.where(inside[..., tf.newaxis], tf.math.divide_no_nan(points - lo, hi - lo), 0.0)
    per_axis = []
    for axis, bins in enumerate(size):
        # In bins, from the centre of the first.
        place = tf.clip_by_value(bins * share[..., axis, tf.newaxis] - 0.5, 0.0, bins - 1.0)
        per_axis.append(tf.nn.relu(1.0 - tf.abs(place - tf.range(bins, dtype=tf.float32))))
    return tf.einsum("brnz,brny,brnx->brnzyx", *per_axis), inside


def from_heat_maps(logits, boxes):
    """The likeliest place of each landmark.

    Around the likeliest bin a parabola is laid through the logits along each axis, and its top taken: exact for a
    Gaussian. A landmark between two bins, which share its probability, is so found between them.

    Args:
      logits: [B, R, N, z, y, x] float32, of which the softmax over all bins is taken.
      boxes: [B, R, 6] float32, voxels.

    Returns:
      points: [B, R, N, 3] float32, voxels, at most half a bin from the centre of the likeliest, the first of equal
        ones; along an axis where that is an outermost one, its centre.
      scores: [B, R, N] float32 in [0, 1], the probability of that bin and its neighbours, which share a landmark.

    Raises:
      ValueError: other shapes.
    """
    checks.shapes("logits [B, R, N, z, y, x], boxes [B, R, 6]", logits, boxes)
    flat, size = flatten(logits), tuple(logits.shape[3:])
    best = tf.argmax(flat, axis=-1, output_type=tf.int32)
    places, near = [], []
    for axis, step in enumerate((size[1] * size[2], size[2], 1)):
        cell = best // step % size[axis]
        near.append(tf.cast(tf.abs(tf.range(size[axis]) - cell[..., tf.newaxis]) <= 1, tf.float32))
        places.append((tf.cast(cell, tf.float32) + 0.5 + _shift(flat, best, step, cell, size[axis])) / size[axis])
    lo, hi = boxes[:, :, tf.newaxis, :3], boxes[:, :, tf.newaxis, 3:]
    probabilities = tf.reshape(tf.nn.softmax(flat), tf.shape(logits))
    scores = tf.einsum("brnzyx,brnz,brny,brnx->brn", probabilities, *near)
    return lo + (hi - lo) * tf.stack(places, axis=-1), tf.minimum(scores, 1.0)


def flatten(logits):
    """Heat maps [B, R, N, z, y, x] -> [B, R, N, z * y * x], x fastest."""
    z, y, x = logits.shape[3:]
    return tf.reshape(logits, tf.concat([tf.shape(logits)[:3], [z * y * x]], axis=0))


def _shift(flat, best, step, cell, size):
    """From the centre of the best bin to the top of a parabola along one axis, in bins: [B, R, N] in [-0.5, 0.5]."""
    is_between = (cell > 0) & (cell < size - 1)
    drops = []
    for neighbour in (best - step, best + step):
        index = tf.where(is_between, neighbour, best)
        drops.append(tf.gather(flat, best, batch_dims=3) - tf.gather(flat, index, batch_dims=3))
    return 0.5 * tf.math.divide_no_nan(drops[0] - drops[1], drops[0] + drops[1])


def _mean(voxels, instances, count):
    """Mean index of the voxels of each instance: [V, 3], [V] -> [count, 3] float32; 0 where there are none."""
    # Sums of many indices are exact in float64 alone.
    return tf.cast(tf.math.unsorted_segment_mean(tf.cast(voxels, tf.float64), instances, count), tf.float32)
