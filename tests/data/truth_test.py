import numpy as np
import pytest
import tensorflow as tf

from data import truth

SHAPE = (9, 11, 14)


class TruthTest:
    def ids(self):
        ids = np.zeros(SHAPE, np.int32)
        ids[2:4, 3:6, 5:9] = 1  # 24 voxels, whole
        ids[0:1, 0:1, 0:2] = 3  # 2 voxels, cut
        ids[5, 5, 5] = 4  # 1 voxel, whole
        ids[7:9, 8:11, 10:14] = 5  # 24 voxels, cut
        return ids

    def found(self, *, max_instances=6, min_visible_voxels=3, ids=None):
        result = truth.of_patch(self.example(ids), max_instances, min_visible_voxels)
        return {key: value.numpy() for key, value in result.items()}

    def example(self, ids=None):
        return {
            "instance_ids": tf.constant(self.ids() if ids is None else ids),
            "class_ids": tf.constant([1, 2, 3, 1, 2]),
            "attributes": tf.constant([[1.0], [2.0], [3.0], [4.0], [5.0]]),
            "keypoints": self.keypoints(),
        }

    def keypoints(self):
        """Two landmarks of each of the five instances; one is not known."""
        points = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
        points[4, 1] = np.nan
        return tf.constant(points)

    def test_slots_by_hand(self):
        found = self.found()
        np.testing.assert_array_equal(found["valid"], [True, True, True, False, False, False])
        np.testing.assert_array_equal(found["class_ids"], [1, 2, 1, 0, 0, 0])
        np.testing.assert_array_equal(found["attributes"][:, 0], [1, 5, 4, 0, 0, 0])
        nowhere = [np.nan] * 3
        points = [[[0, 1, 2], [3, 4, 5]], [[24, 25, 26], nowhere], [[18, 19, 20], [21, 22, 23]]]
        np.testing.assert_array_equal(found["keypoints"][:3], points)
        assert not found["keypoints"][3:].any()
        expected = np.zeros((6, 6), np.float32)
        expected[:3] = [[2, 3, 5, 4, 6, 9], [7, 8, 10, 9, 11, 14], [5, 5, 5, 6, 6, 6]]
        np.testing.assert_array_equal(found["boxes"], expected)
        # Id 3 shows too little of itself; the single voxel of id 4 is all there is of it.
        old = self.ids()
        new = np.select([old == 1, old == 5, old == 4], [1, 2, 3], 0)
        np.testing.assert_array_equal(found["instance_ids"], new)
        assert found["instance_ids"].dtype == np.int32
        assert found["class_ids"].dtype == np.int32

    def test_a_cut_instance_counts_from_min_visible_voxels_on(self):
        assert self.found(min_visible_voxels=2)["valid"].sum() == 4
        assert self.found(min_visible_voxels=25)["valid"].sum() == 2

    def test_the_largest_are_kept(self):
        found = self.found(max_instances=1)
        np.testing.assert_array_equal(found["boxes"], [[2, 3, 5, 4, 6, 9]])
        np.testing.assert_array_equal(found["instance_ids"], self.ids() == 1)

    @pytest.mark.parametrize("max_instances", [1, 4])
    def test_no_instances_in_the_patch(self, max_instances):
        found = self.found(max_instances=max_instances, ids=np.zeros(SHAPE, np.int32))
        assert not any(value.any() for value in found.values())
        assert found["boxes"].shape == (max_instances, 6)

    def test_no_instances_at_all(self):
        example = {"instance_ids": tf.zeros(SHAPE, tf.int32), "class_ids": tf.zeros([0], tf.int32)}
        example |= {"attributes": tf.zeros([0, 2]), "keypoints": tf.zeros([0, 4, 3])}
        found = truth.of_patch(example, 3, 1)
        shapes = {key: tuple(value.shape) for key, value in found.items()}
        assert shapes == {
            "instance_ids": SHAPE,
            "boxes": (3, 6),
            "class_ids": (3,),
            "attributes": (3, 2),
            "keypoints": (3, 4, 3),
            "valid": (3,),
        }
        assert not any(value.numpy().any() for value in found.values())

    def test_eager_equals_function_of_unknown_shape(self):
        @tf.function(
            input_signature=[
                {
                    "instance_ids": tf.TensorSpec([None, None, None], tf.int32),
                    "class_ids": tf.TensorSpec([None], tf.int32),
                    "attributes": tf.TensorSpec([None, 1], tf.float32),
                    "keypoints": tf.TensorSpec([None, None, 3], tf.float32),
                }
            ]
        )
        def compiled(example):
            return truth.of_patch(example, 6, 3)

        found = compiled(self.example())
        expected = self.found()
        assert found.keys() == expected.keys()
        for key, value in found.items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)


class WithKnownKeypointsTest:
    def test_unknown_ones_become_zero_and_are_marked(self):
        points = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
        points[0, 1, 2] = np.nan
        found = truth.with_known_keypoints({"keypoints": tf.constant(points), "valid": tf.constant([True, False])})
        np.testing.assert_array_equal(found["keypoints_valid"], [[True, False], [False, False]])
        np.testing.assert_array_equal(found["keypoints"], [[[0, 1, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
