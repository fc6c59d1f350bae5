"""What a network can see of its anchors: python plan_main.py --config=configs/nuclei.py"""

from configs import command_line

CONFIG = command_line.define_config_flag()


def main():
    """Prints the receptive field of every level of the config's network beside its anchors."""
    config = command_line.resolve(CONFIG)

    from model import receptive_field
    from model.mask_rcnn import MaskRCNN

    model = MaskRCNN(config.model, num_classes=len(config.data.classes), patch_size=config.input.patch_size)
    print(f"{config.name}: receptive fields, voxels (z, y, x)")
    print("\n".join(receptive_field.table(*model.receptive_fields())))


if __name__ == "__main__":
    command_line.run(main)
