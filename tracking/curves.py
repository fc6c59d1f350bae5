"""Precision against recall: how many of the detections are right, and how many truths they find."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation import metrics, report

_SIZE, _DPI = (6.0, 5.0), 110  # inches


def precision_recall(matches, classes, threshold=metrics.MATCH_IOU):
    """The curve of every class, and of all classes pooled, over the masks of a set of volumes.

    A point for every detection, best score first: what holds of the detections down to it. Precision is the best at
    this recall or a higher one, as in `metrics.average_precision`, which is the area below.

    Args:
      matches: list of `metrics.VolumeMatch`.
      classes: names of classes 1..K.
      threshold: least mask IoU of a match.

    Returns:
      {name: (recall [D], precision [D])} float64 in [0, 1], "pooled" first; without the classes that have no truths.
    """
    scores, hits, class_ids, gt_class_ids = metrics.ranked_hits(matches, [m.mask_iou for m in matches], threshold)
    pooled = {"pooled": (np.ones(len(scores), bool), len(gt_class_ids))}
    per_class = {
        name: (class_ids == k, int(np.count_nonzero(gt_class_ids == k))) for k, name in enumerate(classes, start=1)
    }
    return {
        name: _curve(scores[own], hits[own], num_truths)
        for name, (own, num_truths) in (pooled | per_class).items()
        if num_truths > 0
    }


def figure(curves, title):
    """The curves of `precision_recall` as a matplotlib figure."""
    drawn = Figure(figsize=_SIZE, dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(drawn)
    panel = drawn.add_subplot()
    colours = report.detection_colours(len(curves)) * 0.8  # darker than on a volume: the paper is white
    for (name, (recall, precision)), colour in zip(curves.items(), colours[1:], strict=True):
        style = {"color": "black", "linewidth": 2.0} if name == "pooled" else {"color": colour, "linewidth": 1.4}
        # From recall 0 on, and down to 0 where the detections end.
        x = np.concatenate([[0.0], recall, recall[-1:]])
        y = np.concatenate([precision[:1], precision, [0.0] * len(recall[-1:])])
        panel.plot(x, y if len(recall) else [0.0], drawstyle="steps-pre", label=name.replace("$", r"\$"), **style)
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    panel.set_title(title, fontsize=11, fontweight="bold", parse_math=False)
    panel.grid(alpha=0.3)
    if curves:
        panel.legend(loc="lower left", fontsize=9)
    return drawn


def _curve(scores, hits, num_truths):
    hits = hits[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    return found / num_truths, np.maximum.accumulate(precision[::-1])[::-1]
