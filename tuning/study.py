"""Trials of a search: each is a training in a process of its own, which says what it has come to in metrics.jsonl."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import optuna

from data.errors import InputError
from tuning import space as spaces

STORAGE = "study.db"
TRAIN_MAIN = pathlib.Path(__file__).resolve().parents[1] / "train_main.py"
_LOOK_SECONDS = 1.0


class TrainingError(RuntimeError):
    """A training that ended otherwise than it should."""


def make(folder, space, *, sampler, seed, patience):
    """Makes a study, or goes on with that of a folder.

    Args:
      folder: of the study; its trials are in study.db there (SQLite).
      space: {flag: distribution} of `space.read`.
      sampler: "tpe" (tree-structured Parzen estimators) or "grid", in which each combination comes once.
      seed: of the sampler.
      patience: evaluations before a trial may be given up that is worse than the median of the earlier ones at the same
        step; 0 gives none up.

    Returns:
      optuna.Study. Trials that were running when the last search ended come first, with the settings that they had.

    Raises:
      InputError: a folder that cannot be written, or a study of another space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--study={folder}: expected a folder that can be written, came: {error.strerror}") from error
    grid = spaces.grid(space) if sampler == "grid" else None
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STORAGE}",
        study_name="study",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.GridSampler(grid, seed=seed) if grid else optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2) if patience else optuna.pruners.NopPruner(),
    )
    _check_space(study, folder, space)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        # In the same folder: its training goes on where its last checkpoint left it.
        place = trial.user_attrs.get("folder", f"trial_{trial.number}")
        study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "folder": place})
    return study


def run(study, folder, space, metric, *, trials, flags, patience):
    """Makes trials until the study has so many that ended, those that fail now too; a grid at most all of its own.

    Args:
      study: of `make`.
      folder: of the study; trial number n trains in trial_<n> there.
      space: see `make`.
      metric: of the evaluations, the larger the better.
      trials: how many.
      flags: further ones of train_main.py, of all trials.
      patience: see `make`.

    Returns:
      int, how many trials failed.
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

    before = len(study.get_trials(states=[optuna.trial.TrialState.FAIL]))
    left = trials - len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]))
    if left > 0 and not _is_exhausted(study):
        study.optimize(objective, n_trials=left, callbacks=[after], catch=[TrainingError])
    return len(study.get_trials(states=[optuna.trial.TrialState.FAIL])) - before


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
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
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


def _check_space(study, folder, space):
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        if dict(trial.distributions) != space:
            raise InputError(f"--study={folder}: expected a study of the same parameters, came one of {trial.params}")


def _is_exhausted(study):
    return isinstance(study.sampler, optuna.samplers.GridSampler) and study.sampler.is_exhausted(study)


def _suggest(trial, name, kind):
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        trial.suggest_categorical(name, kind.choices)
    elif isinstance(kind, optuna.distributions.IntDistribution):
        trial.suggest_int(name, kind.low, kind.high)
    else:
        trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def _text(value):
    return repr(value) if isinstance(value, float) else str(value)
