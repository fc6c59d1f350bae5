import json

import numpy as np
import pytest
import tensorflow as tf

from data.errors import InputError
from debugging import replay
from model.mask_rcnn import MaskRCNN
from ops import losses
from tests import tiny
from training import dump, loop

WHAT = {
    "step": 7,
    "part": "total = nan",
    "records": ["a", "b"],
    "seed": [[1, 0], [1, 1]],
    "stage": "joint",
    "learns": ["rpn", "heads"],
}


def write(folder, *, change_batch=None, change_model=None, **what):
    """A dump of the tiny network, after something has been done to it."""
    settings = tiny.config()
    batch, model = tiny.batch(settings, 1), tiny.model(settings)
    if change_batch:
        change_batch(batch)
    if change_model:
        change_model(model)
    dump.write(folder, model, batch, {**WHAT, **what})
    return settings


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


class ReplayTest:
    def test_a_finite_step_is_said_to_be_and_its_losses_are_those_of_the_step(self, tmp_path, capsys, monkeypatch):
        folder, again, returned = tmp_path / "nonfinite_7", replay.again, []
        settings = write(folder)
        monkeypatch.setattr(replay, "again", lambda *args: returned.append(again(*args)) or returned[-1])
        assert replay.run(settings, folder) is True
        out = capsys.readouterr().out
        assert "step 7, stage joint: total = nan was not finite" in out
        assert "records: a, b" in out
        assert out.strip().splitlines()[-1].startswith("the replay is finite: ")
        told = json.loads((tmp_path / "replay" / "nonfinite_7" / "replay.json").read_text())
        assert told["passed"] is True
        assert told["origin"] is None
        assert sorted(path.name for path in (tmp_path / "replay" / "nonfinite_7").glob("*.png")) == [
            "example_0.png",
            "example_1.png",
        ]
        ((found, gradients, origins),) = returned
        batch, _ = dump.read(folder)
        model = tiny.model(settings)
        dump.load(folder, model)
        expected = model.compute_losses({k: tf.constant(v) for k, v in batch.items()}, tf.constant(WHAT["seed"]))
        assert set(found) == set(expected)
        for name, loss in expected.items():
            np.testing.assert_allclose(found[name], loss, rtol=1e-5, err_msg=name)
        assert len(gradients) == len(model.trainable_variables)
        assert origins == []

    def test_a_loss_that_divides_by_zero_is_found(self, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "nonfinite_7"
        settings = write(folder)
        monkeypatch.setattr(
            losses, "dice", lambda logits, targets, mask: 1.0 / (0.0 * tf.reduce_sum(logits, [1, 2, 3, 4]))
        )
        assert replay.run(settings, folder) is False
        out = capsys.readouterr().out.strip().splitlines()
        assert out[-1].startswith("origin: RealDiv in the losses at tests/debugging/replay_test.py:")
        assert "1.0 / (0.0 * tf.reduce_sum" in out[-1]
        assert any(line.startswith("FAILED   loss             mask_dice: expected finite, came ") for line in out)
        assert any(line.startswith("ok       loss             rpn_class: ") for line in out)

    def test_a_gradient_that_is_not_finite_is_found(self, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "nonfinite_7"
        settings = write(folder)
        # sqrt(0) is 0, with an infinite slope.
        monkeypatch.setattr(
            losses, "dice", lambda logits, targets, mask: tf.sqrt(0.0 * tf.reduce_sum(logits, [1, 2, 3, 4]))
        )
        assert replay.run(settings, folder) is False
        out = capsys.readouterr().out.strip().splitlines()
        assert out[-1] == "origin: SqrtGrad in the gradient of mask_dice"
        assert not any(line.startswith("FAILED   loss") for line in out)
        assert any(
            line.startswith("FAILED   gradient         mask_head/logits/kernel: expected finite") for line in out
        )
        assert not any("box_heads" in line for line in out)

    def test_a_volume_that_overflows_is_found(self, tmp_path, capsys):
        folder = tmp_path / "nonfinite_7"
        settings = write(folder, change_batch=lambda batch: batch["volume"].__setitem__((1, 0, 0, 0, 0), 1e38))
        assert replay.run(settings, folder) is False
        line = last_line(capsys)
        assert line.startswith("origin: ")
        assert " in the losses at model/" in line

    def test_volumes_and_variables_that_are_not_finite_are_named(self, tmp_path, capsys):
        folder = tmp_path / "nonfinite_7"
        settings = write(
            folder,
            change_batch=lambda batch: batch["volume"].__setitem__((1, 0, 0, 0, 0), np.nan),
            change_model=lambda model: model.fpn.trainable_variables[0].assign_add(
                tf.fill(model.fpn.trainable_variables[0].shape, np.inf)
            ),
        )
        assert replay.run(settings, folder) is False
        out = capsys.readouterr().out
        assert "given            volumes: expected finite, came not in example 1" in out
        assert "given            variables: expected finite, came not fpn/" in out
        assert out.strip().splitlines()[-1] == "origin: volumes and variables of the dump are not finite already"

    def test_nothing_is_watched_afterwards(self, tmp_path, monkeypatch):
        folder = tmp_path / "nonfinite_7"
        settings = write(folder)
        monkeypatch.setattr(MaskRCNN, "compute_losses", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            replay.run(settings, folder)
        assert not tf.config.functions_run_eagerly()
        assert not replay.op_callbacks.should_invoke_op_callbacks()

    def test_the_seeds_are_those_of_the_loop(self):
        seeds = loop.example_seeds(3, tf.constant(6, tf.int64), tf.constant([12, 13], tf.int64)).numpy()
        assert np.shape(seeds.tolist()) == np.shape(WHAT["seed"])

    def test_a_dump_of_another_config_is_an_error(self, tmp_path):
        folder = tmp_path / "nonfinite_7"
        settings = write(folder, stage="heads")
        with pytest.raises(InputError, match="nonfinite_7: expected a stage out of joint, came heads"):
            replay.run(settings, folder)
        settings.input.patch_size = (16, 16, 24)
        with pytest.raises(InputError, match=r"expected volumes \[B, 16, 16, 24, 1\], came \(8, 16, 24, 1\)"):
            replay.run(settings, folder)

    def test_no_dump_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="expected the folder of a dump"):
            replay.run(tiny.config(), tmp_path / "nonfinite_9")
