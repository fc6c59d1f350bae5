import h5py
import numpy as np
import pytest
import tensorflow as tf

from configs import backbones, model_schema
from data.errors import InputError
from model import backbone
from tests.training.inflate_cases import make, save_flat
from tests.training.weights_test import assert_complete
from training import weights


@pytest.fixture(name="flat", scope="module")
def fixture_flat(tmp_path_factory):
    return save_flat(tmp_path_factory.mktemp("flat"))


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


def arrays_of(path):
    """Everything in a file by its path."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


@pytest.fixture(name="model", scope="module")
def fixture_model():
    return make(norm="batch")


class BadFileTest:
    def test_no_hdf5(self, tmp_path, model):
        path = tmp_path / "x.h5"
        path.write_bytes(b"\x80\x04cposix\nsystem\n")
        with pytest.raises(
            InputError, match=rf"init_weights {path}: expected a whole HDF5 file of Keras, came: \S"
        ) as e:
            weights.load(path, model, inflate="centre")
        assert "\n" not in str(e.value)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_cut(self, flat, tmp_path, model, share):
        path, whole = tmp_path / "x.h5", flat[1].read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        before = model.get_weights()
        with pytest.raises(InputError, match=r"expected a whole HDF5 file of Keras, came: "):
            weights.load(path, model, inflate="centre")
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV2", "DenseNet121"])
    def test_another_architecture(self, tmp_path, model, name):
        path = tmp_path / "x.h5"
        getattr(tf.keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(
            path
        )
        with pytest.raises(InputError) as raised:
            weights.load(path, model, inflate="centre")
        message = str(raised.value)
        assert message.startswith(
            f"init_weights {path}: expected the layers of ResNet50, 101 or 152 of tf.keras.applications "
            "(model.save_weights('x.h5')), came "
        )
        assert "conv1_bn" in message.split(" without ")[1]

    def test_empty(self, tmp_path, model):
        with pytest.raises(
            InputError, match=r"came none with weights without conv1_conv, conv1_bn, conv2_block1_1_conv"
        ):
            weights.load(write(tmp_path / "x.h5", {}), model, inflate="centre")

    def test_network_without_a_place_for_it(self, flat):
        other = backbone.make(backbones.plain(), model_schema.Style(), name="backbone")
        other(tf.zeros([1, 16, 16, 16, 1]))
        with pytest.raises(InputError, match=r"expected some of \d+ variables such as .*, came 318 such as conv1_"):
            weights.load(flat[1], other, inflate="centre")

    def test_layers_with_other_weights(self, flat, tmp_path, model):
        arrays = arrays_of(flat[1])
        arrays["conv1_bn/conv1_bn/gamma:0"] = np.ones(32, np.float32)
        arrays["conv2_block1_1_conv/conv2_block1_1_conv/scale:0"] = np.ones(64, np.float32)
        report = weights.load(write(tmp_path / "x.h5", arrays), model, inflate="centre")
        assert_complete(report, model)
        missing = dict(report.missing)
        assert missing["stem/conv/kernel"] == missing["stem/norm/gamma"] == "gamma [32] beside a kernel [7, 7, 3, 64]"
        assert "came bias, kernel, scale" in missing["stages/0/0/first/conv/kernel"]
        assert ("conv2_block1_1_conv/scale", missing["stages/0/0/first/conv/kernel"]) in report.skipped

    def test_numbers_that_are_none(self, flat, tmp_path, model):
        arrays = arrays_of(flat[1])
        arrays["conv1_bn/conv1_bn/beta:0"] = np.full(64, np.inf, np.float32)
        with pytest.raises(InputError, match="expected finite numbers, came NaN or infinity for stem/norm/beta"):
            weights.load(write(tmp_path / "x.h5", arrays), model, inflate="centre")
        arrays["conv1_bn/conv1_bn/beta:0"] = np.array([b"x"] * 64)
        with pytest.raises(InputError, match="expected a whole HDF5 file of Keras, came: "):
            weights.load(write(tmp_path / "x.h5", arrays), model, inflate="centre")

    def test_two_networks(self, flat, tmp_path, model):
        arrays = arrays_of(flat[1])
        arrays["twin/conv1_bn/beta:0"] = np.zeros(64, np.float32)
        with pytest.raises(InputError, match="expected one network, came two with a layer conv1_bn"):
            weights.load(write(tmp_path / "x.h5", arrays), model, inflate="centre")
