"""Measures ops, networks and data against their peers, writes the tables: `python -m benchmarks.run` (`make bench`)."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import sys

import tensorflow as tf

from benchmarks import augment, boxes, convert, masks, measure, network, nms3d, pipeline, report, roi_align3d

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
TITLES = {nms3d: "NMS3D", roi_align3d: "ROIAlign3D", boxes: "IoU matrix", masks: "Masks and instances"}


def main():
    """Prints one line per part as it is measured, then writes the tables."""
    tf.get_logger().setLevel("ERROR")  # that a function is traced for every size is meant
    speed, limits, growth = [], [], []
    for part, title in TITLES.items():
        print(f"measuring: {title}", flush=True)
        for rows, new in zip((speed, limits, growth), part.measure(), strict=True):
            rows += new
    bandwidth, flops = measure.bytes_per_second(), measure.flops_per_second()
    network_tables = network.tables()
    print("measuring: conversion", flush=True)
    conversions = convert.measure()
    print("measuring: input pipeline", flush=True)
    pipeline_tables = "\n".join([*pipeline.speed(), "", *pipeline.memory()])
    print("measuring: augmentation", flush=True)
    augmentation_tables = augment.tables()
    text = f"""# Ops, network and data against their peers

Made by `make bench`. {measure.machine()}.
Medians of runs that take turns in one process; memory is the peak of a process of its own beyond its inputs, the result
included. Where a peer does the same work, the answers are compared before the times. Trust the ratios: the machine is
shared.

## Speed

{report.speed_table(speed)}

## Limits

{report.limit_table(limits)}

## Cost against size

{report.growth_table(growth)}

## Distance from what the machine can do

The bound is the larger of two times: the least traffic over {bandwidth / 1e9:.1f} GB/s (two arrays read, one written)
and the least arithmetic over {flops / 1e9:.0f} GFLOP/s (a matrix product), both measured in the same run.

{report.bound_table(speed, bandwidth, flops)}

## Network

One volume at a time. A train step is that of `training.loop`: forward, targets, losses, gradient, clipping, AdamW.
GFLOP are those of convolutions and matrix products outside of ROIAlign's loops; the matrix product is timed in turn
with the steps. Times by part and by kind of operation are forward and backward together, from TensorFlow's profiler,
with one operation at a time.

{network_tables}

## Conversion

int16 volumes of {" x ".join(map(str, convert.SHAPE))} voxels with ids of 40 balls, against `read_volume` of every image
and label file and nothing else; the two take turns. Two processes are those of a pool that has started. From the disk:
the pages of the sources are given back before every run.

{report.limit_table(conversions)}

## Input pipeline

One epoch out of the page cache, beside reading the same bytes and casting them with NumPy; shares are of its speed.
Below, the peak of a process of its own.

{pipeline_tables}

## Augmentation

Patches of 96³ out of a case of 128³ on one core, beside batchgenerators. Targets are held against the processor's time.

{augmentation_tables}
"""
    RESULTS.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
