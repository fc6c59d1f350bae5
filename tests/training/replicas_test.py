import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name="result", scope="module")
def fixture_result():
    command = [sys.executable, "-m", "tests.training.replicas"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


class ReplicasTest:
    """Twenty steps of the same batches of four volumes on one device, of which rois and anchors are drawn."""

    @pytest.mark.parametrize("form", ["two", "parts", "two in parts", "recomputed"])
    def test_train_as_one_device_does(self, result, form):
        assert result[form]["losses_differ_by"] < 1e-5
        assert result[form]["weights_differ_by"] < 1e-5
        assert result[form]["means_differ_by"] < 1e-5

    def test_which_moves(self, result):
        first, last = (result["totals"][step] for step in (0, -1))
        assert last < 0.9 * first
        assert result["moved"] > 1e-2
        assert result["means_moved"] > 1e-3
