"""Nuclei in fluorescence stacks with instance labels: one class, four stacks of three kinds of tissue.

Data:     ovule (Vijayan et al. 2024), embryo (QCANet) and monolayer (Allen Institute cells3d) stacks as
          `<case>_image.tif` and `<case>_labels.tif`; three train, the ovule's other half is held out
Command:  python convert_main.py --config=configs/nuclei.py --source=FOLDER
          python train_main.py --config=configs/nuclei.py --strategy=mirrored
            --config.train.init_weights=runs/nuclei_synthetic/model
          python evaluate_main.py --workdir=runs/nuclei/model --split=val
          configs/nuclei_synthetic.py trains those weights before; without them, and without mirror images, F1 is 0.571,
          mask AP50 0.451 (one seed)
Hardware: one CPU core (EPYC, Zen 5) beside another training
Time:     8 minutes (700 steps of one patch), after 18 of synthetic stacks
Result:   begun with synthetic nuclei; held-out stack (17 nuclei, most cut by its border): F1 at mask IoU 0.5 0.584
          (0.562 to 0.600; precision 0.63, recall 0.55; watershed 0.400), mask AP50 0.497, mean mask IoU of matched
          nuclei 0.750; seeds 0, 1, 2
          A tissue left out, its nuclei 0.6 to 2.8 times as large in training: embryo 1.000 (watershed 1.000), monolayer
          0.593 (0.500), ovule 0.553 (0.577)
"""

from configs import schema


def get_config():
    """Patches of (48, 96, 96) voxels, anchors from 13 to 58 voxels across."""
    config = schema.Config(name="nuclei")
    config.data.source = "../shared/data/nuclei"
    config.data.records = "runs/nuclei/records"
    config.data.classes = ("nucleus",)
    config.data.min_voxels = 20
    config.input.patch_size = (48, 96, 96)
    config.input.max_instances = 96
    config.input.min_visible_voxels = 50
    config.input.normalization = "percentile"
    config.input.rotate_planes = ((1, 2),)
    _augment(config.input.augment)
    # Slices lie about 1.6 times as far apart as pixels; nuclei of a tissue that was never seen may have any size.
    config.model.fpn.levels = (1, 2, 3)
    config.model.anchors.sizes = (
        ((8.0, 13.0, 13.0), (11.0, 18.0, 18.0)),
        ((15.0, 24.0, 24.0), (20.0, 32.0, 32.0)),
        ((27.0, 43.0, 43.0), (36.0, 58.0, 58.0)),
    )
    config.model.rois.num_samples = 64
    config.model.rois.canonical_size = (28.0, 28.0, 28.0)
    config.model.mask_head.fine_channels = 16
    config.model.segmentation.channels = 16
    config.model.detections.max_detections = 96
    config.train.batch_size, config.train.steps = 1, 700
    config.train.precision = "mixed_bfloat16"
    config.train.average.name, config.train.average.decay = "ema", 0.995
    config.inference.overlap = (32, 56, 56)
    config.inference.flip_axes = (True, True, True)  # pieces that few of the eight images show lose score
    return config


def _augment(change):
    # Microscopes differ most in blur and noise.
    change.affine.probability, change.affine.scale = 0.5, (0.7, 1.4)
    change.elastic.probability = 0.0
    change.gamma.probability = 0.5
    change.blur.probability, change.blur.interval = 0.3, (0.5, 1.5)
    change.noise.probability, change.noise.interval = 0.3, (0.0, 0.15)
