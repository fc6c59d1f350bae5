"""The type that layers compute in, also where the processor has no instructions for the one that was asked for."""

import functools
import pathlib
import sys

import tensorflow as tf

CPU_INFO = pathlib.Path("/proc/cpuinfo")  # of Linux


def of_this_machine(precision):
    """What layers compute in here: `train.precision`, or float32 for a bfloat16 that would be emulated.

    oneDNN computes bfloat16 from AVX-512 on. On an x86 processor without it TensorFlow's own kernels do. On one with
    AVX2 they took 35 times as long as float32 for a step of the segmentation of configs/hippocampus.py, and they add up
    in bfloat16: a convolution over 128 channels was off by 3 % (root mean square) of what float32 makes of the same
    numbers. Variables are float32 either way, so that a run goes on, and is served, on any machine. Says so once, on
    stderr.

    Args:
      precision: float32, mixed_bfloat16 or mixed_float16.

    Returns:
      One of these.
    """
    if precision != "mixed_bfloat16" or tf.config.get_visible_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return precision
    if computes_bfloat16(cpu_info()):
        return precision
    _warn("train.precision mixed_bfloat16: this processor has no AVX-512, layers compute in float32")
    return "float32"


def computes_bfloat16(info):
    """Whether `cpu_info` does not speak against bfloat16."""
    flags = [line.partition(":")[2].split() for line in info.splitlines() if line.startswith("flags")]
    return not flags or "avx512bw" in flags[0]


def cpu_info():
    """The text of /proc/cpuinfo, "" where there is none."""
    return CPU_INFO.read_text() if CPU_INFO.exists() else ""


@functools.cache
def _warn(line):
    print(f"warning: {line}", file=sys.stderr, flush=True)
