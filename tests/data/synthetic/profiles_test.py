import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special

from data.synthetic import profiles
from data.synthetic.calorimeter import ABSORBERS

TUNGSTEN, IRON = ABSORBERS["tungsten"], ABSORBERS["iron"]


class GammaShareTest:
    @pytest.mark.parametrize("a", [0.4, 1.0, 2.7, 6.0])
    @pytest.mark.parametrize("x", [-1.0, 0.0, 1e-6, 0.3, 1.0, 5.0, 20.0, 90.0])
    def test_equals_scipy(self, a, x):
        assert profiles.gamma_share(a, x) == pytest.approx(scipy.special.gammainc(a, max(x, 0.0)), abs=1e-11)

    def test_far_beyond_is_1(self):
        assert profiles.gamma_share(2.0, 5000.0) == 1.0


class LongitudinalTest:
    def test_shares_add_up_to_1_and_none_is_negative(self):
        shares = profiles.longitudinal(3.2, 0.5, np.linspace(-4.0, 80.0, 85))
        assert shares.sum() == pytest.approx(1.0)
        assert (shares >= 0).all()
        np.testing.assert_array_equal(shares[:4], 0.0)

    def test_maximum_is_at_shape_less_1_over_rate(self):
        depths = np.linspace(0.0, 30.0, 3001)
        shares = profiles.longitudinal(4.0, 0.5, depths)
        assert depths[shares.argmax()] == pytest.approx((4.0 - 1.0) / 0.5, abs=0.02)

    def test_each_share_is_the_integral_over_its_layer(self):
        depths = np.array([0.0, 1.0, 2.5, 7.0])

        def density(t):
            return 0.5 * (0.5 * t) ** 2.2 * math.exp(-0.5 * t) / math.gamma(3.2)

        expected = [scipy.integrate.quad(density, a, b)[0] for a, b in itertools.pairwise(depths)]
        np.testing.assert_allclose(profiles.longitudinal(3.2, 0.5, depths), expected, rtol=1e-8)


class ElectromagneticTest:
    def test_typical_shower_by_hand(self):
        # 100 GeV in tungsten: ln y = ln(100 / 0.00797) = 9.4372.
        maximum, shape = profiles.electromagnetic(100.0, TUNGSTEN)
        assert maximum == pytest.approx(9.4372 - 0.812, abs=1e-3)
        assert shape == pytest.approx(0.81 + (0.458 + 2.26 / 74) * 9.4372, abs=1e-3)

    @pytest.mark.parametrize("energy", [10.0, 100.0, 300.0])
    @pytest.mark.parametrize("absorber", [TUNGSTEN, IRON])
    def test_maximum_is_within_half_a_radiation_length_of_the_rule_of_the_pdg(self, energy, absorber):
        rule = math.log(energy / absorber.critical_energy) - 0.5  # of electrons
        assert profiles.electromagnetic(energy, absorber)[0] == pytest.approx(rule, abs=0.5)

    def test_fluctuations_have_the_stated_widths_and_correlation(self):
        rng = np.random.default_rng(0)
        drawn = [profiles.electromagnetic(50.0, IRON, *rng.standard_normal(2)) for _ in range(4000)]
        logs = np.log(drawn)
        y = math.log(50.0 / IRON.critical_energy)
        np.testing.assert_allclose(logs.std(axis=0), [1 / (-1.4 + 1.26 * y), 1 / (-0.58 + 0.86 * y)], rtol=0.05)
        assert np.corrcoef(logs.T)[0, 1] == pytest.approx(0.705 - 0.023 * y, abs=0.03)

    def test_softest_shower_is_finite(self):
        for energy in (0.0, 1e-9, 0.01):
            maximum, shape = profiles.electromagnetic(energy, IRON, -4.0, 4.0)
            assert maximum > 0
            assert shape >= 1.1


class RadialTest:
    def test_by_hand(self):
        # 10 GeV in iron (Z = 26) at the maximum: ln E = 2.302585.
        core, tail, share = profiles.radial(10.0, IRON, 1.0)
        assert core == pytest.approx(0.0251 + 0.00319 * 2.302585 + 0.1162 - 0.000381 * 26, abs=1e-9)
        growth = 0.3585 + 0.0421 * 2.302585
        tail_by_hand = (0.659 - 0.00309 * 26) * (math.exp(-2.59 * 0.355) + math.exp(growth * 0.355))
        assert tail == pytest.approx(tail_by_hand, abs=1e-9)
        exponent = (0.401 + 0.00187 * 26 - 1.0) / (1.313 - 0.0686 * 2.302585)
        assert share == pytest.approx((2.632 - 0.00094 * 26) * math.exp(exponent - math.exp(exponent)), abs=1e-9)

    def test_core_is_narrower_than_the_tail_and_grows_with_depth(self):
        cores = []
        for tau in (0.0, 0.5, 1.0, 2.0, 4.0):
            core, tail, share = profiles.radial(50.0, TUNGSTEN, tau)
            assert 0 < core < tail
            assert 0 <= share <= 1
            cores.append(core)
        assert cores == sorted(cores)


class HadronicTest:
    def test_by_hand(self):
        shape, rate = profiles.hadronic(math.e)
        assert (shape, rate) == (pytest.approx(0.6165 + 0.3183), pytest.approx(0.9099 - 0.0237))

    def test_below_1_gev_as_at_1(self):
        assert profiles.hadronic(0.0) == profiles.hadronic(1.0) == (0.6165, 0.9099)
