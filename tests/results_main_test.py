import pytest

from tests import mains


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What misuse ends with, and the folder in which nothing is to be left."""
    runs = tmp_path_factory.mktemp("results") / "runs"
    commands = {
        "task": ["--task=circles"],
        "part": ["--task=cubes", "--part=ablation"],
        "row": ["--task=shapes_small", "--part=ablation", "--only=planned anchors,square anchors"],
    }
    return mains.run_each("results_main", {name: [*given, f"--runs={runs}"] for name, given in commands.items()}), runs


class ResultsMainTest:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("task", "--task: expected one of shapes_small, shapes, cubes, "),
            ("part", "--part: expected one of result, came 'ablation'"),
            ("row", "came 'square anchors'"),
        ],
    )
    def test_misuse_is_one_line(self, results, name, words):
        mains.assert_misuse(results[0][name], words)

    def test_and_leaves_nothing(self, results):
        assert not results[1].exists()

    def test_help_names_every_flag(self):
        text = mains.run("results_main", "--help").out
        assert all(f"--{flag}" in text for flag in ("task", "part", "only", "runs"))
