"""The smallest network that still has every part, and a batch to train it on.

Nothing is a cube: patch, strides, anchors, roi and mask sizes differ along the axes, so that swapped axes show.
"""

import numpy as np

from configs import heads_schema, model_schema, schema
from training import restore

CLASSES = ("plate", "rod")


def config(**train):
    """A validated Config of two classes on patches of (8, 16, 24) voxels; keywords override its `train` section."""
    tiny = schema.Config(name="tiny")
    tiny.data.classes = CLASSES
    tiny.input.patch_size = (8, 16, 24)
    tiny.input.max_instances = 5
    tiny.input.rotate_planes = ()
    tiny.model = model_schema.Model(
        style=model_schema.Style(norm_groups=4),
        backbone=model_schema.Backbone(
            stem_channels=8,
            stem_kernel=(3, 3, 3),
            stem_stride=(1, 2, 2),
            stage_channels=(8, 16),
            stage_blocks=(1, 1),
            stage_kernels=((3, 3, 3), (3, 3, 3)),
            stage_strides=((1, 1, 1), (2, 2, 2)),
        ),
        fpn=model_schema.FPN(channels=8, levels=(2, 3)),
        anchors=model_schema.Anchors(sizes=(((3.0, 4.0, 5.0),), ((5.0, 8.0, 10.0),))),
        rpn=heads_schema.RPN(
            channels=8,
            num_samples=64,
            pre_nms_top_k=64,
            post_nms_top_k=16,
            train_pre_nms_top_k=64,
            train_post_nms_top_k=16,
        ),
        rois=heads_schema.Rois(num_samples=12, positive_fraction=0.33, canonical_size=(5.0, 8.0, 10.0)),
        box_head=heads_schema.BoxHead(roi_size=(2, 3, 4), channels=8, num_convs=1, hidden=32),
        mask_head=heads_schema.MaskHead(roi_size=(2, 3, 4), channels=8, num_convs=1),
        keypoint_head=heads_schema.KeypointHead(roi_size=(2, 3, 4), channels=8, num_convs=1),
        detections=heads_schema.Detections(max_detections=6),
    )
    tiny.train = schema.Train(
        **{"steps": 40, "warmup_steps": 2, "steps_per_loop": 5, "learning_rate": 5e-3, "checkpoint_steps": 20, **train}
    )
    tiny.inference.overlap = (2, 4, 6)
    return tiny.validate()


def model(settings):
    """The network of a Config, with its variables."""
    return restore.make_model(settings)


def batch(settings, seed, *, num_objects=(3, 2)):
    """A training batch as data/pipeline makes it: bright boxes on faint noise.

    Args:
      settings: a Config.
      seed: of the noise, the places and the classes; class 1 is flat along z, class 2 is long along z.
      num_objects: objects drawn in each volume; a later one hides an earlier one where they meet.

    Returns:
      dict of NumPy arrays: volume, instance_ids, boxes, class_ids, attributes, valid, number, rows.
    """
    rng = np.random.default_rng(seed)
    shape, slots = settings.input.patch_size, settings.input.max_instances
    volume = rng.normal(0.0, 0.1, (len(num_objects), *shape, settings.input.channels)).astype(np.float32)
    ids = np.zeros((len(num_objects), *shape), np.int32)
    class_ids = np.zeros((len(num_objects), slots), np.int32)
    for item, count in enumerate(num_objects):
        for slot in range(count):
            kind = int(rng.integers(len(settings.data.classes)))
            size = np.array([(2, 6, 9), (6, 4, 5)][kind])
            lo = [int(rng.integers(limit - edge + 1)) for limit, edge in zip(shape, size, strict=True)]
            where = (item, *(slice(a, a + int(edge)) for a, edge in zip(lo, size, strict=True)))
            volume[where] += 1.0 + kind - volume[where].round()
            ids[where] = slot + 1
            class_ids[item, slot] = kind + 1
    return truth(volume, ids, class_ids)


def truth(volume, ids, class_ids):
    """The batch of volumes [B, Z, Y, X, C], ids [B, Z, Y, X] and classes [B, G]; boxes and valid come from the ids."""
    slots = class_ids.shape[1]
    boxes = np.zeros((len(ids), slots, 6), np.float32)
    valid = np.zeros((len(ids), slots), bool)
    for item, slot in np.ndindex(*valid.shape):
        where = np.argwhere(ids[item] == slot + 1)
        if len(where):
            boxes[item, slot] = [*where.min(axis=0), *(where.max(axis=0) + 1)]
            valid[item, slot] = True
    return {
        "volume": volume,
        "instance_ids": ids,
        "boxes": boxes,
        "class_ids": np.where(valid, class_ids, 0).astype(np.int32),
        "attributes": np.zeros((len(ids), slots, 0), np.float32),
        "valid": valid,
        "number": np.arange(len(ids)),
        "rows": np.arange(len(ids), dtype=np.int32)[:, np.newaxis],
    }


def exhaustive(settings):
    """The Config with more samples than there are anchors and rois, so that no draw decides what trains."""
    settings.model.rpn.num_samples = 4000
    settings.model.rois.num_samples = 80
    return settings.validate()
