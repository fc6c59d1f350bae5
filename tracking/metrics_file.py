"""metrics.jsonl: one line of JSON for every log of a run, every step once however often the run was killed."""

import contextlib
import json
import math

from data.atomic import replacing

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends lines, which are on the disk at once."""

    def __init__(self, workdir, step):
        """Opens the file of a run that has come to `step`; lines past it, from before a kill, will come again."""
        path = workdir / NAME
        _drop_lines_past(step, path)
        self.file = path.open("a")
        # What is known at this step: an evaluation that is in no checkpoint yet is made, and would be written, again.
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.there = [row.keys() for row in rows if row["step"] == step]
        self.step = step

    def write(self, step, values):
        """Writes {"step": step, name: value, ...}, if these have not been written of this step before."""
        if step == self.step and {"step", *values} in self.there:
            return
        try:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
        except OSError as error:
            raise OSError(f"{self.file.name}: step {step} cannot be written: {error.strerror}") from error

    def close(self):
        """Closes the file."""
        with contextlib.suppress(OSError):  # of what could not be written before either
            self.file.close()


def _drop_lines_past(step, path):
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        print(f"{path}: dropped {len(lines) - len(kept)} line(s) past step {step}", flush=True)


def _step_of(line):
    """The step of a line; infinity for the end of a line that a kill cut off."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
