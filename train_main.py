"""Trains a 3D Mask R-CNN: python train_main.py --strategy=mirrored"""

import dataclasses
import itertools
import os
import pathlib
import shutil
import sys

from configs import command_line, schema

from absl import flags  # isort: skip

MODES = {
    "train": "until the last step",
    "summary": "the layers, their shapes and parameters",
    "sanity": "the debugging ladder, a verdict for each rung",
    "lr_find": "which learning rates are any good",
    "replay": "the step of --dump, operation by operation",
}
STRATEGY = flags.DEFINE_enum(
    "strategy", "one_device", ["one_device", "mirrored", "multi_worker", "tpu"], "how the model is replicated"
)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "; ".join(f"{name}: {what}" for name, what in MODES.items()))
CONFIG = command_line.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/<config name>/model")
DEVICES = flags.DEFINE_list("devices", [], "of one_device and mirrored: GPU:0,GPU:1 say; default: all GPUs, or the CPU")
LOGICAL_DEVICES = flags.DEFINE_integer("logical_devices", 0, "split the CPU into this many devices", lower_bound=0)
PLAN = flags.DEFINE_string("plan", None, "plan.yaml of plan_main.py, whose settings replace those of the config's file")
DATA_SERVICE = flags.DEFINE_string(
    "data_service", "", "dispatcher (grpc://host:port) of a tf.data service that makes the examples; order is not kept"
)
WANDB = flags.DEFINE_enum("wandb", "auto", ["auto", "online", "offline", "disabled"], "where wandb keeps the run")
PROFILE = flags.DEFINE_string("profile", "", "first:last, 100:110 say: steps that TensorBoard's profiler traces")
DUMP = flags.DEFINE_string("dump", None, "of --mode=replay: <workdir>/nonfinite_<step>")

PLAN_FILE = "plan.yaml"  # the copy of the plan in the run's folder


def main():
    """Trains, or goes on with, the run in --workdir; or what else --mode says."""
    if MODE.value == "replay":
        _replay()
        return
    config = command_line.resolve(CONFIG, _follow_plan)

    from tracking import profiler
    from training import checkpoints, preemption, prepare
    from training import strategy as strategies

    if PROFILE.value:
        profiler.parse(PROFILE.value)  # before anything is written
    strategy = strategies.make(STRATEGY.value, LOGICAL_DEVICES.value, DEVICES.value)
    is_one_process = STRATEGY.value != "multi_worker"
    manifest = prepare.checked_records(config, strategy.num_replicas_in_sync, is_one_process)
    if MODE.value != "train":
        _debug(config, manifest, strategy)
        return
    try:
        with preemption.listening() as request:
            _train(config, _workdir(config), strategy, manifest, request)
    except preemption.PreemptedError as end:
        print(end, flush=True)
        sys.exit(preemption.EXIT_CODE)
    except Exception as error:
        # Whatever it was that waited for all workers, or wrote.
        line = strategies.lost_worker(error) or checkpoints.full_disk(error)
        if line is None:
            raise
        sys.exit(f"error: {line}")


def _workdir(config):
    sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    # Each run that the agent of a wandb sweep starts has a folder of its own.
    own = f"sweep-{sweep}/{run}" if sweep and run else "model"
    return pathlib.Path(WORKDIR.value or f"runs/{config.name}/{own}")


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


def _train(config, workdir, strategy, manifest, request):
    """Makes or restores what trains, and trains it."""
    import tensorflow as tf

    from training import checkpoints, prepare, restore
    from training import strategy as strategies

    is_chief = strategies.is_chief(strategy)
    if is_chief:
        prepare.warn_of_hidden_instances(manifest, config)
    # By every worker, so that nobody waits for a chief that has left; and before anything is written.
    _check_evaluation(config, manifest)
    checkpoints.check(workdir, lambda text: _differences(config, text))

    tf.keras.utils.set_random_seed(config.train.seed)  # the weights that training begins with
    is_new = not checkpoints.newest_first(workdir / checkpoints.CHECKPOINTS)
    reports = []
    with strategy.scope():
        state = restore.make_state(config, lambda model: reports.extend(_begin_with(config, model) if is_new else []))
    resumed = checkpoints.restore_latest(workdir, state)
    if is_chief:
        checkpoints.claim(workdir, schema.to_json(config), lambda text: _differences(config, text))
        _keep_plan(workdir)
    replicas = strategy.num_replicas_in_sync
    print(f"{state.model.count_params():,} parameters on {replicas} replica(s), {STRATEGY.value}", flush=True)
    print(f"resumed from {resumed}" if resumed else f"new run in {workdir}", flush=True)
    for line in state.model.outgrown_anchors():
        print(f"warning: {line}", flush=True)
    for report in reports if is_chief else []:
        _write_report(workdir, report)
    _run(config, workdir, strategy, manifest, state, request)
    if is_chief:
        _evaluate_at_the_end(config, workdir, manifest, request)
    print(f"trained: checkpoints in {workdir}", flush=True)


def _run(config, workdir, strategy, manifest, state, request):
    """Trains from the step that the state is at; the chief tracks, all write checkpoints."""
    import tensorflow as tf

    from data import pipeline
    from data.errors import InputError
    from tracking import profiler
    from training import loop, non_finite, prepare, run, skips, stages
    from training import strategy as strategies

    is_chief = strategies.is_chief(strategy)
    step = int(state.optimizer.iterations.numpy())
    skip_limit = skips.SkipLimit(
        config.input.max_corrupt,
        num_records=sum(shard["records"] for shard in manifest["shards"]["train"]),
        batch_size=config.train.batch_size,
        first_step=step,
    )
    training = run.Run(
        config,
        workdir,
        strategy,
        state,
        request=request,
        profiler=profiler.Profiler(PROFILE.value, workdir / "tensorboard" if is_chief else None),
        evaluate=_evaluator(config, manifest, state.model, request) if is_chief else None,
        skip_limit=skip_limit,
    )
    if training.is_over():
        print(f"already trained for {step} steps", flush=True)
        return
    tracker = training.tracker = _tracker(config, workdir, manifest, step) if is_chief else None
    training.inspect = _inspector(config, manifest, state.model, tracker) if is_chief else None
    try:
        training.catch_up()
        if training.is_over():
            return
        batches = prepare.batches(config, manifest, strategy, step, DATA_SERVICE.value)
        stages.train(
            config,
            workdir,
            strategy,
            state,
            batches,
            worker=training.worker,
            ends=training.ends(),
            on_loop=training.after_loop,
        )
    except loop.NonFiniteError as error:
        # Batches of a data service come in no order: which one it was cannot be told.
        # Nor may the chief alone read what is summed over the workers.
        is_read_alone = STRATEGY.value != "multi_worker" or not loop.moving_statistics(state.model)
        if is_chief and error.step is not None and not DATA_SERVICE.value and is_read_alone:
            sys.exit(f"error: {non_finite.explain(error, config, workdir, manifest, state.model)}")
        sys.exit(f"error: {error}; checkpoints in {workdir} are from before")
    except tf.errors.OpError as error:
        line = pipeline.damage(error)
        if line is None:
            raise
        raise InputError(line) from error
    finally:
        if skip_limit.count:
            print(f"skipped damaged records {skip_limit.count} time(s)", flush=True)
        training.profiler.close()
        if tracker:
            if training.is_over():  # or the files would be gone before they are uploaded
                training.keep_weights()
            tracker.close()


def _debug(config, manifest, strategy):
    """Another mode than training; exits with 1 where its verdict is bad."""
    import importlib

    debugging = importlib.import_module(f"debugging.{MODE.value}")
    if debugging.run(config, manifest, _workdir(config), strategy) is False:
        sys.exit(1)


def _replay():
    """Runs the step of --dump again, with the config of its run; exits with 1 where it is not finite again."""
    from data.errors import InputError
    from debugging import replay
    from training import checkpoints

    if not DUMP.value:
        raise InputError("--mode=replay: expected --dump=<workdir>/nonfinite_<step>, came nothing")
    folder = pathlib.Path(DUMP.value)
    if not replay.run(command_line.read_config(checkpoints.read_config_text(folder.absolute().parent)), folder):
        sys.exit(1)


def _check_evaluation(config, manifest):
    """Raises InputError for a metric or a split that there is not, before it is asked for."""
    from data import volumes
    from evaluation import evaluate

    settings = config.train.evaluation
    for split, is_used in ((settings.split, settings.steps > 0), (settings.final_split, settings.final_split != "")):
        if is_used:
            volumes.of_split(config.data.records, manifest, split, config.input)
    if settings.steps:
        evaluate.check_metric(settings.metric, config.data.classes)


def _evaluator(config, manifest, model, request):
    """What `run.Run` evaluates with, or None where it is not to."""
    import math

    from data import volumes
    from evaluation import evaluate
    from serving.inference import VolumeDetector

    settings = config.train.evaluation
    if not settings.steps:
        return None
    detector = VolumeDetector(model, config)

    def run():
        truths = volumes.of_split(config.data.records, manifest, settings.split, config.input)
        some = _until_asked_to_stop(request, itertools.islice(truths, settings.max_volumes))
        found = evaluate.evaluate(detector, some, config, num_drawn=settings.pictures)
        if request.is_made:
            return None, math.nan
        return found, evaluate.scalars(found.summary)[settings.metric]

    return run


def _until_asked_to_stop(request, truths):
    return itertools.takewhile(lambda _: not request.is_made, truths)


def _tracker(config, workdir, manifest, step):
    from tracking import tracker
    from training import stages

    return tracker.Tracker(
        workdir,
        project="mask-rcnn-3d",
        config=dataclasses.asdict(config),
        step=step,
        steps=stages.last_step(config.train),
        mode=WANDB.value,
        manifest=manifest,
    )


def _inspector(config, manifest, model, tracker):
    """f(step) that shows what the next step trains on."""
    from training import loop, prepare

    def inspect(step):
        batch = prepare.batch_of_step(config, manifest, step)
        seeds = loop.example_seeds(config.train.seed, step, batch["number"])
        tracker.log_inspection(step, model, batch, seeds, config)

    return inspect


def _evaluate_at_the_end(config, workdir, manifest, request):
    """Scores the best checkpoint on all of `train.evaluation.final_split`, unless that has been done."""
    from data import volumes
    from data.atomic import check_folder
    from evaluation import evaluate, output
    from serving.inference import VolumeDetector
    from training import preemption, restore

    split = config.train.evaluation.final_split
    folder = workdir / f"final_{split}"
    if not split or (folder / "metrics.json").exists():
        return
    check_folder(folder)
    model, checkpoint = restore.load_model(workdir, config)
    truths = _until_asked_to_stop(request, volumes.of_split(config.data.records, manifest, split, config.input))
    found = evaluate.evaluate(VolumeDetector(model, config), truths, config, num_drawn=config.train.evaluation.pictures)
    if request.is_made:
        raise preemption.PreemptedError("asked to stop: start again for the evaluation at the end")
    print(output.write(folder, found, config))
    print(f"metrics and pictures in {folder}, of {checkpoint}", flush=True)


def _begin_with(config, model):
    """Loads `train.init_weights`, if any; the reports of what was loaded, and what was not and why: a list."""
    from ops.keypoints import KEYPOINTS
    from training import weights

    if not config.train.init_weights:
        return []
    report = weights.load(
        config.train.init_weights,
        model,
        inflate=config.train.inflate,
        classes=config.data.classes,
        attributes=config.data.attributes,
        keypoints=config.data.keypoints or KEYPOINTS,
    )
    return [report]


def _write_report(workdir, report):
    """Prints what was loaded and keeps it in the run's folder."""
    import json

    from data.atomic import replacing

    print("\n".join(report.lines()), flush=True)
    with replacing(workdir / "init_weights.json") as temporary:
        temporary.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


def _differences(config, text):
    return schema.differences(config, command_line.read_config(text))


if __name__ == "__main__":
    command_line.run(main)
