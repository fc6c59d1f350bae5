import functools
import os
import pathlib

import pytest

from configs import schema
from data import convert, engine
from data.errors import InputError


def touch(unit, folder):
    """A unit of work that leaves a file with the process that did it, or fails."""
    if unit == "bad":
        raise InputError("bad.nii: expected a volume, got none")
    if unit == "full":
        raise OSError("No space left on device")
    if unit == "dead":
        os._exit(9)
    (pathlib.Path(folder) / unit).write_text(str(os.getpid()))


def config():
    settings = {"shape": (40, 50, 60), "count": (2, 4), "base_size": 6.0, "num_train": 24, "num_val": 3, "num_test": 1}
    return schema.Data(synthetic=schema.Synthetic(**settings), shard_megabytes=1)


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


class RunTest:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_every_unit_is_done_by_so_many_processes(self, tmp_path, workers):
        units = [str(i) for i in range(12)]
        engine.run(functools.partial(touch, folder=tmp_path), units, workers=workers)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(units)
        processes = {path.read_text() for path in tmp_path.iterdir()}
        if workers == 1:
            assert processes == {str(os.getpid())}
        else:
            assert str(os.getpid()) not in processes
            assert 1 <= len(processes) <= workers

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize(
        ("unit", "kind", "words"),
        [("bad", InputError, "^bad.nii: expected a volume, got none$"), ("full", OSError, "^No space left on device$")],
    )
    def test_errors_come_as_they_were_raised(self, tmp_path, workers, unit, kind, words):
        with pytest.raises(kind, match=words):
            engine.run(functools.partial(touch, folder=tmp_path), ["a", unit, "b"], workers=workers)

    def test_a_process_that_dies_is_said(self, tmp_path):
        with pytest.raises(OSError, match="a worker process died; was it killed, or was there not enough memory"):
            engine.run(functools.partial(touch, folder=tmp_path), ["a", "dead", "b"], workers=2)

    def test_nothing_to_do(self, tmp_path):
        engine.run(functools.partial(touch, folder=tmp_path), [], workers=3)
        assert list(tmp_path.iterdir()) == []


class ConversionTest:
    def test_any_number_of_processes_gives_the_same_bytes(self, tmp_path):
        convert.convert(config(), tmp_path / "one", workers=1, progress=False)
        convert.convert(config(), tmp_path / "three", workers=3, progress=False)
        assert len(list((tmp_path / "one").glob("train-*.tfrecord"))) == 3
        assert contents(tmp_path / "one") == contents(tmp_path / "three")


class BeamTest:
    @pytest.fixture(autouse=True)
    def beam(self):
        return pytest.importorskip("apache_beam", reason="needs Apache Beam, the extra [beam]")

    def test_gives_the_same_bytes(self, tmp_path):
        convert.convert(config(), tmp_path / "pool", progress=False)
        convert.convert(config(), tmp_path / "beam", runner="DirectRunner", progress=False)
        assert contents(tmp_path / "beam") == contents(tmp_path / "pool")

    @pytest.mark.parametrize(
        ("unit", "kind", "words"),
        [("bad", InputError, "^bad.nii: expected a volume, got none$"), ("full", OSError, "^No space left on device$")],
    )
    def test_errors_come_as_they_were_raised(self, tmp_path, unit, kind, words):
        with pytest.raises(kind, match=words):
            engine.run(functools.partial(touch, folder=str(tmp_path)), ["a", unit], runner="DirectRunner")


class WithoutBeamTest:
    def test_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
        with pytest.raises(InputError, match=r"--runner=FlinkRunner: expected Apache Beam; install the extra \[beam\]"):
            engine.run(print, ["a"], runner="FlinkRunner")
