"""The answer for one volume as files: table rows, CSV, JSON."""

import csv
import json

import numpy as np

from data.atomic import replacing

BOX = ("z0", "y0", "x0", "z1", "y1", "x1")
CENTRE = ("centre_x_mm", "centre_y_mm", "centre_z_mm")
COLUMNS = ("id", "class", "score", *BOX, *CENTRE, "voxels", "volume_mm3")


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


def rows(detections, classes, volume):
    """One table row per detection.

    Args:
      detections: dict of arrays as `VolumeDetector.segment` returns it.
      classes: names of classes 1..K.
      volume: data.readers.Volume of the source, for spacing and affine.

    Returns:
      list of dict with COLUMNS: id (the label in the label volume), class, score, box in voxels, its centre in the
      source's world coordinates, voxels and mm^3 of the label (what better detections cover is theirs).
    """
    count = int(detections["num_detections"])
    voxels = np.bincount(detections["labels"].ravel(), minlength=count + 1)[1:]
    voxel_mm3 = float(np.prod(volume.spacing))
    table = []
    for row in range(count):
        box = detections["boxes"][row]
        # The affine maps indices, whose integers are voxel centres: half a voxel less than box coordinates.
        centre = volume.affine @ np.append((box[:3] + box[3:]) / 2 - 0.5, 1.0)
        values = [
            row + 1,
            classes[int(detections["class_ids"][row]) - 1],
            round(float(detections["scores"][row]), 4),
            *(round(float(edge), 2) for edge in box),
            *(round(float(coordinate), 3) for coordinate in centre[:3]),
            int(voxels[row]),
            round(float(voxels[row]) * voxel_mm3, 3),
        ]
        table.append(dict(zip(COLUMNS, values, strict=True)))
    return table


def write_csv(path, table):
    """Writes the rows as CSV with a header; an empty table has the header alone."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table)


def write_json(path, table, source):
    """Writes the rows as JSON with the name of the source file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"source": source, "detections": table}, indent=2) + "\n")
