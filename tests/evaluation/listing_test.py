import numpy as np
import pytest
import tensorflow as tf

from evaluation import listing, matching
from tests.tracking import cases


def rows(found, truth):
    settings = cases.config()
    match = matching.match_volume(found, truth, settings.model.detections.mask_threshold)
    table = listing.rows(found, truth, match, settings)
    return [dict(zip(listing.COLUMNS, row, strict=True)) for row in table]


class RowsTest:
    def test_worked_by_hand(self):
        first, second, third, fourth = rows(*cases.case())
        assert first == {
            "case": "case_a",
            "class": "plate",
            "score": pytest.approx(0.9),
            **dict(zip(listing.COLUMNS[3:9], (0, 0, 0, 2, 3, 4), strict=True)),
            **dict(zip(listing.COLUMNS[9:15], (0, 0, 0, 4, 3, 2), strict=True)),
            "volume_mm3": 24.0,
            "truth": 1,
            "truth_class": "plate",
            "iou": 1.0,
        }
        assert (second["truth"], second["truth_class"], second["iou"]) == (None, None, 0.0)
        # A truth is matched whatever the class, once, by the best score: of 12 voxels 8 are there.
        assert (third["class"], third["truth"], third["truth_class"]) == ("plate", 2, "rod")
        assert third["iou"] == pytest.approx(8 / 12)
        assert (fourth["truth"], fourth["truth_class"], fourth["iou"]) == (None, None, pytest.approx(0.5))
        assert [fourth[f"{name}_mm"] for name in ("z0", "y0", "x0", "z1", "y1", "x1")] == [2, 4, 3, 8, 6, 3.5]

    def test_volume_is_that_of_the_mask_not_of_the_box(self):
        found, truth = cases.case()
        masks = found["masks"].numpy()
        masks[0, 0] = 0.0  # half of the cells
        assert rows({**found, "masks": tf.constant(masks)}, truth)[0]["volume_mm3"] == 12.0

    def test_columns_are_plain_numbers_and_text(self):
        kinds = {type(value) for row in rows(*cases.case()) for value in row.values()}
        assert kinds == {str, float, int, type(None)}

    def test_nothing_found_or_nothing_there(self):
        found, truth = cases.case()
        assert rows({**found, "num_detections": 0}, truth) == []
        empty = {"instance_ids": truth["instance_ids"] * 0, "class_ids": truth["class_ids"][:0]}
        alone = rows(found, {**truth, **empty, "boxes": np.zeros((0, 6), np.float32)})
        assert [(row["truth"], row["iou"]) for row in alone] == [(None, 0.0)] * 4
