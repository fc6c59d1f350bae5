import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import halves
from tests.model import networks
from training import freezing, internals, restore, weights

ROOT = pathlib.Path(__file__).parents[2]
SEED = tf.constant([3, 4])


def network(overrides):
    settings = networks.config(overrides)
    return settings, restore.make_model(settings), networks.batch(settings)


def look(settings, model, batch, **kwargs):
    return internals.of(model, batch, SEED, dataclasses.asdict(settings.train.loss_weights), **kwargs)


def everything(model):
    return [variable.numpy() for variable in model.variables]


@pytest.fixture(name="plain", scope="module")
def fixture_plain():
    settings, model, batch = network({})
    return settings, model, batch, look(settings, model, batch)


class WeightsTest:
    def test_every_variable_by_the_name_that_a_checkpoint_has_for_it(self, plain):
        _, model, _, found = plain
        variables = weights.named_variables(model)
        assert list(found.weights) == list(found.gradients) == list(variables)
        for name, value in found.weights.items():
            np.testing.assert_array_equal(value, variables[name].numpy())

    def test_what_is_frozen_is_left_out(self):
        settings, model, batch = network({})
        freezing.set_trainable(model, ("rpn_head",))
        names = list(look(settings, model, batch).weights)
        layers = ("conv", "objectness", "deltas")
        assert sorted(names) == sorted(f"rpn_head/{layer}/{kind}" for layer in layers for kind in ("bias", "kernel"))


class GradientsTest:
    def test_are_those_of_the_weighted_total(self, plain):
        settings, model, batch, found = plain
        names = list(found.gradients)
        with tf.GradientTape() as tape:
            losses = model.compute_losses(batch, SEED)
            total = sum(
                getattr(settings.train.loss_weights, name) * tf.reduce_sum(loss) / 2 for name, loss in losses.items()
            )
        for name, expected in zip(names, tape.gradient(total, model.trainable_variables), strict=True):
            np.testing.assert_allclose(found.gradients[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)

    def test_what_no_loss_reaches_has_none(self):
        settings, model, batch = network({})
        found = look(settings, model, batch, learns=("rpn",))
        without = {name for name, gradient in found.gradients.items() if not gradient.any()}
        assert without == {name for name in found.weights if name.startswith(("box_heads", "mask_head"))}
        assert not any(name.startswith(("box_heads", "mask_head")) for name in found.activations)


class ActivationsTest:
    def test_are_what_the_layers_give(self, plain):
        _, model, batch, found = plain
        stem = model.backbone.stem
        convolved = stem.conv(batch["volume"])
        np.testing.assert_allclose(found.activations["backbone/stem/conv"], convolved, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found.activations["backbone/stem/activation"], tf.nn.relu(stem.norm(convolved)), rtol=1e-5, atol=1e-5
        )

    def test_come_in_the_order_of_the_network(self, plain):
        names = list(plain[3].activations)
        assert names[:3] == ["backbone/stem/conv", "backbone/stem/norm", "backbone/stem/activation"]
        parts = list(dict.fromkeys(name.split("/")[0] for name in names))
        assert parts == ["backbone", "fpn", "rpn_head", "box_heads", "mask_head"]

    def test_a_layer_that_all_levels_share_has_one_for_each(self, plain):
        shapes = {name: value.shape for name, value in plain[3].activations.items() if "rpn_head/conv" in name}
        assert shapes == {"rpn_head/conv#0": (2, 8, 8, 12, 8), "rpn_head/conv#1": (2, 4, 4, 6, 8)}

    def test_only_layers_that_hold_no_other_are_there(self, plain):
        assert not {"backbone", "backbone/stem", "fpn", "rpn_head", "mask_head"} & set(plain[3].activations)


class AnyNetworkTest:
    @pytest.mark.parametrize(
        "overrides",
        [
            {"model.style.norm": "batch"},
            {"model.style.norm": "frozen_batch"},
            {"model.style.norm": "none", "model.style.activation": "prelu", "model.style.l2": 1e-3},
            {"model.backbone.kind": "plain", "model.fpn.levels": (1, 2), "model.style.norm": "instance"},
            networks.EVERY_HEAD,
        ],
    )
    def test_is_left_as_it_was(self, overrides):
        settings, model, batch = network(overrides)
        before, calls = everything(model), [layer.call for layer in model.submodules if hasattr(layer, "call")]
        found = look(settings, model, batch)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.name)
        assert calls == [layer.call for layer in model.submodules if hasattr(layer, "call")]
        layers = {name.rsplit("/", 1)[0] for name in found.weights}
        shown = {name.split("#")[0] for name in found.activations}
        assert {layer for layer in layers if layer not in shown} == set()

    def test_every_head_and_every_stage_of_a_cascade(self):
        settings, model, batch = network(networks.EVERY_HEAD)
        found = look(settings, model, batch)
        for part in ("box_heads/0", "box_heads/1", "box_heads/2", "attribute_head", "keypoint_head"):
            assert any(name.startswith(f"{part}/") for name in found.activations), part
            assert any(g.any() for name, g in found.gradients.items() if name.startswith(f"{part}/")), part

    def test_classifier(self):
        stage = {"name": "pretrain", "learns": ("classifier",)}
        settings = networks.config({"train.classifier_crop": (4, 8, 8)})
        settings.train.stages = (type(settings.train.as_stages()[0])(**stage),)
        model = restore.make_model(settings.validate())
        found = look(settings, model, networks.batch(settings), learns=("classifier",))
        assert found.activations["classifier/logits"].shape == (4, 3)  # two crops of every volume
        assert found.gradients["classifier/logits/kernel"].any()

    def test_an_error_leaves_the_layers_as_they_were(self):
        settings, model, batch = network({})
        before = model.backbone.stem.conv.call
        with pytest.raises(KeyError):
            look(settings, model, {name: batch[name] for name in ("volume", "boxes", "valid")})
        assert model.backbone.stem.conv.call == before


class HalfPrecisionTest:
    @pytest.mark.parametrize("precision", halves.POLICIES)
    def test_arrays_are_float32_and_near_those_of_full_precision(self, plain, precision):
        settings, model, batch, full = plain
        half_settings = networks.config({"train.precision": precision})
        half = restore.make_model(half_settings)
        half.set_weights(model.get_weights())
        found = look(settings, half, batch)
        assert {value.dtype for part in found for value in part.values()} == {np.dtype(np.float32)}
        assert list(found.activations) == list(full.activations)
        for name in ("backbone/stem/conv", "fpn/smooth/1"):
            error = np.abs(found.activations[name] - full.activations[name]).max()
            assert 0 < error < 0.1 * np.abs(full.activations[name]).max()


class TwoDevicesTest:
    @pytest.mark.parametrize("norm", ["batch", "sync_batch"])
    def test_neither_is_changed(self, norm):
        command = [sys.executable, "-m", "tests.training.internals_two_devices", norm]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
        result = json.loads(ended.stdout.splitlines()[-1])
        assert result.pop("statistics") > 0
        assert result == {"copies": 2.0, "changed": 0, "without_gradient": 0}
