import numpy as np
import pytest
import tensorflow as tf

from model.keypoint_head import KeypointHead
from tests.model import head_cases

SETTINGS = {"num_keypoints": 7, "channels": 4, "num_convs": 2, "style": head_cases.GROUP}


def make(**changes):
    tf.keras.utils.set_random_seed(0)
    return KeypointHead(**{**SETTINGS, **changes})


class KeypointHeadTest:
    def test_one_heat_map_per_landmark_with_twice_the_resolution(self):
        head = make()
        assert head(head_cases.pooled()).shape == (2, 5, 7, 4, 6, 8)
        tower = 27 * 7 * 4 + 2 * 4 + 27 * 4 * 4 + 2 * 4
        assert head.count_params() == tower + 8 * 4 * 4 + 4 + 4 * 7 + 7

    def test_each_landmark_has_a_channel(self):
        head = make()
        head(head_cases.pooled())
        head.logits.set_weights([np.zeros((1, 1, 1, 4, 7)), np.arange(7.0)])
        np.testing.assert_array_equal(head(head_cases.pooled())[1, 3, :, 0, 2, 1], np.arange(7.0))

    def test_each_roi_is_seen_alone(self):
        head, pooled = make(), head_cases.pooled()
        np.testing.assert_allclose(head(pooled[:1, 2:3])[0, 0], head(pooled)[0, 2], atol=1e-5)

    @pytest.mark.parametrize("changes", [{}, {"num_convs": 0}, {"num_keypoints": 1, "style": head_cases.PRELU}])
    def test_a_gradient_reaches_every_weight(self, changes):
        assert head_cases.silent_weights(make(**changes)) == []

    @head_cases.PERMUTATIONS
    def test_permuted_axes(self, axes):
        head_cases.assert_permuted_axes_permute_the_answer(make(), axes, leading=3)

    def test_half_precision(self):
        head_cases.assert_half_precision_answers_in_float32(make)

    def test_unknown_batch_equals_eager(self):
        head, pooled = make(), head_cases.pooled()
        function = tf.function(head, input_signature=[tf.TensorSpec([None, *head_cases.POOLED[1:]])])
        np.testing.assert_allclose(function(pooled), head(pooled), atol=1e-6)
