"""MONAI's 3D RetinaNet with a ResNet-50 and a pyramid, to train beside ours: the peer that there is in 3D."""

import collections

import numpy as np
import torch
from monai.apps.detection.networks import retinanet_detector
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from monai.networks.nets import resnet


class ResNetFPN(torch.nn.Module):
    """Levels 2 to 5 of MONAI's ResNet-50 and one pooled from them, through MONAI's pyramid of 256 channels.

    MONAI's own way to join the two, `resnet_fpn_feature_extractor`, does the same by way of torchvision, which is not
    otherwise needed.
    """

    out_channels = 256

    def __init__(self):
        super().__init__()
        self.body = resnet.resnet50(
            pretrained=False, spatial_dims=3, n_input_channels=1, conv1_t_size=7, conv1_t_stride=2, feed_forward=False
        )
        self.fpn = FeaturePyramidNetwork(3, [256, 512, 1024, 2048], self.out_channels, LastLevelMaxPool(3))

    def forward(self, x):
        """[B, 1, Z, Y, X] -> {level: [B, 256, z, y, x]}."""
        body = self.body
        x = body.maxpool(body.act(body.bn1(body.conv1(x))))
        levels = collections.OrderedDict()
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = levels[name] = getattr(body, name)(x)
        return self.fpn(levels)


class Step:
    """One train step: forward, ATSS, hard negatives, losses, gradient, clipping, AdamW."""

    def __init__(self, batch, num_classes):
        """Makes network and optimizer.

        Args:
          batch: as data/pipeline makes it, of one volume of one channel.
          num_classes: K.
        """
        # The detector asks whether the matcher is torchvision's; without torchvision the question itself would fail.
        retinanet_detector.Matcher = type("Matcher", (), {})
        anchors = AnchorGeneratorWithAnchorShape(
            feature_map_scales=[1, 2, 4, 8, 16], base_anchor_shapes=[(8,) * 3, (10,) * 3, (13,) * 3]
        )
        network = RetinaNet(3, num_classes, num_anchors=3, feature_extractor=ResNetFPN(), size_divisible=32)
        self.detector = retinanet_detector.RetinaNetDetector(network, anchors)
        self.detector.set_atss_matcher(num_candidates=4)
        self.detector.set_hard_negative_sampler(
            batch_size_per_image=128, positive_fraction=0.5, min_neg=16, pool_size=20
        )
        # Channels last takes a fraction of the time on a CPU.
        self.detector = self.detector.train().to(memory_format=torch.channels_last_3d)
        self.optimizer = torch.optim.AdamW(self.detector.parameters(), lr=1e-4, weight_decay=1e-4)
        valid = batch["valid"][0]
        self.volume = torch.tensor(np.moveaxis(batch["volume"], -1, 1)).to(memory_format=torch.channels_last_3d)
        boxes, labels = batch["boxes"][0][valid], batch["class_ids"][0][valid] - 1
        self.targets = [{"boxes": torch.tensor(boxes), "labels": torch.tensor(labels, dtype=torch.int64)}]

    def gradient(self):
        """Forward, losses, gradient."""
        self.optimizer.zero_grad()
        sum(self.detector(self.volume, self.targets).values()).backward()

    def train(self):
        """One step."""
        self.gradient()
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), 20.0)
        self.optimizer.step()

    def flops(self):
        """Floating-point operations of `gradient`, as torch counts them: convolutions and matrix products."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.gradient()
        return counter.get_total_flops()
