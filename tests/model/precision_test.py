"""In half precision the network says nearly the same, in float32, and trains.

A tiny network on a CPU, 200 steps at most and a low rate: this shows that nothing is cast where it must not be, not
that a long training in half precision reaches what one in float32 does.
"""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from model import roi_sums
from tests import halves, tiny
from tests.model import networks
from training import loop, optimizers

SEED = tf.constant([0, 1])
# Of the loss in float16. The usual beginning, 2^15, overflows in the first three steps: skipped, they leave a run three
# steps behind, and single losses up to 18 % above, for as long as they fall quickly.
SCALE_WITHOUT_OVERFLOW = 512.0
# All that casts: heads, pooling, interpolation, slopes, levels.
SETTINGS = networks.EVERY_HEAD | {
    "model.attribute_head.sums": "linear",
    "model.style.activation": "prelu",
    "model.backbone.stem_pool": (1, 1, 2),
    "model.fpn.upsampling": "trilinear",
    "model.fpn.bottom_up": True,
    "train.loss_weights.l2": 1.0,
    "model.style.l2": 1e-4,
}
# Nothing leaps: no draws, no cascade, a low rate. Otherwise two runs in float32 whose weights differ by 1e-5 part, too.
SMOOTH = SETTINGS | {
    "model.box_head.cascade_ious": (),
    "model.rpn.num_samples": 4000,
    "model.rois.num_samples": 80,
    "train.warmup_steps": 20,
    "train.learning_rate": 3e-4,
}


@pytest.fixture(name="world", scope="module")
def fixture_world():
    """A network in float32 in which chance draws nothing, its losses and its detections."""
    tf.keras.utils.set_random_seed(0)
    settings = tiny.exhaustive(networks.config(SETTINGS))
    model, batch = tiny.model(settings), networks.batch(settings)
    return types.SimpleNamespace(
        model=model, batch=batch, losses=model.compute_losses(batch, SEED), found=model(batch["volume"])
    )


@pytest.fixture(name="smooth", scope="module")
def fixture_smooth():
    """The losses of 200 steps in float32, ten by ten."""
    return run(learner(SMOOTH, 200), 200)


@pytest.fixture(name="half", params=halves.POLICIES)
def fixture_half(request, world):
    """Its Config and network in half precision, with the same weights."""
    settings = tiny.exhaustive(networks.config(SETTINGS | {"train.precision": request.param}))
    model = tiny.model(settings)
    model.set_weights(world.model.get_weights())
    return settings, model


def learner(overrides, num_steps, scale=None):
    """What train_main makes for so many steps: Config, network, optimizer, compiled steps, and an iterator.

    A `scale` of the loss replaces that with which an optimizer for float16 begins.
    """
    tf.keras.utils.set_random_seed(0)
    settings = networks.config(overrides | {"train.steps": num_steps, "train.checkpoint_steps": num_steps})
    model, optimizer = tiny.model(settings), optimizers.make(settings.train)
    if scale:
        unscaled = optimizers.make(dataclasses.replace(settings.train, precision="float32"))
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(unscaled, initial_scale=scale)
    optimizer.build(model.trainable_variables)
    strategy, stage = tf.distribute.get_strategy(), settings.train.as_stages()[0]
    train_steps = loop.make_train_steps(strategy, model, optimizer, settings.train, stage)
    iterator = iter(tf.data.Dataset.from_tensors(networks.batch(settings)).repeat())
    return types.SimpleNamespace(
        settings=settings, model=model, optimizer=optimizer, train_steps=train_steps, iterator=iterator
    )


def run(learning, num_steps):
    """Trains for so many steps: the losses of every twentieth of them, each [20]; asserts that all is finite."""
    part = tf.constant(num_steps // 20)
    logs = [learning.train_steps(learning.iterator, part) for _ in range(20)]
    found = {name: np.array([log[name] for log in logs]) for name in logs[0]}
    norms = found.pop("gradient_norm")
    for name, values in found.items():
        assert np.all(np.isfinite(values)), name
    # A step whose gradient overflows is skipped, and the loss is scaled less from then on.
    assert np.isfinite(norms[-1])
    assert all(np.all(np.isfinite(variable)) for variable in learning.model.variables)
    return found


class PrecisionTest:
    def test_losses_are_near_those_of_float32(self, world, half):
        _, model = half
        for name, value in model.compute_losses(world.batch, SEED).items():
            assert value.dtype == tf.float32
            np.testing.assert_allclose(value, world.losses[name], rtol=0.05, err_msg=name)

    def test_gradients_are_finite_and_float32(self, world, half):
        _, model = half
        _, gradients = networks.losses_and_gradients(model, world.batch, SEED)
        for name, gradient in gradients.items():
            assert gradient.dtype == tf.float32, name
            assert np.all(np.isfinite(gradient)), name

    def test_answers_are_float32(self, world, half):
        settings, model = half
        found = model(world.batch["volume"])
        networks.check_detections(found, settings, 2)
        assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in world.found.items()}
        assert model.backbone(world.batch["volume"])[3].dtype == tf.as_dtype(settings.train.precision[6:])
        assert {variable.dtype for variable in model.variables} == {tf.float32}

    def test_sums_read_the_volume_and_the_masks_in_float32(self, world, half, monkeypatch):
        _, model = half
        read = []

        def object_sums(volume, boxes, masks, **kwargs):
            read.append((volume, masks))
            return exact(volume, boxes, masks, **kwargs)

        exact = roi_sums.object_sums
        monkeypatch.setattr(roi_sums, "object_sums", object_sums)
        model(world.batch["volume"])
        model.compute_losses(world.batch, SEED)
        assert len(read) == 2
        for volume, masks in read:
            np.testing.assert_array_equal(volume, world.batch["volume"])
            assert volume.dtype == masks.dtype == tf.float32

    @pytest.mark.parametrize(
        "precision", [pytest.param("mixed_bfloat16", marks=[pytest.mark.slow, halves.needs_bfloat16]), "mixed_float16"]
    )
    def test_twenty_steps_of_training(self, precision):
        totals = run(learner({"train.precision": precision}, 20), 20)["total"]
        assert totals[-1] < totals[0]

    @pytest.mark.slow
    def test_a_step_that_is_skipped_does_not_end_the_run(self):
        learning = learner({"train.precision": "mixed_float16"}, 20)
        logs = []
        loop.train(
            learning.train_steps,
            learning.iterator,
            learning.optimizer,
            learning.settings.train,
            last_step=20,
            on_log=lambda step, scalars: logs.append(step),
            on_checkpoint=lambda step: None,
        )
        assert logs == [5, 10, 15, 20]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("precision", "scale", "tolerance"),
        [
            pytest.param("mixed_bfloat16", None, 0.05, marks=halves.needs_bfloat16),
            ("mixed_float16", SCALE_WITHOUT_OVERFLOW, 0.05),
            ("mixed_float16", None, 0.25),
        ],
    )
    def test_two_hundred_steps_learn_as_in_float32(self, precision, scale, tolerance, smooth):
        found = run(learner(SMOOTH | {"train.precision": precision}, 200, scale), 200)
        assert found["total"][-1] < 0.5 * found["total"][0]
        np.testing.assert_allclose(found["total"], smooth["total"], rtol=0.05)
        for name, values in found.items():
            # Parts that have all but gone count by what they add to the total.
            np.testing.assert_array_less(np.abs(values - smooth[name]), 0.05 * smooth["total"], err_msg=name)
            matters = smooth[name] > 0.05 * smooth["total"]
            np.testing.assert_allclose(values[matters], smooth[name][matters], rtol=tolerance, err_msg=name)
