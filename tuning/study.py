"""Trials of a search: each is a training in a process of its own, which says what it has come to in metrics.jsonl."""

import ctypes
import itertools
import json
import pathlib
import signal
import subprocess
import sys
import time

import optuna

from data.errors import InputError

STORAGE = "study.db"
TRAIN_MAIN = pathlib.Path(__file__).resolve().parents[1] / "train_main.py"
_LOOK_SECONDS = 1.0
_ASKED = "asked"  # what the study's trials were asked: the space, the metric and the flags
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl
STATES = optuna.trial.TrialState


class TrainingError(RuntimeError):
    """A training that ended otherwise than it should."""


def make(folder, space, metric, *, flags, seed, patience, grid=None):
    """Makes a study, or goes on with that of a folder.

    Args:
      folder: of the study; its trials are in study.db there (SQLite).
      space: {flag: distribution} of `space.read`.
      metric: of the evaluations, the larger the better.
      flags: further ones of train_main.py, of all trials.
      seed: of the sampler, tree-structured Parzen estimators.
      patience: evaluations before a trial may be given up that is worse than the median of the earlier ones at the same
        step; 0 gives none up.
      grid: {flag: list}, of which each combination is to come once, in place of what the sampler draws; or None.

    Returns:
      optuna.Study. Trials that were running when the last search ended come first, with the settings that they had.

    Raises:
      InputError: a folder that cannot be written, or a study of another space, metric or flags.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / STORAGE}",
            study_name="study",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2) if patience else optuna.pruners.NopPruner(),
        )
    except Exception as error:  # Of the file system, or of the database library.
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"--study={folder}: expected a folder of a study, or for one, came: {reason}") from error
    _check_asked(study, folder, {"space": _as_text(space), "metric": metric, "flags": list(flags)})
    for trial in study.get_trials(states=[STATES.RUNNING]):
        study.tell(trial.number, state=STATES.FAIL)
        _ask_again(study, trial)
    if grid and not study.trials:
        for values in itertools.product(*grid.values()):
            study.enqueue_trial(dict(zip(grid, values, strict=True)))
    return study


def run(study, folder, space, metric, *, trials, flags, patience, is_grid=False):
    """Makes trials until the study has so many that ended, or a grid all of its own.

    Args:
      study: of `make`.
      folder, space, metric, flags, patience: see `make`.
      trials: how many, those that fail now too.
      is_grid: whether only trials that wait are made.

    Returns:
      int, how many trials failed.

    Raises:
      KeyboardInterrupt: the trial that was running comes first the next time, and its training goes on.
    """

    def objective(trial):
        for name, kind in space.items():
            _suggest(trial, name, kind)
        place = folder / trial.user_attrs.get("folder", f"trial_{trial.number}")
        trial.set_user_attr("folder", place.name)
        shown = " ".join(f"{name}={_text(value)}" for name, value in trial.params.items())
        print(f"trial {trial.number}: {shown}", flush=True)
        return _train(trial, place, metric, flags, patience)

    def after(study, trial):
        place = folder / trial.user_attrs["folder"]
        said = {"COMPLETE": f"{metric} {trial.value}", "PRUNED": "given up", "FAIL": f"failed, see {place}/log.txt"}
        print(f"trial {trial.number}: {said[trial.state.name]}", flush=True)

    before = len(study.get_trials(states=[STATES.FAIL]))
    left = trials - len(study.get_trials(states=[STATES.COMPLETE, STATES.PRUNED]))
    if is_grid:
        left = min(left, len(study.get_trials(states=[STATES.WAITING])))
    if left > 0:
        try:
            study.optimize(objective, n_trials=left, callbacks=[after], catch=[TrainingError])
        except KeyboardInterrupt:
            _ask_again(study, study.trials[-1] if not is_grid else _last_begun(study))
            raise
    return len(study.get_trials(states=[STATES.FAIL])) - before


def _last_begun(study):
    return max((trial for trial in study.trials if trial.datetime_start), key=lambda trial: trial.datetime_start)


def _train(trial, place, metric, flags, patience):
    """Trains with the settings of a trial; the best value of the metric.

    Raises:
      TrainingError: it failed, or made no evaluation.
      optuna.TrialPruned: it was given up.
    """
    settings = [f"--{name}={_text(value)}" for name, value in trial.params.items()]
    command = [sys.executable, str(TRAIN_MAIN), *flags, *settings, f"--workdir={place / 'model'}", "--wandb=disabled"]
    place.mkdir(exist_ok=True)
    with (place / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent)
        try:
            is_given_up = _watch(trial, process, place, metric, patience)
        except BaseException:
            process.send_signal(signal.SIGTERM)  # it writes a checkpoint, from which the trial can go on
            process.wait()
            raise
    values = _values(place, metric)
    if is_given_up:
        raise optuna.TrialPruned
    if process.returncode or not values:
        raise TrainingError
    return max(values.values())


def _end_with_parent():
    """Where the system can: a killed search leaves no training behind, which would be in the way of the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _watch(trial, process, place, metric, patience):
    """Waits for a training, and reports its evaluations as they come; whether it was given up."""
    reported, is_given_up = set(), False
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        for step, value in _values(place, metric).items():
            if step not in reported:
                trial.report(value, step)
                reported.add(step)
        if patience and len(reported) >= patience and not is_given_up and trial.should_prune():
            is_given_up = True
            process.send_signal(signal.SIGTERM)
    return is_given_up


def _values(place, metric):
    """{step: value} of the evaluations that a training has made."""
    path, found = place / "model" / "metrics.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            scalars = json.loads(line)
        except ValueError:
            continue  # the end of a line that is being written
        for name, value in scalars.items():
            if "/" in name and name.split("/")[-1] == metric:
                found[scalars["step"]] = value
    return found


def _ask_again(study, trial):
    """Puts a trial that was cut off first, in the same folder: its training goes on where its checkpoint left it."""
    place = trial.user_attrs.get("folder", f"trial_{trial.number}")
    study.enqueue_trial(trial.params, user_attrs={"folder": place})


def _check_asked(study, folder, asked):
    """Notes what a new study asks; InputError where an earlier one asked something else."""
    before = study.user_attrs.get(_ASKED)
    if before is None:
        study.set_user_attr(_ASKED, asked)
    elif before != asked:
        name = next(name for name in asked if asked[name] != before.get(name))
        raise InputError(f"--study={folder}: expected the {name} of its trials, {before.get(name)}, came {asked[name]}")


def _as_text(space):
    return {name: optuna.distributions.distribution_to_json(kind) for name, kind in space.items()}


def _suggest(trial, name, kind):
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        trial.suggest_categorical(name, kind.choices)
    elif isinstance(kind, optuna.distributions.IntDistribution):
        trial.suggest_int(name, kind.low, kind.high)
    else:
        trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def _text(value):
    return repr(value) if isinstance(value, float) else str(value)
