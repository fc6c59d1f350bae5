"""Trains a 3D Mask R-CNN: python train_main.py --strategy=mirrored"""

import dataclasses
import pathlib
import sys

from configs import command_line, schema

from absl import flags  # isort: skip

STRATEGY = flags.DEFINE_enum(
    "strategy", "one_device", ["one_device", "mirrored", "multi_worker"], "how the model is replicated"
)
CONFIG = command_line.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/<config name>/model")
LOGICAL_DEVICES = flags.DEFINE_integer("logical_devices", 0, "split the CPU into this many devices", lower_bound=0)
WANDB = flags.DEFINE_enum("wandb", "auto", ["auto", "online", "offline", "disabled"], "where wandb keeps the run")


def main():
    """Trains, or goes on with, the run in --workdir."""
    config = command_line.resolve(CONFIG)
    workdir = pathlib.Path(WORKDIR.value or f"runs/{config.name}/model")

    import tensorflow as tf

    from training import checkpoints, optimizers, restore, stages
    from training import strategy as strategies

    strategy = strategies.make(STRATEGY.value, LOGICAL_DEVICES.value)
    manifest = _checked_records(config, strategy)
    _balance_classes(config.model.box_head, manifest)
    # By every worker, so that nobody waits for a chief that has left; and before anything is written.
    checkpoints.check(workdir, lambda text: _differences(config, text))

    tf.keras.utils.set_random_seed(config.train.seed)  # the weights that training begins with
    with strategy.scope():
        model = restore.make_model(config)
        optimizer = optimizers.make(config.train)
        optimizer.build(model.trainable_variables)
    resumed = checkpoints.restore_latest(workdir, model, optimizer)
    report = _begin_with(config, model) if config.train.init_weights and not resumed else None
    if strategies.is_chief(strategy):
        checkpoints.claim(workdir, schema.to_json(config), lambda text: _differences(config, text))
    step = int(optimizer.iterations.numpy())
    replicas = strategy.num_replicas_in_sync
    print(f"{model.count_params():,} parameters on {replicas} replica(s), {STRATEGY.value}", flush=True)
    print(f"resumed from {resumed}" if resumed else f"new run in {workdir}", flush=True)
    for line in model.outgrown_anchors():
        print(f"warning: {line}", flush=True)
    if report and strategies.is_chief(strategy):
        _write_report(workdir, report)
    if step >= stages.last_step(config.train):
        print(f"already trained for {step} steps", flush=True)
        return
    _train(config, workdir, strategy, model, optimizer, _batches(config, manifest, strategy, step), step)
    print(f"trained: checkpoints in {workdir}", flush=True)


def _begin_with(config, model):
    """Loads `train.init_weights` and returns the report of what was loaded, and what was not and why."""
    from ops.keypoints import KEYPOINTS
    from training import weights

    return weights.load(
        config.train.init_weights,
        model,
        inflate=config.train.inflate,
        classes=config.data.classes,
        attributes=config.data.attributes,
        keypoints=config.data.keypoints or KEYPOINTS,
    )


def _write_report(workdir, report):
    """Prints what was loaded and keeps it in the run's folder."""
    import json

    from data.atomic import replacing

    print("\n".join(report.lines()), flush=True)
    with replacing(workdir / "init_weights.json") as temporary:
        temporary.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


def _checked_records(config, strategy):
    """The manifest of records that fit the config, and a batch size that fits the replicas."""
    from data import convert, records
    from data.errors import InputError
    from training import strategy as strategies

    replicas, batch_size = strategy.num_replicas_in_sync, config.train.batch_size
    if batch_size % replicas:
        raise InputError(f"train.batch_size: expected a multiple of {replicas} replicas, came {batch_size}")
    manifest = convert.ensure_records(config.data)
    records.check_matches(
        manifest, config.data.classes, config.input.channels, config.data.attributes, config.data.keypoints
    )
    if strategies.is_chief(strategy):
        _warn_of_hidden_instances(manifest, config)
    return manifest


def _balance_classes(box_head, manifest):
    """Class weights from the training records where the config asks for them and gives none."""
    from data import fingerprint

    if box_head.class_balance > 0 and not box_head.class_weights:
        counts = manifest["num_instances"]["train"]
        box_head.class_weights = weights = fingerprint.class_weights(counts, box_head.class_balance)
        shown = ", ".join(f"{weight:.2f} {name}" for name, weight in zip(counts, weights[1:], strict=True))
        print(f"class weights: {shown}", flush=True)


def _batches(config, manifest, strategy, step):
    """An iterator over this process's share of the batches, from a step on."""
    from data import pipeline

    def share(context):
        return pipeline.train_batches(
            config.data.records,
            manifest,
            config.input,
            batch_size=context.get_per_replica_batch_size(config.train.batch_size),
            seed=config.train.seed + step,  # a resumed run sees other patches than it began with
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
        )

    return iter(strategy.distribute_datasets_from_function(share))


def _train(config, workdir, strategy, model, optimizer, batches, step):
    """Trains from a step to the last; the chief tracks, all write checkpoints."""
    import tensorflow as tf

    from data.errors import InputError
    from training import checkpoints, loop, stages, tracking
    from training import strategy as strategies

    worker = strategies.worker_name(strategy)
    manager = checkpoints.manager(workdir, model, optimizer, config.train.keep_checkpoints, worker=worker)
    tracker = None
    if strategies.is_chief(strategy):
        as_dict, steps = dataclasses.asdict(config), stages.last_step(config.train)
        tracker = tracking.Tracker(
            workdir, project="mask-rcnn-3d", config=as_dict, step=step, steps=steps, mode=WANDB.value
        )
    try:
        stages.train(
            config,
            workdir,
            strategy,
            model,
            optimizer,
            batches,
            worker=worker,
            on_log=tracker.log if tracker else lambda *_: None,
            on_checkpoint=lambda number: manager.save(checkpoint_number=number),
        )
    except loop.NonFiniteError as error:
        sys.exit(f"error: {error}; checkpoints in {workdir} are from before")
    except tf.errors.DataLossError as error:
        raise InputError(f"{config.data.records}: a record is damaged: {error.message.splitlines()[0]}") from error
    finally:
        if tracker:
            tracker.close()


def _warn_of_hidden_instances(manifest, config):
    most, slots = manifest["max_instances"], config.input.max_instances
    if most > slots:
        print(
            f"warning: a volume of the records has {most} instances, input.max_instances is {slots}: in a patch with "
            "more, the smallest are trained as background; raise input.max_instances",
            flush=True,
        )


def _differences(config, text):
    return schema.differences(config, command_line.read_config(text))


if __name__ == "__main__":
    command_line.run(main)
