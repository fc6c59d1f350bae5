"""Scores a trained run on held-out volumes: python evaluate_main.py --workdir=runs/shapes_small/model --split=val"""

import pathlib

from configs import command_line, schema

from absl import flags  # isort: skip

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
RECORDS = flags.DEFINE_string("records", None, "folder of the records; default: those of the run's config")
SPLIT = flags.DEFINE_enum("split", "val", schema.SPLITS, "which volumes")
OUTPUT = flags.DEFINE_string("output", None, "folder for metrics and pictures; default: <workdir>/evaluation_<split>")
MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "detections that score less are not drawn", 0.0, 1.0)
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run; without a best one, the latest")
NUM_PICTURES = flags.DEFINE_integer("num_pictures", 4, "volumes that are drawn", lower_bound=0)


def main():
    """Evaluates a checkpoint, writes metrics.json, metrics.txt and pictures, prints the table."""
    workdir = pathlib.Path(WORKDIR.value)
    output = pathlib.Path(OUTPUT.value or workdir / f"evaluation_{SPLIT.value}")

    import tqdm

    from data import records, volumes
    from data.atomic import check_folder
    from evaluation import evaluate
    from evaluation import output as written
    from serving.inference import VolumeDetector
    from training import checkpoints, restore

    check_folder(output)
    config = command_line.read_config(checkpoints.read_config_text(workdir))
    folder = RECORDS.value or config.data.records
    manifest = records.read_manifest(folder)
    records.check_matches(
        manifest, config.data.classes, config.input.channels, config.data.attributes, config.data.keypoints
    )
    truths = volumes.of_split(folder, manifest, SPLIT.value, config.input)
    model, checkpoint = restore.load_model(workdir, config, CHECKPOINT.value)
    shown = tqdm.tqdm(truths, desc="evaluate", mininterval=2)
    found = evaluate.evaluate(VolumeDetector(model, config), shown, config, num_drawn=NUM_PICTURES.value)
    # Written when all is there: a damaged record ends the evaluation before, and must not leave half of one.
    print(written.write(output, found, config, MIN_SCORE.value))
    print(f"metrics and pictures in {output}, of {checkpoint}")


if __name__ == "__main__":
    command_line.run(main)
