import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest
import wandb

from tests.tracking import cases
from tracking.wandb_run import WandbRun

MANIFEST = {"shards": {"train": [{"path": "train-00000", "records": 3, "crc32c": 7}]}}


def make(workdir, mode="offline"):
    return WandbRun(workdir, "tests", {"model": {"classes": ("a", "b")}}, mode)


def artifacts(workdir):
    records = cases.wandb_records(workdir)
    return [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]


def contents(artifact):
    return {entry.path: pathlib.Path(entry.local_path) for entry in artifact.manifest.contents}


class LogTest:
    def test_scalars_by_step(self, tmp_path):
        run = make(tmp_path)
        run.log(2, lambda: {"total": 0.75})
        run.log(4, lambda: {"total": 0.5})
        run.log(4, lambda: {"val/mask_ap50": 0.25})
        run.close()
        history = cases.wandb_history(tmp_path)
        shown = {step: {k: v for k, v in row.items() if k[0] != "_"} for step, row in history.items()}
        assert shown == {2: {"total": 0.75}, 4: {"total": 0.5, "val/mask_ap50": 0.25}}

    def test_close_says_how_to_upload(self, tmp_path, capsys):
        make(tmp_path).close()
        (folder,) = tmp_path.glob("wandb/offline-run-*")
        assert capsys.readouterr().out == f"wandb: offline run; upload it with: wandb sync {folder}\n"

    def test_disabled_makes_nothing(self, tmp_path, capsys):
        run = make(tmp_path, "disabled")
        run.log(2, pytest.fail)
        run.use_dataset("a", MANIFEST)
        run.log_artifact(tmp_path, "model", "best")
        run.close()
        assert not run.is_on
        assert list(tmp_path.iterdir()) == []
        assert capsys.readouterr().out == ""


class FailureTest:
    def test_an_error_is_one_line_and_the_end_of_it(self, tmp_path, capsys, monkeypatch):
        run = make(tmp_path)

        def fail(*args, **kwargs):
            raise OSError(28, "No space\nleft")

        monkeypatch.setattr(run.run, "log", fail)
        for step in (2, 4):
            run.log(step, lambda: {"total": 0.75})
        run.close()
        line = "wandb: not continued (OSError: [Errno 28] No space left); metrics.jsonl has everything\n"
        assert capsys.readouterr().out == line

    def test_a_service_that_dies_is_one_line_and_the_end_of_it(self, tmp_path, capsys):
        before = set(children())
        run = make(tmp_path)
        (service,) = set(children()) - before
        run.log(2, lambda: {"total": 0.75})
        os.kill(service, signal.SIGKILL)
        time.sleep(0.5)
        began = time.monotonic()
        for step in range(4, 100, 2):
            run.log(step, lambda: {"total": 0.5})
        run.close()
        assert time.monotonic() - began < 10.0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("wandb: not continued (Connection")
        assert line.endswith("; metrics.jsonl has everything")


def children():
    """Ids of wandb's processes that this one has started."""
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue  # it has ended
        if "(wandb" in name and rest.split()[1] == str(os.getpid()) and rest.split()[0] != "Z":
            yield int(path.parent.name)


class ArtifactTest:
    def test_dataset_is_an_input_that_holds_the_manifest_alone(self, tmp_path):
        run = make(tmp_path)
        run.use_dataset("nuclei", MANIFEST)
        run.close()
        (artifact,) = artifacts(tmp_path)
        assert (artifact.type, artifact.name, artifact.use_after_commit) == ("dataset", "records-nuclei", True)
        files = contents(artifact)
        assert list(files) == ["manifest.json"]
        # It is there when the run is uploaded later.
        assert json.loads(files["manifest.json"].read_text()) == MANIFEST

    def test_checkpoint_is_an_output_that_knows_its_dataset(self, tmp_path):
        for name in ("ckpt-4.index", "ckpt-4.data-00000-of-00001", "ckpt-40.index"):
            (tmp_path / name).write_bytes(np.arange(5).tobytes())
        run = make(tmp_path)
        run.use_dataset("nuclei", MANIFEST)
        run.log_artifact(tmp_path / "ckpt-4", "model", "best")
        run.close()
        dataset, artifact = artifacts(tmp_path)
        run_id = (tmp_path / "wandb_id.txt").read_text().strip()
        assert (artifact.type, artifact.name, artifact.use_after_commit) == ("model", f"{run_id}-best", False)
        assert json.loads(artifact.metadata) == {"dataset": "records-nuclei", "dataset_digest": dataset.digest}
        # Not copied.
        names = ("ckpt-4.data-00000-of-00001", "ckpt-4.index")
        assert contents(artifact) == {name: tmp_path / name for name in names}

    def test_folder_and_file(self, tmp_path):
        folder = tmp_path / "export"
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text("graph")
        (folder / "variables" / "variables.index").write_text("index")
        run = make(tmp_path)
        run.log_artifact(folder, "model", "saved_model")
        run.log_artifact(folder / "saved_model.pb", "graph", "graph")
        run.close()
        both, single = artifacts(tmp_path)
        assert sorted(contents(both)) == ["saved_model.pb", "variables/variables.index"]
        assert list(contents(single)) == ["saved_model.pb"]

    def test_what_is_not_there_ends_wandb_alone(self, tmp_path, capsys):
        run = make(tmp_path)
        run.log_artifact(tmp_path / "ckpt-4", "model", "best")
        line = capsys.readouterr().out
        assert line.startswith("wandb: not continued (FileNotFoundError: ")
        assert line.count("\n") == 1
        assert not run.is_on
        wandb.teardown()
