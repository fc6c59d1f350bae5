"""Starts `train_main.py` as its user does, alone or as several workers, to be stopped; and what has come of it."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tests import mains

# What metrics.jsonl says about the machine, not about the training.
OF_MACHINE = ("seconds", "per_second", "wait", "memory", "gb", "cpu", "gpu")


class Worker:
    """A process of `python train_main.py`."""

    def __init__(self, folder, name, arguments, environment=None, before=None):
        """Starts it; what it says goes to files of this name in a folder. `before` is run in the process first."""
        self.out_path, self.err_path = (pathlib.Path(folder) / f"{name}.{kind}" for kind in ("out", "err"))
        with self.out_path.open("w") as out, self.err_path.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "train_main.py", *map(str, arguments)],
                cwd=mains.ROOT,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
                preexec_fn=before,
            )

    @property
    def out(self):
        return self.out_path.read_text()

    @property
    def err(self):
        return self.err_path.read_text()

    def wait_for(self, is_there, seconds=600):
        """Waits for f() to be true; AssertionError if the process ends before."""
        end = time.monotonic() + seconds
        while not is_there():
            assert self.process.poll() is None, self.out + self.err
            assert time.monotonic() < end, self.out + self.err
            time.sleep(0.0005)

    def wait_for_line(self, begin):
        """Waits until it has said a line that begins with these words."""
        self.wait_for(lambda: f"\n{begin}" in self.out)

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, seconds=600):
        """Its exit code, once it has one."""
        return self.process.wait(seconds)


@contextlib.contextmanager
def started(*workers):
    """Within, processes run; none outlives the block."""
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()


def environments(count):
    """TF_CONFIG of so many workers on this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    hosts = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    tasks = [{"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}} for index in range(count)]
    return [{"TF_CONFIG": json.dumps(task)} for task in tasks]


def metrics(workdir):
    """The lines of metrics.jsonl, without what differs from machine to machine."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not any(word in name for word in OF_MACHINE)}
        for line in lines
    ]


def variables(workdir, step):
    """All that a checkpoint holds: {name: array}; without how many checkpoints the run has written."""
    reader = tf.train.load_checkpoint(str(pathlib.Path(workdir) / "checkpoints" / f"ckpt-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: reader.get_tensor(name) for name in names if not name.startswith("save_counter")}


def apart(ours, theirs):
    """By how much two results of `variables` differ at most."""
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(np.float64(ours[name]) - np.float64(value)).max()) for name, value in theirs.items())


def truncate(workdir, step):
    """Damages a checkpoint as a full disk does."""
    path = pathlib.Path(workdir) / "checkpoints" / f"ckpt-{step}.data-00000-of-00001"
    os.truncate(path, path.stat().st_size // 2)
