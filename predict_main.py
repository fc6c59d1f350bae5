"""Finds the objects in a file: python predict_main.py --workdir=... --input=scan.nii.gz --output=answers"""

import pathlib

from configs import command_line

from absl import flags  # isort: skip

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run, whose newest checkpoint answers")
MODEL = flags.DEFINE_string("model", None, "folder of a SavedModel, which answers instead")
INPUT = flags.DEFINE_string("input", None, "volume file (data/readers.py), OME-Zarr or DICOM folder", required=True)
MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "detections that score less are left out", 0.0, 1.0)
OUTPUT = flags.DEFINE_string("output", ".", "folder for the label volume, the tables and the picture")


def main():
    """Writes <case>_instances.<source's suffix>, <case>_detections.csv and .json, <case>_slices.png."""
    source, output = pathlib.Path(INPUT.value), pathlib.Path(OUTPUT.value)

    import numpy as np

    from data import readers, writers
    from data.atomic import check_folder
    from data.errors import InputError
    from evaluation import report
    from serving import answers

    if (WORKDIR.value is None) == (MODEL.value is None):
        raise InputError("expected one of --workdir and --model, came " + ("none" if WORKDIR.value is None else "both"))
    check_folder(output)
    volume = readers.read_volume(source)
    image = volume.array if volume.array.ndim == 4 else volume.array[..., np.newaxis]
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        # One such voxel would spoil the normalisation of all others.
        raise InputError(f"{source}: expected finite voxels, came {np.count_nonzero(~np.isfinite(image))} that are not")
    segment, config = _from_run(WORKDIR.value) if WORKDIR.value else _from_saved_model(MODEL.value)
    if image.shape[-1] != config.input.channels:
        raise InputError(f"{source}: expected {config.input.channels} channel(s), came {image.shape[-1]}")

    found = {name: value.numpy() for name, value in segment(image).items()}
    total = int(found["num_detections"])
    found = answers.confident(found, MIN_SCORE.value)
    measured = config.data.attributes, config.data.keypoints
    table = answers.rows(found, config.data.classes, volume, *measured)
    output.mkdir(parents=True, exist_ok=True)
    stem = output / readers.case_stem(source)
    suffix = writers.labels_suffix(source)
    writers.write_labels(f"{stem}_instances{suffix}", found["labels"], like=source)
    answers.write_csv(f"{stem}_detections.csv", table, answers.columns(found, *measured))
    answers.write_json(f"{stem}_detections.json", table, source.name)
    report.draw_slices(
        f"{stem}_slices.png",
        image[..., 0],
        found["labels"],
        found["boxes"][: len(table)],
        [f"{row['class']} {row['score']:.2f}" for row in table],
        spacing=volume.spacing,
        title=f"{source.name}: {len(table)} detection(s)",
    )
    for row in table:
        print(f"{row['id']:4d}  {row['class']:<16} {row['score']:.3f}  {row['volume_mm3']:12.1f} mm3")
    print(f"{len(table)} detection(s), {total - len(table)} more score below {MIN_SCORE.value}")
    if found["is_full"]:
        print(f"there may be more: inference.max_detections is {config.inference.max_detections}")
    print(f"label volume, tables and picture: {stem}_*")


def _from_run(workdir):
    """A function image -> answers, and the config, from the best checkpoint of a run, or else its newest."""
    from serving.inference import VolumeDetector
    from training import checkpoints, restore

    config = command_line.read_config(checkpoints.read_config_text(workdir))
    model, _ = restore.load_model(workdir, config)
    return VolumeDetector(model, config).segment, config


def _from_saved_model(path):
    """A function image -> answers, and the config, from a SavedModel."""
    import tensorflow as tf

    from serving import export

    segment, config_json = export.load(path)
    return lambda image: segment(volume=tf.constant(image)), command_line.read_config(config_json)


if __name__ == "__main__":
    command_line.run(main)
