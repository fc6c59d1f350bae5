import http.client
import json
import os
import re
import time

import pytest
import wandb

from training import tracking

SCALARS = {
    "rpn_class": 0.25,
    "mask": 0.5,
    "total": 0.75,
    "gradient_norm": 4.0,
    "learning_rate": 1e-3,
    "volumes_per_second": 3.25,
}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def fixture_environment(monkeypatch, tmp_path):
    """No key, no netrc, no mode; every test starts wandb's service anew, so that it sees this."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    yield
    wandb.teardown()


def make(workdir, mode, *, step=0, steps=10):
    config = {"model": {"classes": ("a", "b")}}
    return tracking.Tracker(workdir, project="tests", config=config, step=step, steps=steps, mode=mode)


def offline_folders(workdir):
    return sorted(path.name for path in (workdir / "wandb").glob("offline-run-*"))


class LogTest:
    def test_one_line_of_json_per_call(self, tmp_path):
        tracker = make(tmp_path, "disabled")
        tracker.log(2, SCALARS)
        tracker.log(4, {**SCALARS, "total": 0.5})
        # Written at once, so that a killed run has them.
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert lines == [{"step": 2, **SCALARS}, {"step": 4, **SCALARS, "total": 0.5}]
        tracker.close()

    def test_a_resumed_run_appends(self, tmp_path):
        for step in (2, 4):
            tracker = make(tmp_path, "disabled", step=step - 2)
            tracker.log(step, SCALARS)
            tracker.close()
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [2, 4]

    @pytest.mark.parametrize("cut_off", ["", '{"step": 12, "to', '{"st'])
    def test_a_killed_run_has_every_step_once(self, tmp_path, capsys, cut_off):
        tracker = make(tmp_path, "disabled")
        for step in (2, 4, 6, 8, 10):
            tracker.log(step, SCALARS)
        tracker.close()
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(cut_off)
        capsys.readouterr()
        tracker = make(tmp_path, "disabled", step=6)
        dropped = 3 if cut_off else 2
        assert capsys.readouterr().out == f"{tmp_path}/metrics.jsonl: dropped {dropped} line(s) past step 6\n"
        tracker.log(8, {**SCALARS, "total": 0.5})
        tracker.close()
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [(line["step"], line["total"]) for line in lines] == [(2, 0.75), (4, 0.75), (6, 0.75), (8, 0.5)]

    def test_console_line(self, tmp_path, capsys, monkeypatch):
        tracker = make(tmp_path, "disabled", steps=100)
        clock = iter([10.0, 40.0])
        monkeypatch.setattr(tracking.time, "monotonic", lambda: next(clock))
        tracker.log(20, SCALARS)
        tracker.log(40, SCALARS)
        tracker.close()
        assert capsys.readouterr().out.splitlines() == [
            "step 20/100 loss 0.750 (rpn_class 0.250 mask 0.500) 3.2 volumes/s, ? left",
            "step 40/100 loss 0.750 (rpn_class 0.250 mask 0.500) 3.2 volumes/s, 1:30 left",
        ]

    def test_disabled_writes_no_wandb_files(self, tmp_path, capsys):
        make(tmp_path, "disabled").close()
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
        assert capsys.readouterr().out == ""


class OfflineTest:
    def test_writes_a_folder_and_says_how_to_upload_it(self, tmp_path, capsys):
        tracker = make(tmp_path, "offline")
        tracker.log(2, SCALARS)
        tracker.close()
        (folder,) = offline_folders(tmp_path)
        run_id = (tmp_path / "wandb_id.txt").read_text().strip()
        assert folder.endswith(f"-{run_id}")
        assert (tmp_path / "wandb" / folder / f"run-{run_id}.wandb").stat().st_size > 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == f"wandb: offline run; upload it with: wandb sync {tmp_path / 'wandb' / folder}"

    def test_run_id_is_kept_on_resume(self, tmp_path):
        ids = []
        for _ in range(2):
            tracker = make(tmp_path, "offline")
            ids.append(tracker.run.id)
            tracker.close()
        assert ids[0] == ids[1] == (tmp_path / "wandb_id.txt").read_text().strip()


class OnlineTest:
    def test_without_a_key_goes_on_offline_at_once(self, tmp_path, capsys):
        began = time.monotonic()
        tracker = make(tmp_path, "online")
        tracker.close()
        assert time.monotonic() - began < 20.0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == (
            "wandb: not online (no key for api.wandb.ai in WANDB_API_KEY or netrc); this run is kept offline"
        )
        assert len(offline_folders(tmp_path)) == 1

    @pytest.mark.parametrize("key_from", ["environment", "netrc"])
    def test_without_network_goes_on_offline_at_once(self, tmp_path, capsys, monkeypatch, key_from):
        monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
        if key_from == "environment":
            monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        else:
            (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {'0' * 40}\n")
            (tmp_path / "netrc").chmod(0o600)
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        began = time.monotonic()
        tracker = make(tmp_path, "auto")
        tracker.close()
        assert time.monotonic() - began < 20.0
        first = capsys.readouterr().out.splitlines()[0]
        assert re.fullmatch(
            r"wandb: not online \(127\.0\.0\.1:9 cannot be reached: .*refused\); this run is kept offline", first
        )
        assert len(offline_folders(tmp_path)) == 1

    def test_wandb_that_will_not_start_does_not_end_the_run(self, tmp_path, capsys, monkeypatch):
        def fail(**options):
            raise OSError("disk\nfull")

        monkeypatch.setattr(wandb, "init", fail)
        tracker = make(tmp_path, "offline")
        tracker.log(2, SCALARS)
        tracker.close()
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "wandb: not started (disk full); metrics.jsonl has everything"
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 2

    @pytest.mark.parametrize("url", ["nonsense", "http://[", "https://"])
    def test_malformed_address_does_not_end_the_run(self, tmp_path, capsys, monkeypatch, url):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        tracker = make(tmp_path, "auto")
        tracker.log(2, SCALARS)
        tracker.close()
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("wandb: not online (")
        assert lines[0].endswith("; this run is kept offline")
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 2

    def test_server_that_does_not_speak_http_does_not_end_the_run(self, tmp_path, capsys, monkeypatch):
        def hang_up(url, timeout):
            raise http.client.BadStatusLine("SSH-2.0")

        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking.urllib.request, "urlopen", hang_up)
        make(tmp_path, "online").close()
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "wandb: not online (SSH-2.0); this run is kept offline"
        assert len(offline_folders(tmp_path)) == 1


class ModeTest:
    def test_environment_decides_for_auto_alone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "disabled")
        tracker = make(tmp_path, "auto")
        assert tracker.run is None
        tracker.close()
        tracker = make(tmp_path, "offline")
        assert tracker.run is not None
        tracker.close()

    def test_server_that_answers_is_no_obstacle(self, monkeypatch):
        def refuse(url, timeout):
            raise tracking.urllib.error.HTTPError(url, 404, "not found", None, None)

        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking.urllib.request, "urlopen", refuse)
        assert tracking._obstacle("https://wandb.example.org") is None
