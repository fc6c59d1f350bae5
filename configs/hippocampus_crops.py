"""Single crops of hippocampi, mirrored at random: what the network of configs/hippocampus.py learns before mosaics.

A step of the segmentation alone takes a third of the time of one of all losses: more steps in the same time teach more
(docs/results.md).

Command:  python convert_main.py --config=configs/hippocampus_crops.py --source=FOLDER
          python train_main.py --config=configs/hippocampus_crops.py --strategy=mirrored
Hardware: one CPU core (EPYC, Zen 4), beside two other trainings
Time:     62 minutes (11,000 steps of one crop for the segmentation, 2,000 for all)
Result:   26 held-out crops (52 truths): mask AP50 1.000, AP75 0.512, box AP50 1.000, AP75 0.579, mean mask IoU 0.761,
          class accuracy 1.000; seed 0
"""

from configs import hippocampus, schema, train_schema


def get_config():
    """Crops of (40, 56, 40) voxels, one anterior and one posterior hippocampus in each."""
    config = hippocampus.get_config()
    config.name, config.data.records = "hippocampus_crops", "runs/hippocampus_crops/records"
    config.input.mosaic, config.input.tile_size = (1, 1, 1), ()
    config.model.mask_head.roi_size = (12, 12, 12)  # less to do in a step; weights are those of any size
    # What has stages has no others.
    config.train.steps, config.train.learning_rate = schema.Train().steps, schema.Train().learning_rate
    config.train.stages = (
        train_schema.Stage("segmentation", 11000, 1.5e-3, learns=("segmentation",)),
        train_schema.Stage("joint", 2000, 1e-3),
    )
    return config
