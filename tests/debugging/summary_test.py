import tensorflow as tf

from debugging import summary
from tests import tiny

SHAPES = {"a/b/c": (1, 4, 5, 6, 3), "a/b/d": (1, 4, 5, 6, 7), "e#0": (1, 8, 2), "e#1": (1, 4, 2)}
VARIABLES = {
    "a/b/c/kernel": tf.Variable(tf.zeros([3, 3, 2])),
    "a/b/d/scale": tf.Variable(tf.zeros([7])),
    "e/kernel": tf.Variable(tf.zeros([5, 2])),
    "unused/bias": tf.Variable(tf.zeros([4])),
}
TRAINS = {id(variable) for name, variable in VARIABLES.items() if name != "a/b/d/scale"}


class TableTest:
    def test_layers_have_shapes_and_counts(self):
        assert summary.table_rows(SHAPES, VARIABLES, TRAINS) == [
            summary.Row("a/b/c", "[4, 5, 6, 3]", 18, 0),
            summary.Row("a/b/d", "[4, 5, 6, 7]", 0, 7),
            summary.Row("e", "[8, 2], [4, 2]", 10, 0),
            summary.Row("unused", "not called", 4, 0),
        ]

    def test_deep_layers_are_taken_together(self):
        rows = summary.table_rows(SHAPES, VARIABLES, TRAINS, depth=2)
        assert rows[0] == summary.Row("a/b", "[4, 5, 6, 7]", 18, 7)

    def test_modules_and_all_are_summed(self):
        lines = summary.table(summary.table_rows(SHAPES, VARIABLES, TRAINS))
        assert [line.split()[-2:] for line in lines if line.startswith(("a ", "e ", "total"))] == [
            ["18", "7"],
            ["10", "0"],
            ["32", "7"],
        ]
        assert [line.split()[0] for line in lines] == [
            "layer",
            "a",
            "b/c",
            "b/d",
            "e",
            "e",
            "unused",
            "unused",
            "total",
        ]


class RunTest:
    def test_the_whole_network_is_told(self, tmp_path, capsys):
        settings = tiny.config()
        settings.data.attributes, settings.model.keypoint_head.enabled = ("energy",), True
        assert summary.run(settings.validate(), None, tmp_path, tf.distribute.get_strategy()) is None
        text = (tmp_path / "summary" / "summary.txt").read_text()
        assert text.strip() in capsys.readouterr().out
        model = tiny.model(settings)
        total = next(line for line in text.splitlines() if line.startswith("total"))
        assert total.split()[1:] == [f"{model.count_params():,}", "0"]
        for module in ("backbone", "fpn", "rpn_head", "box_heads", "mask_head", "attribute_head", "keypoint_head"):
            assert f"\n{module} " in text
        # Strides (1, 2, 2) of the stem; 8 channels.
        assert next(line for line in text.splitlines() if "stem/conv" in line).split()[1:5] == [
            "[8,",
            "8,",
            "12,",
            "8]",
        ]
        assert "P2 " in text
        megabytes = 4 * model.count_params() / 2**20
        # AdamW keeps two numbers of each weight, and the step.
        assert f"weights {megabytes:.1f} MB, gradients {megabytes:.1f} MB, optimizer {2 * megabytes:.1f} MB" in text
        assert (tmp_path / "summary" / "summary.png").stat().st_size > 5000
