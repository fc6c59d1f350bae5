"""One line per log on the console."""

import time

from tracking import scalars as names


class Console:
    """Prints where a training is, what it has come to and how long it will take."""

    def __init__(self, steps):
        """`steps` is how many the run will have."""
        self.steps = steps
        self.began, self.first_step = time.monotonic(), None

    def log(self, step, scalars):
        """Prints the total and its parts, the speed and the time left."""
        parts = " ".join(f"{name} {value:.3f}" for name, value in names.losses(scalars).items())
        now = time.monotonic()
        if self.first_step is None:
            # The first loop includes tracing; the rate is measured from its end.
            self.began, self.first_step, left = now, step, "?"
        else:
            seconds = (now - self.began) / (step - self.first_step) * (self.steps - step)
            left = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        speed = f"{scalars['volumes_per_second']:.1f} volumes/s"
        print(f"step {step}/{self.steps} loss {scalars['total']:.3f} ({parts}) {speed}, {left} left", flush=True)
