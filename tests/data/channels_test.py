import numpy as np
import pytest

from data.channels import stack_channels
from data.errors import InputError
from data.lazy import LazyArray
from data.readers import Volume, read_volume, spacing_affine
from data.writers import write_volume
from tests.data.formats.volumes import SHAPE, ramp, shared

SPACING = np.array([2.0, 0.75, 0.5])


def volume(array, spacing=SPACING, origin=(1, -2, 30)):
    return Volume(array, np.asarray(spacing), spacing_affine(np.asarray(spacing), origin))


class StackChannelsTest:
    def test_channels_follow_the_order_of_the_files(self):
        flair, colour = ramp("int16"), ramp("uint8", (*SHAPE, 3))
        stacked = stack_channels({"a": volume(flair), "b": volume(colour)})
        assert (stacked.array.shape, stacked.array.dtype) == ((*SHAPE, 4), np.int16)
        np.testing.assert_array_equal(stacked.array[..., 0], flair)
        np.testing.assert_array_equal(stacked.array[..., 1:], colour)
        np.testing.assert_array_equal(stacked.affine, volume(flair).affine)

    def test_one_volume(self):
        np.testing.assert_array_equal(stack_channels({"a": volume(ramp("u1"))}).array, ramp("u1")[..., np.newaxis])

    def test_lazy_volumes_stay_on_disk(self, tmp_path):
        write_volume(tmp_path / "a.npy", ramp("int16"), (1, 1, 1))
        write_volume(tmp_path / "b.h5", ramp("float32", (*SHAPE, 2)), (1, 1, 1))
        paths = [tmp_path / "a.npy", tmp_path / "b.h5"]
        eager = stack_channels({path.name: read_volume(path) for path in paths})
        lazy = stack_channels({path.name: read_volume(path, lazy=True) for path in paths})
        assert isinstance(lazy.array, LazyArray)
        assert (lazy.array.shape, lazy.array.dtype) == (eager.array.shape, eager.array.dtype)
        np.testing.assert_array_equal(np.asarray(lazy.array), eager.array)
        np.testing.assert_array_equal(lazy.array[1:3, 2:5, 4:9], eager.array[1:3, 2:5, 4:9])

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            (volume(ramp("u1", (5, 11, 7))), r"a and b: expected one shape, got \(5, 7, 11\) and \(5, 11, 7\)"),
            (volume(ramp("u1"), spacing=(2, 0.75, 0.52)), "a and b: expected one grid, got the affines"),
            (volume(ramp("u1"), origin=(1, -2, 30.5)), "a and b: expected one grid, got the affines"),
            (volume(ramp("u1"), spacing=(2, 0.75, -0.5), origin=(6, -2, 30)), "a and b: expected one grid"),
        ],
    )
    def test_other_grid(self, other, words):
        with pytest.raises(InputError, match=words):
            stack_channels({"a": volume(ramp("u1")), "b": other})

    def test_rounded_headers_are_one_grid(self):
        near = volume(ramp("u1"), spacing=SPACING * (1 + 1e-6), origin=(1.00001, -2, 30))
        assert stack_channels({"a": volume(ramp("u1")), "b": near}).array.shape == (*SHAPE, 2)

    def test_shared_brain(self):
        paths = [shared(f"ms_lesions/patient19/{name}.nii.gz") for name in ("flair", "t1")]
        volumes = {path.name: read_volume(path) for path in paths}
        stacked = stack_channels(volumes)
        assert stacked.array.shape == (182, 218, 182, 2)
        np.testing.assert_array_equal(stacked.array[..., 1], volumes["t1.nii.gz"].array)
