"""A tile and its mirror images: one answer of all, each object with the mean box, mask and score of those that show it.

As nnU-Net (Isensee et al. 2021) averages what a network says of the mirror images of a tile; with objects in the place
of voxels, by weighted box clustering as nnDetection (Baumgartner et al. 2021) does.
"""

import itertools

import tensorflow as tf

from model import detections
from ops import boxes as box_ops
from ops import keypoints, selection
from ops import masks as mask_ops
from ops.box_clustering import weighted_box_clustering

# Of what reaches a threshold exactly, rounding may be short of it.
ROUNDING = 1e-6


class Views:
    """Looks at a tile by a network, and at its mirror images."""

    def __init__(self, find, config):
        """Wraps a network.

        Args:
          find: of [B, Z, Y, X, C] gives a dict as `MaskRCNN.find` does.
          config: Config.
        """
        self.find, self.given_keypoints = find, bool(config.data.keypoints)
        self.shape = tuple(config.input.patch_size)
        self.detections = config.model.detections
        self.iou_threshold = config.inference.merge_iou
        turned = [(False, True) if flips else (False,) for flips in config.inference.flip_axes]
        self.views = [tuple(axis for axis in range(3) if view[axis]) for view in itertools.product(*turned)]

    def __call__(self, tile):
        """Objects of a tile [Z, Y, X, C]: a dict as `MaskRCNN` gives it, without the batch."""
        views = [self._look(tile, axes) for axes in self.views]
        found = {name: tf.stack([view[name] for view in views]) for name in views[0]}
        if len(views) > 1:
            found = {name: value[tf.newaxis] for name, value in self._mean(found).items()}
        answer = detections.cut(found, shape=self.shape, detections=self.detections)
        return {name: value[0] for name, value in answer.items()}

    def _look(self, tile, axes):
        """What the network finds in the tile mirrored along axes, in the tile as it is."""
        found = {name: value[0] for name, value in self.find(tf.reverse(tile, axes)[tf.newaxis]).items()}
        if not axes:
            return found
        for name in ("boxes", "windows"):
            found[name] = tf.where(found["valid"][:, tf.newaxis], box_ops.flip(found[name], self.shape, axes), 0.0)
        found["masks"] = tf.reverse(found["masks"], [axis + 1 for axis in axes])
        if "keypoints" in found:
            limit = tf.constant(self.shape, tf.float32)
            mirrored = tf.constant([axis in axes for axis in range(3)])
            found["keypoints"] = tf.where(mirrored, limit - found["keypoints"], found["keypoints"])
            if not self.given_keypoints:  # what was the first end is now the last
                order = keypoints.mirrored_order(axes)
                found |= {name: tf.gather(found[name], order, axis=1) for name in ("keypoints", "keypoint_scores")}
        return found

    def _mean(self, found):
        """What is found [D, ...] of several views [V, D, ...], boxes not yet cut."""
        num_views, size = found["boxes"].shape[:2]
        flat = {
            name: tf.reshape(found[name], [-1, *found[name].shape[2:]]) for name in found if found[name].shape.rank > 1
        }
        boxes, scores, _, best, valid, clusters = weighted_box_clustering(
            flat["boxes"],
            tf.where(flat["valid"], flat["scores"], float("nan")),
            class_ids=flat["class_ids"],
            iou_threshold=self.iou_threshold,
            max_outputs=size,
            num_views=num_views,
        )
        valid &= scores >= self.detections.score_threshold  # the best come first
        count = tf.math.count_nonzero(valid, dtype=tf.int32)
        measured = [name for name in ("attributes", "keypoints", "keypoint_scores") if name in flat]

        def one(row):
            of_row = tf.where(clusters == row)[:, 0]
            members = {name: tf.gather(flat[name], of_row) for name in ("windows", "scores", "masks", *measured)}
            window = self._window(members["windows"], members["scores"], boxes[row])
            means = {name: weighted_mean(members[name], members["scores"]) for name in measured}
            return {**means, "windows": window, "masks": mean_mask(members, window)}

        signature = {name: tf.TensorSpec(flat[name].shape[1:], tf.float32) for name in ("windows", "masks", *measured)}
        rows = tf.map_fn(one, tf.range(count), fn_output_signature=signature)
        return {
            **{name: selection.padded(value, size) for name, value in rows.items()},
            "boxes": tf.where(valid[:, tf.newaxis], boxes, 0.0),
            "scores": tf.where(valid, scores, 0.0),
            "class_ids": tf.where(valid, tf.gather(flat["class_ids"], best), 0),
            "valid": valid,
            "num_detections": count,
        }

    def _window(self, windows, scores, mean):
        """What the mask of an object with that mean box is averaged over: [6]."""
        if self.detections.boxes == "head":
            return mean
        window = common_window(windows, scores, self.detections.mask_threshold)
        return tf.where(tf.reduce_all(window[:3] < window[3:]), window, mean)


def common_window(boxes, weights, share):
    """The box outside of which no voxel lies in boxes of the given share of all weights.

    Args:
      boxes: [M, 6] float32, voxels; M > 0.
      weights: [M] float32.
      share: in [0, 1].

    Returns:
      [6] float32; with ends in the wrong order where no voxel does at all.
    """
    reach = tf.transpose(tf.concat([boxes[:, :3], -boxes[:, 3:]], axis=1))  # [6, M], further out is less
    order = tf.argsort(reach, axis=1)
    reach, sums = tf.gather(reach, order, batch_dims=1), tf.cumsum(tf.gather(weights, order), axis=1)
    first = tf.argmax(sums >= share * (1.0 - ROUNDING) * sums[:, -1:], axis=1)
    window = tf.gather(reach, first, batch_dims=1)
    return tf.concat([window[:3], -window[3:]], axis=0)


def mean_mask(members, window):
    """The mean of masks over a window, weighted by scores; outside its own window a mask is 0.

    Args:
      members: dict of windows [M, 6], scores [M] and masks [M, m, m, m], float32.
      window: [6] float32, voxels.

    Returns:
      [m, m, m] float32.
    """
    boxes, masks = members["windows"], members["masks"]
    masks = mask_ops.crop(masks, boxes, tf.broadcast_to(window, tf.shape(boxes)))
    for axis in range(3):
        size = masks.shape[axis + 1]
        steps = (tf.range(size, dtype=tf.float32) + 0.5) / size
        centres = window[axis] + (window[axis + 3] - window[axis]) * steps
        inside = (centres >= boxes[:, axis, tf.newaxis]) & (centres < boxes[:, axis + 3, tf.newaxis])
        layout = [-1] + [size if a == axis else 1 for a in range(3)]
        masks = tf.where(tf.reshape(inside, layout), masks, 0.0)
    return weighted_mean(masks, members["scores"])


def weighted_mean(values, weights):
    """The mean of values [M, ...] with weights [M]."""
    return tf.math.divide_no_nan(tf.tensordot(weights, values, 1), tf.reduce_sum(weights))
