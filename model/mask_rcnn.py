"""Mask R-CNN (He et al. 2017) in 3D."""

import tensorflow as tf

from model import detections, losses, targets
from model.backbone import ResNet
from model.fpn import FPN
from model.heads import BoxHead, MaskHead
from model.rpn import RPNHead, propose
from ops import anchors as anchor_ops
from ops.roi_align3d import multilevel_roi_align3d


class MaskRCNN(tf.keras.Model):
    """Backbone, pyramid, proposals, rois, heads.

    `model(volume)` gives detections; `model.compute_losses(batch, seed)` gives the losses of a training batch.
    """

    def __init__(self, config, *, num_classes, patch_size, **kwargs):
        """Builds the parts; variables appear with the first call.

        Args:
          config: the `model` section of a Config.
          num_classes: K, without background.
          patch_size: (Z, Y, X), a multiple of the coarsest stride.
          **kwargs: to tf.keras.Model.
        """
        super().__init__(**kwargs)
        self.config, self.patch_size = config, tuple(patch_size)
        backbone = config.backbone
        self.strides = backbone.strides()
        shapes = [anchor_ops.anchor_shapes(sizes, config.anchors.aspects) for sizes in config.anchors.sizes]
        per_level = [
            anchor_ops.level_anchors([p // s for p, s in zip(self.patch_size, stride, strict=True)], stride, shape)
            for stride, shape in zip(self.strides, shapes, strict=True)
        ]
        self.anchors_per_level = [level.shape[0] for level in per_level]
        # Kept as NumPy: a tensor made here could not be read inside another graph.
        self.anchors = tf.concat(per_level, axis=0).numpy()

        self.backbone = ResNet(
            stem_channels=backbone.stem_channels,
            stem_kernel=backbone.stem_kernel,
            stem_stride=backbone.stem_stride,
            stage_channels=backbone.stage_channels,
            stage_blocks=backbone.stage_blocks,
            stage_strides=backbone.stage_strides,
            norm=backbone.norm,
            norm_groups=backbone.norm_groups,
            name="backbone",
        )
        self.fpn = FPN(config.fpn_channels, len(self.strides), name="fpn")
        self.rpn_head = RPNHead(config.rpn.channels, len(shapes[0]), name="rpn_head")
        shared = {"num_classes": num_classes, "norm": backbone.norm, "groups": backbone.norm_groups}
        self.box_head = BoxHead(
            channels=config.box_head.channels,
            num_convs=config.box_head.num_convs,
            hidden=config.box_head.hidden,
            num_dense=config.box_head.num_dense,
            name="box_head",
            **shared,
        )
        self.mask_head = MaskHead(
            channels=config.mask_head.channels, num_convs=config.mask_head.num_convs, name="mask_head", **shared
        )

    def build_variables(self, channels):
        """Creates all variables, under the strategy's scope if there is one, for volumes of so many channels."""
        self(tf.zeros([1, *self.patch_size, channels]))

    @property
    def mask_size(self):
        """(z, y, x) resolution of a mask inside its box."""
        return tuple(2 * size for size in self.config.mask_head.roi_size)

    def call(self, volume, training=False):
        """Finds objects.

        Args:
          volume: [B, Z, Y, X, C] float32, normalised, of the patch size.
          training: whether batch normalisation uses the batch's own statistics.

        Returns:
          dict, best first and padded: boxes [B, D, 6] float32 voxels, scores [B, D] float32, class_ids [B, D] int32,
          masks [B, D, M, M, M] float32 in [0, 1] over the box, valid [B, D] bool, num_detections [B] int32.
        """
        config = self.config
        pyramid = self.fpn(self.backbone(volume, training=training))
        proposals, _, proposals_valid = self._propose(*self.rpn_head(pyramid))

        logits, deltas = self.box_head(self._pool(pyramid, proposals, config.box_head.roi_size), training=training)
        found = detections.detect(
            logits,
            deltas,
            proposals,
            proposals_valid,
            shape=self.patch_size,
            delta_weights=config.box_head.delta_weights,
            score_threshold=config.detections.score_threshold,
            nms_iou=config.detections.nms_iou,
            max_detections=config.detections.max_detections,
        )
        mask_logits = self.mask_head(self._pool(pyramid, found["boxes"], config.mask_head.roi_size), training=training)
        masks = tf.sigmoid(losses.select_class(mask_logits, found["class_ids"]))
        found["masks"] = tf.where(found["valid"][..., tf.newaxis, tf.newaxis, tf.newaxis], masks, 0.0)
        found["num_detections"] = tf.reduce_sum(tf.cast(found["valid"], tf.int32), axis=1)
        return found

    def compute_losses(self, batch, seed):
        """The losses of one training batch, all parts trained jointly.

        Args:
          batch: as data/pipeline makes it: volume, instance_ids, boxes, class_ids, valid.
          seed: [2] int32, draws the anchors and rois that train.

        Returns:
          dict of [B] float32: rpn_class, rpn_box, roi_class, roi_box, mask, mask_dice.
        """
        rpn, roi = self.config.rpn, self.config.rois
        pyramid = self.fpn(self.backbone(batch["volume"], training=True))
        rpn_logits, rpn_deltas = self.rpn_head(pyramid)
        anchors = targets.anchor_targets(
            self.anchors,
            batch["boxes"],
            batch["valid"],
            positive_iou=rpn.positive_iou,
            negative_iou=rpn.negative_iou,
            num_samples=rpn.num_samples,
            positive_fraction=rpn.positive_fraction,
            seed=seed,
        )
        proposals, _, proposals_valid = self._propose(rpn_logits, rpn_deltas)
        rois = targets.sample_rois(
            proposals,
            proposals_valid,
            batch["boxes"],
            batch["class_ids"],
            batch["valid"],
            positive_iou=roi.positive_iou,
            negative_iou=roi.negative_iou,
            num_samples=roi.num_samples,
            positive_fraction=roi.positive_fraction,
            seed=seed + 1,
        )
        logits, deltas = self.box_head(self._pool(pyramid, rois.boxes, self.config.box_head.roi_size), training=True)

        # The positives come first and are at most this many; only they have masks.
        num_masks = max(1, round(roi.num_samples * roi.positive_fraction))
        positives = targets.RoiTargets(*(field[:, :num_masks] for field in rois))
        mask_logits = self.mask_head(
            self._pool(pyramid, positives.boxes, self.config.mask_head.roi_size), training=True
        )
        mask_targets = targets.roi_masks(batch["instance_ids"], positives, self.mask_size)
        return {
            **losses.rpn_losses(rpn_logits, rpn_deltas, anchors),
            **losses.box_losses(logits, deltas, rois, self.config.box_head.delta_weights),
            **losses.mask_losses(mask_logits, mask_targets, positives.class_ids),
        }

    def _propose(self, logits, deltas):
        rpn = self.config.rpn
        return propose(
            tf.stop_gradient(logits),
            tf.stop_gradient(deltas),
            self.anchors,
            self.anchors_per_level,
            shape=self.patch_size,
            pre_nms_top_k=rpn.pre_nms_top_k,
            post_nms_top_k=rpn.post_nms_top_k,
            nms_iou=rpn.nms_iou,
            min_size=rpn.min_size,
        )

    def _pool(self, pyramid, boxes, output_size):
        return multilevel_roi_align3d(
            pyramid,
            boxes,
            strides=self.strides,
            output_size=output_size,
            canonical_size=self.config.rois.canonical_size,
            canonical_level=0,
            sampling_ratio=self.config.rois.sampling_ratio,
        )
