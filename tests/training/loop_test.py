import dataclasses
import json
import pathlib
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from configs import train_schema
from tests import tiny
from tests.model import networks
from training import loop, optimizers, restore, strategy

ROOT = pathlib.Path(__file__).parents[2]
LOSSES = ["rpn_class", "rpn_box", "roi_class", "roi_box", "mask", "mask_dice"]
WEIGHTS = train_schema.LossWeights(rpn_class=2.0, rpn_box=0.5, roi_class=1.0, roi_box=0.25, mask=3.0, mask_dice=0.0)


def run_train(settings, *, start=0, bad_at=None, periods=(), ends_at=None):
    """The calls that `train` makes, with a stand-in for the compiled steps."""
    optimizer = types.SimpleNamespace(iterations=tf.Variable(start), learning_rate=tf.Variable(0.5))
    calls = types.SimpleNamespace(loops=[], logs=[], ended=None)

    def train_steps(iterator, num_steps):
        good = num_steps if bad_at is None else tf.clip_by_value(bad_at - 1 - optimizer.iterations, 0, num_steps)
        optimizer.iterations.assign_add(num_steps if settings.on_non_finite == "skip" else good)
        calls.loops.append(int(num_steps))
        return {"mask": 2.0, "total": 3.0, "wait_seconds": 0.0, "non_finite": float(good < num_steps)}

    def on_loop(step, scalars):
        calls.logs.append((step, scalars))
        return step == ends_at

    calls.ended = loop.train(
        train_steps,
        iter(()),
        optimizer,
        settings,
        last_step=settings.steps,
        ends=lambda step: [step + p - step % p for p in periods],
        on_loop=on_loop,
    )
    return calls


class TrainTest:
    @pytest.mark.parametrize(
        ("start", "loops"),
        [(0, [4, 3, 4, 3, 4, 2]), (7, [4, 3, 4, 2]), (13, [1, 4, 2]), (20, []), (25, [])],
    )
    def test_loops_end_at_multiples_of_a_period_and_at_the_last_step(self, start, loops):
        calls = run_train(train_schema.Train(steps=20, steps_per_loop=4), start=start, periods=(7,))
        assert calls.loops == loops
        assert [step for step, _ in calls.logs] == [start + done for done in np.cumsum(loops)]
        assert calls.ended is False

    def test_several_periods(self):
        calls = run_train(train_schema.Train(steps=12, steps_per_loop=20), periods=(5, 4))
        assert [step for step, _ in calls.logs] == [4, 5, 8, 10, 12]

    def test_what_is_called_after_a_loop_may_end_it(self):
        calls = run_train(train_schema.Train(steps=20, steps_per_loop=5), ends_at=10)
        assert ([step for step, _ in calls.logs], calls.ended) == ([5, 10], True)

    def test_log_gains_rate_and_speed(self):
        _, scalars = run_train(train_schema.Train(steps=2, warmup_steps=0, steps_per_loop=5)).logs[0]
        names = ["mask", "total", "non_finite", "learning_rate", "volumes_per_second", "input_wait"]
        assert list(scalars) == names
        assert scalars["input_wait"] == 0.0
        assert scalars["mask"] == 2.0
        assert scalars["learning_rate"] == 0.5
        assert scalars["volumes_per_second"] > 0.0

    @pytest.mark.parametrize(("bad_at", "before"), [(3, []), (16, [5, 10, 15])])
    def test_what_is_not_finite_stops_the_run(self, bad_at, before):
        settings = train_schema.Train(steps=20, steps_per_loop=5)
        with pytest.raises(
            loop.NonFiniteError, match=f"^step {bad_at}: expected a finite loss and gradient$"
        ) as raised:
            run_train(settings, bad_at=bad_at)
        assert raised.value.step == bad_at

    def test_or_is_counted(self):
        settings = train_schema.Train(steps=10, steps_per_loop=5, on_non_finite="skip")
        calls = run_train(settings, bad_at=6)
        assert [(step, scalars["non_finite"]) for step, scalars in calls.logs] == [(5, 0.0), (10, 1.0)]


@pytest.fixture(name="world", scope="module")
def fixture_world():
    """The tiny network under a strategy, its compiled steps, and a way back to its first weights."""
    tf.keras.utils.set_random_seed(0)
    config = tiny.config(steps=7, steps_per_loop=2, checkpoint_steps=3, clip_norm=0.5)
    config.train.loss_weights = WEIGHTS
    mirrored = strategy.make("mirrored")
    with mirrored.scope():
        model = tiny.model(config)
        optimizer = optimizers.make(config.train)
        optimizer.build(model.trainable_variables)
    batch = {**tiny.batch(config, seed=0), "skipped": np.int32([0, 0])}
    variables = [*model.variables, *optimizer.variables]
    first = [variable.numpy() for variable in variables]

    def reset():
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)

    def iterator(volumes=batch):
        dataset = tf.data.Dataset.from_tensors(volumes).repeat()
        return iter(mirrored.distribute_datasets_from_function(lambda context: dataset))

    train_steps = loop.make_train_steps(mirrored, model, optimizer, config.train, config.train.as_stages()[0])
    return types.SimpleNamespace(
        strategy=mirrored,
        config=config,
        model=model,
        optimizer=optimizer,
        batch=batch,
        reset=reset,
        iterator=iterator,
        train_steps=train_steps,
    )


class TimedNextTest:
    @pytest.mark.parametrize(("batch_seconds", "step_seconds"), [(0.04, 0.0), (0.0, 0.04)])
    def test_measures_the_wait_and_not_the_work(self, batch_seconds, step_seconds):
        def slow(number, seconds):
            return tf.ensure_shape(tf.py_function(lambda n: (time.sleep(seconds), n)[1], [number], tf.int64), [])

        @tf.function
        def run(iterator):
            waited, total = tf.constant(0.0), tf.constant(0, tf.int64)
            for _ in tf.range(10):
                batch, seconds = loop.timed_next(iterator, [total])
                waited, total = waited + seconds, total + slow(batch["number"], step_seconds)
            return waited

        numbers = iter(tf.data.Dataset.range(100).map(lambda n: {"number": slow(n, batch_seconds)}))
        traced = run.get_concrete_function(numbers)
        began = time.perf_counter()
        waited = float(traced(numbers))
        # However busy the machine is: what is not the wait is at least the work.
        assert 10 * batch_seconds <= waited <= time.perf_counter() - began - 10 * step_seconds


class MakeTrainStepsTest:
    def test_skipped_records_are_summed_over_replicas_and_steps(self, world):
        world.reset()
        scalars = world.train_steps(world.iterator({**world.batch, "skipped": np.int32([1, 2])}), tf.constant(2))
        assert scalars["skipped"] == 6.0

    def test_total_is_the_weighted_sum(self, world):
        world.reset()
        scalars = {name: float(value) for name, value in world.train_steps(world.iterator(), tf.constant(1)).items()}
        assert list(scalars) == [
            *LOSSES,
            "total",
            "gradient_norm",
            "wait_seconds",
            "skipped",
            "non_finite",
        ]
        assert scalars["wait_seconds"] >= 0.0
        assert scalars["skipped"] == 0.0
        weighted = sum(getattr(WEIGHTS, name) * scalars[name] for name in LOSSES)
        np.testing.assert_allclose(scalars["total"], weighted, rtol=1e-5)

    def test_nothing_of_a_step_is_converted_by_autograph(self, world, monkeypatch):
        world.reset()
        seen, losses_of = [], world.model.compute_losses

        def watched(*args, **kwargs):
            seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
            return losses_of(*args, **kwargs)

        monkeypatch.setattr(world.model, "compute_losses", watched)
        train, where = world.config.train, (world.strategy, world.model, world.optimizer)
        steps = loop.make_train_steps(*where, train, train.as_stages()[0])
        steps.get_concrete_function(world.iterator(), tf.constant(1))
        assert seen
        assert set(seen) == {"DISABLED"}

    def test_losses_are_the_mean_over_the_batch(self, world):
        world.reset()
        seeds = loop.example_seeds(world.config.train.seed, 0, world.batch["number"])
        expected = world.model.compute_losses(world.batch, seeds)
        scalars = world.train_steps(world.iterator(), tf.constant(1))
        for name in LOSSES:
            np.testing.assert_allclose(scalars[name], np.mean(expected[name]), rtol=1e-3, err_msg=name)

    def test_several_steps_give_the_mean_of_single_ones(self, world):
        world.reset()
        iterator = world.iterator()
        single = [world.train_steps(iterator, tf.constant(1)) for _ in range(2)]
        world.reset()
        both = world.train_steps(world.iterator(), tf.constant(2))
        for name in (*LOSSES, "total", "gradient_norm"):
            value = both[name]
            np.testing.assert_allclose(value, np.mean([s[name] for s in single]), rtol=1e-3, err_msg=name)
        assert int(world.optimizer.iterations.numpy()) == 2

    def test_gradient_is_clipped_after_it_is_measured(self, world):
        world.reset()
        scalars = world.train_steps(world.iterator(), tf.constant(1))
        assert scalars["gradient_norm"] > 0.5
        # Adam's first moment is a tenth of the clipped gradient.
        moments = [v for v in world.optimizer.variables if v.name.startswith("m/")]
        assert len(moments) == len(world.model.trainable_variables)
        np.testing.assert_allclose(tf.linalg.global_norm(moments), 0.1 * 0.5, rtol=1e-4)

    def test_trains_until_the_last_step(self, world):
        world.reset()
        logs = []
        loop.train(
            world.train_steps,
            world.iterator(),
            world.optimizer,
            world.config.train,
            last_step=7,
            ends=lambda step: [step + 3 - step % 3],
            on_loop=lambda step, scalars: logs.append((step, scalars)),
        )
        assert [step for step, _ in logs] == [2, 3, 5, 6, 7]
        assert int(world.optimizer.iterations.numpy()) == 7
        assert all(np.isfinite(value) for _, scalars in logs for value in scalars.values())

    def test_a_step_that_is_not_finite_changes_nothing(self, world):
        world.reset()
        batches = [world.batch, dict(world.batch, volume=np.full_like(world.batch["volume"], np.nan)), world.batch]
        dataset = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *parts: np.stack(parts), *batches))
        iterator = iter(world.strategy.distribute_datasets_from_function(lambda context: dataset))
        world.train_steps(iterator, tf.constant(1))
        before = [variable.numpy() for variable in [*world.model.variables, *world.optimizer.variables]]
        scalars = world.train_steps(iterator, tf.constant(2))
        assert float(scalars["non_finite"]) == 1.0
        after = [variable.numpy() for variable in [*world.model.variables, *world.optimizer.variables]]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(new, old)
        # The rest of the loop was not run: its batch is still there.
        assert int(world.optimizer.iterations.numpy()) == 1
        assert len(list(iterator)) == 1

    @pytest.mark.usefixtures("eagerly")
    def test_or_is_skipped_and_counted(self, world):
        world.reset()
        batches = [world.batch, dict(world.batch, volume=np.full_like(world.batch["volume"], np.nan)), world.batch]
        dataset = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *parts: np.stack(parts), *batches))
        train = dataclasses.replace(world.config.train, on_non_finite="skip")
        skipping = loop.make_train_steps(world.strategy, world.model, world.optimizer, train, train.as_stages()[0])
        scalars = skipping(iter(world.strategy.distribute_datasets_from_function(lambda _: dataset)), tf.constant(3))
        assert float(scalars["non_finite"]) == 1.0
        assert int(world.optimizer.iterations.numpy()) == 3
        assert all(np.isfinite(value) for value in scalars.values())
        # The mean is that of the two other steps.
        assert 0.5 < float(scalars["total"]) / self.first_total(world) < 1.5

    def test_statistics_of_normalisation_are_held_back_too(self):
        config = networks.config({"model.style.norm": "batch", "train.on_non_finite": "skip"})
        where = strategy.make("one_device")
        state = restore.make_state(config)
        steps = loop.make_train_steps(
            where, state.model, state.optimizer, config.train, config.train.as_stages()[0], average=state.average
        )
        good = networks.batch(config)
        bad = dict(good, volume=np.full_like(good["volume"], np.nan))

        def run(batch):
            scalars = steps(iter(tf.data.Dataset.from_tensors(batch)), tf.constant(1))
            assert scalars["skipped"] == 0.0  # where the batch does not say
            return [variable.numpy() for variable in state.model.variables]

        first = loop.moving_statistics(state.model)
        assert len(first) > 10
        before, after = run(good), run(bad)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(new, old)
        assert any((new != old).any() for old, new in zip(after, run(good), strict=True))

    def first_total(self, world):
        world.reset()
        return float(world.train_steps(world.iterator(), tf.constant(1))["total"])


class TwoDevicesTest:
    @pytest.fixture(name="result", scope="class")
    def fixture_result(self):
        command = [sys.executable, "-m", "tests.training.two_devices"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    def test_two_replicas_and_one_chief(self, result):
        assert (result["replicas"], result["is_chief"]) == (2, True)

    def test_first_step_equals_that_of_one_device(self, result):
        for name, value in result["one_device"].items():
            np.testing.assert_allclose(result["two_devices"][name], value, rtol=1e-3, err_msg=name)

    def test_replicas_stay_equal_while_the_weights_move(self, result):
        assert result["replicas_differ_by"] == 0.0
        assert result["moved"] == result["num_variables"]
