"""Rung 5: what cannot be learnt by heart cannot be learnt: 1, then 5, then 10 volumes (Karpathy 2019)."""

import math

import numpy as np

from debugging import answers, fixed, pictures, trial, verdicts

RUNG = "overfit"
COUNTS = (1, 5, 10)
STEPS = {1: 600, 5: 1200, 10: 1800}  # at most
LOOP = 50  # steps between two looks
FALL = 5.0  # by which the total falls: what it is in the first steps over what it is in the last ones
IOU = 0.7  # mean mask IoU of the truths
PICTURES = 2


def check(config, manifest, folder, strategy, steps=None):
    """Learns a few training patches by heart, by the config's network, losses and optimizer at its peak rate.

    A training ends as soon as the total has fallen by `FALL` and the masks found overlap the true ones by `IOU`.

    Args:
      config: a Config.
      manifest: of its records.
      folder: for pictures.
      strategy: trains.
      steps: at most so many of each training; None for `STEPS`.

    Returns:
      list of Verdict, two of each number of volumes; no more numbers after one that failed.
    """
    examples = fixed.examples(config, manifest, "train", max(COUNTS))
    has = len(examples["volume"])
    made = trial.Trial(config, strategy, trial.constant(trial.peak_rate(config.train)))
    checked, curves = [], {}
    for count in dict.fromkeys(min(count, has) for count in COUNTS):
        few = fixed.rows(examples, 0, count)
        curve, found, matches = learn(
            made, few, config, STEPS.get(count, max(STEPS.values())) if steps is None else steps
        )
        curves[count] = curve
        checked += judge(count, curve, matches)
        _draw_answers(folder, count, few, found, config)
        if not verdicts.all_passed(checked):
            break
    if has < max(COUNTS):
        came = f"{has} training records"
        checked.append(verdicts.Verdict(RUNG, f"{max(COUNTS)} volumes", None, "as many records", came))
    _draw_curves(folder / "overfit.png", curves)
    verdicts.write_json(folder / "overfit.json", {str(count): curve for count, curve in curves.items()})
    return checked


def learn(made, examples, config, steps):
    """Trains anew until the examples are known, or for so many steps.

    Args:
      made: trial.Trial.
      examples: dict of arrays [N, ...].
      config: a Config.
      steps: at most.

    Returns:
      list of {step, total, mask_iou (None where it was not looked at)}; what is found at the end; and its matches.
    """
    made.begin(examples)
    curve, found, matches = [], None, None
    while not curve or curve[-1]["step"] < steps:
        done = curve[-1]["step"] if curve else 0
        # The first total is that of few steps: in fifty it has fallen a good deal.
        num = min(LOOP, steps - done) if curve else min(5, steps)
        total = made.train(num)["total"]
        curve.append({"step": done + num, "total": total, "mask_iou": None})
        is_last = done + num >= steps or not math.isfinite(total)
        if is_last or total <= curve[0]["total"] / FALL:
            found = answers.find(made.detect, examples)
            matches = answers.match(found, examples, config.model.detections.mask_threshold, answers.MIN_SCORE)
            curve[-1]["mask_iou"] = mean_iou(matches)
        if is_last or (curve[-1]["mask_iou"] or 0.0) >= IOU:
            break
    return curve, found, matches


def mean_iou(matches):
    """Mean over the truths of the IoU of their masks, as `answers.mask_ious` has it; 0 without truths."""
    ious = np.concatenate([answers.mask_ious(match) for match in matches])
    return float(ious.mean()) if ious.size else 0.0


def judge(count, curve, matches):
    """Verdicts about the end of a training on so many volumes."""
    first, last = curve[0]["total"], curve[-1]
    truths = sum(len(match.gt_class_ids) for match in matches)
    surplus = sum(len(match.scores) for match in matches) - sum(
        int(np.sum(answers.mask_ious(match) >= 0.5)) for match in matches
    )
    name = f"{count} volume" + "s" * (count > 1)
    return [
        verdicts.Verdict(
            RUNG,
            f"{name}, total",
            last["total"] <= first / FALL,
            f"at most {first:.3f} / {FALL:g}",
            f"{last['total']:.3f} after {last['step']} steps",
        ),
        verdicts.Verdict(
            RUNG,
            f"{name}, mask IoU",
            last["mask_iou"] >= IOU,
            f"at least {IOU:g}",
            f"{last['mask_iou']:.3f} of {truths} objects, {surplus} detections that are none of them",
        ),
    ]


def _draw_answers(folder, count, examples, found, config):
    for row, said in enumerate(found[:PICTURES]):
        example = {name: value[row] for name, value in examples.items()}
        path, title = folder / f"overfit_{count}_volume_{row}.png", f"one of {count} learnt by heart"
        pictures.draw_detections(
            path, said, example, config.data.classes, config.model.detections.mask_threshold, title
        )


def _draw_curves(path, curves):
    figure, ((totals, ious),) = pictures.figure(11, 4, columns=2)
    for count, curve in curves.items():
        totals.semilogy(
            [one["step"] for one in curve], [one["total"] for one in curve], ".-", label=f"{count} volume(s)"
        )
        seen = [one for one in curve if one["mask_iou"] is not None]
        ious.plot([one["step"] for one in seen], [one["mask_iou"] for one in seen], "o-", label=f"{count} volume(s)")
    ious.axhline(IOU, color="black", linewidth=0.6)
    ious.set(xlabel="step", ylabel="mean mask IoU of the truths", ylim=(0, 1))
    totals.set(xlabel="step", ylabel="total")
    for panel in (totals, ious):
        panel.legend(fontsize=8)
    pictures.save(path, figure)
