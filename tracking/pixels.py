"""A matplotlib figure as an array."""

import numpy as np


def of(figure):
    """A figure with an Agg canvas as [height, width, 3] uint8 RGB."""
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]
