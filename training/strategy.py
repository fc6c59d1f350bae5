"""Where the model is replicated."""

import functools
import json
import os
import socket

import tensorflow as tf

from data.errors import InputError

STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")
# What TensorFlow says to the workers that are left.
_ABORTED = "Collective ops is aborted by:"


def make(name, logical_devices=0, devices=()):
    """The distribution strategy of a run; call it before anything else touches TensorFlow's devices.

    Args:
      name: "one_device" (the first GPU, or the CPU), "mirrored" (all GPUs, or the CPU), "multi_worker" (every process
        that TF_CONFIG names) or "tpu" (the one that TPU_NAME names; never run by the tests).
      logical_devices: split the CPU into this many devices and use those; 0 leaves it whole.
      devices: names of those to use for one_device and mirrored, "GPU:1" say; () all.

    Returns:
      tf.distribute.Strategy.

    Raises:
      InputError: the name or a device is unknown; TF_CONFIG is missing, does not parse or names a port that is taken;
        there is no TPU; or the devices are already in use.
    """
    if name not in STRATEGIES:
        raise InputError(f"--strategy: expected one of {', '.join(STRATEGIES)}, came {name!r}")
    if logical_devices:
        _split_cpu(logical_devices)
    if devices and name not in ("one_device", "mirrored"):
        raise InputError(f"--devices: expected none with --strategy={name}, came {','.join(devices)}")
    if name == "multi_worker":
        count = _check_tf_config()
        print(f"waiting until all of {count} worker(s) are there", flush=True)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu()
    found = _chosen(devices) if devices else _devices(logical_devices)
    return tf.distribute.MirroredStrategy(found) if name == "mirrored" else tf.distribute.OneDeviceStrategy(found[0])


def sum_of_workers(strategy, value):
    """The sum of a number over all processes, float; every process has to ask for it.

    Args:
      strategy: tf.distribute.Strategy.
      value: this process's own.
    """
    if strategy.cluster_resolver is None or not strategy.extended._in_multi_worker_mode():
        return float(value)
    # Every device of this process brings its share.
    share = float(value) / len(strategy.extended.worker_devices)
    return float(_summed(strategy)(tf.constant(share)))


@functools.cache
def _summed(strategy):
    def summed(share):
        return strategy.reduce("SUM", strategy.run(tf.identity, args=(share,)), axis=None)

    return tf.function(summed, autograph=False)


def lost_worker(error):
    """The line about a worker that is gone in an error of another one, or None for other errors.

    TensorFlow notices it by the connection, or after some 10 s by a heartbeat that does not come, and then ends what
    waits for all workers; this process cannot be mended any more.

    Args:
      error: of TensorFlow, or one that quotes it.
    """
    _, found, reason = str(error).partition(_ABORTED)
    if not found:
        return None
    reason = reason.strip().split("\n")[0] or "no reason given"
    return f"a worker is lost ({reason}); start all workers again, to go on from the newest checkpoint"


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


def _chosen(names):
    """The full names of devices; InputError for one that is not there."""
    there = {device.name.split("device:")[1]: device.name for device in tf.config.list_logical_devices()}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InputError(f"--devices: expected some of {', '.join(there)}, came {', '.join(unknown)}")
    return [there[name] for name in names]


def _tpu():
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"--strategy=tpu: expected a TPU, in TPU_NAME or on this host, came: {reason}") from error
    return tf.distribute.TPUStrategy(resolver)


def _split_cpu(count):
    if count < 1:
        raise InputError(f"--logical_devices: expected a number >= 0, came {count}")
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise InputError(f"--logical_devices={count}: TensorFlow has already been initialised") from error


def _check_tf_config():
    """How many processes TF_CONFIG names; InputError where it is not as TensorFlow expects it."""
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
    _check_port(config["cluster"][task["type"]][task["index"]])
    return len(workers) + len(config["cluster"].get("chief", []))


def _check_port(address):
    """Raises InputError where this process cannot listen at its own address; TensorFlow would end without a word."""
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"TF_CONFIG: expected the address of this task as host:port, came {address}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            raise InputError(f"TF_CONFIG: expected a free port for {address}, came: {error.strerror}") from error
