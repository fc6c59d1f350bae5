import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data import convert, records
from data.readers import read_volume

REAL = pathlib.Path(__file__).parents[2] / ".." / "shared" / "data"


def read_records(folder):
    """All records of a folder, parsed."""
    paths = [str(path) for path in sorted(folder.glob("*.tfrecord"))]
    return [
        {key: value.numpy() for key, value in records.parse(record).items()}
        for record in tf.data.TFRecordDataset(paths)
    ]


class ConvertRealDataTest:
    def copied(self, tmp_path, folder, names):
        if not (REAL / folder).is_dir():
            pytest.skip(f"{REAL / folder} is absent")
        for name in names:
            target = tmp_path / "in" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REAL / folder / name, target)
        return tmp_path / "in"

    def test_hippocampus(self, tmp_path):
        names = [f"{kind}/hippocampus_{n}.nii.gz" for kind in ("images", "labels") for n in ("001", "003", "004")]
        source = self.copied(tmp_path, "msd_hippocampus", names)
        config = schema.Data(source=str(source), classes=("anterior", "posterior"), labels="semantic", min_voxels=50)
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        assert sum(manifest["num_cases"].values()) == 3
        cases = read_records(tmp_path / "out")
        for case in cases:
            labels = read_volume(source / "labels" / case["source"].decode()).array
            assert case["class_ids"].tolist() == [1, 2]
            semantic = np.concatenate([[0], case["class_ids"]])[case["instance_ids"]]
            # Pieces below min_voxels alone may be missing.
            assert (semantic[semantic > 0] == labels[semantic > 0]).all()
            assert (semantic != labels).sum() < 50
            image = read_volume(source / "images" / case["source"].decode()).array
            np.testing.assert_array_equal(case["volume"][..., 0], image.astype(np.float32))

    def test_nuclei(self, tmp_path):
        names = [f"embryo_16cell_train_{kind}.tif" for kind in ("image", "labels")]
        source = self.copied(tmp_path, "nuclei", names)
        labels = read_volume(source / "embryo_16cell_train_labels.tif").array
        sizes = np.sort(np.bincount(labels.ravel())[1:])
        sizes = sizes[sizes > 0]
        assert len(sizes) == 16
        config = schema.Data(source=str(source), classes=("nucleus",), min_voxels=int(sizes[2]))
        manifest = convert.convert(config, tmp_path / "out", progress=False)
        case = read_records(tmp_path / "out")[0]
        expected = int((sizes >= sizes[2]).sum())
        assert manifest["num_instances"]["train"] == {"nucleus": expected}
        assert manifest["dropped"] == {"below_min_voxels": 16 - expected}
        assert (np.sort(np.bincount(case["instance_ids"].ravel())[1:]) == sizes[16 - expected :]).all()
        image = read_volume(source / "embryo_16cell_train_image.tif")
        np.testing.assert_allclose(case["spacing"], image.spacing, rtol=1e-6)
        np.testing.assert_array_equal(case["volume"][..., 0], image.array.astype(np.float32))
