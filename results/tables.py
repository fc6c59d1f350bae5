"""Results as Markdown, between marks in the pages that show them."""

import json
import pathlib

import numpy as np

from data.atomic import replacing
from data.errors import InputError
from results import tasks

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
COLUMNS = {
    "box_ap50": "box AP50",
    "mask_ap50": "mask AP50",
    "mask_ap75": "mask AP75",
    "mean_mask_iou": "mean mask IoU",
    "class_accuracy": "class accuracy",
    "minutes": "minutes",
}


def read(task_name):
    """The entries of a task: list of dicts of part, name, seed, hardware and metrics; [] where nothing was measured."""
    path = FOLDER / f"{task_name}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def keep(task_name, entry):
    """Puts an entry in the place of that of the same run, or behind all."""
    key = ("part", "name", "seed")
    entries = [one for one in read(task_name) if any(one[name] != entry[name] for name in key)]
    entries.append(entry)
    FOLDER.mkdir(exist_ok=True)
    with replacing(FOLDER / f"{task_name}.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n")


def part_table(entries, runs, own=()):
    """A row for every name of the runs that were measured: the mean of its seeds, and their least and largest.

    Args:
      entries: of `read`, of one part.
      runs: tuple of tasks.Run, in the order of the rows.
      own: names of metrics that are shown beside `COLUMNS`.

    Returns:
      Markdown lines; [] where none of the runs was measured.
    """
    columns = COLUMNS | {name: name for name in own if name not in COLUMNS}
    lines = ["| | seeds | " + " | ".join(columns.values()) + " | hardware |", "|---" * (len(columns) + 3) + "|"]
    for name in dict.fromkeys(run.name for run in runs):
        own_entries = [entry for entry in entries if entry["name"] == name]
        measured = [entry["metrics"] for entry in own_entries]
        if measured:
            hardware = "; ".join(dict.fromkeys(entry["hardware"] for entry in own_entries))
            cells = [spread([metrics.get(metric) for metrics in measured]) for metric in columns]
            lines.append(f"| {name} | {len(measured)} | " + " | ".join([*cells, hardware]) + " |")
    return lines if len(lines) > 2 else []


def target_table(entries, targets):
    """A row for every target: what it asks for, what the seeds reached, and by how much their mean misses it.

    Of targets to either side of 0 the mean is of absolute values: two errors of opposite signs are none the smaller.

    Args:
      entries: of `read`.
      targets: tuple of tasks.Target.
    """
    lines = ["| metric | target | reached | |", "|---|---|---|---|"]
    for target in targets:
        values = _reached(entries, target)
        value = _mean(values, target)
        verdict = "✓" if target.is_met(value) else "**missed**" + _by(target, value)
        lines.append(f"| {target.label} | {target} | {spread(values)} | {verdict} |")
    return lines


def spread(values):
    """ "0.912 (0.897 to 0.931)" of several values, "0.912" of one; "-" where one is undefined or there is none."""
    if not values or None in values:
        return "-"
    shown = f"{np.mean(values):.3f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3f} to {max(values):.3f})"


def write(task_name):
    """Writes the tables of a task into docs/results.md and that of all tasks into README.md, between marks.

    Raises:
      InputError: a page lacks the marks.
    """
    task, entries = tasks.get(task_name), read(task_name)
    lines = target_table(entries, task.targets)
    for part, runs in task.parts.items():
        own = (*(target.metric for target in task.targets), *task.columns)
        table = part_table([entry for entry in entries if entry["part"] == part], runs, own)
        lines += ["", f"{part[0].upper()}{part[1:]}:", "", *table] if table else []
    _write_between(ROOT / "docs" / "results.md", task_name, lines)
    _write_between(ROOT / "README.md", "results", overview())


def overview():
    """A row for every task that was measured: a picture, its targets, and what was reached."""
    lines = ["| task | found, and below it the truth | reached (target) |", "|---|---|---|"]
    for name, task in tasks.TASKS.items():
        entries = read(name)
        if any(entry["part"] == tasks.RESULT for entry in entries):
            reached = [_against(entries, target) for target in task.targets] or [
                f"{metric} {spread(_reached(entries, tasks.Target(metric, 0.0)))}"
                for metric in task.columns or ("mask_ap50",)
            ]
            picture = f'<img src="docs/results/{name}.png" width="320" alt="{task.title}">'
            lines.append(f"| [{name}](configs/{name}.py) | {picture} | {'<br>'.join(reached)} |")
    return lines


def _against(entries, target):
    """What was reached, beside a target: "f1, without embryo 0.750 (≥ 0.8, missed)"."""
    values = _reached(entries, target)
    missed = "" if target.is_met(_mean(values, target)) else ", missed"
    return f"{target.label} {spread(values)} ({target}{missed})"


def _mean(values, target):
    if not values or None in values:
        return None
    return float(np.mean(np.abs(values) if target.is_upper else values))


def _reached(entries, target):
    """The metric of a target, of every entry of its row."""
    key, value = ("name", target.row) if target.row else ("part", tasks.RESULT)
    return [entry["metrics"].get(target.metric) for entry in entries if entry[key] == value]


def _write_between(path, mark, lines):
    text = path.read_text()
    begin, end = f"<!-- {mark} -->\n", f"<!-- end {mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(f"{path}: expected {begin.strip()} and {end} once each, came others")
    before, rest = text.split(begin)
    body = "".join(f"{line}\n" for line in lines)
    with replacing(path) as temporary:
        temporary.write_text(before + begin + body + end + rest.split(end)[1])


def _by(target, value):
    if value is None:
        return ""
    return f" by {abs(value - target.bound):.3g}"
