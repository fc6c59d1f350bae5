import json
import shutil
import subprocess
import sys

import pytest

from tests import mains

# What the config of a task is made in a copy of this repository: the smallest that can be trained and measured.
TINY = """

_whole = get_config


def get_config():
    config = _whole()
    config.data.synthetic.shape = config.input.patch_size = (24, 32, 40)
    config.input.rotate_planes, config.inference.overlap = (), (12, 16, 20)
    config.data.synthetic.count = (2, 3)
    config.data.synthetic.num_train, config.data.synthetic.num_val = 2, 1
    config.train.steps, config.train.warmup_steps = 2, 1
    return config
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What misuse ends with, and the folder in which nothing is to be left."""
    runs = tmp_path_factory.mktemp("results") / "runs"
    commands = {
        "task": ["--task=circles"],
        "part": ["--task=cubes", "--part=ablation"],
        "row": ["--task=shapes_small", "--part=ablation", "--only=planned anchors,square anchors"],
    }
    return mains.run_each("results_main", {name: [*given, f"--runs={runs}"] for name, given in commands.items()}), runs


class ResultsMainTest:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("task", "--task: expected one of shapes_small, shapes, cubes, "),
            ("part", "--part: expected one of result, came 'ablation'"),
            ("row", "came 'square anchors'"),
        ],
    )
    def test_misuse_is_one_line(self, results, name, words):
        mains.assert_misuse(results[0][name], words)

    def test_and_leaves_nothing(self, results):
        assert not results[1].exists()

    def test_help_names_every_flag(self):
        text = mains.run("results_main", "--help").out
        assert all(f"--{flag}" in text for flag in ("task", "part", "only", "runs"))


@pytest.mark.slow
class WholeRunTest:
    @pytest.fixture(scope="class")
    def repository(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole") / "repository"
        shutil.copytree(mains.ROOT, folder, ignore=shutil.ignore_patterns(".*", "runs", "wandb", "__pycache__"))
        with open(folder / "configs" / "nuclei_synthetic.py", "a") as file:
            file.write(TINY)
        for name in ("json", "png"):
            (folder / "docs" / "results" / f"nuclei_synthetic.{name}").unlink()
        return folder

    def run(self, repository):
        command = [sys.executable, "results_main.py", "--task=nuclei_synthetic"]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((repository / "docs" / "results" / "nuclei_synthetic.json").read_text())
        return done.stdout, entry

    def test_from_nothing_to_tables_and_never_twice(self, repository):
        said, entry = self.run(repository)
        assert "step 2/2" in said
        assert (entry["part"], entry["name"], entry["seed"]) == ("result", "as configured", 0)
        metrics = entry["metrics"]
        assert metrics["num_volumes"] == 1
        assert metrics["num_truths"] in (2, 3)
        assert metrics["minutes"] > 0
        assert (repository / "docs" / "results" / "nuclei_synthetic.png").read_bytes().startswith(b"\x89PNG")
        page = (repository / "docs" / "results.md").read_text()
        table = page.split("<!-- nuclei_synthetic -->")[1].split("<!-- end nuclei_synthetic -->")[0]
        assert f"| as configured | 1 | {metrics['box_ap50']:.3f} | {metrics['mask_ap50']:.3f} |" in table
        assert f"mask_ap50 {metrics['mask_ap50']:.3f} |" in (repository / "README.md").read_text()

        said, again = self.run(repository)
        assert "already trained for" in said
        assert again == entry
