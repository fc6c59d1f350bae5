import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import wandb

from tests import tiny
from tests.model import networks
from tests.tracking import cases
from tracking.tracker import Tracker, _stage
from training import restore

SEED = tf.constant([[1, 2], [3, 4]])


def make(workdir, mode="disabled", *, step=0, **kwargs):
    settings = dataclasses.asdict(cases.config())
    return Tracker(workdir, project="tests", config=settings, step=step, steps=10, mode=mode, **kwargs)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(name="network", scope="module")
def fixture_network():
    settings = networks.config({})
    return settings, restore.make_model(settings), networks.batch(settings)


class LogTest:
    def test_the_same_everywhere(self, tmp_path, capsys):
        tracker = make(tmp_path, "offline")
        tracker.log(2, cases.SCALARS)
        tracker.close()
        (line,) = lines(tmp_path)
        voxels = 3.25 * 8 * 16 * 24
        assert line == {"step": 2, **cases.SCALARS, "voxels_per_second": voxels, "peak_memory_gb": pytest.approx(2, 2)}
        history = cases.wandb_history(tmp_path)[2]
        assert {name: history[name] for name in line if name != "step"} == {
            k: v for k, v in line.items() if k != "step"
        }
        events = cases.tensorboard_events(tmp_path)
        assert [(step, float(value)) for step, value in events["speed/voxels_per_second"]] == [(2, voxels)]
        assert capsys.readouterr().out.startswith("step 2/10 loss 0.750 (rpn_class 0.250 mask 0.500) 3.2 volumes/s")

    def test_wandb_knows_config_and_records(self, tmp_path):
        tracker = make(tmp_path, "offline", manifest={"shards": {}})
        tracker.close()
        records = cases.wandb_records(tmp_path)
        (run,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        config = {update.key: json.loads(update.value_json) for update in run.config.update if update.key}
        assert config["name"] == "tiny"
        assert config["model"]["backbone"]["stem_stride"] == [1, 2, 2]
        names = [record.artifact.name for record in records if record.WhichOneof("record_type") == "artifact"]
        assert names == ["records-tiny"]

    def test_a_run_that_goes_on_repeats_no_step_anywhere(self, tmp_path):
        for step in (0, 4):
            tracker = make(tmp_path, step=step)
            for number in range(step + 2, step + 7, 2):
                tracker.log(number, {**cases.SCALARS, "total": float(step)})
                tracker.log_evaluation(number, cases.evaluation(cases.config()), cases.config())
            tracker.close()
        logged = [(line["step"], line.get("total"), line.get("val/mask_ap50")) for line in lines(tmp_path)]
        ap = cases.evaluation(cases.config()).summary["mask_ap"]["0.50"]["pooled"]
        totals = [(2, 0.0), (4, 0.0), (6, 4.0), (8, 4.0), (10, 4.0)]
        assert logged == [row for step, total in totals for row in ((step, total, None), (step, None, ap))]
        events = cases.tensorboard_events(tmp_path)
        assert [(step, float(value)) for step, value in events["loss/total"]] == totals
        assert {tuple(step for step, _ in found) for found in events.values()} == {(2, 4, 6, 8, 10)}

    def test_disabled_sinks_cost_nothing(self, tmp_path):
        tracker = make(tmp_path, tensorboard=False)
        tracker.log(2, cases.SCALARS)
        tracker.log_evaluation(2, cases.evaluation(cases.config()), cases.config())
        tracker.log_inspection(2, None, None, None, None)  # not even looked at
        tracker.log_artifact(tmp_path / "none", "model", "best")
        tracker.close()
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
        assert [line["step"] for line in lines(tmp_path)] == [2, 2]

    def test_wandb_is_loaded_only_where_there_is_a_run(self, tmp_path):
        code = (
            "import sys; from tracking.tracker import Tracker\n"
            f"t = Tracker({str(tmp_path)!r}, project='', config={{}}, step=0, steps=1, mode='disabled')\n"
            "t.close(); assert 'wandb' not in sys.modules"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr

    def test_wandb_that_fails_leaves_the_others(self, tmp_path, capsys, monkeypatch):
        tracker = make(tmp_path, "offline")
        monkeypatch.setattr(tracker.wandb.run, "log", lambda *args, **kwargs: 1 / 0)
        for step in (2, 4):
            tracker.log(step, cases.SCALARS)
        tracker.close()
        assert [line["step"] for line in lines(tmp_path)] == [2, 4]
        assert [step for step, _ in cases.tensorboard_events(tmp_path)["loss/total"]] == [2, 4]
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wandb")]
        assert said == ["wandb: not continued (ZeroDivisionError: division by zero); metrics.jsonl has everything"]
        wandb.teardown()


class LogEvaluationTest:
    def test_numbers_curves_pictures_and_detections(self, tmp_path):
        tracker = make(tmp_path, "offline")
        tracker.log_evaluation(8, cases.evaluation(cases.config()), cases.config())
        tracker.close()
        (line,) = lines(tmp_path)
        assert line["step"] == 8
        assert line["val/mask_ap50"] == pytest.approx(0.75)  # of two truths one at precision 1 and one at 1 / 2
        history, events = cases.wandb_history(tmp_path)[8], cases.tensorboard_events(tmp_path)
        assert history["val/mask_ap50"] == line["val/mask_ap50"] == float(events["val/mask_ap50"][0][1])
        media = {"val/pictures", "val/slices", "val/clouds", "val/precision_recall_table", "val/detections"}
        assert media <= set(history)
        assert {"val/precision_recall", "val/pictures/case_a"} <= set(events)

    def test_another_split(self, tmp_path):
        tracker = make(tmp_path)
        tracker.log_evaluation(8, cases.evaluation(cases.config(), with_drawn=False), cases.config(), split="test")
        tracker.close()
        (line,) = lines(tmp_path)
        assert "test/mask_ap50" in line
        assert not any(name.startswith("val/") for name in line)
        events = cases.tensorboard_events(tmp_path)
        assert "test/precision_recall" in events
        assert not any("pictures" in tag for tag in events)


class LogInspectionTest:
    def test_histograms_of_every_layer_and_pictures(self, tmp_path, network):
        settings, model, batch = network
        tracker = make(tmp_path, "offline")
        tracker.log_inspection(6, model, batch, SEED, settings)
        tracker.close()
        events, history = cases.tensorboard_events(tmp_path), cases.wandb_history(tmp_path)[6]
        for tag in (
            "weights/backbone/stem/conv/kernel",
            "weights/rpn_head/conv/bias",
            "gradients/mask_head/logits/kernel",
            "activations/rpn_head/activation#1",
            *(f"train/{name}" for name in ("truth", "anchors", "proposals", "rois", "detections")),
        ):
            assert [step for step, _ in events[tag]] == [6], tag
            assert tag in history
        kinds = ("weights", "gradients", "activations")
        counts = {kind: sum(tag.startswith(f"{kind}/") for tag in events) for kind in kinds}
        assert counts["weights"] == counts["gradients"] == len(model.trainable_variables)
        kernel = model.backbone.stem.conv.kernel
        buckets = events["weights/backbone/stem/conv/kernel"][0][1]
        assert buckets[:, 2].sum() == np.size(kernel)
        assert buckets[0, 0] == pytest.approx(float(tf.reduce_min(kernel)))

    def test_stage_of_a_step(self):
        settings = tiny.config()
        settings.train.stages = tuple(
            type(settings.train.as_stages()[0])(name=name, steps=steps) for name, steps in (("a", 4), ("b", 6))
        )
        assert [_stage(settings.train, step).name for step in (1, 4, 5, 10, 11)] == ["a", "a", "b", "b", "b"]
