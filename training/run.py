"""What is done between the loops of a training: it is tracked, evaluated and kept, and it may end."""

import math

from training import averaging, checkpoints, loop, preemption, stages
from training import strategy as strategies


class Run:
    """A training in its folder."""

    def __init__(
        self, config, workdir, strategy, state, *, request, profiler, tracker=None, evaluate=None, skip_limit=None
    ):
        """Makes what keeps its checkpoints.

        Args:
          config: a Config.
          workdir: its folder.
          strategy: tf.distribute.Strategy under whose scope the state was made.
          state: restore.State.
          request: preemption.Request of this process.
          profiler: tracking.profiler.Profiler.
          tracker: tracking.tracker.Tracker, of the chief alone.
          evaluate: f() -> evaluation.evaluate.Evaluation of the model as it is, or None where it was broken off, and
            its metric; of the chief alone.
          skip_limit: skips.SkipLimit.
        """
        self.config, self.strategy, self.state = config, strategy, state
        self.request, self.profiler, self.skip_limit = request, profiler, skip_limit
        self.tracker, self.evaluate = tracker, evaluate
        self.inspect = None  # f(step), of the chief: shows what trains
        self.worker = strategies.worker_name(strategy)
        self.manager = checkpoints.manager(workdir, state, config.train, worker=self.worker)
        self.best = checkpoints.best_manager(workdir, state.model, worker=self.worker)
        self.last_step = stages.last_step(config.train)
        self.stage_ends = stages.stage_ends(config.train)

    def ends(self):
        """f(step) -> the steps after this one at which a loop has to end."""
        train = self.config.train
        periods = [steps for steps in (train.checkpoint_steps, train.evaluation.steps, train.inspect_steps) if steps]

        def of(step):
            to_trace = self.profiler.next_end(step)
            return [step + period - step % period for period in periods] + [to_trace] * (to_trace is not None)

        return of

    def step(self):
        """How many steps have been made."""
        return int(self.state.optimizer.iterations.numpy())

    def is_over(self):
        """Whether its last step has been made and evaluated, or evaluations have not become better for too long."""
        patience, step = self.config.train.evaluation.patience, self.step()
        is_stale = 0 < patience <= int(self.state.progress.stale.numpy())
        return is_stale or (step >= self.last_step and not self._wants_evaluation(step))

    def catch_up(self):
        """Makes the evaluation that was due when the run was asked to stop; call it before the first loop.

        It is part of the next checkpoint: to write that of this step once more would put it at risk.

        Raises:
          preemption.PreemptedError: some worker was asked to stop again.
        """
        step = self.step()
        self.profiler.before(step)
        if not self._wants_evaluation(step):
            return
        self._evaluate(step)
        if strategies.sum_of_workers(self.strategy, self.request.is_made) > 0:
            raise preemption.PreemptedError(f"asked to stop: at step {step} as before; start again to go on")

    def after_loop(self, step, scalars):
        """See `loop.train`.

        Returns:
          Whether evaluations have not become better for too long.

        Raises:
          preemption.PreemptedError: some worker was asked to stop; the checkpoint is written.
          InputError: see `skips.SkipLimit`.
          loop.NonFiniteError: more steps were skipped than `train.max_non_finite`.
        """
        self.profiler.after(step)
        if self.tracker and "total" in scalars:  # not where all steps were skipped
            self.tracker.log(step, scalars)
        if self.skip_limit:
            self.skip_limit.check(step, scalars)
        self._count_non_finite(step, scalars)
        if self._wants_evaluation(step):
            self._evaluate(step)
        every = self.config.train.inspect_steps
        if self.inspect and every and step % every == 0:
            self.inspect(step)
        if step in self.stage_ends[:-1]:
            self.state.progress.begin_stage()
        stops = strategies.sum_of_workers(self.strategy, self.request.is_made) > 0
        if stops or step % self.config.train.checkpoint_steps == 0 or step in self.stage_ends or self.is_over():
            checkpoints.save(self.manager, step)
        if stops:
            raise preemption.PreemptedError(f"asked to stop: checkpoint of step {step} written; start again to go on")
        self.profiler.before(step)
        return self.is_over()

    def keep_weights(self):
        """Gives the tracker the best and the newest weights."""
        for name, manager in (("best", self.best), ("checkpoint", self.manager)):
            if manager.latest_checkpoint:
                self.tracker.log_artifact(manager.latest_checkpoint, "model", name)

    def _wants_evaluation(self, step):
        every = self.config.train.evaluation.steps
        is_due = every > 0 and step > 0 and (step % every == 0 or step == self.last_step) and self._is_measured(step)
        return is_due and int(self.state.progress.last_step.numpy()) < step

    def _is_measured(self, step):
        """Whether the stage that makes a step learns what answers say: the metric of others stands still."""
        return not {"heads", "attributes"}.isdisjoint(self._learns(step))

    def _learns(self, step):
        stages_of = zip(self.config.train.as_stages(), self.stage_ends, strict=True)
        return next((stage.learns for stage, end in stages_of if step <= end), ("heads",))

    def _evaluate(self, step):
        """Evaluates the mean weights, and keeps them if they are the best so far."""
        with averaging.applied(self.state.average, self.state.model):
            found, value = self.evaluate() if self.evaluate else (None, 0.0)
            if self.evaluate and found is None:
                value = math.nan
            # The chief's value, so that all workers do the same.
            value = strategies.sum_of_workers(self.strategy, value)
            if math.isnan(value):
                return  # broken off; see `catch_up`
            # Where boxes and masks stand as they are, so does their metric, and the newest attributes are the best.
            ties = "attributes" in self._learns(step)
            is_best = self.state.progress.evaluated(step, value, self.config.train.schedule, ties=ties)
            if is_best:
                checkpoints.save(self.best, step)
        if self.tracker:
            self.tracker.log_evaluation(step, found, self.config)
        if not self.worker:
            metric = self.config.train.evaluation.metric
            print(f"step {step}: {metric} {value:.3f}{', the best so far' if is_best else ''}", flush=True)

    def _count_non_finite(self, step, scalars):
        count, progress = round(scalars["non_finite"]), self.state.progress
        if not count:
            return
        progress.non_finite.assign_add(count)
        total, allowed = int(progress.non_finite.numpy()), self.config.train.max_non_finite
        print(f"warning: step {step}: skipped {count} step(s) of a loss or gradient that is not finite", flush=True)
        if total > allowed:
            raise loop.NonFiniteError(
                None,
                f"step {step}: expected at most train.max_non_finite={allowed} steps that are not finite, came {total}",
            )
