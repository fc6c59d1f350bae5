"""Slow NumPy truths for the ops, written from the definitions in float64, one loop per sum."""

import itertools
import math

import numpy as np


def permute_boxes(boxes, axes):
    """Boxes [..., 6] with their three axes reordered as `np.transpose(volume, axes)` does."""
    boxes = np.asarray(boxes)
    return boxes[..., list(axes) + [axis + 3 for axis in axes]]


def random_boxes(rng, num, shape, *, smallest=0.5):
    """Boxes [num, 6] float32 inside a volume of `shape`, at least `smallest` voxels wide."""
    shape = np.asarray(shape, np.float64)
    size = smallest + rng.random((num, 3)) * (shape - smallest)
    lo = rng.random((num, 3)) * (shape - size)
    return np.concatenate([lo, lo + size], axis=-1).astype(np.float32)


def finite_differences(function, x, *, step=1e-5):
    """Central differences of a scalar `function` at every element of `x`, in float64."""
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2.0 * step)
    return gradient


# Boxes


def volume(box):
    """Volume of one box; 0 if it is empty on any axis."""
    result = 1.0
    for axis in range(3):
        result *= max(float(box[axis + 3]) - float(box[axis]), 0.0)
    return result


def iou(a, b):
    """Intersection over union of two boxes; 0 if either is empty."""
    if volume(a) == 0.0 or volume(b) == 0.0:
        return 0.0
    shared = 1.0
    for axis in range(3):
        lo = max(float(a[axis]), float(b[axis]))
        hi = min(float(a[axis + 3]), float(b[axis + 3]))
        shared *= max(hi - lo, 0.0)
    return shared / (volume(a) + volume(b) - shared)


def iou_matrix(boxes_a, boxes_b):
    """IoU [I, J] of boxes [I, 6] and [J, 6]."""
    result = np.zeros((len(boxes_a), len(boxes_b)))
    for i, j in np.ndindex(*result.shape):
        result[i, j] = iou(boxes_a[i], boxes_b[j])
    return result


def encode(boxes, anchors):
    """Deltas [N, 6] that take anchors [N, 6] to boxes [N, 6]."""
    deltas = np.zeros((len(boxes), 6))
    for n, (box, anchor) in enumerate(zip(np.float64(boxes), np.float64(anchors), strict=True)):
        for axis in range(3):
            size = max(box[axis + 3] - box[axis], 1e-3)
            anchor_size = max(anchor[axis + 3] - anchor[axis], 1e-3)
            centre = (box[axis] + box[axis + 3]) / 2
            anchor_centre = (anchor[axis] + anchor[axis + 3]) / 2
            deltas[n, axis] = (centre - anchor_centre) / anchor_size
            deltas[n, axis + 3] = math.log(size / anchor_size)
    return deltas


def decode(deltas, anchors):
    """Boxes [N, 6] from deltas [N, 6] and anchors [N, 6]."""
    largest = math.log(1000 / 16)
    boxes = np.zeros((len(deltas), 6))
    for n, (delta, anchor) in enumerate(zip(np.float64(deltas), np.float64(anchors), strict=True)):
        for axis in range(3):
            anchor_size = anchor[axis + 3] - anchor[axis]
            centre = (anchor[axis] + anchor[axis + 3]) / 2 + delta[axis] * anchor_size
            size = anchor_size * math.exp(min(max(delta[axis + 3], -largest), largest))
            boxes[n, axis] = centre - size / 2
            boxes[n, axis + 3] = centre + size / 2
    return boxes


# Anchors


def anchor_shapes(sizes, aspects):
    """Anchor sizes [S*A, 3]: every size times every aspect of unit volume, sizes outermost."""
    shapes = []
    for size, aspect in itertools.product(sizes, aspects):
        unit = np.float64(aspect) / np.prod(np.float64(aspect)) ** (1 / 3)
        shapes.append(np.broadcast_to(np.float64(size), 3) * unit)
    return np.array(shapes)


def level_anchors(grid_shape, stride, shapes):
    """Anchors [z*y*x*n, 6] centred on the cells of a grid, the anchor shape fastest."""
    anchors = []
    for cell in np.ndindex(*grid_shape):
        for size in shapes:
            centre = (np.float64(cell) + 0.5) * np.float64(stride)
            anchors.append([*(centre - np.float64(size) / 2), *(centre + np.float64(size) / 2)])
    return np.array(anchors).reshape(-1, 6)


# Matching


def match(overlaps, valid, *, high, low, low_quality=True):
    """Labels [A] and, for each anchor, the set of truths a positive may be matched to.

    Args:
      overlaps: [A, G] IoU.
      valid: [G] bool.
    """
    num_anchors, num_truths = overlaps.shape
    truths = [g for g in range(num_truths) if valid[g]]
    labels = np.zeros(num_anchors, np.int32)
    choices = [set() for _ in range(num_anchors)]
    if not truths:
        return choices, labels
    for a in range(num_anchors):
        best = max(overlaps[a, g] for g in truths)
        choices[a] = {g for g in truths if overlaps[a, g] == best}
        labels[a] = 1 if best >= high else 0 if best < low else -1
    if low_quality:
        rescued = [set() for _ in range(num_anchors)]
        for g in truths:
            best = max((overlaps[a, g] for a in range(num_anchors)), default=0.0)
            for a in range(num_anchors):
                if best > 0 and overlaps[a, g] == best:
                    rescued[a].add(g)
        for a in range(num_anchors):
            if rescued[a]:
                choices[a], labels[a] = rescued[a], 1
    return choices, labels


# Non-maximum suppression


def nms3d(boxes, scores, *, iou_threshold, max_outputs, score_threshold=None, class_ids=None):
    """Indices kept by the greedy loop, best score first, ties by lower index."""
    boxes = [tuple(map(float, box)) for box in boxes]
    candidates = [i for i in range(len(boxes)) if not math.isnan(scores[i])]
    if score_threshold is not None:
        candidates = [i for i in candidates if scores[i] >= score_threshold]
    candidates.sort(key=lambda i: (-scores[i], i))
    kept = []
    for i in candidates:
        if len(kept) == max_outputs:
            break
        rivals = [j for j in kept if class_ids is None or class_ids[i] == class_ids[j]]
        if all(iou(boxes[i], boxes[j]) <= iou_threshold for j in rivals):
            kept.append(i)
    return kept


# ROIAlign


def trilinear(features, index):
    """Features [z, y, x, C] at one cell-index position, the cells clamped at the border."""
    shape = np.array(features.shape[:3])
    index = np.clip(index, 0.0, shape - 1)
    cell = np.floor(index).astype(int)
    fraction = index - cell
    value = np.zeros(features.shape[3])
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, fraction, 1.0 - fraction))
        value += weight * features[tuple(np.minimum(cell + corner, shape - 1))]
    return value


def sample_positions(box, output_size, sampling_ratio):
    """Yields (bin, position) of every regular sample of every bin of one box, in voxels."""
    lo, hi = np.float64(box[:3]), np.float64(box[3:])
    for cell in np.ndindex(*output_size):
        for sample in np.ndindex(*[sampling_ratio] * 3):
            inside = (np.float64(sample) + 0.5) / sampling_ratio
            yield cell, lo + (np.float64(cell) + inside) * (hi - lo) / np.float64(output_size)


def roi_align3d(features, boxes, *, output_size, stride, sampling_ratio=2):
    """Bin means [B, R, P, P, P, C] of features [B, z, y, x, C] in boxes [B, R, 6]."""
    features = np.float64(features)
    shape = np.array(features.shape[1:4])
    result = np.zeros((*boxes.shape[:2], *output_size, features.shape[-1]))
    for b, r in np.ndindex(*boxes.shape[:2]):
        if volume(boxes[b, r]) == 0.0:
            continue
        for cell, position in sample_positions(boxes[b, r], output_size, sampling_ratio):
            index = position / np.float64(stride) - 0.5
            if np.any(index < -1.0) or np.any(index > shape):
                continue
            result[(b, r, *cell)] += trilinear(features[b], index) / sampling_ratio**3
    return result


# Masks


def instance_boxes(ids, num):
    """Tight boxes [num, 6] and voxel counts [num] of ids 1..num."""
    boxes, voxels = np.zeros((num, 6)), np.zeros(num, int)
    for position in np.ndindex(*ids.shape):
        slot = int(ids[position]) - 1
        if not 0 <= slot < num:
            continue
        lo, hi = np.array(position), np.array(position) + 1
        if voxels[slot]:
            lo, hi = np.minimum(lo, boxes[slot, :3]), np.maximum(hi, boxes[slot, 3:])
        boxes[slot] = [*lo, *hi]
        voxels[slot] += 1
    return boxes, voxels


def mask_targets(ids, boxes, slots, size):
    """Masks [B, R, *size]: 1 where the voxel under the bin centre belongs to the slot."""
    result = np.zeros((*boxes.shape[:2], *size))
    for b, r in np.ndindex(*boxes.shape[:2]):
        if slots[b, r] < 0:
            continue
        for cell, position in sample_positions(boxes[b, r], size, 1):
            voxel = np.floor(position).astype(int)
            if np.all(voxel >= 0) and np.all(voxel < ids.shape[1:]):
                result[(b, r, *cell)] = ids[(b, *voxel)] == slots[b, r] + 1
    return result


def label_volume(masks, boxes, valid, shape, threshold=0.5):
    """Labels [Z, Y, X]: 1 + the first valid detection whose resampled mask holds the voxel."""
    labels = np.zeros(shape, np.int32)
    boxes = np.float64(boxes)
    for position in np.ndindex(*shape):
        centre = np.float64(position) + 0.5
        for d in range(len(boxes)):
            lo, hi = boxes[d, :3], boxes[d, 3:]
            if not valid[d] or np.any(centre < lo) or np.any(centre >= hi):
                continue
            index = (centre - lo) / (hi - lo) * masks[d].shape - 0.5
            if trilinear(np.float64(masks[d])[..., None], index)[0] >= threshold:
                labels[position] = d + 1
                break
    return labels


# Losses: each is [B], the mean of the masked items of an example, 0 where there are none


def masked_mean(item_loss, mask):
    """Mean [B] of `item_loss(index)` over the True items of mask [B, ...]."""
    result = np.zeros(mask.shape[0])
    for b in range(mask.shape[0]):
        items = [item_loss((b, *index)) for index in np.ndindex(*mask.shape[1:]) if mask[b][index]]
        result[b] = sum(items) / len(items) if items else 0.0
    return result


def binary_cross_entropy(logit, target):
    """Cross entropy of one logit against a target in [0, 1]."""
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def sigmoid_cross_entropy(logits, targets, mask):
    return masked_mean(lambda i: binary_cross_entropy(float(logits[i]), float(targets[i])), mask)


def softmax_cross_entropy(logits, class_ids, mask):
    def item(index):
        row = np.float64(logits[index])
        return row.max() + math.log(np.exp(row - row.max()).sum()) - row[class_ids[index]]

    return masked_mean(item, mask)


def smooth_l1(predictions, targets, mask, *, beta):
    def item(index):
        total = 0.0
        for error in np.abs(np.float64(predictions[index]) - np.float64(targets[index])):
            total += 0.5 * error**2 / beta if error < beta else error - 0.5 * beta
        return total

    return masked_mean(item, mask)


def mask_cross_entropy(logits, targets, mask):
    def item(index):
        pairs = zip(np.float64(logits[index]).flat, np.float64(targets[index]).flat, strict=True)
        return np.mean([binary_cross_entropy(logit, target) for logit, target in pairs])

    return masked_mean(item, mask)


def dice(logits, targets, mask):
    def item(index):
        truth = np.float64(targets[index])
        probability = 1.0 / (1.0 + np.exp(-np.float64(logits[index])))
        overlap = (probability * truth).sum()
        return 1.0 - (2.0 * overlap + 1.0) / (probability.sum() + truth.sum() + 1.0)

    return masked_mean(item, mask)


# Tiles


def tile_cover(shape, patch, starts):
    """How many tiles [Z, Y, X] hold each voxel of a volume of `shape`."""
    cover = np.zeros(shape, int)
    for start in starts:
        for offset in np.ndindex(*patch):
            voxel = tuple(int(s) + o for s, o in zip(start, offset, strict=True))
            if all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
                cover[voxel] += 1
    return cover
