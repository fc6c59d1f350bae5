"""A plan for people: its file with all that it rests on, and its summary."""

import numpy as np

from data import statistics
from planning import anchors, histograms, plan, settings

AXES = "zyx"


def write(path, planned, found, held_out, fields, *, records):
    """Writes plan.yaml.

    Args:
      path: of the file, which is replaced.
      planned: plan.Plan.
      found: data.fingerprint.Fingerprint it was made from.
      held_out: the Fingerprint of cases that it was not made from; None where there are none.
      fields: lines about what the levels of the planned network see.
      records: folder of the records.
    """
    spacing, reason = plan.target_spacing(found)
    facts = {
        "advice": {"target spacing": {"value": spacing, "reason": reason}},
        "made from": {"config": planned.config.name, "records": str(records), "cases": len(found.shapes)},
        "memory of a training step": {
            "weights and optimizer, MB": round(planned.bytes[0] / 1e6),
            "beside them at the peak, MB": round(planned.bytes[1] / 1e6),
        },
        "truths and their best anchors": {
            split: {name: _rounded(fit) for name, fit in fits.items()}
            for split, fits in _fits(planned, held_out).items()
        },
        "receptive fields": fields,
        "boxes": _boxes(found),
        "cases": _cases(found),
    }
    settings.write(path, planned.settings, facts)


def summary(planned, found, held_out):
    """A short table: settings that change, from what to what; then how well the anchors fit.

    Args: as `write`.

    Returns:
      list of str.
    """
    changed = [s for s in planned.settings if s.value != s.before]
    same = [s.name for s in planned.settings if s.value == s.before]
    width = max((len(s.name) for s in changed), default=0)
    lines = [f"{planned.config.name}: {len(found.boxes)} objects in {len(found.shapes)} cases"]
    lines += [f"{s.name:{width}}  {_short(s.before)} -> {_short(s.value)}" for s in changed]
    lines += [f"as before: {', '.join(same)}"] if same else []
    for split, fits in _fits(planned, held_out).items():
        for name, fit in fits.items():
            shares = f"IoU >= 0.5 for {fit.share_50:.1%}, >= 0.7 for {fit.share_70:.1%}"
            lines.append(f"anchors, {name}: {shares} of the truths of {split}")
    needed = sum(planned.bytes) / 1e9
    return [*lines, f"a training step takes about {needed:.2f} GB", f"advice: {_spacing_line(found)}"]


def _spacing_line(found):
    spacing, reason = plan.target_spacing(found)
    return f"target spacing {_short(spacing)} mm: {reason}"


def _fits(planned, held_out):
    """{split: {name of the levels: anchors.Fit}}; what was fitted to is of train, so val tells what it is worth."""
    shown = {"train": planned.truths}
    if held_out is not None and len(held_out.boxes):
        config = planned.config
        shown["val"] = anchors.truths(held_out.boxes, config.input.patch_size, config.input.rotate_planes)
    return {
        split: {name: anchors.fit(levels, truths) for name, levels in planned.levels.items()}
        for split, truths in shown.items()
    }


def _rounded(fit):
    return {"mean IoU": round(fit.mean, 3), ">= 0.5": round(fit.share_50, 3), ">= 0.7": round(fit.share_70, 3)}


def _boxes(found):
    """{class: {measure: count, mean, variance, and the mode at every bin count}}."""
    by_class = histograms.per_class(found.classes, found.class_ids, found.sizes)
    return {
        name: {measure: _described(by_bins) for measure, by_bins in measures.items()} | {"count": counted}
        for (name, measures), counted in zip(by_class.items(), found.counts().values(), strict=True)
    }


def _described(by_bins):
    """Mean, variance, and of every bin count the fullest bin and its share."""
    one = next(iter(by_bins.values()))
    if not one.count:
        return "none"
    modes = {
        f"mode of {bins} bins": (*(round(edge, 3) for edge in histogram.mode), f"{histogram.mode_share:.1%}")
        for bins, histogram in by_bins.items()
    }
    return {"mean": round(one.mean, 3), "variance": round(one.variance, 3), **modes}


def _cases(found):
    """Ranges of spacing and size, and medians over the cases of their intensities."""
    quartiles = {
        f"{what}, {axis}": tuple(float(f"{v:.4g}") for v in np.percentile(values[:, number], [0, 50, 100]))
        for what, values in (("spacing mm (least, median, most)", found.spacings), ("voxels", found.shapes))
        for number, axis in enumerate(AXES)
    }
    intensities = {
        f"{part}, channel {channel}": {
            name: None if np.isnan(values).all() else float(f"{np.nanmedian(values):.4g}")
            for name, values in zip(statistics.NAMES, found.intensities[:, number, channel].T, strict=True)
            if name != "reserved"
        }
        for number, part in enumerate(("intensities of all voxels", "intensities of objects"))
        for channel in range(found.intensities.shape[2])
    }
    return quartiles | intensities


def _short(value):
    """A value in a line: nested tuples with as few digits as they need."""
    if isinstance(value, tuple):
        return "(" + ", ".join(_short(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)
