import pathlib
import sys

import matplotlib.image
import numpy as np
import pytest

from configs import schema
from data import convert, synthetic
from data.errors import InputError
from data.synthetic import calorimeter
from evaluation.evaluate import Evaluation
from evaluation.metrics import VolumeMatch
from results import showers
from results.measuring import Trained

CLASSES = ("photon", "pion", "muon")
SECTIONS = ((1, "tungsten", 2.8, 2.0), (1, "iron", 25.0, 8.0))
THRESHOLD = 0.4  # MIP
LOSSES = calorimeter.build(SECTIONS, (10.0, 10.0), 2).mip  # GeV of a minimum-ionising particle in each layer


def config(readout="asinh"):
    data = schema.Data(
        source="synthetic:showers",
        classes=CLASSES,
        attributes=("charge", "energy"),
        synthetic=schema.Synthetic(shape=(2, 9, 11), count=(3, 5), num_train=8, num_val=6, num_test=0),
    )
    data.synthetic.showers.sections = SECTIONS
    data.synthetic.showers.readout = readout
    return schema.Config(name="showers", data=data)


def truth(energies, class_ids, cells=(1.0, 1.0)):
    """Objects of one cell in each of the two layers, side by side; each cell measured so many MIP per GeV."""
    volume, ids = np.zeros((2, 3, 4)), np.zeros((2, 3, 4), np.int32)
    for number, energy in enumerate(energies, start=1):
        y, x = divmod(number - 1, 4)
        ids[:, y, x] = number
        volume[:, y, x] = np.array(cells) * energy
    volume = np.arcsinh(volume / THRESHOLD)
    attributes = np.stack([np.full(len(energies), np.nan), np.array(energies)], axis=-1)
    return {
        "volume": volume[..., np.newaxis].astype(np.float32),
        "instance_ids": ids,
        "class_ids": np.array(class_ids, np.int32),
        "attributes": attributes.astype(np.float32),
    }


def found(truth, factors):
    """The first objects are found, the last first, all as photons, with energies that are wrong by these factors."""
    count, total = len(factors), len(truth["class_ids"])
    iou = np.eye(count, total, dtype=np.float32)[::-1]
    energies = np.nan_to_num(truth["attributes"][:count]) * np.array(factors).reshape(-1, 1)
    scores, ones = np.linspace(0.9, 0.5, count, dtype=np.float32), np.ones(count, np.int32)
    return VolumeMatch(iou, iou, scores, ones, truth["class_ids"], energies[::-1], truth["attributes"])


class FakeRun(Trained):
    """A run whose truths are given: {split: list}; they are asked for as they were measured."""

    def truths(self, split, folder=None):
        assert self.config.input.normalization == "none"
        return {("train", None): TRAIN, ("val", None): VAL, ("test", "unseen"): VAL[:1]}[split, folder]


# Photons of 2 and pions of 4 (one cell less than 0, by noise) MIP per GeV; two muons, of 0.5 and 1.
TRAIN = [truth([10.0, 20.0], [1, 1]), truth([30.0], [2], (-1.0, 5.0)), truth([40.0], [3], (0.5, 0.0))]
TRAIN.append(truth([50.0], [3], (1.0, 0.0)))
# Twelve photons of 20 GeV with 2 and 2.2 MIP per GeV in turn, found with 1.3 and 0.9 times their energy; four pions.
VAL = [
    truth([20.0] * 6, [1] * 6),
    truth([20.0] * 6, [1] * 6, (1.2, 1.0)),
    truth([100.0] * 4, [2] * 4, (-1.0, 5.0)),
]
MATCHES = [found(VAL[0], [1.3] * 6), found(VAL[1], [0.9] * 6), found(VAL[2], [2.0] * 4)]


class MeasureTest:
    def measure(self, matches, unseen=None):
        run = FakeRun(pathlib.Path("unused"), config(), None)
        return showers.measure(run, Evaluation({}, matches, []), unseen)

    def test_bias_and_resolution_by_hand(self):
        scores = self.measure(MATCHES)
        for group in ("_photon", "_010_030"):
            assert scores[f"num_objects{group}"] == 12
            assert scores[f"energy_bias{group}"] == pytest.approx(0.1, abs=1e-6)
            assert scores[f"energy_resolution{group}"] == pytest.approx(0.2, abs=1e-6)
            assert scores[f"energy_resolution68{group}"] == pytest.approx(0.2, abs=1e-6)
            # 2 MIP per GeV when it was calibrated: 0 and 10 % off.
            assert scores[f"cells_bias{group}"] == pytest.approx(0.05, abs=1e-6)
            assert scores[f"cells_resolution{group}"] == pytest.approx(0.05, abs=1e-6)
            assert scores[f"resolution_ratio{group}"] == pytest.approx(4.0, abs=1e-4)

    def test_layers_are_weighted_by_what_a_minimum_ionising_particle_loses(self):
        scores = self.measure(MATCHES)
        thin, thick = LOSSES
        high = (1.2 * thin + thick) / (thin + thick) - 1
        assert scores["layers_bias_photon"] == pytest.approx(high / 2, abs=1e-5)
        assert scores["layers_resolution_photon"] == pytest.approx(high / 2, abs=1e-5)
        assert scores["resolution_ratio_layers_photon"] == pytest.approx(0.2 / (high / 2), rel=1e-4)

    def test_all_classes_together(self):
        scores = self.measure(MATCHES)
        assert scores["num_objects"] == 16
        assert scores["energy_bias"] == pytest.approx((6 * 0.3 - 6 * 0.1 + 4 * 1.0) / 16, abs=1e-6)
        # The pions' own factor fits them.
        assert scores["cells_bias"] == pytest.approx(6 * 0.1 / 16, abs=1e-6)

    def test_muons_are_not_absorbed(self, monkeypatch):
        muons = truth([50.0] * 12, [3] * 12, (1.0, 0.0))
        monkeypatch.setattr(sys.modules[__name__], "VAL", [*VAL, muons])
        scores = self.measure([*MATCHES, found(muons, [3.0] * 12)])
        assert (scores["num_objects"], scores["num_objects_absorbed"]) == (28, 16)
        assert scores["energy_bias_absorbed"] == pytest.approx((6 * 0.3 - 6 * 0.1 + 4 * 1.0) / 16, abs=1e-6)
        assert scores["energy_bias_muon"] == pytest.approx(2.0, abs=1e-6)

    def test_groups_of_few_have_only_their_number(self):
        scores = self.measure(MATCHES)
        assert (scores["num_objects_pion"], scores["num_objects_060_120"], scores["num_objects_muon"]) == (4, 4, 0)
        assert not [name for name in scores if "_pion" in name and not name.startswith("num_")]
        assert all(isinstance(value, float) for value in scores.values())

    def test_unseen_records_are_calibrated_on_those_of_training(self):
        scores = self.measure(MATCHES[:1], "unseen")
        assert scores == {f"num_objects{group}": value for group, value in self.counts(6).items()}

    def test_nothing_found(self):
        nothing = [found(one, []) for one in VAL]
        assert self.measure(nothing) == {f"num_objects{group}": value for group, value in self.counts(0).items()}

    def counts(self, number):
        groups = dict.fromkeys(("_030_060", "_060_120", "_120_300", "_pion", "_muon"), 0.0)
        return {
            **groups,
            "": float(number),
            "_010_030": float(number),
            "_photon": float(number),
            "_absorbed": float(number),
        }

    def test_the_factor_has_the_least_relative_error(self, monkeypatch):
        # Muons of 0.5 and 1 MIP per GeV: f = (0.5 + 1) / (0.25 + 1) = 1.2, so 1 MIP per GeV is 20 % too high.
        val = [truth([40.0] * 10, [3] * 10, (1.0, 0.0))]
        monkeypatch.setattr("tests.results.showers_test.VAL", val)
        scores = self.measure([found(val[0], [1.0] * 10)])
        assert scores["cells_bias"] == pytest.approx(0.2, abs=1e-6)
        assert scores["cells_resolution"] == 0.0
        assert "resolution_ratio" not in scores

    def test_a_class_must_be_in_the_split_train(self, monkeypatch):
        monkeypatch.setattr("tests.results.showers_test.TRAIN", TRAIN[:2])
        with pytest.raises(InputError, match="expected some muon in the split train, came none"):
            self.measure(MATCHES)

    def test_a_linear_readout_gives_the_same(self, monkeypatch):
        usual = self.measure(MATCHES)
        for name, truths in (("TRAIN", TRAIN), ("VAL", VAL)):
            linear = [{**one, "volume": THRESHOLD * np.sinh(one["volume"])} for one in truths]
            monkeypatch.setattr(f"tests.results.showers_test.{name}", linear)
        run = FakeRun(pathlib.Path("unused"), config("linear"), None)
        assert showers.measure(run, Evaluation({}, MATCHES, []), None) == pytest.approx(usual, rel=1e-4)

    def test_records_give_back_what_was_measured(self, tmp_path):
        settings = config()
        settings.data.records = str(tmp_path / "records")
        convert.convert(settings.data, settings.data.records, progress=False)
        run = Trained(tmp_path, settings, None)
        matches = [found(one, np.ones(len(one["class_ids"]))) for one in run.truths("val")]
        scores = showers.measure(run, Evaluation({}, matches, []), None)
        sums = []
        for index in range(14):
            bent, ids, class_ids, energies, _ = synthetic.draw("showers", settings.data.synthetic, index)
            signal = THRESHOLD * np.sinh(bent.astype(np.float64))
            measured = [signal[ids == number].sum() for number in range(1, len(class_ids) + 1)]
            sums.append(np.stack([class_ids, np.array(measured) / energies[:, 0]], axis=-1))
        train, val = np.concatenate(sums[:8]), np.concatenate(sums[8:])
        factors = [ratio.sum() / (ratio**2).sum() for ratio in (train[train[:, 0] == k, 1] for k in (1, 2, 3))]
        errors = val[:, 1] * np.array(factors)[val[:, 0].astype(int) - 1] - 1.0
        assert scores["num_objects"] == len(val) >= 10
        assert scores["energy_resolution"] == pytest.approx(0.0, abs=1e-7)
        assert scores["cells_bias"] == pytest.approx(errors.mean(), abs=1e-5)
        assert scores["cells_resolution"] == pytest.approx(errors.std(), abs=1e-5)


class DrawTest:
    def picture(self, path, matches):
        showers.draw(FakeRun(pathlib.Path("unused"), config(), None), Evaluation({}, matches, []), None, path)
        return matplotlib.image.imread(path)

    def test_draws_the_bins_that_have_enough(self, tmp_path):
        usual = self.picture(tmp_path / "usual.png", MATCHES)
        few = self.picture(tmp_path / "few.png", [*MATCHES[:2], found(VAL[2], [])])
        np.testing.assert_array_equal(usual, few)  # four pions are too few
        other = self.picture(tmp_path / "other.png", [found(VAL[0], [1.2] * 6), *MATCHES[1:]])
        changed = (usual != other).any(axis=(0, 2))
        assert [part.any() for part in np.array_split(changed, 4)][1]  # the panel of photons
