import numpy as np
import pytest
import tensorflow as tf

from debugging import consistency, fixed
from tests import tiny
from tests.debugging import conftest
from tests.model import networks


def check(made, tmp_path, change=lambda model: None, monkeypatch=None):
    settings, manifest = made
    if monkeypatch:
        new_model = fixed.new_model

        def changed(config):
            model = new_model(config)
            change(model)
            return model

        monkeypatch.setattr(fixed, "new_model", changed)
    checked = consistency.check(settings, manifest, tmp_path / "out", tf.distribute.get_strategy())
    return {verdict.name: verdict for verdict in checked}


def leaking(layer, share):
    """Lets a layer add something of the example before to each example."""
    call = layer.call

    def leak(features, *args, **kwargs):
        return [level + share * tf.roll(level, 1, axis=0) for level in call(features, *args, **kwargs)]

    layer.call = leak


class CheckTest:
    def test_a_sound_network_passes(self, made, tmp_path):
        found = check(made, tmp_path)
        assert list(found) == [
            "detections, alone",
            "detections, reversed",
            "losses, alone",
            "losses, reversed",
            "gradient by the volume",
        ]
        assert all(verdict.passed for verdict in found.values()), found
        assert (tmp_path / "out" / "consistency.png").stat().st_size > 5000

    def test_a_leak_between_examples_fails(self, made, tmp_path, monkeypatch):
        found = check(made, tmp_path, lambda model: leaking(model.fpn, 0.3), monkeypatch)
        assert not any(verdict.passed for verdict in found.values()), found

    def test_a_faint_leak_shows_in_the_gradient(self):
        model, batch = tiny.model(tiny.config()), networks.as_tensors(tiny.batch(tiny.config(), 0))
        assert consistency.gradient_verdict(consistency.dependence(model, batch)).passed is True
        leaking(model.fpn, 1e-6)
        found = consistency.dependence(model, batch)
        assert consistency.gradient_verdict(found).passed is False
        assert 0 < found.gradients[0, 1] < 1e-4 * found.gradients[1, 1]

    def test_a_volume_that_does_not_count_fails(self):
        model, batch = tiny.model(tiny.config()), networks.as_tensors(tiny.batch(tiny.config(), 0))
        call = model.backbone.call
        model.backbone.call = lambda volume, *args, **kwargs: call(tf.zeros_like(volume), *args, **kwargs)
        found = consistency.dependence(model, batch)
        assert not found.gradients.any()
        assert consistency.gradient_verdict(found).passed is False

    def test_batch_normalisation_is_not_judged(self, made, tmp_path, monkeypatch):
        made[0].model.style.norm = "batch"
        monkeypatch.setattr(consistency, "detections_verdicts", lambda *_: [])
        found = check(made, tmp_path)
        assert list(found) == ["losses"]
        assert found["losses"].passed is None
        assert "moments are those of the batch" in found["losses"].came

    def test_one_record_is_not_judged(self, made, tmp_path):
        settings, _ = made
        found = check((settings, conftest.write(tmp_path / "one", settings, num_train=1)), tmp_path)
        assert found["batch"].passed is None
        assert found["batch"].came == "1: nothing to compare"


class GradientVerdictTest:
    @pytest.mark.parametrize(
        ("gradients", "passed"),
        [
            ([[1, 0], [0, 2]], True),
            ([[1, 1e-30], [0, 2]], False),
            ([[1, 0], [0, 0]], False),
            ([[1, 0], [0, np.nan]], False),
        ],
    )
    def test_exactly_zero_between_and_more_within(self, gradients, passed):
        found = consistency.Dependence(np.array(gradients, np.float64))
        assert consistency.gradient_verdict(found).passed is passed
