import math

import pytest

from configs.hits_schema import Hits

SHAPE = (3, 4, 5)


class HitsTest:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"grid": "cones"}, "data.hits.grid: expected one of cartesian, layers, cylindrical, came 'cones'"),
            ({"unit": "m"}, "data.hits.unit"),
            ({"energy": ""}, "data.hits.energy: expected a column, came ''"),
            ({"channels": ()}, "data.hits.channels: expected at least one"),
            ({"channels": ("energy", "energy")}, "each once"),
            ({"channels": ("charge",)}, "data.hits.channels: expected one of energy, time, count, came 'charge'"),
            ({"channels": ("time",)}, "data.hits.time: expected a column for channel time, came ''"),
            ({"true_energy": "e"}, "data.hits.true_energy: expected none without data.hits.shower, came 'e'"),
            ({"shape": (3, 4)}, "data.hits.shape: expected three integers"),
            ({"cell": (1.0, 0.0, 1.0)}, "data.hits.cell: expected three numbers > 0"),
            ({"origin": (0.0, math.nan, 0.0)}, "data.hits.origin: expected three numbers"),
            ({"layers": (1.0, 2.0)}, "data.hits.layers: expected none but with grid layers"),
            ({"grid": "layers"}, "data.hits.layers: expected two or more ascending numbers"),
            ({"grid": "layers", "layers": (2.0, 1.0, 3.0)}, "two or more ascending numbers"),
            ({"grid": "layers", "layers": (1.0, 2.0)}, "data.hits.shape: expected a first number of 2, one for each"),
            ({"grid": "cylindrical", "cell": (1.0, 2.0, 1.0)}, "data.hits.cell: expected 4 cells of phi within 2 pi"),
            ({"grid": "cylindrical", "cell": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, -1.0)}, "expected r >= 0"),
        ],
    )
    def test_that_make_no_sense(self, changes, words):
        with pytest.raises(ValueError, match=words):
            Hits(**{"shape": SHAPE, **changes}).validate()

    def test_defaults_make_sense_and_stay_as_they_are(self):
        settings = Hits()
        settings.validate()
        assert settings == Hits()
