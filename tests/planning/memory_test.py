import functools
import math

import pytest

from benchmarks import network as networks
from configs import shapes_small
from planning import memory
from tests import tiny


def of_64_rois(*aspects):
    """A small network of anchors of these aspects whose heads see 64 rois of a volume."""
    config = shapes_small.get_config()
    config.model.rois.num_samples, config.model.anchors.aspects = 64, aspects
    return config


# Peaks in MB of a train step of one volume, beyond weights and optimizer, as benchmarks/network.py measures them.
MEASURED = [
    (shapes_small.get_config, (64, 64, 64), 200),
    (shapes_small.get_config, (64, 64, 64), 231),
    (shapes_small.get_config, (96, 96, 96), 264),
    (shapes_small.get_config, (128, 128, 128), 424),
    (networks.anisotropic, (32, 160, 160), 904),
    (networks.anisotropic, (16, 96, 96), 403),
    (networks.resnet, (96, 96, 96), 1460),
    (networks.resnet, (64, 64, 64), 1045),
    (functools.partial(of_64_rois, (1.0, 1.0, 1.0), (1.0, 2.0, 2.0)), (32, 96, 96), 232),
    (functools.partial(of_64_rois, (1.0, 1.0, 1.0)), (80, 112, 80), 304),
]


class StepBytesTest:
    @pytest.mark.parametrize(("make", "patch", "megabytes"), MEASURED)
    def test_is_near_what_was_measured(self, make, patch, megabytes):
        _, within = memory.step_bytes(make().model, patch, 3, 1)
        assert 1 / 1.25 < within / 1e6 / megabytes < 1.25

    def test_grows_with_patch_and_batch_while_weights_stay(self):
        model = shapes_small.get_config().model
        rows = [
            memory.step_bytes(model, patch, 3, batch) for patch in ((32, 48, 64), (48, 64, 96)) for batch in (1, 2, 4)
        ]
        assert len({resident for resident, _ in rows}) == 1
        steps = [within for _, within in rows]
        assert steps[:3] == sorted(steps[:3])
        assert all(large > small for small, large in zip(steps[:3], steps[3:], strict=True))


class CountNetworkTest:
    @pytest.mark.parametrize(
        ("fine_channels", "channels", "reads_voxels"), [(0, 0, False), (24, 0, False), (24, 12, False), (0, 40, True)]
    )
    def test_parameters_are_those_of_the_network(self, fine_channels, channels, reads_voxels):
        config = tiny.config()
        config.model.mask_head.fine_channels, config.model.segmentation.channels = fine_channels, channels
        config.model.box_head.reads_voxels = reads_voxels
        counted = memory.count_network(config.model, config.input.patch_size, 2).parameters
        kernels = sum(math.prod(v.shape) for v in tiny.model(config).trainable_variables if len(v.shape) > 1)
        assert counted == pytest.approx(kernels, rel=0.15)  # the last layers of the box head are left out

    def test_one_convolution_by_hand(self):
        count = memory.Count()
        assert count.conv(10, 3, 8, (1, 3, 3), copies=2, padded=40) == 8
        assert (count.kept, count.largest, count.parameters) == (2 * 80 + 120, 80, 9 * 24)

    def test_cells_are_rounded_up(self):
        assert memory.cells((9, 16, 24), (4, 8, 5)) == 3 * 2 * 5
