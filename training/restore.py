"""The network of a config, new or from a run's folder."""

from typing import NamedTuple

import tensorflow as tf

from data import intensity
from model.mask_rcnn import MaskRCNN
from training import averaging, checkpoints, optimizers, precision, progress


def make_model(config):
    """The network of a Config with all its variables; call it under the strategy's scope.

    Its layers compute in `train.precision`, or what this machine has of it (training/precision.py); variables, and what
    it says, are float32.
    """
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision.of_this_machine(config.train.precision))
    try:
        learns_classifier = any("classifier" in stage.learns for stage in config.train.stages)
        model = MaskRCNN(
            config.model,
            num_classes=len(config.data.classes),
            num_attributes=len(config.data.attributes),
            num_keypoints=len(config.data.keypoints),
            patch_size=config.input.patch_size,
            crop_size=config.train.classifier_crop if learns_classifier else None,
            intensity=None if config.model.attribute_head.sums == "none" else intensity.common_scale(config.input),
            name="mask_rcnn",
        )
        model.build_variables(config.input.channels)
        model.backbone.recompute = config.train.recompute
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    return model


class State(NamedTuple):
    """All that a run goes on with: `average` is an averaging.Average or None, `progress` a progress.Progress."""

    model: MaskRCNN
    optimizer: object = None
    average: object = None
    progress: object = None


def make_state(config, begin=None):
    """The `State` of a run that has not begun; call it under the strategy's scope.

    Args:
      config: a Config.
      begin: f(model) that gives the network its first weights, or None.
    """
    model = make_model(config)
    if begin:
        begin(model)
    # After the first weights are there: some optimizers, and the average, keep a copy of them.
    so_far = progress.Progress()
    optimizer = optimizers.make(config.train, so_far.rate_factor if config.train.schedule.name == "plateau" else None)
    optimizers.build(optimizer, model.trainable_variables)
    return State(model, optimizer, _average(model, config.train), so_far)


def load_model(workdir, config, which="best"):
    """The network of a run, with the mean weights where it averages them.

    Args:
      workdir: the run's folder.
      config: its Config.
      which: "best" or "latest"; see `checkpoints.require`.

    Returns:
      MaskRCNN, and the path of the checkpoint.

    Raises:
      data.errors.InputError: there is no checkpoint, or it belongs to another network.
    """
    model = make_model(config)
    return model, checkpoints.require(workdir, State(model, average=_average(model, config.train)), which)


def _average(model, train_config):
    return averaging.make(model, train_config, sum(stage.steps for stage in train_config.as_stages()))
