"""Grouped 3D convolution (Xie et al. 2017), which TensorFlow itself does not have on a CPU."""

import numpy as np
import tensorflow as tf

# Channels that make a convolution worth its call. Below it, neighbouring groups are convolved together, by a kernel
# that is zero between them: more arithmetic, but in one piece.
WIDTH = 16


def grouped_conv3d(x, kernel, strides, padding, groups):
    """Every group of output channels from its own group of input channels.

    Args:
      x: [B, z, y, x, C].
      kernel: [kz, ky, kx, C / groups, F], output channels group by group.
      strides: (z, y, x).
      padding: "SAME" or "VALID".
      groups: a divisor of C and F; 1 is an ordinary convolution.

    Returns:
      [B, z', y', x', F].
    """
    merged = groups_together(groups, kernel.shape[-2])
    parts = groups // merged
    outputs = [
        tf.nn.conv3d(part, block_diagonal(part_kernel, merged), [1, *strides, 1], padding)
        for part, part_kernel in zip(tf.split(x, parts, axis=-1), tf.split(kernel, parts, axis=-1), strict=True)
    ]
    return tf.concat(outputs, axis=-1)


def groups_together(groups, width):
    """How many neighbouring groups of so many channels to convolve at once: the fewest that reach WIDTH."""
    divisors = [count for count in range(1, groups + 1) if groups % count == 0]
    return next((count for count in divisors if count * width >= WIDTH), groups)


def block_diagonal(kernel, groups):
    """The kernel of the ordinary convolution that does the same as a grouped one: zero between different groups.

    Args:
      kernel: [kz, ky, kx, C / groups, F], output channels group by group.
      groups: a divisor of C and F.

    Returns:
      [kz, ky, kx, C, F].
    """
    if groups == 1:
        return kernel
    inside, filters = kernel.shape[-2:]
    same_group = np.kron(np.eye(groups), np.ones((inside, filters // groups)))
    return tf.tile(kernel, [1, 1, 1, groups, 1]) * tf.constant(same_group, kernel.dtype)
