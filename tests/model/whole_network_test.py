"""Every setting of the network, one change at a time: it learns and it answers."""

import numpy as np
import pytest
import tensorflow as tf

from configs.model_schema import NORMS
from tests import tiny
from tests.model import networks

SEED = tf.constant([0, 1])
PLAIN = {
    "model.backbone.kind": "plain",
    "model.backbone.stage_channels": (8, 8, 16),
    "model.backbone.stage_blocks": (1, 1, 1),
    "model.backbone.stage_kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "model.backbone.stage_strides": ((1, 2, 2), (1, 1, 1), (2, 2, 2)),
}
BOTTLENECK = {"model.backbone.block": "bottleneck", "model.backbone.bottleneck_ratio": 2}
ANCHORS = (((3.0, 4.0, 5.0),), ((5.0, 8.0, 10.0),), ((8.0, 14.0, 18.0),))
# The changes of each part of a config. Parts do not know of each other, so one network takes one change of every part.
CHANGES = {
    "style": {
        **{f"{name} norm": {"model.style.norm": name} for name in NORMS if name != "group"},
        "leaky ReLU": {"model.style.activation": "leaky_relu"},
        "PReLU": {"model.style.activation": "prelu"},
        "L2": {"model.style.l2": 1e-4},
    },
    "backbone": {
        "bottleneck": BOTTLENECK,
        "strided pointwise": BOTTLENECK | {"model.backbone.stride_in_pointwise": True},
        "ResNeXt": BOTTLENECK | {"model.backbone.cardinality": 2},
        "plain": PLAIN,
        "stem pool": {"model.backbone.stem_pool": (1, 2, 2)},
        "half the width": {"model.backbone.width_multiplier": 0.5},
        "channel dropout": {"model.backbone.dropout": 0.3},
        "stochastic depth": {"model.backbone.stochastic_depth": 0.3},
    },
    "fpn": {
        "extra by pooling": {"model.fpn.extra": "pool", "model.anchors.sizes": ANCHORS},
        "extra by convolution": {
            "model.fpn.extra": "conv",
            "model.fpn.extra_stride": (1, 2, 2),
            "model.anchors.sizes": ANCHORS,
        },
        "trilinear": {"model.fpn.upsampling": "trilinear"},
        "bottom up": {"model.fpn.bottom_up": True},
        "three levels": {"model.fpn.levels": (1, 2, 3), "model.anchors.sizes": ANCHORS},
        "one level": {"model.fpn.levels": (3,), "model.anchors.sizes": ANCHORS[1:2]},
        "aspects": {"model.anchors.aspects": ((1.0, 1.0, 1.0), (1.0, 2.0, 0.5))},
    },
    "rpn": {
        "softmax": {"model.rpn.objectness": "softmax"},
        "softmax focal": {"model.rpn.objectness": "softmax", "model.rpn.class_loss": "focal"},
        "focal anchors": {"model.rpn.class_loss": "focal", "model.rpn.num_samples": 0},
        **{f"{loss} anchors": {"model.rpn.box_loss": loss} for loss in ("giou", "diou", "ciou")},
        "ATSS": {"model.rpn.assignment": "atss"},
        "hard negatives": {"model.rpn.sampling": "hard_negative"},
        "inner anchors": {"model.rpn.cross_boundary": False},
        "inner ATSS": {"model.rpn.cross_boundary": False, "model.rpn.assignment": "atss"},
    },
    "box_head": {
        "one box": {"model.box_head.class_agnostic": True},
        "class weights": {"model.box_head.class_weights": (0.5, 1.0, 2.0)},
        "cascade": {"model.box_head.cascade_ious": (0.3, 0.4, 0.5)},
        "cascade of one box": {"model.box_head.cascade_ious": (0.3, 0.4), "model.box_head.class_agnostic": True},
        "dense": {"model.box_head.num_convs": 0, "model.box_head.num_dense": 2},
        "no dense": {"model.box_head.num_dense": 0},
        "dropout": {"model.box_head.dropout": 0.3},
        "focal rois": {"model.box_head.class_loss": "focal"},
        "boxes that read voxels": {"model.box_head.reads_voxels": True},
        **{f"{loss} rois": {"model.box_head.box_loss": loss} for loss in ("giou", "diou", "ciou")},
    },
    "heads": {
        "one mask": {"model.mask_head.class_agnostic": True},
        "fine masks": {"model.mask_head.fine_channels": 3},
        "segmentation": {"model.segmentation.channels": 4, "model.mask_head.fine_channels": 3},
        "focal masks": {"model.mask_head.losses": ("focal", "dice")},
        "attributes": {"data.attributes": ("volume", "unknown")},
        "keypoints": {"model.keypoint_head.enabled": True},
        "linear attributes": {"data.attributes": ("volume",), "model.attribute_head.scale": "linear"},
        "linear sums": {"data.attributes": ("volume",), "model.attribute_head.sums": "linear"},
        "sinh sums": {
            "data.attributes": ("volume", "unknown"),
            "model.attribute_head.sums": "sinh",
            "input.normalization": "none",
        },
        "sums by layer": {
            "data.attributes": ("volume", "unknown"),
            "model.attribute_head.sums": "linear",
            "model.attribute_head.sums_by_layer": True,
            "input.flip_axes": (False, True, True),
            "input.rotate_planes": (),
        },
        "all": {"data.attributes": ("volume", "unknown"), "model.keypoint_head.enabled": True},
        # Untrained proposals overlap little.
        "no truths as rois": {
            "model.rois.add_truths": False,
            "model.rois.positive_iou": 0.01,
            "model.rois.negative_iou": 0.01,
        },
    },
    "rest": {
        "linear soft-NMS": {"model.detections.suppression": "soft_linear"},
        "boxes by masks": {"model.detections.boxes": "masks"},
        "finer masks beyond boxes": {
            "model.detections.boxes": "masks",
            "model.mask_head.margin": (1, 2, 0),
            "model.mask_head.answer_roi_size": (3, 5, 4),
        },
        "odd patch": {"input.patch_size": (7, 15, 21)},
        "Gaussian soft-NMS": {"model.detections.suppression": "soft_gaussian"},
        "three channels": {"input.channels": 3},
        "as it is": {},
    },
}


def together(number):
    """One change of every part, as `pytest.param`; the lists of parts begin anew where they end."""
    chosen = [list(changes.items())[number % len(changes)] for changes in CHANGES.values()]
    overrides = {field: value for _, change in chosen for field, value in change.items()}
    return pytest.param(overrides, id=", ".join(name for name, _ in chosen))


# One of everything that branches: a graph has to know its shapes, whatever the size of the batch.
BRANCHES = {
    **PLAIN,
    "model.style.norm": "instance",
    "model.style.l2": 1e-4,
    "model.fpn.extra": "pool",
    "model.anchors.sizes": ANCHORS,
    "model.rpn.objectness": "softmax",
    "model.rpn.sampling": "hard_negative",
    "model.rpn.cross_boundary": False,
    "model.rpn.assignment": "atss",
    "model.box_head.box_loss": "giou",
    "model.box_head.class_agnostic": True,
    "model.box_head.reads_voxels": True,
    "model.mask_head.class_agnostic": True,
    "model.mask_head.fine_channels": 3,
    "model.mask_head.answer_roi_size": (3, 5, 4),
    "model.segmentation.channels": 4,
    "model.detections.suppression": "soft_gaussian",
    "model.detections.boxes": "masks",
}


class EverySettingTest:
    @pytest.mark.parametrize("overrides", [together(i) for i in range(max(len(c) for c in CHANGES.values()))])
    def test_it_learns_and_answers(self, overrides):
        tf.keras.utils.set_random_seed(0)
        settings = networks.config(overrides)
        model, truths = tiny.model(settings), networks.batch(settings)
        losses, gradients = networks.losses_and_gradients(model, truths, SEED)
        assert list(losses) == model.loss_names()
        for loss, values in losses.items():
            assert values.shape == (2,)
            assert np.all(np.isfinite(values) & (values.numpy() > 0.0)), loss
        assert [variable for variable, gradient in gradients.items() if gradient is None] == []
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())
        found = model(truths["volume"])
        networks.check_detections(found, settings, 2)
        assert np.all(found["num_detections"] > 0)

    def test_levels_that_the_pyramid_does_not_read_are_not_made(self):
        overrides = {"model.fpn.levels": (2,), "model.anchors.sizes": ANCHORS[:1]}
        settings = networks.config(overrides)
        model, truths = tiny.model(settings), networks.batch(settings)
        losses, gradients = networks.losses_and_gradients(model, truths, SEED)
        assert all(np.all(np.isfinite(values)) for values in losses.values())
        assert any("/c2_0/" in variable.name for variable in model.variables)
        assert not any("/c3_0/" in variable.name for variable in model.variables)
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        networks.check_detections(model(truths["volume"]), settings, 2)


class FocalTest:
    @pytest.mark.parametrize("objectness", ["sigmoid", "softmax"])
    def test_the_many_anchors_without_objects_do_not_outweigh_the_few(self, objectness):
        tf.keras.utils.set_random_seed(0)
        overrides = {"model.rpn.class_loss": "focal", "model.rpn.num_samples": 0, "model.rpn.objectness": objectness}
        settings = networks.config(overrides)
        found = tiny.model(settings).compute_losses(networks.batch(settings), SEED, learns=("rpn",))["rpn_class"]
        # Of a positive anchor 0.25 (1 - 0.01) ** 2 log(100); with scores of 0.5 the negatives make it 4 to 10.
        np.testing.assert_allclose(found, [1.13, 1.13], rtol=0.1)


class GraphTest:
    @pytest.mark.parametrize(
        "overrides",
        [
            pytest.param(BRANCHES, id="one of everything"),
            pytest.param(networks.EVERY_HEAD, id="every head", marks=pytest.mark.slow),
        ],
    )
    def test_a_graph_for_batches_of_any_size_says_the_same(self, overrides):
        tf.keras.utils.set_random_seed(0)
        settings = networks.config(overrides)
        model, truths = tiny.model(settings), networks.batch(settings)
        signature = networks.specs(truths)
        losses = tf.function(model.compute_losses, input_signature=[signature, tf.TensorSpec([2], tf.int32)])
        compiled, eager = losses(truths, SEED), model.compute_losses(truths, SEED)
        for loss, values in eager.items():
            np.testing.assert_allclose(compiled[loss], values, rtol=1e-3, err_msg=loss)
        detect = tf.function(model, input_signature=[signature["volume"]])
        networks.check_detections(detect.get_concrete_function().structured_outputs, settings, None)
        networks.check_detections(detect(truths["volume"]), settings, 2)
