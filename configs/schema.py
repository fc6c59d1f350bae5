"""Every setting of the system: its type, default, unit and the checks it must pass.

A config file builds a `Config` in `get_config()`; `--config.model.rpn.nms_iou=0.5` overrides one field. The
dataclasses are slotted, so a misspelt field is an error in both places. Triples are (z, y, x); lengths are voxels
unless they say mm.
"""

import dataclasses
import json

SPLITS = ("train", "val", "test")
LABELS = ("instances", "semantic")
NORMALIZATIONS = ("zscore", "minmax", "none")
NORMS = ("group", "batch", "none")
METRIC_ROWS = ("pooled", "mean")  # the metrics list these beside the classes


@dataclasses.dataclass(slots=True)
class Synthetic:
    """What `synthetic:shapes` draws (see data/synthetic.py)."""

    shape: tuple = (128, 128, 128)
    count: tuple = (3, 20)  # objects per volume, both inclusive
    base_size: float = 15.0  # voxels, times U(0.5, 2) per axis
    contrast: tuple = (0.02, 0.10)  # intensity of an object, on 0
    num_train: int = 200
    num_val: int = 40
    num_test: int = 10
    seed: int = 0

    def validate(self):
        """Raises ValueError where a size or range makes no sense."""
        _triple("data.synthetic.shape", self.shape)
        _range("data.synthetic.count", self.count)
        _integers("data.synthetic.count", self.count, 0)
        _range("data.synthetic.contrast", self.contrast)
        _require(self.base_size > 0, "data.synthetic.base_size", "> 0", self.base_size)
        for name in ("num_train", "num_val", "num_test", "seed"):
            _require(getattr(self, name) >= 0, f"data.synthetic.{name}", ">= 0", getattr(self, name))


@dataclasses.dataclass(slots=True)
class Data:
    """Where volumes come from and what becomes of them as records."""

    source: str = "synthetic:shapes"  # a folder of volumes, or synthetic:shapes
    records: str = "runs/shapes/records"
    classes: tuple = ("ellipsoid", "cuboid", "pyramid")  # class ids 1..K in this order
    labels: str = "instances"  # label files hold instance ids, or semantic values to be split into components
    min_voxels: int = 1  # smaller instances are taken out, and counted
    split_fractions: tuple = (0.8, 0.1, 0.1)  # for sources that state no split of their own
    split_seed: int = 0
    shard_megabytes: int = 128
    synthetic: Synthetic = dataclasses.field(default_factory=Synthetic)

    def validate(self):
        """Raises ValueError where classes, labels or fractions make no sense."""
        _require(len(self.classes) > 0, "data.classes", "at least one class", self.classes)
        _require(
            all(isinstance(name, str) and name for name in self.classes)
            and len(set(self.classes)) == len(self.classes),
            "data.classes",
            "different, non-empty names",
            self.classes,
        )
        _require(
            not set(METRIC_ROWS) & set(self.classes),
            "data.classes",
            f"names other than {', '.join(METRIC_ROWS)} (the metrics use these)",
            self.classes,
        )
        _choice("data.labels", self.labels, LABELS)
        _require(self.min_voxels >= 1, "data.min_voxels", ">= 1", self.min_voxels)
        _require(self.split_seed >= 0, "data.split_seed", ">= 0", self.split_seed)
        _require(self.shard_megabytes >= 1, "data.shard_megabytes", ">= 1", self.shard_megabytes)
        _require(
            len(self.split_fractions) == 3
            and all(isinstance(fraction, int | float) for fraction in self.split_fractions)
            and min(self.split_fractions) >= 0
            and abs(sum(self.split_fractions) - 1) < 1e-6,
            "data.split_fractions",
            "three fractions (train, val, test) that add up to 1",
            self.split_fractions,
        )
        self.synthetic.validate()


@dataclasses.dataclass(slots=True)
class Input:
    """From records to batches."""

    patch_size: tuple = (64, 64, 64)
    channels: int = 1
    max_instances: int = 32  # G, truth slots of a patch
    min_visible_voxels: int = 8  # an instance cut by the patch's border counts as truth from here on
    normalization: str = "zscore"  # per volume: zscore, minmax or none
    foreground: float = 0.7  # share of patches that are centred near an instance
    mosaic: tuple = (1, 1, 1)  # a training volume is put together from this many cases per axis
    flip_axes: tuple = (True, True, True)
    rotate_planes: tuple = (
        (0, 1),
        (0, 2),
        (1, 2),
    )  # axis pairs that are turned by multiples of 90 degrees
    intensity_scale: float = 0.1  # times U(1 - s, 1 + s)
    intensity_shift: float = 0.1  # plus U(-s, s), in units of the normalised volume
    noise: float = 0.0  # plus N(0, U(0, s))
    shuffle_buffer: int = 256  # volumes

    def validate(self):
        """Raises ValueError where sizes, shares or axes make no sense."""
        _triple("input.patch_size", self.patch_size)
        _triple("input.mosaic", self.mosaic)
        for name in ("channels", "max_instances", "min_visible_voxels", "shuffle_buffer"):
            _require(getattr(self, name) >= 1, f"input.{name}", ">= 1", getattr(self, name))
        for name in ("intensity_scale", "intensity_shift", "noise"):
            _require(getattr(self, name) >= 0, f"input.{name}", ">= 0", getattr(self, name))
        _choice("input.normalization", self.normalization, NORMALIZATIONS)
        _share("input.foreground", self.foreground)
        _require(
            len(self.flip_axes) == 3 and all(isinstance(flip, bool) for flip in self.flip_axes),
            "input.flip_axes",
            "three booleans (z, y, x)",
            self.flip_axes,
        )
        for plane in self.rotate_planes:
            a, b = _pair("input.rotate_planes", plane)
            _require(
                all(type(axis) is int and axis in (0, 1, 2) for axis in plane) and a != b,
                "input.rotate_planes",
                "pairs of different axes 0, 1, 2",
                plane,
            )
            _require(
                self.patch_size[a] == self.patch_size[b],
                "input.rotate_planes",
                f"axes of equal patch_size {self.patch_size}",
                plane,
            )
        for axis in range(3):
            _require(
                self.patch_size[axis] % self.mosaic[axis] == 0,
                "input.patch_size",
                f"a multiple of input.mosaic {self.mosaic}",
                self.patch_size,
            )


@dataclasses.dataclass(slots=True)
class Backbone:
    """3D ResNet of basic blocks: a stem (C1), then one stage per FPN level C2, C3, ..."""

    stem_channels: int = 16
    stem_kernel: int = 5
    stem_stride: tuple = (2, 2, 2)
    stage_channels: tuple = (32, 64, 128)
    stage_blocks: tuple = (1, 2, 2)
    stage_strides: tuple = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    norm: str = "group"
    norm_groups: int = 8

    def validate(self, head_channels):
        """Raises ValueError where stages do not fit together, or groups do not divide the normalised channels."""
        _triple("model.backbone.stem_stride", self.stem_stride)
        stages = len(self.stage_channels)
        _require(stages >= 1, "model.backbone.stage_channels", "at least one stage", self.stage_channels)
        for name in ("stage_blocks", "stage_strides"):
            value = getattr(self, name)
            _require(
                len(value) == stages,
                f"model.backbone.{name}",
                f"{stages} entries, one per stage",
                value,
            )
        for name in ("stage_channels", "stage_blocks"):
            _integers(f"model.backbone.{name}", getattr(self, name), 1)
        for stride in self.stage_strides:
            _triple("model.backbone.stage_strides", stride)
        for name in ("stem_channels", "stem_kernel", "norm_groups"):
            _require(getattr(self, name) >= 1, f"model.backbone.{name}", ">= 1", getattr(self, name))
        _choice("model.backbone.norm", self.norm, NORMS)
        if self.norm == "group":
            for channels in (self.stem_channels, *self.stage_channels, *head_channels):
                _require(
                    channels % self.norm_groups == 0,
                    "channels of model.backbone, box_head and mask_head",
                    f"a multiple of norm_groups {self.norm_groups}",
                    channels,
                )

    def strides(self):
        """Stride of every stage's output against the input, finest first: list of (z, y, x)."""
        total, strides = tuple(self.stem_stride), []
        for step in self.stage_strides:
            total = tuple(a * b for a, b in zip(total, step, strict=True))
            strides.append(total)
        return strides


@dataclasses.dataclass(slots=True)
class Anchors:
    """Reference boxes: per level, every size times every aspect."""

    # Per level: edges in voxels, each a number or a triple.
    sizes: tuple = ((8.0, 12.0), (16.0, 22.0), (30.0, 40.0))
    aspects: tuple = ((1.0, 1.0, 1.0),)  # z, y, x; scaled to unit volume

    def validate(self, num_levels):
        """Raises ValueError unless there is one tuple of equally many sizes per level."""
        _require(
            len(self.sizes) == num_levels,
            "model.anchors.sizes",
            f"{num_levels} entries, one per backbone stage",
            self.sizes,
        )
        for sizes in self.sizes:
            _require(
                isinstance(sizes, tuple) and len(sizes) > 0,
                "model.anchors.sizes",
                "a non-empty tuple of sizes for every level",
                sizes,
            )
            _require(
                len(sizes) == len(self.sizes[0]),
                "model.anchors.sizes",
                f"{len(self.sizes[0])} sizes on every level, as on the first (the levels share one head)",
                sizes,
            )
            for size in sizes:
                triple = size if isinstance(size, tuple) else (size,) * 3
                _positive_triple("model.anchors.sizes", triple)
        _require(len(self.aspects) > 0, "model.anchors.aspects", "at least one aspect", self.aspects)
        for aspect in self.aspects:
            _positive_triple("model.anchors.aspects", aspect)


@dataclasses.dataclass(slots=True)
class RPN:
    """Region proposal network, its targets and its proposals."""

    channels: int = 32
    positive_iou: float = 0.4
    negative_iou: float = 0.2
    num_samples: int = 128  # anchors per volume in the loss
    positive_fraction: float = 0.5
    pre_nms_top_k: int = 512
    post_nms_top_k: int = 128  # P
    nms_iou: float = 0.6
    min_size: float = 1.0  # voxels; proposals with a shorter edge are removed

    def validate(self):
        """Raises ValueError where thresholds or counts make no sense."""
        for name in ("positive_iou", "negative_iou", "positive_fraction", "nms_iou"):
            _share(f"model.rpn.{name}", getattr(self, name))
        _require(
            self.negative_iou <= self.positive_iou,
            "model.rpn.negative_iou",
            f"<= positive_iou {self.positive_iou}",
            self.negative_iou,
        )
        for name in ("channels", "num_samples", "pre_nms_top_k", "post_nms_top_k"):
            _require(getattr(self, name) >= 1, f"model.rpn.{name}", ">= 1", getattr(self, name))


@dataclasses.dataclass(slots=True)
class Rois:
    """Proposals that train the heads, and how they read the pyramid."""

    num_samples: int = 32  # R, rois per volume
    positive_fraction: float = 0.5
    positive_iou: float = 0.4
    negative_iou: float = 0.3  # below: background; between the two: left out, as neither answer would be wrong
    sampling_ratio: int = 2  # samples per bin and axis
    canonical_size: tuple = (20.0, 20.0, 20.0)  # voxels: a roi of this size reads the finest level

    def validate(self):
        """Raises ValueError where shares or sizes make no sense."""
        _require(self.num_samples >= 1, "model.rois.num_samples", ">= 1", self.num_samples)
        _share("model.rois.positive_fraction", self.positive_fraction)
        _share("model.rois.positive_iou", self.positive_iou)
        _share("model.rois.negative_iou", self.negative_iou)
        _require(
            self.negative_iou <= self.positive_iou,
            "model.rois.negative_iou",
            f"<= positive_iou {self.positive_iou}",
            self.negative_iou,
        )
        _require(self.sampling_ratio >= 1, "model.rois.sampling_ratio", ">= 1", self.sampling_ratio)
        _positive_triple("model.rois.canonical_size", self.canonical_size)


@dataclasses.dataclass(slots=True)
class BoxHead:
    """Class and box of a roi: convolutions, then dense layers (0 convolutions and 2 dense: that of the paper)."""

    roi_size: tuple = (7, 7, 7)
    num_convs: int = 2
    channels: int = 32
    num_dense: int = 1
    hidden: int = 128
    delta_weights: tuple = (10.0, 10.0, 10.0, 5.0, 5.0, 5.0)  # scales deltas to about unit variance

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        _triple("model.box_head.roi_size", self.roi_size)
        _positive_triple("model.box_head.delta_weights (centre)", self.delta_weights[:3])
        _positive_triple("model.box_head.delta_weights (size)", self.delta_weights[3:])
        for name in ("channels", "hidden"):
            _require(getattr(self, name) >= 1, f"model.box_head.{name}", ">= 1", getattr(self, name))
        for name in ("num_convs", "num_dense"):
            _require(getattr(self, name) >= 0, f"model.box_head.{name}", ">= 0", getattr(self, name))


@dataclasses.dataclass(slots=True)
class MaskHead:
    """Mask of a roi: convolutions, then one transposed convolution that doubles the resolution."""

    roi_size: tuple = (8, 8, 8)  # masks have twice this
    channels: int = 32
    num_convs: int = 2

    def validate(self):
        """Raises ValueError where sizes make no sense."""
        _triple("model.mask_head.roi_size", self.roi_size)
        _require(self.channels >= 1, "model.mask_head.channels", ">= 1", self.channels)
        _require(self.num_convs >= 0, "model.mask_head.num_convs", ">= 0", self.num_convs)


@dataclasses.dataclass(slots=True)
class Detections:
    """From head outputs to answers."""

    score_threshold: float = 0.05
    nms_iou: float = 0.3
    max_detections: int = 32  # D, per patch
    mask_threshold: float = 0.5

    def validate(self):
        """Raises ValueError where thresholds or counts make no sense."""
        for name in ("score_threshold", "nms_iou", "mask_threshold"):
            _share(f"model.detections.{name}", getattr(self, name))
        _require(self.max_detections >= 1, "model.detections.max_detections", ">= 1", self.max_detections)


@dataclasses.dataclass(slots=True)
class Model:
    """3D Mask R-CNN."""

    backbone: Backbone = dataclasses.field(default_factory=Backbone)
    fpn_channels: int = 32
    anchors: Anchors = dataclasses.field(default_factory=Anchors)
    rpn: RPN = dataclasses.field(default_factory=RPN)
    rois: Rois = dataclasses.field(default_factory=Rois)
    box_head: BoxHead = dataclasses.field(default_factory=BoxHead)
    mask_head: MaskHead = dataclasses.field(default_factory=MaskHead)
    detections: Detections = dataclasses.field(default_factory=Detections)

    def validate(self):
        """Validates every part."""
        self.backbone.validate((self.box_head.channels, self.mask_head.channels))
        self.anchors.validate(len(self.backbone.stage_channels))
        _require(self.fpn_channels >= 1, "model.fpn_channels", ">= 1", self.fpn_channels)
        for part in (self.rpn, self.rois, self.box_head, self.mask_head, self.detections):
            part.validate()


@dataclasses.dataclass(slots=True)
class LossWeights:
    """Weight of each loss in the total."""

    rpn_class: float = 1.0
    rpn_box: float = 1.0
    roi_class: float = 2.0
    roi_box: float = 1.0
    mask: float = 1.0
    mask_dice: float = 1.0


@dataclasses.dataclass(slots=True)
class Train:
    """Optimisation: AdamW, linear warm-up, cosine decay to zero."""

    batch_size: int = 2  # volumes per step over all replicas
    steps: int = 2000
    steps_per_loop: int = 20  # steps inside one tf.function call; logging happens between calls
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 20.0  # global gradient norm
    checkpoint_steps: int = 500
    keep_checkpoints: int = 3
    seed: int = 0  # of the first weights, the order of the data, augmentation and sampling
    loss_weights: LossWeights = dataclasses.field(default_factory=LossWeights)

    def validate(self):
        """Raises ValueError where counts or rates make no sense."""
        for name in (
            "batch_size",
            "steps",
            "steps_per_loop",
            "checkpoint_steps",
            "keep_checkpoints",
        ):
            _require(getattr(self, name) >= 1, f"train.{name}", ">= 1", getattr(self, name))
        for name in ("learning_rate", "clip_norm"):
            _require(getattr(self, name) > 0, f"train.{name}", "> 0", getattr(self, name))
        _require(self.weight_decay >= 0, "train.weight_decay", ">= 0", self.weight_decay)
        # Numbers of steps and replicas are added to it, in int32.
        _require(0 <= self.seed < 2**30, "train.seed", "in [0, 2^30)", self.seed)
        _require(
            0 <= self.warmup_steps < self.steps,
            "train.warmup_steps",
            f"in [0, train.steps {self.steps})",
            self.warmup_steps,
        )


@dataclasses.dataclass(slots=True)
class Inference:
    """Whole volumes: tiles of the patch size, merged."""

    overlap: tuple = (16, 16, 16)  # voxels that neighbouring tiles share at least
    merge_iou: float = 0.3  # of two answers of one class that overlap more, or lie in each other, one stays
    exclusive_iou: float = 0.5  # in answers (not in scores): of two classes that overlap more, the better one stays
    max_detections: int = 128  # per volume

    def validate(self, patch_size):
        """Raises ValueError unless the overlap is shorter than the patch."""
        _require(
            len(self.overlap) == 3
            and all(type(o) is int and 0 <= o < p for o, p in zip(self.overlap, patch_size, strict=True)),
            "inference.overlap",
            f"three integers in [0, patch_size {patch_size})",
            self.overlap,
        )
        _share("inference.merge_iou", self.merge_iou)
        _share("inference.exclusive_iou", self.exclusive_iou)
        _require(self.max_detections >= 1, "inference.max_detections", ">= 1", self.max_detections)


@dataclasses.dataclass(slots=True)
class Config:
    """One experiment."""

    name: str = "shapes"
    data: Data = dataclasses.field(default_factory=Data)
    input: Input = dataclasses.field(default_factory=Input)
    model: Model = dataclasses.field(default_factory=Model)
    train: Train = dataclasses.field(default_factory=Train)
    inference: Inference = dataclasses.field(default_factory=Inference)

    def validate(self):
        """Checks types, then values, then what must fit together; returns self.

        Raises:
          ValueError: names the field, what was expected and what came.
        """
        _check_types("", self)
        self.data.validate()
        self.input.validate()
        self.model.validate()
        self.train.validate()
        self.inference.validate(self.input.patch_size)
        coarsest = self.model.backbone.strides()[-1]
        _require(
            all(p % s == 0 for p, s in zip(self.input.patch_size, coarsest, strict=True)),
            "input.patch_size",
            f"a multiple of the coarsest stride {coarsest}",
            self.input.patch_size,
        )
        return self


def to_json(config):
    """The resolved config as indented JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text):
    """The Config that `to_json` wrote; ValueError where the text holds another version's fields."""
    try:
        return _build(Config, json.loads(text)).validate()
    except (TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"expected a config written by this version, came: {error}") from error


def differences(ours, theirs):
    """Dotted names of the fields in which two configs differ, with both values: list of str."""
    mine, other = _flatten("", ours), _flatten("", theirs)
    return [f"{key}: {other[key]} -> {mine[key]}" for key in mine if mine[key] != other[key]]


def _flatten(prefix, section):
    """Dotted name -> value for every field below a dataclass."""
    flat = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        name = f"{prefix}{field.name}"
        flat |= _flatten(f"{name}.", value) if dataclasses.is_dataclass(value) else {name: value}
    return flat


def _build(kind, value):
    """A dataclass from nested dicts; lists become tuples, as JSON has none."""
    if dataclasses.is_dataclass(kind):
        types = {field.name: field.type for field in dataclasses.fields(kind)}
        return kind(**{name: _build(types.get(name), item) for name, item in value.items()})
    return tuple(_build(None, item) for item in value) if isinstance(value, list) else value


def _check_types(prefix, section):
    """Raises ValueError where a field's value is not of the annotated type (an int passes as float)."""
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            _require(isinstance(value, field.type), name, field.type.__name__, value)
            _check_types(f"{name}.", value)
            continue
        accepted = (int, float) if field.type is float else field.type
        is_wrong_bool = isinstance(value, bool) and field.type is not bool
        _require(isinstance(value, accepted) and not is_wrong_bool, name, field.type.__name__, value)


def _require(condition, name, expected, value):
    if not condition:
        raise ValueError(f"config {name}: expected {expected}, came {value!r}")


def _choice(name, value, choices):
    _require(value in choices, name, "one of " + ", ".join(choices), value)


def _share(name, value):
    _require(0 <= value <= 1, name, "a number in [0, 1]", value)


def _integers(name, value, least):
    _require(all(type(v) is int and v >= least for v in value), name, f"integers >= {least}", value)


def _triple(name, value):
    good = isinstance(value, tuple) and len(value) == 3 and all(type(v) is int and v >= 1 for v in value)
    _require(good, name, "three integers >= 1 (z, y, x)", value)


def _positive_triple(name, value):
    good = isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, int | float) and v > 0 for v in value)
    _require(good, name, "three numbers > 0 (z, y, x)", value)


def _pair(name, value):
    _require(isinstance(value, tuple) and len(value) == 2, name, "pairs", value)
    return value


def _range(name, value):
    good = len(value) == 2 and all(isinstance(v, int | float) for v in value) and 0 <= value[0] <= value[1]
    _require(good, name, "(low, high) with 0 <= low <= high", value)
