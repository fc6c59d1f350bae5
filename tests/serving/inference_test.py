import numpy as np
import pytest
import tensorflow as tf

from ops import masks as mask_ops
from serving import inference
from tests import tiny

PATCH = (8, 16, 24)
OVERLAP = (4, 6, 8)
MASK_SIZE = (2, 3, 4)
SLOTS = 24


class CannedAnswer(tf.Module):
    """In place of the network: gives the same answer for every patch."""

    def __init__(self):
        super().__init__()
        self.boxes = tf.Variable(tf.zeros([1, SLOTS, 6]))
        self.scores = tf.Variable(tf.zeros([1, SLOTS]))
        self.class_ids = tf.Variable(tf.zeros([1, SLOTS], tf.int32))
        self.masks = tf.Variable(tf.ones([1, SLOTS, *MASK_SIZE]))
        self.measured = {}  # what heads for attributes and landmarks would add
        self.num_traces = 0

    def set(self, boxes, scores, class_ids=None, masks=None):
        """Boxes, best first; the classes are 1 and the masks full if nothing else is said."""
        count = len(boxes)
        self.boxes.assign(np.zeros([1, SLOTS, 6]))
        self.scores.assign(np.zeros([1, SLOTS]))
        self.boxes[0, :count].assign(np.reshape(boxes, [count, 6]).astype(np.float32))
        self.scores[0, :count].assign(np.array(scores, np.float32))
        self.class_ids[0, :count].assign(np.ones(count, np.int32) if class_ids is None else class_ids)
        self.masks.assign(np.ones([1, SLOTS, *MASK_SIZE]))
        if masks is not None:
            self.masks[0, :count].assign(masks)

    def find(self, volume):
        del volume
        self.num_traces += 1
        return {
            "boxes": self.boxes,
            "windows": self.boxes,
            "scores": self.scores,
            "class_ids": self.class_ids,
            "masks": self.masks,
            "valid": self.scores > 0,
            "num_detections": tf.reduce_sum(tf.cast(self.scores > 0, tf.int32), axis=1),
            **self.measured,
        }


class PaintedBoxes(tf.Module):
    """In place of the network: finds each box that `paint` drew, as far as the patch shows it.

    The rows of `objects` are: id in the volume (0: no object), class, score, score where the patch cuts it, voxels.
    """

    def __init__(self):
        super().__init__()
        self.objects = tf.Variable(tf.zeros([SLOTS, 5]))

    def find(self, volume):
        ids, class_ids, scores, cut_scores, full = tf.unstack(self.objects, axis=1)
        boxes, voxels = mask_ops.instance_boxes(tf.cast(volume[0, ..., 0], tf.int32), SLOTS)
        index = tf.maximum(tf.cast(ids, tf.int32) - 1, 0)
        seen = tf.where(ids > 0, tf.cast(tf.gather(voxels, index), tf.float32), 0.0)
        scores = tf.where(seen == full, scores, cut_scores) * tf.cast(seen > 0, tf.float32)
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        scores, boxes = tf.gather(scores, order), tf.gather(tf.gather(boxes, index), order)[tf.newaxis]
        return {
            "boxes": boxes,
            "windows": boxes,
            "scores": scores[tf.newaxis],
            "class_ids": tf.cast(tf.gather(class_ids, order), tf.int32)[tf.newaxis],
            "masks": tf.ones([1, SLOTS, *MASK_SIZE]),
            "valid": scores[tf.newaxis] > 0,
            "num_detections": tf.reduce_sum(tf.cast(scores > 0, tf.int32))[tf.newaxis],
        }


def make_detector(network, *, normalization="none", max_detections=32):
    config = tiny.config()
    config.input.patch_size = PATCH
    config.input.normalization = normalization
    config.inference.overlap = OVERLAP
    config.inference.max_detections = max_detections
    return inference.VolumeDetector(network, config.validate())


def paint(shape, boxes):
    """[Z, Y, X, 1] float32: i + 1 in box i, else 0."""
    volume = np.zeros((*shape, 1), np.float32)
    for i, box in enumerate(boxes):
        volume[tuple(slice(lo, hi) for lo, hi in zip(box[:3], box[3:], strict=True))] = i + 1
    return volume


def find(detector, shape, objects):
    """What `segment` finds of painted objects, each a tuple (box, class, score, score where cut); as arrays."""
    boxes = [box for box, *_ in objects]
    volume = paint(shape, boxes)
    table = np.zeros([SLOTS, 5], np.float32)
    for i, (box, *values) in enumerate(objects):
        # A box at the place of an earlier one is a second answer about the same voxels.
        row_id = boxes.index(box) + 1
        table[i] = [row_id, *values, np.prod(np.subtract(box[3:], box[:3]))]
        volume[volume == i + 1] = row_id
    detector.model.objects.assign(table)
    return as_arrays(detector.segment(volume))


def as_arrays(found):
    return {name: value.numpy() for name, value in found.items()}


def answers(found):
    """The valid rows as a list of (box, class, score rounded)."""
    count = found["num_detections"]
    np.testing.assert_array_equal(found["valid"], np.arange(len(found["valid"])) < count)
    return [
        (tuple(found["boxes"][i].astype(int)), int(found["class_ids"][i]), round(float(found["scores"][i]), 4))
        for i in range(count)
    ]


def along(axis, lo, hi):
    """A box from lo to hi along one axis and from 1 to 5 along the others."""
    box = [1, 1, 1, 5, 5, 5]
    box[axis], box[axis + 3] = lo, hi
    return tuple(box)


def two_tiles(axis):
    """Shape of a volume of two tiles along one axis, which share the overlap, and of one along the others."""
    return tuple(2 * p - o if a == axis else p for a, (p, o) in enumerate(zip(PATCH, OVERLAP, strict=True)))


@pytest.fixture(scope="module")
def painted():
    return make_detector(PaintedBoxes())


@pytest.fixture(scope="module")
def canned():
    return make_detector(CannedAnswer())


class MergeTest:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_object_in_one_tile_only(self, painted, axis):
        boxes = [along(axis, 0, 2), along(axis, two_tiles(axis)[axis] - 2, two_tiles(axis)[axis])]
        found = find(painted, two_tiles(axis), [(boxes[0], 1, 0.5, 0.4), (boxes[1], 2, 0.75, 0.7)])
        assert answers(found) == [(boxes[1], 2, 0.75), (boxes[0], 1, 0.5)]

    @pytest.mark.parametrize("axis", [1, 2])
    def test_object_in_the_overlap_is_found_twice_and_stays_once(self, painted, axis):
        box = along(axis, PATCH[axis] - OVERLAP[axis] + 2, PATCH[axis] - 2)
        found = find(painted, two_tiles(axis), [(box, 2, 0.5, 0.4)])
        assert answers(found) == [(box, 2, 0.5)]

    def test_object_in_the_corner_of_eight_tiles_stays_once(self, painted):
        shape = tuple(2 * p - o for p, o in zip(PATCH, OVERLAP, strict=True))
        box = (4, 11, 17, 8, 15, 23)
        assert answers(find(painted, shape, [(box, 1, 0.5, 0.4)])) == [(box, 1, 0.5)]

    # The second box of each axis is cut so short that its part overlaps it too little for suppression.
    @pytest.mark.parametrize(
        ("axis", "lo", "hi"), [(0, 1, 6), (0, 0, 5), (1, 6, 13), (1, 2, 12), (2, 12, 20), (2, 5, 19)]
    )
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_whole_object_stays_and_its_better_scored_part_goes(self, painted, axis, lo, hi, mirrored):
        size = two_tiles(axis)[axis]
        box = along(axis, size - hi, size - lo) if mirrored else along(axis, lo, hi)
        found = find(painted, two_tiles(axis), [(box, 1, 0.5, 0.9)])
        assert answers(found) == [(box, 1, 0.5)]
        inside = found["labels"][tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))]
        assert (inside == 1).all()
        assert np.count_nonzero(found["labels"]) == inside.size

    def test_object_longer_than_a_tile_stays_in_parts(self, painted):
        found = find(painted, two_tiles(2), [((1, 1, 0, 5, 5, 40), 1, 0.9, 0.5)])
        assert sorted(answers(found)) == [((1, 1, 0, 5, 5, 24), 1, 0.5), ((1, 1, 16, 5, 5, 40), 1, 0.5)]

    @pytest.mark.parametrize("shape", [PATCH, two_tiles(2)])
    def test_of_two_classes_at_one_place_the_better_answers(self, painted, shape):
        box, other = (1, 2, 18, 5, 9, 22), (1, 10, 2, 5, 12, 9)
        objects = [(box, 1, 0.5, 0.5), (box, 2, 0.75, 0.75), (other, 1, 0.25, 0.25)]
        found = find(painted, shape, objects)
        assert answers(found) == [(box, 2, 0.75), (other, 1, 0.25)]
        assert np.unique(found["labels"]).tolist() == [0, 1, 2]
        # Both stay where every hypothesis is scored.
        scored = as_arrays(painted.detect(paint(shape, [box, box, other]) - paint(shape, [box])))
        assert [class_id for _, class_id, _ in answers(scored)] == [2, 1, 1]

    def test_part_of_another_class_stays(self, painted):
        # Class 2 is seen in the second tile only, which cuts the object.
        box, part = (1, 1, 5, 5, 5, 19), (1, 1, 16, 5, 5, 19)
        found = find(painted, two_tiles(2), [(box, 1, 0.5, 0.4), (box, 2, 0.0, 0.75)])
        assert answers(found) == [(part, 2, 0.75), (box, 1, 0.5)]

    @pytest.mark.parametrize(
        "shape", [(5, 7, 11), PATCH, (9, 17, 25), (10, 14, 22), (25, 35, 55), (5, 40, 24), (31, 7, 33)]
    )
    def test_odd_sizes_give_every_object_once(self, painted, shape):
        boxes = separate_boxes(np.random.default_rng(sum(shape)), shape)
        scores = np.linspace(0.5, 0.9, len(boxes)).round(4)
        # What a tile cuts scores less here: an object as long as the overlap touches the faces of all its tiles.
        objects = [(box, 1 + i % 2, scores[i], scores[i] - 0.4) for i, box in enumerate(boxes)]
        found = find(painted, shape, objects)
        assert answers(found) == [(box, kind, pytest.approx(score)) for box, kind, score, _ in objects[::-1]]
        # Row d has label d + 1; the last box has the best score.
        expected = np.where(paint(shape, boxes) > 0, len(boxes) + 1 - paint(shape, boxes), 0)[..., 0]
        np.testing.assert_array_equal(found["labels"], expected)
        assert found["labels"].dtype == np.int32

    def test_order_of_the_tiles_is_of_no_account(self, painted, monkeypatch):
        tile_starts = inference.tiles.tile_starts
        monkeypatch.setattr(inference.tiles, "tile_starts", lambda *args: tile_starts(*args)[::-1])
        backwards = make_detector(PaintedBoxes())
        shape = (25, 35, 55)
        boxes = separate_boxes(np.random.default_rng(3), shape)
        objects = [(box, 1 + i % 2, 0.5 + 0.01 * i, 0.3) for i, box in enumerate(boxes)]
        expected, found = find(painted, shape, objects), find(backwards, shape, objects)
        assert expected["num_detections"] == len(boxes)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def separate_boxes(rng, shape):
    """Up to ten boxes that do not touch each other, none longer than the tiles' overlap."""
    taken, boxes = np.zeros(shape, bool), []
    for _ in range(60):
        size = [rng.integers(1, min(limit, edge) + 1) for limit, edge in zip(OVERLAP, shape, strict=True)]
        lo = [rng.integers(edge - s + 1) for edge, s in zip(shape, size, strict=True)]
        around = tuple(slice(max(a - 1, 0), a + s + 1) for a, s in zip(lo, size, strict=True))
        if not taken[around].any() and len(boxes) < 10:
            taken[around] = True
            boxes.append((*map(int, lo), *(int(a + s) for a, s in zip(lo, size, strict=True))))
    return boxes


class MeasuringBoxes(PaintedBoxes):
    """Finds painted boxes; their attributes are class and score, their landmarks the centre and the two corners."""

    def find(self, volume):
        found = super().find(volume)
        boxes, scores = found["boxes"], found["scores"]
        lo, hi = boxes[..., :3], boxes[..., 3:]
        return {
            **found,
            "attributes": tf.stack([10.0 * tf.cast(found["class_ids"], tf.float32), scores], axis=-1),
            "keypoints": tf.stack([(lo + hi) / 2, lo, hi], axis=2),
            "keypoint_scores": tf.stack([scores, scores / 2, scores / 4], axis=2),
        }


@pytest.fixture(scope="module")
def measuring():
    return make_detector(MeasuringBoxes())


class MeasuredTest:
    def check(self, found, count):
        """Every row's attributes and landmarks are its own, and 0 in the padding."""
        boxes, scores = found["boxes"], found["scores"]
        assert found["num_detections"] == count
        assert found["attributes"].shape == (32, 2)
        assert found["keypoints"].shape == (32, 3, 3)
        np.testing.assert_allclose(found["attributes"], np.stack([10.0 * found["class_ids"], scores], axis=-1))
        lo, hi = boxes[:, :3], boxes[:, 3:]
        np.testing.assert_allclose(found["keypoints"], np.stack([(lo + hi) / 2, lo, hi], axis=1))
        np.testing.assert_allclose(found["keypoint_scores"], np.stack([scores, scores / 2, scores / 4], axis=1))
        for name in ("attributes", "keypoints", "keypoint_scores"):
            assert found[name].dtype == np.float32
            assert not found[name][count:].any(), name

    @pytest.mark.parametrize("shape", [PATCH, (25, 35, 55), (31, 7, 33)])
    def test_rows_keep_theirs_and_landmarks_move_with_their_tile(self, measuring, shape):
        boxes = separate_boxes(np.random.default_rng(sum(shape)), shape)
        scores = np.linspace(0.5, 0.9, len(boxes)).round(4)
        found = find(measuring, shape, [(box, 1 + i % 2, scores[i], 0.1) for i, box in enumerate(boxes)])
        self.check(found, len(boxes))
        volume = paint(shape, boxes)
        self.check(as_arrays(measuring.detect(volume)), len(boxes))

    def test_of_the_worse_of_two_classes_go_with_it(self, measuring):
        box, other = (1, 2, 18, 5, 9, 22), (1, 10, 2, 5, 12, 9)
        found = find(measuring, two_tiles(2), [(box, 1, 0.5, 0.5), (box, 2, 0.75, 0.75), (other, 1, 0.25, 0.25)])
        self.check(found, 2)
        assert found["attributes"][:2, 0].tolist() == [20, 10]

    def test_nothing_there(self, measuring):
        self.check(find(measuring, (5, 7, 11), []), 0)

    def test_landmarks_in_the_padding_are_clipped_as_their_box_is(self):
        detector = make_detector(CannedAnswer())
        points = np.zeros((1, SLOTS, 2, 3), np.float32)
        points[0, 0] = [(6.5, 2, 3), (4.5, 9.5, 11.5)]
        points[0, 1] = 99  # of a detection that lies wholly in the padding
        detector.model.measured = {"keypoints": tf.constant(points), "keypoint_scores": tf.ones([1, SLOTS, 2])}
        detector.model.set([(3, 1, 1, 8, 10, 12), (5, 0, 0, 8, 5, 5)], [0.9, 0.8])
        found = as_arrays(detector.segment(np.zeros((5, 7, 11, 1), np.float32)))
        assert found["num_detections"] == 1
        np.testing.assert_array_equal(found["keypoints"][0], [(5, 2, 3), (4.5, 7, 11)])
        assert not found["keypoints"][1:].any()
        np.testing.assert_array_equal(found["keypoint_scores"], np.eye(32, 1) * np.ones(2))
        assert "attributes" not in found

    def test_only_networks_with_the_heads_have_them(self, painted, measuring):
        both = {"attributes", "keypoints", "keypoint_scores"}
        for name in ("detect", "segment"):
            outputs = getattr(measuring, name).get_concrete_function().structured_outputs
            assert set(outputs) - set(getattr(painted, name).get_concrete_function().structured_outputs) == both
            assert [outputs[key].shape.as_list() for key in sorted(both)] == [[32, 2], [32, 3], [32, 3, 3]]


class SegmentTest:
    @pytest.mark.parametrize("shape", [PATCH, (5, 7, 11), (1, 1, 1), (25, 7, 55)])
    def test_nothing_there(self, painted, shape):
        found = find(painted, shape, [])
        assert found["num_detections"] == 0
        assert found["boxes"].shape == (32, 6)
        assert found["masks"].shape == (32, *MASK_SIZE)
        for name in ("boxes", "scores", "class_ids", "masks", "valid"):
            assert not found[name].any(), name
        np.testing.assert_array_equal(found["labels"], np.zeros(shape, np.int32))

    def test_detections_in_the_padding_are_dropped(self, canned):
        inside, padding = (1, 2, 3, 4, 6, 9), [(5, 0, 0, 8, 5, 5), (0, 7, 0, 5, 9, 5), (6, 8, 12, 8, 16, 24)]
        canned.model.set([padding[0], inside, *padding[1:]], [0.9, 0.8, 0.7, 0.6])
        assert answers(as_arrays(canned.segment(np.zeros((5, 7, 11, 1), np.float32)))) == [(inside, 1, 0.8)]

    def test_box_that_reaches_into_the_padding_is_clipped_and_keeps_its_mask_in_place(self, canned):
        # Mask cells along z are 2 voxels thick; their values 1 and 0, at z = 4 and 6, are 0.75 apart in 1.5 voxels.
        mask = np.broadcast_to(np.reshape([1.0, 0.0], [2, 1, 1]), MASK_SIZE)
        canned.model.set([(3, 1, 1, 7, 4, 5)], [0.9], masks=mask[np.newaxis])
        found = as_arrays(canned.segment(np.zeros((5, 7, 11, 1), np.float32)))
        assert answers(found) == [((3, 1, 1, 5, 4, 5), 1, 0.9)]
        # New cells lie at z = 3.5, beyond the first old centre, and at 4.5, a quarter of the way to the second.
        np.testing.assert_allclose(found["masks"][0, :, 0, 0], [1.0, 0.75], atol=1e-3)
        np.testing.assert_allclose(found["masks"][0], found["masks"][0, :, :1, :1] * np.ones(MASK_SIZE), atol=1e-6)
        expected = np.zeros((5, 7, 11), np.int32)
        expected[3:5, 1:4, 1:5] = 1
        np.testing.assert_array_equal(found["labels"], expected)

    def test_volume_of_exactly_a_patch_is_one_tile_whose_faces_cut_nothing(self, canned):
        boxes = [(0, 0, 0, 8, 16, 24), (1, 2, 3, 5, 10, 15)]
        rng = np.random.default_rng(0)
        masks = rng.uniform(size=(2, *MASK_SIZE)).astype(np.float32)
        canned.model.set(boxes, [0.5, 0.9], class_ids=[2, 2], masks=masks)
        found = as_arrays(canned.segment(np.zeros((*PATCH, 1), np.float32)))
        assert answers(found) == [(boxes[1], 2, 0.9), (boxes[0], 2, 0.5)]
        np.testing.assert_allclose(found["masks"][:2], masks[::-1], atol=1e-3)
        expected = mask_ops.label_volume(found["masks"], found["boxes"], found["valid"], PATCH, 0.5)
        np.testing.assert_array_equal(found["labels"], expected)

    def test_more_than_max_detections_keeps_the_best(self):
        detector = make_detector(PaintedBoxes(), max_detections=3)
        boxes = [(1, 1, x, 3, 4, x + 2) for x in range(0, 40, 4)]
        scores = [0.1, 0.8, 0.3, 0.9, 0.2, 0.5, 0.4, 0.7, 0.6, 0.15]
        found = find(detector, two_tiles(2), [(box, 1, score, 0.05) for box, score in zip(boxes, scores, strict=True)])
        assert answers(found) == [(boxes[3], 1, 0.9), (boxes[1], 1, 0.8), (boxes[7], 1, 0.7)]
        assert found["boxes"].shape == (3, 6)
        assert found["labels"].max() == 3
        assert found["is_full"]

        # Weak whole objects, as many as there is room for, do not push out a good one that no tile shows whole.
        long = (1, 1, 0, 5, 5, 40)
        weak = [((1, y, 2, 5, y + 2, 8), 1, 0.1 + 0.01 * y, 0.05) for y in (7, 10, 13)]
        found = find(detector, two_tiles(2), [(long, 1, 0.9, 0.8), *weak])
        assert [score for *_, score in answers(found)] == [0.8, 0.8, 0.23]

    def test_is_full_only_where_there_may_be_more(self):
        detector = make_detector(PaintedBoxes(), max_detections=3)
        objects = [((1, 1, x, 3, 4, x + 2), 1, 0.5 + 0.01 * x, 0.05) for x in (0, 4, 8, 12)]
        found = find(detector, PATCH, objects[:3])
        assert (found["num_detections"], found["is_full"]) == (3, False)
        found = find(detector, PATCH, objects)
        assert (found["num_detections"], found["is_full"]) == (3, True)
        # Two classes of one object take two of the three places, of which one is given up after the cut.
        (box, _, score, _), others = objects[3], objects[:2]
        found = find(detector, PATCH, [*others, objects[3], (box, 2, score - 0.01, 0.05)])
        assert (found["num_detections"], found["is_full"]) == (2, True)

    def test_is_full_where_a_part_took_the_last_place(self):
        detector = make_detector(PaintedBoxes(), max_detections=1)
        whole, other = (along(2, 5, 19), 1, 0.5, 0.9), ((1, 7, 1, 5, 9, 4), 1, 0.3, 0.05)
        found = find(detector, two_tiles(2), [whole])
        assert (answers(found), found["is_full"]) == ([(whole[0], 1, 0.5)], True)
        # The part of the first object goes after the second has found no room.
        found = find(detector, two_tiles(2), [whole, other])
        assert (answers(found), found["is_full"]) == ([(whole[0], 1, 0.5)], True)

    def test_masks_of_all_tiles_are_held_in_16_bits(self, painted):
        stacked = [
            output
            for operation in painted.detect.get_concrete_function().graph.get_operations()
            for output in operation.outputs
            if operation.type == "TensorListStack" and output.shape.rank == 5
        ]
        assert [output.dtype for output in stacked] == [tf.float16]
        assert painted.detect.get_concrete_function().structured_outputs["masks"].dtype == tf.float32

    def test_normalises_where_detect_does_not(self):
        detector = make_detector(PaintedBoxes(), normalization="minmax")
        box = (1, 2, 3, 4, 7, 10)
        detector.model.objects.assign(tf.one_hot([0] * SLOTS, 5) * 0)
        detector.model.objects[0].assign([1, 2, 0.5, 0.4, 3 * 5 * 7])
        raw = 100 + 50 * paint((5, 7, 11), [box])
        assert answers(as_arrays(detector.segment(raw))) == [(box, 2, 0.5)]
        assert int(detector.detect(raw)["num_detections"]) == 0

    def test_the_network_is_traced_once(self, canned):
        volume = np.zeros((5, 7, 11, 1), np.float32)
        canned.segment(volume)
        canned.detect(volume)
        canned.network.get_concrete_function()
        assert canned.model.num_traces == 1

    def test_wrong_channels_are_refused(self, canned):
        with pytest.raises(TypeError, match=r"\(None, None, None, 1\)"):
            canned.segment(np.zeros((5, 7, 11, 2), np.float32))
