import pathlib
import types

import matplotlib.image
import numpy as np
import pytest

from configs import ms_lesions as experiment
from data import sources
from evaluation.metrics import VolumeMatch
from results import ms_lesions

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data" / "ms_lesions"


def match(truths, scores, num_truths, *, box_only=()):
    """Detections of class 1, each of which overlaps one truth, or none (-1); some by their box alone."""
    box_iou = np.zeros((len(scores), num_truths), np.float32)
    for detection, truth in enumerate(truths):
        if truth >= 0:
            box_iou[detection, truth] = 0.2
    mask_iou = box_iou.copy()
    mask_iou[list(box_only)] = 0.05
    ones = np.ones(len(scores), np.int32)
    return VolumeMatch(box_iou, mask_iou, np.array(scores, np.float32), ones, np.ones(num_truths, np.int32))


# Best first over both volumes: right, wrong, wrong, right, wrong (its box alone is right), wrong, wrong, right.
MATCHES = [
    match([1, -1, 0, -1], [0.9, 0.8, 0.6, 0.4], 3),
    match([-1, 0, -1, 1], [0.7, 0.5, 0.3, 0.2], 2, box_only=[1]),
]


def truth(*sizes):
    ids = np.zeros((3, 8, 60), np.int32)
    ids.ravel()[: sum(sizes)] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    return {"instance_ids": ids, "class_ids": np.ones(len(sizes), np.int32)}


class MeasureTest:
    @pytest.fixture
    def found(self, monkeypatch):
        # Two false positives before the fourth detection, three (with masks) before the last but one.
        monkeypatch.setattr(ms_lesions, "SIZES_AT", 1)
        truths = {("test", "unseen"): [truth(1, 10, 3), truth(100, 9)]}
        trained = types.SimpleNamespace(truths=lambda split, folder=None: truths[split, folder])
        return ms_lesions.measure(trained, types.SimpleNamespace(matches=MATCHES), "unseen")

    def test_sensitivity(self, found):
        # At 1 in each of two volumes 2 of 5 masks; all three at 2, where the box of a fourth matches as well.
        assert [found[f"mask_sensitivity_{rate}"] for rate in (1, 2, 4, 32)] == [2 / 5, 2 / 5, 3 / 5, 3 / 5]
        assert [found[f"box_sensitivity_{rate}"] for rate in (1, 2, 4, 32)] == [3 / 5, 4 / 5, 4 / 5, 4 / 5]

    def test_lesions_by_size(self, found):
        assert [found[f"lesions_{size}"] for size in (1, 10, 100, 1000)] == [5, 2, 1, 0]
        assert [found[f"found_{size}"] for size in (1, 10, 100, 1000)] == [2, 1, 0, 0]


class IsFoundTest:
    @pytest.mark.parametrize(
        ("rate", "first", "second"),
        [(0, [0, 1, 0], [0, 0]), (1, [1, 1, 0], [0, 0]), (2, [1, 1, 0], [0, 0]), (2.5, [1, 1, 0], [0, 1])],
    )
    def test_hand_table(self, rate, first, second):
        assert [row.tolist() for row in ms_lesions.is_found(MATCHES, rate)] == [first, second]

    def test_as_many_as_the_curve_says(self):
        rng = np.random.default_rng(5)
        volumes = [match(rng.permutation(12) - 4, rng.random(12).round(1), 8) for _ in range(3)]
        for rate in (0, 0.5, 1, 2, 8):
            count = sum(row.sum() for row in ms_lesions.is_found(volumes, rate))
            share = ms_lesions.operating.froc(volumes, ms_lesions.MATCH_IOU, (rate,))[rate]
            assert count / 24 == pytest.approx(share)

    def test_nothing_there(self):
        assert ms_lesions.is_found([], 8) == []
        assert [row.tolist() for row in ms_lesions.is_found([match([], [], 2)], 8)] == [[False, False]]


class DrawTest:
    def test_writes_a_picture_of_what_was_found(self, tmp_path):
        pictures = []
        for name, matches in (("one", MATCHES), ("two", MATCHES[:1]), ("none", [])):
            ms_lesions.draw(None, types.SimpleNamespace(matches=matches), None, tmp_path / f"{name}.png")
            pictures.append(matplotlib.image.imread(tmp_path / f"{name}.png"))
        assert {picture.shape for picture in pictures} == {(350, 500, 4)}
        assert (pictures[0] != pictures[1]).any()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["none.png", "one.png", "two.png"]


class RealFilesTest:
    def test_one_trains_and_the_other_is_held_out(self):
        if not REAL.is_dir():
            pytest.skip(f"{REAL} is absent")
        config = experiment.get_config()
        config.data.source = str(REAL)
        found = sources.find(config.data)
        assert [(source.name, source.split) for source in found] == [("patient19", "train"), ("patient26", "val")]
        case, left_out = sources.load(found[1], config.data)
        assert case.volume.array.shape == (182, 218, 182, 2)
        assert len(case.class_ids) == 19
        assert left_out["below_min_voxels"] == 0
