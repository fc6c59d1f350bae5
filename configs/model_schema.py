"""Settings of the network; see configs/schema.py."""

import dataclasses
import math

from configs import checks, heads_schema

NORMS = ("group", "batch", "sync_batch", "frozen_batch", "instance", "layer", "none")
ACTIVATIONS = ("relu", "leaky_relu", "prelu")
INITIALIZERS = ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform")
BACKBONES = ("resnet", "plain")
BLOCKS = ("basic", "bottleneck")
EXTRA_LEVELS = ("none", "pool", "conv")
UPSAMPLINGS = ("nearest", "trilinear")


@dataclasses.dataclass(slots=True)
class Style:
    """What all layers of the network share."""

    # batch: every replica its own statistics. In the heads rois that are mere padding enter them, with batch and
    # sync_batch; group knows no such thing. frozen_batch: those that were loaded, in the backbone alone; the heads have
    # biases and no normalisation. layer: over the channels of each voxel, so that the patch around it does not matter.
    norm: str = "group"
    norm_groups: int = 8  # of norm group
    activation: str = "relu"
    kernel: tuple = (3, 3, 3)  # of the pyramid's, the proposals' and the heads' convolutions; stages have their own
    initializer: str = "he_normal"  # of all kernels but those that give logits, deltas and attributes
    l2: float = 0.0  # times half the sum of squares of all kernels: the loss l2

    def validate(self, widths):
        """Raises ValueError where a name is unknown, or the groups do not divide the channels that are normalised."""
        checks.choice("model.style.norm", self.norm, NORMS)
        checks.choice("model.style.activation", self.activation, ACTIVATIONS)
        checks.choice("model.style.initializer", self.initializer, INITIALIZERS)
        checks.triple("model.style.kernel", self.kernel)
        checks.require(self.norm_groups >= 1, "model.style.norm_groups", ">= 1", self.norm_groups)
        checks.require(self.l2 >= 0, "model.style.l2", ">= 0", self.l2)
        if self.norm == "group":
            for name, channels in widths:
                checks.require(
                    channels % self.norm_groups == 0,
                    f"model.{name}",
                    f"a multiple of model.style.norm_groups {self.norm_groups}",
                    channels,
                )


@dataclasses.dataclass(slots=True)
class Backbone:
    """A pyramid of feature maps C1, C2, ...; configs/backbones.py has those of the papers.

    resnet: a stem (C1), then one stage per level C2, C3, ... plain: one stage per level C1, C2, ..., each a max-pooling
    by its stride and then convolutions; no stem.
    """

    kind: str = "resnet"
    stem_channels: int = 16
    stem_kernel: tuple = (5, 5, 5)
    stem_stride: tuple = (2, 2, 2)
    stem_pool: tuple = (1, 1, 1)  # stride of a 3x3x3 max-pooling between stem and first stage; all 1: none
    block: str = "basic"
    bottleneck_ratio: int = 4  # channels of a bottleneck block to those inside it
    cardinality: int = 1  # groups of the 3x3x3 convolution inside a bottleneck block (ResNeXt)
    stride_in_pointwise: bool = False  # a bottleneck's stride is in its first 1x1x1 convolution, not in the 3x3x3
    stage_channels: tuple = (32, 64, 128)  # that leave each stage
    stage_blocks: tuple = (1, 2, 2)  # plain: convolutions
    stage_kernels: tuple = ((3, 3, 3), (3, 3, 3), (3, 3, 3))
    stage_strides: tuple = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    width_multiplier: float = 1.0  # of stem and stages, rounded to what groups and cardinality need
    dropout: float = 0.0  # share of whole channels dropped after every stage, in training
    stochastic_depth: float = 0.0  # chance that the last residual block is skipped in training, rising from 0

    def validate(self):
        """Raises ValueError where stages do not fit together."""
        checks.choice("model.backbone.kind", self.kind, BACKBONES)
        checks.choice("model.backbone.block", self.block, BLOCKS)
        for name in ("stem_kernel", "stem_stride", "stem_pool"):
            checks.triple(f"model.backbone.{name}", getattr(self, name))
        stages = len(self.stage_channels)
        checks.require(stages >= 1, "model.backbone.stage_channels", "at least one stage", self.stage_channels)
        for name in ("stage_blocks", "stage_kernels", "stage_strides"):
            value = getattr(self, name)
            checks.require(len(value) == stages, f"model.backbone.{name}", f"{stages} entries, one per stage", value)
        for name in ("stage_channels", "stage_blocks"):
            checks.integers(f"model.backbone.{name}", getattr(self, name), 1)
        for name in ("stage_kernels", "stage_strides"):
            for value in getattr(self, name):
                checks.triple(f"model.backbone.{name}", value)
        for name in ("stem_channels", "bottleneck_ratio", "cardinality"):
            checks.require(getattr(self, name) >= 1, f"model.backbone.{name}", ">= 1", getattr(self, name))
        checks.require(self.width_multiplier > 0, "model.backbone.width_multiplier", "> 0", self.width_multiplier)
        for name in ("dropout", "stochastic_depth"):
            value = getattr(self, name)
            checks.require(0 <= value < 1, f"model.backbone.{name}", "a number in [0, 1)", value)
        if self.kind == "resnet" and self.block == "bottleneck":
            divisor = self.bottleneck_ratio * self.cardinality
            for channels in self.stage_channels:
                checks.require(
                    channels % divisor == 0,
                    "model.backbone.stage_channels",
                    f"multiples of bottleneck_ratio {self.bottleneck_ratio} x cardinality {self.cardinality}",
                    self.stage_channels,
                )
        else:
            checks.require(
                self.cardinality == 1, "model.backbone.cardinality", "1 without bottleneck blocks", self.cardinality
            )

    def strides(self):
        """Stride of every level against the input: {level: (z, y, x)}, finest first."""
        if self.kind == "plain":
            total, first, steps = (1, 1, 1), 1, self.stage_strides
            strides = {}
        else:
            total, first, steps = tuple(self.stem_stride), 2, list(self.stage_strides)
            strides = {1: total}
            steps[0] = _product(steps[0], self.stem_pool)
        for level, step in enumerate(steps, start=first):
            total = _product(total, step)
            strides[level] = total
        return strides

    def without_effect(self):
        """One line for every setting that was changed and does nothing in a backbone of this kind."""
        if self.kind == "plain":
            kind = "kind plain"
            unused = ("stem_channels", "stem_kernel", "stem_stride", "stem_pool", "block", "bottleneck_ratio")
            unused += ("stride_in_pointwise", "stochastic_depth")
        elif self.block == "basic":
            kind, unused = "block basic", ("bottleneck_ratio", "stride_in_pointwise")
        else:
            return []
        return [
            f"model.backbone.{name} {getattr(self, name)} has no effect with {kind}"
            for name in unused
            if getattr(self, name) != getattr(Backbone(), name)
        ]


def _product(a, b):
    return tuple(x * y for x, y in zip(a, b, strict=True))


@dataclasses.dataclass(slots=True)
class FPN:
    """Feature pyramid network: which levels of the backbone, and how they are joined."""

    channels: int = 32
    levels: tuple = (2, 3, 4)  # of the backbone, consecutive
    extra: str = "none"  # one more, coarser, for the proposals alone: pool or conv
    extra_stride: tuple = (2, 2, 2)  # by how much coarser
    upsampling: str = "nearest"
    bottom_up: bool = False  # a second path from the finest level to the coarsest (PANet)

    def validate(self, backbone_levels):
        """Raises ValueError where a level does not exist or a name is unknown."""
        checks.require(self.channels >= 1, "model.fpn.channels", ">= 1", self.channels)
        checks.require(
            len(self.levels) > 0
            and tuple(self.levels) == tuple(range(self.levels[0], self.levels[0] + len(self.levels)))
            and set(self.levels) <= set(backbone_levels),
            "model.fpn.levels",
            f"consecutive levels of the backbone's {tuple(backbone_levels)}",
            self.levels,
        )
        checks.choice("model.fpn.extra", self.extra, EXTRA_LEVELS)
        checks.triple("model.fpn.extra_stride", self.extra_stride)
        checks.choice("model.fpn.upsampling", self.upsampling, UPSAMPLINGS)


@dataclasses.dataclass(slots=True)
class Anchors:
    """Reference boxes: per level, every size times every aspect."""

    # Per level of the pyramid, the extra one included: edges in voxels, each a number or a triple.
    sizes: tuple = ((8.0, 12.0), (16.0, 22.0), (30.0, 40.0))
    aspects: tuple = ((1.0, 1.0, 1.0),)  # z, y, x; scaled to unit volume

    def validate(self, num_levels):
        """Raises ValueError unless there is one tuple of equally many sizes per level."""
        checks.require(
            len(self.sizes) == num_levels,
            "model.anchors.sizes",
            f"{num_levels} entries, one per level of the pyramid",
            self.sizes,
        )
        for sizes in self.sizes:
            checks.require(
                isinstance(sizes, tuple) and len(sizes) > 0,
                "model.anchors.sizes",
                "a non-empty tuple of sizes for every level",
                sizes,
            )
            checks.require(
                len(sizes) == len(self.sizes[0]),
                "model.anchors.sizes",
                f"{len(self.sizes[0])} sizes on every level, as on the first (the levels share one head)",
                sizes,
            )
            for size in sizes:
                triple = size if isinstance(size, tuple) else (size,) * 3
                checks.positive_triple("model.anchors.sizes", triple)
        checks.require(len(self.aspects) > 0, "model.anchors.aspects", "at least one aspect", self.aspects)
        for aspect in self.aspects:
            checks.positive_triple("model.anchors.aspects", aspect)

    def fit(self, strides, patch_size):
        """Whether any anchor of any level, of these strides, lies inside the patch."""
        return any(
            _fits(stride, size if isinstance(size, tuple) else (size,) * 3, aspect, patch_size)
            for stride, sizes in zip(strides, self.sizes, strict=True)
            for size in sizes
            for aspect in self.aspects
        )


def _fits(stride, size, aspect, patch_size):
    """Whether an anchor of this shape, around the cell that is nearest to the middle of the patch, lies inside."""
    scale = math.prod(aspect) ** (1 / 3)
    for step, edge, ratio, length in zip(stride, size, aspect, patch_size, strict=True):
        half, centre = edge * ratio / scale / 2, (length // (2 * step) + 0.5) * step
        others = centre, centre - step
        if not any(half <= middle <= length - half for middle in others):
            return False
    return True


@dataclasses.dataclass(slots=True)
class Model:
    """3D Mask R-CNN."""

    style: Style = dataclasses.field(default_factory=Style)
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    fpn: FPN = dataclasses.field(default_factory=FPN)
    anchors: Anchors = dataclasses.field(default_factory=Anchors)
    rpn: heads_schema.RPN = dataclasses.field(default_factory=heads_schema.RPN)
    rois: heads_schema.Rois = dataclasses.field(default_factory=heads_schema.Rois)
    box_head: heads_schema.BoxHead = dataclasses.field(default_factory=heads_schema.BoxHead)
    segmentation: heads_schema.Segmentation = dataclasses.field(default_factory=heads_schema.Segmentation)
    mask_head: heads_schema.MaskHead = dataclasses.field(default_factory=heads_schema.MaskHead)
    attribute_head: heads_schema.AttributeHead = dataclasses.field(default_factory=heads_schema.AttributeHead)
    keypoint_head: heads_schema.KeypointHead = dataclasses.field(default_factory=heads_schema.KeypointHead)
    detections: heads_schema.Detections = dataclasses.field(default_factory=heads_schema.Detections)

    def validate(self, num_classes):
        """Validates every part."""
        self.backbone.validate()
        self.fpn.validate(self.backbone.strides())
        widths = [("backbone.stem_channels", self.backbone.stem_channels)] if self.backbone.kind == "resnet" else []
        widths += [("backbone.stage_channels", channels) for channels in self.backbone.stage_channels]
        if self.backbone.kind == "resnet" and self.backbone.block == "bottleneck":
            inner = [channels // self.backbone.bottleneck_ratio for channels in self.backbone.stage_channels]
            widths += [("backbone.stage_channels / bottleneck_ratio", channels) for channels in inner]
        if self.segmentation.channels > 0:
            widths.append(("segmentation.channels", self.segmentation.channels))
        for head in ("box_head", "mask_head") + ("keypoint_head",) * self.keypoint_head.enabled:
            widths.append((f"{head}.channels", getattr(self, head).channels))
        self.style.validate(widths)
        self.anchors.validate(len(self.strides()))
        self.box_head.validate(num_classes)
        heads = (self.segmentation, self.mask_head, self.attribute_head, self.keypoint_head)
        for part in (self.rpn, self.rois, *heads, self.detections):
            part.validate()
        by_masks, margin = self.detections.boxes == "masks", self.mask_head.margin
        expected = "(0, 0, 0) without model.detections.boxes masks"
        checks.require(by_masks or not any(margin), "model.mask_head.margin", expected, margin)

    def validate_patch(self, patch_size):
        """Raises ValueError where the anchors that take part in training would be none."""
        checks.require(
            self.rpn.cross_boundary or self.anchors.fit(self.strides(), patch_size),
            "model.rpn.cross_boundary",
            f"True, as no anchor lies inside the patch {patch_size}",
            self.rpn.cross_boundary,
        )

    def without_effect(self):
        """One line for every setting that was changed and does nothing beside another."""
        return self.backbone.without_effect() + self.attribute_head.without_effect()

    def finer_grids(self):
        """The grids between the finest level of the pyramid and the volume, for the segmentation.

        Returns:
          levels: those of the backbone that are finer, coarsest first.
          strides: (z, y, x) of the pyramid's finest level, of these levels, and (1, 1, 1) of the volume unless the last
            of them has it.
        """
        of_level, finest = self.backbone.strides(), self.fpn.levels[0]
        levels = [level for level in reversed(of_level) if level < finest]
        strides = [tuple(of_level[level]) for level in (finest, *levels)]
        if not levels or strides[-1] != (1, 1, 1):
            strides.append((1, 1, 1))
        return levels, strides

    def strides(self):
        """Stride of every level of the pyramid against the input, finest first, the extra one last: list of triples."""
        strides = [self.backbone.strides()[level] for level in self.fpn.levels]
        if self.fpn.extra != "none":
            strides.append(_product(strides[-1], self.fpn.extra_stride))
        return strides
