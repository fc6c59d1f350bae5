"""Single crops of hippocampi, mirrored at random: what the network of configs/hippocampus.py learns before mosaics.

A step of one crop takes a fifth of the time of a mosaic's: more steps in the same time teach more (docs/results.md).

Command:  python convert_main.py --config=configs/hippocampus_crops.py --source=FOLDER
          python train_main.py --config=configs/hippocampus_crops.py --strategy=mirrored
Hardware: one CPU core (Xeon with AVX-512 and AMX), beside another training
Time:     39 minutes (6,000 steps of one crop)
Result:   26 held-out crops (52 truths): mask AP50 0.976, AP75 0.306, box AP50 0.957, mean mask IoU 0.745, class
          accuracy 1.000; seed 0
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
