"""Stages for `train.stages`: other ways to train than everything jointly.

Adam's moments of a variable that first trains in a late stage begin at zero, while their correction follows the steps
of the whole run and has faded by then. Where its gradient stays the same, such a variable moves up to 6.6 times as far
in a step as the learning rate says, 3.2 times after 100 steps and 1.3 times after 1000. Every stage begins with a
warm-up: `train.warmup_steps` of 100 or more keep the steps within 3.3 times those of the peak.
"""

from configs.train_schema import Stage


def alternating(steps=1000, learning_rate=1e-3):
    """The four steps of Faster R-CNN (Ren et al. 2015, section 3.2), each of so many steps.

    The proposal network; the heads and the backbone on its proposals; the proposal network over that backbone, now
    fixed; the heads on the proposals of that. Unlike in the paper the second step goes on with the first one's backbone
    and does not begin anew.
    """
    return (
        Stage("rpn", steps, learning_rate, learns=("rpn",)),
        Stage("heads", steps, learning_rate, learns=("heads",), proposals_of="rpn"),
        Stage("rpn_again", steps, learning_rate, learns=("rpn",), trainable=("rpn_head",)),
        Stage("heads_again", steps, learning_rate, learns=("heads",), trainable=("roi_heads",)),
    )


def pretrained(classifier_steps=1000, steps=2000, learning_rate=1e-3):
    """The backbone first learns to name crops of single objects, or of none, then everything learns jointly."""
    return (
        Stage("classifier", classifier_steps, learning_rate, ("classifier",), trainable=("backbone", "classifier")),
        Stage("joint", steps, learning_rate),
    )


def unfreezing(steps=(500, 500, 1000), learning_rates=(1e-3, 5e-4, 2e-4)):
    """For a backbone that was loaded: all but it, then it from C4 on, then everything."""
    patterns = ("heads", "4+", "all")
    names = ("heads", "from_c4", "all")
    return tuple(
        Stage(name, count, rate, trainable=(pattern,))
        for name, pattern, count, rate in zip(names, patterns, steps, learning_rates, strict=True)
    )
