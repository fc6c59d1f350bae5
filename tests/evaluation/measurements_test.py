import json

import numpy as np
import pytest

from evaluation import measurements
from evaluation.metrics import VolumeMatch
from ops.keypoints import KEYPOINTS

NAN = float("nan")


def match(mask_iou, scores, *, attributes=None, gt_attributes=None, keypoints=None, gt_keypoints=None):
    """Every detection is of class 1 and every truth of class 2: the class is of no account."""
    mask_iou = np.array(mask_iou, np.float32)
    fields = {
        "attributes": attributes,
        "gt_attributes": gt_attributes,
        "keypoints": keypoints,
        "gt_keypoints": gt_keypoints,
    }
    return VolumeMatch(
        box_iou=np.zeros_like(mask_iou),
        mask_iou=mask_iou,
        scores=np.array(scores, np.float32),
        class_ids=np.ones(mask_iou.shape[0], np.int32),
        gt_class_ids=np.full(mask_iou.shape[1], 2, np.int32),
        **{name: None if value is None else np.array(value, np.float32) for name, value in fields.items()},
    )


def points(*shifts):
    """Landmark k of object d lies at (k, 2k, 3k) + shift d."""
    steps = np.arange(len(KEYPOINTS))[:, np.newaxis] * [1.0, 2.0, 3.0]
    return np.stack([steps + shift for shift in shifts]) if shifts else np.zeros((0, len(KEYPOINTS), 3))


class AttributesTest:
    def volumes(self):
        # Detections 1 and 0 of the first volume take truths 0 and 1; its third takes none.
        first = match(
            [[0.0, 0.6], [0.8, 0.1], [0.4, 0.0]],
            [0.9, 0.8, 0.7],
            attributes=[[18, 1], [11, 5], [900, 900]],
            gt_attributes=[[10, 0], [20, NAN]],
        )
        second = match([[0.5]], [0.1], attributes=[[33, -2]], gt_attributes=[[30, -4]])
        return [first, second]

    def test_by_hand(self):
        summary = measurements.summarize(self.volumes(), ("energy", "charge"))
        assert list(summary) == ["attributes"]
        assert summary["attributes"] == {
            "energy": {  # found / true - 1 = 0.1, -0.1, 0.1
                "num_values": 3,
                "num_unknown": 0,
                "num_positive": 3,
                "relative_bias": pytest.approx(0.1 / 3),
                "relative_resolution": pytest.approx(np.sqrt(0.01 - 0.01 / 9)),
                "mean_absolute_error": pytest.approx((1 + 2 + 3) / 3),
            },
            "charge": {  # 5 for 0, 1 for unknown, -2 for -4
                "num_values": 2,
                "num_unknown": 1,
                "num_positive": 0,
                "relative_bias": None,
                "relative_resolution": None,
                "mean_absolute_error": pytest.approx(3.5),
            },
        }
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary

    @pytest.mark.parametrize(
        "volumes",
        [
            [],
            [match(np.zeros((0, 2)), [], attributes=np.zeros((0, 1)), gt_attributes=[[1], [2]])],
            [match(np.zeros((2, 0)), [0.9, 0.8], attributes=[[1], [2]], gt_attributes=np.zeros((0, 1)))],
            [match([[0.49]], [0.9], attributes=[[1]], gt_attributes=[[1]])],
        ],
    )
    def test_nothing_matched(self, volumes):
        row = measurements.summarize(volumes, ("energy",))["attributes"]["energy"]
        assert [row[name] for name in ("num_values", "num_unknown", "num_positive")] == [0, 0, 0]
        assert [row[f] for f in ("relative_bias", "relative_resolution", "mean_absolute_error")] == [None] * 3

    def test_none_were_asked_for(self):
        plain = match([[0.9]], [0.9])
        assert measurements.summarize([plain], ()) == {}
        assert measurements.table_lines({}) == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"attributes": [[1, 2]]}, r"attributes must be of shape \(1, 1\), got \(1, 2\)"),
            ({"attributes": None}, r"attributes must be of shape \(1, 1\), got None"),
            ({"gt_attributes": [[1]] * 3}, r"gt_attributes must be of shape \(2, 1\), got \(3, 1\)"),
            ({"attributes": [[NAN]]}, r"attributes must be finite, got \[nan\]"),
        ],
    )
    def test_rows_that_do_not_fit(self, changes, words):
        volume = match([[0.9, 0.0]], [0.9], **{"attributes": [[1]], "gt_attributes": [[1], [2]], **changes})
        with pytest.raises(ValueError, match=words):
            measurements.summarize([volume], ("energy",))


class KeypointsTest:
    def test_by_hand(self):
        first = match(
            [[0.0, 0.6], [0.8, 0.1]],
            [0.9, 0.8],
            keypoints=points((5, 5, 5), (1, 2, 2)),
            gt_keypoints=points((0, 0, 0), (5, 5, 5)),
        )
        moved = points((0, 0, 0))
        moved[0, 6] += (0, 3, 4)
        second = match([[0.5]], [0.1], keypoints=moved, gt_keypoints=points((0, 0, 0)))
        summary = measurements.summarize([first, second], ())
        assert list(summary) == ["keypoints"]
        assert list(summary["keypoints"]) == list(KEYPOINTS)
        # Distances 0 and 3 in the first volume; in the second 0, but 5 of the last landmark.
        assert summary["keypoints"]["centroid"] == {
            "num_values": 3,
            "num_unknown": 0,
            "mean_distance": pytest.approx(1),
        }
        row = summary["keypoints"]["x_max"]
        assert row == {"num_values": 3, "num_unknown": 0, "mean_distance": pytest.approx(8 / 3)}

    def test_given_landmarks_have_their_own_names_and_may_be_unknown(self):
        found = np.zeros((2, 2, 3))
        true = np.array([[[0, 3, 4], [NAN] * 3], [[0, 0, 1], [NAN] * 3]])
        volume = match([[0.9, 0], [0, 0.8]], [0.9, 0.8], keypoints=found, gt_keypoints=true)
        assert measurements.summarize([volume], (), ("nose", "tail"))["keypoints"] == {
            "nose": {"num_values": 2, "num_unknown": 0, "mean_distance": pytest.approx(3)},
            "tail": {"num_values": 0, "num_unknown": 2, "mean_distance": None},
        }
        with pytest.raises(ValueError, match=r"keypoints must be of shape \(2, 7, 3\), got \(2, 2, 3\)"):
            measurements.summarize([volume], ())

    def test_nothing_matched(self):
        volume = match(np.zeros((0, 1)), [], keypoints=points(), gt_keypoints=points((0, 0, 0)))
        summary = measurements.summarize([volume], ())
        assert summary["keypoints"]["y_min"] == {"num_values": 0, "num_unknown": 0, "mean_distance": None}

    def test_rows_that_do_not_fit(self):
        volume = match([[0.9]], [0.9], keypoints=points((0, 0, 0)), gt_keypoints=points())
        with pytest.raises(ValueError, match=r"gt_keypoints must be of shape \(1, 7, 3\), got \(0, 7, 3\)"):
            measurements.summarize([volume], ())


TABLE = """
attributes  num values  num unknown  num positive  relative bias  relative resolution  mean absolute error
energy               3            0             3        0.03333              0.09428                    2
charge               2            1             0              -                    -                  3.5

keypoints  num values  mean distance
z_min              12           1.25"""


class TableLinesTest:
    def test_by_hand(self):
        summary = measurements.summarize(AttributesTest().volumes(), ("energy", "charge"))
        summary["keypoints"] = {"z_min": {"num_values": 12, "mean_distance": 1.25}}
        assert "\n".join(measurements.table_lines(summary)) == TABLE
