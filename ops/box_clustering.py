"""Weighted box clustering: one consolidated box of all that were found for an object."""

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks, nms3d, selection

# Weights are floored at this share of the largest in their cluster; where all weigh nothing (empty boxes, say) all
# weigh alike, and there is a mean.
MIN_WEIGHT = 1e-6


def weighted_box_clustering(
    boxes,
    scores,
    *,
    iou_threshold,
    max_outputs,
    class_ids=None,
    weights=None,
    num_views=1,
    score_threshold=None,
):
    """Merges the boxes that several views (tiles, flips, models) found for one object.

    Jaeger et al. 2020 (Retina U-Net), weighted box clustering. Each box that `nms3d` keeps begins a cluster; every
    other box joins the best-scored kept box of its class that it overlaps by more than the threshold. Box i of a
    cluster weighs w_i = f_i a_i p_i: its IoU with the cluster's best box, its volume, and its `weights` (nearness to
    the centre of its tile in the paper). The merged box is sum(w s b) / sum(w s); the merged score is
    sum(w s) / (sum(w) + missing mean(w)), so that what fewer views saw than looked there scores less. Memory is
    O(N + TILE * max_outputs), never N x N.

    Args:
      boxes: [N, 6] float32, voxels; one with a coordinate that is not finite is left out.
      scores: [N] float32 >= 0; a box whose score is not finite is left out.
      iou_threshold: in [0, 1]; a box joins a cluster when its IoU with the best box there is larger than this.
      max_outputs: size of the result; the clusters with the best-scored boxes are made.
      class_ids: [N] int32; when given, only boxes of one class form a cluster.
      weights: [N] float32 >= 0, how far to trust each box, one that is not finite not at all; None trusts all alike.
      num_views: how many boxes are expected for an object, each view giving one: a number above 0, or [N] float32, how
        many views looked where the box is. A cluster expects the mean over its boxes.
      score_threshold: boxes that score less are left out; None takes all.

    Returns:
      boxes: [max_outputs, 6] float32, voxels; 0 where not valid.
      scores: [max_outputs] float32, merged, best first; 0 where not valid.
      members: [max_outputs] int32, number of boxes of each cluster; 0 where not valid.
      indices: [max_outputs] int32, the best-scored box of each cluster; 0 where not valid.
      valid: [max_outputs] bool.
      clusters: [N] int32, the row of the result that each box has gone into; -1 for none.

    Raises:
      ValueError: other shapes or types, iou_threshold outside [0, 1], or max_outputs or num_views not above 0.
    """
    views = tf.cast(num_views, tf.float32)
    checks.shapes(
        "boxes [N, 6], scores [N], class_ids [N], weights [N], num_views [N]",
        *(boxes, scores, class_ids, weights, None if views.shape.rank == 0 else views),
    )
    if views.shape.rank == 0:
        checks.positive("num_views", num_views)
    boxes, scores = checks.float32("boxes", boxes), checks.float32("scores", scores)
    if score_threshold is not None:
        scores = tf.where(scores >= score_threshold, scores, float("nan"))
    class_ids = tf.zeros(tf.shape(scores), tf.int32) if class_ids is None else tf.convert_to_tensor(class_ids)
    weights = tf.ones_like(scores) if weights is None else checks.float32("weights", weights)
    is_sound = tf.math.is_finite(tf.reduce_sum(boxes, axis=1)) & tf.math.is_finite(scores) & tf.math.is_finite(weights)
    scores = tf.where(is_sound, scores, float("nan"))
    views = tf.broadcast_to(views, tf.shape(scores))

    best, valid = nms3d.nms3d(boxes, scores, iou_threshold=iou_threshold, max_outputs=max_outputs, class_ids=class_ids)
    best = tf.boolean_mask(best, valid)  # [C]
    cluster = tf.where(tf.math.is_nan(scores), -1, _clusters(boxes, class_ids, best, iou_threshold))
    rows = tf.where(cluster >= 0)[:, 0]
    of_members = [tf.gather(values, rows) for values in (cluster, boxes, scores, weights, views)]
    merged_boxes, merged_scores, members = _merge(tf.gather(boxes, best), *of_members)

    order = tf.argsort(merged_scores, direction="DESCENDING", stable=True)
    outputs = [merged_boxes, merged_scores, members, best, tf.ones_like(best, tf.bool)]
    # The last row is read where there is no cluster.
    place = tf.concat([tf.math.invert_permutation(order), [-1]], axis=0)
    clusters = tf.gather(place, tf.where(cluster >= 0, cluster, tf.size(best)))
    return *(selection.padded(tf.gather(values, order), max_outputs) for values in outputs), clusters


def _clusters(boxes, class_ids, best, iou_threshold):
    """The first of the best boxes, of the same class, that each box overlaps by more than the threshold.

    Args:
      boxes: [N, 6].
      class_ids: [N].
      best: [C] int32, rows of the best boxes.
      iou_threshold: as above.

    Returns:
      [N] int32 into best; -1 where there is none. A best box is of its own cluster, even if it is empty.
    """
    best_boxes, best_classes = tf.gather(boxes, best), tf.gather(class_ids, best)
    count = tf.shape(boxes)[0]

    def next_tile(start, cluster):
        rows = tf.range(start, tf.minimum(start + nms3d.TILE, count))
        pairs = nms3d.overlapping_pairs(tf.gather(boxes, rows), best_boxes, iou_threshold)
        row, other = tf.unstack(tf.cast(pairs, tf.int32), axis=1)
        same_class = tf.gather(class_ids, tf.gather(rows, row)) == tf.gather(best_classes, other)
        row, other = tf.boolean_mask(row, same_class), tf.boolean_mask(other, same_class)
        first = tf.math.unsorted_segment_min(other, row, tf.size(rows))  # the largest int32 where there is none
        return start + nms3d.TILE, tf.concat([cluster, first], axis=0)

    initial = (tf.constant(0), tf.zeros([0], tf.int32))
    invariants = (tf.TensorShape([]), tf.TensorShape([None]))
    _, cluster = tf.while_loop(lambda start, _: start < count, next_tile, initial, shape_invariants=invariants)
    cluster = tf.where(cluster < tf.size(best), cluster, -1)
    return tf.tensor_scatter_nd_update(cluster, best[:, tf.newaxis], tf.range(tf.size(best)))


def _merge(best_boxes, cluster, boxes, scores, weights, views):
    """Consolidated boxes [C, 6], scores [C] and number of members [C] int32 of the clusters.

    Args:
      best_boxes: [C, 6], the best-scored box of each cluster.
      cluster: [M] in [0, C), of each member.
      boxes: [M, 6].
      scores: [M].
      weights: [M].
      views: [M].
    """

    def total(values):
        return tf.math.unsorted_segment_sum(values, cluster, tf.shape(best_boxes)[0])

    # Volumes and positions relative to the best box: no large sums, and what agrees with it stays exact.
    best_of_cluster = tf.gather(best_boxes, cluster)
    volume_ratio = tf.math.divide_no_nan(box_ops.volume(boxes), box_ops.volume(best_of_cluster))
    weights = box_ops.iou(boxes, best_of_cluster) * volume_ratio * weights
    largest = tf.math.unsorted_segment_max(weights, cluster, tf.shape(best_boxes)[0])
    # Divided before it is floored: all that follows knows weights up to a factor only.
    weights = tf.maximum(tf.math.divide_no_nan(weights, tf.gather(largest, cluster)), MIN_WEIGHT)
    pulls = weights * scores
    shift = tf.math.divide_no_nan(total(pulls[:, tf.newaxis] * (boxes - best_of_cluster)), total(pulls)[:, tf.newaxis])
    members = total(tf.ones_like(scores))
    # sum(w) + missing mean(w) = sum(w) max(members, expected) / members
    seen = members / tf.maximum(members, total(views) / members)
    return best_boxes + shift, total(pulls) / total(weights) * seen, tf.cast(members, tf.int32)
