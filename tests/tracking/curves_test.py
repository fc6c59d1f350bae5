import numpy as np
import pytest

from evaluation import metrics
from tests.tracking import cases
from tracking import curves, pixels

CLASSES = ("plate", "rod")


def random_match(seed):
    """A volume in which a detection overlaps at most one truth."""
    rng = np.random.default_rng(seed)
    num_detections, num_truths = rng.integers(0, 7), rng.integers(0, 5)
    iou = np.zeros((num_detections, num_truths), np.float32)
    for detection in range(num_detections):
        if num_truths:
            iou[detection, rng.integers(num_truths)] = rng.uniform()
    return metrics.VolumeMatch(
        box_iou=iou,
        mask_iou=iou,
        scores=rng.uniform(size=num_detections).astype(np.float32),
        class_ids=rng.integers(1, 3, num_detections).astype(np.int32),
        gt_class_ids=rng.integers(1, 3, num_truths).astype(np.int32),
    )


class PrecisionRecallTest:
    def test_worked_by_hand(self):
        # Best first: right, wrong, wrong class, right at IoU 0.5.
        found = curves.precision_recall(cases.evaluation(cases.config()).matches, CLASSES)
        assert list(found) == ["pooled", "plate", "rod"]
        np.testing.assert_allclose(found["pooled"], [[0.5, 0.5, 0.5, 1.0], [1.0, 0.5, 0.5, 0.5]])
        np.testing.assert_allclose(found["plate"], [[1.0, 1.0, 1.0], [1.0, 1 / 2, 1 / 3]], rtol=1e-6)
        np.testing.assert_allclose(found["rod"], [[1.0], [1.0]])

    @pytest.mark.parametrize("seed", range(5))
    def test_the_area_below_is_the_average_precision(self, seed):
        matches = [random_match(10 * seed + i) for i in range(4)]
        table = metrics.summarize(matches, CLASSES)["mask_ap"]["0.50"]
        found = curves.precision_recall(matches, CLASSES)
        assert {name for name in ("pooled", *CLASSES) if table[name] is not None} == set(found)
        for name, (recall, precision) in found.items():
            area = np.sum(np.diff(recall, prepend=0.0) * precision)
            assert area == pytest.approx(table[name], abs=1e-6)
            assert (np.diff(recall) >= 0).all()
            assert (np.diff(precision) <= 0).all()

    def test_without_truths_or_detections(self):
        assert curves.precision_recall([], CLASSES) == {}
        none = metrics.VolumeMatch(
            np.zeros((0, 1)), np.zeros((0, 1), np.float32), np.zeros(0), np.zeros(0, int), np.array([2])
        )
        found = curves.precision_recall([none], CLASSES)
        assert {name: [len(part) for part in curve] for name, curve in found.items()} == {
            "pooled": [0, 0],
            "rod": [0, 0],
        }


class FigureTest:
    def test_a_line_for_every_curve_down_to_nothing(self):
        found = curves.precision_recall(cases.evaluation(cases.config()).matches, CLASSES)
        panel = curves.figure(found, "val").axes[0]
        assert [line.get_label() for line in panel.lines] == ["pooled", "plate", "rod"]
        np.testing.assert_allclose(
            panel.lines[0].get_xydata(), [[0, 1], [0.5, 1], [0.5, 0.5], [0.5, 0.5], [1, 0.5], [1, 0]]
        )
        assert (panel.get_xlabel(), panel.get_ylabel(), panel.get_title()) == ("recall", "precision", "val")

    @pytest.mark.parametrize("found", [{}, {"pooled": (np.zeros(0), np.zeros(0))}])
    def test_nothing_at_all_can_be_drawn(self, found):
        image = pixels.of(curves.figure(found, "$a_b$"))
        assert image.dtype == np.uint8
        assert image.shape == (550, 660, 3)
