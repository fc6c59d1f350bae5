import json

import numpy as np
import pytest

from debugging import verdicts
from debugging.verdicts import Verdict


class VerdictTest:
    @pytest.mark.parametrize(("passed", "mark"), [(True, "ok  "), (False, "FAILED "), (None, "not told ")])
    def test_a_line_says_all(self, passed, mark):
        line = Verdict("rung", "name", passed, "1", "2").line()
        assert line.startswith(mark)
        assert line.endswith(" name: expected 1, came 2")

    def test_booleans_of_numpy_count(self):
        assert Verdict("rung", "name", np.bool_(False), "", "").passed is False
        assert not verdicts.all_passed([Verdict("rung", "name", np.bool_(False), "", "")])

    @pytest.mark.parametrize(
        ("outcomes", "passed"), [([], True), ([True, None], True), ([True, False], False), ([None, False], False)]
    )
    def test_one_that_fails_fails_all(self, outcomes, passed, tmp_path):
        checked = [Verdict("rung", "name", outcome, "1", "2") for outcome in outcomes]
        assert verdicts.all_passed(checked) is passed
        verdicts.write(tmp_path / "new" / "a.json", checked, more=3)
        told = json.loads((tmp_path / "new" / "a.json").read_text())
        assert told["passed"] is passed
        assert told["more"] == 3
        assert [one["passed"] for one in told["verdicts"]] == outcomes
