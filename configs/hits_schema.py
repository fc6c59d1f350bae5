"""Settings of hit tables (see data/hits.py); see configs/schema.py."""

import dataclasses
import itertools
import math

from configs import checks

GRIDS = ("cartesian", "layers", "cylindrical")
CHANNELS = ("energy", "time", "count")
UNITS = ("mm", "cm")
_COLUMNS = ("x", "y", "z", "energy", "shower", "shower_class", "true_energy", "time")


@dataclasses.dataclass(slots=True)
class Hits:
    """How a table of hits becomes a volume. A column is a name (CSV) or, as "5", a number from 0 (CSV, NPY)."""

    x: str = "x"
    y: str = "y"
    z: str = "z"
    energy: str = "energy"
    time: str = ""  # needed by the channel time
    shower: str = ""  # id of the shower that a hit belongs to; empty: no truth
    first_shower: int = 1  # hits with a smaller id belong to no shower
    shower_class: str = ""  # name or number of its class; empty: the JSON beside the table tells it
    true_energy: str = ""  # of its shower; empty: the sum of the shower's hits
    channels: tuple = ("energy",)  # of a voxel: energy (sum), time (mean, weighted by energy), count (hits)
    unit: str = "mm"  # of positions, here and in the table: mm or cm
    grid: str = "cartesian"  # axes (z, y, x); layers: (layer, y, x); cylindrical: (z, phi, r)
    shape: tuple = (64, 64, 64)  # voxels
    origin: tuple = (0.0, 0.0, 0.0)  # lower corner of the first voxel; of layers, the first number is not used
    cell: tuple = (10.0, 10.0, 10.0)  # size of a voxel; phi in radians; of layers, the first number is not used
    layers: tuple = ()  # ascending z of the middle of each layer; a hit belongs to the nearest one

    def validate(self):
        """Raises ValueError where a grid has no size, a column is missing or a choice is unknown."""
        for name in _COLUMNS[:4]:
            checks.require(getattr(self, name) != "", f"data.hits.{name}", "a column", getattr(self, name))
        checks.choice("data.hits.unit", self.unit, UNITS)
        checks.choice("data.hits.grid", self.grid, GRIDS)
        checks.require(
            len(self.channels) > 0 and len(set(self.channels)) == len(self.channels),
            "data.hits.channels",
            "at least one, each once",
            self.channels,
        )
        for channel in self.channels:
            checks.choice("data.hits.channels", channel, CHANNELS)
        checks.require(
            self.time or "time" not in self.channels, "data.hits.time", "a column for channel time", self.time
        )
        for name in ("shower_class", "true_energy"):
            value = getattr(self, name)
            checks.require(self.shower or not value, f"data.hits.{name}", "none without data.hits.shower", value)
        self._validate_grid()

    def _validate_grid(self):
        checks.triple("data.hits.shape", self.shape)
        checks.positive_triple("data.hits.cell", self.cell)
        checks.require(
            len(self.origin) == 3 and all(isinstance(o, int | float) and math.isfinite(o) for o in self.origin),
            "data.hits.origin",
            "three numbers (z, y, x)",
            self.origin,
        )
        if self.grid == "layers":
            checks.require(
                len(self.layers) >= 2
                and all(isinstance(z, int | float) and math.isfinite(z) for z in self.layers)
                and all(low < high for low, high in itertools.pairwise(self.layers)),
                "data.hits.layers",
                "two or more ascending numbers",
                self.layers,
            )
            checks.require(
                self.shape[0] == len(self.layers),
                "data.hits.shape",
                f"a first number of {len(self.layers)}, one for each of data.hits.layers",
                self.shape,
            )
        else:
            checks.require(len(self.layers) == 0, "data.hits.layers", "none but with grid layers", self.layers)
        if self.grid == "cylindrical":
            checks.require(
                self.shape[1] * self.cell[1] <= 2 * math.pi * (1 + 1e-6),
                "data.hits.cell",
                f"{self.shape[1]} cells of phi within 2 pi",
                self.cell,
            )
            checks.require(self.origin[2] >= 0, "data.hits.origin", "r >= 0", self.origin)
