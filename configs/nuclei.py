"""Command: Hardware: Time: Result:"""

from configs import schema


def get_config():
    """Nuclei in fluorescence stacks with instance labels."""
    config = schema.Config(name="nuclei")
    config.data.source = "../shared/data/nuclei"
    config.data.records = "runs/nuclei/records"
    config.data.classes = ("nucleus",)
    config.data.min_voxels = 20
    config.input.patch_size = (32, 96, 96)
    config.input.max_instances = 64
    config.input.min_visible_voxels = 50
    config.input.rotate_planes = ((1, 2),)
    config.input.intensity_scale = 0.3
    config.input.intensity_shift = 0.3
    config.model.anchors.sizes = ((12.0, 18.0), (24.0, 30.0), (40.0, 56.0))
    config.model.anchors.aspects = ((1.0, 1.0, 1.0), (1.0, 2.0, 2.0))
    config.model.rois.num_samples = 64
    config.model.detections.max_detections = 64
    config.train.steps = 2000
    config.inference.overlap = (16, 32, 32)
    return config
