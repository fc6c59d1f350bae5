"""Settings of the synthetic sets (data/synthetic); see configs/schema.py."""

import dataclasses
import math

from configs import checks

MATERIALS = ("tungsten", "lead", "copper", "iron")
READOUTS = ("linear", "asinh")


@dataclasses.dataclass(slots=True)
class Cubes:
    """What `synthetic:cubes` draws beside the shared settings (`count` is not used: there is one object)."""

    edge: tuple = (16, 31)  # voxels, both inclusive
    wall: int = 4  # voxels around the hole of a hollow one
    step: float = 0.4  # added to the noise, which is uniform in 0..1; the sum is clipped to 1

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        _whole_range("cubes.edge", self.edge, 1)
        checks.require(self.wall >= 1, "data.synthetic.cubes.wall", ">= 1", self.wall)
        checks.require(
            2 * self.wall < self.edge[0],
            "data.synthetic.cubes.wall",
            f"less than half of the least edge {self.edge[0]}",
            self.wall,
        )
        checks.require(0 < self.step <= 1, "data.synthetic.cubes.step", "a number in (0, 1]", self.step)


@dataclasses.dataclass(slots=True)
class Digits:
    """What `synthetic:digits` draws beside the shared settings."""

    height: tuple = (14.0, 24.0)  # voxels, of the glyph before its turn
    depth: tuple = (0.25, 0.5)  # of the extrusion, in heights
    stroke: tuple = (0.0, 0.04)  # by which the outline is widened on every side, in heights
    turn: float = 30.0  # degrees, in the glyph's plane, -turn..turn; a half turn would make a 6 a 9
    tilt: float = 30.0  # degrees, about y and about x, -tilt..tilt
    brightness: tuple = (0.5, 1.0)  # of an object, on 0
    noise: float = 0.15  # standard deviation

    def validate(self):
        """Raises ValueError where a size or range makes no sense."""
        for name in ("height", "depth"):
            _positive_range(f"digits.{name}", getattr(self, name))
        for name in ("stroke", "brightness"):
            _range(f"digits.{name}", getattr(self, name))
        checks.require(self.stroke[1] <= 0.1, "data.synthetic.digits.stroke", "at most 0.1", self.stroke)
        for name in ("turn", "tilt"):
            value = getattr(self, name)
            checks.require(0 <= value <= 180, f"data.synthetic.digits.{name}", "degrees in [0, 180]", value)
        _not_negative("digits.noise", self.noise)


@dataclasses.dataclass(slots=True)
class Nuclei:
    """What `synthetic:nuclei` draws beside the shared settings."""

    spacing: tuple = (1.0, 0.5, 0.5)  # micrometres per voxel
    radius: tuple = (3.5, 5.5)  # micrometres, of each semi-axis
    crowding: float = 0.8  # share of nuclei that are tried beside one that is there
    squeeze: float = 0.1  # share of its voxels that a nucleus may yield to those that are there
    brightness: tuple = (0.4, 1.0)  # of a nucleus
    texture: float = 0.3  # brightness within a nucleus varies by as much up and down
    fading: float = 0.4  # share of the light that is lost from the first slice to the last
    background: tuple = (0.05, 0.05)  # brightness around the nuclei; of each stack its own
    # Out of focus: so many times the light, blurred by 4 micrometres, is added to it; of each stack its own. Between
    # crowded nuclei it is as bright as a faint one.
    haze: tuple = (0.0, 0.0)
    blur: tuple = (1.2, 0.4, 0.4)  # micrometres, standard deviations of the point spread function
    # Counted where the brightness is 1, of each stack its own, uniform in the logarithm: of few the stack is noisy.
    photons: tuple = (60.0, 60.0)

    def validate(self):
        """Raises ValueError where a size, share or range makes no sense."""
        checks.positive_triple("data.synthetic.nuclei.spacing", self.spacing)
        _positive_range("nuclei.radius", self.radius)
        _range("nuclei.brightness", self.brightness)
        for name in ("crowding", "squeeze", "texture", "fading"):
            checks.share(f"data.synthetic.nuclei.{name}", getattr(self, name))
        checks.require(
            len(self.blur) == 3 and all(isinstance(s, int | float) and 0 <= s < math.inf for s in self.blur),
            "data.synthetic.nuclei.blur",
            "three numbers >= 0 (z, y, x)",
            self.blur,
        )
        _range("nuclei.background", self.background)
        _range("nuclei.haze", self.haze)
        _positive_range("nuclei.photons", self.photons)
        checks.require(self.photons[1] <= 10000, "data.synthetic.nuclei.photons", "numbers <= 10000", self.photons)


@dataclasses.dataclass(slots=True)
class Showers:
    """What `synthetic:showers` draws beside the shared settings; shape is (layers, cells, cells)."""

    # From the front: (layers, absorber, its mm, mm of scintillator) of each section; their layers add up to shape[0].
    sections: tuple = ((8, "tungsten", 2.8, 2.0), (8, "tungsten", 5.6, 2.0), (32, "iron", 25.0, 8.0))
    cell: tuple = (10.0, 10.0)  # mm, along y and x
    energy: tuple = (10.0, 300.0)  # GeV, uniform in the logarithm
    slope: float = 0.1  # mm sideways per mm of depth, -slope..slope along y and x
    near: float = 0.4  # share of particles that enter near the one before, so that showers overlap
    near_distance: float = 40.0  # mm, along y and x at most
    stochastic: tuple = (0.1, 0.5)  # relative fluctuation at 1 GeV of electromagnetic and hadronic deposits
    pileup: float = 5.0  # mean number of soft photons that nobody owns
    pileup_energy: float = 1.0  # GeV, their mean energy above 0.5
    noise: float = 0.1  # of every cell, in units of a minimum-ionising particle (MIP)
    threshold: float = 0.4  # MIP: a cell with less from its owner belongs to nobody
    # MIP per cell; or asinh(MIP / threshold), linear below the threshold and a logarithm above it (Lupton et al. 1999):
    # a track keeps its distance from the noise beside the core of a shower, thousands of times as bright.
    readout: str = "linear"

    def validate(self):
        """Raises ValueError where the calorimeter cannot be built or a range makes no sense."""
        checks.require(len(self.sections) > 0, "data.synthetic.showers.sections", "at least one", self.sections)
        for section in self.sections:
            checks.require(
                isinstance(section, tuple)
                and len(section) == 4
                and type(section[0]) is int
                and section[0] >= 1
                and section[1] in MATERIALS
                and all(isinstance(mm, int | float) and 0 < mm < math.inf for mm in section[2:]),
                "data.synthetic.showers.sections",
                f"(layers, one of {', '.join(MATERIALS)}, mm > 0, mm > 0)",
                section,
            )
        for name in ("cell", "energy", "stochastic"):
            value = getattr(self, name)
            good = len(value) == 2 and all(isinstance(v, int | float) and 0 < v < math.inf for v in value)
            checks.require(good, f"data.synthetic.showers.{name}", "two numbers > 0", value)
        checks.require(
            1 <= self.energy[0] <= self.energy[1],
            "data.synthetic.showers.energy",
            "(low, high) with 1 <= low <= high, GeV",
            self.energy,
        )
        checks.share("data.synthetic.showers.near", self.near)
        checks.require(0 <= self.slope <= 1, "data.synthetic.showers.slope", "a number in [0, 1]", self.slope)
        for name in ("near_distance", "pileup", "pileup_energy", "noise"):
            _not_negative(f"showers.{name}", getattr(self, name))
        checks.require(self.threshold > 0, "data.synthetic.showers.threshold", "> 0", self.threshold)
        checks.choice("data.synthetic.showers.readout", self.readout, READOUTS)


@dataclasses.dataclass(slots=True)
class Synthetic:
    """What the source `synthetic:<kind>` draws (see data/synthetic): shared settings, then those of each kind."""

    shape: tuple = (128, 128, 128)
    count: tuple = (3, 20)  # objects per volume, both inclusive
    base_size: float = 15.0  # of shapes: voxels, times U(0.5, 2) per axis
    contrast: tuple = (0.02, 0.10)  # of shapes: intensity of an object, on 0
    num_train: int = 200
    num_val: int = 40
    num_test: int = 10
    seed: int = 0
    cubes: Cubes = dataclasses.field(default_factory=Cubes)
    digits: Digits = dataclasses.field(default_factory=Digits)
    nuclei: Nuclei = dataclasses.field(default_factory=Nuclei)
    showers: Showers = dataclasses.field(default_factory=Showers)

    def validate(self):
        """Raises ValueError where a size or range makes no sense."""
        checks.triple("data.synthetic.shape", self.shape)
        checks.interval("data.synthetic.count", self.count)
        checks.integers("data.synthetic.count", self.count, 0)
        _range("contrast", self.contrast)
        checks.require(0 < self.base_size < math.inf, "data.synthetic.base_size", "> 0", self.base_size)
        for name in ("num_train", "num_val", "num_test", "seed"):
            _not_negative(name, getattr(self, name))
        for kind in (self.cubes, self.digits, self.nuclei, self.showers):
            kind.validate()


def _range(name, value):
    checks.interval(f"data.synthetic.{name}", value)
    checks.require(value[1] < math.inf, f"data.synthetic.{name}", "finite numbers", value)


def _positive_range(name, value):
    _range(name, value)
    checks.require(value[0] > 0, f"data.synthetic.{name}", "(low, high) with 0 < low", value)


def _whole_range(name, value, least):
    _range(name, value)
    checks.integers(f"data.synthetic.{name}", value, least)


def _not_negative(name, value):
    checks.require(0 <= value < math.inf, f"data.synthetic.{name}", ">= 0", value)
