"""The run's folder of TensorBoard: scalars, histograms, pictures; every step once."""

import pathlib

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader

from data.atomic import replacing
from tracking import scalars

FOLDER = "tensorboard"
# Of a larger array a histogram shows about so many values, evenly spread.
MOST_VALUES = 2**20


class TensorBoard:
    """Writes events; the first one opens the file."""

    def __init__(self, workdir, step):
        """Goes on with the folder of a run that has come to `step`; events past it, from before a kill, are dropped."""
        self.folder = pathlib.Path(workdir) / FOLDER
        self.writer = None
        for path in sorted(self.folder.glob("events.out.tfevents.*")):
            _drop_events_past(step, path)

    def scalars(self, step, values):
        """Writes numbers by their groups; those that are None are left out."""
        with self._at(step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(scalars.grouped(name), float(value))
        self.writer.flush()

    def histograms(self, step, kind, arrays):
        """Writes {name: array} under a kind, "gradients", as histograms of their finite values."""
        with self._at(step):
            for name, values in arrays.items():
                tf.summary.histogram(f"{kind}/{name}", finite_sample(values))
        self.writer.flush()

    def images(self, step, images):
        """Writes {name: [height, width, 3] uint8}."""
        with self._at(step):
            for name, image in images.items():
                tf.summary.image(name, image[np.newaxis])
        self.writer.flush()

    def close(self):
        """Closes the file, if there is one."""
        if self.writer:
            self.writer.close()

    def _at(self, step):
        if self.writer is None:
            self.writer = tf.summary.create_file_writer(str(self.folder))
        return self.writer.as_default(step=step)


def finite_sample(values):
    """The finite values of an array, all or about MOST_VALUES of them: [N]."""
    values = np.asarray(values).reshape(-1)
    values = values[:: max(1, values.size // MOST_VALUES)]
    return values[np.isfinite(values)]


def _drop_events_past(step, path):
    """Rewrites a file of events without those of later steps, if there are any."""
    num_past = sum(_step_of(event) > step for event in _events(path))
    if num_past:
        with replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for event in _events(path):
                if _step_of(event) <= step:
                    writer.write(event)
        print(f"{path}: dropped {num_past} event(s) past step {step}", flush=True)


def _events(path):
    """The serialized events of a file, up to one that a kill cut off."""
    return event_file_loader.RawEventFileLoader(str(path)).Load()


def _step_of(event):
    return tf.compat.v1.Event.FromString(event).step
