"""What a network finds in fixed patches, against their truth."""

import numpy as np
import tensorflow as tf

from evaluation import matching, metrics

MIN_SCORE = 0.5  # detections that score less do not count


def find(detect, examples):
    """What a network says of every example, one at a time: list of dicts of arrays without the axis of the batch."""
    found = []
    for row in range(len(examples["volume"])):
        said = detect(tf.constant(examples["volume"][row : row + 1]))
        found.append({name: value[0].numpy() for name, value in said.items()})
    return found


def match(found, examples, mask_threshold, min_score=0.0):
    """The metrics.VolumeMatch of every example, of detections with at least this score.

    Args:
      found: from `find`.
      examples: dict of arrays, a batch of data/pipeline.
      mask_threshold: a voxel belongs to a detection where its mask is at least this.
      min_score: in [0, 1].
    """
    matches = []
    for row, said in enumerate(found):
        count = int(np.sum(said["valid"] & (said["scores"] >= min_score)))  # the first ones: best first
        told = {name: tf.constant(said[name]) for name in ("boxes", "masks", "scores", "class_ids")}
        valid = examples["valid"][row]  # the first slots
        truth = {"instance_ids": examples["instance_ids"][row]}
        truth |= {name: examples[name][row][valid] for name in ("boxes", "class_ids")}
        matches.append(matching.match_volume({**told, "num_detections": count}, truth, mask_threshold))
    return matches


def mask_ious(volume):
    """Of every truth, the mask IoU of the detection of its class that is its own: [G] float, 0 where there is none."""
    right = np.where(volume.class_ids[:, None] == volume.gt_class_ids, volume.mask_iou, 0.0)
    truths = metrics.greedy_match(right, volume.scores, 1e-6)
    ious = np.zeros(len(volume.gt_class_ids))
    taken = np.flatnonzero(truths >= 0)
    ious[truths[taken]] = right[taken, truths[taken]]
    return ious
