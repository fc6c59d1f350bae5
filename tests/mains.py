"""Runs a `*_main.py` as its user does, or several of its commands in one process, to pay for TensorFlow once."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = """
import contextlib, importlib, io, json, sys
from absl import flags
from configs import command_line
main = importlib.import_module(sys.argv[1])
results = []
for command in json.loads(sys.argv[2]):
    sys.argv = [main.__file__, *command]
    flags.FLAGS.unparse_flags()
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # each override on a command line defines a flag of its own
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            command_line.run(main.main)
        except SystemExit as stop:
            code = stop.code or 0
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def run(main, *arguments, environment=None):
    """What `python <main>.py <arguments>` ends with, with some more environment variables."""
    done = subprocess.run(
        [sys.executable, f"{main}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return Result(done.returncode, done.stdout, done.stderr)


def run_each(main, commands):
    """What each command ends with; a dict name -> list of arguments becomes a dict name -> Result."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, main, json.dumps([list(map(str, command)) for command in commands.values()])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    return {name: Result(*result) for name, result in zip(commands, results, strict=True)}


def assert_misuse(result, words):
    """Exit code 2, and one line that says what was expected and what came."""
    assert result.out == ""
    lines = result.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert result.code == 2
