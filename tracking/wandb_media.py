"""What wandb shows beside numbers: pictures, slices with boxes and masks, clouds of points, curves, tables."""

import itertools

import numpy as np
import wandb

from evaluation import listing, report
from tracking import curves, tensorboard

# Points of a cloud for what was found, and as many for the truth.
MOST_POINTS = 20_000
BINS = 64  # of a histogram


def of_evaluation(evaluation, answers, images, classes, split):
    """Everything but the numbers of an evaluation.

    Args:
      evaluation: evaluation.evaluate.Evaluation.
      answers: list of answers.Answer, of those volumes that are drawn.
      images: their pictures, list of [height, width, 3] uint8.
      classes: names of classes 1..K.
      split: which volumes, "val".

    Returns:
      dict of name -> wandb's media.
    """
    found = {
        f"{split}/precision_recall": _lines(curves.precision_recall(evaluation.matches, classes)),
        f"{split}/detections": wandb.Table(list(listing.COLUMNS), [list(row) for row in evaluation.rows]),
    }
    if answers:
        found[f"{split}/pictures"] = [
            wandb.Image(image, caption=each.name) for image, each in zip(images, answers, strict=True)
        ]
        found[f"{split}/slices"] = [slice_overlay(each, classes) for each in answers]
        found[f"{split}/clouds"] = [wandb.Object3D(cloud(each), caption=each.name) for each in answers]
    return found


def of_inspection(internals, images):
    """Histograms of training.internals.Internals, and pictures, as wandb's media: {name: media}."""
    found = {name: wandb.Image(image) for name, image in images.items()}
    for kind, arrays in internals._asdict().items():
        for name, values in arrays.items():
            counts = np.histogram(tensorboard.finite_sample(values), BINS)
            found[f"{kind}/{name}"] = wandb.Histogram(np_histogram=counts)
    return found


def slice_overlay(answer, classes):
    """The slice across z through the best detection, or the middle, with masks and boxes that wandb can switch off."""
    depth, names = len(answer.volume), dict(enumerate(classes, start=1))
    z = depth // 2
    if len(answer.boxes):
        z = int(np.clip((answer.boxes[0, 0] + answer.boxes[0, 3]) / 2, 0, depth - 1))
    classes_of = {name: class_id for class_id, name in names.items()}
    boxes, masks = {}, {}
    for kind, ids, all_boxes, own in (
        ("detections", answer.labels, answer.boxes, answer.class_names),
        ("truth", answer.truth, answer.gt_boxes, answer.gt_class_names),
    ):
        titles = answer.titles if kind == "detections" else own
        boxes[kind] = {
            "box_data": [
                _flat_box(box, classes_of[name], title)
                for box, name, title in zip(all_boxes, own, titles, strict=True)
                if box[0] <= z + 0.5 < box[3]
            ],
            "class_labels": names,
        }
        of_ids = np.array([0, *(classes_of[name] for name in own)])
        masks[kind] = {"mask_data": of_ids[ids[z]].astype(np.uint8), "class_labels": names}
    low, high = report.grey_window(answer.volume)
    grey = (255 * np.clip((answer.volume[z] - low) / (high - low), 0, 1)).astype(np.uint8)
    return wandb.Image(grey, boxes=boxes, masks=masks, caption=f"{answer.name}, z = {z}")


def cloud(answer):
    """Points and boxes in space, as wandb.Object3D takes them, in mm along (x, y, z).

    What was found has the colours of the picture and its titles, the truth is white.
    """
    found, truth = report.detection_colours(len(answer.boxes)), np.ones((int(answer.truth.max(initial=0)) + 1, 3))
    points = [_points(answer.labels, found, answer.spacing), _points(answer.truth, truth, answer.spacing)]
    boxes = [
        _solid_box(box, title, colour, answer.spacing)
        for box, title, colour in itertools.chain(
            zip(answer.boxes, answer.titles, found[1:], strict=True),
            (
                (box, f"truth {name}", np.ones(3))
                for box, name in zip(answer.gt_boxes, answer.gt_class_names, strict=True)
            ),
        )
    ]
    return {"type": "lidar/beta", "points": np.concatenate(points), "boxes": np.array(boxes, object)}


def _lines(found):
    """A chart of `curves.precision_recall`; wandb wants at least one line of at least one point."""
    lines = {name: (r.tolist(), p.tolist()) for name, (r, p) in found.items() if len(r)} or {"pooled": ([0.0], [0.0])}
    xs, ys = zip(*lines.values(), strict=True)
    return wandb.plot.line_series(list(xs), list(ys), keys=list(lines), title="precision by recall", xname="recall")


def _flat_box(box, class_id, title):
    lo, hi = box[:3], box[3:]
    position = {"minX": float(lo[2]), "maxX": float(hi[2]), "minY": float(lo[1]), "maxY": float(hi[1])}
    return {"position": position, "domain": "pixel", "class_id": class_id, "box_caption": title}


def _points(ids, colours, spacing):
    """Centres of the voxels that have an id, at most MOST_POINTS of them, with its colour: [N, 6]."""
    voxels = np.argwhere(ids > 0)
    voxels = voxels[:: max(1, -(-len(voxels) // MOST_POINTS))]
    places = (voxels + 0.5) * spacing
    return np.concatenate([places[:, ::-1], np.round(255 * colours[ids[tuple(voxels.T)]])], axis=1)


def _solid_box(box, title, colour, spacing):
    ends = np.reshape(box, (2, 3)) * spacing  # lo and hi
    corners = [
        [float(ends[i, 2]), float(ends[j, 1]), float(ends[k, 0])] for i, j, k in itertools.product((0, 1), repeat=3)
    ]
    return {"corners": corners, "label": title, "color": [round(255 * float(part)) for part in colour]}
