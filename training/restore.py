"""The network of a config, new or from a run's folder."""

from model.mask_rcnn import MaskRCNN
from training import checkpoints


def make_model(config):
    """The network of a Config with all its variables; call it under the strategy's scope."""
    model = MaskRCNN(
        config.model, num_classes=len(config.data.classes), patch_size=config.input.patch_size, name="mask_rcnn"
    )
    model.build_variables(config.input.channels)
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
