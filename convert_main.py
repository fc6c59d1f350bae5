"""Datasets to sharded TFRecords: python convert_main.py --source=FOLDER --output=FOLDER --config=configs/nuclei.py"""

from configs import command_line

from absl import flags  # isort: skip

SOURCE = flags.DEFINE_string("source", None, "folder of volumes, or synthetic:shapes; default: config.data.source")
OUTPUT = flags.DEFINE_string("output", None, "new folder for what is written; default: config.data.records")
TO = flags.DEFINE_enum("to", "records", ["records", "files"], "TFRecords, or images/ and labels/ as .nii.gz")
CONFIG = command_line.define_config_flag()


def main():
    """Converts the config's source."""
    config = command_line.resolve(CONFIG)

    from data import convert
    from data.errors import InputError

    if SOURCE.value:
        config.data.source = SOURCE.value
    if TO.value == "files":
        if not OUTPUT.value:
            raise InputError("--to=files: expected --output=FOLDER, came none")
        totals = convert.write_files(config.data, OUTPUT.value)
    else:
        totals = convert.convert(config.data, OUTPUT.value or config.data.records)
    print(convert.summary(totals))
    print(f"{TO.value} in {OUTPUT.value or config.data.records}")


if __name__ == "__main__":
    command_line.run(main)
