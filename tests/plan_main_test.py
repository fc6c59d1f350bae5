import pytest

from tests import mains


@pytest.fixture(scope="module")
def results():
    overrides = {
        "default": [],
        "outgrown": ["--config.model.anchors.sizes=((34.0,),(16.0,),(30.0,))"],
        "misuse": ["--config.model.fpn.levels=(2,3)"],
    }
    return {name: mains.run("plan_main", *given) for name, given in overrides.items()}


class PlanMainTest:
    def test_prints_what_each_level_sees_and_its_anchors(self, results):
        lines = results["default"].out.splitlines()
        assert results["default"].code == 0
        assert lines[0] == "shapes_small: receptive fields, voxels (z, y, x)"
        assert [line.split()[0] for line in lines[1:]] == ["level", "P2", "P3", "P4"]
        assert "(4, 4, 4)" in lines[2]
        assert lines[2].endswith("(9, 9, 9), (13, 13, 13)")

    def test_marks_an_anchor_that_outgrows_its_level(self, results):
        marked = [line for line in results["outgrown"].out.splitlines()[2:] if line.endswith("!")]
        assert len(marked) == 1
        assert marked[0].startswith("P2")
        assert marked[0].endswith("(34, 34, 34) !")

    def test_a_config_that_does_not_fit_together_is_one_line(self, results):
        mains.assert_misuse(results["misuse"], "expected 2 entries, one per level of the pyramid")
