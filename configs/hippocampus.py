"""Command: Hardware: Time: Result:"""

from configs import schema


def get_config():
    """Anterior and posterior hippocampus in MR crops, put together to 2 x 2 x 2 mosaics of flipped crops."""
    config = schema.Config(name="hippocampus")
    config.data.source = "../shared/data/msd_hippocampus"
    config.data.records = "runs/hippocampus/records"
    config.data.classes = ("anterior", "posterior")
    config.data.labels = "semantic"
    config.data.min_voxels = 20
    config.input.patch_size = (80, 112, 80)  # two crops of (40, 56, 40) along each axis
    config.input.mosaic = (2, 2, 2)
    config.input.rotate_planes = ()
    config.model.anchors.sizes = ((12.0, 16.0), (20.0, 24.0), (30.0, 36.0))
    config.model.rois.num_samples = 64
    config.train.batch_size = 1  # eight crops
    config.train.steps = 2000
    return config
