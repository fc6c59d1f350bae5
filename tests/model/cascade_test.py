import numpy as np
import pytest
import tensorflow as tf

from model import cascade
from ops import boxes as box_ops
from tests import reference

VOLUME = (8, 16, 24)
WEIGHTS = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)


def random_stage(seed, num_classes=3, boxes_per_roi=3):
    rng = np.random.default_rng(seed)
    rois = reference.random_boxes(rng, 10, VOLUME).reshape(2, 5, 6)
    deltas = rng.normal(0, 3, (2, 5, boxes_per_roi, 6)).astype(np.float32)
    return deltas, rois, rng.normal(size=(2, 5, num_classes + 1)).astype(np.float32)


def refine(deltas, rois, logits, shape=VOLUME, weights=WEIGHTS):
    return cascade.refine(
        tf.constant(deltas), tf.constant(rois), tf.constant(logits), delta_weights=weights, shape=shape
    )


class StageWeightsTest:
    @pytest.mark.parametrize(
        ("stage", "expected"),
        [(0, WEIGHTS), (1, (20, 20, 20, 10, 10, 10)), (2, (30, 30, 30, 15, 15, 15))],
    )
    def test_those_of_the_paper(self, stage, expected):
        assert cascade.stage_weights(WEIGHTS, stage) == expected


class RefineTest:
    def test_hand_values(self):
        rois = np.float32([[[0, 0, 0, 4, 6, 8], [1, 8, 10, 7, 14, 22]]])
        deltas = np.zeros((1, 2, 2, 6), np.float32)
        # Half a size up in z and half as high; out of the volume in x and twice as wide in y.
        deltas[0, 0, 0] = [5.0, 0, 0, 5 * np.log(0.5), 0, 0]
        deltas[0, 1, 1] = [0, 0, 5.0, 0, 5 * np.log(2.0), 0]
        logits = np.float32([[[9, 1, 0], [9, 0, 1]]])  # background does not matter
        np.testing.assert_allclose(
            refine(deltas, rois, logits), [[[3, 0, 0, 5, 6, 8], [1, 5, 16, 7, 16, 24]]], atol=1e-5
        )

    @pytest.mark.parametrize("boxes_per_roi", [1, 3])
    def test_equals_reference(self, boxes_per_roi):
        deltas, rois, logits = random_stage(0, boxes_per_roi=boxes_per_roi)
        refined = refine(deltas, rois, logits)
        assert refined.shape == (2, 5, 6)
        assert refined.dtype == tf.float32
        for b, r in np.ndindex(2, 5):
            row = 0 if boxes_per_roi == 1 else np.argmax(logits[b, r, 1:])
            box = reference.decode(deltas[b, r, row : row + 1] / WEIGHTS, rois[b, r : r + 1])[0]
            np.testing.assert_allclose(refined[b, r], np.clip(box, 0, VOLUME * 2), rtol=1e-4, atol=1e-4)

    def test_no_delta_leaves_the_roi(self):
        deltas, rois, logits = random_stage(1)
        np.testing.assert_allclose(refine(0 * deltas, rois, logits), rois, atol=1e-5)

    @pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
    def test_permuted_axes(self, axes):
        deltas, rois, logits = random_stage(2)
        expected = reference.permute_boxes(refine(deltas, rois, logits), axes)
        permuted = refine(
            reference.permute_boxes(deltas, axes),
            reference.permute_boxes(rois, axes),
            logits,
            shape=[VOLUME[a] for a in axes],
        )
        np.testing.assert_allclose(permuted, expected, rtol=1e-5)

    def test_boxes_stay_in_the_volume_whatever_the_deltas(self):
        deltas, rois, logits = random_stage(3)
        refined = refine(1e6 * deltas, rois, logits).numpy()
        assert np.all((refined >= 0) & (refined <= VOLUME * 2))

    def test_padding_remains_empty(self):
        deltas, rois, logits = random_stage(4)
        rois[1, 3:] = 0.0
        refined = refine(deltas, rois, logits)
        np.testing.assert_array_equal(refined[1, 3:], np.zeros((2, 6)))
        assert np.all(box_ops.volume(refined[0]) > 0)

    def test_no_gradient_flows_to_the_stage_before(self):
        deltas, rois, logits = (tf.constant(x) for x in random_stage(5))
        with tf.GradientTape() as tape:
            tape.watch([deltas, rois, logits])
            refined = refine(deltas, rois, logits)
        assert tape.gradient(refined, [deltas, rois, logits]) == [None, None, None]

    def test_unknown_batch_equals_eager(self):
        stage = random_stage(6)
        specs = [tf.TensorSpec([None, *x.shape[1:]]) for x in stage]
        function = tf.function(
            lambda *args: cascade.refine(*args, delta_weights=WEIGHTS, shape=VOLUME), input_signature=specs
        )
        assert function.get_concrete_function().structured_outputs.shape.as_list() == [None, 5, 6]
        np.testing.assert_allclose(function(*stage), refine(*stage), rtol=1e-6)

    def test_no_rois(self):
        nothing = [np.zeros((2, 0, *tail), np.float32) for tail in ((3, 6), (6,), (4,))]
        assert refine(*nothing).shape == (2, 0, 6)


class MeanProbabilitiesTest:
    def test_hand_values(self):
        stages = [np.log(np.float32([[[0.2, 0.8]]])), np.log(np.float32([[[0.4, 0.6]]])) + 7]
        np.testing.assert_allclose(cascade.mean_probabilities(stages), [[[0.3, 0.7]]], rtol=1e-5)

    def test_of_one_stage_is_its_softmax(self):
        logits = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
        np.testing.assert_allclose(cascade.mean_probabilities([logits]), tf.nn.softmax(logits), rtol=1e-6)

    def test_sums_to_one(self):
        logits = list(np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32))
        np.testing.assert_allclose(tf.reduce_sum(cascade.mean_probabilities(logits), -1), np.ones((2, 5)), rtol=1e-6)
