"""The numbers that a run logs: what each is called, where it belongs, and those that the machine gives."""

import math
import resource

import tensorflow as tf

# Where TensorBoard shows what is no loss.
GROUPS = {
    "learning_rate": "optimizer",
    "gradient_norm": "optimizer",
    "non_finite": "optimizer",
    "volumes_per_second": "speed",
    "voxels_per_second": "speed",
    "input_wait": "speed",
    "peak_memory_gb": "memory",
    "gpu_peak_memory_gb": "memory",
    "skipped": "input",
}


def grouped(name):
    """The name with its group in front, "loss/mask" or "speed/input_wait"; one that has a group keeps it."""
    return name if "/" in name else f"{GROUPS.get(name, 'loss')}/{name}"


def losses(scalars):
    """The parts of the total among the scalars of a step."""
    return {name: value for name, value in scalars.items() if name != "total" and name not in GROUPS}


def of_machine(scalars, patch_size):
    """What follows from the scalars of a step and from the machine.

    Args:
      scalars: of a step, volumes_per_second among them.
      patch_size: (Z, Y, X) voxels of a training volume.

    Returns:
      dict of voxels_per_second; peak_memory_gb of this process; with a GPU gpu_peak_memory_gb, of the one that needed
      most. Gigabytes of 10^9 bytes.
    """
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # so Linux counts
    found = {
        "voxels_per_second": scalars["volumes_per_second"] * math.prod(patch_size),
        "peak_memory_gb": kibibytes * 1024 / 1e9,
    }
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        found["gpu_peak_memory_gb"] = (
            max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus) / 1e9
        )
    return found
