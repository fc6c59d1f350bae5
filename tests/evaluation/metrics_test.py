import json

import numpy as np
import pytest

from data.errors import InputError
from evaluation.metrics import (
    VolumeMatch,
    average_precision,
    box_iou,
    greedy_match,
    mask_iou,
    matched,
    summarize,
    table,
)

CLASSES = ("ellipsoid", "cuboid", "pyramid")


class AveragePrecisionTest:
    @pytest.mark.parametrize(
        ("hits", "num_truths", "expected"),
        [
            ([1], 1, 1.0),
            ([0], 1, 0.0),
            ([1], 2, 1 / 2),
            ([0, 1], 1, 1 / 2),
            ([1, 0], 1, 1.0),
            # Precision 1, 1/2, 2/3, 1/2, 3/5 at recall 1/4, 1/4, 2/4, 2/4, 3/4; envelope 1, 2/3, 3/5.
            ([1, 0, 1, 0, 1], 4, (1 + 2 / 3 + 3 / 5) / 4),
            # Precision 0, 1/2, 2/3, 3/4: the envelope lifts every hit to 3/4.
            ([0, 1, 1, 1], 3, 3 / 4),
            # Precision 1, 1/2, 1/3, 2/4: the second hit stands at 1/2.
            ([1, 0, 0, 1], 2, (1 + 1 / 2) / 2),
            ([0, 0, 0], 5, 0.0),
            ([], 3, 0.0),
        ],
    )
    def test_hand_table(self, hits, num_truths, expected):
        scores = np.linspace(0.9, 0.1, len(hits))
        assert average_precision(scores, np.array(hits, bool), num_truths) == pytest.approx(expected)

    def test_scores_need_no_order(self):
        assert average_precision(np.array([0.2, 0.9, 0.5]), np.array([True, False, True]), 2) == pytest.approx(2 / 3)

    def test_equal_scores_keep_their_order(self):
        scores = np.full(40, 0.5)
        hits = np.arange(40) == 39
        assert average_precision(scores, hits, 1) == pytest.approx(1 / 40)
        assert average_precision(scores, hits[::-1], 1) == 1.0

    def test_is_undefined_without_truths(self):
        assert average_precision(np.array([0.5]), np.array([False]), 0) is None

    @pytest.mark.parametrize("seed", range(20))
    def test_agrees_with_the_definition(self, seed):
        rng = np.random.default_rng(seed)
        scores, hits = rng.random(30).round(1), rng.random(30) < 0.4
        num_truths = int(hits.sum()) + seed % 3
        assert average_precision(scores, hits, num_truths) == pytest.approx(_slow_ap(scores, hits, num_truths))


class GreedyMatchTest:
    def test_best_score_chooses_first(self):
        iou = np.array([[0.6, 0.0], [0.9, 0.7]], np.float32)
        assert greedy_match(iou, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]
        assert greedy_match(iou, np.array([0.8, 0.9]), 0.5).tolist() == [-1, 0]

    def test_a_truth_is_given_once(self):
        iou = np.array([[0.8], [0.9]], np.float32)
        assert greedy_match(iou, np.array([0.9, 0.8]), 0.5).tolist() == [0, -1]

    def test_equal_scores_go_in_order_and_equal_overlaps_to_the_first_truth(self):
        iou = np.full((3, 2), 0.75, np.float32)
        assert greedy_match(iou, np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0, 1, -1]

    @pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75])
    def test_overlap_at_the_threshold_matches(self, threshold):
        at = np.array([[threshold]], np.float32)
        assert greedy_match(at, np.array([0.5]), threshold).tolist() == [0]
        assert greedy_match(at, np.array([0.5]), np.float64(threshold)).tolist() == [0]
        assert greedy_match(np.nextafter(at, np.float32(0)), np.array([0.5]), threshold).tolist() == [-1]

    def test_input_is_left_alone(self):
        iou = np.array([[0.8]], np.float32)
        greedy_match(iou, np.array([0.9]), 0.5)
        assert iou.tolist() == [[np.float32(0.8)]]

    @pytest.mark.parametrize(("num_detections", "num_truths"), [(0, 3), (2, 0), (0, 0)])
    def test_nothing_to_match(self, num_detections, num_truths):
        iou = np.zeros((num_detections, num_truths), np.float32)
        assert greedy_match(iou, np.ones(num_detections), 0.5).tolist() == [-1] * num_detections


class MatchedTest:
    def test_pairs_at_half_overlap_whatever_the_class(self):
        volume = _volume([[0.1, 0.5], [0.9, 0.6], [0.49, 0.8]], [0.7, 0.8, 0.6], [1, 1, 1], [2, 3])
        detections, truths = matched(volume)
        assert (detections.tolist(), truths.tolist()) == ([0, 1], [1, 0])

    def test_nothing_to_match(self):
        detections, truths = matched(_volume(np.zeros((0, 2)), [], [], [1, 2]))
        assert (detections.tolist(), truths.tolist()) == ([], [])


class SummarizeTest:
    def test_hand_worked_volumes(self):
        # Volume 1: truths ellipsoid, cuboid. Volume 2: truth ellipsoid. Ranking over both at 0.5:
        # .9 ellipsoid hit, .8 cuboid hit, .7 cuboid on the ellipsoid of volume 2: false, .6 ellipsoid hit.
        first = _volume([[0.8, 0.0], [0.1, 0.6]], [0.9, 0.8], [1, 2], [1, 2])
        second = _volume([[0.9], [0.55]], [0.7, 0.6], [2, 1], [1])
        result = summarize([first, second], CLASSES, thresholds=(0.5, 0.75))
        at_half = result["box_ap"]["0.50"]
        assert at_half["pooled"] == pytest.approx((1 + 1 + 3 / 4) / 3)
        assert at_half["ellipsoid"] == pytest.approx(1.0)
        assert at_half["cuboid"] == pytest.approx(1.0)
        assert at_half["pyramid"] is None
        assert at_half["mean"] == pytest.approx(1.0)
        # At 0.75 only the first detection (0.8) still hits.
        assert result["box_ap"]["0.75"]["pooled"] == pytest.approx(1 / 3)
        assert result["box_ap"]["0.75"]["ellipsoid"] == pytest.approx(1 / 2)
        assert result["box_ap"]["0.75"]["cuboid"] == 0.0
        assert result["box_ap"]["0.75"]["mean"] == pytest.approx(1 / 4)
        assert (result["num_volumes"], result["num_truths"], result["num_detections"]) == (2, 3, 4)
        # Per volume, pooled: volume 1 is perfect; volume 2 has a false positive before its hit.
        assert result["mask_ap50_per_image"] == pytest.approx((1 + 1 / 2) / 2)
        # Whatever the class: 0.8, 0.6 and the cuboid on the ellipsoid at 0.9, which takes it first.
        assert result["num_matched"] == 3
        assert result["mean_mask_iou"] == pytest.approx((0.8 + 0.6 + 0.9) / 3)
        assert result["class_accuracy"] == pytest.approx(2 / 3)

    def test_boxes_and_masks_are_scored_apart(self):
        volume = VolumeMatch(
            box_iou=np.array([[0.9]], np.float32),
            mask_iou=np.array([[0.3]], np.float32),
            scores=np.array([0.5]),
            class_ids=np.array([1]),
            gt_class_ids=np.array([1]),
        )
        result = summarize([volume], CLASSES)
        assert [row["pooled"] for row in result["box_ap"].values()] == [1.0] * 8
        assert [row["pooled"] for row in result["mask_ap"].values()] == [1.0] * 3 + [0.0] * 5
        assert list(result["mask_ap"]) == ["0.10", "0.20", "0.30", "0.40", "0.50", "0.60", "0.70", "0.75"]

    def test_a_wrong_class_is_a_false_positive_and_leaves_the_truth_free(self):
        volume = _volume([[0.9], [0.6]], [0.9, 0.8], [3, 1], [1])
        row = summarize([volume], CLASSES)["box_ap"]["0.50"]
        assert (row["pooled"], row["ellipsoid"]) == (pytest.approx(1 / 2), 1.0)

    def test_a_class_with_detections_but_no_truths_is_left_out_of_the_mean(self):
        volume = _volume([[0.9], [0.0]], [0.9, 0.8], [1, 2], [1])
        row = summarize([volume], CLASSES)["box_ap"]["0.50"]
        assert (row["cuboid"], row["mean"], row["pooled"]) == (None, 1.0, 1.0)

    def test_a_detection_finds_only_truths_of_its_own_volume(self):
        found = _volume([[0.9]], [0.5], [1], [1])
        missed = _volume(np.zeros((0, 1)), [], [], [1])
        extra = _volume(np.zeros((1, 0)), [0.9], [1], [])
        result = summarize([extra, missed, found], CLASSES)
        # The false positive of the empty volume ranks first: precision 1/2 at recall 1/2.
        assert result["box_ap"]["0.50"]["pooled"] == pytest.approx(1 / 4)
        # The volume without truths has no AP of its own.
        assert result["mask_ap50_per_image"] == pytest.approx((0 + 1) / 2)

    def test_ties_between_volumes_keep_the_order_of_the_volumes(self):
        hit = _volume([[0.9]], [0.5], [1], [1])
        false_positive = _volume(np.zeros((1, 0)), [0.5], [1], [])
        assert summarize([hit, false_positive], CLASSES)["box_ap"]["0.50"]["pooled"] == 1.0
        assert summarize([false_positive, hit], CLASSES)["box_ap"]["0.50"]["pooled"] == 0.5

    def test_no_volumes(self):
        result = summarize([], CLASSES, thresholds=(0.5,))
        nothing = {"pooled": None, "mean": None, "ellipsoid": None, "cuboid": None, "pyramid": None}
        assert result == {
            "num_volumes": 0,
            "num_truths": 0,
            "num_detections": 0,
            "box_ap": {"0.50": nothing},
            "mask_ap": {"0.50": nothing},
            "mask_ap50_per_image": None,
            "num_matched": 0,
            "mean_mask_iou": None,
            "class_accuracy": None,
        }

    def test_no_truths(self):
        result = summarize([_volume(np.zeros((2, 0)), [0.9, 0.8], [1, 2], [])], CLASSES)
        assert set(result["box_ap"]["0.50"].values()) == {None}
        assert (result["mask_ap50_per_image"], result["mean_mask_iou"], result["num_detections"]) == (None, None, 2)

    def test_no_detections(self):
        result = summarize([_volume(np.zeros((0, 2)), [], [], [1, 3])], CLASSES)
        assert result["mask_ap"]["0.50"] == {
            "pooled": 0.0,
            "mean": 0.0,
            "ellipsoid": 0.0,
            "cuboid": None,
            "pyramid": 0.0,
        }
        assert (result["mask_ap50_per_image"], result["num_matched"], result["class_accuracy"]) == (0.0, 0, None)

    def test_result_is_plain_json(self):
        result = summarize([_random_volume(np.random.default_rng(0))], CLASSES)
        assert json.loads(json.dumps(result, allow_nan=False)) == result

    @pytest.mark.parametrize("seed", range(8))
    def test_agrees_with_the_definition(self, seed):
        rng = np.random.default_rng(seed)
        volumes = [_random_volume(rng) for _ in range(6)]
        result = summarize(volumes, CLASSES)
        for key, attribute in (("box_ap", "box_iou"), ("mask_ap", "mask_iou")):
            for column, row in result[key].items():
                expected = _slow_row(volumes, attribute, float(column))
                assert row == {k: v if v is None else pytest.approx(v) for k, v in expected.items()}
        own = [_slow_row([v], "mask_iou", 0.5)["pooled"] for v in volumes if len(v.gt_class_ids)]
        assert result["mask_ap50_per_image"] == pytest.approx(sum(own) / len(own))

    @pytest.mark.parametrize("name", ["pooled", "mean"])
    def test_class_names_of_the_table_are_refused(self, name):
        with pytest.raises(InputError, match=f"no class may be called '{name}'"):
            summarize([], ("ellipsoid", name))

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5])
    def test_thresholds_outside_the_unit_interval_are_refused(self, threshold):
        with pytest.raises(ValueError, match=r"IoU thresholds must be in \(0, 1\], got"):
            summarize([], CLASSES, thresholds=(threshold,))

    def test_a_threshold_given_twice_is_refused(self):
        with pytest.raises(ValueError, match=r"must differ at two decimals, got \(0.5, 0.501\)"):
            summarize([], CLASSES, thresholds=(0.5, 0.501))

    @pytest.mark.parametrize(
        ("class_id", "gt_class_id", "words"),
        [(4, 1, r"class_ids must be 1..3, got \[4\]"), (1, 0, r"gt_class_ids must be 1..3, got \[0\]")],
    )
    def test_unknown_class_ids_are_refused(self, class_id, gt_class_id, words):
        with pytest.raises(ValueError, match=words):
            summarize([_volume([[0.5]], [0.5], [class_id], [gt_class_id])], CLASSES)


class VolumeMatchTest:
    def test_overlaps_must_have_a_row_per_detection_and_a_column_per_truth(self):
        with pytest.raises(ValueError, match=r"box_iou must be \[detections, truths\] = \(2, 1\), got \(1, 2\)"):
            _volume([[0.1, 0.2]], [0.5, 0.4], [1, 1], [1])

    def test_every_detection_must_have_a_class(self):
        with pytest.raises(ValueError, match=r"class_ids must be one per score \(1\), got 2"):
            _volume([[0.1]], [0.5], [1, 1], [1])

    def test_scores_must_be_finite(self):
        with pytest.raises(ValueError, match="scores must be finite, got"):
            _volume([[0.1]], [np.nan], [1], [1])


class BoxIouTest:
    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ([0, 0, 0, 2, 2, 2], 1.0),
            ([1, 1, 1, 3, 3, 3], 1 / 15),
            ([2, 0, 0, 4, 2, 2], 0.0),
            ([0, 0, 0, 1, 2, 2], 1 / 2),
            ([1, 1, 1, 1, 2, 2], 0.0),
            ([2, 2, 2, 0, 0, 0], 0.0),
            ([5, 5, 5, 7, 7, 7], 0.0),
        ],
    )
    def test_hand_table(self, box, expected):
        result = box_iou(np.array([[0, 0, 0, 2, 2, 2]]), np.array([box]))
        assert result.dtype == np.float32
        assert result == pytest.approx(expected)

    def test_rows_are_the_first_argument(self):
        a = np.array([[0, 0, 0, 2, 3, 5], [1, 1, 1, 3, 4, 6], [9, 9, 9, 10, 10, 10]], np.float32)
        result = box_iou(a, a[:2])
        assert result.shape == (3, 2)
        np.testing.assert_allclose(result, [[1, 8 / 52], [8 / 52, 1], [0, 0]], rtol=1e-6)

    @pytest.mark.parametrize(("num_a", "num_b"), [(0, 0), (0, 3), (2, 0)])
    def test_no_boxes(self, num_a, num_b):
        assert box_iou(np.zeros((num_a, 6)), np.zeros((num_b, 6))).shape == (num_a, num_b)


class MaskIouTest:
    def test_hand_worked_crops(self):
        ids = np.zeros((5, 7, 11), np.int32)
        ids[1:3, 2:4, 4:8] = 1  # 16 voxels
        ids[4, 6, 10] = 2
        masks = [
            ((1, 2, 4), np.ones((2, 2, 4), bool)),
            ((1, 2, 6), np.ones((2, 2, 4), bool)),  # half of truth 1, half outside
            ((4, 6, 10), np.ones((1, 1, 1), bool)),
            ((0, 0, 0), np.zeros((5, 7, 11), bool)),
        ]
        result = mask_iou(masks, ids, 2)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, [[1, 0], [8 / 24, 0], [0, 1], [0, 0]], rtol=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_whole_volume_masks(self, seed):
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, 5, (5, 7, 11)).astype(np.int32)
        masks = [((1, 0, 3), rng.random((3, 5, 6)) < 0.5), ((2, 3, 0), rng.random((3, 4, 11)) < 0.5)]
        result = mask_iou(masks, ids, 4)
        for row, (lo, crop) in zip(result, masks, strict=True):
            whole = np.zeros(ids.shape, bool)
            whole[tuple(slice(a, a + n) for a, n in zip(lo, crop.shape, strict=True))] = crop
            for truth in range(4):
                expected = (whole & (ids == truth + 1)).sum() / (whole | (ids == truth + 1)).sum()
                assert row[truth] == pytest.approx(expected)

    def test_other_ids_are_background(self):
        ids = np.array([[[-1, 0, 1, 2, 9]]], np.int32)
        np.testing.assert_allclose(mask_iou([((0, 0, 0), np.ones((1, 1, 5), bool))], ids, 2), [[0.2, 0.2]], rtol=1e-6)

    def test_an_absent_truth_has_no_overlap(self):
        ids = np.zeros((5, 7, 11), np.int32)
        assert mask_iou([((0, 0, 0), np.ones((1, 2, 3), bool))], ids, 1).tolist() == [[0.0]]

    @pytest.mark.parametrize(("num_masks", "num_truths"), [(0, 0), (0, 3), (2, 0)])
    def test_no_masks_or_truths(self, num_masks, num_truths):
        masks = [((0, 0, 0), np.ones((1, 2, 3), bool))] * num_masks
        assert mask_iou(masks, np.zeros((5, 7, 11), np.int32), num_truths).shape == (num_masks, num_truths)

    @pytest.mark.parametrize("lo", [(-1, 0, 0), (0, 0, 9)])
    def test_a_crop_outside_the_volume_is_refused(self, lo):
        with pytest.raises(ValueError, match=r"must lie inside the volume \(5, 7, 11\), got \["):
            mask_iou([(lo, np.ones((1, 2, 3), bool))], np.zeros((5, 7, 11), np.int32), 1)


class TableTest:
    def test_shows_every_class_and_threshold(self):
        volume = _volume([[0.8, 0.0], [0.1, 0.6]], [0.9, 0.8], [1, 2], [1, 2])
        lines = table(summarize([volume], CLASSES, thresholds=(0.5, 0.75))).splitlines()
        assert lines == [
            "1 volumes, 2 truths, 2 detections",
            "",
            "box AP at IoU    0.50   0.75",
            "pooled          1.000  0.500",
            "mean            1.000  0.500",
            "ellipsoid       1.000  1.000",
            "cuboid          1.000  0.000",
            "pyramid             -      -",
            "",
            "mask AP at IoU   0.50   0.75",
            "pooled          1.000  0.500",
            "mean            1.000  0.500",
            "ellipsoid       1.000  1.000",
            "cuboid          1.000  0.000",
            "pyramid             -      -",
            "",
            "mask AP50 per image 1.000",
            "matched at mask IoU 0.5: 2, mean mask IoU 0.700, class accuracy 1.000",
        ]

    def test_nothing_at_all(self):
        text = table(summarize([], CLASSES, thresholds=(0.5,)))
        assert "0 volumes, 0 truths, 0 detections" in text
        assert "class accuracy -" in text


def _volume(iou, scores, class_ids, gt_class_ids):
    """A volume whose boxes and masks overlap alike."""
    iou = np.array(iou, np.float32)
    return VolumeMatch(iou, iou, np.array(scores), np.array(class_ids, int), np.array(gt_class_ids, int))


def _random_volume(rng):
    num_detections, num_truths = rng.integers(0, 12), rng.integers(0, 6)
    return VolumeMatch(
        box_iou=rng.random((num_detections, num_truths)).astype(np.float32),
        mask_iou=rng.random((num_detections, num_truths)).astype(np.float32),
        scores=rng.random(num_detections).round(1),  # many ties
        class_ids=rng.integers(1, 3, num_detections),  # no pyramids
        gt_class_ids=rng.integers(1, 3, num_truths),
    )


def _slow_row(volumes, attribute, threshold):
    """AP per class and pooled, from the definition: one detection after the other."""
    detections = []
    for v, volume in enumerate(volumes):
        for d in range(len(volume.scores)):
            detections.append((volume.scores[d], v, d))
    detections.sort(key=lambda item: -item[0])  # Python sorts stably
    taken = set()
    hits = {}
    for _, v, d in detections:
        volume = volumes[v]
        best, best_iou = None, threshold
        for g in range(len(volume.gt_class_ids)):
            iou = float(getattr(volume, attribute)[d, g])
            allowed = volume.class_ids[d] == volume.gt_class_ids[g] and (v, g) not in taken
            if allowed and (iou > best_iou or (best is None and iou >= threshold)):
                best, best_iou = g, iou
        hits[v, d] = best is not None
        taken.add((v, best))
    truth_classes = [k for volume in volumes for k in volume.gt_class_ids]
    row = {}
    for k, name in enumerate(CLASSES, start=1):
        chosen = [(s, hits[v, d]) for s, v, d in detections if volumes[v].class_ids[d] == k]
        row[name] = _slow_ap([s for s, _ in chosen], [h for _, h in chosen], truth_classes.count(k))
    present = [ap for ap in row.values() if ap is not None]
    row["mean"] = sum(present) / len(present) if present else None
    row["pooled"] = _slow_ap([s for s, _, _ in detections], [hits[v, d] for _, v, d in detections], len(truth_classes))
    return row


def _slow_ap(scores, hits, num_truths):
    """Sum over the recall levels 1/n, 2/n, ... of the best precision at that recall or more."""
    if num_truths == 0:
        return None
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    points, found = [], 0
    for rank, i in enumerate(order, start=1):
        found += bool(hits[i])
        points.append((found, found / rank))
    levels = range(1, num_truths + 1)
    return sum(max((p for found, p in points if found >= level), default=0.0) for level in levels) / num_truths
