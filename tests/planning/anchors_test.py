import numpy as np
import pytest

from ops import anchors as anchor_ops
from ops import boxes as box_ops
from planning import anchors

STRIDES = [(2, 4, 4), (4, 8, 8)]
FAR = [(1000, 1000, 1000)] * 2


def boxes(seed, number=80):
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(np.log([6, 12, 15]), 0.4, (number, 3))).round()
    lo = rng.integers(0, 40, (number, 3))
    return np.concatenate([lo, lo + sizes], axis=1).astype(np.float32)


class KmeansTest:
    def test_finds_three_sizes_exactly(self):
        sizes = np.float64([[4, 5, 6]] * 5 + [[10, 30, 20]] * 9 + [[40, 20, 60]] * 2)
        order = np.random.default_rng(1).permutation(len(sizes))
        for seed in range(5):
            found = anchors.kmeans(sizes[order], 3, seed)
            assert found.tolist() == [[4, 5, 6], [10, 30, 20], [40, 20, 60]]

    def test_is_the_same_for_the_same_seed(self):
        sizes = boxes(0)[:, 3:] - boxes(0)[:, :3]
        assert np.array_equal(anchors.kmeans(sizes, 4, 3), anchors.kmeans(sizes, 4, 3))

    def test_fewer_sizes_than_clusters(self):
        assert anchors.kmeans(np.full((3, 3), 7.0), 2).tolist() == [[7, 7, 7], [7, 7, 7]]


class FitTest:
    def test_by_hand(self):
        # Centred at 3 of a cell [0, 4): one voxel off along x, so 3 of 4 voxels are shared there.
        found = anchors.Truths(np.float64([[4], [4], [4]]), np.float64([[2], [6], [3]]))
        fit = anchors.fit([((4, 4, 4), np.float64([[4, 4, 4]]))], found)
        assert fit.mean == pytest.approx(3 / 5)
        assert (fit.share_50, fit.share_70) == (1, 0)

    def test_equals_the_best_of_all_anchors_of_a_grid(self):
        patch, rng = (48, 64, 80), np.random.default_rng(4)
        shapes = [rng.uniform(4, 20, (3, 3)).astype(np.float32) for _ in STRIDES]
        sizes = rng.integers(2, 24, (30, 3))
        lo = rng.integers(0, np.array(patch) - sizes)
        truths = np.concatenate([lo, lo + sizes], axis=1).astype(np.float32)
        grid = np.concatenate(
            [
                anchor_ops.level_anchors([p // s for p, s in zip(patch, stride, strict=True)], stride, shape)
                for stride, shape in zip(STRIDES, shapes, strict=True)
            ]
        )
        expected = box_ops.iou_matrix(truths, grid).numpy().max(axis=1)
        found = anchors.Truths(sizes.T.astype(np.float64), (lo + sizes / 2).T)
        fit = anchors.fit(list(zip(STRIDES, shapes, strict=True)), found)
        assert fit.mean == pytest.approx(expected.mean(), abs=1e-5)
        assert fit.share_50 == pytest.approx((expected >= 0.5).mean())

    def test_no_boxes(self):
        found = anchors.truths(np.zeros((0, 6)), (8, 16, 24))
        assert anchors.fit([(STRIDES[0], np.ones((2, 3)))], found) == anchors.Fit(0, 0, 0)


class TruthsTest:
    def test_boxes_are_cut_at_the_patch_and_turned_within_planes(self):
        found = anchors.truths(np.float32([[0, 0, 0, 4, 8, 40]] * 50), (8, 16, 24), planes=[(1, 2)])
        sizes = {tuple(size) for size in found.sizes.T.tolist()}
        assert sizes == {(4, 8, 24), (4, 24, 8)}
        assert found.sizes.shape == (3, 50 * anchors.PLACES)

    def test_many_boxes_are_thinned_out(self):
        found = anchors.truths(np.tile(boxes(1), (50, 1)), (64, 64, 64))
        assert found.sizes.shape[1] == anchors.MAX_BOXES * anchors.PLACES


class RefineTest:
    @pytest.mark.parametrize("seed", range(3))
    def test_no_share_falls_and_the_score_rises(self, seed):
        found = anchors.truths(boxes(seed), (48, 64, 80))
        begin = anchors.assign(anchors.kmeans(found.sizes.T, 4, seed).round(1), STRIDES, FAR)
        before, after = anchors.fit(begin, found), anchors.fit(anchors.refine(begin, found, FAR), found)
        assert after.share_50 >= before.share_50
        assert after.share_70 >= before.share_70
        assert after.score > before.score

    def test_best_is_no_worse_than_what_was_there(self):
        found = anchors.truths(boxes(5), (48, 64, 80))
        old = [(stride, np.float64([[6, 12, 15], [9, 15, 20]])) for stride in STRIDES]
        begin, end = anchors.best(STRIDES, 2, found, FAR, [old])
        assert anchors.fit(end, found).score >= max(anchors.fit(old, found).score, anchors.fit(begin, found).score)
        assert sum(anchors.served(end, found)) == pytest.approx(1)

    def test_no_anchor_is_longer_than_its_level_sees(self):
        found = anchors.truths(boxes(6), (48, 64, 80))
        limits = [(4, 7, 9), (30, 30, 30)]
        _, end = anchors.best(STRIDES, 2, found, limits)
        assert (end[0][1] <= limits[0]).all()
        assert end[1][1].max() > 9


class AssignTest:
    def test_the_smallest_go_to_the_finest_level(self):
        shapes = np.float64([[9, 9, 9], [2, 3, 4], [20, 20, 20], [5, 5, 5]])
        fine, coarse = anchors.assign(shapes, STRIDES, FAR)
        assert fine[0] == STRIDES[0]
        assert fine[1].tolist() == [[2, 3, 4], [5, 5, 5]]
        assert coarse[1].tolist() == [[9, 9, 9], [20, 20, 20]]
