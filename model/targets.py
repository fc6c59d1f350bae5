"""What the network should have said: targets of anchors and of rois. Made on the accelerator, in the step."""

import typing

import numpy as np
import tensorflow as tf

from ops import anchors as anchor_ops
from ops import boxes as box_ops
from ops import checks, masks, matching, sampling
from ops.atss import atss

# From which IoU on an object counts as found: of its mask, as in evaluation, and of its box, which masks may leave.
FOUND_MASK_IOU, FOUND_BOX_IOU = 0.5, 0.1


class AnchorTargets(typing.NamedTuple):
    """Targets of the proposal network.

    positive: [B, A] bool, anchors drawn that should say "object" and where.
    negative: [B, A] bool, anchors drawn that should say "nothing here".
    deltas: [B, A, 6] float32, from the anchor to its truth.
    matched_boxes: [B, A, 6] float32, voxels, the truth of each anchor; means something for positive ones alone.
    """

    positive: tf.Tensor
    negative: tf.Tensor
    deltas: tf.Tensor
    matched_boxes: tf.Tensor


class RoiTargets(typing.NamedTuple):
    """Rois that train and their targets; from `sample_rois` the positives first, so heads may look at a fixed slice.

    boxes: [B, R, 6] float32, voxels.
    class_ids: [B, R] int32; 0 is background.
    slots: [B, R] int32, the matched truth slot; -1 for background.
    deltas: [B, R, 6] float32, from the roi to its truth.
    valid: [B, R] bool; False where there were too few proposals.
    matched_boxes: [B, R, 6] float32, voxels, the truth of each roi; means something for objects alone.
    """

    boxes: tf.Tensor
    class_ids: tf.Tensor
    slots: tf.Tensor
    deltas: tf.Tensor
    valid: tf.Tensor
    matched_boxes: tf.Tensor


def anchor_targets(anchors, anchors_per_level, boxes, valid, scores, *, shape, rpn, seed):
    """Assigns truths to anchors and draws those that train.

    With `rpn.cross_boundary` False, anchors that reach beyond the patch do not take part: they are neither positive
    nor negative, and are left out before the best anchor of every truth is looked for. A truth that no anchor inside
    the patch overlaps trains none.

    Args:
      anchors: [A, 6] float32 array, not a tensor, voxels.
      anchors_per_level: how many of the anchors, in order, each level has.
      boxes: [B, G, 6] float32, truths; G is static.
      valid: [B, G] bool.
      scores: [B, A] float32, how much each anchor looks like an object; for `rpn.sampling` hard_negative. They
        decide what is drawn, and get no gradient.
      shape: (Z, Y, X) of the patch.
      rpn: settings: assignment, positive_iou, negative_iou, atss_candidates, cross_boundary, sampling,
        hard_negative_pool, num_samples (0: all that are labelled train), positive_fraction.
      seed: [2] int32, one draw for the whole batch, or [B, 2], one for each of its volumes.

    Returns:
      AnchorTargets.

    Raises:
      ValueError: other shapes, anchors_per_level that do not add up to A.
    """
    num = sum(anchors_per_level)
    spec = f"anchors [{num}, 6], boxes [B, G, 6], valid [B, G], scores [B, {num}]"
    checks.shapes(spec, anchors, boxes, valid, scores)
    boxes = _without_padding(boxes, valid)
    if rpn.cross_boundary:
        matched, labels = _assign(anchors, anchors_per_level, boxes, valid, rpn)
    else:
        matched, labels = _assign_inside(anchors, anchors_per_level, boxes, valid, shape, rpn)
    positive, negative = _sample(labels, scores, rpn, seed)
    matched_boxes = _of_truths(boxes, matched)
    return AnchorTargets(positive, negative, box_ops.encode(matched_boxes, anchors), matched_boxes)


def _assign(anchors, anchors_per_level, boxes, valid, rpn):
    """The truth slot and the label of every anchor, [B, A] int32 both."""
    if rpn.assignment == "atss":
        return atss(anchors, anchors_per_level, boxes, valid, candidates_per_level=rpn.atss_candidates)

    def match(truths):
        return matching.match_boxes(anchors, *truths, high=rpn.positive_iou, low=rpn.negative_iou)

    spec = tf.TensorSpec([anchors.shape[0]], tf.int32)
    return tf.map_fn(match, (boxes, valid), fn_output_signature=(spec, spec), parallel_iterations=1)


def _assign_inside(anchors, anchors_per_level, boxes, valid, shape, rpn):
    """`_assign` among the anchors that lie inside the patch; the label of the others is -1."""
    with tf.init_scope():  # out of the graph: how many there are has to be known when it is made
        inside = ~anchor_ops.crosses_boundary(anchors, shape).numpy()
    per_level = [int(level.sum()) for level in np.split(inside, np.cumsum(anchors_per_level)[:-1])]
    matched, labels = _assign(anchors[inside], per_level, boxes, valid, rpn)
    place = np.where(inside, np.cumsum(inside) - 1, inside.sum())  # of each anchor in what follows

    def spread(values, outside):
        return tf.gather(tf.pad(values, [[0, 0], [0, 1]], constant_values=outside), place, axis=1)

    return spread(matched, 0), spread(labels, -1)


def _sample(labels, scores, rpn, seed):
    """The positives and the negatives that train, [B, A] bool both."""
    if rpn.num_samples == 0:
        return labels == 1, labels == 0
    settings = {"num_samples": rpn.num_samples, "positive_fraction": rpn.positive_fraction, "seed": seed}
    if rpn.sampling == "hard_negative":
        return sampling.hard_negative_sample(labels, scores, pool_factor=rpn.hard_negative_pool, **settings)
    return sampling.balanced_sample(labels, **settings)


def sample_rois(proposals, proposals_valid, boxes, class_ids, valid, *, rois, positive_iou=None, seed):
    """Draws the rois that train the heads, from the proposals.

    With `rois.add_truths` the truths are proposals too, so that the heads see good boxes before the proposals are any
    good.

    Args:
      proposals: [B, P, 6] float32, voxels.
      proposals_valid: [B, P] bool.
      boxes: [B, G, 6] float32, truths.
      class_ids: [B, G] int32.
      valid: [B, G] bool.
      rois: settings: num_samples, positive_fraction, positive_iou, negative_iou, add_truths.
      positive_iou: in the place of that of the settings, for the first stage of a cascade; a roi with less than both
        this and `rois.negative_iou` is background.
      seed: [2] int32, one draw for the whole batch, or [B, 2], one for each of its volumes.

    Returns:
      RoiTargets, the positives first, with R = num_samples, or as many as there are proposals (and truths) if less.

    Raises:
      ValueError: other shapes.
    """
    spec = "proposals [B, P, 6], proposals_valid [B, P], boxes [B, G, 6], class_ids [B, G], valid [B, G]"
    checks.shapes(spec, proposals, proposals_valid, boxes, class_ids, valid)
    boxes = _without_padding(boxes, valid)
    if rois.add_truths:
        proposals = tf.concat([proposals, boxes], axis=1)  # [B, P + G, 6]
        proposals_valid = tf.concat([proposals_valid, valid], axis=1)
    proposals = tf.stop_gradient(proposals)
    high = rois.positive_iou if positive_iou is None else positive_iou
    iou = box_ops.iou_matrix(proposals, boxes)
    matched, labels = matching.match(iou, valid, high=high, low=min(rois.negative_iou, high), low_quality=False)
    positive, negative = sampling.balanced_sample(
        tf.where(proposals_valid, labels, -1),
        num_samples=rois.num_samples,
        positive_fraction=rois.positive_fraction,
        seed=seed,
    )
    rank = 2 * tf.cast(positive, tf.int32) + tf.cast(negative, tf.int32)
    rank, index = tf.math.top_k(rank, min(rois.num_samples, proposals.shape[1]))
    drawn, matched = tf.gather(proposals, index, batch_dims=1), tf.gather(matched, index, batch_dims=1)
    return _roi_targets(drawn, rank > 0, matched, rank == 2, boxes, class_ids)


def assign_rois(rois, rois_valid, boxes, class_ids, valid, *, positive_iou):
    """Targets of all rois of a stage, for the later stages of a cascade (Cai & Vasconcelos 2018): nothing is drawn.

    Args:
      rois: [B, R, 6] float32, voxels, the boxes that the stage before gave.
      rois_valid: [B, R] bool.
      boxes: [B, G, 6] float32, truths.
      class_ids: [B, G] int32.
      valid: [B, G] bool.
      positive_iou: a roi with at least this IoU takes the truth's class; any other is background.

    Returns:
      RoiTargets of the rois in their order: the positives are anywhere.

    Raises:
      ValueError: other shapes, positive_iou not in [0, 1].
    """
    spec = "rois [B, R, 6], rois_valid [B, R], boxes [B, G, 6], class_ids [B, G], valid [B, G]"
    checks.shapes(spec, rois, rois_valid, boxes, class_ids, valid)
    rois, boxes = tf.stop_gradient(rois), _without_padding(boxes, valid)
    iou = box_ops.iou_matrix(rois, boxes)
    matched, labels = matching.match(iou, valid, high=positive_iou, low=positive_iou, low_quality=False)
    return _roi_targets(rois, rois_valid, matched, rois_valid & (labels == 1), boxes, class_ids)


def of_found(boxes, valid, windows, masks, batch, *, mask_threshold):
    """Targets of what is found: the truth that a box meets best, if its mask shows it; of several the first has it.

    Args:
      boxes: [B, R, 6] float32, voxels, best first.
      valid: [B, R] bool.
      windows: [B, R, 6] float32, voxels, what masks are over.
      masks: [B, R, M, M, M] float32 in [0, 1]; the three M may differ.
      batch: truths: instance_ids [B, Z, Y, X], boxes [B, G, 6], class_ids [B, G], valid [B, G].
      mask_threshold: what reaches it in a mask is of the object.

    Returns:
      RoiTargets in the order of the boxes.

    Raises:
      ValueError: other shapes.
    """
    truths = batch["boxes"], batch["class_ids"], batch["valid"]
    rois = assign_rois(boxes, valid, *truths, positive_iou=FOUND_BOX_IOU)
    true = roi_masks(batch["instance_ids"], rois._replace(boxes=windows), tuple(masks.shape[2:]))
    return first_of_each(with_masks(rois, masks, true, min_iou=FOUND_MASK_IOU, threshold=mask_threshold))


def with_masks(rois, found, true, *, min_iou, threshold=0.5):
    """Leaves rois their truth only where their masks show it, as an object is found by its mask.

    Args:
      rois: RoiTargets.
      found: [B, R, M, M, M] float32 in [0, 1], the masks of the network.
      true: [B, R, M, M, M] float32 in [0, 1], their targets, over the same windows.
      min_iou: least IoU, of the bins that reach the threshold and those of which more than half is true; two empty
        masks have none.
      threshold: of the masks of the network, as in evaluation.

    Returns:
      RoiTargets, class_ids 0 and slots -1 where it is less.
    """
    axes = (2, 3, 4)
    found, true = found >= threshold, true > 0.5
    common = tf.reduce_sum(tf.cast(found & true, tf.float32), axes)
    either = tf.reduce_sum(tf.cast(found | true, tf.float32), axes)
    shows = (common >= min_iou * either) & (either > 0.0)
    return _only(rois, shows)


def first_of_each(rois):
    """Leaves a truth to the first roi alone that has it.

    Args:
      rois: RoiTargets, [B, R].

    Returns:
      RoiTargets, class_ids 0 and slots -1 of the others.
    """
    same = rois.slots[:, :, tf.newaxis] == rois.slots[:, tf.newaxis]
    is_first = tf.argmax(same, axis=-1, output_type=tf.int32) == tf.range(rois.slots.shape[1])
    return _only(rois, is_first)


def _only(rois, chosen):
    """Leaves a truth to the chosen rois, [B, R] bool."""
    return rois._replace(class_ids=tf.where(chosen, rois.class_ids, 0), slots=tf.where(chosen, rois.slots, -1))


def _roi_targets(rois, rois_valid, matched, is_positive, boxes, class_ids):
    matched_boxes = _of_truths(boxes, matched)
    return RoiTargets(
        boxes=rois,
        class_ids=tf.where(is_positive, _of_truths(class_ids, matched), 0),
        slots=tf.where(is_positive, matched, -1),
        deltas=box_ops.encode(matched_boxes, rois),
        valid=rois_valid,
        matched_boxes=matched_boxes,
    )


def _without_padding(boxes, valid):
    """Zeros where a truth slot is padding, whatever was there."""
    return tf.where(valid[..., tf.newaxis], boxes, 0.0)


def _of_truths(values, slots):
    """Values [B, G, ...] of truth slots [B, N] -> [B, N, ...]; zeros if there are no slots."""
    padded = tf.pad(values, [[0, 0], [0, 1]] + [[0, 0]] * (len(values.shape) - 2))
    return tf.gather(padded, slots, batch_dims=1)


def roi_masks(instance_ids, rois, mask_size):
    """Mask targets of rois: [B, R, M, M, M] float32; see `masks.mask_targets`."""
    return masks.mask_targets(instance_ids, rois.boxes, rois.slots, mask_size)
