"""The network of a config, new or from a run's folder."""

import tensorflow as tf

from model.mask_rcnn import MaskRCNN
from training import checkpoints


def make_model(config):
    """The network of a Config with all its variables; call it under the strategy's scope.

    Its layers compute in `train.precision`; variables, and what it says, are float32.
    """
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(config.train.precision)
    try:
        learns_classifier = any("classifier" in stage.learns for stage in config.train.stages)
        model = MaskRCNN(
            config.model,
            num_classes=len(config.data.classes),
            num_attributes=len(config.data.attributes),
            num_keypoints=len(config.data.keypoints),
            patch_size=config.input.patch_size,
            crop_size=config.train.classifier_crop if learns_classifier else None,
            name="mask_rcnn",
        )
        model.build_variables(config.input.channels)
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    return model


def load_model(workdir, config):
    """The network of a run with the weights of its newest checkpoint.

    Args:
      workdir: the run's folder.
      config: its Config.

    Returns:
      MaskRCNN.

    Raises:
      data.errors.InputError: there is no checkpoint, or it belongs to another network.
    """
    model = make_model(config)
    checkpoints.require_latest(workdir, model)
    return model
