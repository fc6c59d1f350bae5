"""Augmentation of 96³ patches on one core, beside batchgenerators: `python -m benchmarks.augment`.

Both cut a patch from the same case of 128³ and change it with the same probabilities and ranges, in the same process.
What only we do comes on top: patches around instances, landmarks. Targets are held against the processor's time, which
is what a core of one's own would take; the clock's beside it counts waiting for others as well.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import dataclasses
import multiprocessing
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from configs import augment_schema, schema
from data import appearance, augmentation, paste, warp

CASE, PATCH = (128, 128, 128), (96, 96, 96)
# Patches in a row: enough that what is drawn rarely comes as often as it should.
PATCHES = 60
TARGETS = {"default": 25, "flips, crops, contrast and brightness": 100}


def tables():
    """Markdown: patches per second, ours and the peer's, in a process of its own that keeps to one core."""
    with multiprocessing.get_context("spawn").Pool(1, _keep_to_one_core) as pool:
        return pool.apply(_tables)


def _keep_to_one_core():
    # Before TensorFlow starts its threads.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)


def medians(*runs, repeats):
    """[(seconds of the processor, seconds of the clock)] of functions that run in turn, once more to warm up."""
    taken = [[] for _ in runs]
    for round_ in range(repeats + 1):
        for run, rows in zip(runs, taken, strict=True):
            start = time.process_time(), time.perf_counter()
            run()
            if round_ > 0:
                rows.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return [tuple(map(statistics.median, zip(*rows, strict=True))) for rows in taken]


def case():
    """An example of 20 boxes of ids in noise."""
    rng = np.random.default_rng(0)
    ids = np.zeros(CASE, np.int32)
    for number in range(1, 21):
        z, y, x = rng.integers(0, 100, 3)
        ids[z : z + 20, y : y + 16, x : x + 24] = number
    return {
        "volume": rng.normal(size=(*CASE, 1)).astype(np.float32) + (ids > 0)[..., np.newaxis],
        "instance_ids": ids,
        "class_ids": np.ones(20, np.int32),
        "attributes": np.zeros((20, 0), np.float32),
        "keypoints": np.zeros((20, 0, 3), np.float32),
        "spacing": np.ones(3, np.float32),
    }


def quiet():
    """`input.augment` with every probability 0."""
    settings = augment_schema.Augment()
    for field in dataclasses.fields(settings):
        section = getattr(settings, field.name)
        if dataclasses.is_dataclass(section):
            section.probability = 0.0
    return settings


def whole_patches():
    """{name: (ours, the peer's)}, seconds as of `medians` for one patch: from the case to it, all that is drawn."""
    light = quiet()
    light.contrast.probability = light.brightness.probability = 1.0
    runs = []
    for settings, planes in ((augment_schema.Augment(), schema.Input().rotate_planes), (light, ())):
        runs += [_ours(settings, planes), _theirs(settings, planes)]
    seconds = [(processor / PATCHES, clock / PATCHES) for processor, clock in medians(*runs, repeats=3)]
    return dict(zip(TARGETS, zip(seconds[::2], seconds[1::2], strict=True), strict=True))


def _ours(settings, planes):
    config = _InputConfig(settings, planes)
    example = {name: tf.constant(value) for name, value in case().items()}
    step = tf.function(lambda seed: augmentation.augment_example(example, config, seed, PATCH))
    seeds = [tf.constant([0, number], tf.int32) for number in range(PATCHES)]

    def run():
        for seed in seeds:
            step(seed)

    return run


def _theirs(settings, planes):
    example = case()
    change = peer_steps(settings, planes)

    def run():
        np.random.seed(0)
        for _ in range(PATCHES):
            change(data=example["volume"].transpose(3, 0, 1, 2)[None], seg=example["instance_ids"][None, None])

    return run


class _InputConfig:
    """The `input` section, with these settings of augmentation and planes of quarter turns."""

    def __init__(self, settings, planes):
        defaults = schema.Input()
        self.foreground, self.flip_axes = defaults.foreground, defaults.flip_axes
        self.foreground_by = defaults.foreground_by
        self.augment, self.rotate_planes = settings, planes


def peer_steps(settings, planes):
    """The nearest that batchgenerators has: linear for the image, nearest for ids, a random crop."""
    from batchgenerators.transforms import (
        abstract_transforms,
        color_transforms,
        noise_transforms,
        resample_transforms,
        spatial_transforms,
    )

    affine, elastic, low = settings.affine, settings.elastic, settings.low_resolution
    angles = [tuple(np.radians(interval)) for interval in affine.rotation]
    steps = [
        spatial_transforms.SpatialTransform(
            PATCH,
            [size // 2 for size in PATCH],
            do_elastic_deform=elastic.probability > 0,
            alpha=(0.0, 900.0),
            sigma=(9.0, 13.0),
            do_rotation=affine.probability > 0,
            angle_x=angles[0],
            angle_y=angles[1],
            angle_z=angles[2],
            do_scale=affine.probability > 0,
            scale=affine.scale,
            border_mode_data="constant",
            order_data=1,
            border_mode_seg="constant",
            order_seg=0,
            random_crop=True,
            p_el_per_sample=elastic.probability,
            p_rot_per_sample=affine.probability,
            p_scale_per_sample=affine.probability,
        ),
        spatial_transforms.MirrorTransform((0, 1, 2)),
        spatial_transforms.Rot90Transform(axes=(0, 1, 2), p_per_sample=1.0 if planes else 0.0),
        noise_transforms.GaussianBlurTransform(settings.blur.interval, p_per_sample=settings.blur.probability),
        resample_transforms.SimulateLowResolutionTransform(
            low.interval, order_downsample=0, order_upsample=1, p_per_sample=low.probability
        ),
        color_transforms.GammaTransform(settings.gamma.interval, p_per_sample=settings.gamma.probability),
        color_transforms.ContrastAugmentationTransform(
            settings.contrast.interval, preserve_range=False, p_per_sample=settings.contrast.probability
        ),
        color_transforms.BrightnessTransform(0, 0.1, p_per_sample=settings.brightness.probability),
        noise_transforms.GaussianNoiseTransform(settings.noise.interval, p_per_sample=settings.noise.probability),
    ]
    return abstract_transforms.Compose(steps)


def single_steps():
    """{name: seconds as of `medians`}: each step alone, always done, on a patch (what bends cuts it from the case)."""
    settings, whole = augment_schema.Augment(), {name: tf.constant(value) for name, value in case().items()}
    corner = tf.constant([16, 16, 16])
    middle = {key: whole[key] for key in ("volume", "instance_ids", "class_ids", "attributes", "keypoints")}
    window = augmentation.places.window(middle, corner, PATCH)
    volume, spacing, planes = window["volume"], whole["spacing"], schema.Input().rotate_planes
    still = tf.zeros([3, *warp.control_shape(PATCH, settings.elastic.grid)])

    def bend(affine, control):
        return warp.warp(middle, corner, PATCH, affine, control, settings.elastic.grid)

    def intensities(change, *arguments):
        return lambda seed: change(volume, *arguments, seed)

    steps = {
        "random place, crop": lambda s: augmentation.places.window(
            middle, augmentation.places.random_corner(middle, PATCH, 0.7, s), PATCH
        ),
        "affine": lambda s: bend(warp.random_affine(settings.affine, spacing, s), still),
        "affine and elastic": lambda s: bend(
            warp.random_affine(settings.affine, spacing, s), warp.random_control(settings.elastic, PATCH, s)
        ),
        "mosaic of 2 x 2 x 2": lambda s: augmentation.mosaic([middle], PATCH, (2, 2, 2), 0.7, s),
        "3 instances pasted": lambda s: paste.paste(window, middle, settings.paste, s),
        "mirrors": lambda s: augmentation.augment.flip(window, (True, True, True), s),
        "quarter turns": lambda s: augmentation.turn(window, planes, spacing, s),
        "blur": intensities(appearance.blur, settings.blur.interval),
        "low resolution": intensities(appearance.low_resolution, settings.low_resolution.interval, (True, True, True)),
        "gamma": intensities(appearance.gamma, settings.gamma.interval, settings.gamma_invert),
        "contrast": intensities(appearance.contrast, settings.contrast.interval),
        "brightness": intensities(appearance.brightness, settings.brightness.interval),
        "noise": intensities(appearance.noise, settings.noise.interval),
    }
    numbers = iter(range(10**6))
    compiled = [tf.function(step) for step in steps.values()]
    runs = [lambda step=step: step(tf.constant([1, next(numbers)], tf.int32)) for step in compiled]
    return dict(zip(steps, medians(*runs, repeats=15), strict=True))


def _tables():
    header = "augmentation | patches per processor second | per clock second | batchgenerators | per clock second"
    lines = [f"| {header} | ratio | target |", "|---|---|---|---|---|---|---|"]
    for name, (ours, theirs) in whole_patches().items():
        rates = [f"{1 / seconds:.1f}" for seconds in (*ours, *theirs)]
        met = "✓" if 1 / ours[0] >= TARGETS[name] else "**missed**"
        ratio = f"{theirs[0] / ours[0]:.1f}x"
        lines.append(f"| {name} | {' | '.join(rates)} | {ratio} | ≥ {TARGETS[name]} {met} |")
    lines += ["", "| step alone, always done | ms of the processor | of the clock |", "|---|---|---|"]
    for name, (processor, clock) in single_steps().items():
        lines.append(f"| {name} | {processor * 1e3:.1f} | {clock * 1e3:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
    sys.exit(0)
