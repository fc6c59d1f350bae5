"""Settings of augmentation (see data/augmentation.py); see configs/schema.py.

A probability of 0 switches a step off, at no cost. Intervals are (low, high), drawn from uniformly.
"""

import dataclasses

from configs import checks

# A cubic B-spline whose control points move by less than this share of their distance does not fold (Choi and Lee,
# "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000).
_FOLD_FREE = 0.4
# The steps that change a patch itself, rather than put it together of several.
_CHANGES = ("affine", "elastic", "blur", "low_resolution", "gamma", "contrast", "brightness", "noise")


@dataclasses.dataclass(slots=True)
class Affine:
    """Rotation, scale and shear about the middle of the patch, in mm."""

    probability: float = 0.2
    rotation: tuple = ((-15, 15), (-15, 15), (-15, 15))  # degrees about z, y, x
    scale: tuple = (0.85, 1.15)  # above 1 objects grow
    isotropic: bool = True  # one scale for all axes, or one for each
    shear: tuple = (0.0, 0.0)  # mm along an axis for each mm along a later one

    def validate(self):
        """Raises ValueError where an interval makes no sense."""
        name = "input.augment.affine"
        checks.share(f"{name}.probability", self.probability)
        checks.require(len(self.rotation) == 3, f"{name}.rotation", "three intervals (z, y, x)", self.rotation)
        for interval in self.rotation:
            _interval(f"{name}.rotation", interval, -180, 180)
        _interval(f"{name}.scale", self.scale, 0.1, 10)
        _interval(f"{name}.shear", self.shear, -1, 1)


@dataclasses.dataclass(slots=True)
class Elastic:
    """Smooth random displacement: a cubic B-spline through a coarse grid."""

    probability: float = 0.05
    grid: tuple = (24, 24, 24)  # voxels between control points
    magnitude: tuple = (0.0, 3.0)  # voxels, m: every control point moves by U(-m, m) along each axis

    def validate(self):
        """Raises ValueError where the displacement could fold space."""
        name = "input.augment.elastic"
        checks.share(f"{name}.probability", self.probability)
        checks.triple(f"{name}.grid", self.grid)
        _interval(f"{name}.magnitude", self.magnitude, 0, _FOLD_FREE * min(self.grid))


@dataclasses.dataclass(slots=True)
class Effect:
    """A change of intensities whose strength is drawn, for each channel on its own."""

    probability: float
    interval: tuple

    def validate(self, name, least, most):
        """Raises ValueError unless the interval lies in [least, most]."""
        checks.share(f"input.augment.{name}.probability", self.probability)
        _interval(f"input.augment.{name}.interval", self.interval, least, most)


@dataclasses.dataclass(slots=True)
class LowResolution:
    """Nearest voxels of a coarser grid, interpolated linearly."""

    probability: float = 0.1
    interval: tuple = (0.5, 1.0)  # voxels of the coarser grid for each of ours
    axes: tuple = (True, True, True)  # which axes (z, y, x) lose resolution

    def validate(self):
        """Raises ValueError where the interval or the axes make no sense."""
        name = "input.augment.low_resolution"
        checks.share(f"{name}.probability", self.probability)
        _interval(f"{name}.interval", self.interval, 0.05, 1)
        checks.require(
            len(self.axes) == 3 and all(isinstance(axis, bool) for axis in self.axes),
            f"{name}.axes",
            "three booleans (z, y, x)",
            self.axes,
        )


@dataclasses.dataclass(slots=True)
class Mosaic:
    """A patch put together from crops of the case and of another one, in turn."""

    probability: float = 0.0
    grid: tuple = (2, 2, 2)  # crops along z, y, x

    def validate(self, patch_size):
        """Raises ValueError unless the grid divides the patch."""
        checks.share("input.augment.mosaic.probability", self.probability)
        checks.triple("input.augment.mosaic.grid", self.grid)
        checks.require(
            self.probability == 0 or all(p % g == 0 for p, g in zip(patch_size, self.grid, strict=True)),
            "input.augment.mosaic.grid",
            f"divisors of patch_size {patch_size}",
            self.grid,
        )


@dataclasses.dataclass(slots=True)
class Paste:
    """Instances of another case copied into the patch."""

    probability: float = 0.0
    count: int = 3  # instances that are tried; one that finds no room stays away
    max_covered: float = 0.0  # share of an instance of the patch that may be covered by one pasted
    blend: int = 1  # voxels at the inner border that mix with what was there; 0: none

    def validate(self):
        """Raises ValueError where a share or count makes no sense."""
        checks.share("input.augment.paste.probability", self.probability)
        checks.share("input.augment.paste.max_covered", self.max_covered)
        checks.require(self.count >= 1, "input.augment.paste.count", ">= 1", self.count)
        checks.require(self.blend >= 0, "input.augment.paste.blend", ">= 0", self.blend)


@dataclasses.dataclass(slots=True)
class Augment:
    """What happens to a training patch beside its random place, mirrors and quarter turns, in this order."""

    mosaic: Mosaic = dataclasses.field(default_factory=Mosaic)  # such patches are not bent
    affine: Affine = dataclasses.field(default_factory=Affine)
    elastic: Elastic = dataclasses.field(default_factory=Elastic)
    paste: Paste = dataclasses.field(default_factory=Paste)
    blur: Effect = dataclasses.field(
        default_factory=lambda: Effect(0.1, (0.5, 1.0))
    )  # standard deviation of a Gaussian, voxels
    low_resolution: LowResolution = dataclasses.field(default_factory=LowResolution)
    gamma: Effect = dataclasses.field(
        default_factory=lambda: Effect(0.2, (0.7, 1.5))
    )  # exponent of a channel scaled to 0..1
    gamma_invert: float = 0.25  # probability that gamma acts on 1 minus the channel
    contrast: Effect = dataclasses.field(
        default_factory=lambda: Effect(0.5, (0.8, 1.2))
    )  # factor of the distance to the channel's mean
    brightness: Effect = dataclasses.field(
        default_factory=lambda: Effect(0.5, (-0.1, 0.1))
    )  # added; units of the normalised volume
    noise: Effect = dataclasses.field(
        default_factory=lambda: Effect(0.1, (0.0, 0.1))
    )  # standard deviation of white noise, likewise
    channel_drop: float = 0.0  # probability that one of several channels becomes 0

    def that_change_sums(self, kind):
        """Names of the steps in use after which an object's voxels sum up to something else.

        Args:
          kind: "none"; "linear", sums of intensities, which smoothing and noise leave about as they are; or "sinh",
            sums of the sinh of intensities, which makes the most of the largest.
        """
        steps = {
            "none": (),
            "linear": [step for step in _CHANGES if step not in ("blur", "low_resolution", "noise")],
            "sinh": _CHANGES,
        }
        return [step for step in steps[kind] if getattr(self, step).probability > 0]

    def validate(self, patch_size):
        """Raises ValueError where a probability, an interval or a size makes no sense."""
        self.mosaic.validate(patch_size)
        for section in (self.affine, self.elastic, self.paste, self.low_resolution):
            section.validate()
        self.blur.validate("blur", 0.01, min(patch_size))
        self.gamma.validate("gamma", 0.1, 10)
        checks.share("input.augment.gamma_invert", self.gamma_invert)
        self.contrast.validate("contrast", 0, 10)
        self.brightness.validate("brightness", -1000, 1000)
        self.noise.validate("noise", 0, 1000)
        checks.share("input.augment.channel_drop", self.channel_drop)


def none():
    """All switched off; mirror images and quarter turns are settings of `input` itself."""
    augment = Augment()
    for step in _CHANGES:
        getattr(augment, step).probability = 0.0
    return augment


def light():
    """Contrast and brightness alone: for networks so small that the making of batches would hold them up."""
    augment = none()
    augment.contrast, augment.brightness = Effect(1.0, (0.9, 1.1)), Effect(1.0, (-0.1, 0.1))
    return augment


def _interval(name, value, least, most):
    good = isinstance(value, tuple) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    good = good and least <= value[0] <= value[1] <= most
    checks.require(good, name, f"(low, high) with {least:g} <= low <= high <= {most:g}", value)
