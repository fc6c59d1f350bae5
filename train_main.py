"""Trains a 3D Mask R-CNN: python train_main.py --strategy=mirrored"""

import dataclasses
import pathlib
import shutil
import sys

from configs import command_line, schema

from absl import flags  # isort: skip

STRATEGY = flags.DEFINE_enum(
    "strategy", "one_device", ["one_device", "mirrored", "multi_worker"], "how the model is replicated"
)
CONFIG = command_line.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/<config name>/model")
LOGICAL_DEVICES = flags.DEFINE_integer("logical_devices", 0, "split the CPU into this many devices", lower_bound=0)
PLAN = flags.DEFINE_string("plan", None, "plan.yaml of plan_main.py, whose settings replace those of the config's file")
DATA_SERVICE = flags.DEFINE_string(
    "data_service", "", "dispatcher (grpc://host:port) of a tf.data service that makes the examples; order is not kept"
)
WANDB = flags.DEFINE_enum("wandb", "auto", ["auto", "online", "offline", "disabled"], "where wandb keeps the run")

PLAN_FILE = "plan.yaml"  # the copy of the plan in the run's folder


def main():
    """Trains, or goes on with, the run in --workdir."""
    config = command_line.resolve(CONFIG, _follow_plan)
    workdir = _workdir(config)

    import tensorflow as tf

    from training import checkpoints, optimizers, restore, skips, stages
    from training import strategy as strategies

    strategy = strategies.make(STRATEGY.value, LOGICAL_DEVICES.value)
    manifest = _checked_records(config, strategy)
    _balance_classes(config.model.box_head, manifest)
    _measure_intensities(config.input, manifest)
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
        _keep_plan(workdir)
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
    batches = _batches(config, manifest, strategy, step)
    skip_limit = skips.SkipLimit(
        config.input.max_corrupt,
        num_records=sum(shard["records"] for shard in manifest["shards"]["train"]),
        batch_size=config.train.batch_size,
        first_step=step,
    )
    _train(config, workdir, strategy, model, optimizer, batches, step, skip_limit)
    print(f"trained: checkpoints in {workdir}", flush=True)


def _workdir(config):
    return pathlib.Path(WORKDIR.value or f"runs/{config.name}/model")


def _follow_plan(config, given):
    """Applies the plan, or that with which the run in --workdir began, but to no field `given` on the command line."""
    kept = _workdir(config) / PLAN_FILE
    path = PLAN.value or (kept if kept.is_file() else None)
    if path is None:
        return
    from planning import settings

    left = settings.apply(config, settings.read(path), keep=given)
    print(f"plan {path}: followed" + (f", but the command line decides {', '.join(left)}" if left else ""), flush=True)


def _keep_plan(workdir):
    """Copies the plan into the run's folder, so that the run goes on without it."""
    from data.atomic import replacing

    if PLAN.value and pathlib.Path(PLAN.value).absolute() != (workdir / PLAN_FILE).absolute():
        with replacing(workdir / PLAN_FILE) as temporary:
            shutil.copyfile(PLAN.value, temporary)


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
    manifest = convert.ensure_records(config.data, config.input.patch_size)
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


def _measure_intensities(input_config, manifest):
    """Mean and standard deviation of the training records where the config asks for them and gives none."""
    if input_config.normalization == "dataset" and not input_config.intensity_mean:
        found = manifest["intensity"]["train"]
        input_config.intensity_mean, input_config.intensity_std = tuple(found["mean"]), tuple(found["std"])
        print(f"intensities: mean {found['mean']}, standard deviation {found['std']}", flush=True)


def _batches(config, manifest, strategy, step):
    """An iterator over this process's share of the batches; that a run has come to a step is all it depends on."""
    from data import pipeline

    def share(context):
        return pipeline.train_batches(
            config.data.records,
            manifest,
            config.input,
            batch_size=context.get_per_replica_batch_size(config.train.batch_size),
            seed=config.train.seed,
            start=step * config.train.batch_size,
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
            data_service=DATA_SERVICE.value,
        )

    return iter(strategy.distribute_datasets_from_function(share))


def _train(config, workdir, strategy, model, optimizer, batches, step, skip_limit):
    """Trains from a step to the last; the chief tracks, all write checkpoints."""
    import tensorflow as tf

    from data import pipeline
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

    def on_log(number, scalars):
        if tracker:
            tracker.log(number, scalars)
        skip_limit.check(number, scalars)

    try:
        stages.train(
            config,
            workdir,
            strategy,
            model,
            optimizer,
            batches,
            worker=worker,
            on_log=on_log,
            on_checkpoint=lambda number: manager.save(checkpoint_number=number),
        )
    except loop.NonFiniteError as error:
        sys.exit(f"error: {error}; checkpoints in {workdir} are from before")
    except tf.errors.OpError as error:
        line = pipeline.damage(error)
        if line is None:
            raise
        raise InputError(line) from error
    finally:
        if skip_limit.count:
            print(f"skipped damaged records {skip_limit.count} time(s)", flush=True)
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
