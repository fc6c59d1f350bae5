"""Misuse of `--config`, through a program that only resolves it."""

import json
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


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
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

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--config=configs/absent.py"], "configs/absent.py"),
            (["--config.model.rpn.nms_iuo=0.5"], "nms_iuo"),
            (["--config.modle.rpn.nms_iou=0.5"], "modle"),
            (["--config.train.steps=many"], "many"),
            (["--config.train.steps=1.5"], "1.5"),
            (
                ["--config.input.rotate_planes=()", "--config.input.patch_size=(60, 64, 64)"],
                "expected a multiple of the coarsest stride (16, 16, 16)",
            ),
            (["--config.input.patch_size=64"], "patch_size"),
            (["--config.model.rpn.nms_iou=1.5"], "config model.rpn.nms_iou: expected a number in [0, 1], came 1.5"),
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
