import numpy as np
import pytest

from data import convert, parting, records
from data.errors import InputError
from tests.data import large_cases_test

SHAPE = (20, 30, 61)
SPACING = (1.0, 1.0, 1.0)


def ball(centre, radius):
    away = [(np.arange(n) - c) ** 2 for n, c in zip(SHAPE, centre, strict=True)]
    return away[0][:, None, None] + away[1][:, None] + away[2] <= radius**2


def dumbbell(neck):
    """Two balls, 42 voxels from end to end, joined by a square bar of so many voxels across."""
    ids = np.zeros(SHAPE, np.uint16)
    low = 10 - neck // 2
    ids[low : low + neck, low + 5 : low + 5 + neck, 12:45] = 1
    ids[ball((10, 15, 12), 7) | ball((10, 15, 45), 8)] = 1
    return ids


class PartTest:
    def test_two_balls_and_a_bar_are_two_parts_that_meet_on_the_bar(self):
        ids, parents = parting.part(dumbbell(3), SPACING, 40.0)
        assert parents.tolist() == [1, 1]
        np.testing.assert_array_equal(ids > 0, dumbbell(3) > 0)
        left, right = ids[10, 15, 12], ids[10, 15, 45]
        assert {left, right} == {1, 2}
        assert (ids[ball((10, 15, 12), 7)] == left).all()
        assert (ids[ball((10, 15, 45), 8)] == right).all()

    @pytest.mark.parametrize("longer_than", [48.0, 100.0])
    def test_what_is_not_longer_stays(self, longer_than):
        ids, parents = parting.part(dumbbell(3), SPACING, longer_than)  # 49 voxels from end to end
        assert parents.tolist() == [1] * (1 + (longer_than < 49.0))
        assert ids.max() == len(parents)

    def test_lengths_are_mm(self):
        for spacing, count in [((1.0, 1.0, 0.5), 1), ((1.0, 1.0, 1.0), 2), ((1.0, 1.0, 2.0), 2)]:
            assert len(parting.part(dumbbell(3), spacing, 40.0)[1]) == count

    def test_what_is_thin_nowhere_stays(self):
        bar = np.zeros((9, 11, 50), np.int32)
        bar[2:6, 3:8, 2:48] = 1
        ids, parents = parting.part(bar, SPACING, 10.0)
        np.testing.assert_array_equal(ids, bar)
        assert parents.tolist() == [1]

    def test_a_neck_nearly_as_thick_does_not_part(self):
        assert len(parting.part(dumbbell(13), SPACING, 40.0)[1]) == 1

    def test_touches_the_border_of_the_volume(self):
        ids = dumbbell(3)[3:17, 8:24, 5:54]  # nothing but the object
        assert all(ids[:, :, face].any() for face in (0, -1))
        assert len(parting.part(ids, SPACING, 40.0)[1]) == 2

    def test_others_keep_their_order_and_voxels(self):
        ids = 2 * dumbbell(3).astype(np.int64)
        ids[0:2, 0:2, 0:2], ids[18, 28:30, 50:60] = 1, 3
        parts, parents = parting.part(ids, SPACING, 40.0)
        assert parents.tolist() == [1, 2, 2, 3]
        np.testing.assert_array_equal(np.concatenate([[0], parents])[parts], ids)

    def test_nothing(self):
        ids, parents = parting.part(np.zeros((3, 4, 5), np.uint8), SPACING, 1.0)
        assert ids.shape == (3, 4, 5)
        assert not ids.any()
        assert parents.shape == (0,)


class ConversionTest:
    @pytest.mark.parametrize("chunk_size", [(256, 256, 256), large_cases_test.CHUNK])
    def test_components_are_parted(self, tmp_path, chunk_size):
        """Of two classes; a case that is cut into chunks has the same objects as one that is not."""
        large_cases_test.write_source(tmp_path / "in", count=1, semantic=True)
        own = {"labels": "semantic", "min_voxels": 1, "chunk_size": chunk_size}
        for longer_than in (0.0, 8.0):
            config = large_cases_test.config_of(tmp_path / "in", part_longer_than=longer_than, **own)
            out = tmp_path / f"{longer_than}"
            convert.convert(config, out, patch_size=large_cases_test.PATCH, progress=False)
        whole, parted = (large_cases_test.whole_volumes(tmp_path / name)[0] for name in ("0.0", "8.0"))
        assert len(parted["class_ids"]) > len(whole["class_ids"])
        classes = [np.concatenate([[0], v["class_ids"]])[v["instance_ids"]] for v in (whole, parted)]
        np.testing.assert_array_equal(*classes)
        # No part belongs to two components.
        pairs = np.unique(np.stack([parted["instance_ids"].ravel(), whole["instance_ids"].ravel()]), axis=1)
        assert np.bincount(pairs[0]).max() == 1
        manifest = records.read_manifest(tmp_path / "8.0")
        assert manifest["num_instances"]["train"] == {
            name: np.sum(parted["class_ids"] == number) for number, name in enumerate(("cell", "wall"), start=1)
        }

    def test_records_with_other_parts_are_refused(self, tmp_path):
        large_cases_test.write_source(tmp_path / "in", count=1, semantic=True)
        own = {"labels": "semantic", "records": str(tmp_path / "out")}
        config = large_cases_test.config_of(tmp_path / "in", part_longer_than=8.0, **own)
        manifest = convert.convert(config, config.records, progress=False)
        assert convert.ensure_records(config) == manifest
        config.part_longer_than = 0.0
        with pytest.raises(InputError, match=r"data\.part_longer_than=None, came part_longer_than=8\.0"):
            convert.ensure_records(config)
