"""Where the model is replicated."""

import json
import os

import tensorflow as tf

from data.errors import InputError

STRATEGIES = ("one_device", "mirrored", "multi_worker")


def make(name, logical_devices=0):
    """The distribution strategy of a run; call it before anything else touches TensorFlow's devices.

    Args:
      name: "one_device" (the first GPU, or the CPU), "mirrored" (all GPUs, or the CPU) or "multi_worker" (every
        process that TF_CONFIG names).
      logical_devices: split the CPU into this many devices and use those; 0 leaves it whole.

    Returns:
      tf.distribute.Strategy.

    Raises:
      InputError: the name is unknown, TF_CONFIG is missing or does not parse, or the devices are already in use.
    """
    if logical_devices:
        _split_cpu(logical_devices)
    if name == "multi_worker":
        _check_tf_config()
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = _devices(logical_devices)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    raise InputError(f"--strategy: expected one of {', '.join(STRATEGIES)}, came {name!r}")


def is_chief(strategy):
    """Whether this process writes checkpoints and logs; with one process, it does."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "chief"):
        return True
    # Without a process that is called chief, the first worker is it.
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def worker_name(strategy):
    """A name for this process among the workers, or None for the chief."""
    if is_chief(strategy):
        return None
    resolver = strategy.cluster_resolver
    return f"{resolver.task_type}-{resolver.task_id}"


def _devices(logical_devices):
    gpus = tf.config.list_logical_devices("GPU")
    if gpus and not logical_devices:
        return [gpu.name for gpu in gpus]
    return [cpu.name for cpu in tf.config.list_logical_devices("CPU")]


def _split_cpu(count):
    if count < 1:
        raise InputError(f"--logical_devices: expected a number >= 0, came {count}")
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise InputError(f"--logical_devices={count}: TensorFlow has already been initialised") from error


def _check_tf_config():
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise InputError("--strategy=multi_worker: expected TF_CONFIG in the environment, came nothing")
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        known = task["type"] in config["cluster"] and 0 <= task["index"] < len(config["cluster"][task["type"]])
    except (ValueError, KeyError, TypeError) as error:
        expected = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        raise InputError(f"TF_CONFIG: expected {expected}, came {text}") from error
    if not workers or not known:
        raise InputError(f"TF_CONFIG: task {task} is not among the workers {workers}")
