"""The tiny network with heads for two attributes and the landmarks."""

import tensorflow as tf

from configs import schema
from tests import tiny
from training import checkpoints, restore

ATTRIBUTES = ("energy", "charge")
OUTPUTS = {"attributes", "keypoints", "keypoint_scores"}


def config():
    """The Config of `tiny` with both heads, that of attributes with sums."""
    settings = tiny.config()
    settings.data.attributes = ATTRIBUTES
    settings.model.attribute_head.sums = "linear"
    settings.model.keypoint_head.enabled = True
    return settings.validate()


def run(workdir):
    """Makes a run whose one checkpoint holds the network as it was initialised; returns the network."""
    tf.keras.utils.set_random_seed(1)
    checkpoints.claim(workdir, schema.to_json(config()), lambda text: [])
    model = tiny.model(config())
    checkpoints.manager(workdir, restore.State(model), tiny.config().train).save()
    return model
