import json
import math

import numpy as np
import pytest
import tensorflow as tf

from debugging import answers, overfit
from evaluation import metrics
from tests.debugging import conftest


def volume(iou, scores, class_ids, gt_class_ids):
    """A VolumeMatch of the same overlaps of boxes and masks."""
    iou = np.array(iou, np.float32).reshape(len(scores), len(gt_class_ids))
    return metrics.VolumeMatch(iou, iou, np.array(scores, np.float32), np.array(class_ids), np.array(gt_class_ids))


class MaskIousTest:
    def test_every_truth_has_a_detection_of_its_own_class(self):
        # The best detection takes truth 0, the second, of the wrong class for truth 1, nothing; truth 2 is missed.
        match = volume([[0.8, 0.1, 0.0], [0.0, 0.9, 0.0], [0.7, 0.6, 0.0]], [0.9, 0.8, 0.7], [1, 1, 2], [1, 2, 1])
        np.testing.assert_allclose(answers.mask_ious(match), [0.8, 0.6, 0.0])
        assert overfit.mean_iou([match, volume([[1.0]], [0.9], [1], [1])]) == pytest.approx(2.4 / 4)

    def test_nothing_found_and_nothing_there(self):
        np.testing.assert_array_equal(answers.mask_ious(volume([], [], [], [1, 2])), [0.0, 0.0])
        assert overfit.mean_iou([volume([], [], [], [])]) == 0.0


class JudgeTest:
    @pytest.mark.parametrize(
        ("total", "iou", "passed"),
        [(1.0, 0.7, [True, True]), (1.1, 0.69, [False, False]), (math.nan, 0.9, [False, True])],
    )
    def test_both_the_total_and_the_masks_count(self, total, iou, passed):
        curve = [{"step": 5, "total": 5.0, "mask_iou": None}, {"step": 55, "total": total, "mask_iou": iou}]
        found = overfit.judge(1, curve, [volume([[0.9], [0.2]], [0.9, 0.8], [1, 1], [1])])
        assert [verdict.passed for verdict in found] == passed
        assert found[1].came.endswith("of 1 objects, 1 detections that are none of them")


class CheckTest:
    def test_too_few_steps_fail_and_end_the_rung(self, made, tmp_path):
        checked = overfit.check(*made, tmp_path / "out", tf.distribute.get_strategy(), steps=7)
        assert [verdict.name for verdict in checked if verdict.passed is False] == [
            "1 volume, total",
            "1 volume, mask IoU",
        ]
        assert not any("5 volumes" in verdict.name for verdict in checked)
        assert checked[-1].passed is None
        assert (checked[-1].name, checked[-1].came) == ("10 volumes", "6 training records")
        curves = json.loads((tmp_path / "out" / "overfit.json").read_text())
        assert [one["step"] for one in curves["1"]] == [5, 7]
        for name in ("overfit.png", "overfit_1_volume_0.png"):
            assert (tmp_path / "out" / name).stat().st_size > 5000

    @pytest.mark.slow
    def test_a_volume_is_learnt_by_heart(self, tmp_path):
        settings = conftest.tiny.config(learning_rate=2e-3, warmup_steps=0)
        settings.model.mask_head.roi_size, settings.model.mask_head.channels = (4, 6, 8), 16
        manifest = conftest.write(tmp_path / "records", settings.validate(), num_train=1)
        checked = overfit.check(settings, manifest, tmp_path / "out", tf.distribute.get_strategy(), steps=2000)
        assert [verdict.passed for verdict in checked] == [True, True, None], checked
