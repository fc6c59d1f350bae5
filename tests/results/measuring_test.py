import json

import numpy as np
import pytest

from configs import schema
from data import convert, instance_table
from data.writers import write_volume
from results import measuring, tasks
from tests import tiny


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Records of two plates and a rod in split test; the other splits hold a case each."""
    folder = tmp_path_factory.mktemp("unseen")
    split = {"train": ["a"], "val": ["b"], "test": ["c", "d"]}
    for name in ("a", "b", "c", "d"):
        ids = np.zeros((9, 20, 31), np.uint8)
        ids[2:5, 3:9, 4:13] = 1
        if name == "c":
            ids[6:8, 12:18, 20:25] = 2
        write_volume(folder / "files" / "images" / f"{name}.nii.gz", ids.astype(np.float32), (2.0, 1.0, 1.0))
        write_volume(folder / "files" / "labels" / f"{name}.nii.gz", ids, (2.0, 1.0, 1.0))
        instance_table.write(folder / "files" / "labels" / f"{name}.json", tiny.CLASSES[: ids.max()])
    (folder / "files" / "split.json").write_text(json.dumps(split))
    data = schema.Data(source=str(folder / "files"), classes=tiny.CLASSES)
    convert.convert(data, folder / "records", progress=False)
    return folder / "records"


class MeasureTest:
    def test_scores_the_split_test_of_unseen_records_and_draws_one(self, untrained_run, unseen, tmp_path):
        task = tasks.Task("Things", {}, ())
        found = measuring.measure(task, untrained_run, unseen, tmp_path / "picture.png")
        assert (found["num_volumes"], found["num_truths"]) == (2, 3)
        assert found["mask_ap50"] == 0.0  # of a network as it was initialised
        assert {"box_ap75", "class_accuracy", "mean_mask_iou", "mask_ap50_rod"} <= found.keys()
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

    def test_a_task_may_serve_other_volumes_than_it_trained_on(self, untrained_run, unseen):
        def as_mosaics(config):
            config.input.mosaic, config.input.tile_size = (1, 2, 1), (9, 20, 31)

        trained = measuring.load(untrained_run, as_mosaics)
        (mosaic,) = trained.truths("val", unseen)
        assert mosaic["instance_ids"].shape == (9, 40, 31)
        task = tasks.Task("Things", {}, (), served=as_mosaics)
        assert measuring.measure(task, untrained_run, unseen)["num_volumes"] == 1

    def test_what_is_served_has_to_be_valid(self, untrained_run):
        def broken(config):
            config.input.mosaic = (0, 1, 1)

        with pytest.raises(ValueError, match=r"config input\.mosaic"):
            measuring.load(untrained_run, broken)

    def test_truths_of_any_split_are_at_hand(self, untrained_run, unseen):
        trained = measuring.load(untrained_run)
        assert trained.config.name == "tiny"
        assert [str(truth["name"]) for truth in trained.truths("val", unseen)] == ["b"]
        assert trained.evaluate("train", unseen).summary["num_truths"] == 1
