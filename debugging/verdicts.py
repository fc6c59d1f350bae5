"""What a check expected and what came."""

import dataclasses
import json

from data.atomic import replacing


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check.

    rung: the part of the ladder.
    name: of what was looked at.
    passed: None where the check could not be made, or could not have told; `came` says why.
    expected, came: words for the reader.
    """

    rung: str
    name: str
    passed: bool | None
    expected: str
    came: str

    def __post_init__(self):
        # NumPy's booleans are neither True nor False.
        object.__setattr__(self, "passed", None if self.passed is None else bool(self.passed))

    def line(self):
        """One line of text."""
        mark = {True: "ok", False: "FAILED", None: "not told"}[self.passed]
        return f"{mark:8} {self.rung:16} {self.name}: expected {self.expected}, came {self.came}"


def all_passed(verdicts):
    """Whether none failed."""
    return all(verdict.passed is not False for verdict in verdicts)


def write(path, verdicts, **more):
    """Writes the verdicts, and what more there is, as JSON."""
    content = {
        "passed": all_passed(verdicts),
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        **more,
    }
    write_json(path, content)


def write_json(path, content):
    """Writes numbers and names as indented JSON; the file is replaced as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
