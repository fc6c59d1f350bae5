"""Whole volumes of any size: tiles of the patch size in, one set of detections and a label volume out.

Everything is TensorFlow, so the SavedModel does the same as `predict_main.py` from a checkpoint.
"""

import tensorflow as tf

from data import intensity
from model import detections
from ops import boxes as box_ops
from ops import masks as mask_ops
from ops import nms3d, tiles
from serving.views import Views

# A box this near (voxels) to a face that its tile shares with the volume's inside may be cut there.
CUT_MARGIN = 1.5
# What the score of a cut box is worth against that of a whole one.
CUT_DISCOUNT = 0.5
# A cut box of which a better box of its class holds this share is a piece of it.
PIECE_SHARE = 0.5
# What rows hold beside, of networks that have the heads for it.
MEASURED = ("attributes", "keypoints", "keypoint_scores")


class VolumeDetector(tf.Module):
    """Finds the objects of whole volumes."""

    def __init__(self, model, config):
        """Wraps a trained network.

        Args:
          model: MaskRCNN, built.
          config: the Config that it was trained with.
        """
        super().__init__()
        self.model = model
        self.patch_size = tuple(config.input.patch_size)
        self.input_config = config.input
        self.overlap = tuple(config.inference.overlap)
        self.merge_iou = config.inference.merge_iou
        self.exclusive_iou = config.inference.exclusive_iou
        self.max_detections = config.inference.max_detections
        self.mask_threshold = config.model.detections.mask_threshold
        volume = tf.TensorSpec([None, None, None, config.input.channels], tf.float32, name="volume")
        patches = tf.TensorSpec([None, *self.patch_size, config.input.channels], tf.float32, name="volume")
        # The one trace of the network, which all that is traced below and exported shares.
        find = tf.function(lambda volume: model.find(volume), input_signature=[patches], autograph=False)

        def answer(volume):
            return detections.cut(find(volume), shape=self.patch_size, detections=config.model.detections)

        self.network = tf.function(answer, input_signature=[patches], autograph=False)
        self.look = Views(find, config)
        self.detect = tf.function(self._detect, input_signature=[volume], autograph=False)
        self.segment = tf.function(self._segment, input_signature=[volume], autograph=False)

    def _segment(self, volume):
        """Detections and the label volume of a volume as it comes from a file.

        Args:
          volume: [Z, Y, X, C] float32, intensities of the source.

        Returns:
          What `detect` returns, but with one class for each object, and labels [Z, Y, X] int32: row d of the
          detections has label d + 1; where masks overlap the better score wins.
        """
        found = self.one_class_each(self._detect(intensity.normalize(volume, self.input_config)))
        found["labels"] = mask_ops.label_volume(
            found["masks"], found["boxes"], found["valid"], tf.shape(volume)[:3], self.mask_threshold
        )
        return found

    def _detect(self, volume):
        """Detections of a normalised volume.

        Args:
          volume: [Z, Y, X, C] float32, normalised.

        Returns:
          dict, best first and padded to `inference.max_detections`: boxes [D, 6] float32 voxels, scores [D] float32,
          class_ids [D] int32, masks [D, M, M, M] float32 over the box, valid [D] bool, num_detections int32, is_full
          bool: whether there may have been more than `inference.max_detections`. With an attribute head attributes
          [D, T] float32; with a keypoint head keypoints [D, N, 3] float32 voxels and keypoint_scores [D, N] float32.
        """
        shape = tf.shape(volume)[:3]
        missing = tf.maximum(tf.constant(self.patch_size) - shape, 0)
        padded = tf.pad(volume, tf.stack([tf.zeros(4, tf.int32), tf.concat([missing, [0]], axis=0)], axis=1))
        starts = tiles.tile_starts(shape, self.patch_size, self.overlap)

        def one_tile(start):
            tile = tf.slice(padded, tf.concat([start, [0]], axis=0), [*self.patch_size, volume.shape[-1]])
            answer = self.look(tile)
            return {**answer, "masks": tf.cast(answer["masks"], tf.float16)}

        outputs = self.network.get_concrete_function().structured_outputs
        signature = {name: tf.TensorSpec(spec.shape[1:], spec.dtype) for name, spec in outputs.items()}
        # The masks of all tiles are most of what a large volume takes; 16 bits hold a probability to 0.0005.
        signature["masks"] = tf.TensorSpec(signature["masks"].shape, tf.float16)
        # One tile at a time: the network itself uses all cores.
        found = tf.map_fn(one_tile, starts, fn_output_signature=signature, parallel_iterations=1)
        return self._merge(found, starts, shape)

    def one_class_each(self, found):
        """Drops detections that overlap a better one of any class by more than `inference.exclusive_iou`.

        Args:
          found: dict as `detect` returns it.

        Returns:
          A dict of the same shapes; what stays has closed ranks.
        """
        scores = tf.where(found["valid"], found["scores"], float("nan"))
        index, valid = nms3d.nms3d(
            found["boxes"], scores, iou_threshold=self.exclusive_iou, max_outputs=self.max_detections
        )
        names = ("boxes", "scores", "class_ids", "masks", *(name for name in MEASURED if name in found))
        rows = {name: _only(valid, tf.gather(found[name], index)) for name in names}
        count = tf.reduce_sum(tf.cast(valid, tf.int32))
        return {**rows, "valid": valid, "num_detections": count, "is_full": found["is_full"]}

    def _merge(self, found, starts, shape):
        """One answer per object from the detections of all tiles: a dict as `_detect` returns it."""
        measured = {name: found[name] for name in MEASURED if name in found}
        starts = tf.cast(starts, tf.float32)[:, tf.newaxis]  # [N, 1, 3]
        boxes = found["boxes"] + tf.concat([starts, starts], axis=-1)  # [N, D, 6]
        is_cut = tf.reshape(self._is_cut(boxes, starts, shape), [-1])
        unclipped = tf.reshape(boxes, [-1, 6])
        boxes = box_ops.clip(unclipped, shape)
        scores, class_ids = tf.reshape(found["scores"], [-1]), tf.reshape(found["class_ids"], [-1])
        # Padding, and boxes that lie wholly in what was padded to fill a tile, are never kept.
        is_real = tf.reshape(found["valid"], [-1]) & (box_ops.volume(boxes) > 0.0)

        # A whole object goes before a cut one, unless it is much weaker. Twice as many as asked for, so that weak
        # whole objects do not push good cut ones out before the final order, by score, is made.
        rank = tf.where(is_real, tf.where(is_cut, CUT_DISCOUNT * scores, scores), float("nan"))
        index, valid = nms3d.nms3d(
            boxes, rank, class_ids=class_ids, iou_threshold=self.merge_iou, max_outputs=2 * self.max_detections
        )
        kept_boxes, kept_classes = tf.gather(boxes, index), tf.gather(class_ids, index)
        no_place_left = tf.reduce_all(valid)
        valid &= ~(tf.gather(is_cut, index) & _is_piece(kept_boxes, kept_classes, valid))
        scores = tf.where(valid, tf.gather(scores, index), 0.0)

        order = tf.argsort(tf.where(valid, scores, -1.0), direction="DESCENDING", stable=True)
        is_full = no_place_left | (tf.math.count_nonzero(valid) > self.max_detections)
        order = order[: self.max_detections]
        index, valid = tf.gather(index, order), tf.gather(valid, order)
        masks = tf.gather(tf.reshape(found["masks"], [-1, *found["masks"].shape[2:]]), index)
        masks = mask_ops.crop(tf.cast(masks, tf.float32), tf.gather(unclipped, index), tf.gather(boxes, index))
        if "keypoints" in measured:
            # Clipped as the boxes are.
            moved = measured["keypoints"] + starts[:, :, tf.newaxis]  # [N tiles, D, landmarks, 3]
            measured["keypoints"] = tf.clip_by_value(moved, 0.0, tf.cast(shape, tf.float32))
        for name, values in measured.items():
            measured[name] = _only(valid, tf.gather(tf.reshape(values, [-1, *values.shape[2:]]), index))
        return {
            "boxes": _only(valid, tf.gather(boxes, index)),
            "scores": tf.gather(scores, order),
            "class_ids": _only(valid, tf.gather(class_ids, index)),
            "masks": _only(valid, masks),
            **measured,
            "valid": valid,
            "num_detections": tf.reduce_sum(tf.cast(valid, tf.int32)),
            "is_full": is_full,
        }

    def _is_cut(self, boxes, starts, shape):
        """Whether a box reaches a face of its tile behind which the volume goes on: [N, D] bool."""
        shape, size = tf.cast(shape, tf.float32), tf.constant(self.patch_size, tf.float32)
        stops = starts + size
        below = (boxes[..., :3] <= starts + CUT_MARGIN) & (starts > 0.0)
        above = (boxes[..., 3:] >= stops - CUT_MARGIN) & (stops < shape)
        return tf.reduce_any(below | above, axis=-1)


def _only(valid, values):
    """Rows [D, ...], 0 where not valid."""
    return tf.where(tf.reshape(valid, [-1] + [1] * (values.shape.rank - 1)), values, tf.zeros_like(values))


def _is_piece(boxes, class_ids, valid):
    """Whether an earlier box of the same class holds most of a box: [D] bool."""
    lo = tf.maximum(boxes[:, tf.newaxis, :3], boxes[tf.newaxis, :, :3])
    hi = tf.minimum(boxes[:, tf.newaxis, 3:], boxes[tf.newaxis, :, 3:])
    shared = tf.reduce_prod(tf.maximum(hi - lo, 0.0), axis=-1)  # [D, D]
    share = tf.math.divide_no_nan(shared, box_ops.volume(boxes)[:, tf.newaxis])
    rows = tf.range(tf.shape(boxes)[0])
    is_earlier = rows[tf.newaxis, :] < rows[:, tf.newaxis]
    same_class = class_ids[:, tf.newaxis] == class_ids[tf.newaxis, :]
    return tf.reduce_any((share > PIECE_SHARE) & is_earlier & same_class & valid[tf.newaxis, :], axis=1)
