"""Rung 6: what is learnt from wrong labels must not hold for other volumes (Zhang et al. 2017, random labels).

A network can learn random classes by heart, but of volumes it has not seen it then knows no more than chance. If it
does better, the right classes reach it, or the score, by another way than the labels that were shuffled. With one class
the truths of whole patches are exchanged instead, and the masks must fit no better than those of other patches do.

The labels are shuffled in the patches that data/pipeline has made: what goes wrong before, in the records, shows only
where it leaves something in the volume that goes by the label.
"""

import math

import numpy as np
import tensorflow as tf

from debugging import answers, fixed, pictures, trial, verdicts
from evaluation import metrics

RUNG = "shuffled_labels"
COUNT = 40  # patches to learn, and to validate by
STEPS = 400
DEVIATIONS = 3.0  # of the binomial distribution, above chance
MOST_ABOVE = 0.1  # of a mask AP, above that of the truths of other patches
TRUTHS = ("instance_ids", "boxes", "class_ids", "attributes", "valid", "keypoints", "keypoints_valid")


def check(config, manifest, folder, strategy, steps=None):
    """Trains twice, with shuffled labels and with the right ones, and validates both.

    Args:
      config: a Config.
      manifest: of its records.
      folder: for the picture.
      strategy: trains.
      steps: of each training; None for `STEPS`.

    Returns:
      list of Verdict: whether the shuffled labels stay near chance; and, not told where not, whether the right ones get
      above it in as many steps: if they do not, the first could not have failed.
    """
    right, held_out = (fixed.examples(config, manifest, split, COUNT) for split in ("train", "val"))
    if held_out is None or not held_out["valid"].any() or not right["valid"].any():
        return [
            verdicts.Verdict(RUNG, "validation", None, "objects in train and val to compare", "none in one of them")
        ]
    by_class = len(config.data.classes) > 1
    shuffle = with_shuffled_classes if by_class else with_exchanged_truths
    made = trial.Trial(config, strategy, trial.constant(trial.peak_rate(config.train)))
    scores = {}
    for name, examples in (("shuffled", shuffle(right, config.train.seed)), ("right", right)):
        made.begin(examples)
        made.train(STEPS if steps is None else steps)
        scores[name] = class_accuracy(made.model, held_out) if by_class else _mask_ap(made, held_out, config)
    if by_class:
        chance, bound = chance_of_classes(held_out)
        what = "class accuracy of held-out objects"
    else:
        chance = chance_of_masks(right, held_out)
        bound, what = chance + MOST_ABOVE, "mask AP at IoU 0.5 of held-out patches"
    _draw(folder / "shuffled_labels.png", scores, chance, bound, what)
    return judge(scores, chance, bound, what)


def judge(scores, chance, bound, what):
    """Verdicts about {"shuffled": score, "right": score}."""
    shuffled, right = scores["shuffled"], scores["right"]
    expected = f"at most {bound:.3f} (chance {chance:.3f})"
    tells = True if right > bound else None
    came = f"{right:.3f}" + (
        "" if tells else ": too little is learnt for the other to tell; give it more steps or data"
    )
    return [
        verdicts.Verdict(RUNG, f"shuffled: {what}", shuffled <= bound, expected, f"{shuffled:.3f}"),
        verdicts.Verdict(RUNG, f"right: {what}", tells, f"more than {bound:.3f}", came),
    ]


def with_shuffled_classes(examples, seed):
    """The examples with their class ids permuted over all true objects."""
    valid, class_ids = examples["valid"], examples["class_ids"].copy()
    class_ids[valid] = np.random.default_rng(seed).permutation(class_ids[valid])
    return {**examples, "class_ids": class_ids}


def with_exchanged_truths(examples, seed):
    """The examples, each with the truth of the one before; `seed` has no effect."""
    return {name: np.roll(value, 1, axis=0) if name in TRUTHS else value for name, value in examples.items()}


def class_accuracy(model, examples):
    """Share of the true boxes for which the best class, background aside, is the right one."""
    classify, right, count = tf.function(model.classify, autograph=False), 0, 0
    for row in range(len(examples["volume"])):
        one = fixed.as_tensors(fixed.rows(examples, row, row + 1))
        said = 1 + np.argmax(classify(one["volume"], one["boxes"])[0, :, 1:].numpy(), axis=-1)
        valid = examples["valid"][row]
        right += int(np.sum((said == examples["class_ids"][row])[valid]))
        count += int(valid.sum())
    return right / count


def chance_of_classes(examples):
    """The share s of the most frequent of n classes, and what a guess exceeds once in 700 times.

    Whoever does not see the classes is right with s at most, give or take sqrt(s (1 - s) / n).
    """
    class_ids = examples["class_ids"][examples["valid"]]
    share = np.bincount(class_ids).max() / len(class_ids)
    return float(share), float(share + DEVIATIONS * math.sqrt(share * (1 - share) / len(class_ids)))


def chance_of_masks(others, examples):
    """Mask AP at IoU 0.5 of the truths of other examples, taken for detections: objects may always lie alike."""
    matches = []
    for row in range(len(examples["volume"])):
        ids, valid = examples["instance_ids"][row], examples["valid"][row]
        other = row % len(others["volume"])
        other_ids, other_valid = others["instance_ids"][other], others["valid"][other]
        found, truths = int(other_valid.sum()), int(valid.sum())
        both = np.zeros((found + 1, truths + 1))
        np.add.at(both, (other_ids.ravel(), ids.ravel()), 1)
        union = both.sum(1)[1:, None] + both.sum(0)[None, 1:] - both[1:, 1:]
        iou = (both[1:, 1:] / np.maximum(union, 1)).astype(np.float32)
        classes = others["class_ids"][other][other_valid], examples["class_ids"][row][valid]
        matches.append(metrics.VolumeMatch(iou, iou, np.ones(found, np.float32), *classes))
    return _pooled_ap(matches)


def _mask_ap(made, examples, config):
    found = answers.find(made.detect, examples)
    return _pooled_ap(answers.match(found, examples, config.model.detections.mask_threshold))


def _pooled_ap(matches):
    return float(metrics.summarize(matches, ("object",), (0.5,))["mask_ap"]["0.50"]["pooled"] or 0.0)


def _draw(path, scores, chance, bound, what):
    figure, ((panel,),) = pictures.figure(5, 4)
    colours = ["tab:red" if scores["shuffled"] > bound else "tab:blue", "tab:gray"]
    panel.bar(list(scores), list(scores.values()), color=colours)
    panel.axhline(chance, color="black", linewidth=0.8, label="chance")
    panel.axhline(bound, color="black", linewidth=0.8, linestyle="--", label="most that chance gives")
    panel.set(ylim=(0, 1), ylabel=what, xlabel="labels learnt")
    panel.legend(fontsize=8)
    pictures.save(path, figure)
