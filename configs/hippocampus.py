"""Anterior and posterior hippocampus in MR: 2 x 2 x 2 mosaics of randomly flipped crops, so that place tells nothing.

Data:     Medical Segmentation Decathlon task 04 (Antonelli et al. 2022) as images/, labels/ and split.json: 208 crops
          train, 26 are held out
Command:  python convert_main.py --config=configs/hippocampus.py --source=FOLDER
          python train_main.py --config=configs/hippocampus.py --strategy=mirrored
            --config.train.init_weights=runs/hippocampus_crops/model
          python evaluate_main.py --workdir=runs/hippocampus/model --split=val
          configs/hippocampus_crops.py trains those weights before; these steps were not tried without
Hardware: one CPU core (EPYC, Zen 4)
Time:     29 minutes beside others (2,500 steps of one patch), after 62 minutes of crops
Result:   begun with crops; 4 mosaics of the held-out crops (52 truths): box AP50 0.997, AP75 0.373, mask AP50 0.997, of
          matched objects mean mask IoU 0.757, Dice 0.861 and class accuracy 1.000; seed 0
"""

from configs import augment_schema, schema


def get_config():
    """Anterior and posterior hippocampus in MR crops: patches of 2 x 2 x 2 mosaics of flipped crops."""
    config = schema.Config(name="hippocampus")
    config.data.source = "../shared/data/msd_hippocampus"
    config.data.records = "runs/hippocampus/records"
    config.data.classes = ("anterior", "posterior")
    config.data.labels = "semantic"
    config.data.min_voxels = 20
    # Patches of the size of a crop, from anywhere in a mosaic: normalised over eight crops a network does not see what
    # it has learnt of one.
    config.input.patch_size = config.input.tile_size = (40, 56, 40)
    config.input.mosaic = (2, 2, 2)
    config.input.rotate_planes = ()
    config.input.augment = augment_schema.light()
    # The segmentation after 8,000 steps of crops: Dice 0.862 on held-out crops without affine and elastic, 0.869 with a
    # half and a tenth of them so; more was not told apart.
    change = config.input.augment
    change.affine.probability, change.elastic.probability, change.gamma.probability = 0.8, 0.2, 0.3
    change.blur.probability = change.noise.probability = 0.1
    config.model.backbone.stem_channels, config.model.backbone.stem_kernel = 16, (3, 3, 3)
    config.model.backbone.stem_stride = (1, 1, 1)  # the finest level has a stride of 2
    config.model.anchors.sizes = ((12.0, 16.0), (20.0, 24.0), (30.0, 36.0))
    config.model.rois.num_samples = 12
    config.model.rois.canonical_size = (40.0, 40.0, 40.0)  # all rois read the finest level
    config.model.box_head.cascade_ious = (0.4, 0.6, 0.75)
    config.model.box_head.reads_voxels = True  # an IoU of 0.75 is a voxel or two at every face
    config.model.mask_head.roi_size = (16, 16, 16)
    config.model.mask_head.fine_channels = 16
    config.model.segmentation.channels = 16
    config.model.detections.boxes = "masks"
    config.train.batch_size = 1
    config.train.steps, config.train.learning_rate = 2500, 7e-4
    # The later stages of a cascade weigh the same error more: without a weight most of the loss would be of boxes.
    config.train.loss_weights.roi_box = 0.5
    # Otherwise the smallest of the losses, and masks are read from what it teaches.
    config.train.loss_weights.segmentation = config.train.loss_weights.segmentation_dice = 4.0
    config.train.precision = "mixed_bfloat16"
    config.train.average.name, config.train.average.decay = "ema", 0.998
    config.inference.overlap = (20, 28, 20)  # half a tile
    return config
