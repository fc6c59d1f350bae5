"""Pictures of what trains: a patch with its truth, anchors, proposals, rois, and what is found in it."""

import numpy as np

from evaluation import report
from model import rpn, targets
from ops import boxes as box_ops
from ops import masks

# Boxes of one kind that a picture shows, of those that its slices cross.
MOST_BOXES = 12
MIN_SCORE = 0.1  # of detections that are drawn: in training many objects are found with little confidence
_NONE = (1.0, 1.0, 1.0)  # colour of boxes that belong to no truth


def of_batch(model, batch, seed, config):
    """Pictures of the first volume of a training batch; the network is looked at outside training.

    Args:
      model: MaskRCNN, built.
      batch: as data/pipeline makes it, on one device.
      seed: of what is drawn, as `model.compute_losses` takes it.
      config: a Config.

    Returns:
      {"truth", "anchors", "proposals", "rois", "detections": matplotlib figure}. In each, the slices go through the
      centre of the largest truth. Truths keep their colours, which are those of the boxes that belong to them, white
      boxes belong to none; but detections have colours of their own, as in evaluation/report.py.
    """
    scene = Scene(batch, config)
    network, features = config.model, model.backbone(batch["volume"])
    logits, deltas = model.rpn_head(model.fpn([features[level] for level in network.fpn.levels]))
    anchors = targets.anchor_targets(
        model.anchors,
        model.anchors_per_level,
        batch["boxes"],
        batch["valid"],
        rpn.object_scores(logits),
        shape=model.patch_size,
        rpn=network.rpn,
        seed=seed,
    )
    boxes, scores, valid = rpn.propose(
        logits,
        deltas,
        model.anchors,
        model.anchors_per_level,
        shape=model.patch_size,
        pre_nms_top_k=network.rpn.train_pre_nms_top_k,
        post_nms_top_k=network.rpn.train_post_nms_top_k,
        nms_iou=network.rpn.nms_iou,
        min_size=network.rpn.min_size,
    )
    ious = network.box_head.cascade_ious
    rois = targets.sample_rois(
        boxes,
        valid,
        *(batch[name] for name in ("boxes", "class_ids", "valid")),
        rois=network.rois,
        positive_iou=ious[0] if ious else None,
        seed=seed + 1,
    )
    return {
        "truth": scene.truth(),
        "anchors": scene.anchors(model.anchors, anchors, rpn.object_scores(logits)[0].numpy()),
        "proposals": scene.proposals(boxes[0].numpy(), scores[0].numpy(), valid[0].numpy()),
        "rois": scene.rois(rois),
        "detections": scene.detections({name: value[0] for name, value in model(batch["volume"]).items()}),
    }


class Scene:
    """The first volume of a batch and its truths, in which boxes are drawn."""

    def __init__(self, batch, config):
        """`batch` as data/pipeline makes it, of a Config."""
        self.config = config
        self.volume = np.asarray(batch["volume"][0, ..., 0])
        self.ids = np.asarray(batch["instance_ids"][0])
        valid = np.asarray(batch["valid"][0])
        self.slots = np.flatnonzero(valid)
        self.boxes, self.class_ids = (np.asarray(batch[name][0])[valid] for name in ("boxes", "class_ids"))
        self.colours = report.detection_colours(max(int(self.ids.max()), len(valid)))  # of ids; row 0 is background
        centre = np.array(self.volume.shape) / 2
        if len(self.boxes):
            largest = self.boxes[(self.boxes[:, 3:] - self.boxes[:, :3]).prod(axis=1).argmax()]
            centre = (largest[:3] + largest[3:]) / 2
        self.point = np.clip(np.floor(centre), 0, np.array(self.volume.shape) - 1).astype(int)

    def truth(self):
        """The truths with their classes."""
        row = self._row("truth", self.boxes, self.colours[self.slots + 1], [self._class(k) for k in self.class_ids])
        return self._figure([row], f"{len(self.boxes)} truths")

    def anchors(self, anchors, drawn, scores):
        """Those drawn as positive and negative, of these the best scored, and the ignored ones nearest to a truth.

        Args:
          anchors: [A, 6] voxels.
          drawn: targets.AnchorTargets of the batch.
          scores: [A] of the network.
        """
        positive, negative = drawn.positive[0].numpy(), drawn.negative[0].numpy()
        overlap = box_ops.iou_matrix(anchors, self.boxes).numpy().max(axis=1, initial=0.0)
        ignored = ~(positive | negative)
        owners = self._owners(drawn.matched_boxes[0].numpy(), positive)
        rows = [
            self._best("positive (nearest)", anchors, owners, self._turns(anchors, owners, overlap), owners > 0),
            self._best("negative (highest score)", anchors, owners, scores, negative),
            self._best("ignored (nearest)", anchors, owners, overlap, ignored),
        ]
        counts = f"{positive.sum()} positive, {negative.sum()} negative, {ignored.sum()} ignored anchors"
        return self._figure(rows, f"{counts}; at most {MOST_BOXES} of each are shown")

    def proposals(self, boxes, scores, valid):
        """The best proposals with their scores: boxes [P, 6] voxels, scores [P], valid [P] bool."""
        overlap = box_ops.iou_matrix(boxes, self.boxes).numpy()
        names = [f"{score:.2f}" for score in scores]
        owners = np.zeros(len(boxes), int)
        if len(self.boxes):
            near = overlap.max(axis=1) >= self.config.model.rois.positive_iou
            owners = np.where(near, self.slots[overlap.argmax(axis=1)] + 1, 0)
        row = self._best("best proposals", boxes, owners, scores, valid, names)
        title = (
            f"{valid.sum()} proposals, {(valid & (owners > 0)).sum()} of them near enough to a truth (in its colour)"
        )
        return self._figure([row], title)

    def rois(self, drawn):
        """The rois that train the heads, targets.RoiTargets of the batch: objects in the colour of their truth."""
        boxes, class_ids = drawn.boxes[0].numpy(), drawn.class_ids[0].numpy()
        valid, is_object = drawn.valid[0].numpy(), class_ids > 0
        overlap = box_ops.iou_matrix(boxes, self.boxes).numpy().max(axis=1, initial=0.0)
        owners = self._owners(drawn.matched_boxes[0].numpy(), valid & is_object)
        names = [f"{self._class(k)} {iou:.2f}" if k else "" for k, iou in zip(class_ids, overlap, strict=True)]
        rows = [
            self._best("objects (IoU)", boxes, owners, self._turns(boxes, owners, overlap), owners > 0, names),
            self._best("background", boxes, owners, overlap, valid & ~is_object),
        ]
        title = f"{(valid & is_object).sum()} rois of objects, {(valid & ~is_object).sum()} of background"
        return self._figure(rows, f"{title}; at most {MOST_BOXES} of each are shown")

    def detections(self, found):
        """What the network finds, a dict of one volume, above the truth."""
        shown = found["valid"].numpy() & (found["scores"].numpy() >= MIN_SCORE)
        count, network = int(shown.sum()), self.config.model
        labels = masks.label_volume(
            found["masks"], found["boxes"], shown, self.ids.shape, network.detections.mask_threshold
        )
        scored = zip(found["class_ids"].numpy()[:count], found["scores"].numpy()[:count], strict=True)
        return report.slices_figure(
            self.volume,
            labels.numpy(),
            found["boxes"].numpy()[:count],
            [f"{self._class(k)} {score:.2f}" for k, score in scored],
            spacing=self._spacing(),
            centre=self.point,
            truth=self.ids,
            title=f"{count} detections of score >= {MIN_SCORE}, {len(self.boxes)} truths",
        )

    def _best(self, name, boxes, owners, order, mask, names=None):
        """A row of the boxes in a mask that the slices cross, the highest of an order, in their owners' colours."""
        index = np.flatnonzero(mask & self._crossed(boxes))
        index = index[np.argsort(-order[index], kind="stable")][:MOST_BOXES]
        colours = np.where(owners[index, np.newaxis] > 0, self.colours[owners[index]], _NONE)
        return self._row(name, boxes[index], colours, [names[i] for i in index] if names else [])

    def _turns(self, boxes, owners, order):
        """Another order, in which the best of every owner go first, then the second ones."""
        turns, is_crossed = np.full(len(boxes), -np.inf), self._crossed(boxes)
        for owner in np.unique(owners):
            own = np.flatnonzero(is_crossed & (owners == owner))
            turns[own[np.argsort(-order[own], kind="stable")]] = -np.arange(len(own))
        return turns

    def _crossed(self, boxes):
        """Whether one of the slices goes through a box: [N] bool."""
        return ((boxes[:, :3] <= self.point + 0.5) & (self.point + 0.5 < boxes[:, 3:])).any(axis=1)

    def _row(self, name, boxes, colours, names):
        # Boxes have the first ids, so truths get those after them.
        ids = np.where(self.ids > 0, self.ids + len(boxes), 0)
        return report.Row(name, ids, np.concatenate([self.colours[:1], colours, self.colours[1:]]), boxes, names)

    def _owners(self, matched_boxes, is_object):
        """The id of the truth of boxes, told by its box, 0 for those that are no objects: [N]."""
        owners = np.zeros(len(matched_boxes), int)
        for slot, box in zip(self.slots, self.boxes, strict=True):
            owners[is_object & (matched_boxes == box).all(axis=1)] = slot + 1
        return owners

    def _class(self, class_id):
        return self.config.data.classes[class_id - 1]

    def _spacing(self):
        return np.asarray(self.config.data.target_spacing or (1.0, 1.0, 1.0))

    def _figure(self, rows, title):
        return report.rows_figure(self.volume, rows, self.point, self._spacing(), title)
