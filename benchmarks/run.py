"""Measures ops, networks and data against their peers, writes the tables: `python -m benchmarks.run` (`make bench`)."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import pathlib
import sys

import tensorflow as tf

from benchmarks import augment, boxes, convert, masks, measure, network, nms3d, pipeline, report, roi_align3d, training

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
TITLES = {nms3d: "NMS3D", roi_align3d: "ROIAlign3D", boxes: "IoU matrix", masks: "Masks and instances"}


HEAD = """\
Medians of runs that take turns in one process; memory is the peak of a process of its own beyond its inputs, the result
included. Where a peer does the same work, the answers are compared before the times. Trust the ratios: the machine is
shared."""
BOUND = """\
The bound is the larger of two times: the least traffic over {bandwidth:.1f} GB/s (two arrays read, one written)
and the least arithmetic over {flops:.0f} GFLOP/s (a matrix product), both measured in the same run."""
NETWORK = """\
One volume at a time. A train step is that of `training.loop`: forward, targets, losses, gradient, clipping, AdamW.
GFLOP are those of convolutions and matrix products outside of ROIAlign's loops; the matrix product is timed in turn
with the steps. Times by part and by kind of operation are forward and backward together, from TensorFlow's profiler,
with one operation at a time."""
TRAINING = """\
What a training costs beside its steps. The loop is that of `training.loop` with the averages of 20 steps written to
metrics.jsonl and TensorBoard; the bare step is one compiled function on a batch that is there. Two logical devices
share the cores of one, so that nothing but their overhead shows. Memory and its price are those of a step of large
patches, each in a process of its own; the peak of a step of small ones, which holds what it takes to plan the graph, is
taken off."""
CONVERSION = """\
int16 volumes of {shape} voxels with ids of 40 balls, against `read_volume` of every image
and label file and nothing else; the two take turns. Two processes are those of a pool that has started. From the disk:
the pages of the sources are given back before every run."""
PIPELINE = """\
One epoch out of the page cache, beside reading the same bytes and casting them with NumPy; shares are of its speed.
Below, the peak of a process of its own."""
AUGMENTATION = """\
Patches of 96³ out of a case of 128³ on one core, beside batchgenerators. Targets are held against the
processor's time."""


def main():
    """Prints one line per part as it is measured, then writes the tables."""
    tf.get_logger().setLevel("ERROR")  # that a function is traced for every size is meant
    sections = {**_ops(), **_network(), **_training(), **_data()}
    text = f"# Ops, network and data against their peers\n\nMade by `make bench`. {measure.machine()}.\n{HEAD}\n"
    text += "".join(f"\n## {title}\n\n{body}\n" for title, body in sections.items())
    RESULTS.write_text(text)
    print(text)
    return 0


def _ops():
    """{title: Markdown}, as of the two below."""
    speed, limits, growth = [], [], []
    for part, title in TITLES.items():
        print(f"measuring: {title}", flush=True)
        for rows, new in zip((speed, limits, growth), part.measure(), strict=True):
            rows += new
    bandwidth, flops = measure.bytes_per_second(), measure.flops_per_second()
    bound = BOUND.format(bandwidth=bandwidth / 1e9, flops=flops / 1e9)
    return {
        "Speed": report.speed_table(speed),
        "Limits": report.limit_table(limits),
        "Cost against size": report.growth_table(growth),
        "Distance from what the machine can do": f"{bound}\n\n{report.bound_table(speed, bandwidth, flops)}",
    }


def _network():
    return {"Network": f"{NETWORK}\n\n{network.tables()}"}


def _training():
    print("measuring: training", flush=True)
    return {"Training": f"{TRAINING}\n\n{training.tables()}"}


def _data():
    print("measuring: conversion", flush=True)
    conversions = report.limit_table(convert.measure())
    print("measuring: input pipeline", flush=True)
    pipelines = "\n".join([*pipeline.speed(), "", *pipeline.memory()])
    print("measuring: augmentation", flush=True)
    conversion = CONVERSION.format(shape=" x ".join(map(str, convert.SHAPE)))
    return {
        "Conversion": f"{conversion}\n\n{conversions}",
        "Input pipeline": f"{PIPELINE}\n\n{pipelines}",
        "Augmentation": f"{AUGMENTATION}\n\n{augment.tables()}",
    }


if __name__ == "__main__":
    sys.exit(main())
