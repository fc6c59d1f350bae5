"""Lesions of multiple sclerosis in MR of the brain, FLAIR and T1: one class, from 3 to 6,873 voxels.

Data:     two patients of Lesjak et al. 2017 (doi:10.1007/s12021-017-9348-7), 1 mm: a folder for each, with
          flair.nii.gz, t1.nii.gz and a binary mask, lesions.nii.gz; patient19, of 87 lesions, one of them in 47
          parts, is for training, and patient26, of 19, is held out
Command:  python convert_main.py --config=configs/ms_lesions.py
          python train_main.py --config=configs/ms_lesions.py --strategy=mirrored
          python evaluate_main.py --workdir=runs/ms_lesions/model --split=val
Hardware: one CPU core (EPYC, Zen 5) beside another training
Time:     22 minutes (2,000 steps of two patches)
Result:   a demonstration: sensitivity on patient26 0.16, 0.16 and 0.37 at 8, 16 and 32 false positives; seed 0
"""

from configs import schema


def get_config():
    """Patches of (64, 64, 64) voxels, anchors on a grid of two voxels for the least of the lesions."""
    config = schema.Config(name="ms_lesions")
    config.data.source = "../shared/data/ms_lesions"
    config.data.records = "runs/ms_lesions/records"
    config.data.classes = ("lesion",)
    config.data.labels = "semantic"
    # One lesion of patient 19 runs through the whole brain: its box would be the patch, wherever that lies.
    config.data.part_longer_than = 40.0
    config.data.channel_suffixes = ("flair", "t1")
    config.data.folds, config.data.fold = 2, 1  # patient26 is val
    config.data.min_voxels = 3  # of 1 mm: what is smaller counts as noise (Commowick et al. 2018)
    config.input.channels = 2
    config.input.max_instances = 128
    config.input.min_visible_voxels = 3
    config.input.foreground = 0.8
    config.input.rotate_planes = ()
    _augment(config.input.augment)
    # A geometric series from the least of patient 19, of whose lesions half are three voxels across or less, to what a
    # patch shows of the largest.
    config.model.fpn.levels = (1, 2, 3)
    config.model.anchors.sizes = ((2.5, 4.5), (8.0, 14.0), (25.0, 45.0))
    config.model.rpn.assignment, config.model.rpn.atss_candidates = "atss", 18  # the nine nearest places
    config.model.rpn.box_loss = config.model.box_head.box_loss = "giou"
    config.model.rpn.post_nms_top_k = 256
    config.model.rpn.train_post_nms_top_k = 256
    config.model.rois.num_samples = 64
    config.model.rois.canonical_size = (10.0, 10.0, 10.0)
    config.model.detections.max_detections = 64
    config.train.steps, config.train.learning_rate = 2000, 1.5e-3
    config.train.precision = "mixed_bfloat16"
    config.train.average.name, config.train.average.decay = "ema", 0.998
    config.inference.overlap = (24, 24, 24)
    config.inference.max_detections = 256
    return config


def _augment(change):
    # Patient 19 has many lesions of a few voxels and one that runs through the brain; what lies between is a small one
    # magnified.
    change.affine.probability, change.affine.scale = 0.8, (0.8, 3.0)
    change.elastic.probability = 0.0
    change.contrast.probability, change.contrast.interval = 1.0, (0.8, 1.25)
    change.brightness.probability, change.brightness.interval = 1.0, (-0.3, 0.3)
