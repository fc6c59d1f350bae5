import json
import re
import shutil
import socket
from concurrent import futures

import pytest

from data import fingerprint
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
    "--config.model.backbone.stage_kernels=((3, 3, 3), (3, 3, 3))",
    "--config.model.fpn.levels=(2, 3)",
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
    few = [*SMALL, f"--config.data.records={folder}/records", f"--workdir={folder}/few"]
    first = mains.run("train_main", *small, "--logical_devices=2", "--config.train.steps=4", "--wandb=offline")
    commands = {
        "again": [*small, "--config.train.steps=4", "--wandb=disabled"],
        "no such weights": [*few, f"--workdir={folder}/none", f"--config.train.init_weights={folder}/absent"],
        "weights of the first": [
            *few,
            f"--workdir={folder}/begun",
            f"--config.train.init_weights={folder}/model",
            "--config.train.steps=2",
            "--wandb=disabled",
        ],
        "few slots": [
            *few,
            "--config.input.max_instances=1",
            "--config.model.box_head.class_balance=1.0",
            "--config.train.steps=2",
            "--wandb=disabled",
        ],
        "other config": [*small, "--config.train.steps=5", "--config.model.rpn.nms_iou=0.5"],
        "foreign folder": [*small, f"--workdir={foreign}", "--config.train.steps=4"],
        "indivisible batch": [*small, "--logical_devices=2", "--config.train.batch_size=3"],
        "other classes": [*small, "--config.data.classes=('cell',)", "--config.train.steps=4"],
        "below a file": [*small, f"--workdir={foreign}/notes.txt/model", "--config.train.steps=4"],
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

    def test_flags_offer_what_training_knows(self):
        from tracking import wandb_start
        from training import strategy

        text = "".join(mains.run("train_main", "--help").out.split())
        assert f"--strategy:<{'|'.join(strategy.STRATEGIES)}>:" in text
        assert f"--wandb:<{'|'.join(wandb_start.MODES)}>:" in text

    def test_warns_of_more_instances_than_slots(self, runs):
        results, folder = runs
        most = json.loads((folder / "records" / "manifest.json").read_text())["max_instances"]
        assert 2 <= most <= 3
        expected = f"warning: a volume of the records has {most} instances, input.max_instances is 1: "
        (line,) = (line for line in results["few slots"].out.splitlines() if line.startswith("warning"))
        assert line.startswith(expected)
        assert line.endswith("raise input.max_instances")
        assert "warning" not in results["first"].out

    def test_class_weights_come_from_the_records(self, runs):
        results, folder = runs
        manifest = json.loads((folder / "records" / "manifest.json").read_text())
        expected = fingerprint.class_weights(manifest["num_instances"]["train"], 1.0)
        assert len(set(expected)) > 1
        resolved = json.loads((folder / "few" / "config.json").read_text())
        assert resolved["model"]["box_head"]["class_weights"] == list(expected)
        (line,) = (line for line in results["few slots"].out.splitlines() if line.startswith("class weights: "))
        assert line.startswith(f"class weights: {expected[1]:.2f} ellipsoid, ")
        assert "class weights" not in results["first"].out

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
            ("below a file", "expected a folder, came the file"),
            ("indivisible batch", "expected a multiple of 2 replicas, came 3"),
            ("other classes", "cell"),
            ("no records", "no records at absent"),
            ("no such weights", "expected a run's folder, the prefix of a checkpoint or a Keras file"),
        ],
    )
    def test_misuse_is_one_line(self, runs, name, words):
        result = runs[0][name]
        assert result.code == 2
        assert words in result.err
        assert result.err.count("\n") == 1

    def test_begins_with_the_weights_of_another_run(self, runs):
        results, folder = runs
        result = results["weights of the first"]
        assert result.code == 0, result.err
        assert "variables loaded, 0 partly, 0 keep their initialisation" in result.out
        report = json.loads((folder / "begun" / "init_weights.json").read_text())
        assert report["missing"] == report["skipped"] == []
        assert not (folder / "none").exists()

    def test_damaged_record_and_diverging_loss_are_one_line(self, runs, tmp_path):
        _, folder = runs
        shutil.copytree(folder / "records", tmp_path / "records")
        shard = next((tmp_path / "records").glob("train-*.tfrecord"))
        data = bytearray(shard.read_bytes())
        data[-100] ^= 0xFF
        shard.write_bytes(data)
        small = [*SMALL, "--wandb=disabled", "--config.train.steps=8"]
        commands = (
            [*small, f"--config.data.records={tmp_path}/records", f"--workdir={tmp_path}/damaged"],
            [*small, f"--config.data.records={folder}/records", f"--workdir={tmp_path}/nan"]
            + ["--config.train.learning_rate=1e30", "--config.train.clip_norm=1e30"],
        )
        damaged, diverging = (mains.run("train_main", *command) for command in commands)
        assert damaged.code == 2
        assert re.search(r"train-00000-of-00001.tfrecord: expected a whole record of case \w+ at byte \d+", damaged.err)
        assert damaged.err.count("\n") == 1
        assert diverging.code == 1
        expected = (
            r"error: step \d+: expected a finite loss and gradient, came \w+ = (nan|inf), of the records shapes_0_"
        )
        assert re.match(expected, diverging.err)
        assert diverging.err.count("\n") == 1

        skipping = [*commands[0], f"--workdir={tmp_path}/skipping", "--config.input.on_corrupt=skip"]
        skipped = mains.run("train_main", *skipping, "--config.input.normalization=dataset")
        assert skipped.code == 0, skipped.err
        assert "skipped damaged records 4 time(s)" in skipped.out  # 8 steps of 2 examples are 4 epochs
        config = json.loads((tmp_path / "skipping" / "config.json").read_text())
        manifest = json.loads((folder / "records" / "manifest.json").read_text())
        assert config["input"]["intensity_mean"] == manifest["intensity"]["train"]["mean"]
        assert config["input"]["intensity_std"] == manifest["intensity"]["train"]["std"]
        logged = [json.loads(line) for line in (tmp_path / "skipping" / "metrics.jsonl").read_text().splitlines()]
        assert all(0 <= line["input_wait"] < 1 for line in logged)
        skipping += [f"--workdir={tmp_path}/full", "--config.input.max_corrupt=0"]
        refused = mains.run("train_main", *skipping)
        assert refused.code == 2
        assert "expected at most input.max_corrupt=0 damaged records in each of" in refused.err

    def test_two_workers_train_one_model(self, runs, tmp_path):
        _, folder = runs
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
        for opened in sockets:
            opened.close()
        command = [
            *(*SMALL, f"--config.data.records={folder}/records", f"--workdir={tmp_path}/model"),
            *("--strategy=multi_worker", "--config.train.steps=4", "--wandb=disabled"),
        ]

        def worker(index):
            cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            return mains.run("train_main", *command, environment={"TF_CONFIG": json.dumps(cluster)})

        with futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(worker, range(2)))
        assert [result.code for result in results] == [0, 0], [result.err for result in results]
        assert "2 replica(s), multi_worker" in results[0].out
        steps = [json.loads(line)["step"] for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
        assert steps == [2, 3, 4]  # written by the chief alone

        # A folder of another config is refused by all: nobody waits for a chief that has left.
        command.append("--config.train.seed=7")
        with futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(worker, range(2)))
        assert [result.code for result in results] == [2, 2], [result.err for result in results]
        expected = "belongs to another config (train.seed: 0 -> 7)"
        assert all(expected in result.err for result in results), [result.err for result in results]

    def test_unknown_strategy_is_one_line(self):
        mains.assert_misuse(mains.run("train_main", "--strategy=parallel"), "parallel")
