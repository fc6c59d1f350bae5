import json
import os
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf

from data.errors import InputError
from tests import tiny
from training import checkpoints, optimizers, restore


def make(settings, seed):
    """A state that has not trained."""
    tf.keras.utils.set_random_seed(seed)
    return restore.make_state(settings)


def step(state):
    variables = state.model.trainable_variables
    optimizers.apply(state.optimizer, [tf.ones_like(v) for v in variables], variables)


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    """A run with checkpoints of steps 1, 2 and 3, of which two are kept; its folder and state."""
    workdir, settings = tmp_path_factory.mktemp("run"), tiny.config(keep_checkpoints=2)
    state = make(settings, seed=0)
    manager = checkpoints.manager(workdir, state, settings.train)
    for number in (1, 2, 3):
        step(state)
        state.progress.best.assign(0.1 * number)
        assert checkpoints.save(manager, number) == str(workdir / "checkpoints" / f"ckpt-{number}")
    return workdir, state


@pytest.fixture(name="other", scope="module")
def fixture_other():
    return make(tiny.config(), seed=1)


def copy(run, folder):
    """The run's folder under another name, to be spoilt."""
    target = folder / checkpoints.CHECKPOINTS
    target.mkdir()
    for path in (run[0] / checkpoints.CHECKPOINTS).iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return folder


class ClaimTest:
    @staticmethod
    def never(text):
        raise AssertionError("a new folder has no config to compare with")

    def test_new_folder_holds_config_and_versions(self, tmp_path):
        workdir = tmp_path / "a" / "b"
        checkpoints.claim(workdir, '{"name": "x"}\n', self.never)
        assert (workdir / "config.json").read_text() == '{"name": "x"}\n'
        versions = json.loads((workdir / "versions.json").read_text())
        assert versions["tensorflow"] == tf.__version__
        assert versions["numpy"] == np.__version__
        assert sorted(path.name for path in workdir.iterdir()) == ["config.json", "versions.json"]

    def test_empty_folder(self, tmp_path):
        checkpoints.claim(str(tmp_path), "{}", self.never)
        assert checkpoints.read_config_text(tmp_path) == "{}"

    def test_run_of_the_same_config_is_left_as_it_is(self, tmp_path):
        checkpoints.claim(tmp_path, "old", self.never)
        seen = []
        checkpoints.claim(tmp_path, "new", lambda text: seen.append(text) or [])
        assert seen == ["old"]
        assert checkpoints.read_config_text(tmp_path) == "old"

    def test_run_of_another_config(self, tmp_path):
        checkpoints.claim(tmp_path, "old", self.never)
        with pytest.raises(InputError) as raised:
            checkpoints.claim(tmp_path, "new", lambda text: ["train.seed: 0 -> 1", "name: a -> b"])
        assert str(raised.value) == (
            f"workdir {tmp_path} belongs to another config (train.seed: 0 -> 1; name: a -> b); choose another --workdir"
        )
        assert checkpoints.read_config_text(tmp_path) == "old"

    def test_folder_of_other_files(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("dear")
        with pytest.raises(InputError, match="expected a new or empty folder or an earlier run, came other files"):
            checkpoints.claim(tmp_path, "{}", self.never)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        for workdir in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
            with pytest.raises(
                InputError, match=f"workdir {workdir}: expected a folder, came the file {tmp_path}/file"
            ):
                checkpoints.claim(workdir, "{}", self.never)

    def test_without_permission(self, tmp_path, monkeypatch):
        # Nothing is forbidden to root, who runs the tests in a container.
        monkeypatch.setattr(checkpoints.os, "access", lambda path, mode: False)
        with pytest.raises(InputError, match=f"a folder that can be written, came {tmp_path} without permission"):
            checkpoints.claim(tmp_path / "a", "{}", self.never)
        assert list(tmp_path.iterdir()) == []

    def test_disk_that_refuses(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
        with pytest.raises(InputError, match="a: cannot be written: No space left on device"):
            checkpoints.claim(tmp_path / "a", "{}", self.never)


class CheckTest:
    def test_refuses_what_claim_refuses(self, tmp_path):
        (tmp_path / "foreign").mkdir()
        (tmp_path / "foreign" / "thesis.tex").write_text("dear")
        with pytest.raises(InputError, match="came other files"):
            checkpoints.check(tmp_path / "foreign", ClaimTest.never)
        checkpoints.claim(tmp_path / "run", "old", ClaimTest.never)
        with pytest.raises(InputError, match=r"belongs to another config \(name: a -> b\)"):
            checkpoints.check(tmp_path / "run", lambda text: ["name: a -> b"])

    def test_makes_nothing(self, tmp_path):
        checkpoints.check(tmp_path / "a", ClaimTest.never)
        checkpoints.check(tmp_path, ClaimTest.never)
        assert list(tmp_path.iterdir()) == []

    def test_passes_at_every_moment_of_a_claim(self, tmp_path, monkeypatch):
        seen = []

        def replacing(path):
            seen.append(sorted(path.parent.iterdir()))
            checkpoints.check(path.parent, ClaimTest.never)
            return original(path)

        original = checkpoints.replacing
        monkeypatch.setattr(checkpoints, "replacing", replacing)
        checkpoints.claim(tmp_path, "{}", ClaimTest.never)
        assert seen == [[], [tmp_path / "versions.json"]]
        for temporary in (".0123abcd.versions.json", ".0123abcd.config.json"):
            (tmp_path / "config.json").unlink(missing_ok=True)
            (tmp_path / temporary).write_text("")
            checkpoints.check(tmp_path, ClaimTest.never)

    def test_a_claim_that_ends_while_it_looks(self, tmp_path, monkeypatch):
        def listdir(folder):
            names = original(folder)
            checkpoints.claim(folder, "{}", lambda text: [])
            (folder / "metrics.jsonl").write_text("")
            return names

        original = os.listdir
        monkeypatch.setattr(checkpoints.os, "listdir", lambda folder: monkeypatch.undo() or listdir(folder))
        texts = []
        checkpoints.check(tmp_path, lambda text: texts.append(text) or [])
        assert texts == ["{}"]


class ReadConfigTextTest:
    def test_no_run(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a run with config\.json, found none; train one first"):
            checkpoints.read_config_text(tmp_path)


class ManagerTest:
    def test_keeps_the_newest_under_their_step(self, run):
        names = {path.name for path in (run[0] / checkpoints.CHECKPOINTS).glob("*.index")}
        assert names == {"ckpt-2.index", "ckpt-3.index"}

    def test_other_workers_write_elsewhere(self, tmp_path):
        state = restore.State(tf.Module())
        manager = checkpoints.manager(tmp_path, state, tiny.config().train, worker="worker-1")
        assert pathlib.Path(manager.directory) == tmp_path / "checkpoints-worker-1"
        best = checkpoints.best_manager(tmp_path, tf.Module(), worker="worker-1")
        assert pathlib.Path(best.directory) == tmp_path / "best-worker-1"

    def test_one_is_kept_for_good_after_every_so_many_hours(self, tmp_path):
        settings = tiny.config(keep_checkpoints=1, keep_hours=1e-9)
        manager = checkpoints.manager(tmp_path, restore.State(tf.Module()), settings.train)
        for number in (1, 2, 3):
            checkpoints.save(manager, number)
        assert len(checkpoints.newest_first(tmp_path / "checkpoints")) == 3

    def test_full_disk_is_one_line_and_leaves_the_earlier_ones(self, tmp_path):
        state = restore.State(tf.Module())
        state.model.weights = tf.Variable(tf.zeros([100_000]))
        manager = checkpoints.manager(tmp_path, state, tiny.config(keep_checkpoints=1).train)
        checkpoints.save(manager, 1)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(OSError, match="checkpoint 2 cannot be written: ") as raised:
                checkpoints.save(manager, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(raised.value)
        state.model.weights.assign_add(tf.ones([100_000]))
        assert checkpoints.restore_latest(tmp_path, state) == str(tmp_path / "checkpoints" / "ckpt-1")
        assert float(tf.reduce_max(state.model.weights)) == 0.0


class FullDiskTest:
    def test_line_that_says_so(self):
        error = tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\n /a; No space left on device\n")
        assert checkpoints.full_disk(error) == "/a; No space left on device"
        error = tf.errors.OutOfRangeError(None, None, "/a; File too large")
        assert checkpoints.full_disk(error) == "/a; File too large"

    def test_memory_is_no_disk(self):
        assert checkpoints.full_disk(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")) is None


class RestoreLatestTest:
    def test_all_parts_come_back(self, run, other):
        workdir, state = run
        path = checkpoints.restore_latest(workdir, other)
        assert path == str(workdir / "checkpoints" / "ckpt-3")
        assert_equal(other.model.get_weights(), state.model.get_weights())
        assert int(other.optimizer.iterations) == 3
        assert_equal(other.optimizer.variables, state.optimizer.variables)
        np.testing.assert_allclose(other.progress.best, 0.3)

    def test_training_goes_on_as_if_it_had_not_stopped(self, run, other):
        checkpoints.restore_latest(run[0], other)
        step(other)
        expected = make(tiny.config(), seed=0)
        for _ in range(4):
            step(expected)
        assert_equal(other.model.get_weights(), expected.model.get_weights())

    def test_network_alone(self, run, other):
        other.model.set_weights([np.zeros_like(w) for w in other.model.get_weights()])
        assert checkpoints.restore_latest(run[0], restore.State(other.model)).endswith("ckpt-3")
        assert_equal(other.model.get_weights(), run[1].model.get_weights())

    def test_run_without_a_checkpoint(self, tmp_path, other):
        before = other.model.get_weights()
        assert checkpoints.restore_latest(tmp_path, other) is None
        assert_equal(other.model.get_weights(), before)

    @pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
    @pytest.mark.parametrize("spoil", ["cut", "turn"])
    def test_damaged_newest_one(self, run, other, tmp_path, capsys, part, spoil):
        path = copy(run, tmp_path) / "checkpoints" / f"ckpt-3.{part}"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if spoil == "turn" else content[:100])
        found = checkpoints.restore_latest(tmp_path, other)
        folder = tmp_path / "checkpoints"
        assert found == str(folder / "ckpt-2")
        assert int(other.optimizer.iterations) == 2
        line = capsys.readouterr().out
        assert line.startswith(f"warning: checkpoint {folder}/ckpt-3: expected a whole one of this network, came: ")
        assert line.endswith(f"; going on with {folder}/ckpt-2\n")

    def test_all_damaged(self, run, other, tmp_path):
        folder = copy(run, tmp_path) / "checkpoints"
        for path in folder.glob("ckpt-*.data*"):
            path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(InputError, match="ckpt-3: expected a whole one of this network, came: ") as raised:
            checkpoints.restore_latest(tmp_path, other)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(("lost", "found"), [("checkpoint", "ckpt-3"), ("ckpt-3.index", "ckpt-2")])
    def test_a_lost_file_does_not_begin_the_run_anew(self, run, other, tmp_path, lost, found):
        (copy(run, tmp_path) / "checkpoints" / lost).unlink()
        assert checkpoints.restore_latest(tmp_path, other) == str(tmp_path / "checkpoints" / found)
        assert int(other.optimizer.iterations) == int(found[-1])

    def test_network_of_other_widths(self, run):
        settings = tiny.config()
        settings.model.fpn.channels = 12
        with pytest.raises(InputError, match=r"expected a whole one of this network, came: .*shape"):
            checkpoints.restore_latest(run[0], restore.State(tiny.model(settings)))

    def test_network_with_more_layers(self, run):
        settings = tiny.config()
        settings.model.mask_head.num_convs = 2
        with pytest.raises(InputError, match="expected a whole one of this network, came: "):
            checkpoints.restore_latest(run[0], restore.State(tiny.model(settings)))

    def test_network_with_fewer_layers(self, tmp_path, other):
        settings = tiny.config()
        settings.model.mask_head.num_convs = 2
        checkpoints.save(checkpoints.manager(tmp_path, make(settings, seed=0), settings.train), 1)
        with pytest.raises(InputError, match="expected a whole one of this network, came: "):
            checkpoints.restore_latest(tmp_path, other)
        with pytest.raises(InputError, match="expected a whole one of this network, came: "):
            checkpoints.restore_latest(tmp_path, restore.State(other.model))


class LoadModelTest:
    def test_weights_of_the_newest_checkpoint_where_none_is_the_best(self, run):
        model, path = restore.load_model(run[0], tiny.config())
        assert path == str(run[0] / "checkpoints" / "ckpt-3")
        assert_equal(model.get_weights(), run[1].model.get_weights())

    def test_best_or_latest(self, run, tmp_path):
        copy(run, tmp_path)
        best = tiny.model(tiny.config())
        checkpoints.save(checkpoints.best_manager(tmp_path, best), 2)
        for which, expected in (("best", best), ("latest", run[1].model)):
            model, path = restore.load_model(tmp_path, tiny.config(), which)
            assert_equal(model.get_weights(), expected.get_weights())
            assert path.split("/")[-2:] == {"best": ["best", "ckpt-2"], "latest": ["checkpoints", "ckpt-3"]}[which]

    def test_mean_weights_where_the_run_has_them(self, tmp_path):
        settings = tiny.config()
        settings.train.average.name = "ema"
        state = make(settings, seed=0)
        checkpoints.save(checkpoints.manager(tmp_path, state, settings.train), 1)
        model, _ = restore.load_model(tmp_path, settings)
        assert_equal(model.get_weights(), state.model.get_weights())  # the mean has not begun
        for mean in state.average.means:
            mean.assign(tf.fill(mean.shape, 7.0))
        state.average.count.assign(1)
        checkpoints.save(checkpoints.manager(tmp_path, state, settings.train), 2)
        model, _ = restore.load_model(tmp_path, settings)
        assert_equal(model.get_weights(), [np.full_like(w, 7.0) for w in state.model.get_weights()])

    def test_run_without_a_checkpoint(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a checkpoint in checkpoints/, found none; train first"):
            restore.load_model(tmp_path, tiny.config())
