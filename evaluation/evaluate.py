"""A network's answers about whole volumes, against the truth."""

from typing import NamedTuple

from data.errors import InputError
from evaluation import listing, matching, measurements, metrics


class Evaluation(NamedTuple):
    """What came of it.

    summary: dict that can be written as JSON, of metrics.summarize and measurements.summarize.
    matches: metrics.VolumeMatch of every volume.
    drawn: (found, truth) of the first volumes, for pictures: what serving.inference.VolumeDetector gives, with one
      class for each object, and what data.volumes.of_split gives.
    rows: of listing.COLUMNS, one of every detection that was scored.
    """

    summary: dict
    matches: list
    drawn: list
    rows: tuple = ()


def evaluate(detector, truths, config, *, num_drawn=0):
    """Detects in every volume and scores what was found.

    Args:
      detector: serving.inference.VolumeDetector.
      truths: iterable of data.volumes.of_split.
      config: Config of the network.
      num_drawn: of so many volumes the detections are kept.

    Returns:
      Evaluation.
    """
    matches, drawn, rows = [], [], []
    for truth in truths:
        found = detector.detect(truth["volume"])
        matches.append(matching.match_volume(found, truth, config.model.detections.mask_threshold))
        rows += listing.rows(found, truth, matches[-1], config)
        if len(drawn) < num_drawn:
            drawn.append((detector.one_class_each(found), truth))
    measured = measurements.summarize(matches, config.data.attributes, config.data.keypoints)
    return Evaluation(metrics.summarize(matches, config.data.classes) | measured, matches, drawn, tuple(rows))


def table(summary):
    """Text about the summary of an `Evaluation`."""
    measured = {name: summary[name] for name in ("attributes", "keypoints") if name in summary}
    return "\n".join([metrics.table(summary), *measurements.table_lines(measured)])


def scalars(summary):
    """The numbers that tell how good a network is, each the higher the better: {name: float}.

    Args:
      summary: of an `Evaluation`. What is undefined, the class accuracy where nothing matches, say, counts 0.

    Returns:
      mask_ap50, box_ap50 and so on for every IoU threshold, pooled over the classes; mask_ap50_mean, the mean of the
      classes' own; mask_ap50_<class>; mask_ap50_per_image, mean_mask_iou, class_accuracy.
    """
    found = {}
    for kind in ("mask_ap", "box_ap"):
        found |= {f"{kind}{_percent(threshold)}": row["pooled"] for threshold, row in summary[kind].items()}
    at_half = summary["mask_ap"]["0.50"]
    found |= {f"mask_ap50_{name}": value for name, value in at_half.items() if name != "pooled"}
    found |= {name: summary[name] for name in ("mask_ap50_per_image", "mean_mask_iou", "class_accuracy")}
    return {name: float(value or 0.0) for name, value in found.items()}


def check_metric(name, classes):
    """Raises InputError unless `scalars` gives a metric of this name for these classes."""
    names = list(scalars(metrics.summarize([], classes)))
    if name not in names:
        raise InputError(f"train.evaluation.metric: expected one of {', '.join(names)}, came {name!r}")


def _percent(threshold):
    return f"{round(100 * float(threshold))}"
