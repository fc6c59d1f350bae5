"""Draws every augmentation on a synthetic volume: `python -m docs.augmentations` writes docs/augmentations.png."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import io
import pathlib
import sys
import types

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from configs import augment_schema, schema, synthetic_schema
from data import augmentation, intensity, synthetic

PICTURE = pathlib.Path(__file__).with_name("augmentations.png")
CASE, PATCH = (96, 128, 128), (64, 96, 96)
# One seed for all, so that every picture begins with the same patch; with this one mirrors and turns are drawn,
# and instances pasted into the slice that is shown.
SEED = (0, 49)
COLUMNS = 6
# Fewer colours than these show as bands, more make the file larger.
COLOURS = 128


def case(index, channels=1):
    """A volume of bright shapes; every landmark is the middle of an instance. A second channel shows half of them."""
    shapes = synthetic_schema.Synthetic(shape=CASE, count=(30, 30), base_size=9.0, contrast=(2.0, 5.0), seed=3)
    image, ids, class_ids, _, _ = synthetic.draw("shapes", shapes, index)
    volumes = [image, np.where(ids % 2 == 0, image, image // 4)][:channels]
    centres = [np.argwhere(ids == number + 1).mean(axis=0) + 0.5 for number in range(len(class_ids))]
    return {
        "volume": intensity.normalize(tf.constant(np.stack(volumes, axis=-1), tf.float32), schema.Input()),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.constant(class_ids),
        "attributes": tf.zeros([len(class_ids), 0]),
        "keypoints": tf.constant(np.array(centres)[:, np.newaxis], tf.float32),
        "spacing": tf.ones(3),
    }


def settings(flip_axes=(False,) * 3, rotate_planes=(), **sections):
    """The `input` section with the sections given always drawn, and all others never."""
    augment = augment_schema.Augment()
    for field in dataclasses.fields(augment):
        if dataclasses.is_dataclass(getattr(augment, field.name)):
            getattr(augment, field.name).probability = 0.0
    for name, value in sections.items():
        setattr(augment, name, value)
    return types.SimpleNamespace(
        foreground=0.0,
        foreground_by="instance",
        flip_axes=flip_axes,
        rotate_planes=rotate_planes,
        augment=augment,
    )


def affine(rotation=0, scale=1.0, shear=0.0):
    """About z alone, so that a slice shows it."""
    turns = ((rotation, rotation), (0, 0), (0, 0))
    return augment_schema.Affine(1.0, turns, (scale, scale), True, (shear, shear))


def effect(value):
    """An effect of one strength."""
    return augment_schema.Effect(1.0, (value, value))


def pictures():
    """{title: (channels, settings)}."""
    low = augment_schema.LowResolution(1.0, (0.3, 0.3))
    return {
        "the patch": (1, settings()),
        "mirror (x)": (1, settings(flip_axes=(False, False, True))),
        "quarter turn (y, x)": (1, settings(rotate_planes=((1, 2),))),
        "rotation, 25°": (1, settings(affine=affine(rotation=25))),
        "scale, 1.3": (1, settings(affine=affine(scale=1.3))),
        "shear, 0.3": (1, settings(affine=affine(shear=0.3))),
        "elastic, 9 of 24 voxels": (1, settings(elastic=augment_schema.Elastic(1.0, (24, 24, 24), (9.0, 9.0)))),
        "mosaic, 2 x 2 x 2": (1, settings(mosaic=augment_schema.Mosaic(1.0))),
        "4 instances pasted": (1, settings(paste=augment_schema.Paste(1.0, 4))),
        "blur, 2 voxels": (1, settings(blur=effect(2.0))),
        "low resolution, 0.3": (1, settings(low_resolution=low)),
        "gamma, 2": (1, settings(gamma=effect(2.0), gamma_invert=0.0)),
        "gamma, 2, inverted": (1, settings(gamma=effect(2.0), gamma_invert=1.0)),
        "contrast, 0.5": (1, settings(contrast=effect(0.5))),
        "brightness, + 1": (1, settings(brightness=effect(1.0))),
        "noise, 0.5": (1, settings(noise=effect(0.5))),
        "two channels": (2, settings()),
        "a channel dropped": (2, settings(channel_drop=1.0)),
    }


def draw(axes, title, example):
    """The middle slice, outlines of the ids, and a cross at every landmark within 6 slices."""
    middle = PATCH[0] // 2
    pixels = (example["volume"].numpy()[middle] + 1.0) / 5.0
    if pixels.shape[-1] == 2:
        pixels = np.stack([pixels[..., 0], pixels[..., 1], pixels[..., 0]], axis=-1)
    axes.imshow(np.clip(pixels, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ids = example["instance_ids"].numpy()[middle]
    for number in np.unique(ids[ids > 0]):
        axes.contour(ids == number, levels=[0.5], colors=[colormaps["tab10"](int(number) % 10)], linewidths=1)
    points = example["keypoints"].numpy().reshape(-1, 3)
    shown = example["instance_ids"].numpy()
    for number in np.flatnonzero(np.abs(points[:, 0] - middle) < 6) + 1:
        if (shown == number).any():
            axes.plot(points[number - 1, 2] - 0.5, points[number - 1, 1] - 0.5, "+", color="yellow", markersize=5)
    axes.set(xlim=(-0.5, PATCH[2] - 0.5), ylim=(PATCH[1] - 0.5, -0.5))
    axes.set_title(title, fontsize=8, pad=2)
    axes.axis("off")


def main():
    """Writes the picture."""
    chosen = pictures()
    figure = Figure(figsize=(9.6, 5.2), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(chosen) // COLUMNS, COLUMNS)
    cases, donor = {channels: case(0, channels) for channels in (1, 2)}, case(1)
    for axes, (title, (channels, config)) in zip(grid.flat, chosen.items(), strict=True):
        other = donor if channels == 1 else None
        found = augmentation.augment_example(cases[channels], config, tf.constant(SEED), PATCH, other)
        draw(axes, title, found)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, 0.03, 0.1)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
