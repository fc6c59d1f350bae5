import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests import mains, tiny
from training import restore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def results(folder, untrained_run):
    run, empty, other = folder / "run", folder / "empty", folder / "other"
    shutil.copytree(untrained_run, run)
    empty.mkdir()
    (folder / "untrained").mkdir()
    shutil.copy(run / "config.json", folder / "untrained")
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    config["model"]["box_head"]["hidden"] += 1
    (other / "config.json").write_text(json.dumps(config))
    return mains.run_each(
        "export_main",
        {
            "default": [f"--workdir={run}"],
            "empty": [f"--workdir={run}", f"--output={empty}"],
            "again": [f"--workdir={run}"],
            "no run": [f"--workdir={folder / 'nowhere'}"],
            "no checkpoint": [f"--workdir={folder / 'untrained'}"],
            "other network": [f"--workdir={other}"],
        },
    )


class ExportMainTest:
    @pytest.mark.parametrize(("name", "output"), [("default", "run/saved_model"), ("empty", "empty")])
    def test_writes_a_saved_model_with_the_config_of_the_run(self, results, folder, untrained_run, name, output):
        assert (results[name].code, results[name].err) == (0, "")
        checkpoint = folder / "run" / "checkpoints" / "ckpt-1"
        assert results[name].out == f"SavedModel in {folder / output}, of {checkpoint}\n"
        assert (folder / output / "saved_model.pb").is_file()
        asset = folder / output / "assets" / "config.json"
        assert asset.read_text() == (untrained_run / "config.json").read_text()

    def test_answers_with_the_weights_of_the_checkpoint(self, results, folder, untrained_run):
        assert results["default"].code == 0
        patches = tf.saved_model.load(str(folder / "run" / "saved_model")).signatures["patches"]
        volumes = tf.random.stateless_normal([2, *tiny.config().input.patch_size, 1], [1, 2])
        expected = restore.load_model(untrained_run, tiny.config())[0](volumes)
        assert int(tf.reduce_min(expected["num_detections"])) > 0
        for name, value in patches(volume=volumes).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)

    def test_leaves_nothing_else_behind(self, results, folder):
        assert results["default"].code == 0
        assert sorted(path.name for path in (folder / "run").iterdir()) == [
            "checkpoints",
            "config.json",
            "saved_model",
            "versions.json",
        ]


class MisuseTest:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("again", "run/saved_model: expected a new or empty folder, came one with files"),
            ("no run", "nowhere: expected a run with config.json, found none; train one first"),
            ("no checkpoint", "untrained: expected a checkpoint in checkpoints/, found none; train first"),
            ("other network", "expected a whole one of this network, came: "),
        ],
    )
    def test_one_line(self, results, name, words):
        mains.assert_misuse(results[name], words)

    def test_workdir_is_required(self):
        mains.assert_misuse(mains.run("export_main"), "flag --workdir=None")

    def test_help(self):
        result = mains.run("export_main", "--help")
        assert result.err == ""
        for words in ("python export_main.py --workdir=... --output=...", "default: <workdir>/saved_model"):
            assert words in result.out
