import json
import pathlib
import subprocess
import sys

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
        assert all(flag in text for flag in ("--source", "--output", "--to", "--config"))

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
            (["--to=files", *TINY], "--to=files: expected --output=FOLDER, came none"),
        ):
            done = run(*arguments)
            assert done.returncode == 2
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith("error: ")
            assert words in last
            assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
