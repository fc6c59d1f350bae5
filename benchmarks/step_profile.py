"""Where the time of a train step goes, from TensorFlow's own profiler."""

import collections
import contextlib
import multiprocessing
import pathlib
import re
import tempfile
from unittest import mock

import tensorflow as tf

from model import cascade, losses, mask_rcnn, targets
from ops import keypoints

# Functions that open no scope of their own, and the part of the network that their time counts to.
SCOPES = (
    (mask_rcnn, "propose", "proposals"),
    (cascade, "refine", "proposals"),
    (mask_rcnn, "multilevel_roi_align3d", "roi_align"),
    (targets, "anchor_targets", "targets"),
    (targets, "sample_rois", "targets"),
    (targets, "assign_rois", "targets"),
    (targets, "roi_masks", "targets"),
    (keypoints, "from_ids", "targets"),
    (losses, "rpn_losses", "losses"),
    (losses, "box_losses", "losses"),
    (losses, "mask_losses", "losses"),
    (losses, "segmentation_losses", "losses"),
    (losses, "attribute_loss", "losses"),
    (losses, "keypoint_loss", "losses"),
    (losses, "l2_loss", "losses"),
    (losses, "sum_stages", "losses"),
)
# The first of these that is among the scopes of an operation says where it belongs.
PARTS = {
    "proposals": "proposals",
    "roi_align": "ROIAlign",
    "targets": "targets",
    "losses": "losses",
    "backbone": "backbone",
    "fpn": "FPN",
    "segmentation": "segmentation",
    "rpn_head": "RPN head",
    "box_head": "heads",
    "mask_head": "heads",
    "attribute_head": "heads",
    "keypoint_head": "heads",
    "global_norm": "clipping",
    "clip_by_global_norm": "clipping",
    "AdamW": "optimizer",
}
OTHERS = "other"
# What an operation is called in a profile: its name, which says its scopes, and its type.
OPERATION = re.compile(r"(?P<name>[^:]+):(?P<kind>\w+)")
# Operations whose time is that of the operations inside them.
AROUND = {"While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall"}


def profile(prepare):
    """Shares of the time that operations take, one operation after the other in a process of its own.

    Two at a time would wait for each other's threads, and the wait would count as work.

    Args:
      prepare: a function that can be pickled, without arguments; it gives the function to run.

    Returns:
      dict: `parts`, {part: share}, forward and backward together; `convolutions`, the share of convolutions of all
      kinds; `kinds`, {type of operation: share}, largest first.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_profile, (prepare,))


def _profile(prepare):
    tf.config.threading.set_inter_op_parallelism_threads(1)
    run = prepare()
    with _scopes():
        run()
    run()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        run()
        tf.profiler.experimental.stop()
        parts, kinds = collections.Counter(), collections.Counter()
        for name, kind, duration in _operations(folder):
            parts[_part(name)] += duration
            kinds[kind] += duration
    total = sum(kinds.values())
    return {
        "parts": {part: value / total for part, value in parts.items()},
        "convolutions": sum(value for kind, value in kinds.items() if "Conv3D" in kind) / total,
        "kinds": {kind: value / total for kind, value in kinds.most_common()},
    }


@contextlib.contextmanager
def _scopes():
    """Within it, what is traced carries the names of `SCOPES`, its gradients too."""
    with contextlib.ExitStack() as stack:
        for module, name, scope in SCOPES:
            stack.enter_context(mock.patch.object(module, name, _scoped(getattr(module, name), scope)))
        yield


def _scoped(function, scope):
    def call(*args, **kwargs):
        with tf.name_scope(scope):
            return function(*args, **kwargs)

    return call


def _part(name):
    # The second of one name is name_1, and the second head of a cascade is box_head2.
    scopes = [re.sub(r"[_\d]+$", "", scope) for scope in name.split("/")]
    part = next((part for scope, part in PARTS.items() if scope in scopes), OTHERS)
    # A custom gradient is in no scope: of these, ROIAlign's alone loops, inside the loop over the steps.
    return "ROIAlign" if part == OTHERS and scopes.count("body") > 1 else part


def _operations(folder):
    """(name, type, picoseconds) of every operation that ran."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # made for one protobuf: not where nothing is profiled

    space = xplane_pb2.XSpace()
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    space.ParseFromString(path.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                found = OPERATION.fullmatch(plane.event_metadata[event.metadata_id].name)
                if found and found["kind"] not in AROUND:
                    yield found["name"], found["kind"], event.duration_ps
