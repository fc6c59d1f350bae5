"""Curves, bars and slices as PNG files."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data.atomic import replacing
from evaluation import report
from ops import masks

_DPI = 110
MIN_SCORE = 0.5  # detections that score less are not drawn


def figure(width, height, rows=1, columns=1):
    """An empty figure of so many inches, and its panels [rows, columns]."""
    new = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(new)
    return new, new.subplots(rows, columns, squeeze=False)


def save(path, drawn):
    """Writes a figure; the file is replaced as a whole."""
    with replacing(path) as temporary:
        drawn.savefig(temporary, format="png")


def draw_detections(path, found, example, classes, mask_threshold, title):
    """Draws what was found in a patch above its truth.

    Args:
      path: of the picture.
      found: what the model says of one volume, a dict of arrays without the axis of the batch.
      example: of data/pipeline, likewise.
      classes: names of classes 1..K.
      mask_threshold: a voxel belongs to a detection where its mask is at least this.
      title: of the picture.
    """
    shown = found["valid"] & (found["scores"] >= MIN_SCORE)  # the first ones: they are in the order of their scores
    count, ids = int(shown.sum()), example["instance_ids"]
    labels = masks.label_volume(found["masks"], found["boxes"], shown, ids.shape, mask_threshold).numpy()
    named = zip(found["class_ids"][:count], found["scores"][:count], strict=True)
    names = [f"{classes[class_id - 1]} {score:.2f}" for class_id, score in named]
    boxes, volume = found["boxes"][:count], example["volume"][..., 0]
    report.draw_slices(path, volume, labels, boxes, names, truth=ids, centre=_middle(example), title=title)


def draw_truth(path, example, classes, title):
    """Draws a patch with its truth alone."""
    valid, ids = example["valid"], example["instance_ids"]
    names = [classes[class_id - 1] for class_id in example["class_ids"][valid]]
    # Slots that are empty come last.
    boxes, volume = example["boxes"][valid], example["volume"][..., 0]
    report.draw_slices(path, volume, ids, boxes, names, centre=_middle(example), title=title)


def _middle(example):
    """The centre of the largest truth; None where there is none."""
    box = example["boxes"][0]
    return (box[:3] + box[3:]) / 2 if example["valid"][0] else None
