"""Mask R-CNN (He et al. 2017) in 3D."""

from typing import NamedTuple

import tensorflow as tf

from model import backbone, cascade, detections, losses, receptive_field, roi_heads, roi_sums, targets
from model.attribute_head import decode_attributes
from model.classifier import Classifier
from model.fpn import FPN
from model.mask_head import select_class
from model.rpn import RPNHead, object_scores, propose
from model.segmentation import Segmentation
from ops import anchors as anchor_ops
from ops import boxes as box_ops
from ops import keypoints
from ops.roi_align3d import multilevel_roi_align3d, roi_align3d


class Seen(NamedTuple):
    """What the heads read of a volume.

    volume: [B, Z, Y, X, C] float32. pyramid: [B, z, y, x, C'] per level, finest first. voxels: [B, Z, Y, X, C"], the
    volume and, with a segmentation, its features. maps: its logits [B, Z, Y, X, K] float32, or None.
    """

    volume: tf.Tensor
    pyramid: list
    voxels: tf.Tensor
    maps: tf.Tensor | None = None


class MaskRCNN(tf.keras.Model):
    """Backbone, pyramid, proposals, rois, heads.

    `model(volume)` gives detections; `model.compute_losses(batch, seed)` gives the losses of a training batch.
    """

    def __init__(
        self,
        config,
        *,
        num_classes,
        patch_size,
        num_attributes=0,
        num_keypoints=0,
        crop_size=None,
        intensity=None,
        **kwargs,
    ):
        """Builds the parts; variables appear with the first call.

        Args:
          config: the `model` section of a Config.
          num_classes: K, without background.
          patch_size: (Z, Y, X).
          num_attributes: T, numbers learnt of every object; 0 for no attribute head.
          num_keypoints: N, landmarks that the data gives of every object; 0 for those derived from its mask. The config
            says whether there is a keypoint head.
          crop_size: (z, y, x) voxels around an object, for a classifier to pre-train the backbone; None for none.
          intensity: gains and offsets, a number per channel each: gain * volume + offset is what the volume was before
            normalisation, for an attribute head that reads sums of that; None where it is the volume itself.
          **kwargs: to tf.keras.Model.
        """
        # Volumes stay float32, whatever layers compute in: heads read voxels themselves.
        super().__init__(autocast=False, **kwargs)
        self.config, self.patch_size, self.num_keypoints = config, tuple(patch_size), num_keypoints
        self.intensity = intensity
        self.strides = config.strides()
        self._make_anchors(config.anchors)
        style, fpn = config.style, config.fpn
        self.backbone = backbone.make(config.backbone, style, up_to=fpn.levels[-1], name="backbone")
        self.fpn = FPN(
            fpn.channels,
            {level: config.backbone.strides()[level] for level in fpn.levels},
            extra=fpn.extra,
            extra_stride=fpn.extra_stride,
            upsampling=fpn.upsampling,
            bottom_up=fpn.bottom_up,
            style=style,
            name="fpn",
        )
        self.rpn_head = RPNHead(
            config.rpn.channels,
            self.num_shapes,
            style=style,
            objectness=config.rpn.objectness,
            prior=config.rpn.focal_prior if config.rpn.class_loss == "focal" else 0.5,
            name="rpn_head",
        )
        self.finer, self.segmentation = [], None
        if config.segmentation.channels:
            self.finer, strides = config.finer_grids()
            self.segmentation = Segmentation(
                num_classes=num_classes,
                channels=config.segmentation.channels,
                strides=strides,
                upsampling=fpn.upsampling,
                style=roi_heads.style_of_heads(style),
                name="segmentation",
            )
        heads = roi_heads.make(config, num_classes, num_attributes, num_keypoints)
        self.box_heads, self.mask_head, self.attribute_head, self.keypoint_head = heads
        weights = config.box_head.delta_weights
        self.delta_weights = [cascade.stage_weights(weights, stage) for stage in range(len(self.box_heads))]
        self.classifier = Classifier(num_classes, crop_size, name="classifier") if crop_size else None

    def _make_anchors(self, anchors):
        shapes = [anchor_ops.anchor_shapes(sizes, anchors.aspects) for sizes in anchors.sizes]
        self.num_shapes, self.anchor_shapes = len(shapes[0]), shapes
        per_level = [
            anchor_ops.level_anchors([-(-p // s) for p, s in zip(self.patch_size, stride, strict=True)], stride, shape)
            for stride, shape in zip(self.strides, shapes, strict=True)
        ]
        self.anchors_per_level = [level.shape[0] for level in per_level]
        # Kept as NumPy: a tensor made here could not be read inside another graph.
        self.anchors = tf.concat(per_level, axis=0).numpy()

    @tf.autograph.experimental.do_not_convert  # of loops over volumes, which takes longer than to run them
    def build_variables(self, channels):
        """Creates all variables, under the strategy's scope if there is one, for volumes of so many channels."""
        volume = tf.zeros([1, *self.patch_size, channels])
        self(volume)
        if self.classifier:
            with tf.name_scope(self.name):  # as of every other variable
                self.classifier(self.backbone(volume))

    def receptive_fields(self):
        """What each level of the pyramid can see, its stride, and its anchors: {level: ...} each, (z, y, x) voxels."""
        windows = self.fpn.windows(self.backbone.windows)
        fields = receptive_field.receptive_fields(windows, self.rpn_head.conv.windows)
        return fields, *(dict(zip(fields, values, strict=True)) for values in (self.strides, self.anchor_shapes))

    def outgrown_anchors(self):
        """One line for every anchor that is larger than what its level can see; see model/receptive_field.py."""
        fields, _, anchors = self.receptive_fields()
        return receptive_field.warnings(fields, anchors)

    @property
    def mask_size(self):
        """(z, y, x) resolution that a mask is learnt at; see also `mask_head.answer_roi_size`."""
        return tuple(2 * size for size in self.config.mask_head.roi_size)

    def call(self, volume, training=False):
        """Finds objects.

        Args:
          volume: [B, Z, Y, X, C] float32, normalised, of the patch size.
          training: whether batch normalisation uses the batch's own statistics, and dropout drops.

        Returns:
          dict, best first and padded: boxes [B, D, 6] float32 voxels, scores [B, D] float32, class_ids [B, D] int32,
          masks [B, D, M, M, M] float32 in [0, 1] over the box, valid [B, D] bool, num_detections [B] int32. With an
          attribute head attributes [B, D, T] float32; with a keypoint head keypoints [B, D, N, 3] float32 voxels and
          keypoint_scores [B, D, N] float32 in [0, 1].
        """
        found = self.find(volume, training)
        return detections.cut(found, shape=self.patch_size, detections=self.config.detections)

    def find(self, volume, training=False):
        """What `call` cuts its answers of: the same, but with boxes of the head, and masks over windows [B, D, 6]."""
        seen = self._look(volume, training)
        return self._describe(seen, self._detect(seen, training), training)

    def _detect(self, seen, training):
        """Boxes, scores and class_ids of detections, and which are valid; see `detections.detect`."""
        rois, valid = self._propose(*self.rpn_head(seen.pyramid), training=False)
        stages = []
        for stage, head in enumerate(self.box_heads):
            if stage > 0:
                rois = self._refine(deltas, rois, stages[-1], stage - 1)  # noqa: F821 from the stage before
            logits, deltas = head(self._pool_boxes(seen, rois), training=training)
            stages.append(logits)
        return detections.detect(
            cascade.mean_probabilities(stages),
            deltas,
            rois,
            valid,
            shape=self.patch_size,
            delta_weights=self.delta_weights[-1],
            detections=self.config.detections,
        )

    def _describe(self, seen, found, training):
        """Adds masks, attributes and landmarks to detections, and counts them."""
        config, boxes = self.config, found["boxes"]
        windows = self._windows(boxes)
        masks = self._found_masks(seen, windows, found["class_ids"], training)
        more = {"masks": masks, "windows": windows}
        if self.attribute_head:
            values = self._attributes(seen, boxes, windows, masks, training)
            more["attributes"] = decode_attributes(values, config.attribute_head.scale)
        if self.keypoint_head:
            logits = self.keypoint_head(self._pool(seen, boxes, config.keypoint_head.roi_size), training=training)
            more["keypoints"], more["keypoint_scores"] = keypoints.from_heat_maps(logits, boxes)
        for name, value in more.items():
            valid = tf.reshape(found["valid"], [-1, value.shape[1]] + [1] * (value.shape.rank - 2))
            found[name] = tf.where(valid, value, 0.0)
        found["num_detections"] = tf.reduce_sum(tf.cast(found["valid"], tf.int32), axis=1)
        return found

    def compute_losses(self, batch, seed, *, learns=("rpn", "heads"), proposer=None):
        """The losses of one training batch.

        Args:
          batch: as data/pipeline makes it: volume, instance_ids, boxes, class_ids, valid; with an attribute head
            attributes; with given landmarks and a head for them keypoints, keypoints_valid.
          seed: [2] int32, draws the anchors, rois and crops that train, or [B, 2]: a draw for each volume, which then
            does not depend on the others.
          learns: "rpn", "heads", which learn the segmentation, too, "segmentation" alone, or several of these, trained
            jointly; or "classifier", or "attributes", those of what is found, alone.
          proposer: another MaskRCNN that proposes the rois in the place of this one.

        Returns:
          dict of [B] float32, those of `loss_names`.
        """
        found = {}
        if "classifier" in learns:
            found |= self.classifier.loss(self.backbone, batch, seed)
        elif "attributes" in learns:
            found |= self._found_attribute_loss(batch)
        else:
            seen = self._look(batch["volume"], training=True)
            if "rpn" in learns or ("heads" in learns and proposer is None):
                logits, deltas = self.rpn_head(seen.pyramid)
            if "rpn" in learns:
                found |= self._rpn_losses(logits, deltas, batch, seed)
            if "heads" in learns:
                own = proposer is None
                proposals = self._propose(logits, deltas, training=True) if own else proposer.propose(batch["volume"])
                found |= self._head_losses(seen, proposals, batch, seed + 1)
            if self._learns_segmentation(learns):
                found |= losses.segmentation_losses(seen.maps, batch["instance_ids"], batch["class_ids"])
        if self.config.style.l2 > 0.0:
            kernels = [v for v in self.trainable_variables if v.name.endswith("kernel:0")]
            l2 = losses.l2_loss(kernels, tf.shape(batch["volume"])[0])["l2"]
            found["l2"] = self.config.style.l2 * l2
        return found

    def loss_names(self, learns=("rpn", "heads")):
        """Names of the losses that `compute_losses` gives, in their order."""
        names = ["classifier"] if "classifier" in learns else []
        names += ["attribute"] if "attributes" in learns else []
        if "rpn" in learns:
            names += ["rpn_class", "rpn_box"]
        if "heads" in learns:
            names += ["roi_class", "roi_box", *losses.mask_loss_names(self.config.mask_head)]
            names += ["attribute"] if self.attribute_head else []
            names += ["keypoint"] if self.keypoint_head else []
        if self._learns_segmentation(learns):
            names += ["segmentation", "segmentation_dice"]
        return [*names, "l2"] if self.config.style.l2 > 0.0 else names

    def _learns_segmentation(self, learns):
        return self.segmentation is not None and ("heads" in learns or "segmentation" in learns)

    def propose(self, volume):
        """Proposals [B, P, 6] and whether each is one, [B, P], for the training of another network's heads."""
        return self._propose(*self.rpn_head(self._look(volume, training=False).pyramid), training=True)

    def classify(self, volume, boxes):
        """Probabilities [B, N, K + 1] of what is in given boxes [B, N, 6], voxels; the mean over the stages."""
        pooled = self._pool_boxes(self._look(volume, training=False), boxes)
        return cascade.mean_probabilities([head(pooled)[0] for head in self.box_heads])

    def _rpn_losses(self, logits, deltas, batch, seed):
        anchors = targets.anchor_targets(
            self.anchors,
            self.anchors_per_level,
            batch["boxes"],
            batch["valid"],
            object_scores(logits),
            shape=self.patch_size,
            rpn=self.config.rpn,
            seed=seed,
        )
        return losses.rpn_losses(logits, deltas, self.anchors, anchors, rpn=self.config.rpn)

    def _head_losses(self, seen, proposals, batch, seed):
        """Losses of the box heads over all rois, and of the other heads over those that hold an object."""
        config, truths = self.config, (batch["boxes"], batch["class_ids"], batch["valid"])
        ious = config.box_head.cascade_ious
        first = rois = targets.sample_rois(
            *proposals, *truths, rois=config.rois, positive_iou=ious[0] if ious else None, seed=seed
        )
        stages = []
        for stage, head in enumerate(self.box_heads):
            if stage > 0:
                refined = self._refine(deltas, rois.boxes, logits, stage - 1)  # noqa: F821 from the stage before
                rois = targets.assign_rois(refined, rois.valid, *truths, positive_iou=ious[stage])
            logits, deltas = head(self._pool_boxes(seen, rois.boxes), training=True)
            stages.append(
                losses.box_losses(
                    logits, deltas, rois, delta_weights=self.delta_weights[stage], box_head=config.box_head
                )
            )

        # The positives of the first stage come first and are at most this many; only they have masks, attributes and
        # landmarks. These are learnt in the boxes of the last stage, as they will be read in boxes that were refined.
        num_positives = max(1, round(config.rois.num_samples * config.rois.positive_fraction))
        learnt = first._replace(boxes=rois.boxes)
        positives = targets.RoiTargets(*(field[:, :num_positives] for field in learnt))
        return {**losses.sum_stages(stages), **self._positive_losses(seen, positives, batch)}

    def _positive_losses(self, seen, rois, batch):
        config, windows = self.config, self._windows(rois.boxes)
        logits = self._masks(seen, windows, config.mask_head.roi_size, training=True)
        masks = targets.roi_masks(batch["instance_ids"], rois._replace(boxes=windows), self.mask_size)
        found = losses.mask_losses(logits, masks, rois.class_ids, mask_head=config.mask_head)
        if self.attribute_head:
            own = tf.sigmoid(select_class(logits, rois.class_ids))
            values = self._attributes(seen, rois.boxes, windows, own, training=True)
            found |= losses.attribute_loss(values, batch["attributes"], rois, attribute_head=config.attribute_head)
        if self.keypoint_head:
            logits = self.keypoint_head(self._pool(seen, rois.boxes, config.keypoint_head.roi_size), training=True)
            found |= losses.keypoint_loss(logits, *self._true_keypoints(batch), rois)
        return found

    def _found_attribute_loss(self, batch):
        """Loss of the attributes of what is found, as an answer tells them; the attribute head alone learns by it.

        Rois are others than what is found: better placed, and of some objects there are many. Here an object is told of
        once, and teaches as much as any other, whatever else is in its volume. The best `rois.num_samples` detections
        of a volume are looked at.
        """
        seen = self._look(batch["volume"], training=False)
        seen = seen._replace(pyramid=[tf.stop_gradient(level) for level in seen.pyramid])
        found = self._detect(seen, training=False)
        best = {name: value[:, : self.config.rois.num_samples] for name, value in found.items()}
        windows = self._windows(best["boxes"])
        masks = self._found_masks(seen, windows, best["class_ids"], training=False)
        threshold = self.config.detections.mask_threshold
        rois = targets.of_found(best["boxes"], best["valid"], windows, masks, batch, mask_threshold=threshold)
        values = self._attributes(seen, rois.boxes, windows, masks, training=True)
        loss = losses.attribute_loss(values, batch["attributes"], rois, attribute_head=self.config.attribute_head)
        share = tf.reduce_mean(tf.cast(rois.slots >= 0, tf.float32), axis=1)
        return {name: share * value for name, value in loss.items()}

    def _pool_boxes(self, seen, boxes):
        """What the box heads read of rois [B, R, 6]: [B, R, z, y, x, C]."""
        head, ratio = self.config.box_head, self.config.rois.sampling_ratio
        pooled = self._pool(seen, boxes, head.roi_size)
        if not head.reads_voxels:
            return pooled
        voxels = tf.cast(seen.voxels, tf.float32)
        fine = roi_align3d(voxels, boxes, stride=1, output_size=head.roi_size, sampling_ratio=ratio)
        return tf.concat([pooled, fine], axis=-1)

    def _windows(self, boxes):
        """What the masks of boxes [B, R, 6] are over: [B, R, 6]."""
        margin = self.config.mask_head.margin
        return box_ops.grow(boxes, margin, self.patch_size) if any(margin) else boxes

    def _masks(self, seen, windows, roi_size, training):
        """Mask logits [B, R, M, M, M, K] in windows [B, R, 6], M twice the size."""
        fine = None
        if self.config.mask_head.fine_channels:  # at the middle of every bin, where its target is read
            size = tuple(2 * bins for bins in roi_size)
            fine = roi_align3d(seen.voxels, windows, stride=1, output_size=size, sampling_ratio=1)
        return self.mask_head(self._pool(seen, windows, roi_size), fine, training=training)

    def _found_masks(self, seen, windows, class_ids, training):
        """Masks [B, R, M, M, M] in [0, 1], in windows [B, R, 6], of the classes [B, R] that were found."""
        size = self.config.mask_head.answer_roi_size or self.config.mask_head.roi_size
        return tf.sigmoid(select_class(self._masks(seen, windows, size, training), class_ids))

    def _attributes(self, seen, boxes, windows, masks, training):
        """Attributes [B, R, T] in the learnt scale, of boxes [B, R, 6] with masks [B, R, M, M, M] over windows."""
        head, sums = self.config.attribute_head, None
        if head.sums != "none":
            own = {"kind": head.sums, "by_layer": head.sums_by_layer, "intensity": self.intensity}
            sums = roi_sums.object_sums(seen.volume, windows, masks, **own)
        return self.attribute_head(self._pool(seen, boxes, self.config.box_head.roi_size), sums, training=training)

    def _true_keypoints(self, batch):
        """Landmarks [B, G, N, 3] of the truths and whether each is known, [B, G, N]."""
        if self.num_keypoints:
            return batch["keypoints"], batch["keypoints_valid"]
        return keypoints.from_ids(batch["instance_ids"], batch["boxes"].shape[1])

    def _look(self, volume, training):
        """What the network sees of a volume [B, Z, Y, X, C]: Seen."""
        features = self.backbone(volume, training=training)
        pyramid = self.fpn([features[level] for level in self.config.fpn.levels])
        if not self.segmentation:
            return Seen(volume, pyramid, volume)
        finer = [*(features[level] for level in self.finer), volume][: len(self.segmentation.steps)]
        learnt, maps = self.segmentation(pyramid[0], finer, training=training)
        return Seen(volume, pyramid, tf.concat([tf.cast(volume, learnt.dtype), learnt], axis=-1), maps)

    def _propose(self, logits, deltas, *, training):
        rpn = self.config.rpn
        boxes, _, valid = propose(
            tf.stop_gradient(logits),
            tf.stop_gradient(deltas),
            self.anchors,
            self.anchors_per_level,
            shape=self.patch_size,
            pre_nms_top_k=rpn.train_pre_nms_top_k if training else rpn.pre_nms_top_k,
            post_nms_top_k=rpn.train_post_nms_top_k if training else rpn.post_nms_top_k,
            nms_iou=rpn.nms_iou,
            min_size=rpn.min_size,
        )
        return boxes, valid

    def _refine(self, deltas, rois, logits, stage):
        weights = self.delta_weights[stage]
        return cascade.refine(deltas, rois, logits, delta_weights=weights, shape=self.patch_size)

    def _pool(self, seen, boxes, output_size):
        """Features of rois; the extra level of the pyramid is for the proposals alone (Lin et al. 2017)."""
        levels = len(self.config.fpn.levels)
        return multilevel_roi_align3d(
            [tf.cast(level, tf.float32) for level in seen.pyramid[:levels]],
            boxes,
            strides=self.strides[:levels],
            output_size=output_size,
            canonical_size=self.config.rois.canonical_size,
            canonical_level=0,
            sampling_ratio=self.config.rois.sampling_ratio,
        )
