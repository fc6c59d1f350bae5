"""Nuclei in fluorescence stacks with instance labels: one class, four stacks of three kinds of tissue.

Data:     ovule (Vijayan et al. 2024), embryo (QCANet) and monolayer (Allen Institute cells3d) stacks as
          `<case>_image.tif` and `<case>_labels.tif`; three train, the ovule's other half is held out
Command:  python convert_main.py --config=configs/nuclei.py --source=FOLDER
          python train_main.py --config=configs/nuclei.py --strategy=mirrored
          python evaluate_main.py --workdir=runs/nuclei/model --split=val
Hardware: two CPU cores (Xeon with AVX-512), shared with other work
Time:     18 minutes for 1,500 steps of two patches with the cores shared among several jobs, 8 with one
Result:   held-out stack (17 nuclei, most cut by its border): mask AP50 0.816, box AP50 0.749, mask AP at IoU 0.3 0.941,
          mean mask IoU of matched nuclei 0.694; one seed
"""

from configs import augment_schema, schema


def get_config():
    """Patches of (32, 96, 96) voxels, anchors for nuclei from 12 to 56 voxels across."""
    config = schema.Config(name="nuclei")
    config.data.source = "../shared/data/nuclei"
    config.data.records = "runs/nuclei/records"
    config.data.classes = ("nucleus",)
    config.data.min_voxels = 20
    config.input.patch_size = (32, 96, 96)
    config.input.max_instances = 64
    config.input.min_visible_voxels = 50
    config.input.rotate_planes = ((1, 2),)
    config.input.augment = augment_schema.light()
    config.input.augment.contrast.interval = (0.7, 1.3)
    config.input.augment.brightness.interval = (-0.3, 0.3)
    config.model.anchors.sizes = ((12.0, 18.0), (24.0, 30.0), (40.0, 56.0))
    config.model.anchors.aspects = ((1.0, 1.0, 1.0), (1.0, 2.0, 2.0))
    config.model.rois.num_samples = 64
    config.model.detections.max_detections = 64
    config.train.steps = 1500
    config.inference.overlap = (16, 32, 32)
    return config
