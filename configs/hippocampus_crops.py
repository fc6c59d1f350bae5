"""Single crops of hippocampi, mirrored at random: what the network of configs/hippocampus.py learns before mosaics.

A step of one crop takes an eighth of the time of a mosaic's and teaches nearly as much.

Command:  python train_main.py --config=configs/hippocampus_crops.py --strategy=mirrored
"""

from configs import hippocampus


def get_config():
    """Crops of (40, 56, 40) voxels, one anterior and one posterior hippocampus in each."""
    config = hippocampus.get_config()
    config.name, config.data.records = "hippocampus_crops", "runs/hippocampus_crops/records"
    config.input.patch_size, config.input.mosaic = (40, 56, 40), (1, 1, 1)
    config.model.rois.num_samples = 12
    config.train.steps, config.train.learning_rate = 6000, 1.5e-3
    return config
