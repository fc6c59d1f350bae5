"""Writes the SavedModel of a trained run: python export_main.py --workdir=... --output=..."""

import pathlib

from configs import command_line

from absl import flags  # isort: skip

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder of the SavedModel; default: <workdir>/saved_model")


def main():
    """Exports the newest checkpoint; see serving/export.py for the signatures."""
    workdir = pathlib.Path(WORKDIR.value)
    output = pathlib.Path(OUTPUT.value or workdir / "saved_model")

    from serving import export
    from training import checkpoints, restore

    text = checkpoints.read_config_text(workdir)
    config = command_line.read_config(text)
    export.check_output(output)
    export.export(restore.load_model(workdir, config), config, text, output)
    print(f"SavedModel in {output}")


if __name__ == "__main__":
    command_line.run(main)
