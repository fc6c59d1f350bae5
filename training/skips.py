"""How many damaged records a run has skipped, and how many are too many."""

import math

from data.errors import InputError


class SkipLimit:
    """Counts the damaged records that were skipped, and ends the run when they are too many."""

    def __init__(self, allowed, *, num_records, batch_size, first_step):
        """Begins at 0.

        Args:
          allowed: `input.max_corrupt`, in each epoch.
          num_records: of the training split; in an epoch each is drawn once, so that each damaged one counts once.
          batch_size: examples per step.
          first_step: the step that this run begins, or goes on, with.
        """
        self.allowed, self.num_records = allowed, num_records
        self.batch_size, self.first_step = batch_size, first_step
        self.count = 0

    def check(self, step, scalars):
        """Adds `skipped` of the scalars of `loop.train`; InputError where it is more than the epochs so far allow."""
        self.count += round(scalars["skipped"])
        epochs = math.ceil((step - self.first_step) * self.batch_size / self.num_records)
        if self.count > self.allowed * epochs:
            raise InputError(
                f"step {step}: expected at most input.max_corrupt={self.allowed} damaged records in each of {epochs} "
                f"epoch(s) of {self.num_records}, skipped {self.count}"
            )
