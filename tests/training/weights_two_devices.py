"""Run by weights_test in a process of its own, as devices can be split only before TensorFlow has started.

Loads the run of the first argument into a network of other classes on two devices, and writes what both hold of some
variables to the second argument.
"""

import sys

import numpy as np

from tests import tiny
from training import strategy, weights

NAMES = ("backbone/stem/conv/kernel", "backbone/stem/norm/moving_mean", "mask_head/logits/bias")


def main():
    run, output = sys.argv[1:]
    settings = tiny.config()
    settings.data.classes = ("rod", "disc", "plate")
    settings.model.style.norm = "batch"
    with strategy.make("mirrored", logical_devices=2).scope():
        model = tiny.model(settings.validate())
    weights.load(run, model, inflate="centre", classes=settings.data.classes)
    named = weights.named_variables(model)
    np.savez(output, **{name: np.stack([copy.numpy() for copy in named[name].values]) for name in NAMES})


if __name__ == "__main__":
    main()
