"""Traces of some steps for TensorBoard's profiler."""

import re

import tensorflow as tf

from data.errors import InputError


class Profiler:
    """Traces the steps of a range, once, as far as the loop that it is called around lets it."""

    def __init__(self, text, folder):
        """Reads a range.

        Args:
          text: "100:110" traces steps 100 to 110, counted from 1; "" none.
          folder: of TensorBoard; None traces nothing, but ends its loops where a process that does ends its own.

        Raises:
          InputError: another text, or a range without steps.
        """
        self.folder, self.is_tracing = folder and str(folder), False
        self.first, self.last = parse(text) if text else (0, 0)

    def next_end(self, step):
        """Where a loop of steps that begins after `step` must end for the range to be met, or None."""
        return next((end for end in (self.first - 1, self.last) if end > step), None)

    def before(self, step):
        """Call it when `step` steps have been made and more follow: begins the trace if these are in the range."""
        if self.folder and not self.is_tracing and self.first <= step + 1 <= self.last:
            tf.profiler.experimental.start(self.folder)
            self.is_tracing = True

    def after(self, step):
        """Call it when `step` steps have been made: ends the trace with the range."""
        if self.is_tracing and step >= self.last:
            self.close()

    def close(self):
        """Ends the trace if the training ends within the range."""
        if self.is_tracing:
            tf.profiler.experimental.stop()
            self.is_tracing, self.last = False, 0
            print(f"profile: tensorboard --logdir={self.folder}", flush=True)


def parse(text):
    """The first and the last step of "100:110"; InputError for anything else."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--profile: expected first:last with 1 <= first <= last, 100:110 say, came {text!r}")
    return int(match[1]), int(match[2])
