"""Average precision of boxes and masks, and what the matched objects look like."""

import dataclasses

import numpy as np

from data.errors import InputError

MATCH_IOU = 0.5  # of the per-image AP, and of the matching behind mean mask IoU and class accuracy


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class VolumeMatch:
    """The detections of one volume against its truths.

    Attributes:
      box_iou: [D, G] float32.
      mask_iou: [D, G] float32.
      scores: [D] float32, in any order.
      class_ids: [D] int32, 1..K.
      gt_class_ids: [G] int32, 1..K.
      attributes, gt_attributes: [D, T] and [G, T] float32, true ones NaN where unknown; None where none are measured.
      keypoints, gt_keypoints: [D, N, 3] and [G, N, 3] float32, voxels, true ones NaN where unknown; or None.
    """

    box_iou: np.ndarray
    mask_iou: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    gt_class_ids: np.ndarray
    attributes: np.ndarray | None = None
    gt_attributes: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    gt_keypoints: np.ndarray | None = None

    def __post_init__(self):
        counts = (len(self.scores), len(self.gt_class_ids))
        for name in ("box_iou", "mask_iou"):
            if getattr(self, name).shape != counts:
                raise ValueError(f"{name} must be [detections, truths] = {counts}, got {getattr(self, name).shape}")
        if len(self.class_ids) != len(self.scores):
            raise ValueError(f"class_ids must be one per score ({len(self.scores)}), got {len(self.class_ids)}")
        if not np.isfinite(self.scores).all():
            raise ValueError(f"scores must be finite, got {np.asarray(self.scores)[~np.isfinite(self.scores)]}")


def summarize(volumes, classes, thresholds=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75)):
    """Scores a set of volumes; the result can be written as JSON, what is undefined is None.

    At each threshold the detections of a volume, best score first (ties: as they come), each take
    the free truth of their class with the highest IoU (ties: the first), if it is >= the threshold,
    and are false positives otherwise. AP is `average_precision` over the detections of all volumes.
    "pooled" ranks all classes in one list, "mean" is the mean over the classes that have truths.

    Args:
      volumes: list of `VolumeMatch`; may be empty.
      classes: names of classes 1..K.
      thresholds: IoU in (0, 1].

    Returns:
      dict of num_volumes, num_truths, num_detections;
      box_ap, mask_ap: {"0.50": {"pooled", "mean", and each class: AP, None without truths}};
      mask_ap50_per_image: mean over the volumes with truths of their own pooled mask AP at 0.5;
      num_matched, mean_mask_iou, class_accuracy: matches at mask IoU 0.5 whatever the class, their
      mean IoU, and the share of them with the right class (None without matches).

    Raises:
      InputError: a class is called "pooled" or "mean".
      ValueError: a threshold outside (0, 1] or given twice, a class id outside 1..K.
    """
    _check(volumes, classes, thresholds)
    matched_ious, matched_right = _matched_pairs(volumes)
    per_image = [
        _pooled_ap([volume], [volume.mask_iou], MATCH_IOU) for volume in volumes if len(volume.gt_class_ids) > 0
    ]
    return {
        "num_volumes": len(volumes),
        "num_truths": sum(len(volume.gt_class_ids) for volume in volumes),
        "num_detections": sum(len(volume.scores) for volume in volumes),
        "box_ap": _ap_table(volumes, [volume.box_iou for volume in volumes], classes, thresholds),
        "mask_ap": _ap_table(volumes, [volume.mask_iou for volume in volumes], classes, thresholds),
        "mask_ap50_per_image": _mean(per_image),
        "num_matched": len(matched_ious),
        "mean_mask_iou": _mean(matched_ious),
        "class_accuracy": _mean(matched_right),
    }


def matched(volume):
    """The detections of a `VolumeMatch` and the truths that they take at `MATCH_IOU`, whatever the class: [M] each."""
    truths = greedy_match(volume.mask_iou, volume.scores, MATCH_IOU)
    detections = np.flatnonzero(truths >= 0)
    return detections, truths[detections]


def average_precision(scores, hits, num_truths):
    """Area under the precision-recall curve through every detection, as PASCAL VOC 2010 and later.

    Precision is first made monotone from the right: at each recall it is the best precision at that
    recall or a higher one.

    Args:
      scores: [D] float; equal scores keep their order.
      hits: [D] bool, the detection has a truth of its own.
      num_truths: int, found or not.

    Returns:
      float in [0, 1]; None without truths, 0.0 without detections.
    """
    if num_truths == 0:
        return None
    if len(scores) == 0:
        return 0.0
    hits = hits[_ranking(scores)]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall steps by 1 / num_truths at each hit and stands still at the others.
    return float(envelope[hits].sum() / num_truths)


def greedy_match(iou, scores, threshold):
    """Gives each detection, best score first, the free truth that it overlaps most.

    Args:
      iou: [D, G] float32; pairs that must not match are 0.
      scores: [D] float; equal scores keep their order.
      threshold: least IoU of a match, > 0.

    Returns:
      [D] int64, the truth of each detection, -1 for none.
    """
    truths = np.full(len(scores), -1)
    if iou.size == 0:
        return truths
    free = np.array(iou)
    for detection in _ranking(scores):
        best = free[detection].argmax()
        # float32 on both sides, or an IoU of 0.7 would fall short of a threshold of 0.7.
        if free[detection, best] >= np.float32(threshold):
            truths[detection] = best
            free[:, best] = 0.0
    return truths


def box_iou(a, b):
    """Intersection over union of every pair of boxes.

    Args:
      a: [D, 6] boxes, voxels.
      b: [G, 6] boxes, voxels.

    Returns:
      [D, G] float32 in [0, 1]; 0 where either box is empty.
    """
    a, b = np.asarray(a, np.float64).reshape(-1, 1, 6), np.asarray(b, np.float64).reshape(1, -1, 6)
    intersection = _volume(np.maximum(a[..., :3], b[..., :3]), np.minimum(a[..., 3:], b[..., 3:]))
    union = _volume(a[..., :3], a[..., 3:]) + _volume(b[..., :3], b[..., 3:]) - intersection
    return _ratio(intersection, union)


def mask_iou(masks, ids, num_truths):
    """Intersection over union of every detected mask with every truth.

    Args:
      masks: list of D pairs (lo, crop): the corner [3] int of a crop inside the volume, and the mask
        [z, y, x] bool within it.
      ids: [Z, Y, X] int32; 1..num_truths the truths, all else is background.
      num_truths: int G.

    Returns:
      [D, G] float32 in [0, 1]; 0 where both are empty.

    Raises:
      ValueError: a crop reaches out of the volume.
    """
    # Plane by plane: a whole volume at once would need several times its memory.
    truth_voxels = sum((_count(plane, num_truths) for plane in ids), np.zeros(num_truths, np.int64))
    intersection = np.zeros((len(masks), num_truths), np.int64)
    for row, (lo, crop) in zip(intersection, masks, strict=True):
        lo = np.asarray(lo)
        hi = lo + crop.shape
        if (lo < 0).any() or (hi > ids.shape).any():
            raise ValueError(f"a mask crop must lie inside the volume {ids.shape}, got {lo.tolist()} to {hi.tolist()}")
        row[:] = _count(ids[tuple(map(slice, lo, hi))][crop], num_truths)
    detected_voxels = np.array([np.count_nonzero(crop) for _, crop in masks], np.int64).reshape(-1, 1)
    return _ratio(intersection, detected_voxels + truth_voxels - intersection)


def table(summary):
    """Text table of a `summarize` result: a row per class, a column per IoU threshold."""
    lines = [
        f"{summary['num_volumes']} volumes, {summary['num_truths']} truths, {summary['num_detections']} detections",
    ]
    for title, key in (("box AP at IoU", "box_ap"), ("mask AP at IoU", "mask_ap")):
        columns = list(summary[key])
        rows = list(summary[key][columns[0]]) if columns else []
        width = max(len(name) for name in [*rows, "mask AP at IoU"])
        lines += ["", f"{title:<{width}}" + "".join(f"{column:>7}" for column in columns)]
        for name in rows:
            values = (_number(summary[key][column][name]) for column in columns)
            lines.append(f"{name:<{width}}" + "".join(f"{value:>7}" for value in values))
    lines += [
        "",
        f"mask AP50 per image {_number(summary['mask_ap50_per_image'])}",
        f"matched at mask IoU {MATCH_IOU}: {summary['num_matched']}, mean mask IoU "
        f"{_number(summary['mean_mask_iou'])}, class accuracy {_number(summary['class_accuracy'])}",
    ]
    return "\n".join(lines)


def _ap_table(volumes, ious, classes, thresholds):
    return {_column(t): _ap_row(volumes, ious, classes, t) for t in thresholds}


def _ap_row(volumes, ious, classes, threshold):
    scores, hits, class_ids, gt_class_ids = ranked_hits(volumes, ious, threshold)
    per_class = {
        name: average_precision(scores[class_ids == k], hits[class_ids == k], int(np.count_nonzero(gt_class_ids == k)))
        for k, name in enumerate(classes, start=1)
    }
    return {
        "pooled": average_precision(scores, hits, len(gt_class_ids)),
        "mean": _mean([ap for ap in per_class.values() if ap is not None]),
        **per_class,
    }


def _pooled_ap(volumes, ious, threshold):
    scores, hits, _, gt_class_ids = ranked_hits(volumes, ious, threshold)
    return average_precision(scores, hits, len(gt_class_ids))


def ranked_hits(volumes, ious, threshold):
    """Scores, hits and class ids of all detections, and the class ids of all truths, end to end."""
    hits = [
        greedy_match(np.where(volume.class_ids[:, None] == volume.gt_class_ids, iou, 0.0), volume.scores, threshold)
        >= 0
        for volume, iou in zip(volumes, ious, strict=True)
    ]
    return (
        _join([volume.scores for volume in volumes], np.float64),
        _join(hits, bool),
        _join([volume.class_ids for volume in volumes], np.int64),
        _join([volume.gt_class_ids for volume in volumes], np.int64),
    )


def _matched_pairs(volumes):
    """Mask IoU, and whether the class is right, of every match at `MATCH_IOU` whatever the class."""
    ious, right = [], []
    for volume in volumes:
        detections, truths = matched(volume)
        ious += volume.mask_iou[detections, truths].tolist()
        right += (volume.class_ids[detections] == volume.gt_class_ids[truths]).tolist()
    return ious, right


def _check(volumes, classes, thresholds):
    for name in ("pooled", "mean"):
        if name in classes:
            raise InputError(f"no class may be called {name!r}, the tables use that name; got classes {tuple(classes)}")
    if not all(0.0 < t <= 1.0 for t in thresholds):
        raise ValueError(f"IoU thresholds must be in (0, 1], got {tuple(thresholds)}")
    if len({_column(t) for t in thresholds}) < len(thresholds):
        raise ValueError(f"IoU thresholds must differ at two decimals, got {tuple(thresholds)}")
    for volume in volumes:
        for name in ("class_ids", "gt_class_ids"):
            class_ids = getattr(volume, name)
            if ((class_ids < 1) | (class_ids > len(classes))).any():
                raise ValueError(f"{name} must be 1..{len(classes)}, got {np.unique(class_ids).tolist()}")


def _ranking(scores):
    return np.argsort(-np.asarray(scores), kind="stable")


def _volume(lo, hi):
    return np.maximum(hi - lo, 0.0).prod(axis=-1)


def _count(ids, num_truths):
    """Voxels of each truth 1..num_truths among `ids`; other ids are not counted."""
    return np.bincount(ids[(ids > 0) & (ids <= num_truths)], minlength=num_truths + 1)[1:]


def _ratio(intersection, union):
    return np.divide(intersection, union, out=np.zeros(intersection.shape), where=union > 0).astype(np.float32)


def _join(arrays, dtype):
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)


def _mean(values):
    return float(np.mean(values)) if values else None


def _column(threshold):
    return f"{threshold:.2f}"


def _number(value):
    return "-" if value is None else f"{value:.3f}"
