"""Hippocampi in mosaics, beside answers that are the same in every tile: what place alone can know."""

import itertools

import numpy as np

from evaluation import evaluate, metrics
from ops import masks as mask_ops

TRAIN_MOSAICS = 8  # so many of those that were trained on are measured
ATLAS_THRESHOLDS = tuple(i / 20 for i in range(1, 20))
ANY_OVERLAP = 1e-6  # mask IoU
KEPT = ("box_ap50", "box_ap75", "mask_ap50")


def as_mosaics(config):
    """Makes of a Config of single crops one of 2 x 2 x 2 mosaics of them, which it answers for by overlapping tiles."""
    config.input.mosaic, config.input.tile_size = (2, 2, 2), config.input.patch_size


def measure(trained, evaluation, unseen):
    """Dice, what the network reaches on its own training mosaics, and two constant answers on the same volumes.

    The constants are fitted to all tiles of the training mosaics, after their random flips, and given for every tile:
    of each class the mean box, filled, and the mean mask (atlas), cut at the threshold of `ATLAS_THRESHOLDS` that has
    the best mean Dice on those tiles. All of their detections score 1.

    Args:
      trained: results.measuring.Trained.
      evaluation: evaluation.evaluate.Evaluation of the split that is measured.
      unseen: folder of separate records, whose split test that is; None: val of the run's own.

    Returns:
      {name: float, None where undefined}: mean_mask_dice of matched objects; dice of all truths, 0 where nothing of
      their class overlaps them; train_mean_mask_iou of the first `TRAIN_MOSAICS` training mosaics, and iou_gap, by how
      much it is above that of the measured ones; of the constant box and of the atlas constant_ and atlas_ with
      box_ap50, box_ap75, mask_ap50, mean_mask_dice and dice; atlas_threshold_<class>.
    """
    config = trained.config
    tiles, boxes = _training_tiles(trained.truths("train"), config)
    class_ids = [k for k in range(1, len(config.data.classes) + 1) if len(boxes[k])]
    mean_boxes = np.stack([boxes[k].mean(axis=0) for k in class_ids])
    atlases, thresholds = zip(*(best_atlas(tiles == k) for k in class_ids), strict=True)

    constant, atlas = [], []
    for truth in trained.truths("test" if unseen else "val", unseen):
        constant.append(answer(truth, class_ids, mean_boxes, filled(mean_boxes, tiles.shape[1:]), config.input.mosaic))
        atlas.append(
            answer(truth, class_ids, np.stack([tight_box(mask) for mask in atlases]), atlases, config.input.mosaic)
        )
    seen = evaluate.evaluate(trained.detector, itertools.islice(trained.truths("train"), TRAIN_MOSAICS), config)
    ious = seen.summary["mean_mask_iou"], evaluation.summary["mean_mask_iou"]
    return {
        **dice(evaluation.matches),
        "train_mean_mask_iou": ious[0],
        "iou_gap": None if None in ious else ious[0] - ious[1],
        **_scores("constant", constant, config.data.classes),
        **_scores("atlas", atlas, config.data.classes),
        **{
            f"atlas_threshold_{config.data.classes[k - 1]}": value
            for k, value in zip(class_ids, thresholds, strict=True)
        },
    }


def dice(matches):
    """Overlap of masks as Dice, 2 IoU / (1 + IoU).

    Args:
      matches: list of metrics.VolumeMatch.

    Returns:
      mean_mask_dice: of what `metrics.matched` pairs, None without any; dice: of every truth, with the detection of its
      class that takes it at whatever overlap, 0 without one; None without truths.
    """
    paired, every = [], []
    for volume in matches:
        paired.append(_dice(volume.mask_iou[metrics.matched(volume)]))
        iou = np.where(volume.class_ids[:, None] == volume.gt_class_ids, volume.mask_iou, 0.0)
        taken = metrics.greedy_match(iou, volume.scores, ANY_OVERLAP)
        found = np.zeros(len(volume.gt_class_ids))
        found[taken[taken >= 0]] = _dice(iou[taken >= 0, taken[taken >= 0]])
        every.append(found)
    return {"mean_mask_dice": _mean(paired), "dice": _mean(every)}


def split_tiles(volume, mosaic):
    """The tiles of a mosaic [Z, Y, X], in the order of their places: [N, z, y, x]."""
    (mz, my, mx), (z, y, x) = mosaic, _tile_size(volume.shape, mosaic)
    return volume.reshape(mz, z, my, y, mx, x).transpose(0, 2, 4, 1, 3, 5).reshape(-1, z, y, x)


def best_atlas(masks):
    """The mean of masks, cut where it is most like them.

    Args:
      masks: [T, z, y, x] bool, of one class; those without a voxel say where it is not, and do not choose.

    Returns:
      mask [z, y, x] bool, and the one of `ATLAS_THRESHOLDS` from which on a voxel of the mean belongs to it: that
      of the best mean Dice with the masks, the lowest of equally good ones.
    """
    mean = masks.mean(axis=0)
    shown = masks[masks.any(axis=(1, 2, 3))]
    sizes = shown.sum(axis=(1, 2, 3))

    def quality(threshold):
        mask = mean >= threshold
        return (2 * shown[:, mask].sum(axis=1) / (sizes + mask.sum())).mean()

    threshold = max(ATLAS_THRESHOLDS, key=quality)
    return mean >= threshold, threshold


def filled(boxes, shape):
    """The voxels of boxes [K, 6] in a tile of a shape: [K, z, y, x] bool."""
    masks = np.zeros((len(boxes), *shape), bool)
    lo, hi = mask_ops.covered_voxels(np.asarray(boxes, np.float32), shape)
    for mask, start, stop in zip(masks, lo.numpy(), hi.numpy(), strict=True):
        mask[tuple(map(slice, start, stop))] = True
    return masks


def tight_box(mask):
    """The box [6] float32 around a mask [z, y, x]; zeros around none."""
    return mask_ops.instance_boxes(mask.astype(np.int32), 1)[0][0].numpy()


def answer(truth, class_ids, boxes, masks, mosaic):
    """One object of every class in every tile, at the same place.

    Args:
      truth: mosaic as of data.volumes.of_split.
      class_ids: K of them.
      boxes: [K, 6] voxels of a tile.
      masks: [K, z, y, x] bool.
      mosaic: tiles along each axis.

    Returns:
      metrics.VolumeMatch of detections that score 1.
    """
    corners = _corners(truth["instance_ids"].shape, mosaic)
    everywhere = (boxes[np.newaxis] + np.tile(corners, 2)[:, np.newaxis]).reshape(-1, 6)
    crops = [(corner, mask) for corner in corners for mask in masks]
    return metrics.VolumeMatch(
        box_iou=metrics.box_iou(everywhere, truth["boxes"]),
        mask_iou=metrics.mask_iou(crops, truth["instance_ids"], len(truth["class_ids"])),
        scores=np.ones(len(crops), np.float32),
        class_ids=np.tile(np.asarray(class_ids, np.int32), len(corners)),
        gt_class_ids=truth["class_ids"],
    )


def _training_tiles(truths, config):
    """Class ids [T, z, y, x] uint8 of the tiles that show anything, and {class id: [N, 6] boxes within their tiles}."""
    tiles, boxes = [], {k: [np.zeros((0, 6))] for k in range(1, len(config.data.classes) + 1)}
    for truth in truths:
        of_id = np.concatenate([[0], truth["class_ids"]]).astype(np.uint8)
        found = split_tiles(of_id[truth["instance_ids"]], config.input.mosaic)
        tiles.append(found[found.any(axis=(1, 2, 3))])
        size = _tile_size(truth["instance_ids"].shape, config.input.mosaic)
        corners = truth["boxes"][:, :3] // size * size
        for k in boxes:
            boxes[k].append((truth["boxes"] - np.tile(corners, 2))[truth["class_ids"] == k])
    return np.concatenate(tiles), {k: np.concatenate(parts) for k, parts in boxes.items()}


def _scores(prefix, matches, classes):
    found = evaluate.scalars(metrics.summarize(matches, classes))
    return {f"{prefix}_{name}": value for name, value in ({k: found[k] for k in KEPT} | dice(matches)).items()}


def _tile_size(shape, mosaic):
    return np.array(shape) // mosaic


def _corners(shape, mosaic):
    """[N, 3] int, the first voxel of every tile."""
    return np.indices(mosaic).reshape(3, -1).T * _tile_size(shape, mosaic)


def _dice(iou):
    return 2 * iou / (1 + iou)


def _mean(parts):
    values = np.concatenate([np.zeros(0), *parts])
    return float(values.mean()) if len(values) else None
