import numpy as np
import pytest

from model import heads

BOX = {"channels": 4, "num_convs": 1, "hidden": 6, "num_dense": 1, "num_classes": 3, "norm": "group", "groups": 2}
MASK = {"channels": 4, "num_convs": 2, "num_classes": 3, "norm": "group", "groups": 2}
POOLED = (2, 5, 2, 3, 4, 7)  # B, R, P, P, P, C


@pytest.fixture(name="pooled", scope="module")
def fixture_pooled():
    return np.random.default_rng(0).normal(size=POOLED).astype(np.float32)


class BoxHeadTest:
    @pytest.mark.parametrize(
        ("changes", "parameters"),
        [
            ({}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"norm": "none"}, 27 * 7 * 4 + 4 + 24 * 4 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"num_convs": 0, "num_dense": 2}, 24 * 7 * 6 + 6 + 6 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"num_classes": 1}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 6 + 6 + 6 * 2 + 2 + 6 * 6 + 6),
        ],
    )
    def test_shapes_and_parameters_as_counted_by_hand(self, pooled, changes, parameters):
        head = heads.BoxHead(**{**BOX, **changes})
        logits, deltas = head(pooled)
        classes = {**BOX, **changes}["num_classes"]
        assert logits.shape == (2, 5, classes + 1)
        assert deltas.shape == (2, 5, classes, 6)
        assert head.count_params() == parameters

    def test_each_roi_is_seen_alone(self, pooled):
        head = heads.BoxHead(**BOX)
        logits, deltas = head(pooled)
        alone_logits, alone_deltas = head(pooled[1:, 3:4])
        np.testing.assert_allclose(alone_logits[0, 0], logits[1, 3], atol=1e-5)
        np.testing.assert_allclose(alone_deltas[0, 0], deltas[1, 3], atol=1e-5)

    def test_deltas_of_a_class_lie_together(self, pooled):
        head = heads.BoxHead(**BOX)
        head(pooled)
        head.deltas.set_weights([np.zeros((6, 18)), np.arange(18.0)])
        np.testing.assert_array_equal(head(pooled)[1][1, 4], np.arange(18.0).reshape(3, 6))


class MaskHeadTest:
    def test_masks_have_twice_the_resolution_on_every_axis(self, pooled):
        head = heads.MaskHead(**MASK)
        assert head(pooled).shape == (2, 5, 4, 6, 8, 3)
        tower = 27 * 7 * 4 + 2 * 4 + 27 * 4 * 4 + 2 * 4
        assert head.count_params() == tower + 8 * 4 * 4 + 4 + 4 * 3 + 3

    def test_each_roi_is_seen_alone(self, pooled):
        head = heads.MaskHead(**MASK)
        np.testing.assert_allclose(head(pooled[:1, 2:3])[0, 0], head(pooled)[0, 2], atol=1e-5)

    def test_a_cell_becomes_its_own_eight_voxels(self):
        head = heads.MaskHead(**{**MASK, "num_convs": 0, "num_classes": 1, "channels": 1, "norm": "none"})
        pooled = np.random.default_rng(0).random((1, 2, 2, 3, 4, 1)).astype(np.float32)
        head(pooled)
        head.upsample.set_weights([np.ones((2, 2, 2, 1, 1)), np.zeros(1)])
        head.logits.set_weights([np.ones((1, 1, 1, 1, 1)), np.zeros(1)])
        expected = pooled.repeat(2, axis=2).repeat(2, axis=3).repeat(2, axis=4)
        np.testing.assert_allclose(head(pooled), expected, rtol=1e-6)
