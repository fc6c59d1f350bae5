import numpy as np
import pytest
import tensorflow as tf

from ops import selection

BOXES = np.arange(2 * 4 * 6).reshape(2, 4, 6).astype(np.float32)
SCORES = np.float32([[0.1, 0.9, 0.5, 0.7], [0.4, 0.2, 0.3, 0.1]])
CLASS_IDS = np.int32([[1, 1, 2, 2], [2, 1, 1, 1]])
SETTINGS = {"max_outputs": 2, "dtypes": (tf.float32, tf.int32)}


def best(boxes, scores, max_outputs, class_ids=None):
    """The best-scored boxes: their score, or 0 for one of class 2, and their first coordinate."""
    scores, index = tf.math.top_k(scores, max_outputs)
    if class_ids is not None:
        scores = tf.where(tf.gather(class_ids, index) == 2, 0.0, scores)
    return scores, tf.cast(tf.gather(boxes, index)[:, 0], tf.int32)


class PaddedTest:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([7, 8], [7, 8, 0]),
            ([True, True], [True, True, False]),
            ([[1.5, 2.0]], [[1.5, 2.0], [0, 0], [0, 0]]),
            ([1, 2, 3], [1, 2, 3]),
            (np.zeros((0, 2)), np.zeros((3, 2))),
        ],
    )
    def test_zeros_follow(self, values, expected):
        values = tf.constant(values)
        result = selection.padded(values, 3)
        assert result.dtype == values.dtype
        np.testing.assert_array_equal(result, expected)

    def test_size_is_static(self):
        compiled = tf.function(lambda v: selection.padded(v, 5), input_signature=[tf.TensorSpec([None, 6])])
        assert compiled.get_concrete_function().structured_outputs.shape == [5, 6]
        np.testing.assert_array_equal(compiled(tf.ones([2, 6])), np.repeat([1.0, 0.0], [2, 3])[:, None] * np.ones(6))


class OfEachVolumeTest:
    def test_hand_values(self):
        scores, first = selection.of_each_volume(best, BOXES, SCORES, None, **SETTINGS)
        np.testing.assert_array_equal(scores, np.float32([[0.9, 0.7], [0.4, 0.3]]))
        np.testing.assert_array_equal(first, [[6, 18], [24, 36]])

    def test_classes_are_handed_on(self):
        scores, _ = selection.of_each_volume(best, BOXES, SCORES, CLASS_IDS, **SETTINGS)
        np.testing.assert_array_equal(scores, np.float32([[0.9, 0], [0, 0.3]]))

    def test_no_volumes(self):
        results = selection.of_each_volume(best, BOXES[:0], SCORES[:0], None, **SETTINGS)
        assert [(tuple(r.shape), r.dtype) for r in results] == [((0, 2), tf.float32), ((0, 2), tf.int32)]

    def test_wrong_arguments_raise(self):
        with pytest.raises(
            ValueError, match=r"expected boxes \[B, N, 6\], .*; came boxes \[2, 4, 6\], scores \[2, 3\]"
        ):
            selection.of_each_volume(best, BOXES, SCORES[:, 1:], None, **SETTINGS)
        with pytest.raises(ValueError, match="expected max_outputs above 0, came 0"):
            selection.of_each_volume(best, BOXES, SCORES, None, max_outputs=0, dtypes=(tf.float32, tf.int32))
