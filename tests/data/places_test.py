import numpy as np
import pytest
import tensorflow as tf

from data import places


def make_example(shape=(5, 7, 11), filled=True):
    ids = np.zeros(shape, np.int32)
    if filled:
        ids[1:3, 2:4, 5:9], ids[4, 6, 10] = 1, 2
    volume = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(*shape, 1)
    num = 2 if filled else 0
    return {
        "volume": tf.constant(volume),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.ones(num, tf.int32),
        "attributes": tf.zeros([num, 0]),
        "keypoints": tf.zeros([num, 1, 3]),
        "name": tf.constant("kept"),
    }


def seed(i):
    return tf.constant([3, i], tf.int32)


class RandomCornerTest:
    def test_a_foreground_patch_shows_an_instance_at_any_place_of_it(self):
        corners = [places.random_corner(make_example(), (1, 2, 3), 1.0, seed(i)).numpy() for i in range(40)]
        for corner in corners:
            z, y, x = corner
            assert make_example()["instance_ids"][z, y : y + 2, x : x + 3].numpy().any()
        assert len({tuple(corner) for corner in corners}) > 15

    def test_by_class_each_class_comes_equally_often(self):
        ids = np.zeros((5, 7, 11), np.int32)
        for instance in range(1, 7):  # five of class 3, the last one of class 1
            ids[instance % 5, instance, 2 * instance - 2] = instance
        example = {"instance_ids": tf.constant(ids), "class_ids": tf.constant([3, 3, 3, 3, 3, 1])}

        def seen(by):
            corners = [places.random_corner(example, (1, 1, 1), 1.0, seed(i), by).numpy() for i in range(200)]
            return np.bincount([ids[tuple(corner)] for corner in corners], minlength=7)

        # 200 draws: four standard deviations.
        assert abs(seen("class")[6] - 100) < 4 * (200 * 0.5 * 0.5) ** 0.5
        assert (seen("class")[1:6] > 0).all()
        assert abs(seen("instance")[6] - 200 / 6) < 4 * (200 / 6 * 5 / 6) ** 0.5

    def test_no_instances(self):
        corner = places.random_corner(make_example(filled=False), (2, 8, 4), 1.0, seed(0)).numpy()
        assert 0 <= corner[0] <= 3
        assert corner[1] == 0
        assert 0 <= corner[2] <= 7


class RandomVoxelTest:
    IDS = np.zeros(300, np.uint8)
    IDS[[3, 127, 128, 299]] = 7
    IDS[5] = 44

    def drawn(self, ids, instance, count=200):
        """{row: how often}."""
        draw = tf.function(lambda i: places.random_voxel(tf.constant(ids), tf.constant(instance), tf.stack([3, i])))
        rows, counts = np.unique([int(draw(tf.constant(i))) for i in range(count)], return_counts=True)
        return dict(zip(rows.tolist(), counts.tolist(), strict=True))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
    def test_each_voxel_comes_equally_often(self, dtype):
        counts = self.drawn(self.IDS.astype(dtype), 7)
        assert set(counts) == {3, 127, 128, 299}
        # 200 draws, each with probability 1 / 4: four standard deviations.
        assert all(abs(count - 50) < 4 * (200 * 0.25 * 0.75) ** 0.5 for count in counts.values())

    def test_a_whole_line_of_an_instance(self):
        counts = self.drawn(np.full(130, 9, np.uint8), 9)
        assert set(counts) <= set(range(130))
        assert len(counts) > 80  # 130 (1 - e^(-200 / 130)) = 102 are expected

    @pytest.mark.parametrize("instance", [8, 300])
    def test_without_voxels_it_is_the_first(self, instance):
        """Modulo 256 the second one is the id of another instance."""
        assert self.drawn(self.IDS, instance, 5) == {0: 5}


class WindowTest:
    def test_inside(self):
        found = places.window(make_example(), tf.constant([1, 2, 3]), (2, 3, 4))
        np.testing.assert_array_equal(found["volume"], make_example()["volume"][1:3, 2:5, 3:7])
        np.testing.assert_array_equal(found["instance_ids"], make_example()["instance_ids"][1:3, 2:5, 3:7])
        np.testing.assert_array_equal(found["keypoints"], [[[-1, -2, -3]], [[-1, -2, -3]]])
        assert found["name"].numpy() == b"kept"

    @pytest.mark.parametrize("corner", [(-1, 3, 8), (3, -2, -4), (-2, -2, -2), (9, 0, 0), (0, -20, 0)])
    def test_outside_is_zero(self, corner):
        size = (3, 6, 7)
        found = places.window(make_example(), tf.constant(corner), size)
        padded = np.pad(make_example()["volume"].numpy()[..., 0], 30)
        z, y, x = np.array(corner) + 30
        np.testing.assert_array_equal(found["volume"][..., 0], padded[z : z + 3, y : y + 6, x : x + 7])
        assert found["volume"].shape == (*size, 1)
        assert found["instance_ids"].shape == size
