"""Three networks: time, arithmetic, memory and where the time of a train step goes: `python -m benchmarks.network`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import functools
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from benchmarks import graph_work, measure, step_profile
from benchmarks.report import Network, Speed, network_tables, speed_table
from configs import backbones, heads_schema, model_schema, schema, shapes_small
from training import loop, optimizers, restore

NUM_TRUTHS = 8
DEMO, RESNET, ANISOTROPIC = "demo, 64³", "ResNet-50-FPN, 96³", "anisotropic, 32 x 160 x 160"


def demo():
    """The network of `make demo`."""
    return _one_volume(shapes_small.get_config())


def resnet():
    """ResNet-50 with a pyramid of 256 channels on levels 2 to 6, three anchors around every cell."""
    config = schema.Config(name="resnet")
    config.input.patch_size = (96, 96, 96)
    config.model = model_schema.Model(
        backbone=backbones.resnet(50),
        fpn=model_schema.FPN(channels=256, levels=(2, 3, 4, 5), extra="pool"),
        anchors=model_schema.Anchors(sizes=_sizes((8, 16, 32, 64, 96))),
        rpn=heads_schema.RPN(channels=256),
        box_head=heads_schema.BoxHead(channels=128, hidden=256),
        mask_head=heads_schema.MaskHead(channels=128),
    )
    return _one_volume(config)


def anisotropic():
    """A network for slices that are thicker than their voxels: two levels before anything mixes or strides along z."""
    config = schema.Config(name="anisotropic")
    config.input.patch_size = (32, 160, 160)
    config.input.rotate_planes = ()
    config.model = model_schema.Model(
        backbone=model_schema.Backbone(
            stem_channels=32,
            stem_kernel=(1, 3, 3),
            stem_stride=(1, 2, 2),
            stage_channels=(32, 64, 128, 256),
            stage_blocks=(2, 2, 2, 2),
            stage_kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
            stage_strides=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        ),
        fpn=model_schema.FPN(channels=64, levels=(2, 3, 4, 5)),
        anchors=model_schema.Anchors(
            sizes=tuple(tuple((s / 4, s, s) for s in sizes) for sizes in _sizes((10, 20, 40, 80)))
        ),
        rpn=heads_schema.RPN(channels=64),
        rois=heads_schema.Rois(canonical_size=(5.0, 20.0, 20.0)),
        box_head=heads_schema.BoxHead(channels=64),
        mask_head=heads_schema.MaskHead(channels=64),
    )
    return _one_volume(config)


def _sizes(edges):
    """Three sizes on every level, a third of an octave apart."""
    return tuple(tuple(float(edge) * 2.0 ** (step / 3) for step in range(3)) for edge in edges)


def _one_volume(config):
    config.train.batch_size = 1
    return config.validate()


def batch(config, seed=0):
    """A training batch of one volume, as data/pipeline makes it: `NUM_TRUTHS` bright boxes on noise."""
    rng = np.random.default_rng(seed)
    shape, slots = np.array(config.input.patch_size), config.input.max_instances
    volume = rng.normal(size=(1, *shape, config.input.channels)).astype(np.float32)
    ids = np.zeros((1, *shape), np.int32)
    boxes = np.zeros((1, slots, 6), np.float32)
    for slot in range(NUM_TRUTHS):
        size = (shape * rng.uniform(0.1, 0.3, 3)).astype(int)
        lo = (rng.uniform(0, 1, 3) * (shape - size)).astype(int)
        hi = lo + size
        inside = (0, *(slice(a, b) for a, b in zip(lo, hi, strict=True)))
        volume[inside] += 4.0
        ids[inside] = slot + 1
        boxes[0, slot] = [*lo, *hi]
    valid = np.arange(slots)[np.newaxis] < NUM_TRUTHS
    return {
        "volume": volume,
        "instance_ids": ids,
        "boxes": boxes,
        "class_ids": np.where(valid, 1 + np.arange(slots) % len(config.data.classes), 0).astype(np.int32),
        "attributes": np.zeros((1, slots, 0), np.float32),
        "valid": valid,
        "number": np.zeros(1, np.int64),
    }


class Step:
    """A network and one train step of it: forward, losses, gradient, clipping, AdamW, as `training.loop` has them."""

    def __init__(self, config):
        self.model = restore.make_model(config)
        self.optimizer = optimizers.make(config.train)
        self.optimizer.build(self.model.trainable_variables)
        self.batch = batch(config)
        self.batches = iter(tf.data.Dataset.from_tensors(self.batch).repeat())
        self.train_steps = loop.make_train_steps(
            tf.distribute.get_strategy(), self.model, self.optimizer, config.train, config.train.as_stages()[0]
        )
        self.forward = tf.function(self.model)
        self.volume = tf.constant(self.batch["volume"])

    def train(self):
        """One step; raises FloatingPointError where its loss is not finite."""
        total = float(self.train_steps(self.batches, tf.constant(1))["total"])
        if not np.isfinite(total):
            raise FloatingPointError(f"expected a finite loss, came {total}")

    def find(self):
        """Detections of the volume, on the host."""
        return self.forward(self.volume)["num_detections"].numpy()

    def graphs(self):
        """The graphs of forward and train step."""
        return (
            self.forward.get_concrete_function(self.volume).graph,
            self.train_steps.get_concrete_function(self.batches, tf.constant(1)).graph,
        )


def _train(make_config):
    """For `step_profile.profile`."""
    return Step(make_config()).train


def _memory(config):
    """For `measure.peak_extra_bytes`: a traced step, after one of the smallest network to load what is loaded once."""
    small = demo()
    small.input.patch_size = (16, 16, 16)
    small.inference.overlap = (8, 8, 8)
    small = Step(small.validate())
    step = Step(config)

    def warm_up():
        small.train()
        step.graphs()

    return warm_up, step.train


def demo_memory():
    """For `measure.peak_extra_bytes`."""
    return _memory(demo())


def resnet_memory():
    """For `measure.peak_extra_bytes`."""
    return _memory(resnet())


def anisotropic_memory():
    """For `measure.peak_extra_bytes`."""
    return _memory(anisotropic())


NETWORKS = {
    DEMO: (demo, demo_memory, 7),
    RESNET: (resnet, resnet_memory, 2),
    ANISOTROPIC: (anisotropic, anisotropic_memory, 3),
}


def measure_network(name, *others):
    """A row for the tables, and the medians of other functions that took turns with the train step."""
    make_config, memory, repeats = NETWORKS[name]
    peak_bytes = measure.peak_extra_bytes(memory)
    step = Step(make_config())
    start = time.perf_counter()
    step.train()
    first_step = time.perf_counter() - start
    products = []
    forward, train, _, *other_seconds = measure.medians(
        step.find, step.train, lambda: products.append(measure.flops_per_second()), *others, repeats=repeats
    )
    forward_graph, train_graph = step.graphs()
    return Network(
        name=name,
        parameters=sum(int(np.prod(v.shape)) for v in step.model.trainable_variables),
        forward_seconds=forward,
        train_seconds=train,
        first_step_seconds=first_step,
        peak_bytes=peak_bytes,
        forward_flops=graph_work.flops(forward_graph),
        train_flops=graph_work.flops(train_graph, loops=1),
        product_flops_per_second=statistics.median(products),
        **step_profile.profile(functools.partial(_train, make_config)),
    ), other_seconds


def tables():
    """Measures everything; Markdown."""
    from benchmarks import retinanet  # needs torch, which the processes that measure memory do without

    rows, speeds = [], []
    for name in NETWORKS:
        print(f"measuring: {name}", flush=True)
        if name == RESNET:
            peer = retinanet.Step(batch(resnet()), len(resnet().data.classes))
            row, (peer_seconds,) = measure_network(name, peer.train)
            work = f"train step, ResNet-50-FPN, 96³, {row.train_flops / 1e9:.0f} GFLOP"
            against = f"`monai.apps.detection` RetinaNet, {peer.flops() / 1e9:.0f} GFLOP"
            speeds.append(Speed(work, row.train_seconds, against, peer_seconds, target=1, bytes=0, flops=0))
        else:
            row, _ = measure_network(name)
        rows.append(row)
    return network_tables(rows) + "\n\n" + speed_table(speeds)


def main():
    """Prints the tables."""
    tf.get_logger().setLevel("ERROR")
    print(f"{measure.machine()}\n\n{tables()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
