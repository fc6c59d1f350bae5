import os

import pytest
import wandb


@pytest.fixture(autouse=True)
def fixture_environment(monkeypatch, tmp_path):
    """No key, no netrc, no mode; every test starts wandb's service anew, so that it sees this."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    yield
    wandb.teardown()
