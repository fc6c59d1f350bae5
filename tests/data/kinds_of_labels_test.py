"""Every kind of label file on its way to records."""

import os

import numpy as np
import tensorflow as tf

from configs import schema
from data import convert, records
from data.writers import write_volume

SHAPE = (5, 7, 11)


def converted(folder, **changes):
    """The manifest, and {case: parsed record}."""
    config = schema.Data(
        source=str(folder / "in"), **{"classes": ("a", "b"), "split_fractions": (1.0, 0.0, 0.0), **changes}
    )
    schema.Config(data=config).validate()
    manifest = convert.convert(config, folder / "out", progress=False)
    found = {}
    for shard in manifest["shards"]["train"]:
        for record in tf.data.TFRecordDataset(os.path.join(folder, "out", shard["file"])):
            parsed = {key: value.numpy() for key, value in records.parse(record).items()}
            found[parsed["name"].decode()] = parsed
    return manifest, found


class BoxesTest:
    def test_boxes_become_instances(self, tmp_path):
        write_volume(tmp_path / "in" / "case_image.npz", np.ones(SHAPE, np.int16), (1, 1, 1))
        rows = "z0,y0,x0,z1,y1,x1,class,energy\n0,0,0,2,2,2,b,4\n1,1,1,2,2,2,a,\n"
        (tmp_path / "in" / "case_labels.csv").write_text(rows)
        manifest, found = converted(tmp_path, labels="boxes", attributes=("energy",))
        assert manifest["dropped"] == {"below_min_voxels": 0, "voxels hidden": 1, "attribute energy unknown": 1}
        assert "left out: 1 voxels hidden" in convert.summary(manifest).splitlines()
        assert np.bincount(found["case"]["instance_ids"].ravel()).tolist() == [377, 7, 1]
        assert found["case"]["class_ids"].tolist() == [2, 1]
        np.testing.assert_array_equal(found["case"]["attributes"], [[4], [np.nan]])


class HitsTest:
    def test_hits_become_volumes_with_showers(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "case.csv").write_text("x,y,z,energy,id,kind\n1,1,1,2.5,8,b\n1,1,11,1.5,9,a\n-1,1,1,4,9,a\n")
        hits = schema.Hits(shape=SHAPE, shower="id", shower_class="kind", channels=("energy", "count"))
        manifest, found = converted(tmp_path, labels="hits", attributes=("energy",), hits=hits)
        assert (manifest["channels"], manifest["largest_shape"]) == (2, list(SHAPE))
        assert manifest["dropped"]["hits outside the grid"] == 1
        assert "left out: 4 energy outside the grid" in convert.summary(manifest).splitlines()
        case = found["case"]
        assert case["volume"][0, 0, 0].tolist() == [2.5, 1]
        assert (case["instance_ids"][0, 0, 0], case["instance_ids"][1, 0, 0]) == (1, 2)
        np.testing.assert_array_equal(case["attributes"], [[2.5], [5.5]])
        assert case["class_ids"].tolist() == [2, 1]


class ChannelFilesTest:
    def test_become_channels(self, tmp_path):
        for channel in (0, 1):
            write_volume(tmp_path / "in" / f"case_image_{channel}.npz", np.full(SHAPE, channel, np.int16), (1, 1, 1))
        write_volume(tmp_path / "in" / "case_labels.npz", np.ones(SHAPE, np.uint8), (1, 1, 1))
        manifest, found = converted(tmp_path, labels="semantic", channel_suffixes=("_1", "_0"))
        assert manifest["channels"] == 2
        assert found["case"]["volume"][4, 6, 10].tolist() == [1, 0]

    def test_in_a_folder_for_each_case(self, tmp_path):
        for case in (3, 4):
            for name, value in (("flair", case), ("t1", 10 * case), ("lesions", 1)):
                write_volume(tmp_path / "in" / f"p{case}" / f"{name}.npz", np.full(SHAPE, value, np.uint8), (1, 1, 1))
        (tmp_path / "groups.csv").write_text("case,group,split\np3,x,train\np4,y,val\n")
        manifest, found = converted(
            tmp_path, labels="semantic", channel_suffixes=("t1", "flair"), groups=str(tmp_path / "groups.csv")
        )
        assert manifest["num_cases"] == {"train": 1, "val": 1, "test": 0}
        assert found["p3"]["volume"][4, 6, 10].tolist() == [30, 3]
        assert found["p3"]["class_ids"].tolist() == [1]


class SplitsTest:
    def test_folds_of_groups_reach_the_manifest(self, tmp_path):
        for number in range(6):
            write_volume(tmp_path / "in" / f"c{number}_image.npz", np.full(SHAPE, number, np.int16), (1, 1, 1))
            write_volume(tmp_path / "in" / f"c{number}_labels.npz", np.ones(SHAPE, np.uint8), (1, 1, 1))
        (tmp_path / "groups.csv").write_text("case,group\n" + "".join(f"c{i},g{i // 2}\n" for i in range(6)))
        manifest, found = converted(tmp_path, labels="semantic", groups=str(tmp_path / "groups.csv"), folds=3, fold=1)
        assert manifest["num_cases"] == {"train": 4, "val": 2, "test": 0}
        assert manifest["settings"] == {"labels": "semantic", "folds": 3, "fold": 1, "min_voxels": 1}
        assert sorted(int(name[1]) // 2 for name in found) in ([0, 0, 1, 1], [0, 0, 2, 2], [1, 1, 2, 2])
