import numpy as np
import pytest
import tensorflow as tf

from model.box_head import BoxHead, select_deltas
from tests.model import head_cases

SETTINGS = {
    "num_classes": 3,
    "channels": 4,
    "num_convs": 1,
    "hidden": 6,
    "num_dense": 1,
    "dropout": 0.0,
    "class_agnostic": False,
    "style": head_cases.GROUP,
}
VARIANTS = [
    {},
    {"class_agnostic": True},
    {"num_convs": 0, "num_dense": 2},
    {"num_convs": 4, "num_dense": 0},
    {"style": head_cases.PRELU},
]


def make(**changes):
    tf.keras.utils.set_random_seed(0)
    return BoxHead(**{**SETTINGS, **changes})


class BoxHeadTest:
    @pytest.mark.parametrize(
        ("changes", "parameters"),
        [
            ({}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"style": head_cases.PLAIN}, 27 * 7 * 4 + 4 + 24 * 4 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"num_convs": 0, "num_dense": 2}, 24 * 7 * 6 + 6 + 6 * 6 + 6 + 6 * 4 + 4 + 6 * 18 + 18),
            ({"num_classes": 1}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 6 + 6 + 6 * 2 + 2 + 6 * 6 + 6),
            ({"class_agnostic": True}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 6 + 6 + 6 * 4 + 4 + 6 * 6 + 6),
            ({"num_dense": 0}, 27 * 7 * 4 + 2 * 4 + 24 * 4 * 4 + 4 + 24 * 4 * 18 + 18),
        ],
    )
    def test_shapes_and_parameters_as_counted_by_hand(self, changes, parameters):
        head = make(**changes)
        logits, deltas = head(head_cases.pooled())
        settings = {**SETTINGS, **changes}
        assert logits.shape == (2, 5, settings["num_classes"] + 1)
        assert deltas.shape == (2, 5, 1 if settings["class_agnostic"] else settings["num_classes"], 6)
        assert head.count_params() == parameters

    def test_each_roi_is_seen_alone(self):
        head, pooled = make(), head_cases.pooled()
        logits, deltas = head(pooled)
        alone_logits, alone_deltas = head(pooled[1:, 3:4])
        np.testing.assert_allclose(alone_logits[0, 0], logits[1, 3], atol=1e-5)
        np.testing.assert_allclose(alone_deltas[0, 0], deltas[1, 3], atol=1e-5)

    def test_deltas_of_a_class_lie_together(self):
        head = make()
        head(head_cases.pooled())
        head.deltas.set_weights([np.zeros((6, 18)), np.arange(18.0)])
        np.testing.assert_array_equal(head(head_cases.pooled())[1][1, 4], np.arange(18.0).reshape(3, 6))

    @pytest.mark.parametrize("changes", VARIANTS)
    def test_a_gradient_reaches_every_weight(self, changes):
        assert head_cases.silent_weights(make(**changes)) == []

    def test_dropout_drops_in_training_alone(self):
        head, pooled = make(dropout=0.5), head_cases.pooled()
        np.testing.assert_array_equal(head(pooled)[0], head(pooled, training=False)[0])
        first, second = (head(pooled, training=True)[0].numpy() for _ in range(2))
        assert np.abs(first - second).max() > 0

    @pytest.mark.parametrize("changes", VARIANTS)
    def test_half_precision(self, changes):
        head_cases.assert_half_precision_answers_in_float32(lambda: make(**changes))

    def test_unknown_batch_equals_eager(self):
        head, pooled = make(), head_cases.pooled()
        function = tf.function(head, input_signature=[tf.TensorSpec([None, *head_cases.POOLED[1:]])])
        for ours, theirs in zip(function(pooled), head(pooled), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def test_untrained_it_is_undecided_and_moves_little(self):
        logits, deltas = make(num_dense=2, hidden=256)(head_cases.pooled())
        assert np.abs(logits).max() < 0.5
        assert np.abs(deltas).max() < 0.05


class SelectDeltasTest:
    @pytest.mark.parametrize(("class_id", "row"), [(0, 0), (1, 0), (2, 1), (3, 2)])
    def test_reads_the_row_of_the_class(self, class_id, row):
        deltas = np.random.default_rng(0).normal(size=(2, 3, 3, 6)).astype(np.float32)
        chosen = select_deltas(deltas, np.full((2, 3), class_id, np.int32))
        np.testing.assert_array_equal(chosen, deltas[:, :, row])

    def test_rois_of_different_classes(self):
        deltas = np.random.default_rng(0).normal(size=(1, 3, 3, 6)).astype(np.float32)
        chosen = select_deltas(deltas, np.int32([[3, 0, 2]]))
        np.testing.assert_array_equal(chosen[0], deltas[0, [0, 1, 2], [2, 0, 1]])

    def test_one_box_serves_all_classes(self):
        deltas = np.random.default_rng(0).normal(size=(1, 4, 1, 6)).astype(np.float32)
        np.testing.assert_array_equal(select_deltas(deltas, np.int32([[0, 1, 2, 9]])), deltas[:, :, 0])
