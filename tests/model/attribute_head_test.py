import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from model.attribute_head import AttributeHead, decode_attributes, encode_attributes
from tests.model import head_cases

SETTINGS = {"num_attributes": 2, "hidden": 6, "num_dense": 1, "style": head_cases.PLAIN}


def make(**changes):
    tf.keras.utils.set_random_seed(0)
    return AttributeHead(**{**SETTINGS, **changes})


class AttributeHeadTest:
    @pytest.mark.parametrize(
        ("changes", "parameters"),
        [
            ({}, 24 * 7 * 6 + 6 + 6 * 2 + 2),
            ({"num_dense": 0}, 24 * 7 * 2 + 2),
            ({"num_dense": 2, "num_attributes": 5}, 24 * 7 * 6 + 6 + 6 * 6 + 6 + 6 * 5 + 5),
        ],
    )
    def test_shapes_and_parameters_as_counted_by_hand(self, changes, parameters):
        head = make(**changes)
        assert head(head_cases.pooled()).shape == (2, 5, {**SETTINGS, **changes}["num_attributes"])
        assert head.count_params() == parameters

    def test_each_roi_is_seen_alone(self):
        head, pooled = make(), head_cases.pooled()
        np.testing.assert_allclose(head(pooled[1:, 3:4])[0, 0], head(pooled)[1, 3], atol=1e-5)

    @pytest.mark.parametrize("changes", [{}, {"num_dense": 2, "style": head_cases.PRELU}])
    def test_a_gradient_reaches_every_weight(self, changes):
        assert head_cases.silent_weights(make(**changes)) == []

    def test_half_precision(self):
        head_cases.assert_half_precision_answers_in_float32(make)

    def test_unknown_batch_equals_eager(self):
        head, pooled = make(), head_cases.pooled()
        function = tf.function(head, input_signature=[tf.TensorSpec([None, *head_cases.POOLED[1:]])])
        np.testing.assert_allclose(function(pooled), head(pooled), atol=1e-6)


class EncodeAttributesTest:
    def test_hand_values(self):
        values = np.float32([0.0, np.e - 1, 99.0, -99.0, np.nan])
        logs = [0, 1, np.log(100), -np.log(100), np.nan]
        np.testing.assert_allclose(encode_attributes(values, "log"), logs, rtol=1e-6)
        np.testing.assert_array_equal(encode_attributes(values, "linear"), values)

    def test_unknown_scale_raises(self):
        for function in (encode_attributes, decode_attributes):
            with pytest.raises(ValueError, match="expected scale 'log' or 'linear', came 'sqrt'"):
                function(np.ones(3, np.float32), "sqrt")


class DecodeAttributesTest:
    def test_hand_values(self):
        predictions = np.float32([0.0, 1.0, np.log(100.0), -1.0])
        np.testing.assert_allclose(decode_attributes(predictions, "log"), [0, np.e - 1, 99, 1 - np.e], rtol=1e-6)
        np.testing.assert_array_equal(decode_attributes(predictions, "linear"), predictions)

    def test_any_prediction_gives_a_finite_value(self):
        values = decode_attributes(np.float32([1e30, np.inf, 88.8, 80.0, -np.inf]), "log").numpy()
        assert np.all(np.isfinite(values))
        np.testing.assert_allclose(values, np.expm1(80.0) * np.array([1, 1, 1, 1, -1]), rtol=1e-5)

    @hypothesis.settings(deadline=None, max_examples=50, derandomize=True)
    @hypothesis.given(st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from(["log", "linear"]))
    def test_is_the_inverse_of_encode(self, value, scale):
        found = decode_attributes(encode_attributes(np.float32([value]), scale), scale)
        # A float32 of 70 or so is known to a few millionths, and its exponential is only as good.
        np.testing.assert_allclose(found, [value], rtol=2e-5, atol=1e-30)
