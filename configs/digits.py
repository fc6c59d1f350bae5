"""Synthetic digits: 64^3 voxels with extruded digits in five fonts, turned in space; ten classes.

Command:  python train_main.py --config=configs/digits.py --strategy=mirrored
Hardware: two CPU cores (Xeon with AVX-512)
Time:     not trained yet; one volume is drawn in 0.05 s
Result:   not trained yet, so there is none to state
"""

from configs import schema, synthetic_schema


def get_config():
    """64^3 voxels, three to eight digits. No flips or quarter turns: a 2 is not its mirror image, nor a 6 a 9."""
    config = schema.Config(name="digits")
    config.data.source = "synthetic:digits"
    config.data.records = "runs/digits/records"
    config.data.classes = tuple("0123456789")
    config.data.synthetic = synthetic_schema.Synthetic(shape=(64, 64, 64), count=(3, 8), num_train=400, num_test=4)
    config.input.flip_axes = (False, False, False)
    config.input.rotate_planes = ()
    config.model.anchors.sizes = (((11.0, 17.0, 13.0),), ((13.0, 20.0, 16.0),), ((16.0, 24.0, 20.0),))
    config.train.steps = 4000
    return config
