import json

import numpy as np
import pytest
import tensorflow as tf

from data.errors import InputError
from tests import tiny
from training import dump

WHAT = {
    "step": 7,
    "part": "mask = nan",
    "records": ["a", "b"],
    "seed": [[1, 0], [1, 1]],
    "stage": "joint",
    "learns": ["rpn", "heads"],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A dump of the tiny network, with the batch that it holds."""
    settings = tiny.config()
    folder, batch = tmp_path_factory.mktemp("run") / "nonfinite_7", tiny.batch(settings, 1)
    dump.write(folder, tiny.model(settings), {name: tf.constant(value) for name, value in batch.items()}, WHAT)
    return folder, batch


def copied(folder, to):
    """The dump once more, to be damaged."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


class DumpTest:
    def test_what_is_written_is_read(self, written):
        folder, batch = written
        read, what = dump.read(folder)
        assert what == WHAT
        assert set(read) == set(batch)
        for name, value in batch.items():
            np.testing.assert_array_equal(read[name], value, err_msg=name)
            assert read[name].dtype == value.dtype, name

    def test_the_network_gets_its_variables_back(self, written, tmp_path):
        tf.keras.utils.set_random_seed(3)
        first, second = tiny.model(tiny.config()), tiny.model(tiny.config())
        dump.write(tmp_path / "nonfinite_1", first, {"volume": np.zeros(2)}, WHAT)
        assert not np.allclose(first.trainable_variables[0], second.trainable_variables[0])
        dump.load(tmp_path / "nonfinite_1", second)
        for ours, theirs in zip(first.variables, second.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_another_dump_of_the_same_step_takes_its_place(self, tmp_path):
        model, folder = tf.Module(), tmp_path / "nonfinite_7"
        model.weight = tf.Variable(1.0)
        dump.write(folder, model, {"volume": np.zeros(2), "old": np.zeros(1)}, WHAT)
        dump.write(folder, model, {"volume": np.ones(2)}, {**WHAT, "part": "total"})
        batch, what = dump.read(folder)
        assert list(batch) == ["volume"]
        assert what["part"] == "total"
        assert [path.name for path in tmp_path.iterdir()] == ["nonfinite_7"]  # nothing hidden is left

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            ({"step": 1}, r"what.json: expected step, part, records, seed, stage, learns, came \['step'\]"),
            ({**WHAT, "step": "7"}, "what.json step: expected int, came '7'"),
        ],
    )
    def test_other_fields_are_refused_and_nothing_is_written(self, what, words, tmp_path):
        with pytest.raises(ValueError, match=words):
            dump.write(tmp_path / "nonfinite_7", tf.Module(), {}, what)
        assert not list(tmp_path.iterdir())

    def test_no_folder_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="nonfinite_3: expected the folder of a dump, nonfinite_<step>, came none"):
            dump.read(tmp_path / "nonfinite_3")

    @pytest.mark.parametrize("name", [dump.BATCH, dump.WHAT])
    @pytest.mark.parametrize("how", ["gone", "cut"])
    def test_damage_is_an_error(self, name, how, written, tmp_path):
        folder = copied(written[0], tmp_path / "nonfinite_7")
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        if how == "cut":
            path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="nonfinite_7: expected a whole dump of a step, came: "):
            dump.read(folder)

    def test_pickled_arrays_are_not_read(self, written, tmp_path):
        folder = copied(written[0], tmp_path / "nonfinite_7")
        np.savez(folder / dump.BATCH, volume=np.array([{"a": 1}], object))
        with pytest.raises(InputError, match=r"expected a whole dump of a step, came: .*pickle"):
            dump.read(folder)

    def test_foreign_fields_are_an_error(self, written, tmp_path):
        folder = copied(written[0], tmp_path / "nonfinite_7")
        (folder / dump.WHAT).write_text(json.dumps([1]))
        with pytest.raises(InputError, match=r"expected a whole dump of a step, came: what.json: expected step"):
            dump.read(folder)

    def test_variables_of_another_network_are_an_error(self, written, tmp_path):
        folder = copied(written[0], tmp_path / "nonfinite_7")
        with pytest.raises(InputError, match="nonfinite_7/model: expected the network of the config, came: "):
            dump.load(folder, tf.keras.layers.Dense(3))
        for path in folder.glob("model*"):
            path.unlink()
        with pytest.raises(InputError, match="nonfinite_7/model: expected the network of the config, came: "):
            dump.load(folder, tiny.model(tiny.config()))
