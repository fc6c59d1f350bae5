import json

import numpy as np
import pytest
import tensorflow as tf

from data import index
from data.errors import InputError


def make_folder(folder, counts=(2, 1)):
    """Two shards of cases a, b, c with made-up places; and their manifest."""
    names, shards = iter("abc"), []
    for number, count in enumerate(counts):
        shards.append({"file": f"{number}.tfrecord", "records": count})
        rows = [
            {"offset": 12 + 100 * i, "length": 84, "hash": 7 * i + number, "case": next(names)} for i in range(count)
        ]
        (folder / f"{number}.tfrecord.index.json").write_text(json.dumps({"records": rows}))
    return {"shards": {"train": shards}}


class ReadTest:
    def test_by_hand(self, tmp_path):
        found = index.read(tmp_path, make_folder(tmp_path), "train")
        assert found.paths == [str(tmp_path / "0.tfrecord"), str(tmp_path / "1.tfrecord")]
        assert len(found) == 3
        assert found.cases == ["a", "b", "c"]
        for name, expected in (
            ("shard", [0, 0, 1]),
            ("offset", [0, 100, 0]),
            ("length", [84] * 3),
            ("hash", [0, 7, 1]),
        ):
            np.testing.assert_array_equal(getattr(found, name), expected)
            assert getattr(found, name).dtype == np.int64

    def test_an_index_that_is_no_json(self, tmp_path):
        manifest = make_folder(tmp_path)
        (tmp_path / "1.tfrecord.index.json").write_text("{")
        with pytest.raises(InputError, match=r"1.tfrecord.index.json: expected an index of records, cannot be read"):
            index.read(tmp_path, manifest, "train")
        (tmp_path / "1.tfrecord.index.json").write_text("[]")
        with pytest.raises(InputError, match=r"1.tfrecord.index.json: expected an index of records, came list"):
            index.read(tmp_path, manifest, "train")


class SharesTest:
    def shares(self, folder, weights):
        (folder / "weights.json").write_text(json.dumps(weights))
        return index.shares(index.read(folder, make_folder(folder), "train"), folder / "weights.json")

    def test_by_hand(self, tmp_path):
        np.testing.assert_allclose(self.shares(tmp_path, {"a": 0, "c": 3}), [0, 0.25, 1])

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            ({"a": 1, "d": 2, "e": 1}, "expected cases of the training split, came d, e"),
            ({"a": -1}, "expected a finite weight >= 0 for case a, came -1"),
            ({"a": float("nan")}, "expected a finite weight >= 0 for case a, came nan"),
            ({"a": True}, "expected a finite weight >= 0 for case a, came True"),
            ({"a": "1"}, "expected a finite weight >= 0 for case a, came '1'"),
            ({"a": 0, "b": 0, "c": 0}, "expected a case of weight > 0, came none"),
            ([], "expected weights of cases, came list"),
        ],
    )
    def test_bad_weights(self, tmp_path, weights, words):
        with pytest.raises(InputError, match=words):
            self.shares(tmp_path, weights)

    def test_no_such_file(self, tmp_path):
        found = index.read(tmp_path, make_folder(tmp_path), "train")
        with pytest.raises(InputError, match=r"absent.json: expected weights of cases, cannot be read"):
            index.shares(found, str(tmp_path / "absent.json"))


class DrawTest:
    def drawn(self, numbers, count, seed=0, stream=0, summed=None):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
        def one(number):
            return index.draw(number, count, seed, tf.constant(stream), summed)

        return [int(one(tf.constant(number, tf.int64))) for number in numbers]

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_an_epoch_holds_every_record_once(self, count):
        for epoch in (0, 1, 5, 2**40):
            numbers = range(epoch * count, (epoch + 1) * count)
            assert sorted(self.drawn(numbers, count)) == list(range(count))

    def test_epochs_seeds_and_streams_differ(self):
        orders = [tuple(self.drawn(range(20), 20))]
        orders += [tuple(self.drawn(range(20, 40), 20)), tuple(self.drawn(range(20), 20, seed=1))]
        orders += [tuple(self.drawn(range(20), 20, stream=1)), tuple(range(20))]
        assert len(set(orders)) == 5
        assert orders[0] == tuple(self.drawn(range(20), 20))

    def test_by_shares(self):
        summed = np.array([0.0, 0.25, 0.25, 1.0])
        counts = np.bincount(self.drawn(range(400), 4, summed=summed), minlength=4)
        assert counts[0] == counts[2] == 0
        assert abs(counts[1] - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5
