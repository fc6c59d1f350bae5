"""The heads over rois that a config asks for."""

import dataclasses

from model.attribute_head import AttributeHead
from model.box_head import BoxHead
from model.keypoint_head import KeypointHead
from model.mask_head import MaskHead
from ops import keypoints


def make(config, num_classes, num_attributes, num_keypoints):
    """Makes the heads.

    Args:
      config: the `model` section of a Config.
      num_classes: K, without background.
      num_attributes: T; 0 for no attribute head.
      num_keypoints: N, landmarks that the data gives; 0 for those derived from masks.

    Returns:
      list of BoxHead, one for each stage of a cascade; MaskHead; AttributeHead or None; KeypointHead or None.
    """
    style = style_of_heads(config.style)
    mask, attribute, keypoint = config.mask_head, config.attribute_head, config.keypoint_head
    mask_head = MaskHead(
        num_classes=num_classes,
        channels=mask.channels,
        num_convs=mask.num_convs,
        fine_channels=mask.fine_channels,
        class_agnostic=mask.class_agnostic,
        style=style,
        name="mask_head",
    )
    attribute_head = keypoint_head = None
    if num_attributes:
        attribute_head = AttributeHead(
            num_attributes=num_attributes,
            hidden=attribute.hidden,
            num_dense=attribute.num_dense,
            proportional=attribute.sums != "none" and attribute.scale == "log",
            by_layer=attribute.sums_by_layer,
            style=style,
            name="attribute_head",
        )
    if keypoint.enabled:
        keypoint_head = KeypointHead(
            num_keypoints=num_keypoints or len(keypoints.KEYPOINTS),
            channels=keypoint.channels,
            num_convs=keypoint.num_convs,
            style=style,
            name="keypoint_head",
        )
    return _box_heads(config.box_head, num_classes, style), mask_head, attribute_head, keypoint_head


def style_of_heads(style):
    """The style of what is no part of the backbone: what was never trained there cannot be frozen, as in Detectron2."""
    return dataclasses.replace(style, norm="none") if style.norm == "frozen_batch" else style


def _box_heads(config, num_classes, style):
    stages = max(len(config.cascade_ious), 1)
    return [
        BoxHead(
            num_classes=num_classes,
            channels=config.channels,
            num_convs=config.num_convs,
            hidden=config.hidden,
            num_dense=config.num_dense,
            dropout=config.dropout,
            class_agnostic=config.class_agnostic,
            style=style,
            name=f"box_head{stage + 1}" if stages > 1 else "box_head",
        )
        for stage in range(stages)
    ]
