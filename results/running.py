"""Conversion and training by the commands of the README."""

import collections
import importlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

from data import records
from data.errors import InputError
from results import tasks

ROOT = pathlib.Path(__file__).resolve().parents[1]
COST = "cost.json"  # in a run's folder: what its training took so far, over all its starts, and of what machines


def prepare(task_name, task, folder):
    """Makes the records of a task, unless they are there.

    Args:
      task_name: of `tasks.TASKS`, and of the config.
      task: tasks.Task.
      folder: of all runs.

    Returns:
      The folder of the records that are measured on; None where those are the config's.

    Raises:
      InputError: a command that failed; it has said why.
    """
    config = importlib.import_module(f"configs.{task_name}").get_config()
    _convert(task_name, config.data.records)
    if not task.unseen:
        return None
    unseen = pathlib.Path(folder) / task_name / "unseen"
    _convert(task_name, unseen, task.unseen)
    return unseen


def train(task_name, run, folder):
    """Trains, or goes on with, a run; one that has ended is left as it is.

    Records of its own, where its overrides name some, are made before, by those of its overrides that concern them; and
    so is the run that it begins with, if any.

    Args:
      task_name: of `tasks.TASKS`, and of the config.
      run: tasks.Run.
      folder: of all runs.

    Returns:
      The run's folder, and what its training took over all its starts: {"seconds": int, "hardware": list of str},
      each machine as `hardware` named it. 0 and [] where another command trained it, and nothing is known of that.

    Raises:
      InputError: a command that failed; it has said why.
    """
    workdir = pathlib.Path(folder) / task_name / run.folder
    config = f"configs/{task_name}.py" + (f":{run.form}" if run.form else "")
    settings = [f"--config.{override}" for override in (*run.overrides, f"train.seed={run.seed}")]
    if run.begins_with:
        settings.append(f"--config.train.init_weights={_train_first(run.begins_with, folder)}")
    data = [override for override in run.overrides if override.startswith("data.")]
    for override in data:
        name, _, value = override.partition("=")
        if name == "data.records":
            _convert(task_name, value, data)
    kept = workdir / COST
    cost = json.loads(kept.read_text()) if kept.is_file() else {"seconds": 0, "hardware": []}
    began = time.monotonic()
    try:
        said = _command("train_main.py", f"--config={config}", f"--workdir={workdir}", "--wandb=disabled", *settings)
    except InputError:
        if workdir.is_dir():
            _keep(kept, cost, time.monotonic() - began)
        raise
    if "already trained for" not in said:
        cost = _keep(kept, cost, time.monotonic() - began)
    return workdir, cost


def hardware():
    """What a training runs on here: "AMD EPYC, 2 cores", say, of the cores those that this process may use, or GPUs."""
    import tensorflow as tf

    from training import precision

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
        return ", ".join(f"{count} x {name}" for name, count in collections.Counter(names).items())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = precision.cpu_info()
    lacks = "" if precision.computes_bfloat16(info) else " without AVX-512"
    return f"{_processor(info)}{lacks}, {cores} core{'s' if cores > 1 else ''}"


def _processor(info):
    for line in info.splitlines():
        if line.startswith("model name"):
            return re.sub(r"\((R|TM)\)| Processor$", "", line.partition(":")[2].strip())
    return platform.processor() or platform.machine()


def _train_first(task_name, folder):
    task = tasks.get(task_name)
    prepare(task_name, task, folder)
    return train(task_name, task.parts[tasks.RESULT][0], folder)[0]


def _convert(task_name, output, overrides=()):
    if not (pathlib.Path(output) / records.MANIFEST).is_file():
        settings = [f"--config.{override}" for override in overrides]
        _command("convert_main.py", f"--config=configs/{task_name}.py", f"--output={output}", *settings)


def _keep(path, before, seconds):
    machines = dict.fromkeys([*before["hardware"], hardware()])
    cost = {"seconds": round(before["seconds"] + seconds), "hardware": list(machines)}
    path.write_text(json.dumps(cost))
    return cost


def _command(main, *arguments):
    """What a main prints, which is also shown; InputError where it fails."""
    print(f"$ python {main} {' '.join(map(str, arguments))}", flush=True)
    lines = []
    command = [sys.executable, main, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise InputError(f"{main}: expected exit code 0, came {process.returncode}")
    return "".join(lines)
