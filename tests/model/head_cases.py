"""What every head is tested on, and by."""

import numpy as np
import pytest
import tensorflow as tf

from configs import model_schema

POOLED = (2, 5, 2, 3, 4, 7)  # B, R, z, y, x, C
PLAIN = model_schema.Style(norm="none")
GROUP = model_schema.Style(norm="group", norm_groups=2)
PRELU = model_schema.Style(norm="none", activation="prelu")


def pooled(seed=0):
    """Features of the rois."""
    return np.random.default_rng(seed).normal(size=POOLED).astype(np.float32)


def silent_weights(head):
    """Names of the weights that no gradient reaches when every output counts."""
    rng = np.random.default_rng(1)
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(head(pooled(), training=True))
        total = tf.add_n([tf.reduce_sum(output * rng.normal(size=output.shape)) for output in outputs])
    gradients = tape.gradient(total, head.trainable_weights)
    assert len(gradients) > 0
    named = zip(head.trainable_weights, gradients, strict=True)
    return [weight.name for weight, gradient in named if gradient is None or not np.any(gradient)]


def assert_half_precision_answers_in_float32(make):
    """Under the policy mixed_float16 the head computes in half and answers in float32, near what it says in float32."""
    reference = make()
    expected = tf.nest.flatten(reference(pooled()))
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        head = make()
        outputs = tf.nest.flatten(head(pooled()))
        head.set_weights(reference.get_weights())
        outputs = tf.nest.flatten(head(pooled()))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert head.compute_dtype == "float16"
    assert all(weight.dtype == tf.float32 for weight in head.weights)
    for output, truth in zip(outputs, expected, strict=True):
        assert output.dtype == tf.float32
        assert not np.array_equal(output, truth)
        np.testing.assert_allclose(output, truth, atol=0.02 * np.abs(truth).max())


def assert_permuted_axes_permute_the_answer(head, axes, leading):
    """A convolutional head with permuted kernels says of permuted rois what it said, permuted.

    Args:
      head: built or not.
      axes: as np.transpose takes them.
      leading: how many axes of the answer come before z, y, x.
    """
    expected = head(pooled()).numpy()
    weights = head.get_weights()
    head.set_weights([np.transpose(w, (*axes, 3, 4)) if w.ndim == 5 else w for w in weights])
    turned = head(np.transpose(pooled(), (0, 1, *(a + 2 for a in axes), 5)))
    head.set_weights(weights)
    order = [*range(leading), *(a + leading for a in axes), *range(leading + 3, expected.ndim)]
    np.testing.assert_allclose(turned, np.transpose(expected, order), atol=1e-5)


PERMUTATIONS = pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
