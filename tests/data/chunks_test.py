import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import chunks, statistics
from data.cases import Case
from data.readers import Volume, spacing_affine

AXES = st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(0, 12))  # length, patch, chunk beyond the patch


def make_case(shape=(5, 8, 11), num_instances=4, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, num_instances + 1, shape).astype(np.int32)
    affine = spacing_affine(np.array([2.0, 0.5, 0.25]))
    affine[:3, 3] = [-1, 7, 3]
    volume = Volume(rng.integers(0, 99, shape).astype(np.int16), np.array([2.0, 0.5, 0.25]), affine)
    numbers = np.arange(1, num_instances + 1)
    attributes = numbers[:, np.newaxis].astype(np.float32)
    points = np.stack([attributes + axis for axis in range(3)], axis=-1)
    return Case("a", volume, ids, (numbers % 3 + 1).astype(np.int32), attributes, points, "a.nii")


class RegionsTest:
    @settings(max_examples=150, deadline=None)
    @given(axes=st.tuples(AXES, AXES, AXES))
    def test_every_patch_lies_whole_in_one_of_the_fewest_chunks(self, axes):
        for axis, (length, patch, beyond) in enumerate(axes):
            size = patch + beyond
            shape, chunk, overlap = [1, 1, 1], [1, 1, 1], [0, 0, 0]
            shape[axis], chunk[axis], overlap[axis] = length, size, patch - 1
            spans = [(r[axis].start, r[axis].stop) for r in chunks.regions(shape, chunk, overlap)]
            assert all(0 <= start < stop <= length and stop - start <= size for start, stop in spans)
            assert set().union(*(range(start, stop) for start, stop in spans)) == set(range(length))
            for start in range(length - patch + 1):
                assert any(low <= start and start + patch <= high for low, high in spans)
            # With one chunk fewer, the patches that begin in a chunk of full size would not be all.
            positions = max(length - patch, 0) + 1
            assert (len(spans) - 1) * (size - patch + 1) < positions

    def test_by_hand(self):
        found = chunks.regions((4, 10, 21), (5, 6, 10), (1, 2, 3))
        assert [[(part.start, part.stop) for part in region] for region in found] == [
            [(0, 4), y, x] for y, x in itertools.product([(0, 6), (4, 10)], [(0, 10), (7, 17), (11, 21)])
        ]

    def test_a_chunk_no_larger_than_the_overlap_is_refused_where_it_has_to_cut(self):
        assert len(chunks.regions((4, 4, 4), (4, 4, 4), (9, 9, 9))) == 1
        with pytest.raises(ValueError, match=r"chunk_size 4 must be larger than the overlap 4 \(patch_size - 1\)"):
            chunks.regions((4, 4, 5), (4, 4, 4), (4, 4, 4))


class CutTest:
    def test_a_piece_knows_its_place_and_what_it_shows(self):
        case = make_case()
        case.instance_ids[2:, 3:, 4:][case.instance_ids[2:, 3:, 4:] == 2] = 0
        region = (slice(2, 5), slice(3, 8), slice(4, 9))
        intensity = statistics.of_array(case.volume.array)
        chunk = chunks.cut(case, region, 3, 7, intensity)
        np.testing.assert_array_equal(chunk.case.volume.array, case.volume.array[2:5, 3:8, 4:9])
        np.testing.assert_array_equal(chunk.instance_numbers, [1, 3, 4])
        for new, old in enumerate((1, 3, 4), start=1):
            np.testing.assert_array_equal(chunk.case.instance_ids == new, case.instance_ids[region] == old)
        np.testing.assert_array_equal(chunk.case.class_ids, case.class_ids[[0, 2, 3]])
        np.testing.assert_array_equal(chunk.case.attributes[:, 0], [1, 3, 4])
        np.testing.assert_array_equal(chunk.case.keypoints[1, 0], [3 - 2, 4 - 3, 5 - 4])
        # Voxel (2, 3, 4) of the case is the first one of the chunk.
        np.testing.assert_allclose(chunk.case.volume.affine[:3, 3], [-1 + 4 * 0.25, 7 + 3 * 0.5, 3 + 2 * 2.0])
        assert (chunk.origin, chunk.case_shape, chunk.number, chunk.count) == ((2, 3, 4), (5, 8, 11), 3, 7)
        np.testing.assert_array_equal(chunk.intensity, intensity)

    def test_a_piece_without_instances(self):
        case = make_case()
        case.instance_ids[:] = 0
        chunk = chunks.cut(case, (slice(0, 2),) * 3, 0, 2, np.zeros((1, 10), np.float32))
        assert chunk.case.class_ids.shape == chunk.instance_numbers.shape == (0,)
        assert chunk.case.keypoints.shape == (0, 1, 3)
        assert chunk.case.instance_ids.max() == 0
