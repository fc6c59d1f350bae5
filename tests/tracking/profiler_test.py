import re

import pytest
import tensorflow as tf

from data.errors import InputError
from tracking import profiler


@pytest.fixture(name="calls")
def fixture_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: calls.append(f"start {folder}"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: calls.append("stop"))
    return calls


def run(trace, calls, ends):
    """Goes through loops of steps that end at `ends`."""
    step = 0
    for end in ends:
        trace.before(step)
        calls.append(f"{step + 1}..{end}")
        trace.after(end)
        step = end
    trace.close()


class ProfilerTest:
    def test_traces_the_steps_of_the_range(self, calls):
        run(profiler.Profiler("3:4", "folder"), calls, [1, 2, 3, 4, 5])
        assert calls == ["1..1", "2..2", "start folder", "3..3", "4..4", "stop", "5..5"]

    def test_tells_where_a_loop_has_to_end(self, calls):
        trace, step, ends = profiler.Profiler("3:4", "folder"), 0, []
        while step < 10:
            step = min(step + 5, trace.next_end(step) or 10)
            ends.append(step)
        assert ends == [2, 4, 9, 10]
        run(trace, calls, ends)
        assert calls == ["1..2", "start folder", "3..4", "stop", "5..9", "10..10"]

    def test_a_run_that_goes_on_within_the_range_traces_the_rest(self, calls):
        trace = profiler.Profiler("3:9", "folder")
        trace.before(5)
        trace.after(9)
        assert calls == ["start folder", "stop"]

    def test_a_training_that_ends_within_the_range_ends_the_trace(self, calls):
        run(profiler.Profiler("3:9", "folder"), calls, [2, 5])
        assert calls == ["1..2", "start folder", "3..5", "stop"]

    def test_a_run_past_the_range_and_no_range_trace_nothing(self, calls):
        for text in ("2:3", ""):
            trace = profiler.Profiler(text, "folder")
            trace.before(7)
            trace.after(8)
            trace.close()
            assert trace.next_end(7) is None
        assert calls == []

    def test_writes_what_tensorboard_shows(self, tmp_path, capsys):
        trace = profiler.Profiler("1:1", tmp_path)
        trace.before(0)
        tf.matmul(tf.ones([8, 8]), tf.ones([8, 8]))
        trace.after(1)
        assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == 1
        assert capsys.readouterr().out == f"profile: tensorboard --logdir={tmp_path}\n"

    @pytest.mark.parametrize("text", ["5", "a:b", "0:3", "7:3", "-1:3", "1:2:3", "1.5:2", " 1:2"])
    def test_a_bad_range_is_one_line(self, text):
        with pytest.raises(InputError, match=rf"^--profile: expected first:last .*, came {re.escape(repr(text))}$"):
            profiler.Profiler(text, "folder")
