import numpy as np
import pytest

from evaluation import operating
from evaluation.metrics import VolumeMatch


def volume(scores, hits, num_truths):
    """Detections of which each hit takes a truth of its own; all of class 1."""
    iou = np.zeros((len(scores), num_truths), np.float32)
    truths = iter(range(num_truths))
    for row, hit in zip(iou, hits, strict=True):
        if hit:
            row[next(truths)] = 0.8
    ones = np.ones(len(scores), np.int32)
    return VolumeMatch(iou, iou, np.array(scores, np.float32), ones, np.ones(num_truths, np.int32))


# Best first over both: 0.9 right, 0.8 wrong, 0.7 right, 0.6 right, 0.2 wrong; five truths.
VOLUMES = [volume([0.6, 0.9, 0.2], [1, 1, 0], 3), volume([0.8, 0.7], [0, 1], 2)]


class F1Test:
    @pytest.mark.parametrize(
        ("min_score", "precision", "recall", "f1"),
        [
            (0.0, 3 / 5, 3 / 5, 6 / 10),
            (0.5, 3 / 4, 3 / 5, 6 / 9),
            (0.7, 2 / 3, 2 / 5, 4 / 8),
            (0.85, 1.0, 1 / 5, 2 / 6),
            (0.95, None, 0.0, 0.0),
        ],
    )
    def test_hand_table(self, min_score, precision, recall, f1):
        expected = {"precision": precision, "recall": recall, "f1": f1}
        assert operating.f1(VOLUMES, min_score) == pytest.approx(expected)

    def test_a_higher_overlap_may_be_asked_for(self):
        assert operating.f1(VOLUMES, 0.0, threshold=0.81)["f1"] == 0.0

    def test_a_wrong_class_is_no_hit(self):
        wrong = VolumeMatch(*[np.ones((1, 1), np.float32)] * 2, np.ones(1), np.array([2]), np.array([1]))
        assert operating.f1([wrong], 0.0) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}

    def test_is_undefined_where_nothing_is(self):
        assert operating.f1([volume([], [], 0)], 0.0) == {"precision": None, "recall": None, "f1": None}


class BestScoreTest:
    def test_lies_between_the_last_that_helps_and_the_next(self):
        assert operating.best_score(VOLUMES) == pytest.approx((0.6 + 0.2) / 2)

    def test_is_the_best_of_all_scores(self):
        rng = np.random.default_rng(3)
        volumes = [volume(rng.random(12).round(1), rng.random(12) < 0.5, 9) for _ in range(4)]
        best = operating.f1(volumes, operating.best_score(volumes))["f1"]
        assert best == max(operating.f1(volumes, score)["f1"] for score in np.linspace(-0.05, 0.95, 11))

    def test_all_are_kept_where_the_last_is_right(self):
        assert operating.best_score([volume([0.4, 0.3], [0, 1], 1)]) == pytest.approx(0.15)

    def test_nothing_detected(self):
        assert operating.best_score([volume([], [], 2)]) == 1.0


class FrocTest:
    def test_hand_table(self):
        # Two volumes: half a false positive in each is one in all. The first wrong one comes after one right one.
        expected = {0.25: 1 / 5, 0.5: 3 / 5, 1.0: 3 / 5, 8.0: 3 / 5}
        assert operating.froc(VOLUMES, rates=tuple(expected)) == pytest.approx(expected)

    def test_none_are_found_before_a_wrong_first_one(self):
        assert operating.froc([volume([0.9, 0.8], [0, 1], 1)], rates=(0.5, 1.0)) == {0.5: 0.0, 1.0: 1.0}

    def test_is_undefined_without_truths(self):
        assert operating.froc([volume([0.9], [0], 0)], rates=(1.0,)) == {1.0: None}
