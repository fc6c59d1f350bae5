import json
from concurrent import futures

import pytest

from tests import mains

# A network and volumes so small that a run takes seconds; no axis is as long as another.
SMALL = [
    "--config.data.synthetic.shape=(16, 24, 32)",
    "--config.data.synthetic.base_size=3.0",
    "--config.data.synthetic.count=(1, 3)",
    "--config.data.synthetic.num_train=4",
    "--config.data.synthetic.num_val=2",
    "--config.data.synthetic.num_test=0",
    "--config.input.patch_size=(16, 24, 32)",
    "--config.input.rotate_planes=()",
    "--config.inference.overlap=(0, 0, 0)",
    "--config.model.backbone.stage_channels=(8, 16)",
    "--config.model.backbone.stage_blocks=(1, 1)",
    "--config.model.backbone.stage_strides=((2, 2, 2), (2, 2, 2))",
    "--config.model.anchors.sizes=((6.0,), (12.0,))",
    "--config.train.warmup_steps=1",
    "--config.train.steps_per_loop=2",
    "--config.train.checkpoint_steps=3",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What a first run, misuse of its folder and its continuation end with, and the folder."""
    folder = tmp_path_factory.mktemp("train")
    small = [*SMALL, f"--config.data.records={folder}/records", f"--workdir={folder}/model", "--strategy=mirrored"]
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    first = mains.run("train_main", *small, "--logical_devices=2", "--config.train.steps=4", "--wandb=offline")
    commands = {
        "again": [*small, "--config.train.steps=4", "--wandb=disabled"],
        "other config": [*small, "--config.train.steps=5", "--config.model.rpn.nms_iou=0.5"],
        "foreign folder": [*small, f"--workdir={foreign}", "--config.train.steps=4"],
        "indivisible batch": [*small, "--logical_devices=2", "--config.train.batch_size=3"],
        "other classes": [*small, "--config.data.classes=('cell',)", "--config.train.steps=4"],
        "no records": [*small, "--config.data.source=volumes", "--config.data.records=absent"],
    }
    # One process each, as overrides of the config are flags of their own.
    with futures.ThreadPoolExecutor(2) as pool:
        others = pool.map(lambda command: mains.run("train_main", *command), commands.values())
    return {"first": first, **dict(zip(commands, others, strict=True))}, folder


class TrainMainTest:
    def test_help_names_every_flag(self):
        text = mains.run("train_main", "--help").out
        assert all(f"--{flag}" in text for flag in ("strategy", "config", "workdir", "logical_devices", "wandb"))

    def test_trains_on_two_replicas_and_leaves_everything(self, runs):
        results, folder = runs
        assert results["first"].code == 0, results["first"].err
        assert "2 replica(s), mirrored" in results["first"].out
        steps = [json.loads(line)["step"] for line in (folder / "model" / "metrics.jsonl").read_text().splitlines()]
        assert steps == [2, 3, 4]  # a loop of two, cut at the checkpoint of step 3
        names = {path.name for path in (folder / "model" / "checkpoints").iterdir()}
        assert {"ckpt-3.index", "ckpt-4.index"} <= names
        config = json.loads((folder / "model" / "config.json").read_text())
        assert config["train"]["steps"] == 4
        assert json.loads((folder / "model" / "versions.json").read_text())["tensorflow"] == "2.15.1"

    def test_finished_run_says_so(self, runs):
        results, _ = runs
        assert results["again"].code == 0, results["again"].err
        assert "already trained for 4 steps" in results["again"].out

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("other config", "belongs to another config (model.rpn.nms_iou: 0.6 -> 0.5; train.steps: 4 -> 5)"),
            ("foreign folder", "expected a new or empty folder or an earlier run, came other files"),
            ("indivisible batch", "expected a multiple of 2 replicas, came 3"),
            ("other classes", "cell"),
            ("no records", "no records at absent"),
        ],
    )
    def test_misuse_is_one_line(self, runs, name, words):
        result = runs[0][name]
        assert result.code == 2
        assert words in result.err
        assert result.err.count("\n") == 1

    def test_unknown_strategy_is_one_line(self):
        mains.assert_misuse(mains.run("train_main", "--strategy=parallel"), "parallel")
