"""Pasting masks and finding instances in label volumes, against PyTorch and SciPy."""

import numpy as np
import tensorflow as tf

from benchmarks.measure import doubling, medians, peak_extra_bytes
from benchmarks.report import Growth, Limit, Speed
from ops import masks as mask_ops

VOLUME, MASK = 256, 28


def detections(count):
    """(masks [count, 28, 28, 28], boxes [count, 6]) with edges of 16 to 64 voxels; the masks are balls."""
    rng = np.random.default_rng(0)
    size = rng.uniform(16, 64, (count, 3))
    lo = rng.uniform(0, 1, (count, 3)) * (VOLUME - size)
    axis = (np.arange(MASK) + 0.5) / MASK * 2 - 1
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    ball = 1 / (1 + np.exp(8 * (distance - 0.9)))
    return (
        np.broadcast_to(ball, (count, *ball.shape)).astype(np.float32),
        np.concatenate([lo, lo + size], axis=1).astype(np.float32),
    )


@tf.function(
    input_signature=[tf.TensorSpec([None, MASK, MASK, MASK]), tf.TensorSpec([None, 6]), tf.TensorSpec([3], tf.int32)]
)
def label_volume(masks, boxes, shape):
    """Labels [Z, Y, X] of detections, the first one on top."""
    return mask_ops.label_volume(masks, boxes, tf.ones(tf.shape(boxes)[:1], tf.bool), shape)


def prepare_paste(count, size=VOLUME):
    """A function without arguments that pastes once."""
    masks, boxes = (tf.constant(part) for part in detections(count))
    return lambda: label_volume(masks, boxes, tf.constant([size] * 3))


def torch_label_volume(masks, boxes):
    """The same, one detection after the other with `grid_sample` over the voxels of its box, the best painted last."""
    import torch

    labels = torch.zeros([VOLUME] * 3, dtype=torch.int32)
    for row in reversed(range(len(boxes))):
        lo, hi = boxes[row, :3], boxes[row, 3:]
        first, stop = np.ceil(lo - 0.5).astype(int), np.ceil(hi - 0.5).astype(int)
        axes = [
            torch.tensor((np.arange(first[a], stop[a]) + 0.5 - lo[a]) / (hi[a] - lo[a]) * 2 - 1, dtype=torch.float32)
            for a in range(3)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None]
        soft = torch.nn.functional.grid_sample(masks[row][None, None], grid, padding_mode="border", align_corners=False)
        part = labels[first[0] : stop[0], first[1] : stop[1], first[2] : stop[2]]
        part[soft[0, 0] >= 0.5] = row + 1
    return labels


def paste_against_torch(count=200):
    """Speed row; raises AssertionError where more than a few voxels differ (a mask of exactly one half may)."""
    import torch

    masks, boxes = detections(count)
    torch_masks = torch.tensor(np.ascontiguousarray(masks))
    ours = prepare_paste(count)

    def theirs():
        return torch_label_volume(torch_masks, boxes)

    assert np.mean(ours().numpy() != theirs().numpy()) < 1e-5
    seconds, peer_seconds = medians(ours, theirs, repeats=5)
    pasted = float(np.sum(np.prod(np.round(boxes[:, 3:] - boxes[:, :3]), axis=1)))
    return Speed(
        f"Label volume of {count} masks of {MASK}³ in {VOLUME}³",
        seconds,
        "torch `grid_sample` per mask",
        peer_seconds,
        target=1,
        bytes=VOLUME**3 * 4 + pasted * 4,
        flops=2 * MASK * pasted,
    )


def memory_of_paste():
    """For `peak_extra_bytes`: 200 masks."""
    return prepare_paste(1, size=8), prepare_paste(200)


def instances(count=1000, shape=(VOLUME,) * 3):
    """Ids [Z, Y, X] int32 of `count` ellipsoids of 8 to 40 voxels; later ones cover earlier ones."""
    rng = np.random.default_rng(0)
    ids = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        radius = rng.uniform(4, 20, 3)
        centre = rng.uniform(radius, np.array(shape) - radius)
        lo, hi = np.floor(centre - radius).astype(int), np.ceil(centre + radius).astype(int)
        grid = np.ogrid[lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]]
        inside = sum(((grid[a] + 0.5 - centre[a]) / radius[a]) ** 2 for a in range(3)) <= 1
        ids[lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]][inside] = number
    return ids


def prepare_boxes(size, count=1000):
    """A function without arguments that finds the boxes in `size` slices of 256²."""
    ids = tf.constant(instances(count, (size, VOLUME, VOLUME)))
    run = tf.function(lambda ids: mask_ops.instance_boxes(ids, count))
    return lambda: run(ids)


def boxes_against_scipy(count=1000):
    """Speed row; raises AssertionError where the two do not agree."""
    from scipy import ndimage

    ids = instances(count)

    def theirs():
        return ndimage.find_objects(ids, count), np.bincount(ids.ravel(), minlength=count + 1)[1:]

    ours = prepare_boxes(VOLUME, count)
    boxes, voxels = (part.numpy() for part in ours())
    slices, counted = theirs()
    np.testing.assert_array_equal(voxels, counted)
    found = [[s.start for s in slices[n]] + [s.stop for s in slices[n]] if slices[n] else [0] * 6 for n in range(count)]
    np.testing.assert_array_equal(boxes, found)
    seconds, peer_seconds = medians(ours, theirs)
    return Speed(
        f"Boxes and sizes of {count:,} ids in {VOLUME}³",
        seconds,
        "`scipy.ndimage.find_objects` + `numpy.bincount`",
        peer_seconds,
        target=1,
        bytes=ids.nbytes,
        flops=ids.size,
    )


def measure():
    """(speed rows, limit rows, growth rows)."""
    paste = paste_against_torch()
    volume = VOLUME**3 * 4
    limits = [
        Limit(paste.work, paste.seconds, 1, "s"),
        Limit(f"{paste.work}, memory", peak_extra_bytes(memory_of_paste) / volume, 2, "volumes"),
    ]
    growth = [
        Growth("Label volume of masks, by masks", doubling(prepare_paste, [50, 100, 200, 400])),
        Growth("Boxes of 1,000 ids, by slices of 256²", doubling(prepare_boxes, [64, 128, 256])),
    ]
    return [paste, boxes_against_scipy()], limits, growth
