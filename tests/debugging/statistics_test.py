import dataclasses
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from debugging import fixed, statistics
from debugging.statistics import Layer, Move
from tests import tiny
from tests.model import networks
from training import internals

WEIGHTS = dataclasses.asdict(tiny.config().train.loss_weights)


def layers_and_moves(change=lambda model: None, **train):
    """The verdicts about the tiny network, after something has been done to it."""
    settings = tiny.config(**train)
    tf.keras.utils.set_random_seed(1)
    model, batch = tiny.model(settings), networks.as_tensors(tiny.batch(settings, 0))
    change(model)
    seen = internals.of(model, batch, fixed.seeds(2, 0), WEIGHTS)
    moves = statistics.move_table(settings, model, batch, WEIGHTS, 1)
    checked = statistics.layer_verdicts(statistics.layer_table(seen.activations)) + statistics.move_verdicts(moves)
    return {verdict.name: verdict for verdict in checked}


class CheckTest:
    def test_a_sound_network_passes(self, made, tmp_path):
        checked = statistics.check(*made, tmp_path / "out", tf.distribute.get_strategy(), steps=1)
        found = {verdict.name: verdict for verdict in checked}
        assert list(found) == ["dead channels", "activations", "gradients", "updates", "median update"]
        assert all(verdict.passed for verdict in found.values()), found
        table = json.loads((tmp_path / "out" / "statistics.json").read_text())
        assert len(table["variables"]) == int(found["gradients"].came.split()[1])
        assert "backbone/stem/norm" in [layer["name"] for layer in table["layers"]]
        assert (tmp_path / "out" / "statistics.png").stat().st_size > 5000

    def test_a_dead_activation_fails(self):
        found = layers_and_moves(lambda model: model.box_heads[0].dense.layers[0][0].bias.assign(tf.fill([32], -1e3)))
        assert found["dead channels"].passed is False
        assert found["dead channels"].came == "100% of box_heads/0/dense/layers/0/1"
        assert found["gradients"].passed is False

    def test_a_gradient_that_stops_fails(self):
        def stop(model):
            call = model.mask_head.tower.call
            model.mask_head.tower.call = lambda *args, **kwargs: tf.stop_gradient(call(*args, **kwargs))

        found = layers_and_moves(stop)
        assert found["gradients"].passed is False
        assert found["gradients"].came == "0 of mask_head/tower/convs/0/conv/kernel and 2 more"
        assert found["dead channels"].passed is True

    def test_a_rate_that_is_too_high_fails(self):
        found = layers_and_moves(learning_rate=10.0)
        assert found["median update"].passed is False


class TableTest:
    def test_channels_that_are_the_same_everywhere_are_dead(self):
        values = np.zeros((2, 3, 4), np.float32)
        values[1, 2, 0], values[..., 1] = 2.0, 5.0
        (layer,) = statistics.layer_table({"a": values})
        assert layer.dead == 0.75
        # Of 24 numbers six are 5, one is 2: 154 / 24 - (32 / 24)^2
        assert layer.spread == pytest.approx(math.sqrt(6.416667 - 1.777778), rel=1e-5)

    @pytest.mark.parametrize(
        ("layer", "name"),
        [
            (Layer("a", 1.0, 0.51), "dead channels"),
            (Layer("a", 0.9e-4, 0.0), "activations"),
            (Layer("a", 1.1e3, 0.0), "activations"),
            (Layer("a", math.nan, 0.0), "activations"),
        ],
    )
    def test_layers_fail_each_in_its_way(self, layer, name):
        found = statistics.layer_verdicts([Layer("b", 1.0, 0.5), layer])
        assert [verdict.name for verdict in found if not verdict.passed] == [name]

    @pytest.mark.parametrize(
        ("move", "names"),
        [
            (Move("a/kernel", 1.0, 0.0, 1e-3), ["gradients"]),
            (Move("a/bias", 1.0, math.nan, 1e-3), ["gradients"]),
            (Move("a/kernel", 1.0, 1.0, 0.9e-6), ["updates"]),
            (Move("a/kernel", 1.0, 1.0, 1.1), ["updates"]),
            (Move("a/bias", 0.0, 1.0, math.inf), []),
        ],
    )
    def test_moves_fail_each_in_its_way(self, move, names):
        sound = [Move(f"{i}/kernel", 1.0, 1.0, 1e-3) for i in range(3)]
        found = statistics.move_verdicts([*sound, move])
        assert [verdict.name for verdict in found if not verdict.passed] == names

    @pytest.mark.parametrize(("update", "passed"), [(0.9e-5, False), (1.1e-5, True), (0.09, True), (0.11, False)])
    def test_the_median_update_counts(self, update, passed):
        found = statistics.move_verdicts([Move(f"{i}/kernel", 1.0, 1.0, update) for i in range(3)])
        assert found[-1].passed is passed
