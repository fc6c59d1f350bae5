import numpy as np
import pytest
import tensorflow as tf

from tests.tracking import cases
from tracking import tensorboard
from tracking.tensorboard import TensorBoard


def steps_of(workdir):
    return {tag: [step for step, _ in events] for tag, events in cases.tensorboard_events(workdir).items()}


def run(workdir, first, last):
    """Goes through every second step of a run that has come to `first`."""
    board = TensorBoard(workdir, first)
    for step in range(first + 2, last + 1, 2):
        board.scalars(step, {"mask": 10.0 * first + step})
        board.histograms(step, "weights", {"conv/kernel": np.full(4, step, np.float32)})
        board.images(step, {"train/truth": np.full((3, 4, 3), step, np.uint8)})
    return board


class TensorBoardTest:
    def test_scalars_by_group(self, tmp_path):
        board = TensorBoard(tmp_path, 0)
        board.scalars(2, {**cases.SCALARS, "val/mask_ap50": 0.5, "undefined": None})
        # Written at once, so that a killed run has them.
        events = cases.tensorboard_events(tmp_path)
        assert {tag: [(step, float(value)) for step, value in found] for tag, found in events.items()} == {
            "loss/rpn_class": [(2, 0.25)],
            "loss/mask": [(2, 0.5)],
            "loss/total": [(2, 0.75)],
            "optimizer/gradient_norm": [(2, 4.0)],
            "optimizer/learning_rate": [(2, pytest.approx(1e-3))],
            "optimizer/non_finite": [(2, 0.0)],
            "speed/volumes_per_second": [(2, 3.25)],
            "speed/input_wait": [(2, 0.125)],
            "input/skipped": [(2, 0.0)],
            "val/mask_ap50": [(2, 0.5)],
        }
        board.close()

    def test_histogram_of_the_finite_values(self, tmp_path):
        board = TensorBoard(tmp_path, 0)
        values = np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, -np.inf]], np.float32)
        board.histograms(6, "gradients", {"conv/kernel": values, "nothing": values[:0]})
        board.close()
        events = cases.tensorboard_events(tmp_path)
        ((step, buckets),) = events["gradients/conv/kernel"]
        assert step == 6
        assert (buckets[0, 0], buckets[-1, 1]) == (0.0, 1.0)  # from, to, how many
        assert (buckets[0, 2], buckets[-1, 2], buckets[:, 2].sum()) == (1, 2, 3)
        assert events["gradients/nothing"][0][1][:, 2].sum() == 0

    def test_images(self, tmp_path):
        image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
        board = TensorBoard(tmp_path, 0)
        board.images(6, {"train/truth": image})
        board.close()
        ((step, (width, height, png)),) = cases.tensorboard_events(tmp_path)["train/truth"]
        assert (step, width, height) == (6, b"7", b"5")
        np.testing.assert_array_equal(tf.io.decode_png(png), image)

    def test_nothing_is_written_before_something_is_said(self, tmp_path):
        TensorBoard(tmp_path, 0).close()
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_goes_on_shows_every_step_once(self, tmp_path, capsys):
        run(tmp_path, 0, 10).close()
        capsys.readouterr()
        board = run(tmp_path, 6, 12)
        # Whatever reads the files: they hold no other events.
        line = capsys.readouterr().out
        (old, _) = sorted((tmp_path / "tensorboard").iterdir())
        assert line == f"{old}: dropped 6 event(s) past step 6\n"
        board.close()
        assert set(map(tuple, steps_of(tmp_path).values())) == {(2, 4, 6, 8, 10, 12)}
        events = cases.tensorboard_events(tmp_path)
        assert [float(value) for _, value in events["loss/mask"]] == [2, 4, 6, 68, 70, 72]

    def test_a_run_that_lost_nothing_is_left_alone(self, tmp_path, capsys):
        run(tmp_path, 0, 6).close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        before = path.read_bytes()
        TensorBoard(tmp_path, 6)
        assert path.read_bytes() == before
        assert capsys.readouterr().out == ""

    def test_an_event_that_a_kill_cut_off_goes_with_those_past_the_step(self, tmp_path, capsys):
        run(tmp_path, 0, 10).close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        path.write_bytes(path.read_bytes()[:-5])
        run(tmp_path, 8, 12).close()
        assert "dropped 2 event(s) past step 8" in capsys.readouterr().out  # the third one was cut off
        assert steps_of(tmp_path)["train/truth"] == [2, 4, 6, 8, 10, 12]


class FiniteSampleTest:
    def test_large_arrays_are_thinned_out_evenly(self, monkeypatch):
        monkeypatch.setattr(tensorboard, "MOST_VALUES", 4)
        np.testing.assert_array_equal(tensorboard.finite_sample(np.arange(12).reshape(3, 4)), [0, 3, 6, 9])
        np.testing.assert_array_equal(tensorboard.finite_sample(np.arange(3)), [0, 1, 2])
