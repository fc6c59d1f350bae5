import dataclasses
import zlib

import numpy as np
import pytest

from configs.synthetic_schema import Synthetic
from data import synthetic
from data.errors import InputError

SECTIONS = ((4, "tungsten", 2.8, 2.0), (5, "lead", 5.6, 2.0), (9, "iron", 25.0, 8.0))
SHAPE = (18, 24, 31)
KINDS = tuple(synthetic.CLASSES)
# Seed 7, index 3: CRC-32 of image, ids, class ids and attributes. A change here changes every set.
GOLDEN = {
    "shapes": [3872002442, 1498872388, 2019390308, 3814359390],
    "cubes": [3944554981, 158966578, 2583214201, 0],
    "digits": [3132992402, 3289445164, 324954876, 0],
    "nuclei": [3201832520, 4216616948, 2908811600, 0],
    "showers": [1290987783, 1372259612, 717280307, 4079933684],
}


def settings(**changes):
    """Small volumes of three lengths that suit every kind."""
    small = Synthetic(
        **{"shape": SHAPE, "count": (2, 5), "base_size": 4.0, "contrast": (0.5, 1.0), "seed": 7, **changes}
    )
    small.cubes.edge = (9, 15)
    small.digits.height = (8.0, 11.0)
    small.nuclei.radius = (2.0, 3.0)
    small.showers.sections = SECTIONS
    small.validate()
    return small


def checksums(drawn):
    return [zlib.crc32(np.ascontiguousarray(array).tobytes()) for array in drawn]


class DrawTest:
    @pytest.mark.parametrize("kind", KINDS)
    def test_golden_volume(self, kind):
        drawn = synthetic.draw(kind, settings(), 3)
        assert checksums(drawn[:4]) == GOLDEN[kind]

    @pytest.mark.parametrize("kind", KINDS)
    def test_dtypes_shapes_and_dense_ids(self, kind):
        for index in range(4):
            image, ids, class_ids, attributes, spacing = synthetic.draw(kind, settings(), index)
            assert image.shape == ids.shape == SHAPE
            assert image.dtype == {"nuclei": np.uint16, "showers": np.float32}.get(kind, np.uint8)
            assert (ids.dtype, class_ids.dtype, attributes.dtype) == (np.int32, np.int32, np.float32)
            np.testing.assert_array_equal(np.unique(ids[ids > 0]), np.arange(len(class_ids)) + 1)
            assert set(class_ids) <= set(range(1, len(synthetic.CLASSES[kind]) + 1))
            assert attributes.shape == (len(class_ids), len(synthetic.ATTRIBUTES[kind]))
            assert (spacing.shape, spacing.dtype) == ((3,), np.float64)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_seed_and_index_gives_another_volume(self, kind):
        drawn = {tuple(checksums(synthetic.draw(kind, settings(seed=s), i))) for s in range(2) for i in range(3)}
        assert len(drawn) == 6
        assert checksums(synthetic.draw(kind, settings(seed=1), 2)) == checksums(
            synthetic.draw(kind, settings(seed=1), 2)
        )

    @pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cubes"}))
    def test_no_objects_wanted(self, kind):
        image, ids, class_ids, attributes, _ = synthetic.draw(kind, settings(count=(0, 0)), 0)
        assert (ids.any(), class_ids.shape) == (False, (0,))
        assert attributes.shape == (0, len(synthetic.ATTRIBUTES[kind]))
        assert image.std() > 0

    @pytest.mark.parametrize("kind", ["digits", "nuclei"])
    def test_nothing_fits_in_a_volume_far_too_small(self, kind):
        _, ids, class_ids, _, _ = synthetic.draw(kind, settings(shape=(2, 3, 5)), 0)
        assert (ids.max(), class_ids.shape) == (0, (0,))

    @pytest.mark.parametrize("index", [-1, 0.5, "3"])
    def test_index_must_be_a_number(self, index):
        with pytest.raises(InputError, match="index: expected an int >= 0, came"):
            synthetic.draw("shapes", settings(), index)

    def test_other_kinds_settings_change_nothing(self):
        changed = settings()
        changed.nuclei.photons, changed.cubes.wall = (3.0, 3.0), 2
        assert checksums(synthetic.draw("digits", changed, 0)) == checksums(synthetic.draw("digits", settings(), 0))


class KindOfTest:
    def test_names_the_kind(self):
        assert synthetic.kind_of("synthetic:showers") == "showers"
        assert synthetic.kind_of("some/folder") is None

    def test_unknown_kind(self):
        words = r"expected a folder or synthetic:shapes \| cubes \| .*, came 'synthetic:tubes'"
        with pytest.raises(InputError, match=words):
            synthetic.kind_of("synthetic:tubes")


class SettingsOfTest:
    def test_holds_what_is_shared_and_the_kinds_own(self):
        ours = settings(seed=5)
        shared = {field.name for field in dataclasses.fields(ours)} - set(KINDS)
        assert set(synthetic.settings_of("shapes", ours)) == shared
        assert set(synthetic.settings_of("cubes", ours)) == shared | {"cubes"}
        assert synthetic.settings_of("cubes", ours)["cubes"] == {"edge": (9, 15), "wall": 4, "step": 0.4}
