"""The answer for one volume as files: table rows, CSV, JSON."""

import csv
import json

import numpy as np

from data.atomic import replacing
from ops.keypoints import KEYPOINTS

BOX = ("z0", "y0", "x0", "z1", "y1", "x1")
CENTRE = ("centre_x_mm", "centre_y_mm", "centre_z_mm")
COLUMNS = ("id", "class", "score", *BOX, *CENTRE, "voxels", "volume_mm3")
LANDMARK = ("z", "y", "x", "x_mm", "y_mm", "z_mm", "score")


def columns(detections, attributes, keypoints=()):
    """The columns of a table: COLUMNS, then attribute_<name> each, and <landmark>_<LANDMARK> each where there are any.

    Args:
      detections: dict of arrays as `VolumeDetector.segment` returns it.
      attributes: names of what the attribute head measures; may be empty.
      keypoints: names of the landmarks that the data gives, whose columns begin with keypoint_; empty for those derived
        from masks.
    """
    # A user's names may be those of other columns.
    landmarks = ([f"keypoint_{name}" for name in keypoints] or KEYPOINTS) if "keypoints" in detections else ()
    return (
        *COLUMNS,
        *(f"attribute_{name}" for name in attributes),
        *(f"{landmark}_{name}" for landmark in landmarks for name in LANDMARK),
    )


def confident(detections, min_score):
    """The detections that score at least `min_score`, and the label volume of these alone.

    Args:
      detections: dict of arrays as `VolumeDetector.segment` returns it, best first.
      min_score: in [0, 1].

    Returns:
      dict like `detections` with num_detections and labels changed. As a better detection is never covered by a worse
      one, labels of the others turn into background and nothing else changes.
    """
    count = int(np.sum(detections["valid"] & (detections["scores"] >= min_score)))
    labels = np.where(detections["labels"] <= count, detections["labels"], 0)
    return {**detections, "num_detections": count, "labels": labels}


def rows(detections, classes, volume, attributes=(), keypoints=()):
    """One table row per detection.

    Args:
      detections: dict of arrays as `VolumeDetector.segment` returns it.
      classes: names of classes 1..K.
      volume: data.readers.Volume of the source, for spacing and affine.
      attributes, keypoints: as for `columns`.

    Returns:
      list of dict with `columns`: id (the label in the label volume), class, score, box in voxels, its centre in the
      source's world coordinates, voxels and mm^3 of the label (what better detections cover is theirs); each
      attribute; of each landmark voxels, the source's world coordinates and score.
    """
    names = columns(detections, attributes, keypoints)
    count = int(detections["num_detections"])
    voxels = np.bincount(detections["labels"].ravel(), minlength=count + 1)[1:]
    voxel_mm3 = float(np.prod(volume.spacing))
    table = []
    for row in range(count):
        box = detections["boxes"][row]
        values = [
            row + 1,
            classes[int(detections["class_ids"][row]) - 1],
            round(float(detections["scores"][row]), 4),
            *(round(float(edge), 2) for edge in box),
            *_world((box[:3] + box[3:]) / 2, volume),
            int(voxels[row]),
            round(float(voxels[row]) * voxel_mm3, 3),
        ]
        # Six digits of numbers of any size.
        values += [float(f"{detections['attributes'][row, i]:.6g}") for i in range(len(attributes))]
        if "keypoints" in detections:
            for point, score in zip(detections["keypoints"][row], detections["keypoint_scores"][row], strict=True):
                values += [*(round(float(at), 2) for at in point), *_world(point, volume), round(float(score), 4)]
        table.append(dict(zip(names, values, strict=True)))
    return table


def _world(point, volume):
    """World coordinates (x, y, z) in mm of a point (z, y, x) in voxels."""
    # The affine maps indices, whose integers are voxel centres: half a voxel less than box coordinates.
    return [round(float(mm), 3) for mm in (volume.affine @ np.append(point - 0.5, 1.0))[:3]]


def write_csv(path, table, names=COLUMNS):
    """Writes the rows as CSV with a header of `names`; an empty table has the header alone."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)


def write_json(path, table, source):
    """Writes the rows as JSON with the name of the source file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"source": source, "detections": table}, indent=2) + "\n")
