from tests.tracking import cases
from tracking import console


class ConsoleTest:
    def test_shows_step_losses_speed_and_time_left(self, capsys, monkeypatch):
        clock = iter([0.0, 10.0, 40.0])
        monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
        shown = console.Console(steps=100)
        shown.log(20, cases.SCALARS)
        shown.log(40, {**cases.SCALARS, "peak_memory_gb": 1.5, "voxels_per_second": 1e6})
        assert capsys.readouterr().out.splitlines() == [
            "step 20/100 loss 0.750 (rpn_class 0.250 mask 0.500) 3.2 volumes/s, ? left",
            "step 40/100 loss 0.750 (rpn_class 0.250 mask 0.500) 3.2 volumes/s, 1:30 left",
        ]
