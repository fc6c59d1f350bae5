"""What a training needs before its first step: records that fit it, what is measured of them, and batches of them."""

from data import convert, fingerprint, pipeline, records
from data.errors import InputError


def checked_records(config, num_replicas, is_one_process=True):
    """The manifest of records that fit the config, made where there are none of a synthetic source.

    What the config leaves to the records is filled in: class weights for `model.box_head.class_balance`, mean and
    standard deviation for `input.normalization` "dataset".

    Args:
      config: a Config.
      num_replicas: that a batch is dealt out to.
      is_one_process: whether all of them are this process's own.

    Raises:
      InputError: records that do not fit the config, or a batch size or a normalisation that does not fit the replicas.
    """
    train = config.train
    parts = num_replicas * train.accumulation
    if train.batch_size % parts:
        shares = f"{num_replicas} replicas" + (f" x train.accumulation {train.accumulation}" * (train.accumulation > 1))
        raise InputError(f"train.batch_size: expected a multiple of {shares}, came {train.batch_size}")
    _check_norm(config, num_replicas, is_one_process)
    manifest = convert.ensure_records(config.data, config.input.patch_size)
    records.check_matches(
        manifest, config.data.classes, config.input.channels, config.data.attributes, config.data.keypoints
    )
    _balance_classes(config.model.box_head, manifest)
    _measure_intensities(config.input, manifest)
    return manifest


def _check_norm(config, num_replicas, is_one_process):
    """Raises InputError for a normalisation of the batch that needs other workers or replicas where they are not."""
    norm, train = config.model.style.norm, config.train
    if norm == "sync_batch" and num_replicas > 1 and train.accumulation > 1:
        raise InputError(
            f"train.accumulation: expected 1 with sync_batch on several replicas, came {train.accumulation}"
        )
    # Its moving statistics are summed over the workers when they are read, and these are looks of the chief alone.
    looks = train.evaluation.steps or train.inspect_steps
    if norm in ("batch", "sync_batch") and not is_one_process and looks:
        raise InputError(
            f"train.evaluation.steps, train.inspect_steps: expected 0 with several workers and norm {norm}, came "
            f"{train.evaluation.steps}, {train.inspect_steps}"
        )


def warn_of_hidden_instances(manifest, config):
    """Prints a line where patches may hold more instances than they have slots."""
    most, slots = manifest["max_instances"], config.input.max_instances
    if most > slots:
        print(
            f"warning: a volume of the records has {most} instances, input.max_instances is {slots}: in a patch with "
            "more, the smallest are trained as background; raise input.max_instances",
            flush=True,
        )


def batches(config, manifest, strategy, step, data_service=""):
    """An iterator over this process's share of the batches; that a run has come to a step is all it depends on."""

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
            data_service=data_service,
        )

    return iter(strategy.distribute_datasets_from_function(share))


def batch_of_step(config, manifest, step):
    """The whole batch, over all replicas, with which a step (from 0) is made: dict of tensors."""
    size = config.train.batch_size
    return next(
        iter(
            pipeline.train_batches(
                config.data.records,
                manifest,
                config.input,
                batch_size=size,
                seed=config.train.seed,
                start=step * size,
                stop=(step + 1) * size,
            )
        )
    )


def _balance_classes(box_head, manifest):
    """Class weights from the training records where the config asks for them and gives none."""
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
