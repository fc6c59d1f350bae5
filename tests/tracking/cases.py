"""An evaluation worked out by hand, and readers of what wandb and TensorBoard have written."""

import glob
import json

import numpy as np
import tensorflow as tf
import wandb
from tensorboard.backend.event_processing import event_accumulator
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal import datastore

from evaluation import evaluate, listing, matching, metrics
from tests import tiny

SCALARS = {
    "rpn_class": 0.25,
    "mask": 0.5,
    "total": 0.75,
    "gradient_norm": 4.0,
    "learning_rate": 1e-3,
    "volumes_per_second": 3.25,
    "input_wait": 0.125,
    "skipped": 0.0,
    "non_finite": 0.0,
}


def case():
    """A volume (4, 6, 10) of spacing (2, 1, 0.5) mm and what was found in it.

    Its truths are a plate of 2 x 3 x 4 voxels and a rod of 3 x 2 x 2. The detections: the plate as it is, 0.9; a plate
    where nothing is, 0.8; the rod as a plate and without its last slice across z, 0.6; the rod as a rod in half of its
    place, 0.3.
    """
    ids = np.zeros((4, 6, 10), np.int32)
    ids[0:2, 0:3, 0:4] = 1
    ids[1:4, 4:6, 6:8] = 2
    volume = (ids > 0).astype(np.float32)[..., np.newaxis]
    truth = {
        "volume": volume,
        "instance_ids": ids,
        "class_ids": np.array([1, 2], np.int32),
        "boxes": np.array([[0, 0, 0, 2, 3, 4], [1, 4, 6, 4, 6, 8]], np.float32),
        "attributes": np.zeros((2, 0), np.float32),
        "keypoints": np.zeros((2, 0, 3), np.float32),
        "spacing": np.array([2.0, 1.0, 0.5], np.float32),
        "name": "case_a",
    }
    boxes = np.zeros((6, 6), np.float32)
    boxes[:4] = [[0, 0, 0, 2, 3, 4], [2, 0, 6, 4, 3, 10], [1, 4, 6, 3, 6, 8], [1, 4, 6, 4, 6, 7]]
    found = {
        "boxes": boxes,
        "scores": np.array([0.9, 0.8, 0.6, 0.3, 0, 0], np.float32),
        "class_ids": np.array([1, 1, 1, 2, 0, 0], np.int32),
        "masks": np.ones((6, 2, 2, 2), np.float32),
        "valid": np.arange(6) < 4,
        "num_detections": np.int32(4),
    }
    return {name: tf.constant(value) for name, value in found.items()}, truth


def evaluation(settings, *, with_drawn=True):
    """The Evaluation of `case` alone."""
    found, truth = case()
    match = matching.match_volume(found, truth, settings.model.detections.mask_threshold)
    rows = listing.rows(found, truth, match, settings)
    drawn = [(found, truth)] if with_drawn else []
    return evaluate.Evaluation(metrics.summarize([match], settings.data.classes), [match], drawn, tuple(rows))


def config():
    """A Config of the two classes of `case`."""
    return tiny.config()


def wandb_records(workdir):
    """Every record of the offline run of a folder."""
    wandb.teardown()  # what its service has yet to write is written then
    (path,) = glob.glob(f"{workdir}/wandb/offline-run-*/*.wandb")
    store, records = datastore.DataStore(), []
    store.open_for_scan(path)
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def wandb_history(workdir):
    """{step: {name: value}} of the offline run of a folder; of media the value is a dict of its own."""
    history = {}
    for record in wandb_records(workdir):
        if record.WhichOneof("record_type") == "history":
            values = history.setdefault(record.history.step.num, {})
            for item in record.history.item:
                *path, last = item.nested_key or [item.key]
                inner = values
                for part in path:
                    inner = inner.setdefault(part, {})
                inner[last] = json.loads(item.value_json)
    return history


def wandb_files(workdir, pattern):
    """Paths of files in the run's folder of media."""
    return sorted(glob.glob(f"{workdir}/wandb/offline-run-*/files/media/{pattern}"))


def tensorboard_events(workdir):
    """{tag: [(step, tensor)]} of the folder of a run."""
    sizes = {"tensors": 0}
    events = event_accumulator.EventAccumulator(f"{workdir}/tensorboard", size_guidance=sizes).Reload()
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
