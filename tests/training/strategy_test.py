import json
import os
import socket
import types

import pytest
import tensorflow as tf

from data.errors import InputError
from tests import mains
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
        names = "one_device, mirrored, multi_worker, tpu"
        with pytest.raises(InputError, match=f"--strategy: expected one of {names}, came 'horovod'"):
            strategy.make("horovod")

    def test_chosen_devices(self):
        assert strategy.make("one_device", devices=["CPU:0"]).extended.worker_devices == (
            "/job:localhost/replica:0/task:0/device:CPU:0",
        )
        with pytest.raises(InputError, match=r"--devices: expected some of .*CPU:0.*, came GPU:7, cpu"):
            strategy.make("mirrored", devices=["CPU:0", "GPU:7", "cpu"])

    @pytest.mark.parametrize("name", ["multi_worker", "tpu"])
    def test_others_choose_their_devices(self, name):
        with pytest.raises(InputError, match=f"--devices: expected none with --strategy={name}, came CPU:0"):
            strategy.make(name, devices=["CPU:0"])

    def test_no_tpu(self, monkeypatch):
        monkeypatch.delenv("TPU_NAME", raising=False)
        with pytest.raises(InputError, match=r"--strategy=tpu: expected a TPU, in TPU_NAME or on this host, came: .+"):
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

    @pytest.mark.parametrize("address", ["localhost", "localhost:", ":23001", "localhost:0", "localhost:99999", "a:b"])
    def test_address_without_host_or_port(self, monkeypatch, address):
        task = {"type": "worker", "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": [address]}, "task": task}))
        with pytest.raises(InputError, match=f"expected the address of this task as host:port, came {address}$"):
            strategy.make("multi_worker")

    def test_port_that_is_taken(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            task = {"type": "worker", "index": 0}
            monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": [address]}, "task": task}))
            with pytest.raises(InputError, match=f"expected a free port for {address}, came: Address already in use"):
                strategy.make("multi_worker")


class SumOfWorkersTest:
    def test_of_one_process_is_its_own(self):
        for name in ("one_device", "mirrored"):
            assert strategy.sum_of_workers(strategy.make(name), True) == 1.0
            assert strategy.sum_of_workers(strategy.make(name), 0.25) == 0.25


class LostWorkerTest:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (
                "Graph execution error:\n\nDetected at node ...\n\n"
                "Collective ops is aborted by: Connection reset by peer\nAdditional GRPC error information",
                "Connection reset by peer",
            ),
            ("Collective ops is aborted by:", "no reason given"),
        ],
    )
    def test_what_tensorflow_says_in_one_line(self, message, reason):
        line = strategy.lost_worker(tf.errors.UnavailableError(None, None, message))
        assert line == f"a worker is lost ({reason}); start all workers again, to go on from the newest checkpoint"

    def test_other_errors_are_none(self):
        assert strategy.lost_worker(tf.errors.ResourceExhaustedError(None, None, "out of memory")) is None


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


@pytest.fixture(scope="module")
def misuse(tmp_path_factory):
    """What train_main.py says to settings that cannot be, and where it would have written."""
    folder = tmp_path_factory.mktemp("misuse")
    commands = {
        "port": ["--strategy=multi_worker"],
        "device": ["--strategy=one_device", "--devices=GPU:31"],
        "devices of workers": ["--strategy=multi_worker", "--devices=GPU:0"],
        "no tpu": ["--strategy=tpu"],
        "strategy": ["--strategy=parallel"],
        "negative": ["--logical_devices=-1"],
        "optimizer": ["--config.train.optimizer.name=adamax"],
        "schedule": ["--config.train.schedule.name=step"],
        "profile": ["--profile=3"],
        "dump": ["--mode=replay"],
        "no dump": ["--mode=replay", f"--dump={folder}/absent/nonfinite_3"],
        "mode": ["--mode=validate"],
    }
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as taken:
        hosts = [f"127.0.0.1:{taken.getsockname()[1]}"]
        patch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 0}}))
        where = f"--workdir={folder}/model"
        results = mains.run_each("train_main", {name: [where, *more] for name, more in commands.items()})
    return results, folder


class MisuseTest:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("port", "TF_CONFIG: expected a free port for 127.0.0.1:"),
            ("device", "--devices: expected some of CPU:0"),
            ("devices of workers", "--devices: expected none with --strategy=multi_worker, came GPU:0"),
            ("no tpu", "--strategy=tpu: expected a TPU, in TPU_NAME or on this host, came: "),
            ("strategy", "--strategy=parallel: value should be one of <one_device|mirrored|multi_worker|tpu>"),
            ("negative", "--logical_devices=-1"),
            ("optimizer", "train.optimizer.name: expected one of adamw, adam, sgd, lamb, ranger, came 'adamax'"),
            ("schedule", "train.schedule.name: expected one of cosine, constant, exponential, polynomial, piecewise"),
            ("profile", "--profile: expected first:last with 1 <= first <= last, 100:110 say, came '3'"),
            ("dump", "--mode=replay: expected --dump=<workdir>/nonfinite_<step>, came nothing"),
            ("no dump", "absent: expected a run with config.json, found none"),
            ("mode", "--mode=validate: value should be one of <train|summary|sanity|lr_find|replay>"),
        ],
    )
    def test_is_one_line(self, misuse, name, words):
        mains.assert_misuse(misuse[0][name], words)

    def test_leaves_nothing(self, misuse):
        assert os.listdir(misuse[1]) == []
