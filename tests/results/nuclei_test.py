import types

import numpy as np
import pytest

from evaluation.metrics import VolumeMatch
from ops import masks
from results import nuclei

SPACING = np.array([0.002, 0.001, 0.001], np.float32)  # mm: along z a voxel is two others long


def stack(centres, name="stack"):
    """Bright balls of radius 9, then 8, and so on, in voxels of the finest axis, the first in front of the others."""
    ids = np.zeros((18, 40, 56), np.int32)
    z, y, x = np.indices(ids.shape)
    for number, centre in reversed(list(enumerate(centres, start=1))):
        ids[4 * (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= (10 - number) ** 2] = number
    return as_truth(ids, len(centres), name)


def as_truth(ids, count, name="stack"):
    return {
        "volume": (ids > 0).astype(np.float32)[..., np.newaxis],
        "instance_ids": ids,
        "boxes": masks.instance_boxes(ids, count)[0].numpy(),
        "class_ids": np.ones(count, np.int32),
        "spacing": SPACING,
        "name": name,
    }


def match(ious, scores, num_truths):
    iou = np.zeros((len(scores), num_truths), np.float32)
    np.fill_diagonal(iou, ious)
    ones = np.ones(len(scores), np.int32)
    return VolumeMatch(iou, iou, np.array(scores, np.float32), ones, np.ones(num_truths, np.int32))


TOUCHING = stack([(9, 20, 20), (9, 20, 36)])  # 16 apart: they overlap by one


class WatershedTest:
    def test_parts_nuclei_that_touch(self):
        found = nuclei.match(TOUCHING, nuclei.watershed(TOUCHING, 1.0, 6.0, 20))
        assert found.mask_iou.shape == (2, 2)
        assert (found.mask_iou.max(axis=0) > 0.8).all()
        assert (found.box_iou.max(axis=0) > 0.6).all()
        assert found.scores.tolist() == [1, 1]

    def test_seeds_further_apart_than_the_nuclei_join_them(self):
        assert nuclei.watershed(TOUCHING, 1.0, 30.0, 20).max() == 1

    def test_small_objects_are_left_out_and_ids_close_ranks(self):
        ids = np.zeros((9, 20, 40), np.int32)
        ids[1:3, 2:4, 2:4] = 1  # 8 voxels
        ids[2:6, 8:14, 25:33] = 2  # 192
        truth = as_truth(ids, 2)
        np.testing.assert_array_equal(nuclei.watershed(truth, 0.01, 4.0, 9), ids == 2)
        assert np.bincount(nuclei.watershed(truth, 0.01, 4.0, 8).ravel())[1:].tolist() == [8, 192]
        assert nuclei.watershed(truth, 0.01, 4.0, 193).max() == 0

    def test_a_volume_of_one_value_holds_nothing(self):
        truth = stack([])
        found = nuclei.match(truth, nuclei.watershed(truth, 1.0, 6.0, 20))
        assert found.mask_iou.shape == (0, 0)


class MeasureTest:
    @pytest.fixture
    def trained(self, monkeypatch):
        monkeypatch.setattr(nuclei, "SIGMAS", (1.0,))
        monkeypatch.setattr(nuclei, "DISTANCES", (30.0, 6.0))
        volumes = {
            ("train", None): [TOUCHING],
            ("val", None): [stack([(9, 20, 20)])],
            ("test", "unseen"): [stack([(9, 20, 20)], name="a"), stack([(9, 20, 20), (1, 1, 1)], name="b")],
        }
        # Training: right at 0.9 and 0.6, wrong at 0.2: the least score is halfway between 0.6 and 0.2.
        seen = types.SimpleNamespace(matches=[match([0.9, 0.7, 0.1], [0.9, 0.6, 0.2], 3)])
        return types.SimpleNamespace(
            config=types.SimpleNamespace(data=types.SimpleNamespace(min_voxels=20)),
            evaluate=lambda split: {"train": seen}[split],
            truths=lambda split, folder=None: volumes[split, folder],
        )

    def test_hand_worked(self, trained):
        evaluation = types.SimpleNamespace(matches=[match([0.8, 0.3, 0.6], [0.7, 0.5, 0.3], 4)])
        found = nuclei.measure(trained, evaluation, None)
        # Two are kept, one of them right, of four truths; the watershed finds the only ball.
        expected = {"precision": 1 / 2, "recall": 1 / 4, "f1": 2 / 6, "min_score": 0.4, "f1_above_watershed": 2 / 6 - 1}
        watershed = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "sigma": 1.0, "distance": 6.0}
        assert found == pytest.approx(expected | {f"watershed_{name}": value for name, value in watershed.items()})

    def test_the_least_score_is_no_higher_than_one_half(self, trained):
        seen = types.SimpleNamespace(matches=[match([0.9, 0.7, 0.1], [0.99, 0.98, 0.7], 3)])
        trained.evaluate = {"train": seen}.get
        evaluation = types.SimpleNamespace(matches=[match([0.8, 0.3], [0.51, 0.49], 1)])
        found = nuclei.measure(trained, evaluation, None)
        assert (found["min_score"], found["f1"]) == (0.5, 1.0)

    def test_several_volumes_are_told_apart(self, trained):
        evaluation = types.SimpleNamespace(matches=[match([0.8], [0.7], 1), match([0.8], [0.7], 2)])
        found = nuclei.measure(trained, evaluation, "unseen")
        assert (found["f1_a"], found["f1_b"], found["f1"]) == pytest.approx((1.0, 2 / 3, 4 / 5))
        assert (found["watershed_f1_a"], found["watershed_f1_b"]) == (1.0, 1.0)
