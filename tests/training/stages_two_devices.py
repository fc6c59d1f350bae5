"""Run by stages_test in a process of its own, as devices can be split only before TensorFlow has started.

Prints, as one line of JSON, what two trainings say on two devices: with normalisation over both of them beside what one
device says of the whole batch, and of heads on the proposals of an earlier stage in half precision. The argument is a
folder for both runs.
"""

import json
import pathlib
import sys

import tensorflow as tf

from configs import training_forms
from tests import tiny
from tests.model import networks
from training import loop, restore, stages, strategy


def train(mirrored, settings, folder):
    """A network, its weights before, the logs, and by how much the replicas of a variable differ at most."""
    with mirrored.scope():
        state = restore.make_state(settings)
    model = state.model
    batch, before, logs = networks.batch(settings), model.get_weights(), []

    def volumes(context):
        size = context.get_per_replica_batch_size(settings.train.batch_size)
        return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(size, drop_remainder=True)

    stages.train(
        settings,
        folder,
        mirrored,
        state,
        iter(mirrored.distribute_datasets_from_function(volumes)),
        ends=lambda step: [],
        on_loop=lambda step, scalars: logs.append(scalars),
    )
    apart = max(float(abs(a.numpy() - b.numpy()).max()) for a, b in (variable.values for variable in model.variables))
    return model, before, logs, apart


def synchronised(mirrored, folder):
    """One step with sync_batch on two devices, and the losses and moving means of one device."""
    settings = tiny.exhaustive(networks.config({"model.style.norm": "sync_batch"}))
    settings.train.steps, settings.train.steps_per_loop, settings.train.warmup_steps = 1, 1, 0
    model, before, logs, apart = train(mirrored, settings, folder)
    alone = tiny.model(settings)
    alone.set_weights(before)
    batch = networks.batch(settings)
    losses = alone.compute_losses(batch, loop.example_seeds(0, 0, batch["number"]))
    means = [
        [float(tf.linalg.norm(v)) for v in each.variables if v.name.endswith("backbone/stem/norm/moving_mean:0")]
        for each in (model, alone)
    ]
    return {
        "two": {name: logs[0][name] for name in losses},
        "one": {name: float(tf.reduce_mean(loss)) for name, loss in losses.items()},
        "means": means,
        "apart": apart,
    }


def proposed(mirrored, folder):
    """The first two of the alternating stages in bfloat16."""
    settings = networks.config({"train.precision": "mixed_bfloat16"})
    settings.train.warmup_steps, settings.train.steps_per_loop = 0, 2
    settings.train.stages = training_forms.alternating(steps=2)[:2]
    model, before, logs, apart = train(mirrored, settings, folder)
    parts = {
        variable.name.split("/")[1]
        for variable, old in zip(model.variables, before, strict=True)
        if (variable.numpy() != old).any()
    }
    return {"totals": [scalars["total"] for scalars in logs], "moved": sorted(parts), "apart": apart}


def main():
    mirrored, folder = strategy.make("mirrored", logical_devices=2), pathlib.Path(sys.argv[1])
    result = {
        "synchronised": synchronised(mirrored, folder / "synchronised"),
        "proposed": proposed(mirrored, folder / "proposed"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
