"""Run by internals_test in a process of its own, as devices can be split only before TensorFlow has started.

Prints, as one line of JSON, whether looking into a network on two devices changes what either of them holds.
"""

import dataclasses
import json
import sys

import tensorflow as tf

from tests import tiny
from tests.model import networks
from training import internals, strategy


def copies(model):
    """Every variable as every device holds it."""
    return [copy.numpy() for variable in model.variables for copy in variable.values]


def main():
    settings = networks.config({"model.style.norm": sys.argv[1]})
    mirrored = strategy.make("mirrored", logical_devices=2)
    with mirrored.scope():
        model = tiny.model(settings)
    for variable in model.non_trainable_variables:
        for number, copy in enumerate(variable.values):  # moving statistics are each device's own
            copy.assign_add(tf.ones_like(copy) * number)
    before = copies(model)
    weights = dataclasses.asdict(settings.train.loss_weights)
    found = internals.of(model, networks.batch(settings), tf.constant([1, 2]), weights)
    result = {
        "copies": len(before) / len(model.variables),
        "statistics": len(model.non_trainable_variables),
        "changed": sum(bool((old != new).any()) for old, new in zip(before, copies(model), strict=True)),
        "without_gradient": sum(not gradient.any() for gradient in found.gradients.values()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
