"""What was found in a whole volume, in the form in which it is shown."""

import dataclasses

import numpy as np

from evaluation import report
from ops import masks


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """A volume, its truths and those of its detections that are drawn, D, best first.

    name: of the case. volume: [Z, Y, X] float32, the first channel. spacing: [3] mm.
    labels: [Z, Y, X] int32, i + 1 in the mask of detection i. truth: [Z, Y, X] int32, ids 1..G.
    boxes: [D, 6] and gt_boxes [G, 6] float32 voxels. class_names, gt_class_names: D and G strings. scores: [D] float32.
    """

    name: str
    volume: np.ndarray
    spacing: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    boxes: np.ndarray
    gt_boxes: np.ndarray
    class_names: list
    gt_class_names: list
    scores: np.ndarray

    @property
    def titles(self):
        """Of the detections: "cuboid 0.93"."""
        return [f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores, strict=True)]

    def figure(self):
        """Three slices with what was found above what is true."""
        return report.slices_figure(
            self.volume,
            self.labels,
            self.boxes,
            self.titles,
            spacing=self.spacing,
            centre=None,
            truth=self.truth,
            title=f"{self.name}: {len(self.boxes)} detections, {len(self.gt_boxes)} truths",
        )


def of(found, truth, config, min_score=0.5):
    """The Answer of a pair that an `evaluate.Evaluation` has drawn; detections that score less are left out."""
    shown = found["valid"].numpy() & (found["scores"].numpy() >= min_score)
    count = int(shown.sum())
    names = config.data.classes
    labels = masks.label_volume(
        found["masks"], found["boxes"], shown, truth["instance_ids"].shape, config.model.detections.mask_threshold
    )
    return Answer(
        name=str(truth["name"]),
        volume=truth["volume"][..., 0],
        spacing=np.asarray(truth["spacing"], np.float64),
        labels=labels.numpy(),
        truth=truth["instance_ids"],
        boxes=found["boxes"].numpy()[:count],
        gt_boxes=np.asarray(truth["boxes"]),
        class_names=[names[k - 1] for k in found["class_ids"].numpy()[:count]],
        gt_class_names=[names[k - 1] for k in truth["class_ids"]],
        scores=found["scores"].numpy()[:count],
    )
