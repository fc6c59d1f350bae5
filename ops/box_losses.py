"""Losses of decoded boxes: one minus an overlap, averaged over the items of an example that count, as in `ops.losses`.

Unlike smooth L1 on deltas they weigh all axes together and know no scale: a shift costs what it takes of the overlap.
"""

from ops import masked, overlaps


def giou_loss(predictions, targets, mask):
    """One minus the generalized IoU (Rezatofighi et al. 2019).

    Args:
      predictions: [B, ..., 6] float32, decoded boxes in voxels.
      targets: [B, ..., 6] float32, boxes in voxels.
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32 in [0, 2]; 0 where none count.

    Raises:
      ValueError: shapes that differ, a last axis that is not 6.
    """
    return _one_minus(overlaps.giou, predictions, targets, mask)


def diou_loss(predictions, targets, mask):
    """One minus the distance IoU (Zheng et al. 2020): IoU less the squared distance of the centres.

    Args:
      predictions: [B, ..., 6] float32, decoded boxes in voxels.
      targets: [B, ..., 6] float32, boxes in voxels.
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32 in [0, 2]; 0 where none count.

    Raises:
      ValueError: shapes that differ, a last axis that is not 6.
    """
    return _one_minus(overlaps.diou, predictions, targets, mask)


def ciou_loss(predictions, targets, mask):
    """One minus the complete IoU (Zheng et al. 2020): distance IoU less a penalty on the proportions.

    See `overlaps.ciou` for the penalty in 3D; its weight has no gradient.

    Args:
      predictions: [B, ..., 6] float32, decoded boxes in voxels.
      targets: [B, ..., 6] float32, boxes in voxels.
      mask: [B, ...] bool, the items that count.

    Returns:
      [B] float32 in [0, 3]; 0 where none count.

    Raises:
      ValueError: shapes that differ, a last axis that is not 6.
    """
    return _one_minus(overlaps.ciou, predictions, targets, mask)


def _one_minus(overlap, predictions, targets, mask):
    expected = "predictions [B, ..., 6], targets [B, ..., 6], mask [B, ...]"
    predictions, targets, mask = masked.inputs(expected, predictions, targets, mask)
    return masked.mean(1.0 - overlap(predictions, targets), mask)
