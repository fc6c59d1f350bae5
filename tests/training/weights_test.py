import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data.errors import InputError
from tests import tiny
from training import checkpoints, restore, weights

ROOT = pathlib.Path(__file__).parents[2]


def make(settings, seed):
    """A network in which no variable is like that of another seed, zeros and ones neither."""
    model = tiny.model(settings)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.standard_normal(w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def save(folder, settings, model):
    """A run's folder as train_main leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(schema.to_json(settings))
    checkpoints.save(checkpoints.manager(folder, restore.State(model), settings.train), 7)
    return folder


def values(model):
    return {name: variable.numpy() for name, variable in weights.named_variables(model).items()}


def load(path, model, **kwargs):
    return weights.load(path, model, **{"inflate": "centre", "classes": tiny.CLASSES, "attributes": (), **kwargs})


def assert_complete(report, model):
    """Every variable is in one list, and every line of the lists is in the text."""
    names = [*report.loaded, *(name for name, _ in report.partly), *(name for name, _ in report.missing)]
    assert sorted(names) == sorted(weights.named_variables(model))
    text = "\n".join(report.lines())
    for kind in ("partly", "missing", "skipped"):
        for name, reason in getattr(report, kind):
            assert f"{kind} {name}: {reason}" in text


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """A run's folder and its network."""
    model = make(tiny.config(), seed=0)
    return save(tmp_path_factory.mktemp("run"), tiny.config(), model), model


@pytest.fixture(name="other")
def fixture_other():
    return make(tiny.config(), seed=1)


def copy(run, folder):
    """The run's folder under another name, to be spoilt."""
    (folder / "checkpoints").mkdir()
    for path in (run[0] / "checkpoints").iterdir():
        (folder / "checkpoints" / path.name).write_bytes(path.read_bytes())
    return folder


class NamedVariablesTest:
    def test_names_are_those_in_the_checkpoint(self, run):
        keys = [key for key, _ in tf.train.list_variables(str(run[0] / "checkpoints" / "ckpt-7"))]
        end = "/.ATTRIBUTES/VARIABLE_VALUE"
        saved = {key[len("model/") : -len(end)] for key in keys if key.startswith("model/") and key.endswith(end)}
        assert saved == set(weights.named_variables(run[1]))
        assert "backbone/stages/0/0/first/conv/kernel" in saved

    @pytest.mark.parametrize("norm", ["batch", "instance"])
    def test_half_precision_and_other_styles(self, norm):
        settings = tiny.config(precision="mixed_bfloat16")
        settings.model.style.norm = norm
        settings.model.style.activation = "prelu"
        settings.model.box_head.cascade_ious = (0.5, 0.6)
        model = tiny.model(settings.validate())
        named = weights.named_variables(model)
        assert len(named) == len(model.variables)
        assert all(a is b for a, b in zip(named.values(), model.variables, strict=True))
        assert "box_heads/1/logits/bias" in named


class LoadTest:
    def test_a_run_comes_back_whole(self, run, other):
        report = load(run[0], other)
        for name, value in values(run[1]).items():
            np.testing.assert_array_equal(values(other)[name], value)
        assert report.loaded == list(weights.named_variables(other))
        assert (report.partly, report.skipped, report.missing, report.notes) == ([], [], [], [])
        assert report.lines() == [
            f"first weights: {len(report.loaded)} variables loaded, 0 partly, 0 keep their initialisation; "
            "0 entries of the file are not used"
        ]

    def test_the_prefix_of_a_checkpoint(self, run, other):
        report = load(run[0] / "checkpoints" / "ckpt-7", other)
        assert len(report.loaded) == len(other.variables)
        np.testing.assert_array_equal(other.get_weights()[-1], run[1].get_weights()[-1])

    def test_float32_run_begins_a_half_precision_one(self, run):
        model = make(tiny.config(precision="mixed_bfloat16"), seed=1)
        report = load(str(run[0]), model)
        assert len(report.loaded) == len(model.variables)
        np.testing.assert_array_equal(model.get_weights()[0], run[1].get_weights()[0])

    def test_other_width_of_the_backbone(self, run):
        settings = tiny.config()
        settings.model.backbone.stage_channels = (8, 24)
        model = make(settings.validate(), seed=1)
        before = values(model)
        report = load(run[0], model)
        assert_complete(report, model)
        name = "backbone/stages/1/0/second/conv/kernel"
        reason = "shape [3, 3, 3, 16, 16] in the file, [3, 3, 3, 24, 24] in the model"
        assert (name, reason) in report.skipped
        assert (name, reason) in report.missing
        assert "backbone/stages/0/0/second/conv/kernel" in report.loaded
        after, theirs = values(model), values(run[1])
        for fresh, _ in report.missing:
            np.testing.assert_array_equal(after[fresh], before[fresh])
        for loaded in report.loaded:
            np.testing.assert_array_equal(after[loaded], theirs[loaded])

    def test_more_layers_and_fewer(self, run, tmp_path):
        settings = tiny.config()
        settings.model.mask_head.num_convs = 2
        model = make(settings, seed=1)
        report = load(run[0], model)
        assert_complete(report, model)
        assert {name.rsplit("/", 2)[0] for name, _ in report.missing} == {"mask_head/tower/convs/1"}
        assert {reason for _, reason in report.missing} == {"nothing in the file matches"}
        assert report.skipped == []

        back = make(tiny.config(), seed=2)
        report = load(save(tmp_path, settings, model), back)
        assert_complete(report, back)
        assert len(report.loaded) == len(back.variables)
        assert {name.rsplit("/", 2)[0] for name, _ in report.skipped} == {"mask_head/tower/convs/1"}
        assert {reason for _, reason in report.skipped} == {"the model has no such variable"}

    def test_frozen_batch_norm_takes_what_batch_norm_learnt(self, tmp_path):
        settings = tiny.config()
        settings.model.style.norm = "batch"
        trained = make(settings, seed=0)
        folder = save(tmp_path, settings, trained)
        settings.model.style.norm = "frozen_batch"
        model = make(settings, seed=1)
        report = load(folder, model)
        # The heads have biases in the place of a normalisation.
        assert {name.split("/")[0] for name, _ in report.missing} == {"box_heads", "mask_head"}
        assert all(name.endswith("/conv/bias") for name, _ in report.missing)
        assert all("/norm/" in name and not name.startswith("backbone/") for name, _ in report.skipped)
        name = "backbone/stem/norm/moving_variance"
        np.testing.assert_array_equal(values(model)[name], values(trained)[name])

    def test_json(self, run, other):
        report = load(run[0], other)
        assert json.loads(json.dumps(report.as_dict())) == {
            "loaded": report.loaded,
            "partly": [],
            "skipped": [],
            "missing": [],
            "notes": [],
        }

    def test_two_replicas(self, tmp_path):
        settings = tiny.config()
        settings.model.style.norm = "batch"
        trained = make(settings, seed=0)
        folder = save(tmp_path / "run", settings, trained)
        command = [
            sys.executable,
            "-m",
            "tests.training.weights_two_devices",
            str(folder),
            str(tmp_path / "copies.npz"),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        copies, theirs = np.load(tmp_path / "copies.npz"), values(trained)
        for name in ("backbone/stem/conv/kernel", "backbone/stem/norm/moving_mean"):
            np.testing.assert_array_equal(copies[name], [theirs[name]] * 2)
        mask = copies["mask_head/logits/bias"]  # of rod, disc and plate, from a run of plate and rod
        np.testing.assert_array_equal(mask[:, [2, 0]], [theirs["mask_head/logits/bias"]] * 2)
        np.testing.assert_array_equal(mask[:, 1], [0.0, 0.0])


class BadInputTest:
    @pytest.mark.parametrize("name", ["nowhere", "nowhere.h5", "weights.npz", "ckpt-7.index"])
    def test_no_such_file_or_another_kind(self, tmp_path, other, name):
        came = "nothing of this name"
        if "nowhere" not in name:
            (tmp_path / name).write_bytes(b"\x80\x04")
            came = "one of another kind"
        with pytest.raises(InputError) as raised:
            load(tmp_path / name, other)
        assert str(raised.value) == (
            f"init_weights {tmp_path / name}: expected a run's folder, the prefix of a checkpoint or a Keras file "
            f"(.h5, .hdf5), came {came}"
        )

    def test_run_without_a_checkpoint(self, tmp_path, other):
        with pytest.raises(InputError, match=r"expected a run with a checkpoint in checkpoints/, found none"):
            load(tmp_path, other)

    @pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
    @pytest.mark.parametrize("length", [0, 100, 20000])
    def test_cut_checkpoint_changes_nothing(self, run, other, tmp_path, part, length):
        path = copy(run, tmp_path) / "checkpoints" / f"ckpt-7.{part}"
        whole = path.read_bytes()
        path.write_bytes(whole[: min(length, len(whole) - 10)])
        before = other.get_weights()
        with pytest.raises(InputError) as raised:
            load(tmp_path, other)
        message = str(raised.value)
        assert message.startswith(f"init_weights {tmp_path}/checkpoints/ckpt-7: expected a whole checkpoint, came: ")
        assert "\n" not in message
        for old, new in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_lost_data(self, run, other, tmp_path):
        (copy(run, tmp_path) / "checkpoints" / "ckpt-7.data-00000-of-00001").unlink()
        with pytest.raises(InputError, match="expected a whole checkpoint, came: "):
            load(tmp_path, other)

    def test_checkpoint_of_something_else(self, tmp_path, other):
        prefix = tf.train.Checkpoint(net=tf.Variable(1.0)).write(str(tmp_path / "x"))
        with pytest.raises(InputError, match=r"expected the checkpoint of a run \(model/\.\.\.\), came "):
            load(prefix, other)

    def test_nothing_matches(self, tmp_path, other):
        model = tf.Module()
        model.kernel = tf.Variable([1.0, 2.0])
        prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "x"))
        with pytest.raises(InputError) as raised:
            load(prefix, other)
        assert str(raised.value) == (
            f"init_weights {prefix}: expected some of {len(other.variables)} variables such as "
            "backbone/stem/conv/kernel [3, 3, 3, 1, 8], came 1 such as kernel (the model has no such variable)"
        )

    def test_diverged_run(self, tmp_path, other):
        model = make(tiny.config(), seed=0)
        model.variables[0].assign(tf.fill(model.variables[0].shape, np.nan))
        before = other.get_weights()
        with pytest.raises(InputError, match=r"expected finite numbers, came NaN or infinity for backbone/stem/conv/"):
            load(save(tmp_path, tiny.config(), model), other)
        np.testing.assert_array_equal(other.get_weights()[0], before[0])

    @pytest.mark.parametrize("text", ["{", "[]", '{"data": {"classes": 3}}', "{}"])
    def test_config_that_is_none(self, run, other, tmp_path, text):
        copy(run, tmp_path)
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=rf"{tmp_path}/config\.json: expected the config of a run, came: "):
            load(tmp_path, other)

    def test_arguments(self, run, other):
        with pytest.raises(ValueError, match="inflate: expected one of centre, repeat, came 'mean'"):
            load(run[0], other, inflate="mean")
        with pytest.raises(ValueError, match="expected a model with variables, came empty before it was built"):
            load(run[0], tf.keras.layers.Dense(1, name="empty"))
