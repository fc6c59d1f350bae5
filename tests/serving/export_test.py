import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from configs import schema
from data.errors import InputError
from serving import export, inference
from tests import measuring, tiny

# One smaller than a patch along two axes, one of several tiles along each.
SHAPES = [(7, 21, 19), (11, 25, 37)]
OUTPUTS = {"boxes", "scores", "class_ids", "masks", "valid", "num_detections"}
ASK = """
import sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
for i, path in enumerate(sys.argv[2:]):
    found = model.signatures["serving_default"](volume=tf.constant(np.load(path)))
    np.savez(f"found_{i}.npz", **{name: value.numpy() for name, value in found.items()})
print(sorted({"configs", "data", "evaluation", "model", "ops", "serving", "training"} & set(sys.modules)))
"""


def volume(shape):
    return np.random.default_rng(sum(shape)).normal(300, 50, (*shape, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def loaded(saved_model):
    return tf.saved_model.load(str(saved_model[0]))


class ExportTest:
    def test_a_process_without_project_code_gives_the_same_answers(self, saved_model, tmp_path):
        folder, model = saved_model
        paths = [tmp_path / f"{i}.npy" for i in range(len(SHAPES))]
        for path, shape in zip(paths, SHAPES, strict=True):
            np.save(path, volume(shape))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(folder), *map(str, paths)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "[]"
        detector = inference.VolumeDetector(model, tiny.config())
        for i, shape in enumerate(SHAPES):
            expected, found = detector.segment(volume(shape)), np.load(tmp_path / f"found_{i}.npz")
            assert set(found) == {*OUTPUTS, "is_full", "labels"}
            assert found["num_detections"] > 0
            assert found["labels"].shape == shape
            for name, value in expected.items():
                # Masks were held in 16 bits, in which neighbours are 0.0005 apart.
                np.testing.assert_allclose(found[name], value, atol=1e-3 if name == "masks" else 1e-5, err_msg=name)

    def test_signature_for_volumes(self, loaded):
        segment = loaded.signatures["serving_default"]
        assert segment.structured_input_signature == (
            (),
            {"volume": tf.TensorSpec([None, None, None, 1], tf.float32, name="volume")},
        )
        specs = {name: (spec.shape.as_list(), spec.dtype) for name, spec in segment.structured_outputs.items()}
        assert specs == {
            "boxes": ([128, 6], tf.float32),
            "scores": ([128], tf.float32),
            "class_ids": ([128], tf.int32),
            "masks": ([128, 4, 6, 8], tf.float32),
            "valid": ([128], tf.bool),
            "num_detections": ([], tf.int32),
            "is_full": ([], tf.bool),
            "labels": ([None, None, None], tf.int32),
        }

    @pytest.mark.parametrize("batch", [1, 3])
    def test_signature_for_patches(self, saved_model, loaded, batch):
        patches = loaded.signatures["patches"]
        expected_input = tf.TensorSpec([None, 8, 16, 24, 1], tf.float32, name="volume")
        assert patches.structured_input_signature == ((), {"volume": expected_input})
        volumes = tf.random.stateless_normal([batch, 8, 16, 24, 1], [1, 2])
        found, expected = patches(volume=volumes), saved_model[1](volumes)
        assert set(found) == OUTPUTS
        assert {name: value.shape.as_list() for name, value in found.items()} == {
            "boxes": [batch, 6, 6],
            "scores": [batch, 6],
            "class_ids": [batch, 6],
            "masks": [batch, 6, 4, 6, 8],
            "valid": [batch, 6],
            "num_detections": [batch],
        }
        assert int(tf.reduce_min(found["num_detections"])) > 0
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)

    def test_no_python_inside(self, saved_model):
        proto = saved_model_pb2.SavedModel()
        proto.ParseFromString((saved_model[0] / "saved_model.pb").read_bytes())
        ops = set()
        for meta in proto.meta_graphs:
            ops.update(node.op for node in meta.graph_def.node)
            ops.update(node.op for function in meta.graph_def.library.function for node in function.node_def)
        assert "Conv3D" in ops
        assert {op for op in ops if "PyFunc" in op} == set()

    def test_config_asset_is_the_config(self, saved_model):
        segment, text = export.load(saved_model[0])
        assert text == schema.to_json(tiny.config())
        assert schema.from_json(text) == tiny.config()
        assert json.loads((saved_model[0] / "assets" / "config.json").read_text())["data"]["classes"] == [
            "plate",
            "rod",
        ]
        # The answers outlive everything else that was loaded.
        assert segment(volume=tf.constant(volume(SHAPES[0])))["labels"].shape == SHAPES[0]

    def test_output_with_files_is_refused_and_left_alone(self, saved_model, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="expected a new or empty folder, came one with files"):
            export.export(saved_model[1], tiny.config(), "{}", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_output_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match=r"expected a folder, came the file .*notes\.txt"):
            export.check_output(tmp_path / "notes.txt" / "saved_model")


class MeasuringExportTest:
    @pytest.fixture(scope="class")
    def exported(self, tmp_path_factory):
        """The folder of a SavedModel with heads for attributes and landmarks, and the network."""
        tf.keras.utils.set_random_seed(1)
        folder = tmp_path_factory.mktemp("export") / "saved_model"
        model = tiny.model(measuring.config())
        export.export(model, measuring.config(), schema.to_json(measuring.config()), folder)
        return folder, model

    def test_whole_volumes_give_what_the_detector_gives(self, exported):
        segment, _ = export.load(exported[0])
        specs = {name: spec.shape.as_list() for name, spec in segment.structured_outputs.items()}
        assert {name: specs[name] for name in measuring.OUTPUTS} == {
            "attributes": [128, 2],
            "keypoints": [128, 7, 3],
            "keypoint_scores": [128, 7],
        }
        assert set(specs) == {*OUTPUTS, *measuring.OUTPUTS, "is_full", "labels"}
        expected = inference.VolumeDetector(exported[1], measuring.config()).segment(volume(SHAPES[1]))
        found = segment(volume=tf.constant(volume(SHAPES[1])))
        count = int(found["num_detections"])
        assert 0 < count < 128
        for name in measuring.OUTPUTS:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
            assert np.any(found[name][:count]), name
            assert not np.any(found[name][count:]), name
        boxes, points = found["boxes"].numpy()[:count, np.newaxis], found["keypoints"].numpy()[:count]
        lo, hi = boxes[..., :3], boxes[..., 3:]
        assert ((points >= lo - 1e-3) & (points <= hi + 1e-3)).all()

    def test_mirror_images_are_part_of_it(self, exported, tmp_path):
        config = measuring.config()
        plain = inference.VolumeDetector(exported[1], config).segment(volume(SHAPES[0]))
        config.inference.flip_axes = (False, True, False)
        export.export(exported[1], config, schema.to_json(config), tmp_path / "saved_model")
        found = export.load(tmp_path / "saved_model")[0](volume=tf.constant(volume(SHAPES[0])))
        expected = inference.VolumeDetector(exported[1], config).segment(volume(SHAPES[0]))
        assert found["num_detections"] > 0
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
        assert np.any(found["scores"] != plain["scores"])

    def test_patches_give_what_the_network_gives(self, exported):
        patches = tf.saved_model.load(str(exported[0])).signatures["patches"]
        volumes = tf.random.stateless_normal([3, 8, 16, 24, 1], [1, 2])
        found, expected = patches(volume=volumes), exported[1](volumes)
        assert set(found) == OUTPUTS | measuring.OUTPUTS
        for name in measuring.OUTPUTS:
            assert found[name].dtype == tf.float32
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)


class LoadTest:
    def test_folder_without_a_model(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a SavedModel with config\.json among its assets, found none"):
            export.load(tmp_path)

    def test_damaged_model(self, tmp_path):
        (tmp_path / "assets").mkdir()
        (tmp_path / "assets" / "config.json").write_text("{}")
        (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
        with pytest.raises(InputError, match=f"--model={tmp_path}: cannot be loaded: "):
            export.load(tmp_path)
