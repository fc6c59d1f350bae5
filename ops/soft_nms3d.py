"""Soft non-maximum suppression of 3D boxes: an overlap lowers a score instead of dropping the box."""

import functools

import tensorflow as tf

from ops import boxes as box_ops
from ops import checks, selection


def soft_nms3d(
    boxes,
    scores,
    *,
    iou_threshold,
    max_outputs,
    method="linear",
    sigma=0.5,
    score_threshold=0.001,
    class_ids=None,
):
    """Takes the best-scored box again and again, and lowers the scores of what overlaps it.

    Bodla et al. 2017, equations 2 (linear) and 3 (gaussian). At most max_outputs steps over all boxes, in O(N) memory.

    Args:
      boxes: [N, 6] float32, voxels.
      scores: [N] float32 >= 0, ties by index; a box with a NaN score is never kept and lowers no other.
      iou_threshold: in [0, 1]; "linear" lowers the scores of boxes with a larger IoU.
      max_outputs: size of the result.
      method: "linear" multiplies a score by 1 - IoU, "gaussian" by exp(-IoU^2 / sigma), whatever the IoU.
      sigma: above 0; width for "gaussian".
      score_threshold: a box is dropped when its score is or falls below this.
      class_ids: [N] int32; when given, a box only lowers the scores of its class.

    Returns:
      indices: [max_outputs] int32 into boxes in the order in which they were taken; 0 where not valid.
      scores: [max_outputs] float32, lowered, as they were when the box was taken, best first; 0 where not valid.
      valid: [max_outputs] bool.

    Raises:
      ValueError: other shapes or types, iou_threshold outside [0, 1], max_outputs or sigma not above 0, or an unknown
        method.
    """
    checks.shapes("boxes [N, 6], scores [N], class_ids [N]", boxes, scores, class_ids)
    checks.within("iou_threshold", iou_threshold, 0, 1)
    checks.positive("max_outputs", max_outputs)
    checks.positive("sigma", sigma)
    if method not in ("linear", "gaussian"):
        raise ValueError(f"expected method 'linear' or 'gaussian', came {method!r}")
    boxes, scores = checks.float32("boxes", boxes), checks.float32("scores", scores)
    class_ids = tf.zeros(tf.shape(scores), tf.int32) if class_ids is None else tf.convert_to_tensor(class_ids)
    gone = -float("inf")

    def is_open(current, indices, _):
        return (tf.size(indices) < max_outputs) & tf.reduce_any(current > gone)

    def take_best(current, indices, taken):
        # Not argmax(): top_k() alone promises the lower index of two equal scores.
        score, best = tf.math.top_k(current, 1)
        overlap = box_ops.iou(boxes, tf.gather(boxes, best))
        # What overlaps by NaN, a box with a coordinate that is not finite, does not overlap.
        lowered = current * decay(tf.where(tf.math.is_nan(overlap), 0.0, overlap))
        current = tf.where(class_ids == tf.gather(class_ids, best), lowered, current)
        # What is gone stays so: -inf times 0 is NaN, which passes no threshold.
        current = tf.where(current >= score_threshold, current, gone)
        current = tf.tensor_scatter_nd_update(current, [best], [gone])
        return current, tf.concat([indices, best], axis=0), tf.concat([taken, score], axis=0)

    def decay(overlap):
        if method == "gaussian":
            return tf.exp(-(overlap**2) / sigma)
        return tf.where(overlap > iou_threshold, 1.0 - overlap, 1.0)

    initial = (tf.where(scores >= score_threshold, scores, gone), tf.zeros([0], tf.int32), tf.zeros([0]))
    invariants = (tf.TensorShape([None]),) * 3
    _, indices, taken = tf.while_loop(is_open, take_best, initial, shape_invariants=invariants)
    valid = tf.ones_like(indices, tf.bool)
    return tuple(selection.padded(values, max_outputs) for values in (indices, taken, valid))


def batched_soft_nms3d(boxes, scores, *, max_outputs, class_ids=None, **settings):
    """`soft_nms3d` of every volume of a batch.

    Args:
      boxes: [B, N, 6] float32, voxels.
      scores: [B, N] float32.
      max_outputs: as in `soft_nms3d`.
      class_ids: [B, N] int32 or None.
      **settings: iou_threshold, method, sigma and score_threshold as in `soft_nms3d`.

    Returns:
      indices: [B, max_outputs] int32; 0 where not valid.
      scores: [B, max_outputs] float32; 0 where not valid.
      valid: [B, max_outputs] bool.

    Raises:
      ValueError: as in `soft_nms3d`.
    """
    select = functools.partial(soft_nms3d, **settings)
    dtypes = (tf.int32, tf.float32, tf.bool)
    return selection.of_each_volume(select, boxes, scores, class_ids, max_outputs=max_outputs, dtypes=dtypes)
