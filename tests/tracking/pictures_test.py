import numpy as np
import pytest
import tensorflow as tf

from evaluation import report
from model import targets
from tests import tiny
from tests.model import networks
from tracking import pictures, pixels
from training import restore


@pytest.fixture(name="settings", scope="module")
def fixture_settings():
    return tiny.config()


@pytest.fixture(name="batch")
def fixture_batch(settings):
    """Two truths in the first volume: a plate in slot 0, a rod, which is larger, in slot 2."""
    ids = np.zeros((1, 8, 16, 24), np.int32)
    ids[0, 0:2, 2:8, 3:12] = 1
    ids[0, 1:7, 10:14, 6:16] = 3
    class_ids = np.array([[1, 0, 2, 0, 0]], np.int32)
    return tiny.truth(ids[..., np.newaxis].astype(np.float32), ids, class_ids)


@pytest.fixture(name="scene")
def fixture_scene(batch, settings):
    return pictures.Scene(batch, settings)


@pytest.fixture(name="rows")
def fixture_rows(monkeypatch):
    """What is drawn instead of being drawn: [(rows, point, title)]."""
    drawn = []
    monkeypatch.setattr(
        report, "rows_figure", lambda volume, rows, point, spacing, title: drawn.append((rows, point.tolist(), title))
    )
    return drawn


def shown(row):
    """[(box, what the colour stands for)] of a row; truths have the colours of their slots."""
    palette = {tuple(c): name for c, name in zip(report.detection_colours(5)[1:], range(5), strict=True)}
    palette[(1.0, 1.0, 1.0)] = "none"
    colours = row.colours[1 : len(row.boxes) + 1]
    return [(box.tolist(), palette[tuple(colour)]) for box, colour in zip(row.boxes, colours, strict=True)]


PLATE, ROD = [0, 2, 3, 2, 8, 12], [1, 10, 6, 7, 14, 16]


class SceneTest:
    def test_slices_go_through_the_largest_truth(self, scene, rows):
        scene.truth()
        (((row,), point, title),) = rows
        assert point == [4, 12, 11]
        assert title == "2 truths"
        assert shown(row) == [(PLATE, 0), (ROD, 2)]
        assert row.names == ["plate", "rod"]

    def test_masks_have_the_colours_of_their_boxes(self, scene, rows):
        scene.truth()
        (((row,), _, _),) = rows
        np.testing.assert_array_equal(row.colours[row.ids[0, 4, 5]], row.colours[1])
        np.testing.assert_array_equal(row.colours[row.ids[4, 12, 11]], row.colours[2])
        assert row.ids[7, 0, 0] == 0

    def test_a_volume_without_truths_is_cut_in_the_middle(self, batch, settings, rows):
        nothing = {name: np.zeros_like(value) for name, value in batch.items()}
        pictures.Scene(nothing, settings).truth()
        (((row,), point, title),) = rows
        assert (point, title, shown(row)) == ([4, 8, 12], "0 truths", [])

    def test_anchors(self, scene, rows, monkeypatch):
        anchors = np.array(
            [
                [1, 10, 6, 7, 14, 15],  # positive, of the rod
                [1, 10, 8, 7, 14, 16],  # positive, of the rod, further off
                [0, 2, 3, 2, 8, 12.5],  # positive, of the plate
                [0, 0, 0, 2, 2, 2],  # positive, but no slice goes through it
                [3, 9, 9, 6, 15, 13],  # negative
                [3, 9, 0, 6, 15, 5],  # negative of a higher score
                [2, 10, 6, 7, 13, 16],  # ignored, near the rod
                [3, 0, 0, 6, 3, 3],  # ignored
            ],
            np.float32,
        )
        matched = np.float32([ROD, ROD, PLATE, PLATE, ROD, ROD, ROD, PLATE])
        number = np.arange(8)
        drawn = targets.AnchorTargets(
            positive=tf.constant([number < 4]),
            negative=tf.constant([(number >= 4) & (number < 6)]),
            deltas=tf.zeros([1, 8, 6]),
            matched_boxes=tf.constant([matched]),
        )
        scores = np.float32([0, 0, 0, 0, 0.25, 0.5, 0, 0])
        scene.anchors(anchors, drawn, scores)
        positive, negative, ignored = rows[0][0]
        boxes = anchors.tolist()
        assert rows[0][2] == "4 positive, 2 negative, 2 ignored anchors; at most 12 of each are shown"
        # The nearest of every truth before the second ones.
        assert sorted(shown(positive)[:2]) == sorted([(boxes[0], 2), (boxes[2], 0)])
        assert shown(positive)[2:] == [(boxes[1], 2)]
        assert shown(negative) == [(boxes[5], "none"), (boxes[4], "none")]
        assert shown(ignored) == [(boxes[6], "none"), (boxes[7], "none")]
        monkeypatch.setattr(pictures, "MOST_BOXES", 1)
        scene.anchors(anchors, drawn, scores)
        assert [len(row.boxes) for row in rows[1][0]] == [1, 1, 1]

    def test_proposals(self, scene, rows):
        boxes = np.float32([PLATE, [0, 2, 5, 2, 8, 12], ROD, [4, 0, 0, 6, 6, 6], [0] * 6])
        scores, valid = np.float32([0.5, 0.75, 0.25, 0.625, 0.0]), np.arange(5) < 4
        scene.proposals(boxes, scores, valid)
        (((row,), _, title),) = rows
        assert title == "4 proposals, 3 of them near enough to a truth (in its colour)"
        assert shown(row) == [
            (boxes[1].tolist(), 0),
            (boxes[3].tolist(), "none"),
            (PLATE, 0),
            (ROD, 2),
        ]
        assert row.names == ["0.75", "0.62", "0.50", "0.25"]

    def test_rois(self, scene, rows):
        boxes = np.float32([[1, 10, 6, 4, 14, 16], PLATE, [4, 0, 0, 6, 6, 6], [0] * 6])
        drawn = targets.RoiTargets(
            boxes=tf.constant([boxes]),
            class_ids=tf.constant([[2, 1, 0, 0]]),
            slots=tf.constant([[2, 0, -1, -1]]),
            deltas=tf.zeros([1, 4, 6]),
            valid=tf.constant([[True, True, True, False]]),
            matched_boxes=tf.constant([np.float32([ROD, PLATE, PLATE, PLATE])]),
        )
        scene.rois(drawn)
        ((objects, background), _, title) = rows[0]
        assert title == "2 rois of objects, 1 of background; at most 12 of each are shown"
        assert shown(objects) == [(boxes[0].tolist(), 2), (PLATE, 0)]
        assert objects.names == ["rod 0.50", "plate 1.00"]
        assert shown(background) == [(boxes[2].tolist(), "none")]
        assert background.names == []

    def test_detections_above_the_truth(self, scene):
        found = {
            "boxes": tf.constant(np.float32([ROD, PLATE, [0] * 6])),
            "scores": tf.constant([0.9, 0.05, 0.0]),
            "class_ids": tf.constant([2, 1, 0]),
            "masks": tf.ones([3, 2, 2, 2]),
            "valid": tf.constant([True, True, False]),
        }
        figure = scene.detections(found)
        texts = [text.get_text() for text in figure.texts]
        assert texts == ["detected", "truth (white: missed)", "1 detections of score >= 0.1, 2 truths"]
        names = {text.get_text() for panel in figure.axes for text in panel.texts}
        assert names == {"rod 0.90"}
        assert [panel.get_title(loc="left") for panel in figure.axes[:3]] == [
            "z = 4 of 8",
            "y = 12 of 16",
            "x = 11 of 24",
        ]


class OfBatchTest:
    @pytest.mark.parametrize(
        "overrides",
        [{"model.style.norm": "batch"}, {**networks.EVERY_HEAD, "model.rpn.objectness": "softmax"}],
    )
    def test_pictures_of_any_network_which_stays_as_it_was(self, overrides):
        settings = networks.config(overrides)
        model = restore.make_model(settings)
        before = model.get_weights()
        found = pictures.of_batch(model, networks.batch(settings), tf.constant([[1, 2], [3, 4]]), settings)
        assert list(found) == ["truth", "anchors", "proposals", "rois", "detections"]
        for name, figure in found.items():
            assert pixels.of(figure).std() > 10, name
        assert found["truth"].texts[-1].get_text() == "3 truths"
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_anchors_are_those_that_train(self, settings, rows):
        model, batch, seed = restore.make_model(settings), networks.batch(settings), tf.constant([[1, 2], [3, 4]])
        drawn = []
        original = targets.anchor_targets

        def spy(*args, **kwargs):
            drawn.append(original(*args, **kwargs))
            return drawn[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(targets, "anchor_targets", spy)
            model.compute_losses(batch, seed)
            pictures.of_batch(model, batch, seed, settings)
        trained, pictured = drawn
        np.testing.assert_array_equal(trained.positive, pictured.positive)
        np.testing.assert_array_equal(trained.negative, pictured.negative)
        assert trained.positive.numpy().any()
