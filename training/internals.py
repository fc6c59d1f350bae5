"""What is inside of a network for one batch: its weights, their gradients, what every layer gives."""

import contextlib
import typing

import numpy as np
import tensorflow as tf

from training import weights as named


class Internals(typing.NamedTuple):
    """Arrays by name, the path of attributes that leads to them: "backbone/stages/0/1/first/conv/kernel".

    weights: every variable that trains.
    gradients: of the weighted total, averaged over the batch, by the names of the weights; 0 where no loss reaches.
    activations: what every layer that holds no other gave, float32. Of a layer that was called several times, such as
      the proposal network on each level, "rpn_head/conv#0", "rpn_head/conv#1" and so on.
    """

    weights: dict
    gradients: dict
    activations: dict


def of(model, batch, seed, loss_weights, learns=("rpn", "heads")):
    """Looks into a network in training, and leaves it as it was: moving statistics too.

    Args:
      model: MaskRCNN, built.
      batch: as data/pipeline makes it, on one device.
      seed: of what is drawn, as `model.compute_losses` takes it.
      loss_weights: {name of a loss: its weight in the total}.
      learns: as `model.compute_losses` takes it; the network proposes its rois itself.

    Returns:
      Internals. In float16 small gradients are 0: no loss is scaled here.
    """
    training = {id(variable) for variable in model.trainable_variables}
    variables = {name: v for name, v in named.named_variables(model).items() if id(v) in training}
    with _unchanged(model), tf.GradientTape() as tape:
        with _recorded(model) as outputs:
            losses = model.compute_losses(batch, seed, learns=learns)
        total = tf.add_n([loss_weights[name] * tf.reduce_mean(loss) for name, loss in losses.items()])
    gradients = tape.gradient(total, list(variables.values()), unconnected_gradients="zero")
    return Internals(
        weights={name: variable.numpy() for name, variable in variables.items()},
        gradients={name: np.asarray(gradient) for name, gradient in zip(variables, gradients, strict=True)},
        activations={name: tf.cast(output, tf.float32).numpy() for name, output in outputs.items()},
    )


@contextlib.contextmanager
def _recorded(model):
    """Yields a dict that holds, at the end of the block, what every leaf layer gave in it, in the order of calls."""
    layers = {path: part for path, part in named.parts(model).items() if _is_leaf(part)}
    calls, outputs = {}, {}
    for path, layer in layers.items():
        # On the instance, in front of the method of its class; not by setattr, which Keras watches.
        vars(layer)["call"] = _recording(layer.call, path, calls)
    try:
        yield outputs
    finally:
        for layer in layers.values():
            del vars(layer)["call"]
    for path, tensors in calls.items():
        names = [path] if len(tensors) == 1 else [f"{path}#{i}" for i in range(len(tensors))]
        outputs.update(zip(names, tensors, strict=True))


def _is_leaf(part):
    layers = tf.keras.layers.Layer
    return isinstance(part, layers) and not any(isinstance(inside, layers) for inside in part.submodules)


def _recording(call, path, calls):
    def recorded(*args, **kwargs):
        output = call(*args, **kwargs)
        calls.setdefault(path, []).append(output)
        return output

    return recorded


@contextlib.contextmanager
def _unchanged(model):
    """Gives the moving statistics, after the block, the values that they had; on every replica its own."""
    copies = [copy for variable in model.non_trainable_variables for copy in getattr(variable, "values", [variable])]
    before = [copy.numpy() for copy in copies]
    try:
        yield
    finally:
        for copy, value in zip(copies, before, strict=True):
            copy.assign(value)
