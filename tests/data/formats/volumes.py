"""Small volumes for the tests of the readers, and what every reader has to keep."""

import pathlib
import pickle

import numpy as np
import pytest

from data.errors import InputError
from data.lazy import LazyArray
from data.readers import read_volume

SHAPE = (5, 7, 11)
SHARED = pathlib.Path(__file__).parents[3] / ".." / "shared" / "data"


def shared(name):
    """A file of the real data; skips the test where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def ramp(dtype, shape=SHAPE):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def assert_input_error(path, words, **options):
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def read_both(path, *, on_disk=True):
    """Reads a volume eagerly and lazily, compares random regions of the two, and gives the eager one.

    Args:
      path: of the volume.
      on_disk: whether its format can leave the voxels there.
    """
    eager, lazy = read_volume(path), read_volume(path, lazy=True)
    assert isinstance(eager.array, np.ndarray)
    assert eager.array.flags.c_contiguous
    assert eager.array.dtype.isnative
    assert isinstance(lazy.array, LazyArray) == on_disk
    assert (lazy.array.shape, lazy.array.dtype, lazy.array.ndim) == (
        eager.array.shape,
        eager.array.dtype,
        eager.array.ndim,
    )
    np.testing.assert_array_equal(lazy.spacing, eager.spacing)
    np.testing.assert_array_equal(lazy.affine, eager.affine)
    array = pickle.loads(pickle.dumps(lazy.array))  # As into another process.
    np.testing.assert_array_equal(np.asarray(array), eager.array)
    rng = np.random.default_rng(0)
    for _ in range(5):
        ends = [np.sort(rng.integers(0, size + 1, 2)) for size in eager.array.shape[:3]]
        region = tuple(slice(*end.tolist()) for end in ends)
        found = array[region]
        assert found.dtype == eager.array.dtype
        assert found.flags.c_contiguous or not on_disk
        np.testing.assert_array_equal(found, eager.array[region])
    return eager
