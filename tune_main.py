"""Searches for settings by many trainings: python tune_main.py --space=configs/sweep.yaml --study=runs/tune"""

import json
import pathlib
import shlex
import signal
import sys

from configs import command_line

from absl import flags  # isort: skip

SPACE = flags.DEFINE_string("space", "configs/sweep.yaml", "what is searched, a file as wandb's sweeps read it")
STUDY = flags.DEFINE_string("study", "runs/tune", "folder of the search, which goes on if there is one")
SAMPLER = flags.DEFINE_enum("sampler", "tpe", ["tpe", "grid"], "tpe learns from earlier trials; grid takes them all")
TRIALS = flags.DEFINE_integer("trials", 20, "how many trainings the study is to have", lower_bound=1)
PATIENCE = flags.DEFINE_integer(
    "patience", 2, "evaluations before a trial worse than the median is given up; 0: never", lower_bound=0
)
TRAIN_FLAGS = flags.DEFINE_string(
    "train_flags",
    "--strategy=mirrored --config.train.evaluation.steps=600",
    "of train_main.py, for all trials: which config, for instance",
)
SEED = flags.DEFINE_integer("seed", 0, "of the sampler", lower_bound=0)


def main():
    """Runs trials and prints the best; the study's folder has best.json, and each trial's log and run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs goes on the next time

    from data.atomic import replacing
    from data.errors import InputError

    try:
        import optuna
    except ImportError as error:
        raise InputError("expected optuna, came none: pip install -e '.[tune]'") from error

    from tuning import space as spaces
    from tuning import study as studies

    try:
        given = shlex.split(TRAIN_FLAGS.value)
    except ValueError as error:
        raise InputError(f"--train_flags: expected flags as a shell takes them, came {TRAIN_FLAGS.value!r}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, metric = spaces.read(SPACE.value)
    folder = pathlib.Path(STUDY.value)
    grid = spaces.grid(space) if SAMPLER.value == "grid" else None
    shared = {"flags": given, "patience": PATIENCE.value}
    study = studies.make(folder, space, metric, seed=SEED.value, grid=grid, **shared)
    failed = studies.run(study, folder, space, metric, trials=TRIALS.value, is_grid=grid is not None, **shared)
    ended = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    if not ended:
        raise InputError(f"--study={folder}: expected a trial that evaluates, {failed} failed; see trial_*/log.txt")
    best = study.best_trial
    with replacing(folder / "best.json") as temporary:
        text = {"trial": best.number, metric: best.value, "settings": best.params}
        temporary.write_text(json.dumps(text, indent=2) + "\n")
    print(f"best of {len(ended)} trials: {metric} {best.value:.3f} by trial {best.number}")
    print(" ".join(f"--{name}={value}" for name, value in best.params.items()))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main)
