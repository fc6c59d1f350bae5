"""Learning-rate range test (Smith 2017): the rate rises until the loss does."""

import math
import pathlib

import numpy as np
import tensorflow as tf

from data import pipeline
from data.errors import InputError
from debugging import fixed, pictures, trial, verdicts
from training import loop, prepare

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 120
SMOOTHING = 0.9  # what the smoothed loss keeps of itself in a step
WINDOW = 10  # steps to either side over which a slope is taken: from batch to batch the loss goes up and down
WORST = 4.0  # times the best smoothed loss: there it ends


def run(config, manifest, workdir, strategy, lowest=LOWEST, highest=HIGHEST, steps=STEPS):
    """Trains from first weights while the rate rises, and suggests one; writes no checkpoint.

    Args:
      config: a Config; its batches, optimizer and losses count, its schedule and stages do not.
      manifest: of its records.
      workdir: the run's folder; the picture and lr_find.json go to lr_find/ in it.
      strategy: tf.distribute.Strategy.
      lowest, highest: rate of the first and of the last step.
      steps: how many.

    Returns:
      bool, whether the loss fell at all, so that there is a suggestion.

    Raises:
      ValueError: rates or steps that make no sense.
      InputError: records that cannot be read.
    """
    if not 0 < lowest < highest or steps <= 2 * WINDOW:
        raise ValueError(
            f"expected 0 < lowest < highest and > {2 * WINDOW} steps, came {lowest:g}, {highest:g} and {steps}"
        )
    schedule = rising(lowest, highest, steps)
    rates = [float(schedule(step)) for step in range(steps)]
    losses = measure(config, manifest, strategy, schedule, steps)
    found = {**suggest(rates[: len(losses)], losses), "rates": rates[: len(losses)], "losses": losses}
    folder = pathlib.Path(workdir) / "lr_find"
    _draw(folder / "lr_find.png", found)
    verdicts.write_json(folder / "lr_find.json", {key: _without_infinity(value) for key, value in found.items()})
    end = f"{len(losses)} of {steps} steps, to a rate of {rates[len(losses) - 1]:.2g}"
    if found["suggestion"] is None:
        print(f"FAILED   lr_find: expected a loss that falls, came none in {end}; curve in {folder}", flush=True)
        return False
    steepest, minimum = found["steepest"], found["minimum"]
    print(f"ok       lr_find: steepest at {steepest:.2g}, lowest at {minimum:.2g}, in {end}; curve in {folder}")
    print(f"train.learning_rate={found['suggestion']:.2g}", flush=True)
    if config.train.stages:
        print("train.stages have rates of their own: give it to them", flush=True)
    return True


def rising(lowest, highest, steps):
    """A schedule from the lowest rate at step 0 to the highest at the last of the steps, by equal factors."""
    return tf.keras.optimizers.schedules.ExponentialDecay(lowest, steps - 1, highest / lowest)


def measure(config, manifest, strategy, schedule, steps):
    """Totals of the steps, list of float; it ends early where they are much worse than the best, or not finite."""
    train_config = trial.jointly(config.train)
    with strategy.scope():
        model = fixed.new_model(config)
        optimizer = trial.make_optimizer(model, config.train, schedule)
    (stage,) = train_config.as_stages()
    train_steps = loop.make_train_steps(strategy, model, optimizer, train_config, stage)
    batches = prepare.batches(config, manifest, strategy, step=0)
    losses = []
    try:
        while len(losses) < steps and not _is_over(losses):
            scalars = train_steps(batches, tf.constant(1))
            # A step that is not finite counts none: its losses are left out of the averages.
            losses.append(math.inf if float(scalars["non_finite"]) else float(scalars["total"]))
    except tf.errors.OpError as error:
        line = pipeline.damage(error)
        if line is None:
            raise
        raise InputError(line) from error
    return losses


def smoothed(losses):
    """The moving average that forgets, without its pull to 0 at the beginning (Kingma and Ba 2015): [N] float64."""
    average, result = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        result.append(average / (1 - SMOOTHING**number))
    return np.array(result)


def suggest(rates, losses):
    """Which rate to train with.

    Args:
      rates: [N], rising.
      losses: [N]; the last one may be infinite.

    Returns:
      dict of smoothed [N'] (of the finite losses); minimum, the rate of the lowest; steepest, that around which the
      losses fall fastest by the logarithm of the rate, before the minimum; suggestion: the lower of steepest and a
      tenth of minimum. All three None where the loss does not fall for `WINDOW` steps and as many more.
    """
    losses = [loss for loss in losses if math.isfinite(loss)]
    smooth = smoothed(losses)
    lowest = int(np.argmin(smooth)) if len(losses) else 0
    if lowest < 2 * WINDOW:
        return {"smoothed": smooth.tolist(), "minimum": None, "steepest": None, "suggestion": None}
    logs = np.log(rates)
    centres = range(WINDOW, lowest - WINDOW + 1)
    slopes = [_slope(logs[at - WINDOW : at + WINDOW + 1], losses[at - WINDOW : at + WINDOW + 1]) for at in centres]
    steepest, minimum = float(rates[centres[int(np.argmin(slopes))]]), float(rates[lowest])
    suggestion = min(steepest, minimum / 10)
    return {"smoothed": smooth.tolist(), "minimum": minimum, "steepest": steepest, "suggestion": suggestion}


def _slope(x, y):
    """Of the straight line that fits best."""
    x = x - np.mean(x)
    return float(x @ np.asarray(y) / (x @ x))


def _is_over(losses):
    if not losses:
        return False
    smooth = smoothed(losses)
    return not math.isfinite(smooth[-1]) or smooth[-1] > WORST * smooth.min()


def _without_infinity(value):
    """JSON has no infinity: None."""
    return [one if math.isfinite(one) else None for one in value] if isinstance(value, list) else value


def _draw(path, found):
    figure, ((panel,),) = pictures.figure(8, 5)
    shown = len(found["smoothed"])
    panel.semilogx(found["rates"][:shown], found["losses"][:shown], ".", color="tab:gray", markersize=3, label="total")
    panel.semilogx(found["rates"][:shown], found["smoothed"], color="tab:blue", label="smoothed")
    for name, colour in (("steepest", "tab:orange"), ("minimum", "tab:green"), ("suggestion", "tab:red")):
        if found[name] is not None:
            style = "--" if name == "suggestion" else ":"
            panel.axvline(found[name], color=colour, linestyle=style, label=f"{name} {found[name]:.2g}")
    if shown:
        panel.set_ylim(0, 1.5 * max(found["smoothed"][: max(shown // 2, 1)]))
    panel.set(xlabel="learning rate", ylabel="loss")
    panel.legend(fontsize=9)
    pictures.save(path, figure)
