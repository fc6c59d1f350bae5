"""How everything here is measured: in turn within one process, as medians; memory in a process of its own."""

import ctypes
import gc
import importlib
import multiprocessing
import platform
import statistics
import time

import numpy as np


def medians(*runs, repeats=7):
    """Seconds that each of several functions takes.

    They run in turn, so that what else the machine does in that minute falls on all of them.

    Args:
      *runs: functions without arguments; each runs once more beforehand, to warm up.
      repeats: rounds.

    Returns:
      The median of each over all rounds.
    """
    times = [[] for _ in runs]
    for round_ in range(repeats + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if round_ > 0:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def doubling(prepare, counts, repeats=5):
    """Seconds at each count: `prepare(count)` gives the function to time."""
    return list(zip(counts, medians(*[prepare(count) for count in counts], repeats=repeats), strict=True))


def peak_extra_bytes(function):
    """Bytes that a call takes at its peak beyond what its inputs hold, the result included.

    Args:
      function: a function at the top of a module, without arguments, that returns two functions: a call on small
        inputs (it loads what is loaded once; TensorFlow keeps what it once took, so a large one would hide the rest)
        and the call to be measured. It runs in a fresh process.

    Returns:
      int.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (function.__module__, function.__name__))


def _peak(module, name):
    warm_up, run = getattr(importlib.import_module(module), name)()
    warm_up()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory freed by then must not hide what the call takes
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    result = run()
    peak = resident("VmHWM")
    del result
    return peak - before


def resident(key):
    """Bytes that this process holds (VmRSS) or has held at its peak (VmHWM)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def bytes_per_second():
    """What the memory gives: two arrays of 256 MB read and a third written, all cores, into memory that is there."""
    import torch

    a, b, out = (torch.ones(1 << 26) for _ in range(3))
    (seconds,) = medians(lambda: torch.add(a, b, out=out))
    return 3 * 4 * (1 << 26) / seconds


def flops_per_second():
    """What the cores give: a product of two 3,000 x 3,000 float32 matrices by TensorFlow."""
    import tensorflow as tf

    a = tf.ones([3000, 3000])
    (seconds,) = medians(lambda: tf.matmul(a, a))
    return 2 * 3000**3 / seconds


def machine():
    """One line about the processor and the versions of what was measured."""
    import monai
    import scipy
    import tensorflow as tf
    import torch

    with open("/proc/cpuinfo") as info:
        name = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    versions = {"TensorFlow": tf, "torch": torch, "MONAI": monai, "NumPy": np, "SciPy": scipy}
    used = ", ".join(f"{label} {module.__version__}" for label, module in versions.items())
    return f"{name}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {used}"
