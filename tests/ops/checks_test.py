import re

import numpy as np
import pytest
import tensorflow as tf

from ops import checks

SPEC = "boxes [N, 6], scores [N], class_ids [N]"


class ShapesTest:
    def test_right_shapes_pass(self):
        checks.shapes(SPEC, np.zeros((4, 6)), tf.zeros([4]), tf.zeros([4], tf.int32))
        checks.shapes(SPEC, np.zeros((0, 6)), np.zeros(0), None)
        checks.shapes("a [..., I, 6], b [..., J, 6]", np.zeros((1, 4, 6)), np.zeros((2, 3, 5, 6)))
        checks.shapes("a [..., 6]", np.zeros(6))

    @pytest.mark.parametrize(
        ("shapes", "came"),
        [
            ([(4, 6), (5,)], "boxes [4, 6], scores [5]"),
            ([(4, 7), (4,)], "boxes [4, 7], scores [4]"),
            ([(6,), (1,)], "boxes [6], scores [1]"),
            ([(1, 4, 6), (4,)], "boxes [1, 4, 6], scores [4]"),
            ([(4, 6), ()], "boxes [4, 6], scores []"),
            ([(4, 6), (4,), (3,)], "boxes [4, 6], scores [4], class_ids [3]"),
        ],
    )
    def test_error_names_both_sides(self, shapes, came):
        tensors = [np.zeros(shape) for shape in shapes] + [None] * (3 - len(shapes))
        with pytest.raises(ValueError, match=f"^{re.escape(f'expected {SPEC}; came {came}')}$"):
            checks.shapes(SPEC, *tensors)

    @pytest.mark.parametrize("shape", [(), (5,), (4, 5)])
    def test_leading_axes_are_free_and_the_rest_is_not(self, shape):
        with pytest.raises(ValueError, match=r"expected boxes \[..., 6\]; came boxes \["):
            checks.shapes("boxes [..., 6]", np.zeros(shape))

    def test_first_tensor_with_a_known_size_binds_the_name(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([4]), tf.TensorSpec([5])])
        def run(boxes, scores, class_ids):
            checks.shapes(SPEC, boxes, scores, class_ids)

        with pytest.raises(ValueError, match=r"came boxes \[\?, 6\], scores \[4\], class_ids \[5\]"):
            run.get_concrete_function()

    def test_unknown_sizes_pass(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec([None]), tf.TensorSpec([4])])
        def run(boxes, scores, class_ids):
            checks.shapes(SPEC, boxes, scores, class_ids)
            return tf.constant(1)

        assert run(tf.zeros([4, 6]), tf.zeros(4), tf.zeros(4)) == 1

    def test_unknown_rank_raises(self):
        @tf.function(input_signature=[tf.TensorSpec([None, 6]), tf.TensorSpec(None)])
        def run(boxes, scores):
            checks.shapes(SPEC, boxes, scores, None)

        with pytest.raises(ValueError, match="expected scores of a known rank, came one of unknown rank: say how many"):
            run.get_concrete_function()

    def test_list_is_refused(self):
        with pytest.raises(ValueError, match=r"^expected scores as a tensor or an array, came list$"):
            checks.shapes(SPEC, np.zeros((1, 6)), [0.5], None)


class RankTest:
    @pytest.mark.parametrize("shape", [(), (5,), (5, 7, 11)])
    def test_number_of_axes(self, shape):
        assert checks.rank("mask", np.zeros(shape)) == checks.rank("mask", tf.zeros(shape)) == len(shape)

    def test_list_is_refused(self):
        with pytest.raises(ValueError, match=r"^expected mask as a tensor or an array, came list$"):
            checks.rank("mask", [True])


class Float32Test:
    def test_float32_passes_as_it_is(self):
        tensor = tf.constant([0.1, 70000.0])
        assert checks.float32("boxes", tensor) is tensor
        variable = checks.float32("boxes", tf.Variable([0.1, 70000.0]))
        np.testing.assert_array_equal(variable, tensor)

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (np.float64([0.1, 1e-3]), np.float32([0.1, 1e-3])),
            (np.int64([3, 2**24 + 1]), np.float32([3, 2**24])),
            (np.uint8([0, 255]), np.float32([0, 255])),
        ],
    )
    def test_arrays_are_rounded(self, array, expected):
        result = checks.float32("boxes", array)
        assert result.dtype == tf.float32
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize(
        ("value", "came"),
        [
            (tf.zeros([2, 6], tf.float16), "float16"),
            (tf.zeros([2, 6], tf.bfloat16), "bfloat16"),
            (tf.zeros([2, 6], tf.float64), "float64"),
            (tf.zeros([2, 6], tf.int32), "int32"),
            (np.zeros((2, 6), np.float16), "float16"),
            (np.zeros((2, 6), bool), "bool"),
            (np.zeros((2, 6), np.complex64), "complex64"),
        ],
    )
    def test_other_types_raise(self, value, came):
        with pytest.raises(ValueError, match=f"^expected boxes as float32, came {came}$"):
            checks.float32("boxes", value)


class NumbersTest:
    @pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.3)])
    def test_value_within(self, value):
        checks.within("iou_threshold", value, 0, 1)

    @pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
    def test_value_outside(self, value):
        with pytest.raises(ValueError, match=rf"expected iou_threshold in \[0, 1\], came {value}"):
            checks.within("iou_threshold", value, 0, 1)

    def test_positive(self):
        checks.positive("max_outputs", 1)
        checks.positive("max_outputs", tf.constant(0))  # a tensor's value is not known when a function is traced
        for value in (0, -3, float("nan")):
            with pytest.raises(ValueError, match=f"expected max_outputs above 0, came {value}"):
                checks.positive("max_outputs", value)

    @pytest.mark.parametrize(
        ("value", "expected"), [(2, (2, 2, 2)), ((1, 2, 3), (1, 2, 3)), ([4.0, 5, 6], (4.0, 5, 6))]
    )
    def test_triple(self, value, expected):
        assert checks.triple("stride", value) == expected
        assert checks.triple("stride", np.array(value)) == expected

    @pytest.mark.parametrize("value", [0, -1, (1, 2), (1, 2, 0), (1, 2, 3, 4)])
    def test_wrong_triple(self, value):
        with pytest.raises(ValueError, match="expected stride as one number above 0 or three of them for z, y, x, c"):
            checks.triple("stride", value)
