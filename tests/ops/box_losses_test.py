import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa
from hypothesis import strategies as st

from ops import box_losses
from tests import reference
from tests.ops import loss_cases

LOSSES = {"giou": box_losses.giou_loss, "diou": box_losses.diou_loss, "ciou": box_losses.ciou_loss}
COORDINATES = st.one_of(st.integers(-3, 3), st.floats(-10, 10, width=32), st.sampled_from([-1e6, 1e6]))
BOXES = st.lists(st.tuples(*[COORDINATES] * 6), min_size=4, max_size=4)


def one_item(function, prediction, target):
    """Loss of one pair of boxes."""
    return float(function(np.float32([[prediction]]), np.float32([[target]]), np.array([[True]]))[0])


class BoxLossesTest:
    @pytest.mark.parametrize(
        ("prediction", "target", "giou", "diou"),
        [
            ([0, 0, 0, 2, 3, 5], [0, 0, 0, 2, 3, 5], 0, 0),
            # Half of the truth, inside: IoU 1/2; the centres are 1 apart, the hull's diagonal squared is 16 + 1 + 1.
            ([0, 0, 0, 2, 1, 1], [0, 0, 0, 4, 1, 1], 1 / 2, 1 / 2 + 1 / 18),
            # Side by side, 2 and 2 voxels in a hull of 4: nothing shared, nothing wasted.
            ([0, 0, 0, 1, 2, 1], [1, 0, 0, 2, 2, 1], 1, 1 + 1 / 9),
            # A gap of 2 voxels in a hull of 4.
            ([0, 0, 0, 1, 1, 1], [0, 0, 3, 1, 1, 4], 1 + 1 / 2, 1 + 9 / 18),
            # Corner to corner: 2 voxels in a hull of 8.
            ([0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 2], 1 + 6 / 8, 1 + 3 / 12),
        ],
    )
    def test_hand_values(self, prediction, target, giou, diou):
        for flip in (False, True):
            pair = (target, prediction) if flip else (prediction, target)
            assert one_item(box_losses.giou_loss, *pair) == pytest.approx(giou, abs=1e-5)
            assert one_item(box_losses.diou_loss, *pair) == pytest.approx(diou, abs=1e-5)

    def test_complete_iou_is_distance_iou_where_the_proportions_agree(self):
        rng = np.random.default_rng(0)
        target = reference.random_boxes(rng, 8, (5, 7, 11)).reshape(2, 4, 6)
        size = target[..., 3:] - target[..., :3]
        lo = rng.normal(size=(2, 4, 3)).astype(np.float32)
        same = np.concatenate([lo, lo + 1.5 * size], -1)
        other = np.concatenate([lo, lo + size * np.float32([1.5, 0.5, 1.0])], -1)
        mask = np.ones((2, 4), bool)
        for boxes, most in ((same, 1e-5), (other, 1.0)):
            ciou, diou = box_losses.ciou_loss(boxes, target, mask), box_losses.diou_loss(boxes, target, mask)
            assert np.all(ciou - diou >= -1e-6)
            assert np.all(ciou - diou < most)

    def test_boxes_of_one_depth_have_the_planar_giou_of_addons(self):
        boxes = reference.random_boxes(np.random.default_rng(1), 20, (5, 7, 11)).reshape(2, 2, 5, 6)
        boxes[..., 0], boxes[..., 3] = 1.0, 3.5
        planar = tfa.losses.giou_loss(boxes[0][..., [1, 2, 4, 5]], boxes[1][..., [1, 2, 4, 5]])
        result = box_losses.giou_loss(*boxes, np.ones((2, 5), bool))
        np.testing.assert_allclose(result, tf.reduce_mean(tf.reshape(planar, [2, 5]), 1), rtol=1e-4)

    @pytest.mark.parametrize("name", LOSSES)
    def test_permuted_axes_and_a_shift_change_nothing(self, name):
        predictions, targets, mask = loss_cases.boxes_case(np.random.default_rng(2))
        expected = LOSSES[name](predictions, targets, mask)
        permuted = [reference.permute_boxes(boxes, [2, 0, 1]) for boxes in (predictions, targets)]
        shifted = [boxes + np.float32([3, -5, 8] * 2) for boxes in (predictions, targets)]
        np.testing.assert_allclose(LOSSES[name](*permuted, mask), expected, rtol=1e-4)
        np.testing.assert_allclose(LOSSES[name](*shifted, mask), expected, rtol=1e-4)

    @pytest.mark.parametrize("name", LOSSES)
    def test_gradient_pulls_a_box_that_does_not_touch_its_truth_towards_it(self, name):
        boxes, target = np.float32([[[0, 0, 0, 3, 4, 5]]]), np.float32([[[4, 5, 7, 8, 10, 9]]])
        result, gradient = loss_cases.with_gradient(LOSSES[name], boxes, target, np.array([[True]]))
        assert result[0] > 1
        assert np.all(gradient[0, 0, :3] + gradient[0, 0, 3:] < -1e-3)  # of a shift along each axis
        closer = LOSSES[name](boxes - 0.1 * gradient, target, np.array([[True]]))
        assert closer[0] < result[0]

    @pytest.mark.parametrize("name", LOSSES)
    @hypothesis.settings(deadline=None, max_examples=50, derandomize=True)
    @hypothesis.given(predictions=BOXES, targets=BOXES)
    def test_any_boxes_give_a_finite_loss_and_gradient(self, name, predictions, targets):
        result, gradient = loss_cases.with_gradient(
            LOSSES[name], np.float32([predictions]), np.float32([targets]), np.ones((1, 4), bool)
        )
        assert np.all(np.isfinite(result))
        assert np.all(result >= -1e-5)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("name", LOSSES)
    def test_last_axis_not_6_raises(self, name):
        words = (
            r"expected predictions \[B, i1, 6\], targets \[B, i1, 6\], mask \[B, i1\]; came predictions \[1, 2, 4\], "
        )
        with pytest.raises(ValueError, match=words):
            LOSSES[name](tf.zeros([1, 2, 4]), tf.zeros([1, 2, 4]), np.ones((1, 2), bool))
