"""Misuse of `--config`, through a program that only resolves it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
from configs import command_line, schema
CONFIG = command_line.define_config_flag()
command_line.run(lambda: print(schema.to_json(command_line.resolve(CONFIG))))
"""


def run(*arguments, program=PROGRAM, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class CommandLineTest:
    def test_overrides_reach_the_config(self):
        done = run(
            "--config=configs/nuclei.py",
            "--config.model.rpn.nms_iou=0.25",
            "--config.input.patch_size=(16, 32, 48)",
            "--config.inference.overlap=(0, 0, 0)",
            "--config.input.rotate_planes=()",
        )
        config = json.loads(done.stdout)
        assert config["name"] == "nuclei"
        assert config["model"]["rpn"]["nms_iou"] == 0.25
        assert config["input"]["patch_size"] == [16, 32, 48]

    def test_default_is_found_from_any_working_directory(self, tmp_path):
        done = run("--config.train.steps=321", cwd=tmp_path)
        assert done.stderr == ""
        assert json.loads(done.stdout)["name"] == "shapes_small"
        assert json.loads(done.stdout)["train"]["steps"] == 321

    def test_help_names_the_default_within_the_project(self):
        assert "(default: configs/shapes_small.py)" in " ".join(run("--help").stdout.split())

    @pytest.mark.parametrize(
        ("error", "line", "code"),
        [
            ("PermissionError(13, 'Permission denied', 'out')", "error: [Errno 13] Permission denied: 'out'\n", 1),
            ("OSError(28, 'No space left\\non device')", "error: [Errno 28] No space left on device\n", 1),
            ("errors.InputError('expected a, came b')", "error: expected a, came b\n", 2),
        ],
    )
    def test_errors_of_the_system_and_of_the_user_end_in_one_line(self, error, line, code):
        program = f"""
from configs import command_line
from data import errors
def main():
    raise {error}
command_line.run(main)
"""
        done = run(program=program)
        assert (done.stdout, done.stderr, done.returncode) == ("", line, code)

    def test_other_errors_keep_their_traceback(self):
        done = run(program="from configs import command_line\ncommand_line.run(lambda: 1 // 0)\n")
        assert "Traceback" in done.stderr
        assert done.returncode == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--config=configs/absent.py"], "configs/absent.py"),
            (["--config.model.rpn.nms_iuo=0.5"], "nms_iuo"),
            (["--config.modle.rpn.nms_iou=0.5"], "modle"),
            (["--config.train.steps=many"], "many"),
            (["--config.train.steps=1.5"], "1.5"),
            (
                ["--config.input.patch_size=(60, 64, 64)"],
                "config input.rotate_planes: expected axes of equal patch_size (60, 64, 64), came (0, 1)",
            ),
            (["--config.input.patch_size=64"], "patch_size"),
            (["--config.model.rpn.nms_iou=1.5"], "config model.rpn.nms_iou: expected a number in [0, 1], came 1.5"),
            (
                ["--config.inference.overlap=('a',1,2)"],
                "config inference.overlap: expected three integers in [0, patch_size (64, 64, 64)), came ('a', 1, 2)",
            ),
            (
                ["--config.model.backbone.stage_channels=(32,64,'x')"],
                "config model.backbone.stage_channels: expected integers >= 1, came (32, 64, 'x')",
            ),
            (["--config=configs/absent.py", "--config.train.steps=3"], "configs/absent.py"),
            (["--confg=configs/shapes.py"], "confg"),
            (["configs/shapes.py"], "expected flags only, came 'configs/shapes.py'"),
        ],
    )
    def test_mistake_is_one_line_and_exit_code_2(self, arguments, words):
        done = run(*arguments)
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
        assert done.returncode == 2

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("def get_config(:", "invalid syntax"),
            ("from configs import schema\ndef get_config():\n    return schema.Config(nmae='x')\n", "nmae"),
            (
                "from configs import schema\nc = schema.Config()\nc.trian = 1\ndef get_config():\n    return c\n",
                "trian",
            ),
            ("def get_config():\n    return {}\n", "expected get_config() to return a Config, came dict"),
            ("x = 1\n", "get_config"),
            ("import nosuchmodule\n", "--config: ModuleNotFoundError: No module named 'nosuchmodule'"),
            ("def get_config():\n    return missing\n", "--config: NameError: name 'missing' is not defined"),
            ("def get_config():\n    return {}['rpn']\n", "--config: KeyError: rpn"),
            ("def get_config():\n    assert False\n", "--config: AssertionError"),
            ("def get_config():\n    return open('absent.txt')\n", "absent.txt"),
        ],
    )
    def test_broken_config_file_is_one_line(self, tmp_path, text, words):
        path = tmp_path / "broken.py"
        path.write_text(text)
        done = run(f"--config={path}")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
        assert done.returncode == 2
