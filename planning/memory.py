"""What one training step takes, counted from the settings of the network: no network is built.

Kept for the gradient are, of every convolution with normalisation, its own output and that of its activation; of a
strided one also its padded input; of every level of the pyramid the sums and what their convolutions make of them; of
the heads the same for every roi. The factors below were fitted to the peaks of nine networks and patches in float32 on
a CPU (200 to 1,406 MB), which they meet within a fifth; see tests/planning/memory_test.py.
"""

import dataclasses
import math

FLOAT = 4  # bytes
RESIDENT = 3  # per variable, between steps: itself and two moments of AdamW
WITHIN = 2  # per variable, within a step: its gradient, and that clipped
KEPT = 1.7  # what is kept for the gradient, and gradients and copies on their way
WORKING = 2  # further copies of the largest output of a layer
FIXED = 80e6  # bytes: tables of anchors and truths, pools of threads


@dataclasses.dataclass
class Count:
    """Numbers (not bytes) of one volume, summed up layer by layer."""

    kept: int = 0
    largest: int = 0
    parameters: int = 0

    def conv(self, cells, channels_in, channels, kernel=(1, 1, 1), groups=1, *, copies=1, padded=0):
        """Adds a convolution: `copies` of its output are kept, and `padded` voxels of its input.

        Returns:
          channels, those of its output.
        """
        self.parameters += math.prod(kernel) * channels_in * channels // groups
        self.kept += copies * cells * channels + padded * channels_in
        self.largest = max(self.largest, cells * channels)
        return channels


def step_bytes(config, patch, num_classes, batch):
    """Bytes that training takes at its peak on one device, beside the program itself.

    Args:
      config: the `model` section of a Config.
      patch: (Z, Y, X).
      num_classes: K.
      batch: volumes per step and device.

    Returns:
      resident: float, bytes of weights and optimizer, between steps too.
      within: float, bytes that a step takes beside them.
    """
    count = count_network(config, patch, num_classes)
    numbers = WITHIN * count.parameters + batch * (KEPT * count.kept + WORKING * count.largest)
    return FLOAT * RESIDENT * count.parameters, FLOAT * numbers + FIXED


def count_network(config, patch, num_classes, channels=1):
    """The Count of a whole network in training, on one volume of `channels`."""
    count = Count()
    add_backbone = _plain if config.backbone.kind == "plain" else _resnet
    widths = add_backbone(count, config.backbone, patch, channels)
    _pyramid(count, config, patch, widths)
    _segmentation(count, config, patch, widths, num_classes, channels)
    _heads(count, config, num_classes, channels)
    return count


def cells(patch, stride):
    """Number of voxels of a level: each axis rounded up."""
    return math.prod(-(-p // s) for p, s in zip(patch, stride, strict=True))


def _resnet(count, backbone, patch, channels):
    """Adds stem and stages; {level: channels}."""
    strides = backbone.strides()
    padded = cells(patch, (1, 1, 1)) if max(backbone.stem_stride) > 1 else 0
    width = count.conv(
        cells(patch, strides[1]), channels, backbone.stem_channels, backbone.stem_kernel, copies=2, padded=padded
    )
    widths = {1: width}
    size = cells(patch, strides[1])
    if max(backbone.stem_pool) > 1:
        count.kept += 2 * size * width  # padded, and its maxima
        size = cells(patch, tuple(a * b for a, b in zip(strides[1], backbone.stem_pool, strict=True)))
    stages = zip(backbone.stage_channels, backbone.stage_blocks, backbone.stage_kernels, strict=True)
    for level, (filters, blocks, kernel) in enumerate(stages, start=2):
        for _ in range(blocks):
            before, size = size, cells(patch, strides[level])
            width = _block(count, backbone, before, size, width, filters, kernel)
        widths[level] = width
    return widths


def _block(count, backbone, before, size, width, filters, kernel):
    """Adds a residual block that makes `size` voxels of `before`; its channels."""
    strided = before if before != size else 0
    if strided or width != filters:
        count.conv(size, width, filters)  # the projection
    if backbone.block == "basic":
        count.conv(size, width, filters, kernel, copies=2, padded=strided)
        return count.conv(size, filters, filters, kernel, copies=2)  # its output, and the activation of the sum
    inside = filters // backbone.bottleneck_ratio
    count.conv(before, width, inside, copies=2)
    count.conv(size, inside, inside, kernel, backbone.cardinality, copies=2, padded=strided)
    return count.conv(size, inside, filters, copies=2)


def _plain(count, backbone, patch, channels):
    """Adds stages of pooling and convolutions; {level: channels}."""
    widths, width = {}, channels
    stages = zip(backbone.stage_channels, backbone.stage_blocks, backbone.stage_kernels, strict=True)
    for level, (filters, blocks, kernel) in enumerate(stages, start=1):
        size = cells(patch, backbone.strides()[level])
        count.kept += size * width  # what pooling makes
        for _ in range(blocks):
            width = count.conv(size, width, filters, kernel, copies=2)
        widths[level] = width
    return widths


def _pyramid(count, config, patch, widths):
    """Adds lateral and smoothing convolutions of every level and the proposal head on it."""
    width, shapes = config.fpn.channels, len(config.anchors.sizes[0]) * len(config.anchors.aspects)
    for number, stride in enumerate(config.strides()):
        size = cells(patch, stride)
        if number < len(config.fpn.levels):
            count.conv(size, widths[config.fpn.levels[number]], width)
            count.conv(size, width, width, (3, 3, 3), copies=3 if config.fpn.bottom_up else 1)
        count.conv(size, width, config.rpn.channels, (3, 3, 3))
        count.conv(size, config.rpn.channels, 7 * shapes, copies=3)  # with boxes and targets of every anchor


def _segmentation(count, config, patch, widths, num_classes, channels):
    """Adds what goes from the finest level of the pyramid down to the voxels."""
    width = config.segmentation.channels
    if not width:
        return
    levels, strides = config.finer_grids()
    above, sources = config.fpn.channels, [*(widths[level] for level in levels), channels]
    for coarse, fine, source in zip(strides, strides[1:], sources, strict=False):
        size = cells(patch, fine)
        count.conv(cells(patch, coarse), above, width)
        count.conv(size, source, width, config.style.kernel, copies=2)  # and what comes from above, made larger
        above = count.conv(size, width, width, config.style.kernel, copies=2)
    count.conv(size, width, num_classes, copies=4)  # logits, probabilities, targets, losses


def _heads(count, config, num_classes, channels):
    """Adds the heads over the rois that train."""
    width, rois = config.fpn.channels, config.rois
    box, mask, landmarks = config.box_head, config.mask_head, config.keypoint_head
    voxels = channels + config.segmentation.channels
    for _ in range(max(len(box.cascade_ious), 1)):
        size = rois.num_samples * math.prod(box.roi_size)
        features = width + voxels * box.reads_voxels
        count.kept += size * features
        for _ in range(box.num_convs):
            features = count.conv(size, features, box.channels, (3, 3, 3), copies=2)
        if box.num_dense:
            count.parameters += math.prod(box.roi_size) * features * box.hidden
    positives = math.ceil(rois.num_samples * rois.positive_fraction)
    outputs = {"mask": (mask, 1 if mask.class_agnostic else num_classes)}
    if landmarks.enabled:
        outputs["landmarks"] = (landmarks, 7)
    for head, maps in outputs.values():
        size = positives * math.prod(head.roi_size)
        count.kept += size * width
        features = width
        for _ in range(head.num_convs):
            features = count.conv(size, features, head.channels, (3, 3, 3), copies=2)
        features = count.conv(8 * size, features, head.channels, copies=2)  # twice the resolution
        if head is mask and mask.fine_channels:
            features = count.conv(8 * size, features + voxels, mask.fine_channels, (3, 3, 3), copies=2)
        count.conv(8 * size, features, maps, copies=4)  # logits, probabilities, targets, losses
