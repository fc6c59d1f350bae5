"""ROIAlign3D against PyTorch's `grid_sample`, the usual way to have one in 3D without a CUDA build."""

import numpy as np
import tensorflow as tf

from benchmarks.measure import doubling, medians, peak_extra_bytes
from benchmarks.report import Growth, Limit, Speed
from ops.roi_align3d import multilevel_roi_align3d, roi_align3d

GRID, STRIDE, SAMPLING = 32, 4, 2
VOLUME = GRID * STRIDE


def random_rois(rng, count, longest=64):
    """Boxes [1, count, 6] with edges of 8 voxels up to `longest`, anywhere in a volume of 128³."""
    size = rng.uniform(8, longest, (count, 3))
    lo = rng.uniform(0, 1, (count, 3)) * (VOLUME - size)
    return np.concatenate([lo, lo + size], axis=1).astype(np.float32)[np.newaxis]


def forward(features, rois):
    """Features of rois at 7³ bins."""
    return roi_align3d(features, rois, output_size=7, stride=STRIDE, sampling_ratio=SAMPLING)


def forward_and_backward(features, rois):
    """The same, and the gradient of its sum of squares."""
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.reduce_sum(forward(features, rois) ** 2)  # whose gradient needs the forward pass
    return tape.gradient(loss, features)


def prepare(work, num_rois, channels):
    """A function without arguments that does one call, as a graph for any number of rois."""
    rng = np.random.default_rng(0)
    features = tf.constant(rng.normal(size=(1, GRID, GRID, GRID, channels)), tf.float32)
    rois = tf.constant(random_rois(rng, num_rois))
    run = tf.function(work, input_signature=[tf.TensorSpec(features.shape), tf.TensorSpec([1, None, 6])])
    return lambda: run(features, rois)


def torch_roi_align(features, grid, num_rois, bins):
    """`grid_sample` at every sample of every bin, all rois along the first axis of one grid, then the mean of bins."""
    import torch

    sampled = torch.nn.functional.grid_sample(
        features, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    samples = bins * SAMPLING
    sampled = sampled.reshape(-1, num_rois, samples, samples, samples).transpose(0, 1)
    return torch.nn.functional.avg_pool3d(sampled, SAMPLING)  # [R, C, P, P, P]


def sampling_grid(rois, bins):
    """Where the samples of rois [R, 6] lie: [1, R * S, S, S, 3] for `grid_sample`, x first, the grid in [-1, 1]."""
    steps = (np.arange(bins * SAMPLING) + 0.5) / (bins * SAMPLING)
    at = rois[:, :3, np.newaxis] + (rois[:, 3:] - rois[:, :3])[:, :, np.newaxis] * steps  # [R, 3, S], voxels
    z, y, x = np.moveaxis(at / VOLUME * 2 - 1, 1, 0)
    shape = (len(rois), *[bins * SAMPLING] * 3)
    z, y, x = z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]
    grid = np.stack([np.broadcast_to(axis, shape) for axis in (x, y, z)], axis=-1)
    return grid.reshape(1, -1, *shape[2:], 3).astype(np.float32)


def against_torch(num_rois=256, channels=128, bins=7):
    """Speed rows, forward and with the gradient; raises AssertionError where the two do not agree."""
    import torch

    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, GRID, GRID, GRID, channels)).astype(np.float32)
    rois = random_rois(rng, num_rois)
    grid = torch.tensor(sampling_grid(rois[0], bins))
    # Channels last is the faster layout for it.
    features = torch.tensor(np.moveaxis(values, -1, 1)).to(memory_format=torch.channels_last_3d).requires_grad_()

    def theirs():
        with torch.no_grad():
            return torch_roi_align(features, grid, num_rois, bins)

    def theirs_with_gradient():
        features.grad = None
        (torch_roi_align(features, grid, num_rois, bins) ** 2).sum().backward()
        return features.grad

    ours, ours_with_gradient = prepare(forward, num_rois, channels), prepare(forward_and_backward, num_rois, channels)
    np.testing.assert_allclose(np.moveaxis(ours()[0].numpy(), -1, 1), theirs().numpy(), atol=1e-3)
    gradient = theirs_with_gradient().numpy()
    np.testing.assert_allclose(np.moveaxis(ours_with_gradient().numpy(), -1, 1), gradient, atol=1e-3 * gradient.max())

    seconds, peer_seconds = medians(ours, theirs, repeats=5)
    both_seconds, both_peer_seconds = medians(ours_with_gradient, theirs_with_gradient, repeats=5)
    features_bytes, result_bytes = values.nbytes, num_rois * bins**3 * channels * 4
    flops = contraction_flops(rois[0], channels, bins)
    work = f"ROIAlign3D {num_rois} rois x {bins}³ x {channels} ch on {GRID}³"
    return [
        Speed(
            f"{work}, forward",
            seconds,
            "torch `grid_sample`, channels last",
            peer_seconds,
            target=15,
            bytes=features_bytes + result_bytes,
            flops=flops,
        ),
        Speed(
            f"{work}, forward + backward",
            both_seconds,
            "torch `grid_sample`, channels last",
            both_peer_seconds,
            target=10,
            bytes=3 * (features_bytes + result_bytes),
            flops=2 * flops,
        ),
    ]


def contraction_flops(rois, channels, bins):
    """Multiplications and additions of the three contractions over the cells that each roi touches."""
    cells = np.ceil((rois[:, 3:] - rois[:, :3]) / STRIDE) + 1  # [R, 3]
    z, y, x = cells.T
    return float(2 * channels * bins * np.sum(z * y * x + bins * y * x + bins**2 * x))


def memory_forward():
    """For `peak_extra_bytes`: 512 rois x 14³ x 256 channels over the pyramid of a 128³ patch."""
    features, rois = _pyramid()
    return lambda: _pyramid_forward(features, rois[:, :4]), lambda: _pyramid_forward(features, rois)


def memory_with_gradient():
    """For `peak_extra_bytes`: the same with the gradient to the four levels."""
    features, rois = _pyramid()
    return lambda: _pyramid_gradient(features, rois[:, :4]), lambda: _pyramid_gradient(features, rois)


def _pyramid():
    rng = np.random.default_rng(0)
    features = [tf.constant(rng.normal(size=(1, size, size, size, 256)), tf.float32) for size in (32, 16, 8, 4)]
    return features, tf.constant(random_rois(rng, 512, longest=128))


_SIGNATURE = [[tf.TensorSpec([1, s, s, s, 256]) for s in (32, 16, 8, 4)], tf.TensorSpec([1, None, 6])]


@tf.function(input_signature=_SIGNATURE)
def _pyramid_forward(features, rois):
    return multilevel_roi_align3d(
        features,
        rois,
        strides=[(s, s, s) for s in (4, 8, 16, 32)],
        output_size=14,
        canonical_size=(32, 32, 32),
        canonical_level=1,
        sampling_ratio=SAMPLING,
    )


@tf.function(input_signature=_SIGNATURE)
def _pyramid_gradient(features, rois):
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = _pyramid_forward(features, rois)
    # The gradient that comes from above is a tensor of its own, as it is in training.
    # Both are asked for, or the graph would leave out the forward pass, which a linear gradient does not need.
    return pooled, tape.gradient(pooled, features, output_gradients=tf.ones_like(pooled))


def measure():
    """(speed rows, limit rows, growth rows)."""
    work = "ROIAlign3D 512 rois x 14³ x 256 ch on 4 levels of a 128³ patch"
    limits = [
        Limit(f"{work}, forward", peak_extra_bytes(memory_forward) / 1e9, 2, "GB"),
        Limit(f"{work}, with gradient", peak_extra_bytes(memory_with_gradient) / 1e9, 4, "GB"),
    ]
    growth = [
        Growth("ROIAlign3D 7³ x 128 ch, by rois", doubling(lambda n: prepare(forward, n, 128), [64, 128, 256, 512])),
        Growth("ROIAlign3D 256 x 7³, by channels", doubling(lambda c: prepare(forward, 256, c), [32, 64, 128, 256])),
    ]
    return against_torch(), limits, growth
