"""Datasets to sharded TFRecords: python convert_main.py --source=FOLDER --output=FOLDER --config=configs/nuclei.py"""

import os

from configs import command_line

from absl import flags  # isort: skip

SOURCE = flags.DEFINE_string("source", None, "folder of volumes, or synthetic:<kind>; default: config.data.source")
OUTPUT = flags.DEFINE_string("output", None, "new folder for what is written; default: config.data.records")
TO = flags.DEFINE_enum("to", "records", ["records", "files"], "TFRecords, or images/ and labels/ as .nii.gz")
CHECK = flags.DEFINE_bool(
    "check", False, "convert nothing: report what is wrong with a folder; to --output/check.json too"
)
WORKERS = flags.DEFINE_integer("workers", None, "processes; default: one per core", lower_bound=1)
RUNNER = flags.DEFINE_string("runner", "", "of Apache Beam instead: DirectRunner, FlinkRunner, DataflowRunner, ...")
RUNNER_OPTIONS = flags.DEFINE_multi_string("runner_option", [], "of Beam: --runner_option=--flink_master=host:8081")
CONFIG = command_line.define_config_flag()


def main():
    """Converts the config's source, or checks it; returns the exit code."""
    config = command_line.resolve(CONFIG)

    from data import convert
    from data.errors import InputError

    if SOURCE.value:
        config.data.source = SOURCE.value
    if CHECK.value:
        return check(config.data, OUTPUT.value)
    if TO.value == "files":
        if not OUTPUT.value:
            raise InputError("--to=files: expected --output=FOLDER, came none")
        totals = convert.write_files(config.data, OUTPUT.value)
    else:
        totals = convert.convert(
            config.data,
            OUTPUT.value or config.data.records,
            patch_size=config.input.patch_size,
            workers=WORKERS.value or len(os.sched_getaffinity(0)),
            runner=RUNNER.value,
            runner_options=RUNNER_OPTIONS.value,
        )
    print(convert.summary(totals))
    print(f"{TO.value} in {OUTPUT.value or config.data.records}")
    return 0


def check(data_config, output):
    """Prints what is wrong or odd about the cases of a folder; 2, the exit code, if anything is wrong."""
    import json
    import pathlib

    from data import doctor
    from data.atomic import replacing

    report = doctor.check(data_config)
    print(doctor.table(report))
    if output:
        with replacing(pathlib.Path(output) / "check.json") as path:
            path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 2 if report["errors"] else 0


if __name__ == "__main__":
    command_line.run(main)
