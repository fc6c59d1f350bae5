"""What the data needs of a network: python plan_main.py --records=FOLDER --config=configs/nuclei.py --output=FOLDER"""

import pathlib

from configs import command_line

from absl import flags  # isort: skip

RECORDS = flags.DEFINE_string("records", None, "folder of the records; default: none, and only what each level sees")
OUTPUT = flags.DEFINE_string("output", None, "new folder for plan.yaml and pictures")
MEMORY_GB = flags.DEFINE_float("memory_gb", 4.0, "what a training step may take on one device", lower_bound=0.1)
CONFIG = command_line.define_config_flag()


def main():
    """Plans a network for the records; without records prints what the levels of the config's network see."""
    config = command_line.resolve(CONFIG)
    if RECORDS.value is None:
        if OUTPUT.value:
            from data.errors import InputError

            raise InputError(f"--output={OUTPUT.value}: expected --records=FOLDER to plan from, came none")
        print("\n".join(_receptive_fields(config)))
    else:
        _plan(config)


def _plan(config):
    """Reads the records, plans, writes, and prints a summary."""
    from data import fingerprint, records
    from data.atomic import replacing_folder
    from data.errors import InputError
    from planning import document, pictures, plan

    if not OUTPUT.value:
        raise InputError("--records: expected --output=FOLDER for the plan, came none")
    manifest = records.read_manifest(RECORDS.value)
    records.check_matches(manifest, config.data.classes, config.input.channels, config.data.attributes)
    with replacing_folder(OUTPUT.value) as folder:
        found = fingerprint.of_records(RECORDS.value, manifest)
        planned = plan.make(config, found, memory_bytes=MEMORY_GB.value * 1e9, sees=_sees)
        planned.config.validate()
        held_out = fingerprint.of_records(RECORDS.value, manifest, "val") if manifest["num_cases"]["val"] else None
        fields = _receptive_fields(planned.config)
        document.write(folder / "plan.yaml", planned, found, held_out, fields, records=RECORDS.value)
        pictures.draw_all(folder, found, planned.levels, planned.truths)
    print("\n".join([*document.summary(planned, found, held_out), "", *fields]))
    print(f"plan.yaml and pictures in {OUTPUT.value}; train_main.py --plan={pathlib.Path(OUTPUT.value) / 'plan.yaml'}")


def _network(config):
    from model.mask_rcnn import MaskRCNN

    return MaskRCNN(config.model, num_classes=len(config.data.classes), patch_size=config.input.patch_size)


def _sees(config):
    """What every level of the config's network sees, finest first: list of (z, y, x) voxels."""
    return list(_network(config).receptive_fields()[0].values())


def _receptive_fields(config):
    """Lines of a table: the receptive field of every level of the config's network beside its anchors."""
    from model import receptive_field

    heading = f"{config.name}: receptive fields, voxels (z, y, x)"
    return [heading, *receptive_field.table(*_network(config).receptive_fields())]


if __name__ == "__main__":
    command_line.run(main)
