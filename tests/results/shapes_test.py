import pathlib

import numpy as np
import pytest

from configs import schema
from data import convert, synthetic
from data.errors import InputError
from evaluation.evaluate import Evaluation
from evaluation.metrics import VolumeMatch
from results import shapes
from results.measuring import Trained


def match(pairs, scores, class_ids, gt_class_ids):
    """Detections with the mask IoU of `pairs`, {(detection, truth): IoU}."""
    iou = np.zeros((len(scores), len(gt_class_ids)), np.float32)
    for pair, value in pairs.items():
        iou[pair] = value
    return VolumeMatch(
        iou, iou, np.array(scores, np.float32), np.array(class_ids, np.int32), np.array(gt_class_ids, np.int32)
    )


# Best first: 0.9 takes truth 0 (band 0), 0.8 nothing, 0.7 truth 1 (band 1); in the other volume 0.6 takes its truth.
FIRST = match({(0, 1): 0.5, (1, 0): 0.9, (2, 0): 0.4}, [0.7, 0.9, 0.8], [1, 2, 2], [2, 1, 3])
SECOND = match({(0, 0): 0.8}, [0.6], [1], [1])
BANDS = [np.array([0, 1, 1]), np.array([0])]


class BandApTest:
    def test_hand_table(self):
        # Band 0: hit, wrong, hit of 2 truths; that of band 1 is left out. Band 1: wrong, hit of 2 truths.
        assert shapes.band_ap([FIRST, SECOND], BANDS, 0) == (pytest.approx((1 + 2 / 3) / 2), 2)
        assert shapes.band_ap([FIRST, SECOND], BANDS, 1) == (pytest.approx((1 / 2) / 2), 2)

    def test_a_band_without_truths_has_none(self):
        assert shapes.band_ap([FIRST, SECOND], BANDS, 2) == (None, 0)
        assert shapes.band_ap([], [], 0) == (None, 0)

    def test_a_wrong_class_is_wrong_in_every_band(self):
        wrong = match({(0, 0): 0.9}, [0.9], [1], [2])
        assert shapes.band_ap([wrong], [np.array([1])], 1) == (0.0, 1)
        # Before the hit of SECOND, which is of band 0.
        assert shapes.band_ap([wrong, SECOND], [np.array([1]), np.array([0])], 0) == (pytest.approx(1 / 2), 1)

    def test_the_best_of_all_truths_is_taken_whatever_its_band(self):
        both = match({(0, 0): 0.6, (0, 1): 0.7}, [0.9], [1], [1, 1])
        assert shapes.band_ap([both], [np.array([0, 1])], 0) == (0.0, 1)
        assert shapes.band_ap([both], [np.array([0, 1])], 1) == (1.0, 1)

    def test_nothing_found(self):
        assert shapes.band_ap([match({}, [], [], [1])], [np.array([0])], 0) == (0.0, 1)

    def test_no_truths_in_a_volume(self):
        nothing = match({}, [0.95], [1], [])
        assert shapes.band_ap([nothing, SECOND], [np.zeros(0, int), np.array([0])], 0) == (pytest.approx(1 / 2), 1)


class BandsOfTest:
    def test_edges_belong_to_the_higher_band(self):
        contrasts = np.array([0.02, 0.0399, 0.04, 0.0699, 0.07, 0.1], np.float32)
        assert shapes.bands_of(contrasts).tolist() == [0, 0, 1, 1, 2, 2]


def trained(folder, seed=0):
    """A run without a network, with records of four volumes of which the second and third are the split val."""
    config = schema.Config(name="shapes")
    config.data.records = str(folder / "records")
    config.data.min_voxels = 5
    config.data.classes = ("pyramid", "ellipsoid", "cuboid")
    config.data.synthetic = schema.Synthetic(
        shape=(17, 21, 26), count=(3, 6), base_size=2.0, num_train=1, num_val=2, num_test=1, seed=seed
    )
    convert.convert(config.data, config.data.records, progress=False)
    return Trained(pathlib.Path(folder), config, None)


def all_found(run, split, folder=None):
    """An Evaluation in which every truth is found but those of the lowest contrasts."""
    matches, contrasts = [], []
    for truth in run.truths(split, folder):
        seed, index = (int(number) for number in truth["name"].split("_")[1:])
        settings = schema.Synthetic(shape=(17, 21, 26), count=(3, 6), base_size=2.0, seed=seed)
        _, ids, _, drawn, _ = synthetic.draw("shapes", settings, index)
        drawn = drawn[np.bincount(ids.ravel())[1:] >= 5, 0]
        count = len(drawn)
        pairs = {(i, i): 1.0 for i in range(count) if drawn[i] >= 0.04}
        ones = np.linspace(0.5, 0.9, count)
        matches.append(match(pairs, ones, truth["class_ids"], truth["class_ids"]))
        contrasts += drawn.tolist()
    return Evaluation({}, matches, []), np.array(contrasts)


class MeasureTest:
    def test_truths_have_the_contrasts_that_they_were_drawn_with(self, tmp_path):
        run = trained(tmp_path)
        evaluation, contrasts = all_found(run, "val")
        found = shapes.measure(run, evaluation, None)
        counts = np.histogram(contrasts, [0.0, 0.04, 0.07, 1.0])[0]
        assert counts.min() > 0
        names = ("002_004", "004_007", "007_010")
        assert [found[f"num_truths_{name}"] for name in names] == counts.tolist()
        assert found["mask_ap50_002_004"] == 0.0
        assert 0.0 < found["mask_ap50_004_007"] <= 1.0
        assert set(found) == {f"{kind}_{name}" for kind in ("num_truths", "mask_ap50") for name in names}

    def test_unseen_records_have_settings_of_their_own(self, tmp_path):
        run = trained(tmp_path)
        other = trained(tmp_path / "other", seed=3).config.data.records
        evaluation, contrasts = all_found(run, "test", other)
        found = shapes.measure(run, evaluation, other)
        assert sum(value for name, value in found.items() if name.startswith("num_")) == len(contrasts) > 0

    def test_objects_must_be_those_that_are_drawn(self, tmp_path, monkeypatch):
        run = trained(tmp_path)
        truths = list(run.truths("val"))
        truths[1]["instance_ids"] = truths[1]["instance_ids"][::-1]
        monkeypatch.setattr(Trained, "truths", lambda *_: truths)
        with pytest.raises(InputError, match="shapes_0_00002: expected the objects that the settings of its records"):
            shapes.measure(run, Evaluation({}, [], []), None)

    @pytest.mark.parametrize("name", ["mosaic_00000", "shapes_1_00001", "shapes_0_one"])
    def test_the_name_says_what_to_draw(self, tmp_path, monkeypatch, name):
        run = trained(tmp_path)
        monkeypatch.setattr(Trained, "truths", lambda *_: [{"name": name}])
        with pytest.raises(InputError, match=f"expected a volume that is named shapes_0_<number>, came '{name}'"):
            shapes.measure(run, Evaluation({}, [], []), None)
