"""Synthetic cubes: one object in 256^3 voxels of noise, a solid cube or one with a hole through it.

Command:  python train_main.py --config=configs/cubes.py --strategy=mirrored
          --config.data.synthetic.shape='(64,64,64)' makes small volumes of it
Hardware: two CPU cores (Xeon with AVX-512)
Time:     not trained yet; one volume is drawn in 0.02 s
Result:   not trained yet, so there is none to state
"""

from configs import schema, synthetic_schema


def get_config():
    """256^3 voxels, one cube of edge 16 to 31 that is 0.4 brighter than the noise."""
    config = schema.Config(name="cubes")
    config.data.source = "synthetic:cubes"
    config.data.records = "runs/cubes/records"
    config.data.classes = ("cube", "hollow")
    config.data.synthetic = synthetic_schema.Synthetic(shape=(256, 256, 256), num_train=60, num_val=12, num_test=4)
    config.input.max_instances = 4
    config.model.anchors.sizes = ((16.0,), (22.0,), (30.0,))
    config.inference.overlap = (31, 31, 31)  # every cube lies whole in a tile
    return config
