"""Detections of whole volumes as rows of a table."""

import numpy as np

from evaluation import metrics

_CORNERS = ("z0", "y0", "x0", "z1", "y1", "x1")
COLUMNS = (
    *("case", "class", "score"),
    *_CORNERS,
    *(f"{corner}_mm" for corner in _CORNERS),
    *("volume_mm3", "truth", "truth_class", "iou"),
)


def rows(found, truth, match, config):
    """A row of `COLUMNS` for every detection of a volume.

    Args:
      found: as `VolumeDetector.detect` gives it.
      truth: of data.volumes.of_split.
      match: metrics.VolumeMatch of the two.
      config: Config of the network.

    Returns:
      list of lists. Corners are voxels, and mm from the volume's first voxel; volume_mm3 is that of the mask, counted
      on its own grid; truth is the id of the truth whose mask is matched whatever the class (IoU 0.5), truth_class its
      class and iou their IoU: where none is, None, None and the largest IoU with any.
    """
    names, spacing = config.data.classes, np.asarray(truth["spacing"], np.float64)
    partners = dict(np.transpose(metrics.matched(match)).tolist())
    table = []
    for d, (score, class_id, iou) in enumerate(zip(match.scores, match.class_ids, match.mask_iou, strict=True)):
        box = found["boxes"][d].numpy().astype(np.float64)
        share = np.mean(found["masks"][d].numpy() >= config.model.detections.mask_threshold)
        volume = share * np.prod((box[3:] - box[:3]) * spacing)
        whose = [None, None, iou.max(initial=0.0)]
        if d in partners:
            partner = partners[d]
            whose = [partner + 1, names[match.gt_class_ids[partner] - 1], iou[partner]]
        mm = box * np.tile(spacing, 2)
        table.append(
            [str(truth["name"]), names[class_id - 1], float(score), *box.tolist(), *mm.tolist(), float(volume)]
            + [*whose[:2], float(whose[2])]
        )
    return table
