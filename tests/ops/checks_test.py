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

    def test_unknown_shapes_pass(self):
        @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec([None]), tf.TensorSpec([4])])
        def run(boxes, scores, class_ids):
            checks.shapes(SPEC, boxes, scores, class_ids)
            return tf.constant(1)

        assert run(tf.zeros([4, 6]), tf.zeros(4), tf.zeros(4)) == 1

    def test_list_is_refused(self):
        with pytest.raises(ValueError, match=r"^expected scores as a tensor or an array, came list$"):
            checks.shapes(SPEC, np.zeros((1, 6)), [0.5], None)


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
