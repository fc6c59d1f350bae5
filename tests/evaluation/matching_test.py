import numpy as np
import tensorflow as tf

from evaluation import matching

SHAPE = (5, 7, 11)
BOXES = [(0, 0, 0, 2, 3, 4), (1, 2, 5, 4, 6, 11)]


def truth(boxes=BOXES, class_ids=(2, 1)):
    """Instances that fill their boxes."""
    ids = np.zeros(SHAPE, np.int32)
    for i, box in enumerate(boxes):
        ids[tuple(slice(lo, hi) for lo, hi in zip(box[:3], box[3:], strict=True))] = i + 1
    return {
        "instance_ids": ids,
        "boxes": np.reshape(boxes, (-1, 6)).astype(np.float32),
        "class_ids": np.array(class_ids, np.int32),
        "keypoints": np.zeros((len(boxes), 0, 3), np.float32),
    }


def detections(boxes, scores, class_ids, masks=None):
    """As `detect` returns them, padded to five rows; masks [2, 3, 4] are full if not given."""
    empty = 5 - len(boxes)
    masks = np.ones((len(boxes), 2, 3, 4)) if masks is None else masks
    return {
        "boxes": tf.constant(np.concatenate([np.reshape(boxes, (-1, 6)), np.zeros((empty, 6))]), tf.float32),
        "scores": tf.constant([*scores, *[0.0] * empty], tf.float32),
        "class_ids": tf.constant([*class_ids, *[0] * empty], tf.int32),
        "masks": tf.constant(np.concatenate([masks, np.zeros((empty, 2, 3, 4))]), tf.float32),
        "valid": tf.constant([True] * len(boxes) + [False] * empty),
        "num_detections": tf.constant(len(boxes)),
    }


class MatchVolumeTest:
    def test_hand_worked(self):
        # The second box is half of the second truth; the third overlaps the first in 1 * 2 * 3 voxels.
        boxes = [BOXES[0], (1, 2, 5, 4, 4, 11), (1, 1, 1, 3, 4, 5)]
        match = matching.match_volume(detections(boxes, [0.9, 0.8, 0.7], [2, 1, 1]), truth(), 0.5)
        expected = [[1, 0], [0, 0.5], [6 / (24 + 24 - 6), 0]]
        np.testing.assert_allclose(match.box_iou, expected, atol=1e-6)
        np.testing.assert_allclose(match.mask_iou, expected, atol=1e-6)
        np.testing.assert_allclose(match.scores, [0.9, 0.8, 0.7])
        assert match.class_ids.tolist() == [2, 1, 1]
        assert match.gt_class_ids.tolist() == [2, 1]

    def test_masks_count_from_the_threshold_on(self):
        masks = np.broadcast_to(np.reshape([0.6, 0.4], (1, 2, 1, 1)), (1, 2, 3, 4))
        found = detections([BOXES[0]], [0.9], [2], masks)
        # Two mask cells over two voxels: the values are those of the voxels.
        assert matching.match_volume(found, truth(), 0.5).mask_iou[0, 0] == 0.5
        assert matching.match_volume(found, truth(), 0.4).mask_iou[0, 0] == 1.0
        assert matching.match_volume(found, truth(), 0.7).mask_iou[0, 0] == 0.0

    def test_each_detection_has_its_whole_mask(self):
        match = matching.match_volume(detections([BOXES[1]] * 3, [0.9, 0.8, 0.7], [1, 1, 2]), truth(), 0.5)
        np.testing.assert_array_equal(match.mask_iou, [[0, 1]] * 3)

    def test_no_detections(self):
        match = matching.match_volume(detections([], [], []), truth(), 0.5)
        assert match.box_iou.shape == match.mask_iou.shape == (0, 2)
        assert match.scores.shape == match.class_ids.shape == (0,)

    def test_no_truth(self):
        match = matching.match_volume(detections(BOXES, [0.9, 0.8], [1, 2]), truth([], []), 0.5)
        assert match.box_iou.shape == match.mask_iou.shape == (2, 0)
        assert match.gt_class_ids.shape == (0,)

    def test_detection_between_voxel_centres_has_an_empty_mask(self):
        match = matching.match_volume(detections([(0.6, 0.6, 0.6, 1.4, 1.4, 1.4)], [0.9], [2]), truth(), 0.5)
        np.testing.assert_allclose(match.box_iou, [[0.8**3 / 24, 0]], rtol=1e-5)
        np.testing.assert_array_equal(match.mask_iou, [[0, 0]])


class MeasuredTest:
    def test_attributes_and_landmarks_are_handed_on(self):
        attributes = np.arange(10, dtype=np.float32).reshape(5, 2)
        keypoints = np.arange(105, dtype=np.float32).reshape(5, 7, 3)
        found = detections(BOXES, [0.9, 0.8], [2, 1])
        found |= {"attributes": tf.constant(attributes), "keypoints": tf.constant(keypoints)}
        true = np.array([[np.nan, 1], [2, 3]], np.float32)
        match = matching.match_volume(found, truth() | {"attributes": true}, 0.5)
        np.testing.assert_array_equal(match.attributes, attributes[:2])
        np.testing.assert_array_equal(match.gt_attributes, true)
        np.testing.assert_array_equal(match.keypoints, keypoints[:2])
        # Centroid, then the middles of the faces, half a voxel inside: z_min, z_max, y_min, y_max, x_min, x_max.
        expected = [[2.5, 4, 8], [1.5, 4, 8], [3.5, 4, 8], [2.5, 2.5, 8], [2.5, 5.5, 8], [2.5, 4, 5.5], [2.5, 4, 10.5]]
        np.testing.assert_allclose(match.gt_keypoints[1], expected, atol=1e-5)
        np.testing.assert_allclose(match.gt_keypoints[0, 0], [1, 1.5, 2], atol=1e-5)

    def test_given_landmarks_are_the_truth(self):
        points = np.float32([[[0.5, 1, 2], [np.nan] * 3], [[3, 4, 5], [6, 7, 8]]])
        found = detections(BOXES, [0.9, 0.8], [2, 1]) | {"keypoints": tf.ones([5, 2, 3])}
        match = matching.match_volume(found, truth() | {"keypoints": points}, 0.5)
        np.testing.assert_array_equal(match.keypoints, np.ones((2, 2, 3)))
        np.testing.assert_array_equal(match.gt_keypoints, points)

    def test_nothing_found_and_nothing_true(self):
        found = detections([], [], [])
        found |= {"attributes": tf.zeros([5, 2]), "keypoints": tf.zeros([5, 7, 3])}
        match = matching.match_volume(found, truth([], []) | {"attributes": np.zeros((0, 2), np.float32)}, 0.5)
        assert match.attributes.shape == match.gt_attributes.shape == (0, 2)
        assert match.keypoints.shape == match.gt_keypoints.shape == (0, 7, 3)

    def test_networks_without_the_heads_have_none(self):
        match = matching.match_volume(detections(BOXES, [0.9, 0.8], [2, 1]), truth(), 0.5)
        assert match.attributes is match.gt_attributes is match.keypoints is match.gt_keypoints is None
