import pytest

from data.errors import InputError
from training import skips


def limit(**changes):
    return skips.SkipLimit(2, **{"num_records": 10, "batch_size": 4, "first_step": 100, **changes})


class SkipLimitTest:
    def test_every_epoch_that_has_begun_allows_as_many_again(self):
        ours = limit()
        for step, skipped in ((102, 2), (103, 2), (105, 0), (106, 2)):  # 8, 12, 20 and 24 examples
            ours.check(step, {"skipped": float(skipped)})
        assert ours.count == 6

    def test_more_end_the_run(self):
        ours = limit()
        ours.check(101, {"skipped": 2.0})
        words = "step 102: expected at most input.max_corrupt=2 damaged records in each of 1 epoch.* of 10, skipped 3"
        with pytest.raises(InputError, match=words):
            ours.check(102, {"skipped": 1.0})

    def test_none_are_allowed(self):
        with pytest.raises(InputError, match="skipped 1"):
            skips.SkipLimit(0, num_records=10, batch_size=4, first_step=0).check(5, {"skipped": 1.0})
