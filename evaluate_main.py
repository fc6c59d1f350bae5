"""Scores a trained run on held-out volumes: python evaluate_main.py --workdir=runs/shapes_small/model --split=val"""

import json
import pathlib

from configs import command_line, schema

from absl import flags  # isort: skip

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
RECORDS = flags.DEFINE_string("records", None, "folder of the records; default: those of the run's config")
SPLIT = flags.DEFINE_enum("split", "val", schema.SPLITS, "which volumes")
OUTPUT = flags.DEFINE_string("output", None, "folder for metrics and pictures; default: <workdir>/evaluation_<split>")
MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "detections that score less are not drawn", 0.0, 1.0)
NUM_PICTURES = flags.DEFINE_integer("num_pictures", 4, "volumes that are drawn", lower_bound=0)


def main():
    """Evaluates the newest checkpoint, writes metrics.json, metrics.txt and pictures, prints the table."""
    workdir = pathlib.Path(WORKDIR.value)
    output = pathlib.Path(OUTPUT.value or workdir / f"evaluation_{SPLIT.value}")

    import tqdm

    from data import records, volumes
    from data.atomic import check_folder, replacing
    from evaluation import matching, measurements, metrics
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
    detector = VolumeDetector(restore.load_model(workdir, config), config)

    matches, drawn = [], []
    for number, truth in enumerate(tqdm.tqdm(truths, desc="evaluate", mininterval=2)):
        found = detector.detect(truth["volume"])
        matches.append(matching.match_volume(found, truth, config.model.detections.mask_threshold))
        if number < NUM_PICTURES.value:
            drawn.append((detector.one_class_each(found), truth))
    measured = measurements.summarize(matches, config.data.attributes, config.data.keypoints)
    summary = metrics.summarize(matches, config.data.classes) | measured
    table = "\n".join([metrics.table(summary), *measurements.table_lines(measured)])
    for name, text in (("metrics.json", json.dumps(summary, indent=2)), ("metrics.txt", table)):
        with replacing(output / name) as temporary:
            temporary.write_text(text + "\n")
    # Written last: a damaged record ends the evaluation before, and must not leave half of one.
    for found, truth in drawn:
        _draw(output / f"{truth['name']}.png", found, truth, config)
    print(table)
    print(f"metrics and pictures in {output}")


def _draw(path, found, truth, config):
    """A picture of the detections over one volume, with the truth below."""
    from evaluation import report
    from ops import masks

    shown = found["scores"].numpy() >= MIN_SCORE.value
    count, shape = int(shown.sum()), truth["instance_ids"].shape
    threshold = config.model.detections.mask_threshold
    labels = masks.label_volume(found["masks"], found["boxes"], found["valid"] & shown, shape, threshold)
    names = [
        f"{config.data.classes[class_id - 1]} {score:.2f}"
        for class_id, score in zip(found["class_ids"][:count].numpy(), found["scores"][:count].numpy(), strict=True)
    ]
    report.draw_slices(
        path,
        truth["volume"][..., 0],
        labels.numpy(),
        found["boxes"][:count].numpy(),
        names,
        spacing=truth["spacing"],
        truth=truth["instance_ids"],
        title=f"{truth['name']}: {count} detections, {len(truth['class_ids'])} truths",
    )


if __name__ == "__main__":
    command_line.run(main)
