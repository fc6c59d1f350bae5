import numpy as np
import tensorflow as tf

from model import detections

VOLUME = (8, 16, 24)
WEIGHTS = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)
ROIS = np.float32([[[0, 0, 0, 4, 6, 8], [1, 8, 10, 7, 14, 22], [0, 0, 0, 0, 0, 0]]])
ROIS_VALID = np.array([[True, True, False]])
SETTINGS = {
    "shape": VOLUME,
    "delta_weights": WEIGHTS,
    "score_threshold": 0.1,
    "nms_iou": 0.3,
    "max_detections": 4,
}


def detect(probabilities, deltas=None, rois=ROIS, valid=ROIS_VALID, **changes):
    logits = np.log(np.asarray(probabilities, np.float32)) + 3.0  # a common shift changes nothing
    if deltas is None:
        deltas = np.zeros((*logits.shape[:2], logits.shape[2] - 1, 6), np.float32)
    found = detections.detect(
        tf.constant(logits), tf.constant(deltas), tf.constant(rois), valid, **{**SETTINGS, **changes}
    )
    return {name: value.numpy() for name, value in found.items()}


class DetectTest:
    def test_hand_values(self):
        deltas = np.zeros((1, 3, 2, 6), np.float32)
        # Class 1 of the first roi: half a size up in z, half as high; class 2 of the second: out of the volume in x.
        deltas[0, 0, 0] = [5.0, 0, 0, 5 * np.log(0.5), 0, 0]
        deltas[0, 1, 1] = [0, 0, 5.0, 0, 5 * np.log(2.0), 0]
        found = detect([[[0.25, 0.7, 0.05], [0.15, 0.05, 0.8], [0.0001, 0.9, 0.0999]]], deltas)
        np.testing.assert_allclose(
            found["boxes"][0], [[1, 5, 16, 7, 16, 24], [3, 0, 0, 5, 6, 8], [0] * 6, [0] * 6], atol=1e-5
        )
        np.testing.assert_allclose(found["scores"], [[0.8, 0.7, 0, 0]], rtol=1e-5)
        np.testing.assert_array_equal(found["class_ids"], [[2, 1, 0, 0]])
        np.testing.assert_array_equal(found["valid"], [[True, True, False, False]])

    def test_two_classes_may_share_a_place_but_one_class_may_not(self):
        same = np.tile(ROIS[:, :1], [1, 2, 1])
        found = detect([[[0.1, 0.5, 0.4], [0.2, 0.6, 0.2]]], rois=same, valid=np.array([[True, True]]))
        np.testing.assert_array_equal(found["class_ids"], [[1, 2, 0, 0]])
        np.testing.assert_allclose(found["scores"], [[0.6, 0.4, 0, 0]], rtol=1e-5)
        np.testing.assert_array_equal(found["boxes"][0, :2], same[0])

    def test_the_threshold_drops_what_scores_less(self):
        probabilities = [[[0.5, 0.3, 0.2], [0.4, 0.25, 0.35], [0.9, 0.05, 0.05]]]
        kept = [detect(probabilities, score_threshold=t)["valid"].sum() for t in (0.15, 0.28, 0.5)]
        assert kept == [4, 2, 0]

    def test_best_remain_where_there_are_too_many(self):
        found = detect([[[0.5, 0.3, 0.2], [0.4, 0.25, 0.35], [0.9, 0.05, 0.05]]], max_detections=2)
        np.testing.assert_allclose(found["scores"], [[0.35, 0.3]], rtol=1e-5)
        np.testing.assert_array_equal(found["class_ids"], [[2, 1]])

    def test_one_class(self):
        found = detect([[[0.4, 0.6], [0.3, 0.7], [0.5, 0.5]]], max_detections=5)
        np.testing.assert_array_equal(found["boxes"][0, :2], ROIS[0, [1, 0]])
        np.testing.assert_array_equal(found["class_ids"], [[1, 1, 0, 0, 0]])

    def test_no_valid_roi_gives_zeros(self):
        found = detect(np.full((1, 3, 3), 1 / 3), valid=np.zeros((1, 3), bool))
        for value in found.values():
            assert not value.any()

    def test_a_box_outside_the_volume_is_dropped(self):
        deltas = np.zeros((1, 3, 1, 6), np.float32)
        deltas[0, 0, 0, 1] = -20.0
        found = detect([[[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]], deltas)
        np.testing.assert_array_equal(found["boxes"][0], [ROIS[0, 1], [0] * 6, [0] * 6, [0] * 6])

    def test_volumes_of_a_batch_do_not_touch_each_other(self):
        rng = np.random.default_rng(0)
        probabilities = rng.dirichlet(np.ones(4), (2, 3))
        rois, valid = np.tile(ROIS, [2, 1, 1]), np.array([[True, False, False], [True, True, True]])
        together = detect(probabilities, rois=rois, valid=valid)
        for item in range(2):
            where = slice(item, item + 1)
            alone = detect(probabilities[where], rois=rois[where], valid=valid[where])
            for name, value in alone.items():
                np.testing.assert_array_equal(together[name][item], value[0])

    def test_shapes_are_static_for_a_batch_of_unknown_size(self):
        signature = [
            tf.TensorSpec([None, 3, 3]),
            tf.TensorSpec([None, 3, 2, 6]),
            tf.TensorSpec([None, 3, 6]),
            tf.TensorSpec([None, 3], tf.bool),
        ]
        function = tf.function(lambda *args: detections.detect(*args, **SETTINGS), input_signature=signature)
        outputs = function.get_concrete_function().structured_outputs
        shapes = {name: value.shape.as_list() for name, value in outputs.items()}
        assert shapes == {
            "boxes": [None, 4, 6],
            "scores": [None, 4],
            "class_ids": [None, 4],
            "valid": [None, 4],
        }
