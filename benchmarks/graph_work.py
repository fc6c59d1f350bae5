"""Floating-point operations of a graph, from its operations and their static shapes."""

import math


def flops(graph, loops=0):
    """Two per multiplication and addition of all convolutions and matrix products, their gradients included.

    Padding counts as the zeros it is computed with. Everything else - normalisation, activations, the optimizer - is
    left out, and so are loops, ROIAlign's and that of the suppression: how often they run is not in the graph.

    Args:
      graph: a function's graph.
      loops: how deep in loops to look; 1 for one round of the loop over the steps of a training.

    Returns:
      int.

    Raises:
      ValueError: a convolution or product in what is counted whose shape is not static.
    """
    total = 0
    for op in graph.get_operations():
        if op.type in COUNTED:
            total += COUNTED[op.type](op)
        is_loop = op.type in ("While", "StatelessWhile")
        if loops >= is_loop:
            total += sum(flops(graph._get_function(name).graph, loops - is_loop) for name in _called(op, is_loop))
    return total


def _called(op, is_loop):
    """Names of the functions that an operation runs."""
    if is_loop:
        return [op.get_attr("body").name]
    return [op.get_attr("f").name] if op.type in ("PartitionedCall", "StatefulPartitionedCall") else []


def _shape(op, tensor):
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{op.name}: expected a static shape, came {tensor.shape}")
    return tensor.shape.as_list()


def _convolution(values, kernel):
    """Of the values on the strided side, [B, z, y, x, F] and a kernel [kz, ky, kx, C, F]."""
    return 2 * math.prod(values) * math.prod(kernel[:4])


def _product(op):
    """Of [..., m, k] and [..., k, n], either of them transposed."""
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    depth = _shape(op, op.inputs[0])[-2 if transposed else -1]
    return 2 * math.prod(_shape(op, op.outputs[0])) * depth


COUNTED = {
    "Conv3D": lambda op: _convolution(_shape(op, op.outputs[0]), _shape(op, op.inputs[1])),
    "Conv3DBackpropInputV2": lambda op: _convolution(_shape(op, op.inputs[2]), _shape(op, op.inputs[1])),
    "Conv3DBackpropFilterV2": lambda op: _convolution(_shape(op, op.inputs[2]), _shape(op, op.outputs[0])),
    "MatMul": _product,
    "BatchMatMulV2": _product,
}
