import numpy as np
import pytest
import tensorflow as tf

from configs import augment_schema
from data import paste

SHAPE = (8, 9, 12)


def make_patch(shape=SHAPE, ids=None):
    ids = np.zeros(shape, np.int32) if ids is None else ids
    num = int(ids.max())
    return {
        "volume": tf.fill([*shape, 1], -1.0),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.fill([num], 5),
        "attributes": tf.fill([num, 1], 0.5),
        "keypoints": tf.zeros([num, 1, 3]),
        "name": tf.constant("kept"),
    }


def make_donor():
    """One instance of 2 x 2 x 3 voxels less a corner, whose intensities name their places."""
    ids = np.zeros((5, 7, 11), np.int32)
    ids[1:3, 4:6, 6:9] = 1
    ids[1, 4, 6] = 0
    return {
        "volume": tf.reshape(tf.range(385.0), [5, 7, 11, 1]),
        "instance_ids": tf.constant(ids),
        "class_ids": tf.constant([2]),
        "attributes": tf.constant([[7.5]]),
        "keypoints": tf.constant([[[1.5, 4.5, 6.5]]]),
    }


def settings(count=1, max_covered=0.0, blend=0):
    return augment_schema.Paste(1.0, count, max_covered, blend)


def seed(i):
    return tf.constant([2, i], tf.int32)


class PasteTest:
    def test_an_instance_is_copied_whole(self):
        places, donor = set(), make_donor()
        pattern = donor["instance_ids"].numpy()[1:3, 4:6, 6:9]
        for i in range(25):
            found = paste.paste(make_patch(), donor, settings(), seed(i))
            ids, volume = found["instance_ids"].numpy(), found["volume"].numpy()[..., 0]
            z, y, x = np.argwhere(ids).min(axis=0)
            np.testing.assert_array_equal(ids[z : z + 2, y : y + 2, x : x + 3], pattern)
            assert ids.sum() == 11
            source = donor["volume"].numpy()[1:3, 4:6, 6:9, 0]
            np.testing.assert_array_equal(volume[ids == 1], source[pattern == 1])
            assert (volume[ids == 0] == -1).all()
            np.testing.assert_allclose(found["keypoints"], [[[z + 0.5, y + 0.5, x + 0.5]]])
            assert found["class_ids"].numpy().tolist() == [2]
            assert found["attributes"].numpy().tolist() == [[7.5]]
            assert found["name"].numpy() == b"kept"
            places.add((z, y, x))
        assert len(places) > 20
        assert np.array(list(places)).min(axis=0).tolist()[0] == 0
        assert (np.array(list(places)).max(axis=0) <= [6, 7, 9]).all()

    def test_ids_go_on_behind_those_of_the_patch(self):
        ids = np.zeros(SHAPE, np.int32)
        ids[:2], ids[7] = 1, 2
        found = paste.paste(make_patch(ids=ids), make_donor(), settings(3), seed(0))
        assert found["class_ids"].numpy().tolist() == [5, 5, 2, 2, 2]
        assert found["attributes"].shape == (5, 1)
        assert found["keypoints"].shape == (5, 1, 3)
        pasted = found["instance_ids"].numpy()
        assert [(pasted == n).sum() for n in (1, 2)] == [216, 108]
        assert all((pasted == n).sum() in (0, 11) for n in (3, 4, 5))
        assert (pasted > 2).any()

    def test_nothing_is_covered(self):
        for i in range(15):
            found = paste.paste(make_patch((4, 4, 6)), make_donor(), settings(6), seed(i))["instance_ids"].numpy()
            sizes = np.bincount(found.ravel(), minlength=7)[1:]
            assert set(sizes) <= {0, 11}
            assert sizes.any()

    @pytest.mark.parametrize(("max_covered", "covers"), [(0.0, False), (0.05, False), (0.2, True)])
    def test_share_that_may_be_covered(self, max_covered, covers):
        # One instance of 96 voxels everywhere: 11 are 11.5 % of it.
        patch = make_patch((4, 4, 6), np.ones((4, 4, 6), np.int32))
        found = paste.paste(patch, make_donor(), settings(1, max_covered), seed(0))["instance_ids"].numpy()
        assert (found == 2).sum() == (11 if covers else 0)
        assert (found == 1).sum() == (85 if covers else 96)

    def test_an_instance_longer_than_the_patch_stays_away(self):
        found = paste.paste(make_patch((8, 1, 12)), make_donor(), settings(2), seed(0))
        assert found["instance_ids"].numpy().max() == 0
        assert (found["volume"].numpy() == -1).all()
        assert found["class_ids"].numpy().tolist() == [2, 2]

    def test_an_exact_fit(self):
        found = paste.paste(make_patch((2, 2, 3)), make_donor(), settings(), seed(0))["instance_ids"].numpy()
        np.testing.assert_array_equal(found, make_donor()["instance_ids"][1:3, 4:6, 6:9])

    def test_a_donor_without_instances(self):
        donor = make_donor() | {
            "class_ids": tf.zeros([0], tf.int32),
            "attributes": tf.zeros([0, 1]),
            "keypoints": tf.zeros([0, 1, 3]),
        }
        found = paste.paste(make_patch(), donor, settings(2), seed(0))
        assert found["class_ids"].shape == (0,)
        assert (found["volume"].numpy() == -1).all()

    @pytest.mark.parametrize("blend", [0, 1])
    def test_a_donor_whose_instance_has_no_voxels(self, blend):
        donor = make_donor() | {"instance_ids": tf.zeros([5, 7, 11], tf.int32)}
        found = paste.paste(make_patch(), donor, settings(blend=blend), seed(0))
        assert found["instance_ids"].numpy().max() == 0
        assert (found["volume"].numpy() == -1).all()

    def test_blending_by_hand(self):
        # A cube of 3, as high and wide as the patch: of the 27 voxels around its corner 8 are inside, around the middle
        # of an edge 12, of a face 18.
        ids = np.zeros((5, 5, 5), np.int32)
        ids[1:4, 1:4, 1:4] = 1
        donor = make_donor() | {"instance_ids": tf.constant(ids), "volume": tf.fill([5, 5, 5, 1], 28.0)}
        patch = make_patch((3, 3, 5)) | {"volume": tf.ones([3, 3, 5, 1])}
        found = paste.paste(patch, donor, settings(blend=1), seed(0))
        x = int(np.argwhere(found["instance_ids"].numpy()).min(axis=0)[2])
        cube = found["volume"].numpy()[:, :, x : x + 3, 0] - 1
        corner, edge = [[8, 12, 8], [12, 18, 12], [8, 12, 8]], [[12, 18, 12], [18, 27, 18], [12, 18, 12]]
        np.testing.assert_allclose(cube, [corner, edge, corner], rtol=1e-5)
        assert (np.delete(found["volume"].numpy()[..., 0], range(x, x + 3), axis=2) == 1).all()

    def test_seeds_and_graph(self):
        run = tf.function(lambda s: paste.paste(make_patch(), make_donor(), settings(2), s)["instance_ids"])
        a, b, c = (run(seed(i)).numpy() for i in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, paste.paste(make_patch(), make_donor(), settings(2), seed(1))["instance_ids"])
        assert (a != c).any()
