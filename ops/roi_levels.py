"""Which level of a feature pyramid each box reads."""

import numpy as np
import tensorflow as tf

from ops import checks


def roi_levels(boxes, *, num_levels, strides, canonical_size, canonical_level):
    """The pyramid level that each box reads (Lin et al. 2017, equation 1, with all three axes).

    A box of the canonical size reads the canonical level; one whose geometric-mean edge, measured in cells of that
    level, is twice as large reads the next level of twice the stride. Levels are compared by the geometric mean of
    their strides, so anisotropic pyramids need no special case.

    Args:
      boxes: [..., 6] float32, voxels.
      num_levels: L.
      strides: L (z, y, x) triples, finest first.
      canonical_size: (z, y, x) voxels.
      canonical_level: index into strides.

    Returns:
      [...] int32 in [0, L); 0 for empty boxes.

    Raises:
      ValueError: if the last axis is not 6, the type is another, there are not L strides, the level is none of them, or
        a size is not positive.
    """
    checks.shapes("boxes [..., 6]", boxes)
    boxes = checks.float32("boxes", boxes)
    if len(strides) != num_levels:
        raise ValueError(f"expected one stride for each of {num_levels} levels, came {len(strides)}")
    strides = [checks.triple("stride", stride) for stride in strides]
    canonical_size = checks.triple("canonical_size", canonical_size)
    checks.within("canonical_level", canonical_level, 0, num_levels - 1)

    relative = tf.maximum(boxes[..., 3:] - boxes[..., :3], 0.0) / tf.constant(canonical_size, tf.float32)
    growth = tf.reduce_prod(relative, axis=-1) ** (1 / 3)
    scales = np.prod(np.asarray(strides, np.float64), axis=1) ** (1 / 3)
    # Level l is left for the next one as soon as the box has grown by the ratio of that level's stride.
    borders = (scales[1:] / scales[canonical_level]).astype(np.float32)
    # A hair of tolerance, lest rounding of the cube root sends a box of exactly twice the size to the finer level.
    return tf.reduce_sum(tf.cast(growth[..., tf.newaxis] * (1 + 1e-5) >= borders, tf.int32), axis=-1)
