import numpy as np
import pytest
import tensorflow as tf

from configs import heads_schema
from model import detections
from tests import reference

VOLUME = (8, 16, 24)
WEIGHTS = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)
ROIS = np.float32([[[0, 0, 0, 4, 6, 8], [1, 8, 10, 7, 14, 22], [0, 0, 0, 0, 0, 0]]])
ROIS_VALID = np.array([[True, True, False]])
SETTINGS = {"score_threshold": 0.1, "nms_iou": 0.3, "max_detections": 4}
SUPPRESSIONS = ["nms", "soft_linear", "soft_gaussian"]


def detect(probabilities, deltas=None, rois=ROIS, valid=ROIS_VALID, shape=VOLUME, **changes):
    probabilities = np.asarray(probabilities, np.float32)
    if deltas is None:
        deltas = np.zeros((*probabilities.shape[:2], probabilities.shape[2] - 1, 6), np.float32)
    found = detections.detect(
        tf.constant(probabilities),
        tf.constant(deltas),
        tf.constant(rois),
        valid,
        shape=shape,
        delta_weights=WEIGHTS,
        detections=heads_schema.Detections(**{**SETTINGS, **changes}),
    )
    return {name: value.numpy() for name, value in found.items()}


def random_case(seed, rois=12, classes=3, batch=2):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, batch * rois, VOLUME, smallest=3).reshape(batch, rois, 6)
    probabilities = rng.dirichlet(np.ones(classes + 1), (batch, rois)).astype(np.float32)
    deltas = rng.normal(0, 1, (batch, rois, classes, 6)).astype(np.float32)
    return probabilities, deltas, boxes, rng.random((batch, rois)) < 0.9


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

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    def test_equals_reference(self, suppression):
        probabilities, deltas, rois, valid = random_case(0)
        found = detect(probabilities, deltas, rois, valid, suppression=suppression, max_detections=40)
        for b in range(2):
            boxes, scores, classes = [], [], []
            for p, k in np.ndindex(12, 3):
                if valid[b, p]:
                    decoded = reference.decode(deltas[b, p, k : k + 1] / WEIGHTS, rois[b, p : p + 1])[0]
                    boxes.append(np.clip(decoded, 0, VOLUME * 2))
                    scores.append(probabilities[b, p, k + 1])
                    classes.append(k + 1)
            settings = {"iou_threshold": 0.3, "max_outputs": 40, "score_threshold": 0.1, "class_ids": np.array(classes)}
            if suppression == "nms":
                kept = reference.nms3d(np.array(boxes), np.array(scores), **settings)
                lowered = np.array(scores)[kept]
            else:
                method = suppression.removeprefix("soft_")
                taken = reference.soft_nms3d(np.array(boxes), np.array(scores), method=method, sigma=0.5, **settings)
                kept, lowered = (list(column) for column in zip(*taken, strict=True))
            count = found["valid"][b].sum()
            assert count == len(kept) > 5
            np.testing.assert_allclose(found["boxes"][b, :count], np.array(boxes)[kept], atol=1e-4)
            np.testing.assert_allclose(found["scores"][b, :count], lowered, rtol=1e-4)
            np.testing.assert_array_equal(found["class_ids"][b, :count], np.array(classes)[kept])

    @pytest.mark.parametrize(
        ("suppression", "factor"), [("soft_linear", 1 - 0.5), ("soft_gaussian", np.exp(-(0.5**2) / 0.4))]
    )
    def test_soft_suppression_lowers_the_score_of_what_overlaps(self, suppression, factor):
        rois = np.float32([[[0, 0, 0, 4, 6, 8], [0, 0, 0, 4, 6, 4], [1, 8, 10, 7, 14, 22]]])
        probabilities = [[[0.1, 0.9], [0.2, 0.8], [0.4, 0.6]]]
        found = detect(probabilities, rois=rois, valid=np.ones((1, 3), bool), suppression=suppression, soft_sigma=0.4)
        expected = sorted([0.9, 0.6, 0.8 * factor], reverse=True)
        np.testing.assert_allclose(found["scores"], [[*expected, 0]], rtol=1e-5)
        np.testing.assert_array_equal(found["boxes"][0, :3], rois[0, [0, 2, 1]])
        higher = detect(
            probabilities,
            rois=rois,
            valid=np.ones((1, 3), bool),
            suppression=suppression,
            soft_sigma=0.4,
            score_threshold=0.5,
        )
        np.testing.assert_array_equal(higher["valid"], [[True, True, False, False]])

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    def test_one_box_for_all_classes_equals_the_same_box_for_each(self, suppression):
        probabilities, deltas, rois, valid = random_case(1)
        agnostic = detect(probabilities, deltas[:, :, :1], rois, valid, suppression=suppression)
        specific = detect(probabilities, np.tile(deltas[:, :, :1], (1, 1, 3, 1)), rois, valid, suppression=suppression)
        assert agnostic["valid"].all()
        assert len(np.unique(agnostic["class_ids"])) > 1
        for name, value in agnostic.items():
            np.testing.assert_array_equal(value, specific[name], err_msg=name)

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    @pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
    def test_permuted_axes(self, suppression, axes):
        probabilities, deltas, rois, valid = random_case(2)
        found = detect(probabilities, deltas, rois, valid, suppression=suppression)
        permuted = detect(
            probabilities,
            reference.permute_boxes(deltas, axes),
            reference.permute_boxes(rois, axes),
            valid,
            shape=[VOLUME[a] for a in axes],
            suppression=suppression,
        )
        np.testing.assert_allclose(permuted["boxes"], reference.permute_boxes(found["boxes"], axes), atol=1e-4)
        np.testing.assert_allclose(permuted["scores"], found["scores"], rtol=1e-4)
        np.testing.assert_array_equal(permuted["class_ids"], found["class_ids"])

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    def test_nothing_is_found_in_an_empty_roi(self, suppression):
        probabilities, deltas, rois, valid = random_case(3, batch=1)
        rois[0, :, 4] = rois[0, :, 1]
        found = detect(probabilities, deltas, rois, valid | True, suppression=suppression)
        for value in found.values():
            assert not value.any()

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    def test_best_come_first(self, suppression):
        found = detect(*random_case(4), suppression=suppression, max_detections=20, score_threshold=0.01)
        assert np.all(np.diff(found["scores"]) <= 0)
        assert np.all(np.diff(found["valid"].astype(int)) <= 0)
        assert found["valid"].sum() > 30

    @pytest.mark.parametrize("suppression", SUPPRESSIONS)
    def test_shapes_are_static_for_a_batch_of_unknown_size(self, suppression):
        signature = [
            tf.TensorSpec([None, 3, 3]),
            tf.TensorSpec([None, 3, 2, 6]),
            tf.TensorSpec([None, 3, 6]),
            tf.TensorSpec([None, 3], tf.bool),
        ]
        settings = heads_schema.Detections(**SETTINGS, suppression=suppression)
        function = tf.function(
            lambda *args: detections.detect(*args, shape=VOLUME, delta_weights=WEIGHTS, detections=settings),
            input_signature=signature,
        )
        outputs = function.get_concrete_function().structured_outputs
        shapes = {name: value.shape.as_list() for name, value in outputs.items()}
        assert shapes == {
            "boxes": [None, 4, 6],
            "scores": [None, 4],
            "class_ids": [None, 4],
            "valid": [None, 4],
        }
        probabilities, deltas, rois, _ = random_case(5, rois=3, classes=2)
        valid = np.ones((2, 3), bool)
        eager = detect(probabilities, deltas, rois, valid, suppression=suppression)
        for name, value in function(probabilities, deltas, rois, valid).items():
            np.testing.assert_allclose(value, eager[name], rtol=1e-5, err_msg=name)
