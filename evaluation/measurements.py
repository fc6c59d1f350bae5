"""How near the attributes and landmarks of matched objects are to the truth."""

import numpy as np

from evaluation import metrics
from ops.keypoints import KEYPOINTS


def summarize(volumes, attributes, keypoints=()):
    """Errors over the matches (mask IoU 0.5, whatever the class) of all volumes.

    Args:
      volumes: list of `metrics.VolumeMatch`; all have attributes or none has, and likewise keypoints.
      attributes: names of the T attributes.
      keypoints: names of the N landmarks that the data gives; empty for those derived from masks.

    Returns:
      dict, JSON-ready, None where undefined; without attributes or landmarks it lacks their key:
      attributes: {name: {num_values, num_unknown: matches whose truth is known and is not, relative_bias,
      relative_resolution: mean and standard deviation of found / true - 1 where true > 0, num_positive: of how many,
      mean_absolute_error: of the num_values, in the data's units}};
      keypoints: {name: {num_values, num_unknown: likewise, mean_distance: voxels}}.

    Raises:
      ValueError: attributes or landmarks that are not one row per detection and per truth, or found ones that are not
        finite.
    """
    summary = {}
    if attributes:
        found, true = _pairs(volumes, "attributes", (len(attributes),))
        summary["attributes"] = {name: _attribute(found[:, i], true[:, i]) for i, name in enumerate(attributes)}
    if any(volume.keypoints is not None for volume in volumes):
        names = keypoints or KEYPOINTS
        found, true = _pairs(volumes, "keypoints", (len(names), 3))
        distances = np.linalg.norm(found - true, axis=-1)  # [M, N]
        summary["keypoints"] = {name: _keypoint(distances[:, i]) for i, name in enumerate(names)}
    return summary


def table_lines(summary):
    """Lines of text, an empty one before each table, about a `summarize` result; none where it is empty."""
    lines = []
    for title, rows in summary.items():
        columns = list(next(iter(rows.values())))
        width = max(len(name) for name in [*rows, title])
        lines += ["", f"{title:<{width}}" + "".join(f"  {column.replace('_', ' ')}" for column in columns)]
        for name, row in rows.items():
            values = (f"  {_number(row[column]):>{len(column)}}" for column in columns)
            lines.append(f"{name:<{width}}" + "".join(values))
    return lines


def _pairs(volumes, field, shape):
    """What was found and what is true of all matches: [M, *shape] float64 each."""
    found, true = [np.zeros((0, *shape))], [np.zeros((0, *shape))]
    for volume in volumes:
        ours, theirs = getattr(volume, field), getattr(volume, f"gt_{field}")
        _check(field, ours, (len(volume.scores), *shape))
        _check(f"gt_{field}", theirs, (len(volume.gt_class_ids), *shape))
        if not np.isfinite(ours).all():
            raise ValueError(f"{field} must be finite, got {ours[~np.isfinite(ours)]}")
        detections, truths = metrics.matched(volume)
        found.append(ours[detections])
        true.append(theirs[truths])
    return np.concatenate(found).astype(np.float64), np.concatenate(true).astype(np.float64)


def _check(name, values, shape):
    if np.shape(values) != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {None if values is None else values.shape}")


def _attribute(found, true):
    known, positive = np.isfinite(true), true > 0
    ratios = found[positive] / true[positive] - 1
    return {
        "num_values": int(known.sum()),
        "num_unknown": int((~known).sum()),
        "num_positive": int(positive.sum()),
        "relative_bias": _or_none(np.mean, ratios),
        "relative_resolution": _or_none(np.std, ratios),
        "mean_absolute_error": _or_none(np.mean, np.abs(found - true)[known]),
    }


def _keypoint(distances):
    known = distances[np.isfinite(distances)]
    return {
        "num_values": len(known),
        "num_unknown": len(distances) - len(known),
        "mean_distance": _or_none(np.mean, known),
    }


def _or_none(statistic, values):
    return float(statistic(values)) if len(values) else None


def _number(value):
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
