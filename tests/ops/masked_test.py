import numpy as np
import pytest
import tensorflow as tf

from ops import masked

SHAPES = "values [B, ..., 2], goals [B, ...], mask [B, ...]"


class InputsTest:
    def test_zeros_where_the_mask_is_false(self):
        predictions = np.float32([[[1, 2], [np.nan, np.inf]]])
        values, goals, mask = masked.inputs(
            SHAPES, predictions, np.int64([[3, -1]]), np.array([[True, False]]), target_dtype=tf.int32
        )
        np.testing.assert_array_equal(values, [[[1, 2], [0, 0]]])
        np.testing.assert_array_equal(goals, [[3, 0]])
        np.testing.assert_array_equal(mask, [[True, False]])
        assert (values.dtype, goals.dtype, mask.dtype) == (tf.float32, tf.int32, tf.bool)

    @pytest.mark.parametrize(
        ("values", "goals", "mask", "words"),
        [
            (
                [2, 3, 2],
                [2, 3],
                [2, 4],
                r"goals \[B, i1\], mask \[B, i1\]; came values \[2, 3, 2\], goals \[2, 3\], mask",
            ),
            ([2, 3, 1], [2, 3], [2, 3], r"expected values \[B, i1, 2\], .*; came values \[2, 3, 1\]"),
            (
                [2, 2],
                [2, 1],
                [2],
                r"expected values \[B, 2\], goals \[B\], mask \[B\]; came .*, goals \[2, 1\], mask \[2\]",
            ),
            ([2, 2], [2], [], r"mask \[B\]; came values \[2, 2\], goals \[2\], mask \[\]"),
            ([2, 3, 4, 2], [2, 3, 5], [2, 3, 4], r"values \[B, i1, i2, 2\], .*; came .*, goals \[2, 3, 5\]"),
        ],
    )
    def test_shapes_that_differ_raise(self, values, goals, mask, words):
        with pytest.raises(ValueError, match=words):
            masked.inputs(SHAPES, np.zeros(values), np.zeros(goals), np.zeros(mask, bool))


class MeanTest:
    @pytest.mark.parametrize(
        ("values", "mask", "weights", "expected"),
        [
            ([1, 2, 6], [True, True, True], None, 3),
            ([1, 2, 6], [True, False, True], None, 3.5),
            ([1, np.nan, np.inf], [True, False, False], None, 1),
            ([1, 2, 6], [False, False, False], None, 0),
            ([1, 2, 6], [True, True, True], [1, 0, 3], 19 / 4),
            ([1, 2, 6], [True, True, False], [1, 3, np.nan], 7 / 4),
            ([1, 2, 6], [True, True, False], [0, 0, 1], 0),
        ],
    )
    def test_hand_values(self, values, mask, weights, expected):
        values, weights = (
            tf.constant([values], tf.float32),
            None if weights is None else tf.constant([weights], tf.float32),
        )
        result = masked.mean(values, tf.constant([mask]), weights)
        np.testing.assert_allclose(result, [expected], rtol=1e-6)

    def test_weights_that_sum_to_0_have_gradient_0(self):
        values = tf.constant([[1.0, 2.0]])
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = masked.mean(values, tf.constant([[True, True]]), tf.zeros([1, 2]))
        np.testing.assert_array_equal(tape.gradient(result, values), [[0, 0]])


class TotalTest:
    def test_sums_all_axes_but_the_first(self):
        values = tf.reshape(tf.range(12.0), [2, 3, 2])
        mask = np.ones((2, 3, 2), bool)
        mask[1, 2] = False
        np.testing.assert_array_equal(masked.total(values, mask), [15, 30])
        np.testing.assert_array_equal(masked.total(tf.constant([3.0, 4.0]), tf.constant([True, False])), [3, 0])
