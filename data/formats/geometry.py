"""What a file says of its grid, checked before it is believed: sizes, spacing, directions, units."""

from pathlib import Path

import numpy as np

from data.errors import InputError

MILLIMETRES = {
    **dict.fromkeys(("nm", "nanometer"), 1e-6),
    **dict.fromkeys(("um", "µm", "μm", r"\u00b5m", "micron", "microns", "micrometer"), 1e-3),
    **dict.fromkeys(("mm", "millimeter"), 1.0),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("m", "meter"), 1e3),
    **dict.fromkeys(("å", "angstrom"), 1e-7),
    **dict.fromkeys(("inch", "in"), 25.4),
    **dict.fromkeys(("", "pixel", "pixels", "voxel"), 1.0),  # No unit: the numbers as they are.
}
# Cosines between axes: 0.06 degrees, far more than the rounding of a header and less than half a voxel in 500.
_RIGHT_ANGLE = 1e-3


def spacing_affine(spacing: np.ndarray, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """The [4, 4] affine of a grid along the world's axes.

    Args:
      spacing: [3] mm, z, y, x.
      origin: the first voxel's centre in the world, mm, x, y, z.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag(spacing[::-1]))
    affine[:3, 3] = origin
    return affine


def direction_affine(path: Path, spacing: np.ndarray, direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The [4, 4] affine of a grid that may be turned.

    Args:
      path: the file, for messages.
      spacing: [3] mm, z, y, x.
      direction: [3, 3], whose columns are the world directions (x, y, z) of the axes z, y, x, of length 1.
      origin: [3] the first voxel's centre in the world, mm, x, y, z.

    Raises:
      InputError: numbers that are not finite, or axes that are not at right angles.
    """
    if not (np.all(np.isfinite(direction)) and np.all(np.isfinite(origin))):
        raise InputError(
            f"{path}: expected a finite orientation, got {np.ravel(direction).tolist()} at {np.ravel(origin).tolist()}"
        )
    if np.abs(direction.T @ direction - np.eye(3)).max() > _RIGHT_ANGLE:
        raise InputError(
            f"{path}: expected voxel axes at right angles, got sheared ones, {np.round(direction, 4).tolist()} "
            "(columns z, y, x); resample it to an orthogonal grid"
        )
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = origin
    return affine


def check_sizes(path: Path, sizes: tuple[int, ...]) -> None:
    """InputError where an axis has no voxel."""
    if min(sizes) < 1:
        raise InputError(f"{path}: expected a voxel or more on every axis, got sizes {tuple(sizes)}")


def check_spacing(path: Path, spacing: np.ndarray) -> None:
    """InputError where a spacing (z, y, x) is not finite and above 0."""
    if not (np.all(np.isfinite(spacing)) and np.all(np.greater(spacing, 0))):
        values = np.asarray(spacing).tolist()
        raise InputError(f"{path}: expected a finite spacing above 0, got {values} (z, y, x)")


def millimetres(path: Path, unit: str) -> float:
    """How many mm one `unit` has; InputError where it is no known unit of length."""
    key = str(unit).strip().lower()
    if key not in MILLIMETRES:
        raise InputError(f"{path}: expected a unit of length ({', '.join(MILLIMETRES)}), got {unit!r}")
    return MILLIMETRES[key]


def length_of_3(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    """[3] float64 from a stored triple; InputError where it is something else."""
    value = np.asarray(value)
    if value.shape != (3,) or value.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected a {name} of 3 numbers, got {value.dtype} of shape {value.shape}")
    return value.astype(np.float64)


def only_one(path: Path, kind: str, names: list[str], preferred: tuple[str, ...]) -> str:
    """The only name of a list, or the only one whose last part is preferred; InputError where there is none."""
    named = [name for name in names if name.rsplit("/", 1)[-1] in preferred] or names
    if len(named) != 1:
        wanted = " or ".join(map(repr, preferred))
        raise InputError(f"{path}: expected one {kind}, {wanted}, got {sorted(names)}")
    return named[0]
