"""Variants of the tiny network, and truths that are hard, for the tests of the whole of it."""

import numpy as np
import tensorflow as tf

from tests import tiny

# All heads at once, in a cascade; what they learn is in `batch`.
EVERY_HEAD = {
    "data.attributes": ("volume", "unknown"),
    "model.keypoint_head.enabled": True,
    "model.box_head.cascade_ious": (0.3, 0.4, 0.5),
}


def config(overrides):
    """The tiny Config with some of its fields, named as on the command line, overridden; validated."""
    settings = tiny.config()
    for name, value in overrides.items():
        *sections, field = name.split(".")
        section = settings
        for part in sections:
            section = getattr(section, part)
        setattr(section, field, value)
    return settings.validate()


def batch(settings, seed=0):
    """`tiny.batch` as tensors, with attributes if the Config has some."""
    return as_tensors(with_attributes(tiny.batch(settings, seed), settings))


def with_attributes(truths, settings):
    """Truths whose first attribute is their volume; the others are known of every other one alone."""
    size = (truths["boxes"][..., 3:] - truths["boxes"][..., :3]).prod(-1)
    attributes = np.repeat(size[..., np.newaxis], len(settings.data.attributes), axis=-1)
    attributes[:, ::2, 1:] = np.nan
    return {**truths, "attributes": attributes.astype(np.float32)}


def as_tensors(arrays):
    """As a dataset gives them."""
    return {name: tf.convert_to_tensor(value) for name, value in arrays.items()}


def specs(truths):
    """Signature of a batch of any size."""
    return {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in truths.items()}


def crowd(settings, kind):
    """Two volumes with truths that are hard.

    Args:
      settings: a Config.
      kind: "none"; "one voxel", in a corner; "many", one voxel each, as many as there are slots; "touching" slabs
        that fill the patch.

    Returns:
      The batch, as tensors.
    """
    slots, shape = settings.input.max_instances, settings.input.patch_size
    ids = np.zeros(shape, np.int32)
    if kind == "one voxel":
        ids[-1, 0, -1] = 1
    elif kind == "many":
        ids.flat[: 2 * slots : 2] = np.arange(1, slots + 1)
    elif kind == "touching":
        ids[:] = 1 + np.arange(shape[2]) * slots // shape[2]
    ids = np.stack([ids, np.flip(ids, 2)])
    class_ids = np.tile(1 + np.arange(slots) % len(settings.data.classes), (2, 1))
    volume = (ids > 0)[..., np.newaxis] + np.random.default_rng(0).normal(0, 0.1, (*ids.shape, settings.input.channels))
    return as_tensors(with_attributes(tiny.truth(volume.astype(np.float32), ids, class_ids), settings))


def losses_and_gradients(model, truths, seed, **kwargs):
    """The losses of a batch, and the gradient of their sum by name of variable; None where there is none."""
    with tf.GradientTape() as tape:
        losses = model.compute_losses(truths, seed, **kwargs)
        total = tf.add_n([tf.reduce_mean(loss) for loss in losses.values()])
    variables = model.trainable_variables
    gradients = tape.gradient(total, variables)
    return losses, {v.name: g for v, g in zip(variables, gradients, strict=True)}


def randomize(model, seed):
    """Gives every variable numbers that are anything but small or symmetric, biases and offsets too."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        noise = rng.normal(0, 1, variable.shape)
        name = variable.name
        if "deltas" in name:
            value = 0.05 * noise
        elif "kernel" in name:
            value = noise * np.sqrt((1 if "logits" in name else 2) / np.prod(variable.shape[:-1]))
        else:
            value = variable.numpy() + 0.1 * noise
        variable.assign(value.astype(np.float32))


def check_detections(found, settings, batch_size):
    """Asserts that detections have their static shapes, and are ordered, padded, finite and inside the patch."""
    num, head = settings.model.detections.max_detections, settings.model.mask_head
    masks = [2 * size for size in head.answer_roi_size or head.roi_size]
    shapes = {
        "boxes": [num, 6],
        "scores": [num],
        "class_ids": [num],
        "masks": [num, *masks],
        "valid": [num],
        "num_detections": [],
    }
    if settings.data.attributes:
        shapes["attributes"] = [num, len(settings.data.attributes)]
    if settings.model.keypoint_head.enabled:
        shapes |= {"keypoints": [num, 7, 3], "keypoint_scores": [num, 7]}
    assert {name: value.shape.as_list() for name, value in found.items()} == {
        name: [batch_size, *shape] for name, shape in shapes.items()
    }
    if batch_size is None:
        return
    found = {name: value.numpy() for name, value in found.items()}
    valid, limit = found["valid"], np.array(settings.input.patch_size)
    np.testing.assert_array_equal(found["num_detections"], valid.sum(1))
    assert np.all(np.diff(valid.astype(int)) <= 0)
    assert np.all(np.diff(found["scores"]) <= 0)
    for name, value in found.items():
        assert np.all(np.isfinite(value)), name
        assert name in ("valid", "num_detections") or not value[~valid].any(), name
    assert np.all(found["scores"][valid] >= settings.model.detections.score_threshold)
    assert np.all(found["scores"] <= 1)
    assert set(found["class_ids"][valid]) <= set(range(1, len(settings.data.classes) + 1))
    lo, hi = found["boxes"][..., :3], found["boxes"][..., 3:]
    assert np.all((lo[valid] >= 0) & (lo[valid] < hi[valid]) & (hi[valid] <= limit))
    assert np.all((found["masks"] >= 0) & (found["masks"] <= 1))
    if "keypoints" in found:  # read in the boxes of the head, which boxes by masks lie across
        if settings.model.detections.boxes == "masks":
            lo, hi = np.zeros_like(lo), np.broadcast_to(limit, hi.shape)
        inside = (found["keypoints"] >= lo[:, :, np.newaxis]) & (found["keypoints"] <= hi[:, :, np.newaxis])
        assert np.all(inside[valid])
