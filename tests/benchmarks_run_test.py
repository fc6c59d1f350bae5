from benchmarks import augment, convert, measure, network, pipeline, run, training
from benchmarks.report import Growth, Limit, Speed


class MainTest:
    def test_the_tables_of_all_parts_are_written(self, tmp_path, monkeypatch):
        for number, part in enumerate(run.TITLES):
            rows = Speed(f"work {number}", 0.5, "peer", 1.0, 1, 2e6, 3e9), Limit(f"memory {number}", 1.0, 2.0, "GB")
            growth = Growth(f"growth {number}", [(1, 0.5), (2, 1.0)])
            monkeypatch.setattr(part, "measure", lambda rows=rows, growth=growth: ([rows[0]], [rows[1]], [growth]))
        monkeypatch.setattr(measure, "bytes_per_second", lambda: 20e9)
        monkeypatch.setattr(measure, "flops_per_second", lambda: 300e9)
        monkeypatch.setattr(measure, "machine", lambda: "A processor")
        monkeypatch.setattr(network, "tables", lambda: "| network | row |")
        monkeypatch.setattr(training, "tables", lambda: "| training | row |")
        monkeypatch.setattr(augment, "tables", lambda: "| augmentation | row |")
        monkeypatch.setattr(convert, "measure", lambda: [Limit("conversion", 3.0, 1.43, "x")])
        monkeypatch.setattr(pipeline, "speed", lambda: ["| pipeline | row |", "| second | row |"])
        monkeypatch.setattr(pipeline, "memory", lambda: ["| chunks | row |"])
        monkeypatch.setattr(run, "RESULTS", tmp_path / "RESULTS.md")
        assert run.main() == 0
        text = (tmp_path / "RESULTS.md").read_text()
        headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
        assert headings == [
            "Speed",
            "Limits",
            "Cost against size",
            "Distance from what the machine can do",
            "Network",
            "Training",
            "Conversion",
            "Input pipeline",
            "Augmentation",
        ]
        for line in (
            "| work 3 | 500.0 | peer | 1000.0 | 2.0x | ≥ 1x ✓ |",
            "| memory 0 | 1 GB | < 2 GB ✓ |",
            "| growth 2 | 1: 500.0, 2: 1000.0 | 2.00x |",
            "| network | row |",
            "| training | row |",
            "| conversion | 3 x | < 1.43 x **missed** |",
            "| pipeline | row |\n| second | row |\n\n| chunks | row |",
            "| augmentation | row |",
        ):
            assert f"\n{line}\n" in text
