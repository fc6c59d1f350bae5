"""Run by replicas_test in a process of its own, as devices can be split only before TensorFlow has started.

Trains the tiny network for 20 steps on one device, on two, and in parts, and prints what became of it as JSON.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from tests import tiny
from training import loop, restore, strategy

STEPS, BATCH = 20, 4


def batches():
    """Every batch of the training, of other volumes each."""
    for step in range(STEPS):
        batch = tiny.batch(tiny.config(), seed=step, num_objects=(3, 2, 0, 4))
        yield {**batch, "number": batch["number"] + step * BATCH}


def train(where, **settings):
    """Losses and gradient norm of every step, and the weights and their mean at the beginning and at the end."""
    config = tiny.config(steps=STEPS, batch_size=BATCH, warmup_steps=0, learning_rate=1e-3, **settings)
    config.train.average.name = "ema"
    tf.keras.utils.set_random_seed(3)
    with where.scope():
        state = restore.make_state(config)

    def share(context):
        rows = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches())
        size = context.get_per_replica_batch_size(BATCH)
        return tf.data.Dataset.from_tensor_slices(rows).batch(size, drop_remainder=True)

    steps = loop.make_train_steps(
        where, state.model, state.optimizer, config.train, config.train.as_stages()[0], average=state.average
    )
    before = state.model.get_weights()
    iterator, logged = iter(where.distribute_datasets_from_function(share)), []
    for _ in range(STEPS):
        scalars = steps(iterator, tf.constant(1))
        logged.append({name: float(value) for name, value in scalars.items() if name != "wait_seconds"})
    return logged, before, state.model.get_weights(), [mean.numpy() for mean in state.average.means]


def apart(ours, theirs):
    """By how much arrays differ at most."""
    return max(float(abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def losses_apart(ours, theirs):
    """By how much scalars of any step differ at most, those above 1 relatively."""
    return max(
        abs(mine[name] - value) / max(abs(value), 1.0)
        for mine, yours in zip(ours, theirs, strict=True)
        for name, value in yours.items()
    )


def main():
    two = strategy.make("mirrored", logical_devices=2)
    one = strategy.make("one_device")
    forms = {
        "one": (one, {}),
        "two": (two, {}),
        "parts": (one, {"accumulation": 4}),
        "two in parts": (two, {"accumulation": 2}),
        "recomputed": (two, {"recompute": True}),
    }
    results = {name: train(where, **settings) for name, (where, settings) in forms.items()}
    logged, before, weights, means = results["one"]
    found = {
        "totals": [scalars["total"] for scalars in logged],
        "moved": apart(weights, before),
        "means_moved": apart(means, before),
    }
    for name, (own_logged, _, own_weights, own_means) in results.items():
        found[name] = {
            "losses_differ_by": losses_apart(own_logged, logged),
            "weights_differ_by": apart(own_weights, weights),
            "means_differ_by": apart(own_means, means),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
