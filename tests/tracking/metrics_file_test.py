import json

import pytest

from tracking.metrics_file import MetricsFile


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class MetricsFileTest:
    def test_one_line_of_json_per_call_at_once(self, tmp_path):
        file = MetricsFile(tmp_path, 0)
        file.write(2, {"total": 0.75})
        file.write(2, {"val/mask_ap50": 0.5})
        # Written at once, so that a killed run has them.
        assert lines(tmp_path) == [{"step": 2, "total": 0.75}, {"step": 2, "val/mask_ap50": 0.5}]
        file.close()

    def test_a_resumed_run_appends(self, tmp_path, capsys):
        for step in (2, 4):
            file = MetricsFile(tmp_path, step - 2)
            file.write(step, {})
            file.close()
        assert lines(tmp_path) == [{"step": 2}, {"step": 4}]
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("cut_off", ["", '{"step": 12, "to', '{"st'])
    def test_a_killed_run_has_every_step_and_every_evaluation_once(self, tmp_path, capsys, cut_off):
        file = MetricsFile(tmp_path, 0)
        for step in (2, 4, 6, 8):
            file.write(step, {"total": 0.75})
            if step in (4, 8):
                file.write(step, {"val/mask_ap50": 0.25})
        file.close()
        with (tmp_path / "metrics.jsonl").open("a") as text:
            text.write(cut_off)
        file = MetricsFile(tmp_path, 6)
        dropped = 3 if cut_off else 2
        assert capsys.readouterr().out == f"{tmp_path}/metrics.jsonl: dropped {dropped} line(s) past step 6\n"
        file.write(8, {"total": 0.5})
        file.write(8, {"val/mask_ap50": 0.5})
        file.close()
        assert [(line["step"], line.get("total"), line.get("val/mask_ap50")) for line in lines(tmp_path)] == [
            (2, 0.75, None),
            (4, 0.75, None),
            (4, None, 0.25),
            (6, 0.75, None),
            (8, 0.5, None),
            (8, None, 0.5),
        ]

    def test_an_evaluation_that_is_made_again_is_there_once(self, tmp_path):
        for _ in range(3):
            file = MetricsFile(tmp_path, 2)
            file.write(2, {"val/mask_ap50": 0.5})
            file.close()
        file = MetricsFile(tmp_path, 2)
        file.write(2, {"val/mask_ap50": 0.5, "val/box_ap50": 0.25})
        file.close()
        assert lines(tmp_path) == [
            {"step": 2, "val/mask_ap50": 0.5},
            {"step": 2, "val/mask_ap50": 0.5, "val/box_ap50": 0.25},
        ]
