"""What is wrong or odd about the cases of a folder, before they are converted; a bad case does not end the search."""

import collections
import hashlib

import cc3d
import numpy as np

from data import cases, objects, splits
from data.errors import GridError, InputError
from data.objects import Names, some

_FAR = 3.5  # Robust z from here on is an outlier: B. Iglewicz, D. Hoaglin, "How to Detect and Handle Outliers", 1993.
_SLIGHT = 0.05  # of the usual interquartile range: cases that spread less than that are taken to spread as much.
_FEWEST = 5  # cases; of fewer it cannot be said what is usual


def check(data_config):
    """Looks at every case of a folder, one at a time.

    Errors are what a conversion refuses, or what makes its splits worthless:
      files: an image, label file or channel that is missing; data.groups that does not fit
      unreadable: an image or its labels cannot be read, or do not fit the config
      grid: labels or a channel of another shape, spacing, orientation or origin than the image
      channels: another number of channels than most cases
      not finite: voxels that are NaN or infinite
      duplicate across splits: an image with the voxels of one in another split
    Warnings:
      duplicate: an image with the voxels of another one; both, of equal dtype and in equal order, to the last bit
      empty: no objects
      pieces: objects that are not 26-connected
      border: objects that touch the border
      one voxel: objects of a single voxel
      left out: what data/cases.py counts as left out, objects below data.min_voxels, say
      intensity: the median or the interquartile range of a channel lies far from those of the other cases, at a
        robust z = |v - median| / spread of more than 3.5, with the spread MAD / 0.6745, or at least 0.05 of the usual
        interquartile range (where both are 0, 1.2533 times the mean absolute deviation); among five cases or more

    Args:
      data_config: the `data` section of a Config, whose source is a folder.

    Returns:
      dict for JSON: source, cases [{name, split, shape, spacing, channels, instances {class: number}}], findings
      [{case, split, severity, check, message}] (case None where it is not about one), errors and warnings, their
      numbers. A case that cannot be read has only a name and a split; splits are None where data.groups does not fit.

    Raises:
      InputError: no such folder, or no cases in it.
    """
    found, problems = cases.survey(
        data_config.source, labels=data_config.labels, channel_suffixes=tuple(data_config.channel_suffixes)
    )
    findings = [_finding(None, "error", "files", line) for line in problems]
    looked_at = {}
    for files in found:
        try:
            looked_at[files.name], about = _look(files, data_config)
        except InputError as error:
            about = [("error", "grid" if isinstance(error, GridError) else "unreadable", str(error))]
        findings += [_finding(files.name, *line) for line in about]
    split_of, about = _splits(found, looked_at, data_config)
    findings += [*about, *_unlike_most(looked_at), *_outliers(looked_at), *_duplicates(looked_at, split_of)]
    return _report(data_config, found, looked_at, split_of, findings)


def table(report) -> str:
    """The findings of a report in columns, and a line that counts them."""
    rows = [[row["severity"], row["case"] or "-", row["split"] or "-", row["check"]] for row in report["findings"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, finding in zip(rows, report["findings"], strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([*cells, finding["message"]]))
    lines.append(f"{len(report['cases'])} cases: {report['errors']} errors, {report['warnings']} warnings")
    return "\n".join(lines)


def _finding(case, severity, check_name, message):
    return {"case": case, "split": None, "severity": severity, "check": check_name, "message": message}


def _look(files, data_config):
    """What is to be compared of a case, and the findings about it alone: (severity, check, message)."""
    names = Names(tuple(data_config.classes), tuple(data_config.attributes), tuple(data_config.keypoints))
    volume, found = cases.read_case(
        files, labels=data_config.labels, names=names, box_unit=data_config.box_unit, hit_settings=data_config.hits
    )
    array = volume.array if volume.array.ndim == 4 else volume.array[..., np.newaxis]
    finite = np.isfinite(array) if array.dtype.kind == "f" else None
    bad = 0 if finite is None else int(finite.size - np.sum(finite))
    about = [("error", "not finite", f"{bad} of {array.size} voxels are NaN or infinite")] if bad else []
    instances = np.bincount(found.class_ids, minlength=len(names.classes) + 1)[1:].tolist()
    looked_at = {
        "shape": list(array.shape[:3]),
        "spacing": volume.spacing.tolist(),
        "channels": array.shape[3],
        "instances": dict(zip(names.classes, instances, strict=True)),
        "quartiles": [_quartiles(array[..., c], finite, c) for c in range(array.shape[3])],
        "hash": _hash(array),
    }
    return looked_at, about + _about_objects(found, data_config.min_voxels)


def _hash(array):
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(array)
    return digest.hexdigest()


def _quartiles(channel, finite, index):
    values = channel if finite is None else channel[finite[..., index]]
    return np.percentile(values, (25, 50, 75)).tolist() if values.size else [0.0, 0.0, 0.0]


def _about_objects(found, min_voxels):
    lines = [] if len(found.numbers) else [("warning", "empty", "no objects")]
    faces = [np.unique(np.take(found.ids, end, axis)) for axis in range(3) for end in (0, -1)]
    on_border = np.unique(np.concatenate(faces))
    sets = {
        "pieces": np.flatnonzero(_num_pieces(found) > 1),
        "border": on_border[on_border > 0] - 1,
        "one voxel": np.flatnonzero(objects.voxel_counts(found) == 1),
    }
    for check_name, members in sets.items():
        if len(members):
            names = some([str(number) for number in found.numbers[members]])
            lines.append(("warning", check_name, f"{len(members)} of {len(found.numbers)} objects: {names}"))
    left_out = objects.kept(found, min_voxels).left_out
    return lines + [("warning", "left out", f"{number:.10g} {reason}") for reason, number in left_out.items() if number]


def _num_pieces(found):
    """[M] 26-connected pieces of each object."""
    pieces, count = cc3d.connected_components(found.ids, connectivity=26, return_N=True)
    owner = np.zeros(count + 1, np.int64)
    owner[pieces] = found.ids  # All voxels of a piece belong to one object.
    return np.bincount(owner[1:], minlength=len(found.numbers) + 1)[1:]


def _splits(found, looked_at, data_config):
    """{case: split}, and what keeps splits from being drawn."""

    def count(files, data_config):
        # Nothing is known of bad cases; a conversion does not go beyond them.
        good = files.name in looked_at
        return splits.class_counts(files, data_config) if good else np.zeros(len(data_config.classes), int)

    try:
        return splits.assign(found, data_config, count), []
    except InputError as error:
        return {}, [_finding(None, "error", "files", str(error))]


def _unlike_most(looked_at):
    channels = collections.Counter(case["channels"] for case in looked_at.values())
    usual = channels.most_common(1)[0][0] if channels else None
    return [
        _finding(name, "error", "channels", f"expected {usual} channel(s) as in most cases, got {case['channels']}")
        for name, case in looked_at.items()
        if case["channels"] != usual
    ]


def _outliers(looked_at):
    findings = []
    for channel in range(max((case["channels"] for case in looked_at.values()), default=0)):
        names = [name for name, case in looked_at.items() if case["channels"] > channel]
        quartiles = np.array([looked_at[name]["quartiles"][channel] for name in names])
        ranges = quartiles[:, 2] - quartiles[:, 0]
        for what, values in (("median", quartiles[:, 1]), ("interquartile range", ranges)):
            scores = _robust_z(values, _SLIGHT * np.median(ranges))
            for i in np.flatnonzero(scores > _FAR):
                message = f"{what} of channel {channel} is {values[i]:g}, that of all cases {np.median(values):g}"
                findings.append(_finding(names[i], "warning", "intensity", f"{message} (robust z {scores[i]:.1f})"))
    return findings


def _robust_z(values, least_spread):
    distances = np.abs(values - np.median(values))
    spread = max(np.median(distances) / 0.6745, least_spread) or np.mean(distances) * 1.2533
    return distances / spread if spread and len(values) >= _FEWEST else np.zeros(len(values))


def _duplicates(looked_at, split_of):
    same = collections.defaultdict(list)
    for name, case in looked_at.items():
        same[case["hash"]].append(name)
    findings = []
    for first, *others in same.values():
        for name in others:
            ours, theirs = split_of.get(name), split_of.get(first)
            kind = ("warning", "duplicate") if ours == theirs else ("error", "duplicate across splits")
            findings.append(
                _finding(name, *kind, f"voxel for voxel the image of case {first} ({theirs or 'no split'})")
            )
    return findings


def _report(data_config, found, looked_at, split_of, findings):
    for finding in findings:
        finding["split"] = split_of.get(finding["case"])
    findings = sorted(findings, key=lambda finding: (finding["severity"], finding["case"] or ""))  # Errors come first.
    about = ("shape", "spacing", "channels", "instances")
    listed = [
        {"name": f.name, "split": split_of.get(f.name)}
        | {key: looked_at[f.name][key] for key in about if f.name in looked_at}
        for f in found
    ]
    errors = sum(finding["severity"] == "error" for finding in findings)
    return {
        "source": str(data_config.source),
        "cases": listed,
        "findings": findings,
        "errors": errors,
        "warnings": len(findings) - errors,
    }
