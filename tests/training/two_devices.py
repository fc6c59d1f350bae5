"""Run by loop_test in a process of its own, as devices can be split only before TensorFlow has started.

Prints, as one line of JSON, what the first step says on two devices and on one, and what became of the replicas.
"""

import dataclasses
import json

import tensorflow as tf

from tests import tiny
from training import loop, optimizers, strategy


def replicas(variable):
    """The copies of a variable on the devices."""
    return [copy.numpy() for copy in variable.values]


def first_step_on_one_device(config, weights, batch):
    """Losses and gradient norm of the whole batch, computed in one piece."""
    model = tiny.model(config)
    model.set_weights(weights)
    with tf.GradientTape() as tape:
        losses = {
            name: tf.reduce_mean(x)
            for name, x in model.compute_losses(batch, loop.example_seeds(0, 0, batch["number"])).items()
        }
        weights = dataclasses.asdict(config.train.loss_weights)
        total = tf.add_n([weights[name] * loss for name, loss in losses.items()])
    norm = tf.linalg.global_norm(tape.gradient(total, model.trainable_variables))
    return {name: float(x) for name, x in {**losses, "total": total, "gradient_norm": norm}.items()}


def main():
    config = tiny.exhaustive(tiny.config(steps=3, warmup_steps=0, steps_per_loop=1, checkpoint_steps=2))
    batch = tiny.batch(config, seed=0)
    mirrored = strategy.make("mirrored", logical_devices=2)
    with mirrored.scope():
        model = tiny.model(config)
        optimizer = optimizers.make(config.train)
        optimizer.build(model.trainable_variables)
    weights = model.get_weights()

    def volumes(context):
        size = context.get_per_replica_batch_size(config.train.batch_size)
        return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(size, drop_remainder=True)

    logged = []
    loop.train(
        loop.make_train_steps(mirrored, model, optimizer, config.train, config.train.as_stages()[0]),
        iter(mirrored.distribute_datasets_from_function(volumes)),
        optimizer,
        config.train,
        last_step=config.train.steps,
        ends=lambda step: [],
        on_loop=lambda step, scalars: logged.append(scalars),
    )
    copies = [replicas(variable) for variable in model.trainable_variables]
    result = {
        "replicas": mirrored.num_replicas_in_sync,
        "is_chief": strategy.is_chief(mirrored),
        "two_devices": logged[0],
        "one_device": first_step_on_one_device(config, weights, batch),
        "replicas_differ_by": max(float(abs(first - second).max()) for first, second in copies),
        "moved": sum(bool((new != old).any()) for new, old in zip(model.get_weights(), weights, strict=True)),
        "num_variables": len(weights),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
