import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from model.attribute_head import AttributeHead, decode_attributes, encode_attributes
from model.roi_sums import TYPICAL
from tests import halves
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


class SumsTest:
    LOG_SUMS = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)
    SUMS = TYPICAL * np.exp(LOG_SUMS)[:, :, np.newaxis]  # of all layers together

    def make(self, **changes):
        head = make(**{"proportional": True, **changes})
        head(head_cases.pooled(), self.SUMS)
        return head

    @pytest.mark.parametrize(
        ("changes", "parameters"),
        [
            ({"proportional": False}, (24 * 7 + 3) * 6 + 6 + 6 * 2 + 2),
            ({}, (24 * 7 + 3) * 6 + 6 + 2 * (6 * 2 + 2) + 3 * 2),
            ({"num_dense": 0}, 2 * ((24 * 7 + 3) * 2 + 2) + 3 * 2),
        ],
    )
    def test_parameters_as_counted_by_hand(self, changes, parameters):
        assert self.make(**changes).count_params() == parameters

    def test_begins_as_the_geometric_mean_of_the_sums(self):
        values = self.make()(head_cases.pooled(), self.SUMS)
        means = np.exp(self.LOG_SUMS.mean(axis=-1, keepdims=True))
        np.testing.assert_allclose(values, np.repeat(np.log1p(means), 2, axis=-1), atol=0.2)  # small kernels

    def test_hand_values_of_factors_and_powers(self):
        head = self.make()
        kernel, _ = head.factors.get_weights()
        powers = np.float32([[1, -1 / 3], [0, -1 / 3], [0, 2 / 3]])  # of the second attribute: the last sum alone
        head.values.set_weights([0 * kernel, np.float32([0.0, -0.5])])
        head.factors.set_weights([0 * kernel, np.log(np.float32([3.0, 0.25]))])
        head.powers.set_weights([powers])
        sums = np.exp(self.LOG_SUMS)
        first = np.log1p(3.0 * sums.prod(axis=-1) ** (1 / 3) * sums[..., 0])
        second = np.log1p(0.25 * sums[..., 2]) - 0.5
        found = head(head_cases.pooled(), self.SUMS)
        np.testing.assert_allclose(found, np.stack([first, second], axis=-1), atol=1e-5)

    def test_dense_layers_read_them(self):
        head = self.make(proportional=False)
        more = head(head_cases.pooled(), 3.0 * self.SUMS)
        assert np.abs(more - head(head_cases.pooled(), self.SUMS)).max() > 1e-3

    @pytest.mark.parametrize("log_sum", [-11.5, 60.0])
    def test_no_sum_and_a_huge_one_are_finite(self, log_sum):
        head = self.make()
        values = head(head_cases.pooled(), np.full((2, 5, 1, 3), TYPICAL * np.exp(log_sum), np.float32))
        np.testing.assert_allclose(values, np.full((2, 5, 2), max(log_sum, 0.0)), atol=1.0)
        assert np.all(np.isfinite(decode_attributes(values, "log")))

    @pytest.mark.parametrize("proportional", [True, False])
    def test_a_gradient_reaches_every_weight(self, proportional):
        head = self.make(proportional=proportional)
        with tf.GradientTape() as tape:
            found = head(head_cases.pooled(), self.SUMS, training=True)
            total = tf.reduce_sum(found * np.random.default_rng(1).normal(size=found.shape))
        assert len(head.trainable_weights) == (7 if proportional else 4)
        assert all(np.any(gradient) for gradient in tape.gradient(total, head.trainable_weights))

    @pytest.mark.parametrize("policy", halves.POLICIES)
    def test_half_precision_adds_them_in_float32(self, policy):
        tf.keras.mixed_precision.set_global_policy(policy)
        try:
            head = self.make()
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        head.set_weights([0 * weight for weight in head.get_weights()])
        found = head(head_cases.pooled(), np.full((2, 5, 1, 3), TYPICAL * np.exp(19.123456), np.float32))
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, np.full((2, 5, 2), 19.123456), rtol=1e-6)

    def test_layers_add_up_and_dense_layers_read_their_shares(self):
        head = make(proportional=True, by_layer=True, num_attributes=1, num_dense=0)
        layers = np.random.default_rng(5).uniform(100.0, 1000.0, (2, 5, 4, 2)).astype(np.float32)
        head(head_cases.pooled(), layers)
        values, factors = head.values.kernel.shape[0], head.factors.kernel.shape[0]
        assert values == factors == 24 * 7 + 2 + 4 * 2
        kernel = np.zeros((values, 1), np.float32)
        kernel[-8:, 0] = np.arange(8.0)  # of the shares, layer by layer, and of both sums in each
        head.set_weights([0 * weight for weight in head.get_weights()])
        head.values.kernel.assign(kernel)
        totals = layers.sum(axis=2)
        shares = (layers / layers.mean(axis=2, keepdims=True)).reshape(2, 5, 8)
        expected = np.log1p(np.sqrt((totals / TYPICAL).prod(axis=-1))) + shares @ np.arange(8.0)
        np.testing.assert_allclose(head(head_cases.pooled(), layers)[..., 0], expected, rtol=1e-5)

    def test_layers_have_dense_layers_of_their_own(self):
        head = make(proportional=True, by_layer=True)
        layers = np.random.default_rng(6).uniform(100.0, 1000.0, (2, 5, 4, 3)).astype(np.float32)
        with tf.GradientTape() as tape:
            found = head(head_cases.pooled(), layers, training=True)
            total = tf.reduce_sum(found * np.random.default_rng(1).normal(size=found.shape))
        assert head.count_params() == (24 * 7 + 3) * 6 + 6 + (4 * 3) * 6 + 6 + 2 * (12 * 2 + 2) + 3 * 2
        assert all(np.any(gradient) for gradient in tape.gradient(total, head.trainable_weights))

    def test_shares_of_nothing_and_of_less_are_bounded(self):
        head = make(proportional=True, by_layer=True)
        for value in (0.0, -1e6, 1e30):
            layers = np.full((2, 5, 4, 3), value, np.float32)
            layers[:, :, 1] *= -1.0
            assert np.all(np.isfinite(head(head_cases.pooled(), layers)))

    def test_variables_without_sums_are_those_of_before(self):
        head = make()
        head(head_cases.pooled())
        assert [weight.name.split("/", 1)[1] for weight in head.weights] == [
            "dense/fc1/kernel:0",
            "dense/fc1/bias:0",
            "values/kernel:0",
            "values/bias:0",
        ]


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
