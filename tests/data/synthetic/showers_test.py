import math

import numpy as np
import pytest

from configs.synthetic_schema import Showers, Synthetic
from data import synthetic
from data.errors import InputError
from data.synthetic import calorimeter, profiles, showers

SHAPE = (48, 60, 66)
OWN = Showers()
LAYERS = calorimeter.build(OWN.sections, OWN.cell, 48)
RAY = (0.0, np.array([305.0, 335.0]), np.zeros(2))  # into the middle of a cell


def events(particle, energy, number, own=OWN, layers=LAYERS, shape=SHAPE):
    rng = np.random.default_rng(5)
    return [getattr(showers, particle)(rng, own, layers, shape, energy, RAY) for _ in range(number)]


def in_gev(event, layers=LAYERS):
    """What the signals are worth if minimum-ionising particles left them."""
    return float((event.sum(axis=(1, 2)) * layers.mip).sum())


class PhotonTest:
    @pytest.mark.parametrize("energy", [10.0, 80.0])
    def test_energy_is_kept_within_its_fluctuation(self, energy):
        visible = (
            np.array([in_gev(event) for event in events("photon", energy, 120)]) / showers.ELECTRON_SIGNAL / energy
        )
        assert visible.mean() == pytest.approx(1.0, abs=0.01)
        assert visible.std() == pytest.approx(0.1 / math.sqrt(energy), rel=0.25)

    @pytest.mark.parametrize("energy", [20.0, 200.0])
    def test_mean_depth_of_the_maximum_is_that_of_the_formula(self, energy):
        # Twenty-five radiation lengths in half ones.
        layers = calorimeter.build(((50, "tungsten", 1.752, 0.1),), (10.0, 10.0), 50)
        seen = [event.sum(axis=(1, 2)) for event in events("photon", energy, 80, layers=layers, shape=(50, 60, 66))]
        middles = (layers.radiation[1:] + layers.radiation[:-1]) / 2
        maximum, shape = profiles.electromagnetic(energy, calorimeter.ABSORBERS["tungsten"])
        # The mean depth of a gamma distribution is its maximum and one over its rate.
        means = [(profile * middles).sum() / profile.sum() for profile in seen]
        assert np.mean(means) == pytest.approx(9 / 7 + maximum * shape / (shape - 1), rel=0.07)
        assert middles[np.mean(seen, axis=0).argmax()] == pytest.approx(9 / 7 + maximum, abs=1.6)

    def test_nine_tenths_lie_within_two_moliere_radii(self):
        layers = calorimeter.build(((30, "iron", 17.57, 5.0),), (2.0, 3.0), 30)
        total = sum(events("photon", 50.0, 3, layers=layers, shape=(30, 305, 223)))
        y, x = (np.arange(305) + 0.5) * 2.0 - 305.0, (np.arange(223) + 0.5) * 3.0 - 335.0
        near = y[:, None] ** 2 + x**2 < (2 * layers.moliere[0]) ** 2
        assert 0.87 < total[:, near].sum() / total.sum() < 0.97

    def test_maximum_moves_deeper_with_energy(self):
        depths = [
            np.mean([e.sum(axis=(1, 2)) for e in events("photon", energy, 60)], axis=0) for energy in (10.0, 300.0)
        ]
        weighted = [(profile * LAYERS.mip * np.arange(48)).sum() / (profile * LAYERS.mip).sum() for profile in depths]
        assert weighted[1] - weighted[0] > 2.0


class PionTest:
    def test_first_interaction_follows_the_interaction_length(self):
        # Up to it there is a track of about one MIP per layer, all of it in one cell.
        starts = []
        for event in events("pion", 100.0, 150):
            profile = event.sum(axis=(1, 2))
            shower = np.flatnonzero(profile > 4.0)
            starts.append(LAYERS.interaction[shower[0]] if len(shower) else LAYERS.interaction[-1])
        assert np.median(starts) == pytest.approx(math.log(2), abs=0.35)
        assert max(starts) > 2.0

    def test_signal_grows_with_energy_below_that_of_photons(self):
        means = {}
        for energy in (20.0, 160.0):
            signals = [in_gev(event) / energy for event in events("pion", energy, 100)]
            means[energy] = np.mean(signals)
            assert np.std(signals) / np.mean(signals) > 0.05
            assert showers.HADRON_SIGNAL * 0.85 < means[energy] < showers.ELECTRON_SIGNAL
        # The electromagnetic share, and with it the signal per GeV, grows with energy.
        assert means[160.0] > means[20.0]

    def test_is_wider_and_deeper_than_a_photon(self):
        def size(event):
            z, y, x = np.nonzero(event > 0.4)
            return np.std(y) + np.std(x), z.max()

        pions, photons = (np.mean([size(e) for e in events(p, 100.0, 25)], axis=0) for p in ("pion", "photon"))
        assert pions[0] > 1.5 * photons[0]
        assert pions[1] > photons[1] + 8

    def test_one_that_enters_outside_leaves_no_track(self):
        ray = (0.0, np.array([605.0, 5.0]), np.array([0.1, 0.0]))  # behind the last of 60 cells
        for seed in range(5):
            left = showers.pion(np.random.default_rng(seed), OWN, LAYERS, SHAPE, 50.0, ray)
            assert (left.dtype, left.shape) == (np.float64, SHAPE)
            assert left.min() == 0.0


class MuonTest:
    def test_leaves_one_mip_per_layer_in_one_cell_whatever_its_energy(self):
        tracks = events("muon", 20.0, 40) + events("muon", 300.0, 40)
        for track in tracks:
            assert ((track > 0).sum(axis=(1, 2)) <= 1).all()
            assert not np.delete(track.reshape(48, -1), 30 * 66 + 33, axis=1).any()
        signals = np.concatenate([track.sum(axis=(1, 2)) for track in tracks])
        assert signals.mean() == pytest.approx(1.0, abs=0.03)
        assert np.median(signals) < 0.97  # a long tail above
        assert signals.min() > OWN.threshold

    def test_follows_its_slope(self):
        rng = np.random.default_rng(0)
        ray = (0.0, np.array([5.0, 605.0]), np.array([0.2, -0.1]))
        z, y, x = np.nonzero(showers.muon(rng, OWN, LAYERS, SHAPE, 50.0, ray))
        depth = (LAYERS.mm[1:] + LAYERS.mm[:-1])[z] / 2
        np.testing.assert_array_equal(y, np.floor((5.0 + 0.2 * depth) / 10))
        np.testing.assert_array_equal(x, np.floor((605.0 - 0.1 * depth) / 10))

    def test_what_leaves_sideways_is_lost(self):
        ray = (0.0, np.array([5.0, 5.0]), np.array([-1.0, 0.0]))
        track = showers.muon(np.random.default_rng(0), OWN, LAYERS, SHAPE, 50.0, ray)
        assert 0 < (track > 0).sum() < 5


class OwnedTest:
    def test_by_hand(self):
        first, second = np.zeros((1, 2, 4)), np.zeros((1, 2, 4))
        soft = np.zeros((1, 2, 4))
        first[0] = [[3.0, 1.0, 2.0, 0.3], [0.0, 2.0, 0.0, 5.0]]
        second[0] = [[1.0, 3.0, 2.0, 0.3], [0.5, 0.0, 0.0, 0.0]]
        soft[0, 1] = [0.6, 1.0, 9.0, 5.0]
        ids, kept = showers.owned([first, second], soft, 0.4)
        # Ties go to the first, those with pile-up and what is below the threshold to nobody.
        assert ids[0].tolist() == [[1, 2, 1, 0], [0, 1, 0, 0]]
        assert kept.tolist() == [0, 1]

    def test_who_owns_nothing_gets_no_number(self):
        nothing, weak, strong = np.zeros((1, 1, 3)), np.full((1, 1, 3), 0.5), np.full((1, 1, 3), 2.0)
        ids, kept = showers.owned([nothing, weak, strong], np.zeros((1, 1, 3)), 0.4)
        assert (ids.tolist(), kept.tolist()) == ([[[1, 1, 1]]], [2])

    def test_no_particles(self):
        ids, kept = showers.owned([], np.ones((1, 2, 3)), 0.4)
        assert (ids.shape, ids.dtype, ids.any(), len(kept)) == ((1, 2, 3), np.int32, False, 0)


class DrawTest:
    def settings(self, shape=(48, 40, 44), count=(2, 4), **own):
        return Synthetic(shape=shape, count=count, showers=Showers(**own))

    def test_energies_are_log_uniform_in_their_range(self):
        energies = np.concatenate(
            [synthetic.draw("showers", self.settings(energy=(10.0, 40.0)), i)[3] for i in range(60)]
        )
        assert energies.shape[1] == 1
        assert 10.0 <= energies.min() < 12.0
        assert 34.0 < energies.max() <= 40.0
        assert np.median(energies) == pytest.approx(20.0, rel=0.2)

    def test_image_is_what_was_left_and_noise(self):
        quiet = self.settings(count=(0, 0), pileup=0.0, noise=0.2)
        image = synthetic.draw("showers", quiet, 0)[0]
        assert image.std() == pytest.approx(0.2, rel=0.02)
        assert image.mean() == pytest.approx(0.0, abs=0.005)
        image = synthetic.draw("showers", self.settings(count=(0, 0), pileup=20.0, noise=0.0), 0)[0]
        visible = (image.sum(axis=(1, 2)) * LAYERS.mip).sum() / showers.ELECTRON_SIGNAL
        assert 10.0 < visible < 50.0  # twenty photons of 1.5 GeV on average

    def test_sum_over_a_photon_tells_its_energy(self):
        settings = self.settings(count=(1, 1), pileup=0.0, noise=0.0, slope=0.0)
        seen = 0
        for index in range(30):
            image, ids, class_ids, attributes, _ = synthetic.draw("showers", settings, index)
            if class_ids.tolist() == [1]:
                seen += 1
                signal = np.where(ids == 1, image, 0).sum(axis=(1, 2))
                assert (signal * LAYERS.mip).sum() / showers.ELECTRON_SIGNAL == pytest.approx(
                    attributes.item(), rel=0.2
                )
        assert seen >= 4

    def test_readout_that_is_logarithmic_above_the_threshold(self):
        settings = [self.settings(readout=readout, threshold=0.5) for readout in ("linear", "asinh")]
        linear, bent = (synthetic.draw("showers", of_one, 2) for of_one in settings)
        np.testing.assert_allclose(showers.measured(bent[0], settings[1].showers), linear[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(linear[1], bent[1])

    def test_readout_by_hand(self):
        own = self.settings(readout="asinh", threshold=0.5).showers
        signal = np.array([-0.5, 0.0, 0.5, 50.0])
        one = math.log(1 + math.sqrt(2))
        expected = [-one, 0.0, one, math.log(100 + math.sqrt(10001))]
        np.testing.assert_allclose(showers.read_out(signal, own), expected, rtol=1e-12)
        np.testing.assert_allclose(showers.measured(np.array(expected), own), signal, rtol=1e-12)
        linear = self.settings().showers
        np.testing.assert_array_equal(showers.read_out(signal, linear), signal)
        np.testing.assert_array_equal(showers.measured(signal, linear), signal)

    def test_near_particles_share_more_borders(self):
        def distances(near):
            found = []
            for index in range(25):
                _, ids, class_ids, _, _ = synthetic.draw("showers", self.settings(count=(2, 2), near=near), index)
                if len(class_ids) == 2:
                    a, b = (np.argwhere(ids == number)[:, 1:].mean(axis=0) for number in (1, 2))
                    found.append(np.abs(a - b).max())
            return np.median(found)

        assert distances(1.0) < 0.6 * distances(0.0)

    def test_spacing(self):
        spacing = synthetic.draw("showers", self.settings(cell=(12.0, 8.0)), 0)[4]
        np.testing.assert_allclose(spacing, [(8 * 4.8 + 8 * 7.6 + 32 * 33.0) / 48, 12.0, 8.0])

    def test_layers_must_fit_the_shape(self):
        with pytest.raises(InputError, match=r"expected 48 layers along z .* came 40"):
            synthetic.draw("showers", self.settings(shape=(40, 48, 50)), 0)
