"""What ops ask of their arguments. Every error names what was expected and what came."""

import re

import numpy as np
import tensorflow as tf


def shapes(expected, *tensors):
    """Raises ValueError unless the tensors have the shapes, as far as they are known: at trace time in a `tf.function`.

    A rank has to be known, a size need not be. Sizes that only the running graph knows are not compared there: an
    assertion takes 13 us, which is nothing beside `nms3d` of 1,000 boxes (1.6 ms) but 5 % of a small op, and kernels
    refuse most sizes that differ by themselves.

    Args:
      expected: the shapes as docstrings write them, one per tensor: "boxes [N, 6], scores [N]". A name stands for one
        size throughout; a leading "..." for any number of axes, which need not agree.
      *tensors: tensors or arrays in the same order; a list is refused. None, an argument left out, is not checked.
    """
    known_sizes = {}
    wanted = re.findall(r"(\w+) \[([^]]*)\]", expected)
    for (name, _), tensor in zip(wanted, tensors, strict=True):
        if tensor is not None:
            rank(name, tensor)
    for (_, axes), tensor in zip(wanted, tensors, strict=True):
        if tensor is not None and not _fits(axes.split(", "), tf.TensorShape(tensor.shape), known_sizes):
            came = [(name, t) for (name, _), t in zip(wanted, tensors, strict=True) if t is not None]
            raise ValueError(f"expected {expected}; came {', '.join(f'{name} {_text(t)}' for name, t in came)}")


def _fits(axes, shape, known_sizes):
    """Whether a shape has the axes; notes the sizes of named ones."""
    sizes = shape.as_list()
    if axes[0] == "...":
        axes = axes[1:]
        sizes = sizes[max(len(sizes) - len(axes), 0) :]
    if len(sizes) != len(axes):
        return False
    for axis, size in zip(axes, sizes, strict=True):
        right = int(axis) if axis.isdigit() else known_sizes.setdefault(axis, size) if size is not None else None
        if None not in (size, right) and size != right:
            return False
    return True


def _text(tensor):
    return "[" + ", ".join("?" if size is None else str(size) for size in tf.TensorShape(tensor.shape)) + "]"


def rank(name, tensor):
    """The number of axes of a tensor or an array; ValueError if that is not known, or of anything else."""
    if not hasattr(tensor, "shape"):
        raise ValueError(f"expected {name} as a tensor or an array, came {type(tensor).__name__}")
    axes = tf.TensorShape(tensor.shape).rank
    if axes is None:
        raise ValueError(f"expected {name} of a known rank, came one of unknown rank: say how many axes it has")
    return axes


def float32(name, tensor):
    """The tensor or array as a float32 tensor.

    Arrays of float64 and of integers are rounded. A tensor of another type is refused, since whoever made it can cast
    it. So is half precision, even in an array: volumes pass its largest number, 65504, with a cube of 41 voxels, and
    coordinates above 2048 (bfloat16: 256) lose their voxel before they come here.
    """
    dtype = tf.as_dtype(tensor.dtype)
    is_array = not tf.is_tensor(tensor)
    if dtype != tf.float32 and not (is_array and (dtype == tf.float64 or dtype.is_integer)):
        raise ValueError(f"expected {name} as float32, came {dtype.name}")
    return tf.convert_to_tensor(tensor, tf.float32)


def within(name, value, low, high):
    """Raises ValueError unless low <= value <= high; a tensor, not known yet, is not checked."""
    if not tf.is_tensor(value) and not low <= value <= high:
        raise ValueError(f"expected {name} in [{low}, {high}], came {value}")


def positive(name, value):
    """Raises ValueError unless value > 0; a tensor, not known yet, is not checked."""
    if not tf.is_tensor(value) and not value > 0:
        raise ValueError(f"expected {name} above 0, came {value}")


def triple(name, value):
    """One positive number, or three of them for z, y, x, as a tuple of three."""
    values = tuple(value) if np.ndim(value) else (value,) * 3
    if len(values) != 3 or not all(v > 0 for v in values):
        raise ValueError(f"expected {name} as one number above 0 or three of them for z, y, x, came {value}")
    return values
