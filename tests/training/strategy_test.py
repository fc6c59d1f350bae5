import json
import types

import pytest
import tensorflow as tf

from data.errors import InputError
from training import strategy

TWO_WORKERS = {"worker": ["localhost:23001", "localhost:23002"]}


def strategy_of(cluster, task_type, task_id):
    """Stands for a strategy of several processes, without starting any."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=task_type, task_id=task_id
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


class MakeTest:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [("one_device", tf.distribute.OneDeviceStrategy), ("mirrored", tf.distribute.MirroredStrategy)],
    )
    def test_one_process(self, name, kind):
        made = strategy.make(name)
        assert isinstance(made, kind)
        assert made.num_replicas_in_sync == 1
        assert strategy.is_chief(made)

    def test_unknown_name(self):
        with pytest.raises(
            InputError, match="--strategy: expected one of one_device, mirrored, multi_worker, came 'tpu'"
        ):
            strategy.make("tpu")

    def test_devices_cannot_be_split_any_more(self):
        tf.config.list_logical_devices()
        with pytest.raises(InputError, match="--logical_devices=2: TensorFlow has already been initialised"):
            strategy.make("mirrored", logical_devices=2)

    def test_negative_number_of_devices(self):
        with pytest.raises(InputError, match="--logical_devices: expected a number >= 0, came -1"):
            strategy.make("mirrored", logical_devices=-1)


class TfConfigTest:
    def test_missing(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        with pytest.raises(InputError, match="expected TF_CONFIG in the environment, came nothing"):
            strategy.make("multi_worker")

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "{}",
            json.dumps({"cluster": TWO_WORKERS}),
            json.dumps({"cluster": {"ps": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}),
            json.dumps({"cluster": TWO_WORKERS, "task": {"type": "worker"}}),
            json.dumps({"cluster": TWO_WORKERS, "task": {"type": "worker", "index": "0"}}),
        ],
    )
    def test_not_as_expected(self, monkeypatch, text):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InputError) as raised:
            strategy.make("multi_worker")
        assert str(raised.value) == (
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}, came {text}'
        )

    @pytest.mark.parametrize("task", [{"type": "worker", "index": 2}, {"type": "chief", "index": 0}])
    def test_task_outside_the_cluster(self, monkeypatch, task):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": TWO_WORKERS, "task": task}))
        with pytest.raises(InputError) as raised:
            strategy.make("multi_worker")
        assert str(raised.value) == f"TF_CONFIG: task {task} is not among the workers {TWO_WORKERS['worker']}"


class IsChiefTest:
    @pytest.mark.parametrize(
        ("cluster", "task_type", "task_id", "expected"),
        [
            (TWO_WORKERS, "worker", 0, True),
            (TWO_WORKERS, "worker", 1, False),
            ({"chief": ["localhost:23000"], **TWO_WORKERS}, "chief", 0, True),
            ({"chief": ["localhost:23000"], **TWO_WORKERS}, "worker", 0, False),
            ({"chief": ["localhost:23000"], **TWO_WORKERS}, "worker", 1, False),
        ],
    )
    def test_exactly_one_process_is(self, cluster, task_type, task_id, expected):
        assert strategy.is_chief(strategy_of(cluster, task_type, task_id)) is expected
