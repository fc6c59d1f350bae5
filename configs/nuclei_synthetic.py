"""Synthetic nuclei: crowded, touching, blurred along z, in stacks whose slices lie twice as far apart as their pixels.

Command:  python train_main.py --config=configs/nuclei_synthetic.py --strategy=mirrored
Hardware: two CPU cores (Xeon with AVX-512)
Time:     not trained yet; one stack is drawn in 0.08 s
Result:   not trained yet, so there is none to state
"""

from configs import schema, synthetic_schema


def get_config():
    """Stacks of (32, 96, 96) voxels of 1 x 0.5 x 0.5 micrometres with 40 to 60 nuclei."""
    config = schema.Config(name="nuclei_synthetic")
    config.data.source = "synthetic:nuclei"
    config.data.records = "runs/nuclei_synthetic/records"
    config.data.classes = ("nucleus",)
    config.data.synthetic = synthetic_schema.Synthetic(shape=(32, 96, 96), count=(40, 60), num_train=100, num_val=20)
    config.input.patch_size = (32, 96, 96)
    config.input.max_instances = 64
    config.input.rotate_planes = ((1, 2),)
    config.model.anchors.sizes = (((8.0, 15.0, 15.0),), ((9.0, 18.0, 18.0),), ((11.0, 22.0, 22.0),))
    config.model.rois.num_samples = 64
    config.model.detections.max_detections = 64
    config.inference.overlap = (12, 24, 24)
    return config
