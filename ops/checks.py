"""What ops ask of their arguments. Every error names what was expected and what came.

Shapes are checked as far as they are known: at trace time inside a `tf.function`.
"""

import re

import numpy as np
import tensorflow as tf


def shapes(expected, *tensors):
    """Raises ValueError unless the tensors have the shapes.

    Args:
      expected: the shapes as docstrings write them, one per tensor: "boxes [N, 6], scores [N]". A name stands for one
        size throughout; a leading "..." for any number of axes, which need not agree.
      *tensors: tensors or arrays in the same order; a list is refused. None, an argument left out, is not checked.
    """
    known_sizes = {}
    wanted = re.findall(r"(\w+) \[([^]]*)\]", expected)
    for (name, _), tensor in zip(wanted, tensors, strict=True):
        if tensor is not None and not hasattr(tensor, "shape"):
            raise ValueError(f"expected {name} as a tensor or an array, came {type(tensor).__name__}")
    for (_, axes), tensor in zip(wanted, tensors, strict=True):
        if tensor is not None and not _fits(axes.split(", "), tf.TensorShape(tensor.shape), known_sizes):
            came = [(name, t) for (name, _), t in zip(wanted, tensors, strict=True) if t is not None]
            raise ValueError(f"expected {expected}; came {', '.join(f'{name} {_text(t)}' for name, t in came)}")


def _fits(axes, shape, known_sizes):
    """Whether a shape has the axes; notes the sizes of named ones."""
    if shape.rank is None:
        return True
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
    shape = tf.TensorShape(tensor.shape)
    return "[unknown]" if shape.rank is None else "[" + ", ".join("?" if s is None else str(s) for s in shape) + "]"


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
