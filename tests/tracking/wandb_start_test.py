import http.client
import re
import time

import pytest
import wandb

from tracking import wandb_start

NOWHERE = "http://127.0.0.1:9"


def start(workdir, mode):
    return wandb_start.start(workdir, "tests", {"model": {"classes": ("a", "b")}}, mode)


def finish(run):
    if run is not None:
        run.finish()


def offline_folders(workdir):
    return sorted(path.name for path in (workdir / "wandb").glob("offline-run-*"))


class OfflineTest:
    def test_writes_a_folder_of_its_own(self, tmp_path):
        run = start(tmp_path, "offline")
        finish(run)
        (folder,) = offline_folders(tmp_path)
        run_id = (tmp_path / "wandb_id.txt").read_text().strip()
        assert folder.endswith(f"-{run_id}")
        assert (tmp_path / "wandb" / folder / f"run-{run_id}.wandb").stat().st_size > 0

    def test_run_id_is_kept_on_resume(self, tmp_path):
        ids = []
        for _ in range(2):
            run = start(tmp_path, "offline")
            ids.append(run.id)
            finish(run)
        assert ids[0] == ids[1] == (tmp_path / "wandb_id.txt").read_text().strip()


class OnlineTest:
    def test_without_a_key_goes_on_offline_at_once(self, tmp_path, capsys):
        began = time.monotonic()
        run = start(tmp_path, "online")
        finish(run)
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
        run = start(tmp_path, "auto")
        finish(run)
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
        run = start(tmp_path, "offline")
        finish(run)
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "wandb: not started (disk full); metrics.jsonl has everything"
        assert run is None

    @pytest.mark.parametrize("url", ["nonsense", "http://[", "https://"])
    def test_malformed_address_does_not_end_the_run(self, tmp_path, capsys, monkeypatch, url):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        run = start(tmp_path, "auto")
        finish(run)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("wandb: not online (")
        assert lines[0].endswith("; this run is kept offline")
        # Wandb itself will not have some of them: then there is no run at all, and that is said.
        assert [line.split(" (")[0] for line in lines[1:]] == (["wandb: not started"] if run is None else [])

    def test_server_that_does_not_speak_http_does_not_end_the_run(self, tmp_path, capsys, monkeypatch):
        def hang_up(url, timeout):
            raise http.client.BadStatusLine("SSH-2.0")

        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_start.urllib.request, "urlopen", hang_up)
        start(tmp_path, "online")
        first = capsys.readouterr().out.splitlines()[0]
        assert first == "wandb: not online (SSH-2.0); this run is kept offline"
        assert len(offline_folders(tmp_path)) == 1


class ModeTest:
    def test_environment_decides_for_auto_alone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "disabled")
        run = start(tmp_path, "auto")
        assert run is None
        finish(run)
        run = start(tmp_path, "offline")
        assert run is not None
        finish(run)

    def test_server_that_answers_is_no_obstacle(self, monkeypatch):
        def refuse(url, timeout):
            raise wandb_start.urllib.error.HTTPError(url, 404, "not found", None, None)

        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_start.urllib.request, "urlopen", refuse)
        assert wandb_start._obstacle("https://wandb.example.org") is None
