"""The IoU matrix against MONAI's, and against the time of its passes."""

import numpy as np
import tensorflow as tf

from benchmarks.measure import doubling, medians
from benchmarks.nms3d import uniform
from benchmarks.report import Growth, Limit, Speed
from ops.boxes import iou_matrix

# Elementwise passes over the pairs: along each axis the larger start, the smaller stop, their difference cut at 0 and
# (from the second axis on) the product; then the sum of the volumes, minus the intersection, and the division.
PASSES = 3 * 4 - 1 + 3

compiled = tf.function(iou_matrix, input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([None, 6])])


def prepare(count):
    """A function without arguments that makes a matrix of count x count."""
    rng = np.random.default_rng(0)
    a, b = tf.constant(uniform(rng, count)), tf.constant(uniform(rng, count))
    return lambda: compiled(a, b)


def measure(count=5000):
    """(speed rows, limit rows, growth rows); raises AssertionError where the two do not agree."""
    import torch
    from monai.data.box_utils import box_iou

    rng = np.random.default_rng(0)
    a, b = uniform(rng, count), uniform(rng, count)
    torch_a, torch_b = torch.tensor(a), torch.tensor(b)
    ours = prepare(count)
    np.testing.assert_allclose(ours().numpy(), box_iou(torch_a, torch_b).numpy(), atol=1e-6)

    column, row = tf.ones([count, 1]), tf.ones([1, count])
    one_pass = tf.function(lambda a, b: a + b)
    seconds, peer_seconds, pass_seconds = medians(
        ours, lambda: box_iou(torch_a, torch_b), lambda: one_pass(column, row)
    )
    work = f"IoU matrix {count:,} x {count:,}"
    speed = Speed(
        work, seconds, "`monai.data.box_utils.box_iou`", peer_seconds, target=1, bytes=4 * count**2, flops=18 * count**2
    )
    share = Limit(
        f"{work}, against {PASSES} passes that write {4 * count**2 / 1e6:.0f} MB ({pass_seconds * 1e3:.1f} ms each)",
        seconds / (PASSES * pass_seconds),
        2,
        "x their time",
    )
    points = doubling(prepare, [1250, 2500, 5000])
    return [speed], [share], [Growth("IoU matrix N x N, by N (4x is the size of the result)", points)]
