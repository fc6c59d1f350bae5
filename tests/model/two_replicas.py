"""Run by normalization_test in a process of its own, as devices can be split only before TensorFlow has started.

Prints, as one line of JSON, what batch normalisations make of one batch on two devices, and on one.
"""

import json

import numpy as np
import tensorflow as tf

from configs.model_schema import Style
from model import normalization


def normalize(strategy, norm, x, weights):
    """The batch normalised in training, the gradient of a weighted sum of it, and the moving mean."""
    with strategy.scope():
        layer = normalization.make(Style(norm=norm))
        layer.build(x.shape)

    def replica(part, part_weights):
        with tf.GradientTape() as tape:
            tape.watch(part)
            y = layer(part, training=True)
            loss = tf.reduce_sum(part_weights * y)
        return y, tape.gradient(loss, part)

    def parts(values):
        count = strategy.num_replicas_in_sync
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.split(values, count)[context.replica_id_in_sync_group]
        )

    y, gradient = tf.function(lambda a, b: strategy.run(replica, (a, b)))(parts(x), parts(weights))
    joined = {
        name: np.concatenate([part.numpy() for part in strategy.experimental_local_results(value)]).tolist()
        for name, value in (("y", y), ("gradient", gradient))
    }
    return {**joined, "moving_mean": layer.moving_mean.numpy().tolist()}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    rng = np.random.default_rng(0)
    center = np.reshape([0.0, 1.0, 4.0, 9.0], (4, 1, 1, 1, 1))  # so that the replicas differ
    x = (center + rng.normal(size=(4, 2, 3, 5, 2))).astype(np.float32)
    weights = rng.normal(size=x.shape).astype(np.float32)
    result = {
        "x": x.tolist(),
        "batch": normalize(two, "batch", x, weights),
        "sync_batch": normalize(two, "sync_batch", x, weights),
        "one_device": normalize(one, "batch", x, weights),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
