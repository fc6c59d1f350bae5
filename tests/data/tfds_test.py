import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data import convert, records


class BuilderTest:
    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory):
        """A folder of 7 + 2 cases in several shards, its manifest and the builder that TFDS makes of it."""
        tfds = pytest.importorskip("tensorflow_datasets", reason="needs tensorflow-datasets")
        folder = tmp_path_factory.mktemp("made") / "records"
        settings = {
            "shape": (70, 60, 80),
            "count": (1, 3),
            "base_size": 9.0,
            "num_train": 7,
            "num_val": 2,
            "num_test": 0,
        }
        config = schema.Data(synthetic=schema.Synthetic(**settings), shard_megabytes=1)
        manifest = convert.convert(config, folder, progress=False)
        return folder, manifest, tfds.builder_from_directory(str(folder))

    def test_counts(self, made):
        _, manifest, builder = made
        assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 7, "val": 2}
        assert builder.info.splits["train"].shard_lengths == [s["records"] for s in manifest["shards"]["train"]]
        assert len(manifest["shards"]["train"]) > 1

    def test_examples_are_the_records(self, made):
        folder, manifest, builder = made
        for split, count in (("train", 7), ("val", 2)):
            examples = list(builder.as_dataset(split=split, shuffle_files=False))
            paths = records.shard_paths(folder, manifest, split)
            stored = [records.parse(record) for record in tf.data.TFRecordDataset(paths)]
            assert len(examples) == len(stored) == count
            for example, record in zip(examples, stored, strict=True):
                assert example["name"].numpy() == record["name"].numpy()
                dtype = example["volume_dtype"].numpy().decode()
                volume = np.frombuffer(example["volume"].numpy(), dtype).reshape(example["volume_shape"])
                np.testing.assert_array_equal(volume, record["volume"])
                for key in ("class_ids", "affine", "spacing", "instance_numbers", "case_shape"):
                    np.testing.assert_array_equal(example[key], record[key])
