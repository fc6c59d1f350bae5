"""Synthetic calorimeter events: photons, pions and muons of 10 to 300 GeV that overlap, in 48 layers of two absorbers.

Command:  python train_main.py --config=configs/showers.py --strategy=mirrored
Hardware: two CPU cores (Xeon with AVX-512), shared with other work
Time:     7 minutes for 1,200 steps of two events, less than a third of those below; one event is drawn in 0.03 s
Result:   not trained to the end yet. After a schedule of 1,200 steps on 300 events: 20 held-out ones (71 truths): box
          AP50 photon 0.797, pion 0.088, muon 0.001 (box AP at IoU 0.3 0.895, 0.739, 0.002: tracks one cell wide are
          not found yet), mask AP50 photon 0.728; energies of the 16 matched: bias -2 %, resolution 21 %
"""

from configs import schema, synthetic_schema


def get_config():
    """48 layers of 64 x 64 cells, two to five particles, the root of what each cell measured, and their energies."""
    config = schema.Config(name="showers")
    config.data.source = "synthetic:showers"
    config.data.records = "runs/showers/records"
    config.data.classes = ("photon", "pion", "muon")
    config.data.attributes = ("energy",)
    config.data.min_voxels = 3
    config.data.synthetic = synthetic_schema.Synthetic(shape=(48, 64, 64), count=(2, 5), num_train=400, num_test=4)
    config.data.synthetic.showers.readout = "sqrt"
    config.input.patch_size = (48, 64, 64)
    config.input.flip_axes = (False, True, True)  # particles come from the front
    config.input.rotate_planes = ((1, 2),)
    change = config.input.augment
    for step in (change.affine, change.elastic, change.gamma, change.contrast, change.brightness):
        step.probability = 0.0  # energies are in sizes and intensities
    config.model.anchors.sizes = (
        ((19.0, 10.0, 10.0), (48.0, 5.0, 5.0)),
        ((48.0, 10.0, 10.0), (40.0, 16.0, 16.0)),
        ((46.0, 24.0, 24.0), (46.0, 34.0, 34.0)),
    )
    config.train.steps = 4000
    return config
