import functools
import math
import types

import numpy as np
import pytest
import tensorflow as tf

from configs import train_schema
from data.errors import InputError
from tests import tiny
from tracking import profiler
from training import checkpoints, loop, preemption, restore, run, skips, strategy

ONE = strategy.make("one_device")


class Recorder:
    """Stands for a Tracker."""

    def __init__(self):
        self.scalars, self.evaluations, self.artifacts = [], [], []

    def log(self, step, scalars):
        self.scalars.append(step)

    def log_evaluation(self, step, evaluation, config):
        self.evaluations.append((step, evaluation))

    def log_artifact(self, path, kind, name):
        self.artifacts.append((path, kind, name))


@functools.cache
def made_state(average):
    """The state of the tiny network, made once, and what its variables were."""
    config = tiny.config(steps=12)
    config.train.average.name = average
    tf.keras.utils.set_random_seed(0)
    state = restore.make_state(config)
    kept = (state.model, state.progress, *([state.average] if state.average else []))
    variables = [*state.optimizer.variables, *(variable for part in kept for variable in part.variables)]
    return state, [(variable, variable.numpy()) for variable in variables]


def new_state(average):
    """`made_state` as it was."""
    state, first = made_state(average)
    for variable, value in first:
        variable.assign(value)
    return state


class World:
    """A run of 12 steps of which nothing is trained: its steps are counted, its evaluations given."""

    def __init__(self, folder, values=(), skip_limit=None, profile="", average="none", **settings):
        self.config = tiny.config(steps=12, checkpoint_steps=5, **settings)
        self.config.train.average.name = average
        self.folder, self.values, self.seen = folder, list(values), []
        self.state = new_state(average)
        self.request, self.tracker = preemption.Request(), Recorder()
        self.run = run.Run(
            self.config,
            folder,
            ONE,
            self.state,
            request=self.request,
            profiler=profiler.Profiler(profile, folder / "tensorboard"),
            tracker=self.tracker,
            evaluate=self.evaluate,
            skip_limit=skip_limit,
        )

    def evaluate(self):
        self.seen.append(self.state.model.get_weights()[0].copy())
        value = self.values.pop(0)
        return (None, math.nan) if value is None else (types.SimpleNamespace(value=value), value)

    def go(self, *steps, **scalars):
        """Ends loops at these steps; returns what the last said."""
        for step in steps:
            self.state.optimizer.iterations.assign(step)
            over = self.run.after_loop(step, {"total": 1.0, "non_finite": 0.0, "skipped": 0.0, **scalars})
        return over

    def kept(self, folder="checkpoints"):
        return [int(path.split("-")[-1]) for path in checkpoints.newest_first(self.folder / folder)]


def evaluation(**settings):
    found = tiny.config().train.evaluation
    for name, value in settings.items():
        setattr(found, name, value)
    return found


class AfterLoopTest:
    def test_keeps_a_checkpoint_every_so_many_steps_and_at_the_end(self, tmp_path):
        world = World(tmp_path)
        assert world.go(3, 5, 8, 10) is False
        assert world.kept() == [10, 5]
        assert world.go(12) is True
        assert world.kept() == [12, 10, 5]
        assert world.tracker.scalars == [3, 5, 8, 10, 12]

    def test_evaluates_and_keeps_the_best_weights(self, tmp_path, capsys):
        world = World(tmp_path, [0.2, 0.5, 0.4], evaluation=evaluation(steps=4))
        world.go(4, 5, 8, 10, 12)
        assert [(step, found.value) for step, found in world.tracker.evaluations] == [(4, 0.2), (8, 0.5), (12, 0.4)]
        assert world.kept("best") == [8]
        assert capsys.readouterr().out.splitlines() == [
            "step 4: mask_ap50 0.200, the best so far",
            "step 8: mask_ap50 0.500, the best so far",
            "step 12: mask_ap50 0.400",
        ]
        # What was best is in the checkpoint, too.
        again = World(tmp_path, evaluation=evaluation(steps=4))
        checkpoints.restore_latest(tmp_path, again.state)
        assert (float(again.state.progress.best), int(again.state.progress.best_step)) == (0.5, 8)
        world.run.keep_weights()
        assert world.tracker.artifacts == [
            (str(tmp_path / "best" / "ckpt-8"), "model", "best"),
            (str(tmp_path / "checkpoints" / "ckpt-12"), "model", "checkpoint"),
        ]

    def test_mean_weights_are_evaluated_and_kept(self, tmp_path):
        world = World(tmp_path, [0.2], average="ema", evaluation=evaluation(steps=4))
        own = world.state.model.get_weights()[0].copy()
        world.state.average.means[0].assign_add(tf.ones_like(own))
        world.state.average.count.assign(1)
        world.go(4)
        np.testing.assert_allclose(world.seen[0], own + 1.0)
        np.testing.assert_array_equal(world.state.model.get_weights()[0], own)
        best, _ = restore.load_model(tmp_path, world.config)
        np.testing.assert_allclose(best.get_weights()[0], own + 1.0)

    def test_ends_when_evaluations_do_not_become_better(self, tmp_path):
        world = World(tmp_path, [0.5, 0.4, 0.5], evaluation=evaluation(steps=2, patience=2))
        assert [world.go(step) for step in (2, 4, 6)] == [False, False, True]
        assert world.kept() == [6]
        again = World(tmp_path, evaluation=evaluation(steps=2, patience=2))
        checkpoints.restore_latest(tmp_path, again.state)
        assert again.run.is_over()

    def test_asked_to_stop(self, tmp_path):
        world = World(tmp_path)
        world.request.is_made = True
        with pytest.raises(preemption.PreemptedError, match="checkpoint of step 3 written; start again to go on"):
            world.go(3)
        assert world.kept() == [3]

    def test_evaluation_that_was_broken_off_is_made_up_for(self, tmp_path):
        world = World(tmp_path, [None], evaluation=evaluation(steps=4))
        world.request.is_made = True
        with pytest.raises(preemption.PreemptedError):
            world.go(4)
        assert world.tracker.evaluations == []
        again = World(tmp_path, [0.3], evaluation=evaluation(steps=4))
        checkpoints.restore_latest(tmp_path, again.state)
        again.run.catch_up()
        assert [step for step, _ in again.tracker.evaluations] == [4]
        again.run.catch_up()  # once is enough
        assert [step for step, _ in again.tracker.evaluations] == [4]
        assert float(again.state.progress.best) == 0.3

    def test_steps_that_are_not_finite_are_counted_up_to_a_bound(self, tmp_path, capsys):
        world = World(tmp_path, max_non_finite=3)
        world.go(2, non_finite=2.0)
        assert "skipped 2 step(s) of a loss or gradient that is not finite" in capsys.readouterr().out
        with pytest.raises(loop.NonFiniteError, match=r"at most train\.max_non_finite=3 steps .*, came 4"):
            world.go(4, non_finite=2.0)
        assert world.kept() == []

    def test_damaged_records_are_counted(self, tmp_path):
        limit = skips.SkipLimit(1, num_records=100, batch_size=2, first_step=0)
        world = World(tmp_path, skip_limit=limit)
        with pytest.raises(InputError, match=r"at most input\.max_corrupt=1"):
            world.go(2, skipped=2.0)

    def test_a_loop_without_any_good_step_is_not_logged(self, tmp_path):
        world = World(tmp_path)
        world.state.optimizer.iterations.assign(2)
        world.run.after_loop(2, {"non_finite": 2.0, "skipped": 0.0})
        assert world.tracker.scalars == []
        assert int(world.state.progress.non_finite) == 2

    def test_stages_that_do_not_learn_heads_are_not_evaluated_and_each_has_its_patience(self, tmp_path):
        stages = tuple(
            train_schema.Stage(name, 4, learns=learns)
            for name, learns in (("a", ("rpn", "heads")), ("b", ("rpn",)), ("c", ("rpn", "heads")))
        )
        world = World(tmp_path, [0.5, 0.4, 0.3, 0.3], stages=stages, evaluation=evaluation(steps=2, patience=2))
        assert [world.go(step) for step in (2, 4, 6, 8, 10, 12)] == [False] * 5 + [True]
        assert [step for step, _ in world.tracker.evaluations] == [2, 4, 10, 12]
        assert int(world.state.progress.stale) == 2

    def test_of_attributes_alone_the_newest_are_the_best(self, tmp_path):
        stages = (train_schema.Stage("a", 4), train_schema.Stage("b", 8))
        world = World(tmp_path, [0.5, 0.5, 0.5, 0.4], stages=stages, evaluation=evaluation(steps=3))
        stages[1].learns = ("attributes",)  # of which this run has none
        best = world.state.progress.best_step
        assert [(world.go(step), int(best))[1] for step in (3, 6, 9, 12)] == [3, 6, 9, 9]

    def test_inspects_every_so_many_steps(self, tmp_path):
        world, seen = World(tmp_path, inspect_steps=4), []
        world.run.inspect = seen.append
        world.go(4, 5, 8, 10)
        assert seen == [4, 8]

    def test_loops_end_where_something_is_to_be_done(self, tmp_path):
        world = World(tmp_path, profile="7:9", inspect_steps=4, evaluation=evaluation(steps=3))
        ends = world.run.ends()
        assert [min(ends(step)) for step in (0, 3, 4, 5, 8, 10)] == [3, 4, 5, 6, 9, 12]
