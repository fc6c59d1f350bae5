"""Settings of the network; see configs/schema.py."""

import dataclasses
import math

from configs import checks

NORMS = ("group", "batch", "sync_batch", "frozen_batch", "instance", "none")
ACTIVATIONS = ("relu", "leaky_relu", "prelu")
INITIALIZERS = ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform")
BACKBONES = ("resnet", "plain")
BLOCKS = ("basic", "bottleneck")
EXTRA_LEVELS = ("none", "pool", "conv")
UPSAMPLINGS = ("nearest", "trilinear")
OBJECTNESS = ("sigmoid", "softmax")
ASSIGNMENTS = ("iou", "atss")
SAMPLINGS = ("balanced", "hard_negative")
CLASS_LOSSES = ("cross_entropy", "focal")
BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
MASK_LOSSES = ("cross_entropy", "focal", "dice")
SUPPRESSIONS = ("nms", "soft_linear", "soft_gaussian")
SCALES = ("log", "linear")
ATTRIBUTE_LOSSES = ("smooth_l1", "linex")


@dataclasses.dataclass(slots=True)
class Style:
    """What all layers of the network share."""

    # batch: every replica its own statistics. In the heads rois that are mere padding enter them, with batch and
    # sync_batch; group knows no such thing. frozen_batch: those that were loaded, in the backbone alone; the heads have
    # biases and no normalisation.
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
class RPN:
    """Region proposal network, its targets and its proposals."""

    channels: int = 32
    objectness: str = "sigmoid"  # or softmax over (background, object)
    class_loss: str = "cross_entropy"
    focal_alpha: float = 0.25  # of class_loss focal: weight of objects, background has the rest of 1
    focal_gamma: float = 2.0  # how little an anchor counts that is right already
    focal_prior: float = 0.01  # score of every anchor when training begins
    box_loss: str = "smooth_l1"
    beta: float = 1.0 / 9.0  # where smooth L1 turns from quadratic to linear, in deltas
    assignment: str = "iou"
    positive_iou: float = 0.4  # of assignment iou
    negative_iou: float = 0.2
    atss_candidates: int = 9  # of assignment atss: nearest anchors of each level
    cross_boundary: bool = True  # whether anchors that reach beyond the patch take part in training
    sampling: str = "balanced"
    hard_negative_pool: int = 20  # of sampling hard_negative: drawn from so many times as many of the best-scored
    num_samples: int = 128  # anchors per volume in the loss; 0: all that are labelled, as focal loss wants it
    positive_fraction: float = 0.5
    pre_nms_top_k: int = 512  # per level
    post_nms_top_k: int = 128  # P
    train_pre_nms_top_k: int = 512  # the same in training
    train_post_nms_top_k: int = 128
    nms_iou: float = 0.6
    min_size: float = 1.0  # voxels; proposals with a shorter edge are removed

    def validate(self):
        """Raises ValueError where thresholds, counts or names make no sense."""
        checks.choice("model.rpn.objectness", self.objectness, OBJECTNESS)
        checks.choice("model.rpn.class_loss", self.class_loss, CLASS_LOSSES)
        checks.choice("model.rpn.box_loss", self.box_loss, BOX_LOSSES)
        checks.choice("model.rpn.assignment", self.assignment, ASSIGNMENTS)
        checks.choice("model.rpn.sampling", self.sampling, SAMPLINGS)
        for name in ("positive_iou", "negative_iou", "positive_fraction", "nms_iou", "focal_alpha"):
            checks.share(f"model.rpn.{name}", getattr(self, name))
        checks.require(self.focal_gamma >= 0, "model.rpn.focal_gamma", ">= 0", self.focal_gamma)
        checks.require(0 < self.focal_prior < 1, "model.rpn.focal_prior", "a number in (0, 1)", self.focal_prior)
        checks.require(self.beta > 0, "model.rpn.beta", "> 0", self.beta)
        checks.require(
            self.negative_iou <= self.positive_iou,
            "model.rpn.negative_iou",
            f"<= positive_iou {self.positive_iou}",
            self.negative_iou,
        )
        checks.require(self.num_samples >= 0, "model.rpn.num_samples", ">= 0", self.num_samples)
        counts = ("channels", "atss_candidates", "hard_negative_pool", "pre_nms_top_k")
        for name in (*counts, "post_nms_top_k", "train_pre_nms_top_k", "train_post_nms_top_k"):
            checks.require(getattr(self, name) >= 1, f"model.rpn.{name}", ">= 1", getattr(self, name))
        checks.require(self.min_size >= 0, "model.rpn.min_size", ">= 0", self.min_size)


@dataclasses.dataclass(slots=True)
class Rois:
    """Proposals that train the heads, and how they read the pyramid."""

    num_samples: int = 32  # R, rois per volume
    positive_fraction: float = 0.5
    positive_iou: float = 0.4  # without effect beside box_head.cascade_ious, the first of which takes its place
    negative_iou: float = 0.3  # below: background; between the two: left out, as neither answer would be wrong
    add_truths: bool = True  # the truths are proposals too, in training
    sampling_ratio: int = 2  # samples per bin and axis
    canonical_size: tuple = (20.0, 20.0, 20.0)  # voxels: a roi of this size reads the finest level

    def validate(self):
        """Raises ValueError where shares or sizes make no sense."""
        checks.require(self.num_samples >= 1, "model.rois.num_samples", ">= 1", self.num_samples)
        for name in ("positive_fraction", "positive_iou", "negative_iou"):
            checks.share(f"model.rois.{name}", getattr(self, name))
        checks.require(
            self.negative_iou <= self.positive_iou,
            "model.rois.negative_iou",
            f"<= positive_iou {self.positive_iou}",
            self.negative_iou,
        )
        checks.require(self.sampling_ratio >= 1, "model.rois.sampling_ratio", ">= 1", self.sampling_ratio)
        checks.positive_triple("model.rois.canonical_size", self.canonical_size)


@dataclasses.dataclass(slots=True)
class BoxHead:
    """Class and box of a roi: convolutions, then dense layers (0 convolutions and 2 dense: that of the paper)."""

    roi_size: tuple = (7, 7, 7)
    num_convs: int = 2
    channels: int = 32
    num_dense: int = 1
    hidden: int = 128
    dropout: float = 0.0  # after every dense layer
    class_agnostic: bool = False  # one box for all classes
    class_loss: str = "cross_entropy"
    class_weights: tuple = ()  # of background and each class in the class loss; empty: by class_balance
    class_balance: float = 0.0  # weights from the records, frequency ** -balance: 1 gives classes equal shares
    focal_gamma: float = 2.0  # of class_loss focal; class_weights are its alpha
    box_loss: str = "smooth_l1"
    beta: float = 1.0  # where smooth L1 turns from quadratic to linear, in deltas times delta_weights
    delta_weights: tuple = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)  # scales deltas to about unit variance
    cascade_ious: tuple = ()  # positive IoU of each stage of a cascade, (0.5, 0.6, 0.7) in the paper; empty: one stage

    def validate(self, num_classes):
        """Raises ValueError where sizes, names or counts make no sense."""
        checks.triple("model.box_head.roi_size", self.roi_size)
        checks.positive_triple("model.box_head.delta_weights (centre)", self.delta_weights[:3])
        checks.positive_triple("model.box_head.delta_weights (size)", self.delta_weights[3:])
        checks.choice("model.box_head.class_loss", self.class_loss, CLASS_LOSSES)
        checks.choice("model.box_head.box_loss", self.box_loss, BOX_LOSSES)
        checks.require(self.focal_gamma >= 0, "model.box_head.focal_gamma", ">= 0", self.focal_gamma)
        checks.require(self.beta > 0, "model.box_head.beta", "> 0", self.beta)
        for name in ("channels", "hidden"):
            checks.require(getattr(self, name) >= 1, f"model.box_head.{name}", ">= 1", getattr(self, name))
        for name in ("num_convs", "num_dense"):
            checks.require(getattr(self, name) >= 0, f"model.box_head.{name}", ">= 0", getattr(self, name))
        checks.require(0 <= self.dropout < 1, "model.box_head.dropout", "a number in [0, 1)", self.dropout)
        checks.share("model.box_head.class_balance", self.class_balance)
        checks.require(
            len(self.class_weights) in (0, num_classes + 1)
            and all(isinstance(w, int | float) and w >= 0 for w in self.class_weights),
            "model.box_head.class_weights",
            f"none or {num_classes + 1} numbers >= 0, background first",
            self.class_weights,
        )
        checks.require(
            all(isinstance(iou, int | float) and 0 < iou < 1 for iou in self.cascade_ious)
            and list(self.cascade_ious) == sorted(self.cascade_ious),
            "model.box_head.cascade_ious",
            "rising numbers between 0 and 1",
            self.cascade_ious,
        )


@dataclasses.dataclass(slots=True)
class MaskHead:
    """Mask of a roi: convolutions, then one transposed convolution that doubles the resolution."""

    roi_size: tuple = (8, 8, 8)  # masks have twice this
    channels: int = 32
    num_convs: int = 2
    # Of a convolution over what the head has made and the volume itself, both at the masks' resolution, as RefineMask
    # (Zhang et al. 2021) has it of fine features; 0: none. For objects whose outline is finer than the finest level.
    fine_channels: int = 0
    class_agnostic: bool = False  # one mask for all classes
    losses: tuple = ("cross_entropy", "dice")  # some of cross_entropy, focal, dice: losses mask, mask_focal, mask_dice
    focal_alpha: float = 0.5  # of losses focal: weight of the voxels of an object, the others have the rest of 1
    focal_gamma: float = 2.0  # how little a voxel counts that is right already

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        checks.triple("model.mask_head.roi_size", self.roi_size)
        checks.require(self.channels >= 1, "model.mask_head.channels", ">= 1", self.channels)
        for name in ("num_convs", "fine_channels"):
            checks.require(getattr(self, name) >= 0, f"model.mask_head.{name}", ">= 0", getattr(self, name))
        checks.require(
            len(self.losses) > 0 and all(self.losses.count(loss) == 1 and loss in MASK_LOSSES for loss in self.losses),
            "model.mask_head.losses",
            "one or more of " + ", ".join(MASK_LOSSES) + ", each once",
            self.losses,
        )
        checks.share("model.mask_head.focal_alpha", self.focal_alpha)
        checks.require(self.focal_gamma >= 0, "model.mask_head.focal_gamma", ">= 0", self.focal_gamma)


@dataclasses.dataclass(slots=True)
class AttributeHead:
    """Measured numbers of a roi (`data.attributes`, an energy, say): dense layers over what the box head reads."""

    hidden: int = 128
    num_dense: int = 1
    scale: str = "log"  # learnt as log(1 + value), below 0 as -log(1 - value); or linear: as they are
    # Or linex, for scale log alone: the mean of (1 + learnt) / (1 + true) becomes 1; smooth_l1 learns a median.
    loss: str = "smooth_l1"
    beta: float = 0.1  # where smooth L1 turns from quadratic to linear, in the learnt scale

    def validate(self):
        """Raises ValueError where sizes or names make no sense."""
        checks.choice("model.attribute_head.scale", self.scale, SCALES)
        checks.choice("model.attribute_head.loss", self.loss, ATTRIBUTE_LOSSES)
        expected = "smooth_l1 with model.attribute_head.scale linear"
        checks.require(self.loss != "linex" or self.scale == "log", "model.attribute_head.loss", expected, self.loss)
        checks.require(self.hidden >= 1, "model.attribute_head.hidden", ">= 1", self.hidden)
        checks.require(self.num_dense >= 0, "model.attribute_head.num_dense", ">= 0", self.num_dense)
        checks.require(self.beta > 0, "model.attribute_head.beta", "> 0", self.beta)


@dataclasses.dataclass(slots=True)
class KeypointHead:
    """Landmarks of a roi as heat maps: `data.keypoints`, or else, from the masks, centroid and extremal points."""

    enabled: bool = False
    roi_size: tuple = (8, 8, 8)  # heat maps have twice this
    channels: int = 32
    num_convs: int = 2

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        checks.triple("model.keypoint_head.roi_size", self.roi_size)
        checks.require(self.channels >= 1, "model.keypoint_head.channels", ">= 1", self.channels)
        checks.require(self.num_convs >= 0, "model.keypoint_head.num_convs", ">= 0", self.num_convs)


@dataclasses.dataclass(slots=True)
class Detections:
    """From head outputs to answers."""

    score_threshold: float = 0.05
    suppression: str = "nms"  # or soft_linear, soft_gaussian: overlapping boxes lose score instead (soft-NMS)
    nms_iou: float = 0.3
    soft_sigma: float = 0.5  # of suppression soft_gaussian
    max_detections: int = 32  # D, per patch
    mask_threshold: float = 0.5

    def validate(self):
        """Raises ValueError where thresholds, counts or names make no sense."""
        checks.choice("model.detections.suppression", self.suppression, SUPPRESSIONS)
        for name in ("score_threshold", "nms_iou", "mask_threshold"):
            checks.share(f"model.detections.{name}", getattr(self, name))
        checks.require(self.soft_sigma > 0, "model.detections.soft_sigma", "> 0", self.soft_sigma)
        checks.require(self.max_detections >= 1, "model.detections.max_detections", ">= 1", self.max_detections)


@dataclasses.dataclass(slots=True)
class Model:
    """3D Mask R-CNN."""

    style: Style = dataclasses.field(default_factory=Style)
    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    fpn: FPN = dataclasses.field(default_factory=FPN)
    anchors: Anchors = dataclasses.field(default_factory=Anchors)
    rpn: RPN = dataclasses.field(default_factory=RPN)
    rois: Rois = dataclasses.field(default_factory=Rois)
    box_head: BoxHead = dataclasses.field(default_factory=BoxHead)
    mask_head: MaskHead = dataclasses.field(default_factory=MaskHead)
    attribute_head: AttributeHead = dataclasses.field(default_factory=AttributeHead)
    keypoint_head: KeypointHead = dataclasses.field(default_factory=KeypointHead)
    detections: Detections = dataclasses.field(default_factory=Detections)

    def validate(self, num_classes):
        """Validates every part."""
        self.backbone.validate()
        self.fpn.validate(self.backbone.strides())
        widths = [("backbone.stem_channels", self.backbone.stem_channels)] if self.backbone.kind == "resnet" else []
        widths += [("backbone.stage_channels", channels) for channels in self.backbone.stage_channels]
        if self.backbone.kind == "resnet" and self.backbone.block == "bottleneck":
            inner = [channels // self.backbone.bottleneck_ratio for channels in self.backbone.stage_channels]
            widths += [("backbone.stage_channels / bottleneck_ratio", channels) for channels in inner]
        for head in ("box_head", "mask_head") + ("keypoint_head",) * self.keypoint_head.enabled:
            widths.append((f"{head}.channels", getattr(self, head).channels))
        self.style.validate(widths)
        self.anchors.validate(len(self.strides()))
        self.box_head.validate(num_classes)
        for part in (self.rpn, self.rois, self.mask_head, self.attribute_head, self.keypoint_head, self.detections):
            part.validate()

    def validate_patch(self, patch_size):
        """Raises ValueError where the anchors that take part in training would be none."""
        checks.require(
            self.rpn.cross_boundary or self.anchors.fit(self.strides(), patch_size),
            "model.rpn.cross_boundary",
            f"True, as no anchor lies inside the patch {patch_size}",
            self.rpn.cross_boundary,
        )

    def without_effect(self):
        """One line for every setting of the backbone that was changed and does nothing in one of its kind."""
        kind, unused = "", ()
        if self.backbone.kind == "plain":
            kind = "kind plain"
            unused = ("stem_channels", "stem_kernel", "stem_stride", "stem_pool", "block", "bottleneck_ratio")
            unused += ("stride_in_pointwise", "stochastic_depth")
        elif self.backbone.block == "basic":
            kind, unused = "block basic", ("bottleneck_ratio", "stride_in_pointwise")
        return [
            f"model.backbone.{name} {getattr(self.backbone, name)} has no effect with {kind}"
            for name in unused
            if getattr(self.backbone, name) != getattr(Backbone(), name)
        ]

    def strides(self):
        """Stride of every level of the pyramid against the input, finest first, the extra one last: list of triples."""
        strides = [self.backbone.strides()[level] for level in self.fpn.levels]
        if self.fpn.extra != "none":
            strides.append(_product(strides[-1], self.fpn.extra_stride))
        return strides
