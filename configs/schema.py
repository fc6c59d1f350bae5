"""Every setting of the system: its type, default, unit and the checks it must pass.

A config file builds a `Config` in `get_config()`; `--config.model.rpn.nms_iou=0.5` overrides one field. The
dataclasses are slotted, so a misspelt field is an error in both places. Triples are (z, y, x); lengths are voxels
unless they say mm.
"""

import dataclasses
import json
import math

from configs import checks
from configs.augment_schema import Augment
from configs.data_schema import Data, Hits, Synthetic  # noqa: F401 config files call them schema.Hits, schema.Synthetic
from configs.model_schema import Model
from configs.train_schema import Train

SPLITS = ("train", "val", "test")
NORMALIZATIONS = ("zscore", "minmax", "percentile", "window", "dataset", "none")
COMMON_SCALES = ("window", "dataset", "none")  # those that are the same for all volumes
FOREGROUND_BY = ("instance", "class")
ON_CORRUPT = ("fail", "skip")


@dataclasses.dataclass(slots=True)
class Input:
    """From records to batches."""

    patch_size: tuple = (64, 64, 64)
    channels: int = 1
    max_instances: int = 32  # G, truth slots of a patch
    min_visible_voxels: int = 8  # an instance cut by the patch's border counts as truth from here on
    # Per volume and channel: zscore, minmax (to 0..1) or percentile (0.5 and 99.5 to 0..1, the rest cut off); the same
    # for all volumes: window, dataset (zscore by the training split) or none.
    normalization: str = "zscore"
    window: tuple = (-160.0, 240.0)  # (low, high) in the source's intensities that become 0..1, the rest is cut off
    intensity_mean: tuple = ()  # one number per channel, of dataset; empty: those of the training records
    intensity_std: tuple = ()
    foreground: float = 0.7  # share of patches that are centred near an instance
    foreground_by: str = "instance"  # which one: instance: any; class: any of a class that is drawn first
    case_weights: str = ""  # JSON {case: weight}: how often cases are drawn; 0 never, 1 where nothing is said
    on_corrupt: str = "fail"  # at a damaged record; or skip: another one takes its place
    max_corrupt: int = 10  # records that may be skipped in an epoch; more stop the run
    num_readers: int = 1  # records read at a time, each of them whole in memory; more for servers and for several GPUs
    num_augmenters: int = 4  # patches augmented at a time
    mosaic: tuple = (1, 1, 1)  # a training volume is put together from this many cases per axis
    tile_size: tuple = ()  # (z, y, x) of each of them; patches are cut of the whole; empty: the whole is the patch
    flip_axes: tuple = (True, True, True)
    rotate_planes: tuple = (
        (0, 1),
        (0, 2),
        (1, 2),
    )  # axis pairs that are turned by multiples of 90 degrees
    augment: Augment = dataclasses.field(default_factory=Augment)

    def validate(self):
        """Raises ValueError where sizes, shares or axes make no sense."""
        checks.triple("input.patch_size", self.patch_size)
        checks.triple("input.mosaic", self.mosaic)
        for name in ("channels", "max_instances", "min_visible_voxels", "num_readers", "num_augmenters"):
            checks.require(getattr(self, name) >= 1, f"input.{name}", ">= 1", getattr(self, name))
        self._validate_intensities()
        checks.share("input.foreground", self.foreground)
        checks.choice("input.foreground_by", self.foreground_by, FOREGROUND_BY)
        checks.choice("input.on_corrupt", self.on_corrupt, ON_CORRUPT)
        checks.require(self.max_corrupt >= 0, "input.max_corrupt", ">= 0", self.max_corrupt)
        checks.axes("input.flip_axes", self.flip_axes)
        for plane in self.rotate_planes:
            a, b = checks.pair("input.rotate_planes", plane)
            checks.require(
                all(type(axis) is int and axis in (0, 1, 2) for axis in plane) and a != b,
                "input.rotate_planes",
                "pairs of different axes 0, 1, 2",
                plane,
            )
            checks.require(
                self.patch_size[a] == self.patch_size[b],
                "input.rotate_planes",
                f"axes of equal patch_size {self.patch_size}",
                plane,
            )
        self._validate_tiles()
        self.augment.validate(self.patch_size)

    def tile(self):
        """(z, y, x) voxels of a case in a mosaic."""
        return tuple(self.tile_size) or tuple(p // m for p, m in zip(self.patch_size, self.mosaic, strict=True))

    def _validate_tiles(self):
        if not self.tile_size:
            whole = all(size % count == 0 for size, count in zip(self.patch_size, self.mosaic, strict=True))
            expected = f"a multiple of input.mosaic {self.mosaic}"
            checks.require(whole, "input.patch_size", expected, self.patch_size)
            return
        checks.triple("input.tile_size", self.tile_size)
        checks.require(max(self.mosaic) > 1, "input.tile_size", "() without an input.mosaic", self.tile_size)

    def _validate_intensities(self):
        checks.choice("input.normalization", self.normalization, NORMALIZATIONS)
        checks.require(
            _are_numbers(self.window) and len(self.window) == 2 and self.window[0] < self.window[1],
            "input.window",
            "two finite numbers (low, high), low < high",
            self.window,
        )
        for name in ("intensity_mean", "intensity_std"):
            values = getattr(self, name)
            checks.require(
                _are_numbers(values) and len(values) in (0, self.channels),
                f"input.{name}",
                f"() or a finite number for each of {self.channels} channel(s)",
                values,
            )
        checks.require(
            len(self.intensity_mean) == len(self.intensity_std) and all(std >= 0 for std in self.intensity_std),
            "input.intensity_std",
            "numbers >= 0, as many as input.intensity_mean",
            self.intensity_std,
        )


@dataclasses.dataclass(slots=True)
class Inference:
    """Whole volumes: tiles of the patch size, merged."""

    overlap: tuple = (16, 16, 16)  # voxels that neighbouring tiles share at least
    # Every tile is looked at mirrored along these axes, too, all combinations, and the mean answers: twice the time for
    # each. Where landmarks or attributes tell one side from the other, not along that axis.
    flip_axes: tuple = (False, False, False)
    merge_iou: float = 0.3  # of two answers of one class that overlap more, or lie in each other, one stays
    exclusive_iou: float = 0.5  # in answers (not in scores): of two classes that overlap more, the better one stays
    max_detections: int = 128  # per volume

    def validate(self, patch_size):
        """Raises ValueError unless the overlap is shorter than the patch."""
        checks.require(
            len(self.overlap) == 3
            and all(type(o) is int and 0 <= o < p for o, p in zip(self.overlap, patch_size, strict=True)),
            "inference.overlap",
            f"three integers in [0, patch_size {patch_size})",
            self.overlap,
        )
        checks.axes("inference.flip_axes", self.flip_axes)
        checks.share("inference.merge_iou", self.merge_iou)
        checks.share("inference.exclusive_iou", self.exclusive_iou)
        checks.require(self.max_detections >= 1, "inference.max_detections", ">= 1", self.max_detections)


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
        checks.types("", self)
        self.data.validate()
        self.input.validate()
        checks.require(
            all(patch <= chunk for patch, chunk in zip(self.input.patch_size, self.data.chunk_size, strict=True)),
            "data.chunk_size",
            f"at least input.patch_size {self.input.patch_size}",
            self.data.chunk_size,
        )
        self.model.validate(len(self.data.classes))
        self.train.validate(SPLITS)
        self.inference.validate(self.input.patch_size)
        self.model.validate_patch(self.input.patch_size)
        self._validate_recompute()
        self._validate_sums()
        self._validate_stages()
        return self

    def _validate_recompute(self):
        """Raises ValueError where what is computed again would not be what it was."""
        norm, depth = self.model.style.norm, self.model.backbone.stochastic_depth
        repeats = depth == 0 and norm not in ("batch", "sync_batch")
        expected = f"False with model.style.norm {norm} and model.backbone.stochastic_depth {depth}"
        checks.require(repeats or not self.train.recompute, "train.recompute", expected, self.train.recompute)

    def _validate_sums(self):
        """Raises ValueError where a sinh would be taken of what no asinh is."""
        sums, kind = self.model.attribute_head.sums, self.input.normalization
        expected = f"none or linear with input.normalization {kind}, which differs from volume to volume"
        checks.require(sums != "sinh" or kind in COMMON_SCALES, "model.attribute_head.sums", expected, sums)
        if self.model.attribute_head.sums_by_layer:
            self._validate_layers()

    def _validate_layers(self):
        """Raises ValueError where a layer along z is not the same one in all patches."""
        moves = {
            f"input.flip_axes {self.input.flip_axes}": self.input.flip_axes[0],
            f"inference.flip_axes {self.inference.flip_axes}": self.inference.flip_axes[0],
            f"input.rotate_planes {self.input.rotate_planes}": any(0 in plane for plane in self.input.rotate_planes),
            f"input.mosaic {self.input.mosaic}": self.input.mosaic[0] > 1,
        }
        for what, moved in moves.items():
            expected = f"False with {what}, which moves layers along z"
            checks.require(not moved, "model.attribute_head.sums_by_layer", expected, True)

    def _validate_stages(self):
        """Raises ValueError where a stage would learn what there is none of."""
        needs = {
            "segmentation": ("model.segmentation.channels", self.model.segmentation.channels > 0),
            "attributes": ("data.attributes", len(self.data.attributes) > 0),
        }
        for stage in self.train.as_stages():
            for kind, (what, is_there) in needs.items():
                name = f"train.stages {stage.name} learns"
                checks.require(is_there or kind not in stage.learns, name, f"no {kind} without {what}", stage.learns)

    def warnings(self):
        """One line for every setting without effect, and one where augmentation changes what attributes are read of."""
        sums = self.model.attribute_head.sums
        changing = self.input.augment.that_change_sums(sums) if self.data.attributes else []
        lines = self.without_effect()
        if changing:
            lines.append(
                f"input.augment.{', '.join(changing)} change what model.attribute_head.sums {sums} adds up, and "
                "attributes stay as they are: their probability should be 0"
            )
        return lines

    def without_effect(self):
        """One line for every setting that was changed and, as the others are, does nothing."""
        lines = self.model.without_effect() + self.train.without_effect()
        sums = self.model.attribute_head.sums
        if sums != "none" and not self.data.attributes:
            lines.append(f"model.attribute_head.sums {sums} has no effect without data.attributes")
        if self.data.keypoints and not self.model.keypoint_head.enabled:
            lines.append(f"data.keypoints {self.data.keypoints} have no effect without model.keypoint_head.enabled")
        return lines


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


def _are_numbers(values):
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


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
        types = {field.name: field.metadata.get("of", field.type) for field in dataclasses.fields(kind)}
        if isinstance(value, list):  # of such sections
            return tuple(_build(kind, item) for item in value)
        return kind(**{name: _build(types.get(name), item) for name, item in value.items()})
    return tuple(_build(None, item) for item in value) if isinstance(value, list) else value
