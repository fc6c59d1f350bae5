import itertools
import types

import numpy as np
import pytest

from configs import hippocampus as experiment
from evaluation.metrics import VolumeMatch
from results import hippocampus

MOSAIC, TILE = (1, 2, 1), (2, 3, 5)
CONFIG = types.SimpleNamespace(
    input=types.SimpleNamespace(mosaic=MOSAIC), data=types.SimpleNamespace(classes=("anterior", "posterior"))
)
# In its tile: along x two, two and four voxels of the first row of y.
SHORT, LONG, ELSEWHERE = (0, 0, 0, 2, 1, 2), (0, 0, 0, 2, 1, 4), (0, 2, 0, 2, 3, 5)


def mosaic(*tiles):
    """A mosaic of tiles along y, each a box of class 1 or None."""
    ids, boxes = np.zeros((2, 6, 5), np.int32), []
    for number, box in enumerate(tiles):
        if box:
            box = np.add(box, (0, 3 * number, 0) * 2)
            ids[tuple(map(slice, box[:3], box[3:]))] = len(boxes) + 1
            boxes.append(box)
    boxes = np.array(boxes, np.float32).reshape(-1, 6)
    return {"instance_ids": ids, "boxes": boxes, "class_ids": np.ones(len(boxes), np.int32)}


class AsMosaicsTest:
    def test_eight_crops_of_the_size_that_trained(self):
        config = experiment.get_config()
        crop = config.input.patch_size
        hippocampus.as_mosaics(config)
        assert config.validate().input.tile() == crop == config.input.patch_size
        assert config.input.mosaic == (2, 2, 2)
        assert config.model == experiment.get_config().model


class Trained:
    config, detector = CONFIG, "the network"

    def __init__(self):
        self.asked = []

    def truths(self, split, folder=None):
        self.asked.append((split, folder))
        if split == "train":
            return iter([mosaic(SHORT, LONG), mosaic(SHORT, None)] * 5)
        return iter([mosaic((0, 0, 0, 2, 1, 3), ELSEWHERE)])


@pytest.fixture
def seen(monkeypatch):
    """The volumes that the network was asked for."""
    volumes = []

    def evaluate(detector, truths, config):
        assert (detector, config) == ("the network", CONFIG)
        volumes.extend(truths)
        return types.SimpleNamespace(summary={"mean_mask_iou": 0.9})

    monkeypatch.setattr(hippocampus.evaluate, "evaluate", evaluate)
    return volumes


def match(mask_iou, scores, classes=None):
    iou = np.array(mask_iou, np.float32)
    ones = np.ones(iou.shape[1], np.int32)
    return VolumeMatch(iou, iou, np.array(scores), np.array(classes or [1] * len(iou)), ones)


class MeasureTest:
    def test_hand_worked_constants(self, seen):
        found = hippocampus.measure(Trained(), types.SimpleNamespace(matches=[], summary={"mean_mask_iou": None}), None)
        # The mean box is 2 2/3 long and covers three voxels, just those of the first truth; the second is elsewhere.
        assert found["constant_box_ap50"] == found["constant_box_ap75"] == found["constant_mask_ap50"] == 0.5
        assert found["constant_mean_mask_dice"] == 1.0
        assert found["constant_dice"] == 0.5
        # A third of the tiles go on past the second voxel: a mean Dice of 8/9 without, 7/9 with them.
        assert found["atlas_threshold_anterior"] == 0.35
        assert "atlas_threshold_posterior" not in found
        # Two voxels of three are found, as boxes too: IoU 2/3.
        assert (found["atlas_box_ap50"], found["atlas_box_ap75"], found["atlas_mask_ap50"]) == (0.5, 0.0, 0.5)
        assert found["atlas_mean_mask_dice"] == pytest.approx(0.8)
        assert found["atlas_dice"] == pytest.approx(0.4)

    def test_the_network_sees_a_bounded_number_of_training_mosaics(self, seen):
        found = hippocampus.measure(
            Trained(), types.SimpleNamespace(matches=[match([[0.6]], [0.3])], summary={"mean_mask_iou": 0.6}), None
        )
        assert len(seen) == hippocampus.TRAIN_MOSAICS == 8
        assert found["train_mean_mask_iou"] == 0.9
        assert found["mean_mask_dice"] == pytest.approx(0.75)

    @pytest.mark.parametrize(("unseen", "asked"), [(None, ("val", None)), ("folder", ("test", "folder"))])
    def test_constants_answer_the_measured_volumes(self, seen, unseen, asked):
        trained = Trained()
        hippocampus.measure(trained, types.SimpleNamespace(matches=[], summary={"mean_mask_iou": None}), unseen)
        assert trained.asked == [("train", None), asked, ("train", None)]


class DiceTest:
    def test_hand_table(self):
        # 0.6 is a match, 0.25 an overlap, and the third truth is missed.
        found = hippocampus.dice([match([[0.6, 0, 0], [0, 0.25, 0]], [0.9, 0.8])])
        assert found == pytest.approx({"mean_mask_dice": 0.75, "dice": (0.75 + 0.4 + 0) / 3})

    def test_a_wrong_class_is_paired_but_finds_nothing(self):
        assert hippocampus.dice([match([[1.0]], [0.5], [2])]) == {"mean_mask_dice": 1.0, "dice": 0.0}

    def test_nothing_detected_and_nothing_true(self):
        assert hippocampus.dice([match(np.zeros((0, 2)), [])]) == {"mean_mask_dice": None, "dice": 0.0}
        assert hippocampus.dice([]) == {"mean_mask_dice": None, "dice": None}


class SplitTilesTest:
    def test_tiles_come_in_the_order_of_their_places(self):
        volume = np.arange(4 * 6 * 5).reshape(4, 6, 5)
        found = hippocampus.split_tiles(volume, (2, 3, 1))
        assert found.shape == (6, 2, 2, 5)
        for tile, (z, y) in zip(found, itertools.product((0, 2), (0, 2, 4)), strict=True):
            np.testing.assert_array_equal(tile, volume[z : z + 2, y : y + 2])


class BestAtlasTest:
    def test_masks_without_a_voxel_lower_the_mean_and_choose_nothing(self):
        masks = np.zeros((4, *TILE), bool)
        masks[:2, 0, 0, 0] = True
        found, threshold = hippocampus.best_atlas(masks)
        assert np.flatnonzero(found).tolist() == [0]
        assert threshold == 0.05


class FilledTest:
    def test_holds_the_voxels_whose_centres_are_inside(self):
        found = hippocampus.filled(np.array([[0.4, 1.6, 0, 2, 3, 1.5]]), TILE)
        expected = np.zeros((1, *TILE), bool)
        expected[0, :, 2, 0] = True
        np.testing.assert_array_equal(found, expected)


class TightBoxTest:
    def test_of_a_mask_and_of_none(self):
        mask = np.zeros(TILE, bool)
        assert hippocampus.tight_box(mask).tolist() == [0] * 6
        mask[1, 0, 2:4] = True
        assert hippocampus.tight_box(mask).tolist() == [1, 0, 2, 2, 1, 4]
