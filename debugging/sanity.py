"""The ladder of checks of a network and its data before a long training, cheap failures first."""

import pathlib
import time

from debugging import consistency, gradients, initial_losses, overfit, shuffled_labels, statistics, verdicts

RUNGS = {
    "initial_losses": initial_losses.check,
    "gradients": gradients.check,
    "consistency": consistency.check,
    "statistics": statistics.check,
    "overfit": overfit.check,
    "shuffled_labels": shuffled_labels.check,
}


def run(config, manifest, workdir, strategy, rungs=None, steps=None):
    """Climbs the ladder, from first weights, and prints what was expected and what came.

    Args:
      config: a Config.
      manifest: of its records.
      workdir: the run's folder; pictures and sanity.json go to sanity/ in it.
      strategy: tf.distribute.Strategy.
      rungs: names of `RUNGS`, in order; None for all.
      steps: at most so many in each training; None for what each rung takes.

    Returns:
      bool, whether nothing failed.

    Raises:
      ValueError: an unknown rung.
      InputError: records that cannot be read.
    """
    chosen = list(RUNGS) if rungs is None else list(rungs)
    unknown = [name for name in chosen if name not in RUNGS]
    if unknown:
        raise ValueError(f"rungs: expected some of {', '.join(RUNGS)}, came {', '.join(unknown)}")
    folder = pathlib.Path(workdir) / "sanity"
    found, seconds = [], {}
    for name in chosen:
        began = time.monotonic()
        checked = RUNGS[name](config, manifest, folder, strategy, steps)
        seconds[name] = round(time.monotonic() - began, 1)
        print("\n".join(verdict.line() for verdict in checked), flush=True)
        found += checked
        verdicts.write(folder / "sanity.json", found, seconds=seconds)
    counts = [sum(verdict.passed is outcome for verdict in found) for outcome in (True, False, None)]
    print("sanity: {} ok, {} failed, {} not told".format(*counts) + f"; pictures in {folder}", flush=True)
    return verdicts.all_passed(found)
