"""What all losses have in common: a mean per example of the items that count, whatever the others hold."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.ops.loss_cases import CASES, set_up, with_gradient


@pytest.mark.parametrize("case", CASES)
class EveryLossTest:
    def test_equals_reference(self, case):
        function, truth, predictions, targets, mask = set_up(case, 0)
        predictions = predictions.astype(np.float32)
        result, expected = function(predictions, targets, mask), truth(predictions, targets, mask)
        assert result.dtype == tf.float32
        assert np.all(expected[:-1] > 0)
        assert expected[-1] == 0
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)

    def test_gradient_equals_finite_differences(self, case):
        function, truth, predictions, targets, mask = set_up(case, 1)
        weights = np.float32([0.5, 1.7, 1.0])
        _, gradient = with_gradient(lambda *args: weights * function(*args), predictions, targets, mask)
        constants = {"weighed_at": predictions} if case == "ciou" else {}
        expected = reference.finite_differences(
            lambda p: (weights * truth(p, targets, mask, **constants)).sum(), predictions
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(gradient[~mask], 0)

    def test_nothing_masked_is_zero_with_zero_gradient(self, case):
        function, _, predictions, targets, mask = set_up(case, 2)
        result, gradient = with_gradient(function, predictions, targets, mask & False)
        np.testing.assert_array_equal(result, [0, 0, 0])
        np.testing.assert_array_equal(gradient, np.zeros(predictions.shape))

    def test_no_items(self, case):
        function, _, predictions, targets, mask = set_up(case, 3)
        result = function(predictions[:, :0].astype(np.float32), targets[:, :0], mask[:, :0])
        np.testing.assert_array_equal(result, [0, 0, 0])
        assert function(predictions[:0], targets[:0], mask[:0]).shape == [0]

    @pytest.mark.parametrize("value", [1e4, 1e30, np.nan, np.inf, -np.inf])
    def test_items_left_out_may_hold_anything(self, case, value):
        function, _, predictions, targets, mask = set_up(case, 4)
        plain, plain_gradient = with_gradient(function, predictions, targets, mask)
        predictions[~mask] = value
        targets[~mask] = -1 if targets.dtype == np.int32 else value
        result, gradient = with_gradient(function, predictions, targets, mask)
        np.testing.assert_array_equal(result, plain)
        np.testing.assert_array_equal(gradient, plain_gradient)
        np.testing.assert_array_equal(gradient[~mask], 0)

    def test_parts_of_a_batch_give_the_values_of_the_whole(self, case):
        function, _, predictions, targets, mask = set_up(case, 5)
        mask[-1] = True
        whole = function(predictions, targets, mask)
        for cut in (1, 2):
            parts = [function(predictions[p], targets[p], mask[p]) for p in (slice(cut), slice(cut, None))]
            np.testing.assert_allclose(tf.concat(parts, 0), whole, rtol=1e-6)

    def test_order_of_items_does_not_matter(self, case):
        function, _, predictions, targets, mask = set_up(case, 6)
        order = np.random.default_rng(6).permutation(mask.shape[1])
        result = function(predictions[:, order], targets[:, order], mask[:, order])
        np.testing.assert_allclose(result, function(predictions, targets, mask), rtol=1e-5)

    @pytest.mark.parametrize("size", [1e4, 1e6])
    def test_huge_predictions_stay_finite(self, case, size):
        function, _, predictions, targets, mask = set_up(case, 7)
        for huge in (size * np.sign(predictions), size * predictions, np.full(predictions.shape, size)):
            result, gradient = with_gradient(function, huge, targets, mask)
            assert np.all(np.isfinite(result))
            assert np.all(np.isfinite(gradient))

    def test_unknown_batch_and_count_equal_eager(self, case):
        function, _, predictions, targets, mask = set_up(case, 8)
        predictions = predictions.astype(np.float32)
        compiled = tf.function(
            function,
            input_signature=[
                tf.TensorSpec([None, None, *predictions.shape[2:]], tf.float32),
                tf.TensorSpec([None, None, *targets.shape[2:]], tf.as_dtype(targets.dtype)),
                tf.TensorSpec([None, None], tf.bool),
            ],
        )
        for batch, count in [(3, None), (1, 1), (2, 0), (0, None)]:
            part = (slice(batch), slice(count))
            eager = function(predictions[part], targets[part], mask[part])
            result = compiled(predictions[part], targets[part], mask[part])
            np.testing.assert_allclose(result, eager, rtol=1e-5, atol=1e-7)

    def test_computes_in_float32(self, case):
        function, _, predictions, targets, mask = set_up(case, 9)
        result = function(predictions, targets, mask)  # float64 arrays are rounded
        assert result.dtype == tf.float32
        np.testing.assert_array_equal(result, function(predictions.astype(np.float32), targets, mask))
        for dtype in (tf.float16, tf.float64):
            with pytest.raises(ValueError, match=f"expected predictions as float32, came {dtype.name}"):
                function(tf.constant(predictions, dtype), targets, mask)

    def test_unknown_rank_raises(self, case):
        function, _, predictions, targets, mask = set_up(case, 11)
        for place, name in [(0, r"\w+"), (2, "mask")]:
            arguments = [predictions, targets, mask]
            spec = tf.TensorSpec(None, tf.bool if name == "mask" else tf.float32)

            @tf.function(input_signature=[spec])
            def run(tensor, arguments=arguments, place=place):
                return function(*arguments[:place], tensor, *arguments[place + 1 :])

            with pytest.raises(ValueError, match=f"expected {name} of a known rank, came one of unknown rank"):
                run.get_concrete_function()

    def test_shapes_that_differ_raise_with_both(self, case):
        function, _, predictions, targets, mask = set_up(case, 10)
        with pytest.raises(ValueError, match=rf"expected .*, mask \[.*\]; came .*, mask \[3, {mask.shape[1] - 1}\]"):
            function(predictions, targets, mask[:, 1:])
        with pytest.raises(ValueError, match=r"expected .*; came \w+ \[3, .*\], \w+ \[2, .*\], mask \[3, "):
            function(predictions, targets[1:], mask)
        with pytest.raises(ValueError, match=r"came \w+ \[3, .*, mask \[3, \d, 1\]"):
            function(predictions, targets, mask[..., None])
        with pytest.raises(ValueError, match=r"expected \w+ \[B, .*; came \w+ \[3, .*, 1\], \w+ \[3, "):
            function(predictions[..., None], targets, mask)
