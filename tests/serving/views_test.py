import numpy as np
import pytest
import tensorflow as tf

from ops import boxes as box_ops
from ops import keypoints
from ops import masks as mask_ops
from serving import inference, views
from tests import reference, tiny

PATCH = (6, 8, 10)
MASK_SIZE = (2, 4, 6)
SLOTS = 5
# Ids of two objects; neither is its own mirror image along any axis.
IDS = np.zeros(PATCH, np.int32)
IDS[1:5, 2:6, 1:7] = 1
IDS[1:3, 2:4, 1:3] = 0
IDS[4:6, 0:2, 7:10] = 2
IDS[5, 1, 9] = 0


class Exact:
    """In place of a network: finds what is painted, and says of it what its place or its mirror image makes of it.

    per_view: f(answer as a dict of [SLOTS, ...], number of the call) -> the answer that is given.
    """

    def __init__(self, per_view=lambda answer, _: answer):
        self.per_view, self.calls = per_view, 0

    def find(self, volume):
        ids = tf.cast(volume[..., 0], tf.int32)
        boxes, voxels = mask_ops.instance_boxes(ids[0], SLOTS)
        valid = voxels > 0
        masks = mask_ops.mask_targets(
            ids, boxes[tf.newaxis], tf.where(valid, tf.range(SLOTS), -1)[tf.newaxis], MASK_SIZE
        )
        points, _ = keypoints.from_ids(ids, SLOTS)
        answer = {
            "boxes": boxes,
            "windows": boxes,
            "scores": tf.where(valid, 0.5, 0.0),
            "class_ids": tf.where(valid, tf.range(SLOTS) % 2 + 1, 0),
            "masks": masks[0],
            "attributes": tf.cast(voxels, tf.float32)[:, tf.newaxis],
            "keypoints": points[0],
            "keypoint_scores": tf.where(valid[:, tf.newaxis], tf.range(0.1, 0.8, 0.1), 0.0),
            "valid": valid,
        }
        answer = self.per_view(answer, self.calls)
        answer["num_detections"] = tf.math.count_nonzero(answer["valid"], dtype=tf.int32)
        self.calls += 1
        return {name: value[tf.newaxis] for name, value in answer.items()}


def settings(flip_axes=(True, True, True), boxes="head"):
    config = tiny.config()
    config.input.patch_size = PATCH
    config.input.normalization = "none"
    config.inference.overlap = (2, 2, 2)
    config.inference.flip_axes = flip_axes
    config.model.detections.boxes = boxes
    return config.validate()


def look(network, config, *, ids=IDS):
    found = views.Views(network.find, config)(tf.constant(ids[..., np.newaxis], tf.float32))
    return {name: value.numpy() for name, value in found.items()}


class ViewsTest:
    @pytest.mark.parametrize("boxes", ["head", "masks"])
    @pytest.mark.parametrize(
        "flip_axes", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
    )
    def test_views_that_agree_answer_as_one(self, flip_axes, boxes):
        network = Exact()
        found = look(network, settings(flip_axes, boxes))
        assert network.calls == 2 ** sum(flip_axes)
        expected = look(Exact(), settings((False, False, False), boxes))
        assert set(found) == set(expected)
        for name, value in expected.items():
            if name == "keypoint_scores":  # of the row that this was in each view, and not the same in all
                continue
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
            assert found[name].dtype == value.dtype, name

    def test_ends_of_objects_change_places_and_given_landmarks_do_not(self):
        config = settings((False, True, False))
        scores = look(Exact(), config)["keypoint_scores"]
        np.testing.assert_allclose(scores[0], [0.1, 0.2, 0.3, 0.45, 0.45, 0.6, 0.7], rtol=1e-5)
        config.data.keypoints = ("a", "b", "c", "d", "e", "f", "g")
        scores = look(Exact(), config)["keypoint_scores"]
        np.testing.assert_allclose(scores[0], np.arange(0.1, 0.8, 0.1), rtol=1e-5)

    def test_what_half_of_the_views_find_has_half_the_score(self):
        def blind(answer, call):
            seen = tf.range(SLOTS) != (0 if call % 2 else SLOTS)
            return answer | {
                "valid": answer["valid"] & seen,
                "scores": tf.where(seen, answer["scores"], 0.0),
                "boxes": tf.where(seen[:, tf.newaxis], answer["boxes"], 0.0),
                "windows": tf.where(seen[:, tf.newaxis], answer["boxes"], 0.0),
            }

        found = look(Exact(blind), settings())
        assert found["num_detections"] == 2
        np.testing.assert_allclose(found["scores"], [0.5, 0.25, 0, 0, 0], rtol=1e-5)
        np.testing.assert_array_equal(found["class_ids"], [2, 1, 0, 0, 0])
        np.testing.assert_array_equal(found["boxes"][1], [1, 2, 1, 5, 6, 7])

    def test_what_one_of_eight_finds_by_chance_is_left_out(self):
        def chance(answer, call):
            return answer | {"scores": answer["scores"] * (1.0 if call == 3 else 1e-3)}

        found = look(Exact(chance), settings())  # a mean of 0.063, and of 0.05 from 0.4 on
        assert found["num_detections"] == 2
        config = settings()
        config.model.detections.score_threshold = 0.07
        found = look(Exact(chance), config)
        assert found["num_detections"] == 0
        for name, value in found.items():
            assert not value.any(), name

    def test_scores_weigh_attributes(self):
        def two(answer, call):
            factor = 3.0 if call else 1.0
            return answer | {"scores": 0.2 * factor * answer["scores"], "attributes": factor * answer["attributes"]}

        found = look(Exact(two), settings((True, False, False)))
        np.testing.assert_allclose(found["attributes"][0], [(1 * 1 + 3 * 3) / 4 * (96 - 8)], rtol=1e-5)

    def test_nothing_there(self):
        found = look(Exact(), settings(), ids=np.zeros_like(IDS))
        assert found["num_detections"] == 0
        for name, value in found.items():
            assert not value.any(), name

    def test_a_mask_that_shows_nothing_leaves_the_mean_box(self):
        def empty(answer, _):
            return answer | {"masks": tf.zeros_like(answer["masks"])}

        found = look(Exact(empty), settings(boxes="masks"))
        np.testing.assert_allclose(found["boxes"][0], [1, 2, 1, 5, 6, 7], rtol=1e-5)

    def test_boxes_of_masks_are_what_most_views_show(self):
        def short(answer, call):
            """Three of eight views see the half of every object before the middle along x, of the view."""
            lo, hi = answer["boxes"][:, :3], answer["boxes"][:, 3:]
            part = tf.concat([hi[:, :2], (lo[:, 2:] + hi[:, 2:]) / 2], axis=1) if call in (0, 2, 4) else hi
            boxes = tf.concat([lo, part], axis=1)
            return answer | {"boxes": boxes, "windows": boxes, "masks": tf.ones_like(answer["masks"])}

        found = look(Exact(short), settings(boxes="masks"))
        np.testing.assert_array_equal(found["boxes"][0], [1, 2, 1, 5, 6, 7])
        found = look(Exact(short), settings(boxes="head"))
        # By weighted box clustering all weigh alike: the half is the best, the whole twice as large with an IoU of 1/2.
        np.testing.assert_allclose(found["boxes"][0], [1, 2, 1, 5, 6, (5 * 7 + 3 * 4) / 8], rtol=1e-5)

    @pytest.mark.parametrize(("low", "shown"), [(0.3, True), (0.1, False)])
    def test_what_single_views_would_cut_off_counts(self, low, shown):
        def wide(answer, call):
            """Half of the views are sure, beyond their boxes, too; the others show nothing alone."""
            windows = box_ops.grow(answer["boxes"], (1, 1, 1), PATCH)
            return answer | {"windows": windows, "masks": tf.fill(answer["masks"].shape, 0.8 if call % 2 else low)}

        found = look(Exact(wide), settings(boxes="masks"))  # the means are 0.55 and 0.45
        np.testing.assert_allclose(found["boxes"][0], [0, 1, 0, 6, 7, 8] if shown else [1, 2, 1, 5, 6, 7], rtol=1e-5)
        np.testing.assert_allclose(found["masks"][0], (0.8 + low) / 2, rtol=1e-5)

    def test_whole_volumes_are_found_as_without(self):
        volume = np.zeros((9, 8, 14, 1), np.float32)
        volume[1:7, :, 2:12, 0] = IDS
        plain, flipped = (
            inference.VolumeDetector(Exact(), settings((flips, flips, flips))).detect(volume) for flips in (False, True)
        )
        assert plain["num_detections"] == 2
        for name in ("boxes", "scores", "class_ids", "masks", "attributes", "keypoints", "valid"):
            np.testing.assert_allclose(flipped[name], plain[name], rtol=1e-3, atol=1e-3, err_msg=name)


class CommonWindowTest:
    @pytest.mark.parametrize(
        ("share", "expected"),
        [
            (0.0, [0, 0, 0, 6, 7, 8]),
            (0.5, [0, 0, 2, 6, 7, 8]),
            (0.51, [1, 0, 2, 6, 5, 8]),
            (0.75, [1, 0, 2, 6, 5, 8]),
            (1.0, [1, 3, 4, 4, 5, 8]),
        ],
    )
    def test_hand_values(self, share, expected):
        boxes = np.float32([[0, 0, 2, 6, 7, 8], [1, 0, 4, 6, 5, 8], [1, 3, 0, 4, 5, 8]])
        window = views.common_window(boxes, np.float32([0.2, 0.1, 0.1]), share)
        np.testing.assert_array_equal(window, expected)

    def test_boxes_that_lie_apart_have_none(self):
        boxes = np.float32([[0, 0, 0, 2, 3, 4], [0, 0, 5, 2, 3, 9]])
        window = views.common_window(boxes, np.float32([1, 1]), 0.6)
        assert window[2] > window[5]

    def test_all_that_reaches_the_share_lies_in_it_and_nothing_less_would_do(self):
        rng = np.random.default_rng(0)
        for share in (0.3, 0.5, 0.8):
            boxes = np.round(reference.random_boxes(rng, 6, (7, 9, 11), smallest=4))
            boxes = np.float32(np.concatenate([boxes[:, :3], np.maximum(boxes[:, :3] + 1, boxes[:, 3:])], axis=1))
            weights = rng.random(6).astype(np.float32)
            window = views.common_window(boxes, weights, share).numpy()
            for axis in range(3):  # of each alone, as what is seen along one says nothing of the others
                places = np.arange(-20, 40) + 0.5
                before = [weights[boxes[:, axis] <= place].sum() >= share * weights.sum() for place in places]
                behind = [weights[boxes[:, axis + 3] >= place].sum() >= share * weights.sum() for place in places]
                assert window[axis] == np.floor(places[before][0])
                assert window[axis + 3] == np.ceil(places[behind][-1])


class MeanMaskTest:
    def test_at_the_voxels_it_is_the_mean_of_what_is_pasted(self):
        rng = np.random.default_rng(1)
        boxes = np.float32([[0, 1, 2, 4, 7, 9], [1, 0, 3, 5, 6, 10], [0, 0, 0, 6, 8, 9]])
        masks = rng.random((3, 6, 8, 10)).astype(np.float32)
        scores = np.float32([0.9, 0.2, 0.4])
        pasted = [mask_ops.paste(masks[i : i + 1], boxes[i : i + 1], np.array([True]), PATCH).numpy() for i in range(3)]
        members = {"windows": boxes, "masks": masks, "scores": scores}
        found = views.mean_mask(members, np.float32([0, 0, 0, *PATCH]))
        np.testing.assert_allclose(found, np.average(pasted, axis=0, weights=scores), atol=1e-5)

    def test_of_one_over_its_own_box_is_itself(self):
        masks = np.random.default_rng(2).random((1, *MASK_SIZE)).astype(np.float32)
        box = np.float32([1, 2, 3, 4.5, 6, 9])
        found = views.mean_mask({"windows": box[np.newaxis], "masks": masks, "scores": np.float32([0.3])}, box)
        np.testing.assert_allclose(found, masks[0], atol=1e-5)
