import os

# As configs/command_line.py has it, before TensorFlow is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import pytest
import tensorflow as tf

from configs import schema
from serving import export
from tests import tiny
from training import checkpoints, restore


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """Folder of a run whose one checkpoint holds the tiny network as it was initialised."""
    tf.keras.utils.set_random_seed(1)
    workdir = tmp_path_factory.mktemp("run") / "model"
    checkpoints.claim(workdir, schema.to_json(tiny.config()), lambda text: [])
    model = tiny.model(tiny.config())
    checkpoints.manager(workdir, restore.State(model), tiny.config().train).save()
    return workdir


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Folder of the exported tiny network, and the network."""
    tf.keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    model = tiny.model(tiny.config())
    export.export(model, tiny.config(), schema.to_json(tiny.config()), folder)
    return folder, model


@pytest.fixture
def eagerly():
    """A tf.function runs as the Python that it is made of: cheaper than to trace what is called a few times."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
