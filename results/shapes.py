"""Scores of the task shapes by how much an object differs from its background."""

import dataclasses
import itertools

import numpy as np

from data import records, sources
from data.errors import InputError
from evaluation import metrics

EDGES = (0.02, 0.04, 0.07, 0.10)  # contrasts, of which configs/shapes.py draws no others


def measure(trained, evaluation, unseen):
    """Mask AP at IoU 0.5, pooled over the classes, of the true objects of each band of contrast.

    Args:
      trained: measuring.Trained.
      evaluation: evaluate.Evaluation of the split that is measured.
      unseen: folder of the records whose split test that is; None: val of those of the config.

    Returns:
      {name: float}: mask_ap50_002_004 (contrasts of 0.02 to 0.04, see `band_ap`) and num_truths_002_004, and likewise
      for the other bands; a band without truths has no AP.

    Raises:
      InputError: the volumes are not those that the settings of their records draw.
    """
    data_config = _drawn_by(trained.config.data, unseen)
    truths = trained.truths("test" if unseen else "val", unseen)
    bands = [bands_of(_contrasts(truth, data_config)) for truth in truths]
    found = {}
    for band, (low, high) in enumerate(itertools.pairwise(EDGES)):
        name = f"{100 * low:03.0f}_{100 * high:03.0f}"
        precision, count = band_ap(evaluation.matches, bands, band)
        found[f"num_truths_{name}"] = float(count)
        if precision is not None:
            found[f"mask_ap50_{name}"] = precision
    return found


def bands_of(contrasts):
    """[N] int, 0 for the lowest band, of [N] float32 contrasts; one between two bands is of the higher."""
    return np.digitize(contrasts, np.float32(EDGES[1:-1]))


def band_ap(matches, bands, band):
    """Mask AP at IoU 0.5 of the truths of a band, all classes in one list, the class of a match being right.

    As with COCO's ranges of area, detections that take a truth of another band are ignored; they take truths best score
    first, each the free one that it overlaps most, whatever the band. Detections that take none count as wrong in every
    band, which is stricter than COCO: nothing says which band they would be of.

    Args:
      matches: list of metrics.VolumeMatch.
      bands: list of [G] int, those of the truths of each volume.
      band: one of them.

    Returns:
      AP, None without truths in the band; and the number of these.
    """
    scores, hits, count = [], [], 0
    for match, band_of in zip(matches, bands, strict=True):
        is_inside = band_of == band
        iou = np.where(match.class_ids[:, None] == match.gt_class_ids, match.mask_iou, 0.0)
        truths = metrics.greedy_match(iou, match.scores, metrics.MATCH_IOU)
        is_hit = np.append(is_inside, False)[truths]  # the last for -1, which is no truth
        kept = is_hit | (truths < 0)
        scores.append(match.scores[kept])
        hits.append(is_hit[kept])
        count += int(is_inside.sum())
    if not count:
        return None, 0
    return metrics.average_precision(np.concatenate(scores), np.concatenate(hits), count), count


def _drawn_by(data_config, unseen):
    """The `data` section that draws the volumes of records again, with the contrast of each object."""
    settings = records.read_manifest(unseen or data_config.records)["settings"]
    names = {field.name for field in dataclasses.fields(data_config.synthetic)}
    drawn = {name: value for name, value in settings.items() if name in names}
    return dataclasses.replace(
        data_config,
        synthetic=dataclasses.replace(data_config.synthetic, **drawn),
        min_voxels=settings["min_voxels"],
        attributes=("contrast",),
        keypoints=(),
    )


def _contrasts(truth, data_config):
    """[N] float32 of the objects of a volume, which is drawn again by the number in its name."""
    name, prefix = truth["name"], f"shapes_{data_config.synthetic.seed}_"
    index = name.removeprefix(prefix)
    if name == index or not index.isdecimal():
        raise InputError(f"expected a volume that is named {prefix}<number>, came {name!r}")
    case, _ = sources.load(sources.Source(name, "", None, int(index)), data_config)
    same_ids = np.array_equal(case.instance_ids, truth["instance_ids"])
    if not (same_ids and np.array_equal(case.class_ids, truth["class_ids"])):
        raise InputError(f"{name}: expected the objects that the settings of its records draw, came others")
    return case.attributes[:, 0]
