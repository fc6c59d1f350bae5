import json

import pytest

from data.errors import InputError
from results import tables, tasks

TARGETS = (tasks.Target("mask_ap50", 0.9), tasks.Target("minutes", 15, is_upper=True))
TASK = tasks.Task(
    "Things",
    {"result": (tasks.Run("all", seed=0), tasks.Run("all", seed=1)), "ablation": (tasks.Run("less"),)},
    TARGETS,
)


def entry(part="result", name="all", seed=0, **metrics):
    return {"part": part, "name": name, "seed": seed, "hardware": f"machine {seed}", "metrics": metrics}


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A tree with the two pages, and a task of its own."""
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "docs" / "results")
    monkeypatch.setattr(tasks, "TASKS", {"things": TASK})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("above\n<!-- things -->\nold\n<!-- end things -->\nbelow\n")
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end results -->\n")
    return tmp_path


class SpreadTest:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.5], "0.500"),
            ([0.9, 0.8, 1.0], "0.900 (0.800 to 1.000)"),
            ([], "-"),
            ([0.5, None], "-"),
        ],
    )
    def test_mean_least_and_largest(self, values, expected):
        assert tables.spread(values) == expected


class TargetTableTest:
    def test_says_what_is_reached_and_by_how_much_it_is_missed(self):
        entries = [entry(mask_ap50=0.8, minutes=10.0), entry(seed=1, mask_ap50=0.9, minutes=12.0)]
        assert tables.target_table(entries, TARGETS)[2:] == [
            "| mask_ap50 | ≥ 0.9 | 0.850 (0.800 to 0.900) | **missed** by 0.05 |",
            "| minutes | ≤ 15 | 11.000 (10.000 to 12.000) | ✓ |",
        ]

    def test_what_was_not_measured_is_missed(self):
        assert tables.target_table([entry(minutes=16.0)], TARGETS)[2:] == [
            "| mask_ap50 | ≥ 0.9 | - | **missed** |",
            "| minutes | ≤ 15 | 16.000 | **missed** by 1 |",
        ]

    def test_a_row_of_another_part_has_targets_of_its_own(self):
        entries = [entry(f1=0.9), entry("ablation", "less", f1=0.5), entry("ablation", "more", f1=0.7)]
        targets = tasks.Target("f1", 0.8), tasks.Target("f1", 0.6, row="less"), tasks.Target("f1", 0.6, row="more")
        assert tables.target_table(entries, targets)[2:] == [
            "| f1 | ≥ 0.8 | 0.900 | ✓ |",
            "| f1, less | ≥ 0.6 | 0.500 | **missed** by 0.1 |",
            "| f1, more | ≥ 0.6 | 0.700 | ✓ |",
        ]

    def test_below_0_a_bound_is_missed_by_what_lies_beyond_it(self):
        table = tables.target_table([entry(bias=-0.05)], (tasks.Target("bias", 0.02, is_upper=True),))
        assert table[2:] == ["| bias | ≤ 0.02 | -0.050 | **missed** by 0.03 |"]

    def test_errors_of_opposite_signs_do_not_make_up_for_each_other(self):
        entries = [entry(bias=-0.03), entry(seed=1, bias=0.04)]
        table = tables.target_table(entries, (tasks.Target("bias", 0.02, is_upper=True),))
        assert table[2:] == ["| bias | ≤ 0.02 | 0.005 (-0.030 to 0.040) | **missed** by 0.015 |"]


class PartTableTest:
    def test_metrics_of_its_own_stand_behind_those_of_all(self):
        lines = tables.part_table([entry(mask_ap50=0.8, f1=0.7)], TASK.parts["result"], ("mask_ap50", "f1"))
        assert lines[0].endswith("| minutes | f1 | hardware |")
        assert lines[2:] == ["| all | 1 | - | 0.800 | - | - | - | - | 0.700 | machine 0 |"]

    def test_names_all_hardware_of_a_row_once(self):
        entries = [entry(seed=seed, mask_ap50=0.8) for seed in (0, 1)] + [entry(mask_ap50=0.8)]
        row = tables.part_table(entries, TASK.parts["result"])[2]
        assert row.startswith("| all | 3 |")
        assert row.endswith("| machine 0; machine 1 |")

    def test_nothing_was_measured(self):
        assert tables.part_table([], TASK.parts["result"]) == []


class KeepTest:
    def test_an_entry_takes_the_place_of_that_of_the_same_run(self, pages):
        for one in (entry(mask_ap50=0.1), entry(seed=1, mask_ap50=0.2), entry(mask_ap50=0.3)):
            tables.keep("things", one)
        assert tables.read("things") == [entry(seed=1, mask_ap50=0.2), entry(mask_ap50=0.3)]
        assert json.loads((pages / "docs" / "results" / "things.json").read_text()) == tables.read("things")

    def test_nothing_was_measured_yet(self, pages):
        assert tables.read("things") == []


class WriteTest:
    def test_tables_stand_between_their_marks(self, pages):
        tables.keep("things", entry(mask_ap50=0.95, minutes=10.0))
        tables.keep("things", entry("ablation", "less", mask_ap50=0.5, minutes=9.0))
        tables.write("things")
        text = (pages / "docs" / "results.md").read_text()
        assert text.startswith("above\n<!-- things -->\n| metric | target | reached | |\n")
        assert text.endswith("<!-- end things -->\nbelow\n")
        assert "old" not in text
        assert "| mask_ap50 | ≥ 0.9 | 0.950 | ✓ |\n" in text
        assert "\nAblation:\n\n| | seeds | " in text
        assert "| less | 1 | - | 0.500 | - | - | - | 9.000 | machine 0 |\n" in text
        assert "| minutes | hardware |\n" in text
        picture = '<img src="docs/results/things.png" width="320" alt="Things">'
        row = f"| [things](configs/things.py) | {picture} | mask_ap50 0.950 (≥ 0.9)<br>minutes 10.000 (≤ 15) |\n"
        assert row in (pages / "README.md").read_text()

    def test_the_readme_says_what_is_missed(self, pages):
        tables.keep("things", entry(mask_ap50=0.85))
        tables.write("things")
        assert "| mask_ap50 0.850 (≥ 0.9, missed)<br>minutes - (≤ 15, missed) |\n" in (pages / "README.md").read_text()

    def test_is_the_same_when_written_again(self, pages):
        tables.keep("things", entry(mask_ap50=0.95, minutes=10.0))
        tables.write("things")
        before = (pages / "docs" / "results.md").read_text(), (pages / "README.md").read_text()
        tables.write("things")
        assert before == ((pages / "docs" / "results.md").read_text(), (pages / "README.md").read_text())

    def test_a_page_without_marks_is_refused(self, pages):
        (pages / "docs" / "results.md").write_text("nothing\n")
        with pytest.raises(InputError, match=r"results.md: expected <!-- things --> and <!-- end things --> once each"):
            tables.write("things")


class PublishedTest:
    @pytest.mark.parametrize("name", tasks.TASKS)
    def test_pages_show_what_was_measured(self, name):
        """The pages as they are, from the measurements as they are."""
        entries = tables.read(name)
        text = (tables.ROOT / "docs" / "results.md").read_text()
        assert "\n".join(tables.target_table(entries, tasks.get(name).targets)) in text or not entries
        assert "\n".join(tables.overview()) in (tables.ROOT / "README.md").read_text()
