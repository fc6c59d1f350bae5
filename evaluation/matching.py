"""One volume's detections against its truths."""

import numpy as np

from evaluation import metrics
from ops import keypoints
from ops import masks as mask_ops


def match_volume(detections, truth, mask_threshold):
    """Overlaps of every detection with every truth.

    Args:
      detections: dict of tensors as `VolumeDetector.detect` returns it.
      truth: dict of arrays: instance_ids [Z, Y, X] int32 with ids 1..N, boxes [N, 6] float32, class_ids [N] int32,
        and attributes [N, T] and keypoints [N, L, 3] float32 where the detections have some; where L is 0 landmarks are
        derived from the ids.
      mask_threshold: a voxel belongs to a detection where its mask is at least this.

    Returns:
      metrics.VolumeMatch. Every detection has its own full mask here; overlaps are not resolved.
    """
    count = int(detections["num_detections"])
    boxes = detections["boxes"][:count]
    lo, hi = mask_ops.covered_voxels(boxes, truth["instance_ids"].shape)
    crops = [
        (lo[d].numpy(), mask_ops.resample(detections["masks"][d], boxes[d], lo[d], hi[d]).numpy() >= mask_threshold)
        for d in range(count)
    ]
    return metrics.VolumeMatch(
        box_iou=metrics.box_iou(boxes.numpy(), truth["boxes"]),
        mask_iou=metrics.mask_iou(crops, truth["instance_ids"], len(truth["class_ids"])),
        scores=detections["scores"][:count].numpy(),
        class_ids=detections["class_ids"][:count].numpy(),
        gt_class_ids=np.asarray(truth["class_ids"]),
        **_measured(detections, truth, count),
    )


def _measured(detections, truth, count):
    """Attributes and landmarks, found and true, where the network has the heads for them."""
    found = {}
    if "attributes" in detections:
        found["attributes"] = detections["attributes"][:count].numpy()
        found["gt_attributes"] = np.asarray(truth["attributes"])
    if "keypoints" in detections:
        found["keypoints"] = detections["keypoints"][:count].numpy()
        found["gt_keypoints"] = _true_keypoints(truth)
    return found


def _true_keypoints(truth):
    """Landmarks as the data gives them, NaN where unknown, or else of the masks: [N, L, 3] float32 voxels."""
    if truth["keypoints"].shape[1]:
        return truth["keypoints"]
    num_truths = len(truth["class_ids"])
    points, _ = keypoints.from_ids(truth["instance_ids"][np.newaxis], max(num_truths, 1))
    return points[0, :num_truths].numpy()
