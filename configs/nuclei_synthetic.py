"""Synthetic nuclei: crowded, touching, blurred along z, in stacks whose slices lie twice as far apart as their pixels.

What the network of configs/nuclei.py can learn before it sees a real one.

Command:  python train_main.py --config=configs/nuclei_synthetic.py --strategy=mirrored
Hardware: one CPU core (EPYC, Zen 5), beside another training
Time:     18 minutes (1,800 steps of one stack)
Result:   10 stacks that were not trained on (507 nuclei), many of them faint and noisy: mask AP50 0.877, box AP50
          0.880, mean mask IoU 0.857; seed 0
"""

from configs import nuclei, schema, synthetic_schema


def get_config():
    """Stacks of (48, 96, 96) voxels of 1 x 0.5 x 0.5 micrometres with 8 to 80 nuclei."""
    config = nuclei.get_config()
    config.name = "nuclei_synthetic"
    config.data = schema.Data(source="synthetic:nuclei", records="runs/nuclei_synthetic/records", classes=("nucleus",))
    # From sparse to crowded, from a bright stain to one hardly above its background: a tissue that was never seen may
    # be either.
    config.data.synthetic = synthetic_schema.Synthetic(shape=(48, 96, 96), count=(8, 80), num_train=200, num_val=10)
    own = config.data.synthetic.nuclei
    own.background, own.photons, own.texture = (0.02, 0.6), (4.0, 100.0), 0.5
    own.haze = (0.0, 2.0)
    change = config.input.augment  # blur and noise are drawn already, one size of nuclei alone is
    change.affine.probability, change.affine.scale = 0.8, (0.6, 2.8)
    change.blur.probability, change.blur.interval = 0.2, (0.5, 1.0)
    change.noise.probability, change.noise.interval = 0.2, (0.0, 0.1)
    config.train.steps = 1800
    return config
