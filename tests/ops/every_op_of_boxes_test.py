"""What all ops that take boxes have in common: which types they take, and that the rank has to be known."""

import numpy as np
import pytest
import tensorflow as tf

from ops import anchors as anchor_ops
from ops import box_losses, masks, matching, nms3d, overlaps, roi_align3d, roi_levels, roi_pool3d, roi_sum3d, soft_nms3d
from ops import boxes as box_ops
from ops.atss import atss
from ops.box_clustering import weighted_box_clustering

SHAPE = (5, 7, 11)
# Whole corners, so that integers hold them too; the second lies in the first.
BOXES = np.float32([[0, 1, 2, 4, 6, 9], [1, 1, 2, 4, 6, 8], [2, 0, 5, 5, 3, 11]])
BATCH = BOXES[np.newaxis]
SCORES = np.float32([0.9, 0.8, 0.7])
ALL = np.array([True] * 3)
FEATURES = np.arange(2 * 4 * 3, dtype=np.float32).reshape(1, 2, 4, 3, 1)
IDS = (np.arange(5 * 7 * 11) % 3).reshape(1, *SHAPE).astype(np.int32)
MASKS = np.linspace(0, 1, 3 * 2 * 3 * 4, dtype=np.float32).reshape(3, 2, 3, 4)
POOLING = {"output_size": 2, "stride": (2, 2, 4)}
PYRAMID = {"strides": [(2, 2, 4)], "canonical_size": 4, "canonical_level": 0}
NMS = {"iou_threshold": 0.3, "max_outputs": 2}
MATCH = {"high": 0.5, "low": 0.2}

# What is called: the boxes that it takes by name, and the call.
CASES = {
    "volume": ({"boxes": BOXES}, box_ops.volume),
    "intersection": ({"boxes_a": BOXES, "boxes_b": BOXES[::-1]}, box_ops.intersection),
    "iou": ({"boxes_a": BOXES, "boxes_b": BOXES[::-1]}, box_ops.iou),
    "iou_matrix": ({"boxes_a": BOXES, "boxes_b": BOXES[:2]}, box_ops.iou_matrix),
    "encode": ({"boxes": BOXES, "anchors": BOXES[::-1]}, box_ops.encode),
    "decode": ({"deltas": BOXES / 16, "anchors": BOXES}, box_ops.decode),
    "grow": ({"boxes": BOXES}, lambda boxes: box_ops.grow(boxes, (1, 0, 2), (3, 5, 7))),
    "clip": ({"boxes": BOXES}, lambda boxes: box_ops.clip(boxes, (3, 5, 7))),
    "flip": ({"boxes": BOXES}, lambda boxes: box_ops.flip(boxes, SHAPE, (0, 2))),
    "scale": ({"boxes": BOXES}, lambda boxes: box_ops.scale(boxes, (2, 1, 0.5))),
    "to_mm": ({"boxes": BOXES}, lambda boxes: box_ops.to_mm(boxes, (2, 1, 0.5), (1, 2, 3))),
    "from_mm": ({"boxes_mm": BOXES}, lambda boxes_mm: box_ops.from_mm(boxes_mm, (2, 1, 0.5), (1, 2, 3))),
    "giou": ({"boxes_a": BOXES, "boxes_b": BOXES[::-1]}, overlaps.giou),
    "diou": ({"boxes_a": BOXES, "boxes_b": BOXES[::-1]}, overlaps.diou),
    "ciou": ({"boxes_a": BOXES, "boxes_b": BOXES[::-1]}, overlaps.ciou),
    "giou_matrix": ({"boxes_a": BOXES, "boxes_b": BOXES[:2]}, overlaps.giou_matrix),
    "diou_matrix": ({"boxes_a": BOXES, "boxes_b": BOXES[:2]}, overlaps.diou_matrix),
    "ciou_matrix": ({"boxes_a": BOXES, "boxes_b": BOXES[:2]}, overlaps.ciou_matrix),
    "giou_loss": (
        {"predictions": BATCH, "targets": BATCH[:, ::-1]},
        lambda **boxes: box_losses.giou_loss(**boxes, mask=ALL[None]),
    ),
    "diou_loss": (
        {"predictions": BATCH, "targets": BATCH[:, ::-1]},
        lambda **boxes: box_losses.diou_loss(**boxes, mask=ALL[None]),
    ),
    "ciou_loss": (
        {"predictions": BATCH, "targets": BATCH[:, ::-1]},
        lambda **boxes: box_losses.ciou_loss(**boxes, mask=ALL[None]),
    ),
    "crosses_boundary": (
        {"anchors": BOXES},
        lambda anchors: anchor_ops.crosses_boundary(anchors, (4, 6, 9)),
    ),
    "atss": (
        {"anchors": BOXES, "boxes": BATCH},
        lambda anchors, boxes: atss(anchors, (2, 1), boxes, ALL[None], candidates_per_level=1),
    ),
    "match_boxes": (
        {"anchors": BOXES, "boxes": BOXES[:2]},
        lambda anchors, boxes: matching.match_boxes(anchors, boxes, ALL[:2], **MATCH),
    ),
    "match": ({"iou": BOXES[:, :3] / 8}, lambda iou: matching.match(iou, ALL, **MATCH)),
    "nms3d": ({"boxes": BOXES, "scores": SCORES}, lambda boxes, scores: nms3d.nms3d(boxes, scores, **NMS)),
    "batched_nms3d": (
        {"boxes": BATCH, "scores": SCORES[None]},
        lambda boxes, scores: nms3d.batched_nms3d(boxes, scores, **NMS),
    ),
    "overlapping_pairs": (
        {"boxes": BOXES, "others": BOXES[:2]},
        lambda boxes, others: nms3d.overlapping_pairs(boxes, others, 0.3),
    ),
    "soft_nms3d": (
        {"boxes": BOXES, "scores": SCORES},
        lambda boxes, scores: soft_nms3d.soft_nms3d(boxes, scores, **NMS),
    ),
    "batched_soft_nms3d": (
        {"boxes": BATCH, "scores": SCORES[None]},
        lambda boxes, scores: soft_nms3d.batched_soft_nms3d(boxes, scores, **NMS),
    ),
    "weighted_box_clustering": (
        {"boxes": BOXES, "scores": SCORES, "weights": SCORES},
        lambda boxes, scores, weights: weighted_box_clustering(boxes, scores, weights=weights, **NMS),
    ),
    "roi_levels": ({"boxes": BATCH}, lambda boxes: roi_levels.roi_levels(boxes, num_levels=1, **PYRAMID)),
    "roi_align3d": ({"boxes": BATCH}, lambda boxes: roi_align3d.roi_align3d(FEATURES, boxes, **POOLING)),
    "multilevel_roi_align3d": (
        {"boxes": BATCH},
        lambda boxes: roi_align3d.multilevel_roi_align3d([FEATURES], boxes, output_size=2, **PYRAMID),
    ),
    "roi_pool3d": ({"boxes": BATCH}, lambda boxes: roi_pool3d.roi_pool3d(FEATURES, boxes, **POOLING)),
    "multilevel_roi_pool3d": (
        {"boxes": BATCH},
        lambda boxes: roi_pool3d.multilevel_roi_pool3d([FEATURES], boxes, output_size=2, **PYRAMID),
    ),
    "roi_sum3d": ({"boxes": BATCH}, lambda boxes: roi_sum3d.roi_sum3d(FEATURES, boxes, output_size=2)),
    "mask_targets": ({"boxes": BATCH}, lambda boxes: masks.mask_targets(IDS, boxes, np.int32([[0, 1, 0]]), 2)),
    "covered_voxels": ({"boxes": BOXES}, lambda boxes: masks.covered_voxels(boxes, SHAPE)),
    "resample": (
        {"mask": MASKS[0], "box": BOXES[0]},
        lambda mask, box: masks.resample(mask, box, (1, 1, 3), (4, 5, 6)),
    ),
    "crop": ({"masks": MASKS, "boxes": BOXES, "parts": BOXES}, masks.crop),
    "tight_boxes": (
        {"masks": MASKS[None], "boxes": BATCH},
        lambda **found: masks.tight_boxes(**found, shape=SHAPE),
    ),
    "shrink": (
        {"masks": MASKS[None], "windows": BATCH, "boxes": BATCH},
        lambda **found: masks.shrink(**found, shape=SHAPE),
    ),
    "paste": ({"masks": MASKS, "boxes": BOXES}, lambda **found: masks.paste(**found, valid=ALL, shape=SHAPE)),
    "label_volume": (
        {"masks": MASKS, "boxes": BOXES},
        lambda **found: masks.label_volume(**found, valid=ALL, shape=SHAPE),
    ),
}
ARGUMENTS = [(case, name) for case, (boxes, _) in CASES.items() for name in boxes]


def call(case, **changes):
    """All results of a call, one after the other."""
    boxes, function = CASES[case]
    return tf.nest.flatten(function(**boxes | changes))


@pytest.mark.parametrize(("case", "name"), ARGUMENTS)
class EveryOpOfBoxesTest:
    def test_array_of_float64_counts_as_float32(self, case, name):
        expected, wide = call(case), CASES[case][0][name].astype(np.float64)
        for result, right in zip(call(case, **{name: wide * (1 + 1e-12)}), expected, strict=True):
            assert result.dtype == right.dtype != tf.float64
            np.testing.assert_array_equal(result, right)

    def test_array_of_integers_counts_as_float32(self, case, name):
        whole = np.round(CASES[case][0][name])
        expected = call(case, **{name: whole})
        for dtype in (np.int32, np.int64, np.uint8):
            for result, right in zip(call(case, **{name: whole.astype(dtype)}), expected, strict=True):
                assert result.dtype == right.dtype
                np.testing.assert_array_equal(result, right)

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.int32])
    def test_tensor_of_another_type_raises(self, case, name, dtype):
        with pytest.raises(ValueError, match=rf"^expected {name} as float32, came {dtype.name}$"):
            call(case, **{name: tf.cast(CASES[case][0][name], dtype)})

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
    def test_array_of_half_precision_raises(self, case, name, dtype):
        with pytest.raises(ValueError, match=rf"^expected {name} as float32, came {dtype.name}$"):
            call(case, **{name: CASES[case][0][name].astype(dtype.as_numpy_dtype)})

    def test_unknown_rank_raises(self, case, name):
        run = tf.function(lambda tensor: call(case, **{name: tensor}), input_signature=[tf.TensorSpec(None)])
        with pytest.raises(ValueError, match=rf"expected {name} of a known rank, came one of unknown rank"):
            run.get_concrete_function()
