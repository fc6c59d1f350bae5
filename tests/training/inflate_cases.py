"""A 2D ResNet-50 in a file, and the 3D networks that take its weights."""

import numpy as np
import tensorflow as tf

from configs import backbones, model_schema
from model import backbone

SIZE = (33, 36)  # y, x
# Outputs of the four stages of the 2D network.
OUTPUTS = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


def randomise(model, seed):
    """Gives every variable of a network other numbers, of a size with which features neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        kind, shape = variable.name.split("/")[-1], variable.shape
        if kind.startswith("kernel"):
            value = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape)
        elif kind.startswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0.0, 0.3, shape)
        variable.assign(value)


def save_flat(folder):
    """A 2D ResNet-50 with random weights: the network, which gives the outputs of its stages, and its file."""
    model = tf.keras.applications.ResNet50(weights=None, include_top=False, input_shape=(*SIZE, 3))
    randomise(model, seed=0)
    path = folder / "flat.h5"
    model.save_weights(path)
    return tf.keras.Model(model.input, [model.get_layer(name).output for name in OUTPUTS]), path


def make(stages=1, *, norm="frozen_batch", channels=3, z_kernel=3, z_stride=1, in_pointwise=True, **settings):
    """The first stages of a 3D ResNet-50 that leaves z as it is; random variables."""
    section = backbones.resnet(50)
    section.stem_kernel, section.stem_stride, section.stem_pool = (7, 7, 7), (z_stride, 2, 2), (z_stride, 2, 2)
    section.stage_channels, section.stage_blocks = section.stage_channels[:stages], section.stage_blocks[:stages]
    section.stage_kernels = ((z_kernel, 3, 3),) * stages
    section.stage_strides = ((1, 1, 1),) + ((z_stride, 2, 2),) * (stages - 1)
    section.stride_in_pointwise = in_pointwise
    for name, value in settings.items():
        setattr(section, name, value)
    section.validate()
    model = backbone.make(section, model_schema.Style(norm=norm), name="backbone")
    model(tf.zeros([1, 1, 8, 8, channels]))
    randomise(model, seed=1)
    return model
