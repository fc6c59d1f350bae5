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
    return all_pairs(iou, boxes_a, boxes_b)


def all_pairs(function, boxes_a, boxes_b):
    """Values [I, J] of a function of two boxes for boxes [I, 6] and [J, 6]."""
    result = np.zeros((len(boxes_a), len(boxes_b)))
    for i, j in np.ndindex(*result.shape):
        result[i, j] = function(boxes_a[i], boxes_b[j])
    return result


def upright(box):
    """A box whose ends do not come before its starts: it is flat where they did."""
    lo, hi = np.float64(box[:3]), np.float64(box[3:])
    return lo, np.maximum(lo, hi)


def smallest_box_around(a, b):
    """The smallest box that holds two."""
    (lo_a, hi_a), (lo_b, hi_b) = upright(a), upright(b)
    return [*np.minimum(lo_a, lo_b), *np.maximum(hi_a, hi_b)]


def giou(a, b):
    """Generalized IoU of two boxes; 0 if they span nothing."""
    around = volume(smallest_box_around(a, b))
    if around == 0.0:
        return 0.0
    overlap = iou(a, b)
    # The volumes add up to union + shared = union * (1 + IoU).
    union = (volume(a) + volume(b)) / (1.0 + overlap)
    return overlap - (around - union) / around


def diou(a, b):
    """Distance IoU of two boxes; 0 for two equal points."""
    around = smallest_box_around(a, b)
    diagonal = sum((around[axis + 3] - around[axis]) ** 2 for axis in range(3))
    if diagonal == 0.0:
        return 0.0
    return iou(a, b) - ((np.mean(upright(a), axis=0) - np.mean(upright(b), axis=0)) ** 2).sum() / diagonal


def aspect_difference(a, b):
    """Mean over the pairs z:y, y:x, x:z of 4 / pi^2 times the squared difference of the angles of the sizes."""
    sizes = [np.maximum(hi - lo, 1e-3) for lo, hi in (upright(a), upright(b))]
    total = 0.0
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        angle_a, angle_b = (math.atan(size[first] / size[second]) for size in sizes)
        total += 4 / math.pi**2 * (angle_a - angle_b) ** 2 / 3
    return total


def ciou_alpha(a, b):
    """Weight of the difference of aspect in the complete IoU."""
    difference = aspect_difference(a, b)
    return difference / (1 - iou(a, b) + difference) if difference else 0.0


def ciou(a, b, alpha=None):
    """Complete IoU of two boxes, with the weight given or computed."""
    alpha = ciou_alpha(a, b) if alpha is None else alpha
    return diou(a, b) - alpha * aspect_difference(a, b)


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


def atss(anchors, anchors_per_level, boxes, valid, *, candidates_per_level):
    """Matched slots [A] and labels [A] of one volume; slot 0 where the label is 0."""
    best = np.full(len(anchors), -1.0)
    matched = np.zeros(len(anchors), np.int32)
    centres = [(np.float64(anchor[:3]) + np.float64(anchor[3:])) / 2 for anchor in anchors]
    for g in range(len(boxes)):
        if not valid[g]:
            continue
        lo, hi = np.float64(boxes[g][:3]), np.float64(boxes[g][3:])
        candidates, start = [], 0
        for count in anchors_per_level:
            level = range(start, start + count)
            distances = {a: ((centres[a] - (lo + hi) / 2) ** 2).sum() for a in level}
            candidates += sorted(level, key=lambda a: (distances[a], a))[:candidates_per_level]
            start += count
        overlaps = {a: iou(anchors[a], boxes[g]) for a in candidates}
        if not overlaps:
            continue
        threshold = np.mean(list(overlaps.values())) + np.std(list(overlaps.values()))
        for a in candidates:
            is_inside = np.all(lo < centres[a]) and np.all(centres[a] < hi)
            # Only a higher IoU, by more than rounding, takes an anchor from an earlier truth.
            if is_inside and overlaps[a] >= threshold - 1e-6 and overlaps[a] > best[a] + 1e-9:
                best[a], matched[a] = overlaps[a], g
    return matched, (best >= 0).astype(np.int32)


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


def soft_nms3d(
    boxes, scores, *, iou_threshold, max_outputs, method="linear", sigma=0.5, score_threshold=0.001, class_ids=None
):
    """(index, lowered score) of the boxes in the order in which they are taken, ties by lower index."""
    left = {i: float(score) for i, score in enumerate(scores) if score >= score_threshold}
    taken = []
    while left and len(taken) < max_outputs:
        best = min(left, key=lambda i: (-left[i], i))
        taken.append((best, left.pop(best)))
        for i in list(left):
            if class_ids is not None and class_ids[i] != class_ids[best]:
                continue
            overlap = iou(boxes[i], boxes[best])
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap > iou_threshold:
                left[i] *= 1.0 - overlap
            if left[i] < score_threshold:
                del left[i]
    return taken


def weighted_box_clustering(
    boxes, scores, *, iou_threshold, max_outputs, class_ids=None, weights=None, num_views=1, score_threshold=None
):
    """(box, score, its members, the best one first) of the clusters, best score first."""
    boxes = np.float64(boxes).reshape(-1, 6)
    num_views = np.broadcast_to(np.float64(num_views), len(boxes))
    left = [i for i in range(len(boxes)) if not math.isnan(scores[i])]
    if score_threshold is not None:
        left = [i for i in left if scores[i] >= score_threshold]
    clusters = []
    while left and len(clusters) < max_outputs:
        best = min(left, key=lambda i: (-scores[i], i))
        members = [best]
        for i in left:
            same_class = class_ids is None or class_ids[i] == class_ids[best]
            if i != best and same_class and iou(boxes[i], boxes[best]) > iou_threshold:
                members.append(i)
        left = [i for i in left if i not in members]
        factors = [iou(boxes[i], boxes[best]) * volume(boxes[i]) for i in members]
        if weights is not None:
            factors = [factor * float(weights[i]) for factor, i in zip(factors, members, strict=True)]
        if sum(factors) == 0.0:  # members that weigh nothing count alike
            factors = [1.0] * len(members)
        pulls = [factor * float(scores[i]) for factor, i in zip(factors, members, strict=True)]
        missing = max(0.0, np.mean([num_views[i] for i in members]) - len(members))
        score = sum(pulls) / (sum(factors) + missing * sum(factors) / len(members))
        box = boxes[best]
        if sum(pulls) > 0.0:
            box = sum(pull * boxes[i] for pull, i in zip(pulls, members, strict=True)) / sum(pulls)
        clusters.append((box, score, members))
    return sorted(clusters, key=lambda cluster: -cluster[1])


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


def roi_pool3d(features, boxes, *, output_size, stride):
    """Bin maxima [B, R, P, P, P, C] of features [B, z, y, x, C] over the whole cells that boxes [B, R, 6] touch."""
    result = np.zeros((*boxes.shape[:2], *output_size, features.shape[-1]))
    for b, r in np.ndindex(*boxes.shape[:2]):
        if volume(boxes[b, r]) == 0.0:
            continue
        for index in np.ndindex(*output_size):
            cells = []
            for axis, i in enumerate(index):
                first = math.floor(boxes[b, r, axis] / stride[axis])
                count = max(math.ceil(boxes[b, r, axis + 3] / stride[axis]) - first, 1)
                bin_lo = first + i * count // output_size[axis]
                bin_hi = first + math.ceil((i + 1) * count / output_size[axis])
                cells.append([cell for cell in range(bin_lo, bin_hi) if 0 <= cell < features.shape[axis + 1]])
            values = [features[(b, *cell)] for cell in itertools.product(*cells)]
            if values:
                result[(b, r, *index)] = np.max(values, axis=0)
    return result


def roi_sum3d(volume, boxes, *, output_size):
    """Integrals [B, R, P, P, P, C] of a volume [B, z, y, x, C] over the bins of boxes [B, R, 6]."""
    result = np.zeros((*boxes.shape[:2], *output_size, volume.shape[-1]))
    for b, r in np.ndindex(*boxes.shape[:2]):
        lo, size = np.float64(boxes[b, r, :3]), np.float64(boxes[b, r, 3:]) - np.float64(boxes[b, r, :3])
        if not np.all(size > 0.0):
            continue
        for index in np.ndindex(*output_size):
            bin_lo, bin_hi = lo + size * index / output_size, lo + size * np.add(index, 1) / output_size
            for voxel in np.ndindex(*volume.shape[1:4]):
                common = np.minimum(bin_hi, np.add(voxel, 1)) - np.maximum(bin_lo, voxel)
                result[(b, r, *index)] += np.prod(np.maximum(common, 0.0)) * volume[(b, *voxel)]
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
            if np.all(position >= 0) and np.all(position < ids.shape[1:]):
                voxel = np.floor(position).astype(int)
                result[(b, r, *cell)] = ids[(b, *voxel)] == slots[b, r] + 1
    return result


def mask_at(mask, box, centre):
    """Mask [z, y, x] over a box, resampled at one position; None where a finite box does not hold it."""
    lo, hi = np.float64(box[:3]), np.float64(box[3:])
    if not np.all(np.isfinite(box)) or np.any(centre < lo) or np.any(centre >= hi):
        return None
    index = (centre - lo) / (hi - lo) * mask.shape - 0.5
    return trilinear(np.float64(mask)[..., None], index)[0]


def tight_box(mask, box, shape, threshold=0.5):
    """The voxels along each axis at whose centres the largest values across it, interpolated, reach the threshold."""
    lo, hi = [], []
    for axis in range(3):
        profile = mask.max(axis=tuple(a for a in range(3) if a != axis))
        begin, end, shown = box[axis], box[axis + 3], []
        for voxel in range(shape[axis]):
            if begin <= voxel + 0.5 < end:
                cell = (voxel + 0.5 - begin) / (end - begin) * len(profile) - 0.5
                if np.interp(cell, np.arange(len(profile)), profile) >= threshold:
                    shown.append(voxel)
        if not shown:
            return np.zeros(6, np.float32)
        lo.append(shown[0])
        hi.append(shown[-1] + 1)
    return np.float32([*lo, *hi])


def paste(masks, boxes, valid, shape):
    """Volume [Z, Y, X]: the largest resampled mask of the valid detections that hold the voxel."""
    volume = np.zeros(shape)
    for position in np.ndindex(*shape):
        for d in range(len(boxes)):
            value = mask_at(masks[d], boxes[d], np.float64(position) + 0.5)
            if valid[d] and value is not None:
                volume[position] = max(volume[position], value)
    return volume


def label_volume(masks, boxes, valid, shape, threshold=0.5):
    """Labels [Z, Y, X]: 1 + the first valid detection whose resampled mask holds the voxel."""
    labels = np.zeros(shape, np.int32)
    for position in np.ndindex(*shape):
        for d in range(len(boxes)):
            value = mask_at(masks[d], boxes[d], np.float64(position) + 0.5)
            if valid[d] and value is not None and value >= threshold:
                labels[position] = d + 1
                break
    return labels


# Losses: each is [B], the mean of the masked items of an example, 0 where there are none


def masked_mean(item_loss, mask, item_weight=lambda index: 1.0):
    """Mean [B] of `item_loss(index)`, weighted, over the True items of mask [B, ...]."""
    result = np.zeros(mask.shape[0])
    for b in range(mask.shape[0]):
        items = [(b, *index) for index in np.ndindex(*mask.shape[1:]) if mask[b][index]]
        weight = sum(item_weight(index) for index in items)
        if weight > 0:
            result[b] = sum(item_weight(index) * item_loss(index) for index in items) / weight
    return result


def binary_cross_entropy(logit, target):
    """Cross entropy of one logit against a target in [0, 1]."""
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def sigmoid_cross_entropy(logits, targets, mask, *, class_weights=(1.0, 1.0)):
    def weight(index):
        target = float(targets[index])
        return (1.0 - target) * class_weights[0] + target * class_weights[1]

    return masked_mean(lambda i: binary_cross_entropy(float(logits[i]), float(targets[i])), mask, weight)


def softmax_cross_entropy(logits, class_ids, mask, *, class_weights=None):
    return softmax_focal(logits, class_ids, mask, gamma=0.0, class_weights=class_weights)


def softmax_divergence(logits, targets, mask):
    def item(index):
        row = np.float64(logits[index])
        log_p = row - row.max() - math.log(np.exp(row - row.max()).sum())
        return sum(t * (math.log(t) - q) for t, q in zip(np.float64(targets[index]), log_p, strict=True) if t > 0)

    return masked_mean(item, mask)


def softmax_focal(logits, class_ids, mask, *, gamma, class_weights=None):
    def item(index):
        row = np.float64(logits[index])
        log_p = row[class_ids[index]] - row.max() - math.log(np.exp(row - row.max()).sum())
        return (1.0 - math.exp(log_p)) ** gamma * -log_p

    weights = np.ones(logits.shape[-1]) if class_weights is None else class_weights
    return masked_mean(item, mask, lambda index: weights[class_ids[index]])


def focal(logits, targets, mask, *, alpha, gamma):
    """Sum over the items that count by their positives; logits may have an axis K that the mask has not."""
    result = np.zeros(mask.shape[0])
    for b in range(mask.shape[0]):
        total, positives = 0.0, 0.0
        for index in np.ndindex(*logits.shape[1:]):
            if not mask[(b, *index[: mask.ndim - 1])]:
                continue
            p, target = 1.0 / (1.0 + math.exp(-float(logits[(b, *index)]))), float(targets[(b, *index)])
            total += target * alpha * (1.0 - p) ** gamma * -math.log(p)
            total += (1.0 - target) * (1.0 - alpha) * p**gamma * -math.log(1.0 - p)
            positives += target
        result[b] = total / max(positives, 1.0)
    return result


def smooth_l1(predictions, targets, mask, *, beta):
    def item(index):
        total = 0.0
        for error in np.abs(np.float64(predictions[index]) - np.float64(targets[index])):
            total += 0.5 * error**2 / beta if error < beta else error - 0.5 * beta
        return total

    return masked_mean(item, mask)


def linex(predictions, targets, mask, *, reach):
    def item(index):
        total = 0.0
        for error in np.float64(predictions[index]) - np.float64(targets[index]):
            at_reach = math.exp(reach) - reach - 1.0
            straight = at_reach + (math.exp(reach) - 1.0) * (error - reach)
            total += straight if error > reach else math.exp(error) - error - 1.0
        return total

    return masked_mean(item, mask)


def giou_loss(predictions, targets, mask):
    return masked_mean(lambda i: 1.0 - giou(predictions[i], targets[i]), mask)


def diou_loss(predictions, targets, mask):
    return masked_mean(lambda i: 1.0 - diou(predictions[i], targets[i]), mask)


def ciou_loss(predictions, targets, mask, *, weighed_at=None):
    """The weight of the aspect is taken at other boxes, if these are given: a constant to the gradient."""

    def item(index):
        alpha = None if weighed_at is None else ciou_alpha(weighed_at[index], targets[index])
        return 1.0 - ciou(predictions[index], targets[index], alpha)

    return masked_mean(item, mask)


def mask_cross_entropy(logits, targets, mask):
    def item(index):
        pairs = zip(np.float64(logits[index]).flat, np.float64(targets[index]).flat, strict=True)
        return np.mean([binary_cross_entropy(logit, target) for logit, target in pairs])

    return masked_mean(item, mask)


def mask_focal(logits, targets, mask, *, alpha, gamma):
    def item(index):
        total = 0.0
        for logit, target in zip(np.float64(logits[index]).flat, np.float64(targets[index]).flat, strict=True):
            p = 1.0 / (1.0 + math.exp(-logit))
            total += target * alpha * (1.0 - p) ** gamma * -math.log(p)
            total += (1.0 - target) * (1.0 - alpha) * p**gamma * -math.log(1.0 - p)
        return total / logits[index].size

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


# Keypoints


def instance_keypoints(ids, num):
    """Centroid and the middle of both end slices along each axis [num, 7, 3], valid [num, 7], of ids 1..num."""
    points, valid = np.zeros((num, 7, 3)), np.zeros((num, 7), bool)
    for slot in range(num):
        voxels = np.argwhere(ids == slot + 1)
        if not len(voxels):
            continue
        chosen = [voxels]
        for axis in range(3):
            for end in (voxels[:, axis].min(), voxels[:, axis].max()):
                chosen.append(voxels[voxels[:, axis] == end])
        points[slot] = [np.mean(part + 0.5, axis=0) for part in chosen]
        valid[slot] = True
    return points, valid


def keypoint_heat_maps(points, valid, boxes, size):
    """Weight [B, R, N, z, y, x] of each cell of a grid over the box where values given at the centres are interpolated
    at each landmark, and whether it is inside; the first cell has all where it is not.
    """
    maps, inside = np.zeros((*valid.shape, *size)), np.zeros(valid.shape, bool)
    for b, r, n in np.ndindex(*valid.shape):
        lo, hi, point = np.float64(boxes[b, r, :3]), np.float64(boxes[b, r, 3:]), points[b, r, n]
        inside[b, r, n] = valid[b, r, n] and np.all(point >= lo) and np.all(point < hi)
        for cell in np.ndindex(*size):
            weight = float(inside[b, r, n])
            for d in range(3):
                centres = lo[d] + (hi[d] - lo[d]) * (np.arange(size[d]) + 0.5) / size[d]
                weight *= np.interp(point[d], centres, np.eye(size[d])[cell[d]])
            maps[(b, r, n, *cell)] = weight if inside[b, r, n] else cell == (0, 0, 0)
    return maps, inside


def heat_map_peaks(logits, boxes):
    """Top [B, R, N, 3] of parabolas through the largest cell of each heat map, and the share [B, R, N] that this cell
    and its neighbours have of a softmax.
    """
    points, scores = np.zeros((*logits.shape[:3], 3)), np.zeros(logits.shape[:3])
    for b, r, n in np.ndindex(*scores.shape):
        lo, hi = np.float64(boxes[b, r, :3]), np.float64(boxes[b, r, 3:])
        weights = np.exp(np.float64(logits[b, r, n]))
        peak = max(np.ndindex(*weights.shape), key=lambda cell, weights=weights: weights[cell])
        place = np.array(peak) + 0.5
        for axis in range(3):
            if 0 < peak[axis] < weights.shape[axis] - 1:
                step = np.eye(3, dtype=int)[axis]
                line = [logits[(b, r, n, *(peak + k * step))] for k in (-1, 0, 1)]
                a, slope, _ = np.polyfit([-1, 0, 1], np.float64(line), 2)
                place[axis] -= slope / (2 * a)
        points[b, r, n] = lo + (hi - lo) * place / weights.shape
        around = tuple(slice(max(cell - 1, 0), cell + 2) for cell in peak)
        scores[b, r, n] = weights[around].sum() / weights.sum()
    return points, scores
