import json
import shutil

import numpy as np
import pytest

from data.writers import write_volume
from tests import mains

TINY = [
    "--config.data.synthetic.shape=(9, 11, 14)",
    "--config.data.synthetic.base_size=2.0",
    "--config.data.synthetic.num_train=2",
    "--config.data.synthetic.num_val=1",
    "--config.data.synthetic.num_test=0",
]


@pytest.fixture(name="results", scope="module")
def fixture_results(tmp_path_factory):
    """What each of some commands ends with, one after the other in one process, and their folder."""
    folder = tmp_path_factory.mktemp("convert")
    (folder / "taken").mkdir()
    (folder / "taken" / "mine.txt").write_text("keep")
    write_pair(folder / "good", "a_train", 0)
    write_pair(folder / "good", "b_val", 1)
    shutil.copytree(folder / "good", folder / "bad")
    write_pair(folder / "bad", "c_val", 0)
    write_pair(folder / "bad", "d_val", 2)
    (folder / "bad" / "d_val_image.npz").write_bytes(b"nothing")
    cell = "--config.data.classes=('cell',)"
    commands = {
        "converted": [f"--output={folder / 'out'}", *TINY],
        "not empty": [f"--output={folder / 'taken'}", *TINY],
        "a file": [f"--output={folder / 'taken' / 'mine.txt'}", *TINY],
        "runner": [f"--output={folder / 'new'}", "--runner=NoRunner", *TINY],
        "no output": ["--to=files", *TINY],
        "no source": [f"--source={folder / 'in'}", "--check"],
        "good": [f"--source={folder / 'good'}", "--check", cell],
        "bad": [f"--source={folder / 'bad'}", "--check", cell, f"--output={folder / 'checked'}"],
    }
    return mains.run_each("convert_main", commands), folder


def write_pair(folder, name, fill):
    array = np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11) + fill
    ids = np.zeros(array.shape, np.uint8)
    ids[1:3, 2:4, 5:7] = 1
    write_volume(folder / f"{name}_image.npz", array, (1, 1, 1))
    write_volume(folder / f"{name}_labels.npz", ids, (1, 1, 1))


class ConvertMainTest:
    def test_help_names_every_flag(self):
        text = mains.run("convert_main", "--help").out
        assert all(flag in text for flag in ("--source", "--output", "--to", "--[no]check", "--config"))

    def test_converts_and_says_what(self, results):
        results, folder = results
        done = results["converted"]
        assert done.code == 0, done.err
        assert done.out.startswith("train: 2 cases, ")
        assert done.out.endswith(f"records in {folder / 'out'}\n")
        assert json.loads((folder / "out" / "manifest.json").read_text())["num_cases"]["val"] == 1

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("not empty", "expected a new or empty output folder"),
            ("a file", "mine.txt: expected a new or empty output folder, got a file"),
            ("runner", "--runner=NoRunner: expected"),
            ("no output", "--to=files: expected --output=FOLDER, came none"),
        ],
    )
    def test_mistakes_end_in_one_line(self, results, name, words):
        done, folder = results[0][name], results[1]
        assert done.code == 2
        last = done.err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert words in last
        assert "Traceback" not in done.err
        assert not (folder / "new").exists()
        assert [path.name for path in (folder / "taken").iterdir()] == ["mine.txt"]


class CheckTest:
    def test_exit_code_table_and_json(self, results):
        results, folder = results
        done = results["good"]
        assert (done.code, done.out) == (0, "2 cases: 0 errors, 0 warnings\n"), done.err
        done = results["bad"]
        assert done.code == 2
        assert done.out.splitlines()[0].startswith("error  c_val  val  duplicate across splits  voxel for voxel")
        assert done.out.splitlines()[-1] == "4 cases: 2 errors, 0 warnings"
        report = json.loads((folder / "checked" / "check.json").read_text())
        assert [(row["case"], row["check"]) for row in report["findings"]] == [
            ("c_val", "duplicate across splits"),
            ("d_val", "unreadable"),
        ]
        assert [path.name for path in (folder / "checked").iterdir()] == ["check.json"]

    def test_a_folder_that_is_not_there(self, results):
        done = results[0]["no source"]
        assert done.code == 2
        assert done.err.strip().endswith("in: expected a folder of volumes, got no such folder")
