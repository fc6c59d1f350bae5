"""Settings of what reads the pyramid: proposals, rois, heads, detections; see configs/schema.py."""

import dataclasses

from configs import checks

OBJECTNESS = ("sigmoid", "softmax")
ASSIGNMENTS = ("iou", "atss")
SAMPLINGS = ("balanced", "hard_negative")
CLASS_LOSSES = ("cross_entropy", "focal")
BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
MASK_LOSSES = ("cross_entropy", "focal", "dice")
BOXES = ("head", "masks")
SUPPRESSIONS = ("nms", "soft_linear", "soft_gaussian")
SCALES = ("log", "linear")
ATTRIBUTE_LOSSES = ("smooth_l1", "linex")
SUMS = ("none", "linear", "sinh")


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
    # Whether it reads the volume itself and the features of the segmentation, if there is one, beside the pyramid, as
    # the heads of Hybrid Task Cascade do: for borders that the finest level does not show.
    reads_voxels: bool = False
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
    # The same of answers, whose masks a network of convolutions alone can show finer than it learnt them; (): roi_size.
    answer_roi_size: tuple = ()
    # Voxels by which a mask reaches beyond its box on every side, so that it shows what the box has missed; for answers
    # whose box is by their mask (detections.boxes).
    margin: tuple = (0, 0, 0)
    channels: int = 32
    num_convs: int = 2
    # Of a convolution over what the head has made, the volume itself and the features of the segmentation if there is
    # one, all at the masks' resolution, as RefineMask (Zhang et al. 2021) has it of fine features; 0: none. For objects
    # whose outline is finer than the finest level.
    fine_channels: int = 0
    class_agnostic: bool = False  # one mask for all classes
    losses: tuple = ("cross_entropy", "dice")  # some of cross_entropy, focal, dice: losses mask, mask_focal, mask_dice
    focal_alpha: float = 0.5  # of losses focal: weight of the voxels of an object, the others have the rest of 1
    focal_gamma: float = 2.0  # how little a voxel counts that is right already

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        checks.triple("model.mask_head.roi_size", self.roi_size)
        if self.answer_roi_size:
            checks.triple("model.mask_head.answer_roi_size", self.answer_roi_size)
        checks.triple("model.mask_head.margin", self.margin, least=0)
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
class Segmentation:
    """Features and class of every voxel.

    Masks with `mask_head.fine_channels` and boxes with `box_head.reads_voxels` read them beside the volume itself.
    Costs a convolution or two at the volume's own resolution; teaches the network what rois alone do not, where there
    are few volumes or what an object is shows voxel by voxel.
    """

    channels: int = 0  # of the features; 0: none

    def validate(self):
        """Raises ValueError for a number of channels below 0."""
        checks.require(self.channels >= 0, "model.segmentation.channels", ">= 0", self.channels)


@dataclasses.dataclass(slots=True)
class AttributeHead:
    """Measured numbers of a roi (`data.attributes`, an energy, say): dense layers over what the box head reads."""

    hidden: int = 128
    num_dense: int = 1
    scale: str = "log"  # learnt as log(1 + value), below 0 as -log(1 - value); or linear: as they are
    # Or linex, for scale log alone: the mean of (1 + learnt) / (1 + true) becomes 1; smooth_l1 learns a median.
    loss: str = "smooth_l1"
    beta: float = 0.1  # where smooth L1 turns from quadratic to linear, in the learnt scale
    # The head also reads the logarithm of a sum over the object of every channel, by the mask that is found. linear: of
    # intensities; sinh: of their sinh, where an asinh was stored; both as before an input.normalization that is the
    # same for all volumes. On the scale log it adds a factor times the sum, which is what an energy is.
    sums: str = "none"
    # The head also reads which share of its sum an object left in every layer along z, as a calorimeter needs whose
    # layers differ. They are counted from the front of the patch, which therefore has to hold the whole depth, and
    # which affine and elastic augmentation would move.
    sums_by_layer: bool = False

    def validate(self):
        """Raises ValueError where sizes or names make no sense."""
        checks.choice("model.attribute_head.scale", self.scale, SCALES)
        checks.choice("model.attribute_head.loss", self.loss, ATTRIBUTE_LOSSES)
        checks.choice("model.attribute_head.sums", self.sums, SUMS)
        expected = "False with model.attribute_head.sums none"
        name = "model.attribute_head.sums_by_layer"
        checks.require(self.sums != "none" or not self.sums_by_layer, name, expected, self.sums_by_layer)
        expected = "smooth_l1 with model.attribute_head.scale linear"
        checks.require(self.loss != "linex" or self.scale == "log", "model.attribute_head.loss", expected, self.loss)
        checks.require(self.hidden >= 1, "model.attribute_head.hidden", ">= 1", self.hidden)
        checks.require(self.num_dense >= 0, "model.attribute_head.num_dense", ">= 0", self.num_dense)
        checks.require(self.beta > 0, "model.attribute_head.beta", "> 0", self.beta)

    def without_effect(self):
        """One line if beta was changed for a loss that has none."""
        if self.loss == "smooth_l1" or self.beta == AttributeHead().beta:
            return []
        return [f"model.attribute_head.beta {self.beta} has no effect with loss {self.loss}"]


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
    boxes: str = "head"  # or masks: the box of the head, cut down to what its mask shows

    def validate(self):
        """Raises ValueError where thresholds, counts or names make no sense."""
        checks.choice("model.detections.suppression", self.suppression, SUPPRESSIONS)
        checks.choice("model.detections.boxes", self.boxes, BOXES)
        for name in ("score_threshold", "nms_iou", "mask_threshold"):
            checks.share(f"model.detections.{name}", getattr(self, name))
        checks.require(self.soft_sigma > 0, "model.detections.soft_sigma", "> 0", self.soft_sigma)
        checks.require(self.max_detections >= 1, "model.detections.max_detections", ">= 1", self.max_detections)
