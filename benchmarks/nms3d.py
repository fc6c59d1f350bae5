"""NMS3D against MONAI's."""

import functools

import numpy as np
import tensorflow as tf

from benchmarks.measure import doubling, medians, peak_extra_bytes
from benchmarks.report import Growth, Limit, Speed
from ops.nms3d import nms3d

KEPT = 1000
VOLUME = 256


def uniform(rng, count):
    """Boxes [count, 6] with edges of 8 to 32 voxels anywhere in a volume of 256³."""
    size = rng.uniform(8, 32, (count, 3))
    lo = rng.uniform(0, 1, (count, 3)) * (VOLUME - size)
    return np.concatenate([lo, lo + size], axis=1).astype(np.float32)


def clustered(rng, count, num_objects=200):
    """Boxes [count, 6] around objects, as proposals lie: centres off by 12 %, edges by 15 % (standard deviations)."""
    objects = uniform(rng, num_objects)[rng.integers(0, num_objects, count)]
    size, centre = objects[:, 3:] - objects[:, :3], (objects[:, 3:] + objects[:, :3]) / 2
    centre = centre + rng.normal(0, 0.12, (count, 3)) * size
    size = size * np.exp(rng.normal(0, 0.15, (count, 3)))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


@functools.cache
def compiled(iou_threshold):
    """`nms3d` as a graph for any number of boxes."""

    @tf.function(input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([None])])
    def run(boxes, scores):
        return nms3d(boxes, scores, iou_threshold=iou_threshold, max_outputs=KEPT)

    return run


def prepare(make, iou_threshold, count):
    """A function without arguments that does one suppression."""
    rng = np.random.default_rng(0)
    boxes, scores = tf.constant(make(rng, count)), tf.constant(rng.random(count, np.float32))
    run = compiled(iou_threshold)
    return lambda: run(boxes, scores)


def against_monai(make, iou_threshold, count=12_000):
    """Speed row of one kind of boxes; raises AssertionError where the two keep different boxes."""
    import torch
    from monai.data import box_utils

    rng = np.random.default_rng(0)
    boxes, scores = make(rng, count), rng.random(count, np.float32)
    torch_boxes, torch_scores = torch.tensor(boxes), torch.tensor(scores)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its best: several wait for each other on tensors this small
    ours = prepare(make, iou_threshold, count)

    def theirs():
        return box_utils.non_max_suppression(torch_boxes, torch_scores, iou_threshold, KEPT, box_utils.box_iou)

    indices, valid = ours()
    kept = indices[valid].numpy()
    np.testing.assert_array_equal(kept, theirs().numpy())
    seconds, peer_seconds = medians(ours, theirs)
    torch.set_num_threads(threads)
    # Each box that is visited (all up to the last one kept) has to be told apart from the kept ones before it, at the
    # least from one of them: here from those that the definition compares it with, until the first that drops it.
    visited, compared = comparisons(boxes, scores, kept, iou_threshold)
    return Speed(
        f"NMS3D {count:,} boxes → {len(kept):,}, {make.__name__}, IoU {iou_threshold}",
        seconds,
        "`monai.data.box_utils.non_max_suppression`, 1 thread",
        peer_seconds,
        target=50,
        bytes=count * 4 * 2 + visited * 6 * 4,
        flops=compared * 18,
    )


def comparisons(boxes, scores, kept, iou_threshold):
    """(boxes visited, pairs compared) of the greedy loop that stops at the first kept box that drops a box."""
    order = np.argsort(-scores, kind="stable")
    visited = np.flatnonzero(order == kept[-1])[0] + 1 if len(kept) == KEPT else len(order)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    kept_ranks = rank[kept]
    kept_boxes, total = boxes[kept], 0
    volume = np.prod(kept_boxes[:, 3:] - kept_boxes[:, :3], axis=1)
    for place, box in enumerate(order[:visited]):
        earlier = np.searchsorted(kept_ranks, place)
        lo = np.maximum(kept_boxes[:earlier, :3], boxes[box, :3])
        hi = np.minimum(kept_boxes[:earlier, 3:], boxes[box, 3:])
        shared = np.prod(np.maximum(hi - lo, 0), axis=1)
        union = volume[:earlier] + np.prod(boxes[box, 3:] - boxes[box, :3]) - shared
        drops = np.flatnonzero(shared / union > iou_threshold)
        total += drops[0] + 1 if len(drops) else earlier
    return visited, total


def memory_uniform():
    """For `peak_extra_bytes`: 100,000 boxes anywhere."""
    return _memory(uniform, 0.5)


def memory_clustered():
    """For `peak_extra_bytes`: 100,000 boxes around 200 objects."""
    return _memory(clustered, 0.3)


def _memory(make, iou_threshold):
    return tuple(prepare(make, iou_threshold, count) for count in (2000, 100_000))


def measure():
    """(speed rows, limit rows, growth rows)."""
    speed = [against_monai(uniform, iou) for iou in (0.5, 0.7)]
    # At 0.3 fewer than 1,000 of the clustered boxes stay, so that every box has to be visited.
    speed += [against_monai(clustered, iou) for iou in (0.3, 0.5, 0.7)]
    limits, growth = [], []
    for make, iou, memory in ((uniform, 0.5, memory_uniform), (clustered, 0.3, memory_clustered)):
        work = f"NMS3D 100,000 boxes → 1,000, {make.__name__}, IoU {iou}"
        (seconds,) = medians(prepare(make, iou, 100_000))
        limits.append(Limit(work, seconds, 1, "s"))
        limits.append(Limit(f"{work}, memory", peak_extra_bytes(memory) / 1e6, 200, "MB"))
        points = doubling(functools.partial(prepare, make, iou), [12_500, 25_000, 50_000, 100_000])
        growth.append(Growth(f"NMS3D → 1,000, {make.__name__}, IoU {iou}, by boxes", points))
    return speed, limits, growth
