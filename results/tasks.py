"""Every published task: the runs behind its tables, where they are measured, and what they should reach."""

import dataclasses
from collections.abc import Callable

from data.errors import InputError
from results import hippocampus, ms_lesions, nuclei, shapes, showers

RESULT = "result"  # the runs of the table in the README; other parts compare with them


@dataclasses.dataclass(frozen=True)
class Target:
    """What a metric should reach: at least `bound`, or at most, either side of 0, where `is_upper`.

    row: name of the runs that should; none: those of the part RESULT.
    """

    metric: str
    bound: float
    is_upper: bool = False
    row: str = ""

    def is_met(self, value):
        """Whether a value, None where undefined, reaches it."""
        return value is not None and (abs(value) <= self.bound if self.is_upper else value >= self.bound)

    def __str__(self):
        return f"{'≤' if self.is_upper else '≥'} {self.bound:g}"

    @property
    def label(self):
        """The metric, and the row if it is of one."""
        return f"{self.metric}, {self.row}" if self.row else self.metric


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a config with overrides, `--config.` left out, and a seed.

    name: of the row that it belongs to; the seeds of a row are summed up.
    form: what the config file's get_config takes, if anything.
    begins_with: name of the task by whose first result it was trained before, if any.
    """

    name: str
    overrides: tuple = ()
    seed: int = 0
    form: str = ""
    begins_with: str = ""

    @property
    def folder(self):
        """A name for files: letters, digits, - and _."""
        letters = "".join(letter if letter.isalnum() else "_" for letter in self.name)
        return f"{letters}-{self.seed}"


@dataclasses.dataclass(frozen=True)
class Task:
    """What one config is trained and measured for.

    title: of its tables.
    parts: {name: tuple of Run}; RESULT is one of them.
    targets: tuple of Target.
    unseen: overrides of the config for records of their own, whose split test is measured; none: the split val of those
      that are trained on is.
    served: f(config), changes the config of a run before it is measured, where it answers for other volumes than those
      that it was trained on.
    measures: f(trained, evaluation, unseen) -> {name: float}, what this task alone has; see `measuring.measure`.
    draw: f(trained, evaluation, unseen, path), a curve of its own beside the picture of a volume.
    columns: names of more metrics for its tables.
    """

    title: str
    parts: dict
    targets: tuple
    unseen: tuple = ()
    served: Callable | None = None
    measures: Callable | None = None
    draw: Callable | None = None
    columns: tuple = ()


_OF_SEED_1 = ("data.synthetic.seed=1", "data.synthetic.num_train=1", "data.synthetic.num_val=0")


def _seeds(count, *overrides, name="as configured"):
    return tuple(Run(name, overrides, seed) for seed in range(count))


def _of_volumes(count):
    """A training on the first so many volumes."""
    return Run(
        f"{count} volumes", (f"data.records=runs/shapes_small/records_{count}", f"data.synthetic.num_train={count}")
    )


# What plan_main.py makes of the 200 training volumes.
_PLANNED = (
    "(((15.9,16.1,16.1),(22.0,22.0,21.6)),((34.6,32.8,31.4),(26.0,28.2,27.3)),((25.0,26.8,28.0),(31.8,34.0,38.1)))"
)
_ABLATION = (
    Run("as configured"),
    Run("planned anchors", (f"model.anchors.sizes={_PLANNED}",)),
    Run("rois of the finest level alone", ("model.rois.canonical_size=(1000.0,1000.0,1000.0)",)),
    Run("alternating", form="alternating"),
    Run("cascade alone", ("model.box_head.cascade_ious=(0.4,0.6,0.75)",)),
    Run("GIoU in place of smooth L1", ("model.rpn.box_loss=giou", "model.box_head.box_loss=giou")),
    Run("masks without Dice", ("model.mask_head.losses=('cross_entropy',)",)),
    Run("no mirrors, no quarter turns", ("input.flip_axes=(False,False,False)", "input.rotate_planes=()")),
    Run(
        "no contrast, no brightness",
        ("input.augment.contrast.probability=0.0", "input.augment.brightness.probability=0.0"),
    ),
    Run("affine and elastic, too", ("input.augment.affine.probability=0.2", "input.augment.elastic.probability=0.05")),
    Run("blur and noise, too", ("input.augment.blur.probability=0.1", "input.augment.noise.probability=0.1")),
    Run("2D kernels", form="2d"),
)
# The order in which the folds of configs/nuclei_tissues.csv hold them out.
_TISSUES = ("ovule", "monolayer", "embryo")


def _begun(name, *overrides, seed=0):
    """A training on real nuclei by what synthetic ones have taught."""
    return Run(name, overrides, seed, begins_with="nuclei_synthetic")


def _without(fold, tissue):
    """A training on the stacks of all other tissues."""
    records = f"data.records=runs/nuclei/records_without_{tissue}"
    split = ("data.groups=configs/nuclei_tissues.csv", "data.folds=3", f"data.fold={fold}")
    # Nuclei that were never seen may have any size, here up to three times that of the others.
    sizes = ("input.augment.affine.probability=0.8", "input.augment.affine.scale=(0.6,2.8)")
    return _begun(f"without {tissue}", records, *split, *sizes)


TASKS = {
    "shapes_small": Task(
        "Shapes, small: 64³, high contrast",
        {
            RESULT: tuple(Run("cascade", seed=seed, form="cascade") for seed in range(3)),
            "learning curve": tuple(_of_volumes(count) for count in (25, 50, 100)),  # of 200: as configured
            "ablation": _ABLATION,
        },
        (Target("mask_ap50", 0.95), Target("class_accuracy", 0.98), Target("minutes", 15, is_upper=True)),
        unseen=(*_OF_SEED_1, "data.synthetic.num_test=50"),
    ),
    "shapes": Task(
        "Shapes as first defined: 128³, contrast 0.02 to 0.10",
        {RESULT: _seeds(1)},
        (Target("mask_ap50", 0.75), Target("mask_ap50_007_010", 0.9), Target("mean_mask_iou", 0.8)),
        unseen=(*_OF_SEED_1, "data.synthetic.num_test=50"),
        measures=shapes.measure,
        columns=("mask_ap50_002_004", "mask_ap50_004_007", "mask_ap50_per_image"),
    ),
    "cubes": Task(
        "Cubes and hollow cubes: 64³",
        {RESULT: _seeds(3)},
        (
            Target("box_ap10", 0.99),
            Target("box_ap50", 0.97),
            Target("class_accuracy", 0.99),
            Target("mask_ap50", 0.95),
        ),
        unseen=(*_OF_SEED_1, "data.synthetic.num_test=200"),
    ),
    "hippocampus": Task(
        "Hippocampus in MR, mosaics of flipped crops",
        {RESULT: _seeds(1)},
        (
            Target("box_ap75", 0.6),
            Target("mean_mask_dice", 0.88),
            Target("class_accuracy", 0.98),
            Target("iou_gap", 0.1, is_upper=True),
        ),
        served=hippocampus.as_mosaics,
        measures=hippocampus.measure,
        columns=("dice", "constant_dice", "constant_box_ap75", "atlas_dice", "atlas_box_ap75"),
    ),
    "nuclei_synthetic": Task("Nuclei, synthetic: what the real ones begin with", {RESULT: _seeds(1)}, ()),
    "nuclei": Task(
        "Nuclei in fluorescence",
        {
            RESULT: tuple(_begun("synthetic nuclei first", seed=seed) for seed in range(3)),
            "tissue left out": tuple(_without(fold, tissue) for fold, tissue in enumerate(_TISSUES)),
            "from scratch": (Run("from scratch"),),
        },
        (
            Target("f1_above_watershed", 0.0),
            *(Target("f1_above_watershed", 0.0, row=f"without {tissue}") for tissue in _TISSUES),
            *(Target("f1", 0.8, row=f"without {tissue}") for tissue in ("monolayer", "embryo")),
        ),
        measures=nuclei.measure,
        columns=("f1", "precision", "recall", "watershed_f1"),
    ),
    "showers": Task(
        "Particles in a calorimeter",
        {RESULT: _seeds(2)},
        (
            Target("mean_mask_iou", 0.75),
            Target("class_accuracy", 0.9),
            Target("energy_bias_absorbed", 0.02, is_upper=True),
            Target("resolution_ratio_absorbed", 1.3, is_upper=True),
        ),
        unseen=(*_OF_SEED_1, "data.synthetic.num_test=200"),
        measures=showers.measure,
        columns=("energy_bias", "resolution_ratio", "resolution_ratio_photon", "resolution_ratio_pion"),
        draw=showers.draw,
    ),
    "ms_lesions": Task(
        "Lesions in MR, one brain to learn from",
        {RESULT: _seeds(1)},
        (),
        measures=ms_lesions.measure,
        columns=tuple(f"mask_sensitivity_{rate}" for rate in (1, 2, 4, 8, 16, 32)),
        draw=ms_lesions.draw,
    ),
}


def get(name):
    """The Task of a name; InputError where there is none."""
    if name not in TASKS:
        raise InputError(f"--task: expected one of {', '.join(TASKS)}, came {name!r}")
    return TASKS[name]


def select(task, part, names):
    """The runs of a part, of rows of these names alone if there are any; InputError where there are none such."""
    if part not in task.parts:
        raise InputError(f"--part: expected one of {', '.join(task.parts)}, came {part!r}")
    known = list(dict.fromkeys(run.name for run in task.parts[part]))
    for name in names:
        if name not in known:
            raise InputError(f"--only: expected some of {', '.join(known)}, came {name!r}")
    return [run for run in task.parts[part] if not names or run.name in names]
