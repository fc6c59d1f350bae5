import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from debugging import gradients
from tests import tiny
from tests.model import networks


@tf.custom_gradient
def too_steep(x):
    """x, with a gradient that is a third too large."""
    return tf.identity(x), lambda upstream: upstream * 4 / 3


def compare(change):
    """The verdicts by part, with something done to the tiny network."""
    settings = tiny.config()
    tf.keras.utils.set_random_seed(2)
    model, batch = tiny.model(settings), networks.as_tensors(tiny.batch(settings, 0, num_objects=(3,)))
    change(model)
    before = [variable.numpy() for variable in model.variables]
    found = gradients.compare(model, batch, dataclasses.asdict(settings.train.loss_weights))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    parts = dict.fromkeys(one.part for one in found)
    return {part: gradients._verdict(part, [one for one in found if one.part == part]).passed for part in parts}


def wrap(layer, function):
    """Lets a function follow a layer."""
    call = layer.call
    layer.call = lambda *args, **kwargs: function(call(*args, **kwargs))


class CompareTest:
    def test_gradients_that_stop_or_are_too_large_are_found(self):
        def spoil(model):
            wrap(model.mask_head.tower, tf.stop_gradient)
            wrap(model.rpn_head.deltas, too_steep)

        wrong = [part for part, passed in compare(spoil).items() if not passed]
        # The gradient of the deltas is that of what they are made of, too.
        assert {"mask_head/tower/convs", "rpn_head/deltas"} <= set(wrong)
        assert not {"rpn_head/objectness", "box_heads/0/logits", "mask_head/logits"} & set(wrong)


class CheckTest:
    def test_the_gradients_of_the_network_are_right_and_there_is_a_picture(self, made, tmp_path):
        settings, manifest = made
        settings.model.box_head.cascade_ious, settings.model.box_head.dropout = (0.3, 0.4), 0.5
        checked = gradients.check(settings.validate(), manifest, tmp_path / "out", tf.distribute.get_strategy())
        assert all(verdict.passed for verdict in checked), checked
        names = {verdict.name for verdict in checked}
        assert len(names) == len(checked)
        assert {"backbone/stem/conv", "fpn/lateral/0", "rpn_head/deltas", "box_heads/0/logits"} <= names
        assert (tmp_path / "out" / "gradients.png").stat().st_size > 5000
        assert settings.model.box_head.cascade_ious == (0.3, 0.4)  # as it was

    def test_a_part_that_changes_nothing_is_not_judged(self):
        found = [gradients.Comparison("fpn", 0.0, 0.0, 0.0, 1e-2)] * 2
        assert gradients._verdict("fpn", found).passed is None

    @pytest.mark.parametrize(("error", "passed"), [(0.049, True), (0.051, False), (float("nan"), False)])
    def test_the_worst_direction_counts(self, error, passed):
        found = [gradients.Comparison("fpn", 1.0, 1.0, each, 1e-3) for each in (0.0, error)]
        assert gradients._verdict("fpn", found[::-1]).passed is passed
