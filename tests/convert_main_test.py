import json
import pathlib
import subprocess
import sys

import numpy as np

from data.writers import write_volume

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    "--config.data.synthetic.shape=(9, 11, 14)",
    "--config.data.synthetic.base_size=2.0",
    "--config.data.synthetic.num_train=2",
    "--config.data.synthetic.num_val=1",
    "--config.data.synthetic.num_test=0",
]


def run(*arguments):
    command = [sys.executable, "convert_main.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


class ConvertMainTest:
    def test_help_names_every_flag(self):
        text = run("--help").stdout
        assert all(flag in text for flag in ("--source", "--output", "--to", "--[no]check", "--config"))

    def test_converts_and_says_what(self, tmp_path):
        done = run(f"--output={tmp_path / 'out'}", *TINY)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("train: 2 cases, ")
        assert done.stdout.endswith(f"records in {tmp_path / 'out'}\n")
        assert json.loads((tmp_path / "out" / "manifest.json").read_text())["num_cases"]["val"] == 1

    def test_mistakes_end_in_one_line(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        for arguments, words in (
            ([f"--output={tmp_path}", *TINY], "expected a new or empty output folder"),
            (
                [f"--output={tmp_path / 'mine.txt'}", *TINY],
                "mine.txt: expected a new or empty output folder, got a file",
            ),
            ([f"--output={tmp_path / 'new'}", "--runner=NoRunner", *TINY], "--runner=NoRunner: expected"),
            (["--to=files", *TINY], "--to=files: expected --output=FOLDER, came none"),
        ):
            done = run(*arguments)
            assert done.returncode == 2
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith("error: ")
            assert words in last
            assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


class CheckTest:
    def write(self, folder, name, fill):
        array = np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11) + fill
        ids = np.zeros(array.shape, np.uint8)
        ids[1:3, 2:4, 5:7] = 1
        write_volume(folder / f"{name}_image.npz", array, (1, 1, 1))
        write_volume(folder / f"{name}_labels.npz", ids, (1, 1, 1))

    def test_exit_code_table_and_json(self, tmp_path):
        source, output = tmp_path / "in", tmp_path / "out"
        self.write(source, "a_train", 0)
        self.write(source, "b_val", 1)
        arguments = [f"--source={source}", "--check", "--config.data.classes=('cell',)"]
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (0, "2 cases: 0 errors, 0 warnings\n"), done.stderr
        self.write(source, "c_val", 0)
        self.write(source, "d_val", 2)
        (source / "d_val_image.npz").write_bytes(b"nothing")
        done = run(*arguments, f"--output={output}")
        assert done.returncode == 2
        assert done.stdout.splitlines()[0].startswith("error  c_val  val  duplicate across splits  voxel for voxel")
        assert done.stdout.splitlines()[-1] == "4 cases: 2 errors, 0 warnings"
        report = json.loads((output / "check.json").read_text())
        assert [(row["case"], row["check"]) for row in report["findings"]] == [
            ("c_val", "duplicate across splits"),
            ("d_val", "unreadable"),
        ]
        assert [path.name for path in output.iterdir()] == ["check.json"]

    def test_a_folder_that_is_not_there(self, tmp_path):
        done = run(f"--source={tmp_path / 'in'}", "--check")
        assert done.returncode == 2
        assert done.stderr.strip().endswith("in: expected a folder of volumes, got no such folder")
