import math

import numpy as np
import pytest
import tensorflow as tf

from configs import model_schema
from model import losses
from model.segmentation import Segmentation
from tests import reference, tiny
from tests.model import networks

STYLE = model_schema.Style(norm_groups=2)
STRIDES = [(2, 4, 6), (1, 2, 3), (1, 1, 1)]
SHAPE = (4, 8, 12)


def make(strides=STRIDES, upsampling="nearest"):
    tf.keras.utils.set_random_seed(0)
    return Segmentation(num_classes=3, channels=4, strides=strides, upsampling=upsampling, style=STYLE)


def inputs(strides=STRIDES, shape=SHAPE, widths=(6, 5, 1)):
    rng = np.random.default_rng(0)
    grids = [[-(-edge // step) for edge, step in zip(shape, stride, strict=True)] for stride in strides]
    return [rng.normal(size=(2, *grid, width)).astype(np.float32) for grid, width in zip(grids, widths, strict=True)]


class SegmentationTest:
    @pytest.mark.parametrize("upsampling", ["nearest", "trilinear"])
    @pytest.mark.parametrize("shape", [SHAPE, (3, 7, 11)], ids=["whole cells", "odd"])
    def test_goes_down_to_the_voxels_of_the_volume(self, shape, upsampling):
        coarse, *finer = inputs(shape=shape)
        features, maps = make(upsampling=upsampling)(coarse, finer)
        assert features.shape == (2, *shape, 4)
        assert maps.shape == (2, *shape, 3)
        assert maps.dtype == tf.float32

    def test_reads_every_grid(self):
        coarse, *finer = map(tf.constant, inputs())
        layer = make()
        with tf.GradientTape() as tape:
            tape.watch([coarse, *finer])
            _, maps = layer(coarse, finer, training=True)
            loss = tf.reduce_sum(maps**2)
        assert all(np.any(gradient) for gradient in tape.gradient(loss, [coarse, *finer]))

    def test_a_voxel_of_the_volume_is_seen_where_it_is(self):
        coarse, *finer = inputs()
        layer = make()
        layer.smooth[-1].norm = tf.keras.layers.Activation("linear")  # whose moments see all voxels
        before = layer(coarse, finer)[0].numpy()
        finer[-1][1, 2, 4, 6] += 1.0
        changed = np.argwhere((layer(coarse, finer)[0].numpy() != before).any(axis=-1))
        np.testing.assert_array_equal(changed.min(axis=0), [1, 0, 2, 4])  # two convolutions of 3 voxels
        np.testing.assert_array_equal(changed.max(axis=0), [1, 3, 6, 8])

    def test_a_voxel_is_background_to_begin_with(self):
        coarse, *finer = inputs()
        np.testing.assert_allclose(tf.sigmoid(make()(coarse, finer)[1]), 0.05, atol=0.01)


class FinerGridsTest:
    @pytest.mark.parametrize(
        ("backbone", "levels", "expected"),
        [
            ({"stem_stride": (2, 2, 2)}, (2, 3), ([1], [(4, 4, 4), (2, 2, 2), (1, 1, 1)])),
            ({"stem_stride": (1, 2, 2)}, (1, 2), ([], [(1, 2, 2), (1, 1, 1)])),
            ({"stem_stride": (1, 1, 1)}, (2, 3), ([1], [(2, 2, 2), (1, 1, 1)])),
            ({"stem_stride": (1, 1, 1)}, (3, 4), ([2, 1], [(4, 4, 4), (2, 2, 2), (1, 1, 1)])),
            ({"stem_stride": (1, 1, 1)}, (1, 2), ([], [(1, 1, 1), (1, 1, 1)])),
        ],
    )
    def test_hand_values(self, backbone, levels, expected):
        model = model_schema.Model(backbone=model_schema.Backbone(**backbone), fpn=model_schema.FPN(levels=levels))
        assert model.finer_grids() == expected


class LossesTest:
    def test_hand_values(self):
        # One of eight voxels is of class 1; class 2 does not occur. All logits 0: p = 1/2.
        ids, class_ids = np.zeros((1, 1, 2, 4), np.int32), np.int32([[1, 0]])
        ids[0, 0, 1, 2] = 1
        found = losses.segmentation_losses(np.zeros((1, 1, 2, 4, 2), np.float32), ids, class_ids)
        np.testing.assert_allclose(found["segmentation"], [math.log(2)], rtol=1e-6)
        np.testing.assert_allclose(found["segmentation_dice"], [1 - (2 * 0.5 + 1) / (4 + 1 + 1)], rtol=1e-6)

    def test_equal_reference(self):
        rng = np.random.default_rng(1)
        maps, ids = rng.normal(size=(2, 3, 4, 5, 3)).astype(np.float32), rng.integers(0, 4, (2, 3, 4, 5))
        class_ids = np.int32([[2, 1, 2], [3, 3, 0]])
        classes = np.stack([np.concatenate([[0], row])[own] for row, own in zip(class_ids, ids, strict=True)])
        targets = np.stack([classes == k for k in (1, 2, 3)], axis=1).astype(np.float32)
        occurs = np.array([[True, True, False], [False, False, True]])
        found = losses.segmentation_losses(maps, ids.astype(np.int32), class_ids)
        maps = maps.transpose(0, 4, 1, 2, 3)
        expected = reference.mask_cross_entropy(maps, targets, np.ones_like(occurs))
        np.testing.assert_allclose(found["segmentation"], expected, rtol=1e-5)
        np.testing.assert_allclose(found["segmentation_dice"], reference.dice(maps, targets, occurs), rtol=1e-5)

    def test_an_empty_volume_is_all_background(self):
        ids, class_ids = np.zeros((1, 3, 4, 5), np.int32), np.zeros((1, 2), np.int32)
        found = losses.segmentation_losses(np.full((1, 3, 4, 5, 2), -20.0, np.float32), ids, class_ids)
        assert found["segmentation"][0] < 1e-6
        assert found["segmentation_dice"][0] == 0.0


class NetworkTest:
    def test_masks_read_its_features_beside_the_volume(self, monkeypatch):
        settings = networks.config({"model.segmentation.channels": 4, "model.mask_head.fine_channels": 3})
        model, seen = tiny.model(settings), []
        truths = networks.batch(settings)
        monkeypatch.setattr(model, "mask_head", lambda pooled, fine, training: seen.append(fine))
        found = model._look(truths["volume"], training=False)
        assert found.maps.shape == (2, *model.patch_size, 2)
        model._masks(found, np.float32([[[1, 2, 3, 5, 8, 11]]] * 2), (2, 3, 4), training=False)
        assert seen[0].shape == (2, 1, 4, 6, 8, 1 + 4)

    @pytest.mark.parametrize("channels", [0, 4])
    def test_boxes_read_the_volume_and_its_features(self, channels):
        overrides = {"model.segmentation.channels": channels, "model.box_head.reads_voxels": True}
        model = tiny.model(networks.config(overrides))
        volume, box = networks.batch(networks.config(overrides))["volume"], np.float32([[[2, 4, 3, 6, 8, 11]]] * 2)
        seen = model._look(volume, training=False)
        pooled = model._pool_boxes(seen, box)
        width, size = model.config.fpn.channels, model.config.box_head.roi_size
        np.testing.assert_array_equal(pooled[..., :width], model._pool(seen, box, size))
        assert seen.voxels.shape[-1] == 1 + channels
        expected = reference.roi_align3d(seen.voxels.numpy(), box, output_size=size, stride=1)
        np.testing.assert_allclose(pooled[..., width:], expected, rtol=1e-4, atol=1e-5)

    def test_nothing_of_it_is_frozen_with_the_backbone(self):
        settings = networks.config({"model.segmentation.channels": 4, "model.style.norm": "frozen_batch"})
        names = [variable.name for variable in tiny.model(settings).segmentation.variables]
        assert any("smooth1/conv/bias" in name for name in names)
        assert not any("norm" in name for name in names)

    @pytest.mark.parametrize("others", [(), ("rpn",)])
    def test_it_is_learnt_without_heads(self, others):
        settings = networks.config({"model.segmentation.channels": 4})
        model, truths = tiny.model(settings), networks.batch(settings)
        learns = (*others, "segmentation")
        found = model.compute_losses(truths, tf.constant([0, 1]), learns=learns)
        assert list(found) == model.loss_names(learns)
        assert set(found) == {
            "segmentation",
            "segmentation_dice",
            *(f"{kind}_{part}" for kind in others for part in ("class", "box")),
        }
        jointly = model.compute_losses(truths, tf.constant([0, 1]))
        np.testing.assert_allclose(found["segmentation_dice"], jointly["segmentation_dice"], rtol=1e-5)

    def test_it_learns_to_tell_classes_of_voxels(self):
        settings = networks.config({"model.segmentation.channels": 8})
        model, truths = tiny.model(settings), networks.batch(settings)
        variables = model.backbone.trainable_variables + model.segmentation.trainable_variables
        optimizer = tf.keras.optimizers.Adam(2e-2)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                maps = model._look(truths["volume"], training=True).maps
                found = losses.segmentation_losses(maps, truths["instance_ids"], truths["class_ids"])
                loss = tf.reduce_mean(found["segmentation"] + found["segmentation_dice"])
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        first, *_, last = [float(step()) for _ in range(80)]
        assert last < 0.15 * first
