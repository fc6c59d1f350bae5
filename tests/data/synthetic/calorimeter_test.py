import numpy as np
import pytest

from data.errors import InputError
from data.synthetic import calorimeter

SECTIONS = ((2, "tungsten", 3.504, 1.0), (3, "iron", 17.57, 5.0))


@pytest.fixture
def layers():
    return calorimeter.build(SECTIONS, (10.0, 20.0), 5)


class BuildTest:
    def test_lengths_by_hand(self, layers):
        np.testing.assert_allclose(np.diff(layers.mm), [4.504, 4.504, 22.57, 22.57, 22.57])
        # One radiation length of absorber each, and what the scintillator adds.
        np.testing.assert_allclose(np.diff(layers.radiation), [1 + 1 / 413.1] * 2 + [1 + 5 / 413.1] * 3)
        iron = 17.57 / 167.7 + 5 / 771
        np.testing.assert_allclose(np.diff(layers.interaction), [3.504 / 99.46 + 1 / 771] * 2 + [iron] * 3)
        np.testing.assert_allclose(layers.mip[[0, 4]], [3.504 * 0.00221 + 0.000205, 17.57 * 0.001143 + 5 * 0.000205])
        np.testing.assert_allclose(layers.moliere[[0, 4]], [9.327 * 4.504 / 3.504, 17.19 * 22.57 / 17.57])

    def test_spacing_along_z_is_the_mean(self, layers):
        np.testing.assert_allclose(layers.spacing(), [(2 * 4.504 + 3 * 22.57) / 5, 10.0, 20.0])

    def test_layers_must_fit_the_shape(self):
        with pytest.raises(InputError, match=r"data.synthetic.shape: expected 5 layers along z .*, came 6"):
            calorimeter.build(SECTIONS, (10.0, 20.0), 6)


class PositionTest:
    def test_middle_of_the_third_layer(self, layers):
        assert layers.at(layers.mm, 2.5) == pytest.approx(2 * 4.504 + 22.57 / 2)
        assert layers.position(layers.mm, 2 * 4.504 + 22.57 / 2) == pytest.approx(2.5)

    @pytest.mark.parametrize("position", [0.0, 0.3, 1.0, 1.999, 4.2])
    def test_position_undoes_at(self, layers, position):
        for lengths in (layers.mm, layers.radiation, layers.interaction):
            assert layers.position(lengths, layers.at(lengths, position)) == pytest.approx(position)

    def test_beyond_the_end_is_the_end(self, layers):
        assert layers.position(layers.mm, 1e6) == 5.0
        assert layers.at(layers.mm, 5.0) == pytest.approx(layers.mm[-1])
