import re

import pytest

from configs import schema
from configs.synthetic_schema import MATERIALS, READOUTS, Synthetic
from data.synthetic import calorimeter

RANGE = "(low, high) with 0 <= low <= high"
WRONG = [
    ("cubes.edge", (31, 16), RANGE),
    ("cubes.edge", (16, 20.5), "integers >= 1"),
    ("cubes.wall", 0, ">= 1"),
    ("cubes.wall", 8, "less than half of the least edge 16"),
    ("cubes.step", 0.0, "a number in (0, 1]"),
    ("digits.height", (0.0, 5.0), "(low, high) with 0 < low"),
    ("digits.depth", (0.5,), RANGE),
    ("digits.stroke", (0.0, 0.2), "at most 0.1"),
    ("digits.turn", -1.0, "degrees in [0, 180]"),
    ("digits.tilt", float("nan"), "degrees in [0, 180]"),
    ("digits.brightness", (0.0, float("inf")), "finite numbers"),
    ("digits.noise", -0.1, ">= 0"),
    ("nuclei.spacing", (1.0, 0.5), "three numbers > 0 (z, y, x)"),
    ("nuclei.radius", (0.0, 5.0), "(low, high) with 0 < low"),
    ("nuclei.crowding", 1.5, "a number in [0, 1]"),
    ("nuclei.squeeze", -0.1, "a number in [0, 1]"),
    ("nuclei.texture", 2.0, "a number in [0, 1]"),
    ("nuclei.fading", float("nan"), "a number in [0, 1]"),
    ("nuclei.blur", (1.0, -1.0, 0.0), "three numbers >= 0 (z, y, x)"),
    ("nuclei.background", (-0.1, 0.2), "(low, high) with 0 <= low <= high"),
    ("nuclei.haze", (0.5, 0.2), "(low, high) with 0 <= low <= high"),
    ("nuclei.photons", (0.0, 10.0), "(low, high) with 0 < low"),
    ("nuclei.photons", (10.0, 2e4), "numbers <= 10000"),
    ("showers.sections", (), "at least one"),
    ("showers.sections", ((8, "wood", 2.0, 2.0),), "(layers, one of tungsten, lead, copper, iron, mm > 0, mm > 0)"),
    ("showers.sections", ((8.0, "iron", 2.0, 2.0),), "(layers, one of tungsten, lead, copper, iron, mm > 0, mm > 0)"),
    ("showers.sections", ((8, "iron", 2.0, 0.0),), "(layers, one of tungsten, lead, copper, iron, mm > 0, mm > 0)"),
    ("showers.cell", (10.0, 0.0), "two numbers > 0"),
    ("showers.energy", (0.5, 300.0), "(low, high) with 1 <= low <= high, GeV"),
    ("showers.energy", (20.0, 10.0), "(low, high) with 1 <= low <= high, GeV"),
    ("showers.slope", 1.5, "a number in [0, 1]"),
    ("showers.near", -1.0, "a number in [0, 1]"),
    ("showers.near_distance", -1.0, ">= 0"),
    ("showers.stochastic", (0.1,), "two numbers > 0"),
    ("showers.pileup", float("inf"), ">= 0"),
    ("showers.pileup_energy", -1.0, ">= 0"),
    ("showers.noise", -0.1, ">= 0"),
    ("showers.threshold", 0.0, "> 0"),
    ("showers.readout", "root", "one of linear, asinh"),
    ("base_size", float("inf"), "> 0"),
    ("contrast", (0.1, float("inf")), "finite numbers"),
]


class SyntheticTest:
    @pytest.mark.parametrize(("name", "value", "expected"), WRONG)
    def test_wrong_value_is_named(self, name, value, expected):
        config = schema.Config()
        *section, field = name.split(".")
        setattr(getattr(config.data.synthetic, section[0]) if section else config.data.synthetic, field, value)
        words = re.escape(f"config data.synthetic.{name}: expected {expected}, came ")
        with pytest.raises(ValueError, match=words):
            config.validate()

    def test_comes_back_from_json(self):
        config = schema.Config()
        config.data.synthetic.showers.sections = ((8, "lead", 2.0, 1.0), (2, "iron", 20.0, 5.0))
        assert schema.from_json(schema.to_json(config)) == config

    def test_choices_are_those_of_the_calorimeter(self):
        assert set(MATERIALS) == set(calorimeter.ABSORBERS)
        assert READOUTS[0] == Synthetic().showers.readout
