"""What a training costs beside its steps: `python -m benchmarks.training`.

The bare step is one compiled function, forward, losses, gradient, clipping and optimizer on a batch that is there,
called once per step, whose answer is left on the device. The loop is `training.loop` as a training runs it: its batches
come from an iterator, losses are summed, the wait is clocked, a step that is not finite is held back, and after 20
steps the host reads the averages, and a `Tracker` writes them down.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import dataclasses
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from benchmarks import measure, network
from benchmarks.report import Limit, limit_table
from configs import shapes_small
from training import checkpoints, loop, optimizers, restore, strategy

STEPS = 20  # of a loop
SMALL, LARGE = (32, 32, 32), (128, 160, 160)  # patches; the former takes no memory to speak of, but as much to plan


def config(batch_size=2, **settings):
    """The demo's, with so many volumes per step."""
    found = shapes_small.get_config()
    for name, value in {"batch_size": batch_size, "steps_per_loop": STEPS, **settings}.items():
        setattr(found.train, name, value)
    return found.validate()


def batch(settings):
    """So many different volumes as a step takes."""
    each = [network.batch(settings, seed) for seed in range(settings.train.batch_size)]
    found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return {**found, "number": np.arange(settings.train.batch_size)}


class Training:
    """A network, its state, its compiled steps and an iterator that gives them the same batch again and again."""

    def __init__(self, settings, where):
        self.settings, self.where, self.batch = settings, where, batch(settings)
        tf.keras.utils.set_random_seed(0)
        with where.scope():
            self.state = restore.make_state(settings)
        self.stage = settings.train.as_stages()[0]
        self.steps = loop.make_train_steps(
            where, self.state.model, self.state.optimizer, settings.train, self.stage, average=self.state.average
        )

        def share(context):
            size = context.get_per_replica_batch_size(settings.train.batch_size)
            return tf.data.Dataset.from_tensor_slices(self.batch).repeat().batch(size, drop_remainder=True)

        self.iterator = iter(where.distribute_datasets_from_function(share))

    def run(self, count=STEPS):
        """So many steps."""
        return {name: float(value) for name, value in self.steps(self.iterator, tf.constant(count)).items()}

    def loop(self, on_loop):
        """As many, with what the host does after them."""
        self.state.optimizer.iterations.assign(0)
        loop.train(
            self.steps,
            self.iterator,
            self.state.optimizer,
            self.settings.train,
            last_step=STEPS,
            ends=lambda step: [],
            on_loop=on_loop,
        )

    def bare(self):
        """f() that makes as many bare steps."""
        model, optimizer, train = self.state.model, self.state.optimizer, self.settings.train
        variables, weights = model.trainable_variables, dataclasses.asdict(train.loss_weights)
        tensors = {name: tf.constant(value) for name, value in self.batch.items()}

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                losses = model.compute_losses(tensors, tf.constant([0, 1]))
                total = tf.add_n([weights[name] * tf.reduce_mean(loss) for name, loss in losses.items()])
            clipped, _ = tf.clip_by_global_norm(tape.gradient(total, variables), train.clip_norm)
            optimizers.apply(optimizer, clipped, variables)
            return total

        def run():
            for _ in range(STEPS):
                total = step()
            return total.numpy()

        return run


def overhead():
    """Limit: the loop against the bare step."""
    from tracking import tracker

    training = Training(config(), strategy.make("one_device"))
    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.asdict(training.settings)
        tracked = tracker.Tracker(
            pathlib.Path(folder), project="bench", config=settings, step=0, steps=STEPS, mode="disabled"
        )
        tracked.console.log = lambda *_: None
        looped, bare = measure.medians(lambda: training.loop(tracked.log), training.bare(), repeats=9)
        tracked.close()
    work = f"a step of the loop, against the bare compiled step of {1e3 * bare / STEPS:.0f} ms (demo, 2 x 64³)"
    return Limit(work, looped / bare, 1.03, "x its time")


def mirrored():
    """Markdown: seconds per step of the same batch on one device and on two logical ones of the same cores."""
    seconds = [_in_new_process(_step_seconds, count) for count in (1, 2)]
    lines = ["| the demo's step of 2 volumes | ms | against one device |", "|---|---|---|"]
    for name, value in zip(("one device, 2 volumes", "two logical devices, 1 volume each"), seconds, strict=True):
        lines.append(f"| {name} | {1e3 * value:.0f} | {value / seconds[0]:.2f} x |")
    return lines


def _step_seconds(num_devices):
    where = strategy.make("mirrored", num_devices if num_devices > 1 else 0)
    training = Training(config(), where)
    training.run(2)
    return _median(lambda: training.run(5), 7) / 5


def pauses():
    """Markdown: what stops the steps for a while, for the demo and a network of 70 M parameters."""
    lines = [
        "| network | parameters | checkpoint, MB | writing it, s | resumption, s | tracing and first step, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, make in (("demo, 64³", config), ("ResNet-50-FPN, 96³", network.resnet)):
        settings = make()
        where = strategy.make("one_device")
        training = Training(settings, where)
        start = time.perf_counter()
        training.run(1)
        first = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            manager = checkpoints.manager(folder, training.state, settings.train)
            numbers = iter(range(1, 100))
            writing = _median(lambda m=manager, n=numbers: checkpoints.save(m, next(n)), 3)
            size = sum(path.stat().st_size for path in pathlib.Path(folder).glob("checkpoints/ckpt-1.*"))
            reading = _median(lambda f=folder, t=training: checkpoints.restore_latest(f, t.state), 3)
        count = training.state.model.count_params()
        lines.append(
            f"| {name} | {count / 1e6:.1f} M | {size / 1e6:.0f} | {writing:.2f} | {reading:.2f} | {first:.0f} |"
        )
    return lines


def memory():
    """Markdown: peak memory and time of a step of large patches, and of what makes it smaller."""
    forms = {
        "as it is": {},
        "train.recompute": {"recompute": True},
        "train.accumulation=2": {"accumulation": 2},
        "both": {"recompute": True, "accumulation": 2},
    }
    found = {}
    for name, settings in forms.items():
        (least, _), (most, seconds) = (_in_new_process(_step_of, patch, settings) for patch in (SMALL, LARGE))
        found[name] = most - least, seconds
    first = found["as it is"]
    title = f"a step of 2 x {' x '.join(map(str, LARGE))}"
    lines = [
        f"| {title} | peak beyond that of {'x'.join(map(str, SMALL))}, MB | against as it is | s | against as it is |",
        "|---|---|---|---|---|",
    ]
    for name, (peak, seconds) in found.items():
        lines.append(
            f"| {name} | {peak / 1e6:.0f} | {peak / first[0]:.2f} x | {seconds:.2f} | {seconds / first[1]:.2f} x |"
        )
    return lines


def _step_of(patch, settings):
    """Peak memory of a process that makes one step, and the median seconds of three more."""
    found = config(**settings)
    found.input.patch_size, found.input.rotate_planes = patch, ()
    training = Training(found.validate(), strategy.make("one_device"))
    training.run(1)
    return measure.resident("VmHWM"), _median(lambda: training.run(1), 3)


def _in_new_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _median(function, repeats):
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def tables():
    """Measures everything; Markdown."""
    parts = [limit_table([overhead()]), *("\n".join(part()) for part in (mirrored, pauses, memory))]
    return "\n\n".join(parts)


def main():
    """Prints the tables."""
    tf.get_logger().setLevel("ERROR")
    print(tables())
    return 0


if __name__ == "__main__":
    from benchmarks import training as this  # the functions of a fresh process are looked up by this name

    sys.exit(this.main())
