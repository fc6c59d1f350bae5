"""Cascade R-CNN (Cai and Vasconcelos 2018): box heads in a row, each trained on the boxes of the one before."""

import tensorflow as tf

from model.box_head import select_deltas
from ops import boxes as box_ops


def stage_weights(delta_weights, stage):
    """Delta weights of a stage, counted from 0: the later, the smaller the deltas, so 10, 20, 30 as in the paper."""
    return tuple(weight * (stage + 1) for weight in delta_weights)


def refine(deltas, rois, logits, *, delta_weights, shape):
    """Rois of the next stage: the box that this stage gives its best class, background aside.

    Args:
      deltas: [B, R, K, 6] float32, or [B, R, 1, 6] for all classes.
      rois: [B, R, 6] float32, voxels.
      logits: [B, R, K + 1] float32.
      delta_weights: six numbers, of this stage.
      shape: (Z, Y, X) of the volume; boxes are cut at its border.

    Returns:
      [B, R, 6] float32, voxels, without gradient. An empty roi, padding too, becomes or remains empty.
    """
    best = 1 + tf.argmax(logits[..., 1:], axis=-1, output_type=tf.int32)
    refined = box_ops.clip(box_ops.decode(select_deltas(deltas, best), rois, delta_weights), shape)
    is_empty = box_ops.volume(rois) <= 0.0  # decoding would give it a size
    return tf.stop_gradient(tf.where(is_empty[..., tf.newaxis], 0.0, refined))


def mean_probabilities(stages):
    """Class probabilities averaged over the stages: list of logits [B, R, K + 1] -> [B, R, K + 1] float32."""
    return tf.add_n([tf.nn.softmax(logits) for logits in stages]) / len(stages)
