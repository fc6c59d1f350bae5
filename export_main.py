"""Writes the SavedModel of a trained run: python export_main.py --workdir=... --output=..."""

import dataclasses
import pathlib

from configs import command_line

from absl import flags  # isort: skip

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run; without a best one, the latest")
WANDB = flags.DEFINE_enum(
    "wandb", "auto", ["auto", "online", "offline", "disabled"], "where wandb keeps it, if the run was tracked"
)
OUTPUT = flags.DEFINE_string("output", None, "folder of the SavedModel; default: <workdir>/saved_model")


def main():
    """Exports a checkpoint; see serving/export.py for the signatures."""
    workdir = pathlib.Path(WORKDIR.value)
    output = pathlib.Path(OUTPUT.value or workdir / "saved_model")

    from serving import export
    from training import checkpoints, restore

    text = checkpoints.read_config_text(workdir)
    config = command_line.read_config(text)
    export.check_output(output)
    model, checkpoint = restore.load_model(workdir, config, CHECKPOINT.value)
    export.export(model, config, text, output)
    print(f"SavedModel in {output}, of {checkpoint}")
    _keep(workdir, config, output)


def _keep(workdir, config, output):
    """Makes the SavedModel an artifact of the run, where wandb tracked that."""
    from tracking import wandb_run, wandb_start

    if (workdir / wandb_start.ID_FILE).exists():
        run = wandb_run.WandbRun(workdir, "mask-rcnn-3d", dataclasses.asdict(config), WANDB.value)
        run.log_artifact(output, "model", "saved_model")
        run.close()


if __name__ == "__main__":
    command_line.run(main)
