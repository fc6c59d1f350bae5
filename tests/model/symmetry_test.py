"""Nothing prefers an axis, or an end of one: the same network, turned with its input, gives the turned answer."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from ops import keypoints
from tests import tiny
from tests.model import networks

SEED = tf.constant([0, 1])
SETTINGS = networks.EVERY_HEAD | {
    "input.patch_size": (7, 16, 22),
    "model.style.activation": "prelu",
    "model.backbone.stem_kernel": (1, 3, 5),
    "model.backbone.stage_kernels": ((1, 3, 3), (3, 3, 1)),
    "model.backbone.stem_pool": (1, 1, 2),
    "model.backbone.stage_strides": ((1, 2, 1), (2, 1, 1)),
    "model.fpn.upsampling": "trilinear",
    "model.fpn.bottom_up": True,
    "model.fpn.extra": "conv",
    "model.fpn.extra_stride": (1, 2, 3),
    "model.anchors.sizes": (((3.0, 4.0, 5.0), 4.0), ((5.0, 8.0, 10.0), 7.0), ((7.0, 14.0, 18.0), 12.0)),
    "model.anchors.aspects": ((1.0, 1.0, 1.0), (1.0, 1.5, 0.7)),
    "model.box_head.delta_weights": (10.0, 9.0, 8.0, 5.0, 4.0, 3.0),
    "model.detections.score_threshold": 0.01,
    # No two boxes of whole voxels overlap by exactly as much, which rounding would decide.
    "model.rpn.positive_iou": 0.4137,
    "model.rpn.negative_iou": 0.2137,
    "model.rois.positive_iou": 0.4137,
    "model.rois.negative_iou": 0.3137,
    # So many that none is left out by chance.
    "model.rpn.num_samples": 20000,
    "model.rois.num_samples": 80,
}
TRIPLES = (
    "input.patch_size",
    "model.backbone.stem_kernel",
    "model.backbone.stem_stride",
    "model.backbone.stem_pool",
    "model.fpn.extra_stride",
    "model.rois.canonical_size",
    "model.box_head.roi_size",
    "model.mask_head.roi_size",
    "model.keypoint_head.roi_size",
    "inference.overlap",
)
LISTS_OF_TRIPLES = ("model.backbone.stage_kernels", "model.backbone.stage_strides", "model.anchors.aspects")


def read(settings, name):
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def permuted_config(settings, order):
    """The overrides that make a Config whose axis i is axis order[i] of this one."""

    def turn(triple):
        return tuple(triple[axis] for axis in order)

    changes = {name: turn(read(settings, name)) for name in TRIPLES}
    changes |= {name: tuple(map(turn, read(settings, name))) for name in LISTS_OF_TRIPLES}
    changes["model.anchors.sizes"] = tuple(
        tuple(turn(size) if isinstance(size, tuple) else size for size in level)
        for level in settings.model.anchors.sizes
    )
    weights = settings.model.box_head.delta_weights
    changes["model.box_head.delta_weights"] = turn(weights[:3]) + turn(weights[3:])
    return networks.config(SETTINGS | changes)


def transform_weights(source, target, settings, *, space, deltas, landmarks):
    """Gives `target` the weights of `source`, seen through a change of the axes.

    Args:
      source: MaskRCNN.
      target: another one.
      settings: the Config of `source`.
      space: turns an array [z, y, x, ...].
      deltas: turns an array [..., 6] that makes deltas.
      landmarks: the landmark of `source` that each one of `target` is, [N].
    """
    grids = {"box_head": settings.model.box_head.roi_size, "attribute_head": settings.model.box_head.roi_size}
    for old, new in zip(source.variables, target.variables, strict=True):
        assert old.name == new.name
        value = old.numpy()
        if value.ndim == 5:
            value = space(value)
        elif "/fc1/kernel" in old.name:  # reads the flattened grid [z, y, x, C] of a roi
            grid = next(size for head, size in grids.items() if head in old.name)
            value = space(value.reshape(*grid, -1, value.shape[-1])).reshape(value.shape)
        if "/deltas/" in old.name:
            value = deltas(value.reshape(*value.shape[:-1], -1, 6)).reshape(value.shape)
        if "keypoint_head/logits" in old.name:
            value = value[..., landmarks]
        new.assign(value)


def turned_truths(truths, *, space, boxes):
    """The batch of the turned volume."""
    turned = {name: value.numpy() for name, value in truths.items()}
    for name in ("volume", "instance_ids"):
        turned[name] = np.stack([space(volume) for volume in turned[name]])
    turned["boxes"] = np.where(turned["valid"][..., np.newaxis], boxes(turned["boxes"]), 0.0).astype(np.float32)
    return networks.as_tensors(turned)


def assert_same_detections(found, expected, *, space, boxes, points, landmarks):
    """Asserts that `expected`, turned, was found."""
    found, expected = ({name: value.numpy() for name, value in each.items()} for each in (found, expected))
    valid = expected["valid"]
    assert np.all(valid.sum(1) > 1)
    for name in ("valid", "num_detections", "class_ids"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    expected["boxes"] = boxes(expected["boxes"])
    expected["masks"] = np.stack([[space(mask) for mask in masks] for masks in expected["masks"]])
    expected["keypoints"] = points(expected["keypoints"])[:, :, landmarks]
    expected["keypoint_scores"] = expected["keypoint_scores"][:, :, landmarks]
    for name in ("scores", "boxes", "masks", "attributes", "keypoints", "keypoint_scores"):
        np.testing.assert_allclose(found[name][valid], expected[name][valid], rtol=1e-4, atol=1e-4, err_msg=name)
    assert expected["masks"][valid].std() > 0.05  # not blind to what is inside


class PermutedAxesTest:
    @pytest.mark.parametrize("order", [(2, 0, 1), pytest.param((1, 0, 2), marks=pytest.mark.slow)])
    def test_losses_are_equal_and_detections_permuted(self, order):
        settings = networks.config(SETTINGS)
        turned_settings = permuted_config(settings, order)
        model, turned = tiny.model(settings), tiny.model(turned_settings)
        networks.randomize(model, seed=1)
        sixfold = [*order, *(3 + axis for axis in order)]
        landmarks = [0, *(1 + 2 * axis + end for axis in order for end in range(2))]

        def space(array):
            return array.transpose(*order, *range(3, array.ndim))

        def boxes(array):
            return array[..., sixfold]

        transform_weights(model, turned, settings, space=space, deltas=boxes, landmarks=landmarks)
        truths = networks.batch(settings)
        turned_batch = turned_truths(truths, space=space, boxes=boxes)
        losses = turned.compute_losses(turned_batch, SEED)
        for name, value in model.compute_losses(truths, SEED).items():
            np.testing.assert_allclose(losses[name], value, rtol=1e-4, err_msg=name)
        assert_same_detections(
            turned(turned_batch["volume"]),
            model(truths["volume"]),
            space=space,
            boxes=boxes,
            points=lambda array: array[..., order],
            landmarks=landmarks,
        )

    def test_nothing_about_axes_is_left_out_of_the_permutation(self):
        settings = networks.config(SETTINGS)
        turned = permuted_config(permuted_config(settings, (1, 2, 0)), (2, 0, 1))
        assert dataclasses.asdict(turned) == dataclasses.asdict(settings)
        assert len({settings.input.patch_size, *(read(settings, name) for name in TRIPLES)}) > 4
        assert keypoints.KEYPOINTS == ("centroid", "z_min", "z_max", "y_min", "y_max", "x_min", "x_max")


class MirroredTest:
    """With strides of 1: where a window is centred on every second voxel, the two ends of an axis differ."""

    SETTINGS = SETTINGS | {
        "input.patch_size": (6, 9, 13),
        "model.backbone.stem_stride": (1, 1, 1),
        "model.backbone.stem_pool": (1, 1, 1),
        "model.backbone.stage_strides": ((1, 1, 1), (1, 1, 1)),
        "model.fpn.extra": "none",
        "model.anchors.sizes": (((3.0, 4.0, 5.0), 4.0), ((5.0, 8.0, 10.0), 7.0)),
        "inference.overlap": (2, 4, 6),
    }

    @pytest.mark.parametrize("axes", [(0, 1, 2), *(pytest.param((axis,), marks=pytest.mark.slow) for axis in range(3))])
    def test_detections_are_mirrored(self, axes):
        settings = networks.config(self.SETTINGS)
        shape = np.array(settings.input.patch_size)
        model, turned = tiny.model(settings), tiny.model(settings)
        networks.randomize(model, seed=1)
        is_mirrored = np.isin(np.arange(3), axes)
        sign = np.where(np.isin(np.arange(6), axes), -1.0, 1.0).astype(np.float32)
        landmarks = np.arange(7)
        for axis in axes:  # the two ends change places
            landmarks[1 + 2 * axis : 3 + 2 * axis] = 2 + 2 * axis, 1 + 2 * axis

        def space(array):
            return np.flip(array, axes)

        def points(array):
            return np.where(is_mirrored, shape - array, array)

        def boxes(array):
            lo, hi = points(array[..., :3]), points(array[..., 3:])
            return np.concatenate([np.minimum(lo, hi), np.maximum(lo, hi)], -1)

        transform_weights(model, turned, settings, space=space, deltas=lambda array: array * sign, landmarks=landmarks)
        truths = networks.batch(settings)
        turned_batch = turned_truths(truths, space=space, boxes=boxes)
        assert_same_detections(
            turned(turned_batch["volume"]),
            model(truths["volume"]),
            space=space,
            boxes=boxes,
            points=points,
            landmarks=landmarks,
        )
        # Of masks and landmarks a target is the bin that holds a place: between two bins it is the right one.
        losses = turned.compute_losses(turned_batch, SEED)
        for name, value in model.compute_losses(truths, SEED).items():
            if name not in ("mask", "mask_dice", "keypoint"):
                np.testing.assert_allclose(losses[name], value, rtol=1e-4, err_msg=name)
