"""Every head, loss and form of training learns a few volumes by heart. Minutes each."""

import numpy as np
import pytest
import tensorflow as tf

from configs import training_forms
from ops import boxes as box_ops
from tests import tiny
from tests.model import networks
from tests.model.whole_network_test import ANCHORS, BOTTLENECK, PLAIN
from training import optimizers, stages

# So that it can: the tiny network has masks of 4 x 6 x 8 bins for objects of 2 x 6 x 9 voxels.
LARGER = {
    "model.fpn.channels": 16,
    "model.rpn.channels": 16,
    "model.rpn.num_samples": 256,
    "model.rois.num_samples": 24,
    "model.box_head.channels": 16,
    "model.box_head.hidden": 64,
    "model.mask_head.channels": 16,
    "model.mask_head.roi_size": (4, 6, 8),
    "train.batch_size": 1,
    "train.warmup_steps": 50,
    "train.weight_decay": 0.0,
}
BATCH_NORM = "trilinear, bottom up, extra level, batch norm"
NETWORKS = {
    "default": {},
    "plain": PLAIN,
    "cascade, GIoU": {
        "model.box_head.cascade_ious": (0.3, 0.4, 0.5),
        "model.rpn.box_loss": "giou",
        "model.box_head.box_loss": "giou",
    },
    "ATSS, focal": {
        "model.rpn.assignment": "atss",
        "model.rpn.class_loss": "focal",
        "model.rpn.num_samples": 2000,
        "model.box_head.class_loss": "focal",
        "model.mask_head.losses": ("focal",),
    },
    "ResNeXt, instance norm": BOTTLENECK | {"model.backbone.cardinality": 2, "model.style.norm": "instance"},
    "inner anchors, stochastic depth": {"model.rpn.cross_boundary": False, "model.backbone.stochastic_depth": 0.3},
    "every head, agnostic": {
        "model.box_head.class_agnostic": True,
        "model.mask_head.class_agnostic": True,
        "data.attributes": ("volume", "unknown"),
        "model.keypoint_head.enabled": True,
    },
    "softmax, hard negatives, DIoU, CIoU, soft-NMS, linear attributes": {
        "model.rpn.objectness": "softmax",
        "model.rpn.sampling": "hard_negative",
        "model.rpn.box_loss": "diou",
        "model.box_head.box_loss": "ciou",
        "model.detections.suppression": "soft_gaussian",
        "data.attributes": ("volume",),
        "model.attribute_head.scale": "linear",
        "train.loss_weights.attribute": 0.01,  # volumes are about 100
    },
    BATCH_NORM: {
        "model.fpn.upsampling": "trilinear",
        "model.fpn.bottom_up": True,
        "model.fpn.extra": "conv",
        "model.anchors.sizes": ANCHORS,
        "model.style.norm": "batch",
    },
}
# A backbone with the C4 from which on the second stage trains.
THREE_STAGES = {
    "model.backbone.stage_channels": (8, 16, 16),
    "model.backbone.stage_blocks": (1, 1, 1),
    "model.backbone.stage_kernels": ((3, 3, 3),) * 3,
    "model.backbone.stage_strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    "model.fpn.levels": (2, 3, 4),
    "model.anchors.sizes": ANCHORS,
}


def forms(steps, rate):
    """Settings by name: every network trained jointly for so many steps, and the default one in the other ways."""
    in_stages = {
        # Proposals of one volume that another network has learnt by heart are few: each of them gets an answer.
        "alternating": {
            "train.stages": training_forms.alternating(steps // 2, rate),
            "model.rois.negative_iou": networks.config({}).model.rois.positive_iou,
        },
        "pretrained": {
            "train.stages": training_forms.pretrained(steps // 8, steps, rate),
            "train.classifier_crop": (4, 8, 12),
        },
        "unfreezing": THREE_STAGES
        | {"train.stages": training_forms.unfreezing((steps // 8, steps // 8, steps), (rate,) * 3)},
    }
    jointly = {"train.steps": steps, "train.learning_rate": rate}
    return {name: jointly | settings for name, settings in (NETWORKS | in_stages).items()}


def volumes(settings, count):
    """So many volumes of ellipsoids, in batches of one volume."""
    for seed in range(count):
        drawn = tiny.batch(settings, seed, num_objects=(3,))
        volume, ids = drawn["volume"], drawn["instance_ids"]
        for slot in np.flatnonzero(drawn["valid"][0]):
            lo, hi = np.split(drawn["boxes"][0, slot, :, np.newaxis, np.newaxis, np.newaxis], 2)
            radius = np.sum(np.square((np.indices(ids.shape[1:]) + 0.5 - lo) * 2 / (hi - lo) - 1), axis=0)
            corners = (ids[0] == slot + 1) & (radius > 1.1)
            volume[0, corners] -= volume[0, corners].round()
            ids[0, corners] = 0
        truths = tiny.truth(volume, ids, drawn["class_ids"])
        yield networks.as_tensors(networks.with_attributes(truths, settings))


def mask_ious(model, truths):
    """IoU of every truth with that detection of its class whose box overlaps its own most, painted as nearest bins."""
    found = {name: value[0].numpy() for name, value in model(truths["volume"]).items()}
    ids = truths["instance_ids"][0].numpy()
    ious = []
    for slot in np.flatnonzero(truths["valid"][0]):
        overlap = box_ops.iou_matrix(truths["boxes"][0, slot][tf.newaxis], found["boxes"])[0].numpy()
        is_right = found["class_ids"] == truths["class_ids"][0, slot].numpy()
        best = np.argmax(overlap * is_right)
        lo, hi = found["boxes"][best, :3], found["boxes"][best, 3:]
        mask = found["masks"][best]
        where = np.stack(np.meshgrid(*(np.arange(size) + 0.5 for size in ids.shape), indexing="ij"), -1)
        share = (where - lo) / np.maximum(hi - lo, 1e-3)
        inside = np.all((share >= 0) & (share < 1), axis=-1)
        index = np.clip((share * mask.shape).astype(int), 0, np.array(mask.shape) - 1)
        painted = is_right[best] & inside & (mask[tuple(np.moveaxis(index, -1, 0))] > 0.5)
        truth = ids == slot + 1
        ious.append((painted & truth).sum() / (painted | truth).sum())
    return ious


def make_mean_losses(model, truths, weights, draws=20):
    """f() -> {name: loss of joint training times its weight}, averaged over volumes and draws."""

    @tf.function
    def weighted(batch, seed):
        losses = model.compute_losses(batch, seed)
        return {name: getattr(weights, name) * tf.reduce_mean(loss) for name, loss in losses.items()}

    def mean_losses():
        drawn = [weighted(each, tf.constant([7, draw])) for each in truths for draw in range(draws)]
        return {name: np.mean([losses[name] for losses in drawn]) for name in drawn[0]}

    return mean_losses


def learn(overrides, count, workdir):
    """Trains on so many volumes as train_main does; the losses before and after, and the IoU of every mask."""
    tf.keras.utils.set_random_seed(1)
    settings = networks.config(LARGER | overrides)
    settings.train.steps_per_loop = settings.train.checkpoint_steps = stages.last_step(settings.train)
    model, optimizer = tiny.model(settings), optimizers.make(settings.train)
    optimizer.build(model.trainable_variables)
    truths = list(volumes(settings, count))
    mean_losses = make_mean_losses(model, truths, settings.train.loss_weights)
    before = mean_losses()
    together = {name: tf.concat([each[name] for each in truths], 0) for name in truths[0]}
    stages.train(
        settings,
        workdir,
        tf.distribute.get_strategy(),
        model,
        optimizer,
        iter(tf.data.Dataset.from_tensor_slices(together).repeat().batch(1)),
        on_log=lambda *_: None,
        on_checkpoint=lambda _: None,
    )
    return before, mean_losses(), [iou for each in truths for iou in mask_ious(model, each)]


@pytest.mark.slow
class OverfitTest:
    @pytest.mark.parametrize("form", forms(1, 1.0))
    @pytest.mark.parametrize(("count", "steps", "rate"), [(1, 2000, 5e-3), (5, 3000, 2e-3)])
    def test_volumes_are_learnt_by_heart(self, form, count, steps, rate, tmp_path):
        before, after, ious = learn(forms(steps, rate)[form], count, tmp_path)
        told = "\n".join(f"{name:10} {before[name]:.3f} -> {after[name]:.3f}" for name in before)
        told += f"\nIoU of every object: {np.round(ious, 2)}"
        assert sum(after.values()) < sum(before.values()) / 20, told
        assert np.mean(ious) >= 0.9, told
        # Batch normalisation: in training the statistics are those of one volume, in answers those of all.
        assert count == 1 or form == BATCH_NORM or min(ious) >= 0.9, told
