"""Settings of a set of volumes: its labels, its splits, its records; see configs/schema.py."""

import dataclasses
import itertools
import math

from configs import checks
from configs.hits_schema import Hits
from configs.synthetic_schema import Synthetic

LABELS = ("instances", "semantic", "boxes", "dicom_seg", "hits")
BOX_UNITS = ("voxels", "mm")
INTERPOLATIONS = ("linear", "spline")
METRIC_ROWS = ("pooled", "mean")  # the metrics list these beside the classes


@dataclasses.dataclass(slots=True)
class Data:
    """Where volumes come from and what becomes of them as records."""

    source: str = "synthetic:shapes"  # a folder of volumes, or synthetic:<kind>, a kind of data/synthetic
    records: str = "runs/shapes/records"
    classes: tuple = ("ellipsoid", "cuboid", "pyramid")  # class ids 1..K in this order
    attributes: tuple = ()  # names of the numbers measured of every instance, an energy, say
    # Names of landmarks that the data gives of every instance; empty: those derived from masks (ops/keypoints.py). They
    # are mirrored with the volume: where names tell left from right, switch that axis of input.flip_axes off.
    keypoints: tuple = ()
    # Label files hold instances (ids), semantic (values to be split into components), boxes (tables), dicom_seg
    # (segments); hits: image and labels are one table of hits.
    labels: str = "instances"
    channel_suffixes: tuple = ()  # ("_0000", "_0001"): the channels of case a are the images a_0000 and a_0001
    # mm; components of semantic labels that are longer than this along an axis are parted where they are thin, lesions
    # that have grown together, say (data/parting.py); a case is read whole to do so; 0: none.
    part_longer_than: float = 0.0
    box_unit: str = "voxels"  # of labels boxes; or mm, in the world (x, y, z)
    hits: Hits = dataclasses.field(default_factory=Hits)
    min_voxels: int = 1  # smaller instances are taken out, and counted
    split_fractions: tuple = (0.8, 0.1, 0.1)  # for sources that state no split of their own
    split_seed: int = 0
    stratify: bool = (
        True  # draw splits with like shares of the objects of each class; reads the labels where no JSON tells
    )
    groups: str = ""  # CSV with columns case,group[,split]: cases of a group (a patient, say) stay in one split
    folds: int = 0  # k-fold instead of fractions: fold number `fold` is val, the others train; a stated test stays test
    fold: int = 0  # from 0
    shard_megabytes: int = 128  # a shard is closed as soon as it has so much
    # Cases that are longer on an axis are stored as overlapping chunks, such that every patch lies whole in one; mind
    # that a chunk of twice the patch holds each voxel about eight times.
    chunk_size: tuple = (256, 256, 256)
    target_spacing: tuple = ()  # mm (z, y, x) that volumes are resampled to, labels by nearest; () as they are
    image_interpolation: str = "linear"  # or spline (cubic), where target_spacing is given
    synthetic: Synthetic = dataclasses.field(default_factory=Synthetic)

    def validate(self):
        """Raises ValueError where classes, labels or fractions make no sense."""
        self._validate_names()
        self._validate_labels()
        self._validate_splits()
        checks.require(self.min_voxels >= 1, "data.min_voxels", ">= 1", self.min_voxels)
        checks.triple("data.chunk_size", self.chunk_size)
        checks.require(
            len(self.target_spacing) in (0, 3)
            and all(isinstance(mm, int | float) and 0 < mm < math.inf for mm in self.target_spacing),
            "data.target_spacing",
            "() or three finite numbers > 0 (mm; z, y, x)",
            self.target_spacing,
        )
        checks.choice("data.image_interpolation", self.image_interpolation, INTERPOLATIONS)
        checks.require(self.shard_megabytes >= 1, "data.shard_megabytes", ">= 1", self.shard_megabytes)
        self.hits.validate()
        self.synthetic.validate()

    def _validate_names(self):
        checks.require(len(self.classes) > 0, "data.classes", "at least one class", self.classes)
        _different_names("data.classes", self.classes)
        checks.require(
            not set(METRIC_ROWS) & set(self.classes),
            "data.classes",
            f"names other than {', '.join(METRIC_ROWS)} (the metrics use these)",
            self.classes,
        )
        taken = {"class", "keypoints"}
        _different_names("data.attributes", self.attributes, taken, " other than class and keypoints")
        taken = {"class", *self.attributes}
        _different_names("data.keypoints", self.keypoints, taken, " other than class and data.attributes")

    def _validate_labels(self):
        checks.choice("data.labels", self.labels, LABELS)
        checks.choice("data.box_unit", self.box_unit, BOX_UNITS)
        checks.require(
            0 <= self.part_longer_than < math.inf and (self.part_longer_than == 0 or self.labels == "semantic"),
            "data.part_longer_than",
            "0 (none), or with data.labels semantic a finite number of mm",
            self.part_longer_than,
        )
        checks.require(
            all(isinstance(suffix, str) and suffix for suffix in self.channel_suffixes)
            and not any(a.endswith(b) for a, b in itertools.permutations(self.channel_suffixes, 2)),
            "data.channel_suffixes",
            "different, non-empty ends of names, none of them the end of another",
            self.channel_suffixes,
        )

    def _validate_splits(self):
        checks.require(self.folds == 0 or self.folds >= 2, "data.folds", "0 (none) or >= 2", self.folds)
        checks.require(
            0 <= self.fold < max(self.folds, 1), "data.fold", f"in [0, {max(self.folds, 1)}) of data.folds", self.fold
        )
        checks.require(self.split_seed >= 0, "data.split_seed", ">= 0", self.split_seed)
        checks.require(
            len(self.split_fractions) == 3
            and all(isinstance(fraction, int | float) for fraction in self.split_fractions)
            and min(self.split_fractions) >= 0
            and abs(sum(self.split_fractions) - 1) < 1e-6,
            "data.split_fractions",
            "three fractions (train, val, test) that add up to 1",
            self.split_fractions,
        )


def _different_names(field, names, taken=frozenset(), other_than=""):
    good = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    checks.require(good and not taken & set(names), field, f"different, non-empty names{other_than}", names)
