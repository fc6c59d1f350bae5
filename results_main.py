"""Reproduces a published result: python results_main.py --task=shapes_small"""

import pathlib

from configs import command_line

from absl import flags  # isort: skip

TASK = flags.DEFINE_string("task", None, "of results/tasks.py", required=True)
PART = flags.DEFINE_string("part", "result", "of the task: result, or another that results/tasks.py names for it")
ONLY = flags.DEFINE_list("only", [], "names of rows of the part; default: all")
RUNS = flags.DEFINE_string("runs", "runs/results", "folder of the runs, which go on where they stopped")


def main():
    """Converts, trains and measures each run of a part, one after the other, and writes the tables after each."""
    from data.errors import InputError

    try:
        import skimage  # noqa: F401 a baseline needs it
    except ImportError as error:
        raise InputError("expected scikit-image, came none: pip install -e '.[results]'") from error

    from results import measuring, running, tables, tasks

    name, folder = TASK.value, pathlib.Path(RUNS.value)
    task = tasks.get(name)
    runs = tasks.select(task, PART.value, ONLY.value)
    unseen = running.prepare(name, task, folder)
    for run in runs:
        workdir, cost = running.train(name, run, folder)
        picture = tables.FOLDER / f"{name}.png" if run == task.parts[tasks.RESULT][0] else None
        metrics = measuring.measure(task, workdir, unseen, picture)
        entry = {"part": PART.value, "name": run.name, "seed": run.seed, "hardware": "; ".join(cost["hardware"])}
        tables.keep(name, {**entry, "metrics": {**metrics, "minutes": cost["seconds"] / 60 or None}})
        tables.write(name)


if __name__ == "__main__":
    command_line.run(main)
