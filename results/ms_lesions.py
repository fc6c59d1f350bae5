"""Lesions that are found against false positives, and how large those are that are found."""

import dataclasses

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data.atomic import replacing
from evaluation import metrics, operating

RATES = (1, 2, 4, 8, 16, 32)  # false positives per volume
MATCH_IOU = 0.1  # lesions are three voxels across: one voxel more on every side makes them four times as large
SIZES = (1, 10, 100, 1000)  # voxels
SIZES_AT = 8  # false positives per volume at which lesions are counted by size
CURVE = np.linspace(0, RATES[-1], 8 * RATES[-1] + 1)


def measure(trained, evaluation, unseen):
    """Sensitivity at `RATES` false positives per volume, and how many lesions of each size are found at `SIZES_AT`.

    Args:
      trained: results.measuring.Trained.
      evaluation: evaluation.evaluate.Evaluation of the split that is measured.
      unseen: folder of separate records, whose split test that is; None: val of the run's own.

    Returns:
      {name: float, None where undefined}: mask_sensitivity_<rate> and box_sensitivity_<rate>, at mask and box IoU
      `MATCH_IOU`; lesions_<size>, the number of true lesions of that many voxels or more, and found_<size>, those of
      them whose mask is matched.
    """
    masks, boxes = evaluation.matches, by_box(evaluation.matches)
    found = {f"mask_sensitivity_{rate}": value for rate, value in operating.froc(masks, MATCH_IOU, RATES).items()}
    found |= {f"box_sensitivity_{rate}": value for rate, value in operating.froc(boxes, MATCH_IOU, RATES).items()}
    sizes = [sizes_of(truth) for truth in trained.truths("test" if unseen else "val", unseen)]
    hits = is_found(masks, SIZES_AT)
    for size in SIZES:
        found[f"lesions_{size}"] = float(sum(np.sum(voxels >= size) for voxels in sizes))
        pairs = zip(sizes, hits, strict=True)
        found[f"found_{size}"] = float(sum(np.sum(hit & (voxels >= size)) for voxels, hit in pairs))
    return found


def draw(trained, evaluation, unseen, path):
    """Draws sensitivity against false positives per volume, of masks and of boxes, as a PNG file, which is replaced."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, matches in (("mask", evaluation.matches), ("box", by_box(evaluation.matches))):
        sensitivity = operating.froc(matches, MATCH_IOU, CURVE.tolist())
        values = [np.nan if value is None else value for value in sensitivity.values()]
        axes.plot(CURVE, values, drawstyle="steps-post", label=f"{name} IoU ≥ {MATCH_IOU:g}")
    axes.set(xlabel="false positives per volume", ylabel="share of the lesions that is found", ylim=(0, 1))
    axes.set_xlim(0, RATES[-1])
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def by_box(matches):
    """The same volumes with the overlap of boxes where that of masks was."""
    return [dataclasses.replace(volume, mask_iou=volume.box_iou) for volume in matches]


def sizes_of(truth):
    """Voxels of every true instance of a volume, as data.volumes.of_split gives it: [N] int64."""
    num_truths = len(truth["class_ids"])
    return np.bincount(truth["instance_ids"].ravel(), minlength=num_truths + 1)[1 : num_truths + 1]


def is_found(matches, rate):
    """Which truths are found, their masks matched, before more false positives than `rate` per volume.

    Args:
      matches: list of metrics.VolumeMatch.
      rate: as in operating.froc.

    Returns:
      list of [G] bool, one of every volume.
    """
    taken = [_taken(volume) for volume in matches]
    scores = np.concatenate([np.zeros(0), *(volume.scores for volume in matches)])
    order = np.argsort(-scores, kind="stable")
    truths = np.concatenate([np.zeros(0, int), *taken])
    is_kept = np.zeros(len(scores), bool)
    is_kept[order] = np.cumsum(truths[order] < 0) <= rate * len(matches)
    found, start = [np.zeros(len(volume.gt_class_ids), bool) for volume in matches], 0
    for hit, of_volume in zip(found, taken, strict=True):
        kept = of_volume[is_kept[start : start + len(of_volume)]]
        hit[kept[kept >= 0]] = True
        start += len(of_volume)
    return found


def _taken(volume):
    """[D] int, the truth of its class that each detection takes, -1 for none."""
    iou = np.where(volume.class_ids[:, None] == volume.gt_class_ids, volume.mask_iou, 0.0)
    return metrics.greedy_match(iou, volume.scores, MATCH_IOU)
