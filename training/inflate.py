"""Weights of a 2D ResNet for the 3D one (Carreira and Zisserman 2017)."""

import re

import h5py
import numpy as np

from data.errors import InputError
from training.transfer import Found

INFLATIONS = ("centre", "repeat")
# Layers as tf.keras.applications names them, and the parts of a bottleneck block that they are here.
_LAYER = re.compile(r"(conv1|conv(\d+)_block(\d+)_([0-3]))_(conv|bn)")
_PARTS = ("projection", "first", "second", "third")
_NEEDED = ("conv1_conv", "conv1_bn", "conv2_block1_1_conv", "conv2_block1_3_bn")
_STATISTICS = {"gamma", "beta", "moving_mean", "moving_variance"}
_STEM = "stem/conv/kernel"


def from_keras(path, backbone, variables, how):
    """Inflates ResNet-50, 101 or 152 as tf.keras.applications has them (layers conv1_conv, conv2_block1_1_bn, ...).

    "centre": the middle slice of a kernel is the 2D one and the others are 0, so that every slice of a volume gives the
    features of the image. "repeat": every slice is an equal share, so that a volume which is constant along z does,
    away from its ends. The biases of convolutions become part of the moving means, as no bias stands before a
    normalisation here. Other normalisations than batch norm have no place for what the file holds of it.

    Those trained on ImageNet saw images of 0 to 255 minus their mean, not volumes of variance 1: their moving
    statistics fit only after some training, so not under frozen_batch.

    Args:
      path: HDF5 file of `model.save_weights("x.h5")` or `model.save("x.h5")`.
      backbone: the 3D network, built.
      variables: dict of its variables by their names in it; see `weights.named_variables`.
      how: "centre" or "repeat".

    Returns:
      transfer.Found.

    Raises:
      InputError: no HDF5, a cut file, or another architecture.
    """
    found = Found()
    try:
        with h5py.File(path, "r") as file:
            layers = _layers(file)
            _check_architecture(path, layers)
            for name, layer in layers.items():
                match = _LAYER.fullmatch(name)
                if match is None:
                    _skip(found, name, layer, "no convolution of the backbone, nor the normalisation of one")
                elif match[5] == "conv":
                    _take(found, match[1], layer, layers.get(f"{match[1]}_bn", {}), _place(match), variables, how)
                elif f"{match[1]}_conv" not in layers:
                    _skip(found, name, layer, "the file has no convolution before it")
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"init_weights {path}: expected a whole HDF5 file of Keras, came: {error}") from error
    if not _strides_in_pointwise(backbone):
        found.notes.append(
            "the blocks of the file stride in their first convolution (model.backbone.stride_in_pointwise=True), those "
            "of the model in their second: what they compute differs"
        )
    return found


def inflate_kernel(kernel, depth, how):
    """A 3D kernel from a 2D one.

    Args:
      kernel: [ky, kx, I, O].
      depth: kz.
      how: "centre" or "repeat".

    Returns:
      [kz, ky, kx, I, O] of the same dtype; its sum over z is the kernel.
    """
    if how == "repeat":
        return np.repeat(kernel[np.newaxis] / depth, depth, axis=0)
    inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
    inflated[(depth - 1) // 2] = kernel
    return inflated


def adapt_channels(kernel, channels):
    """A kernel that reads other channels than red, green and blue.

    Args:
      kernel: [ky, kx, 3, O].
      channels: C. 1: the kernels are added, as for a grey image. 3: as it is. Else every channel reads their mean,
        scaled by 3 / C, so that equal channels give what a grey image gives.

    Returns:
      [ky, kx, C, O].
    """
    if channels == kernel.shape[2]:
        return kernel
    return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)


def _layers(file):
    """{layer: {weight: dataset}} of a file, without the optimizer's; no data is read."""
    root, layers = file.get("model_weights", file), {}

    def visit(path, item):
        if not isinstance(item, h5py.Dataset):
            return
        group, _, weight = path.rpartition("/")
        layer = group.rpartition("/")[2]
        weights = layers.setdefault(layer if _LAYER.fullmatch(layer) else group, {})
        weight = weight.removesuffix(":0")
        if weight in weights:
            raise InputError(f"init_weights {file.filename}: expected one network, came two with a layer {layer}")
        weights[weight] = item

    root.visititems(visit)
    return layers


def _check_architecture(path, layers):
    lacking = [name for name in _NEEDED if name not in layers]
    if lacking:
        came = ", ".join(sorted(layers)[:3]) or "none with weights"
        raise InputError(
            f"init_weights {path}: expected the layers of ResNet50, 101 or 152 of tf.keras.applications "
            f"(model.save_weights('x.h5')), came {came} without {', '.join(lacking)}"
        )


def _place(match):
    """Where the layer of a match is in the 3D network."""
    if match[1] == "conv1":
        return "stem"
    return f"stages/{int(match[2]) - 2}/{int(match[3]) - 1}/{_PARTS[int(match[4])]}"


def _take(found, name, conv, norm, place, variables, how):
    """Takes a convolution and the normalisation behind it, or says why not."""
    target = f"{place}/conv/kernel"
    reason = _misfit(conv, norm, target, variables)
    if reason:
        _skip(found, f"{name}_conv", conv, reason)
        _skip(found, f"{name}_bn", norm, reason)
        found.unfit |= {f"{place}/{name}": reason for name in ("conv/kernel", *(f"norm/{s}" for s in _STATISTICS))}
        return
    depth, _, _, channels, _ = variables[target].shape
    kernel = _read(conv["kernel"])
    if kernel.shape[2] != channels:
        found.notes.append(_describe_channels(channels))
    found.values[target] = inflate_kernel(adapt_channels(kernel, channels), depth, how)
    _take_normalisation(found, name, conv, norm, place, variables)


def _take_normalisation(found, name, conv, norm, place, variables):
    if not norm or f"{place}/norm/moving_mean" not in variables:
        reason = "the model has no batch normalisation there" if norm else "the file has no normalisation behind it"
        _skip(found, f"{name}_bn", norm, reason)
        _skip(found, f"{name}_conv", conv.keys() - {"kernel"}, reason)
        return
    for weight, dataset in norm.items():
        found.values[f"{place}/norm/{weight}"] = _read(dataset)
    if "bias" in conv:
        found.values[f"{place}/norm/moving_mean"] -= _read(conv["bias"])


def _misfit(conv, norm, target, variables):
    """Why a convolution of the file, with the normalisation behind it, has no place in the model; or None."""
    if target not in variables:
        return f"the model has no {target}"
    block = target.rsplit("/", 3)[0]
    if target != _STEM and f"{block}/third/conv/kernel" not in variables:
        return f"{block} of the model is no bottleneck block"
    if not {"kernel"} <= conv.keys() <= {"kernel", "bias"} or norm.keys() not in (set(), _STATISTICS):
        return f"expected kernel, bias, {', '.join(sorted(_STATISTICS))}, came {', '.join([*conv, *norm])}"
    theirs, ours = conv["kernel"].shape, tuple(variables[target].shape)
    # The stem may read other channels in place of three colours.
    expected = (*ours[1:3], 3, ours[4]) if target == _STEM and theirs[2:3] == (3,) else ours[1:]
    if theirs != expected:
        return f"kernel {list(theirs)} in the file, {list(ours)} in the model"
    for name, vector in {**conv, **norm}.items():
        if name != "kernel" and vector.shape != theirs[3:]:
            return f"{name} {list(vector.shape)} beside a kernel {list(theirs)}"
    return None


def _describe_channels(channels):
    if channels == 1:
        return "stem: the kernels of red, green and blue are added for the one channel"
    return f"stem: each of the {channels} channels reads the mean kernel of red, green and blue, times 3 / {channels}"


def _strides_in_pointwise(backbone):
    """Whether no block of three convolutions strides in its second."""
    first_blocks = [stage[0] for stage in getattr(backbone, "stages", [])]
    return all(block.second.conv.strides == (1, 1, 1) for block in first_blocks if hasattr(block, "third"))


def _skip(found, name, layer, reason):
    for weight in layer:
        found.skip(f"{name}/{weight}", reason)


def _read(dataset):
    return np.asarray(dataset[()], np.float32)
