"""Detections as they are used: those above a score alone, and what that score should be."""

import numpy as np

from evaluation import metrics

# False positives per volume at which FROC curves are commonly read (van Ginneken et al. 2010, LUNA16).
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def f1(volumes, min_score, threshold=metrics.MATCH_IOU):
    """Precision, recall and their harmonic mean over all volumes, masks matched, the class being right.

    Args:
      volumes: list of `metrics.VolumeMatch`.
      min_score: detections that score less are left out.
      threshold: mask IoU of a match.

    Returns:
      {"precision", "recall", "f1"}; None where there is nothing to divide by.
    """
    scores, hits, num_truths = _ranked(volumes, threshold)
    is_kept = scores >= np.float32(min_score)  # float32 on both sides
    num_hits = int(hits[is_kept].sum())
    return {
        "precision": _share(num_hits, int(is_kept.sum())),
        "recall": _share(num_hits, num_truths),
        "f1": _share(2 * num_hits, int(is_kept.sum()) + num_truths),
    }


def best_score(volumes, threshold=metrics.MATCH_IOU):
    """The least score to keep for the best F1 of these volumes, which should be those that were trained on.

    It lies halfway between the last score that is kept and the first that is not; of equally good ones the highest.

    Args:
      volumes: list of `metrics.VolumeMatch`.
      threshold: mask IoU of a match.

    Returns:
      float; 1.0 where nothing was detected.
    """
    scores, hits, num_truths = _ranked(volumes, threshold)
    if len(scores) == 0:
        return 1.0
    # A score that several detections have is passed by all of them at once.
    last = np.flatnonzero(np.append(np.diff(scores) < 0, True))
    values = 2 * np.cumsum(hits)[last] / (last + 1 + num_truths)
    best = last[values.argmax()]
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2)


def froc(volumes, threshold=metrics.MATCH_IOU, rates=FROC_RATES):
    """Sensitivity against false positives per volume (free-response ROC), masks matched, the class being right.

    Args:
      volumes: list of `metrics.VolumeMatch`.
      threshold: mask IoU of a match.
      rates: false positives per volume.

    Returns:
      {rate: share of the truths that are found before more false positives than that}; None without truths.
    """
    _, hits, num_truths = _ranked(volumes, threshold)
    found, wrong = np.cumsum(hits), np.cumsum(~hits)
    sensitivities = {}
    for rate in rates:
        count = int(np.searchsorted(wrong, rate * len(volumes), side="right"))
        sensitivities[rate] = _share(int(found[count - 1]) if count else 0, num_truths)
    return sensitivities


def _ranked(volumes, threshold):
    """Scores and hits of all detections, best first, and the number of truths."""
    ious = [volume.mask_iou for volume in volumes]
    scores, hits, _, gt_class_ids = metrics.ranked_hits(volumes, ious, threshold)
    order = np.argsort(-scores, kind="stable")
    return scores[order], hits[order], len(gt_class_ids)


def _share(part, whole):
    return part / whole if whole else None
