"""Settings of the `train` section: what is learnt, how fast, for how long, and what is kept."""

import dataclasses
import re

from configs import checks

OPTIMIZERS = ("adamw", "adam", "sgd", "lamb", "ranger")
SCHEDULES = ("cosine", "constant", "exponential", "polynomial", "piecewise", "cyclical", "plateau")
AVERAGES = ("none", "ema", "swa")
INFLATIONS = ("centre", "repeat")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
ON_NON_FINITE = ("stop", "skip")


@dataclasses.dataclass(slots=True)
class LossWeights:
    """Weight of each loss in the total."""

    rpn_class: float = 1.0
    rpn_box: float = 1.0
    roi_class: float = 2.0
    roi_box: float = 1.0
    mask: float = 1.0
    mask_focal: float = 1.0  # which is an eighth of cross-entropy where nothing is known yet
    mask_dice: float = 1.0
    segmentation: float = 1.0  # beside model.segmentation.channels
    segmentation_dice: float = 1.0
    attribute: float = 1.0
    keypoint: float = 1.0
    l2: float = 1.0  # beside model.style.l2
    classifier: float = 1.0  # of pre-training

    def validate(self):
        """Raises ValueError for a weight below 0, by which training would raise a loss."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            checks.require(value >= 0, f"train.loss_weights.{field.name}", ">= 0", value)


@dataclasses.dataclass(slots=True)
class Stage:
    """A part of a training: what is learnt, by which variables, for how long; see configs/training_forms.py."""

    name: str = "joint"
    steps: int = 1000
    learning_rate: float = 1e-3  # at the peak; every stage has a warm-up and a decay of its own
    # Whose losses count: some of rpn, heads (and the segmentation, if there is one) and segmentation, or classifier
    # (pre-training of the backbone), or attributes (of what is found, by the attribute head) alone.
    learns: tuple = ("rpn", "heads")
    trainable: tuple = ("all",)  # patterns: all, heads (all but the backbone), 4+ (from C4 on), or parts of names
    proposals_of: str = ""  # an earlier stage whose network, as it was at its end, proposes the rois

    def validate(self, earlier):
        """Raises ValueError where a part is unknown, or `proposals_of` names no earlier stage or has no effect."""
        # A file of the run is called after it.
        is_new = re.fullmatch(r"[\w-]+", self.name) and self.name not in earlier
        checks.require(is_new, "train.stages name", "a new name of letters, digits, _ and -", self.name)
        checks.require(self.steps >= 1, f"train.stages {self.name} steps", ">= 1", self.steps)
        checks.require(self.learning_rate > 0, f"train.stages {self.name} learning_rate", "> 0", self.learning_rate)
        checks.require(
            tuple(self.learns) in (("classifier",), ("attributes",))
            or (len(self.learns) > 0 and set(self.learns) <= {"rpn", "heads", "segmentation"}),
            f"train.stages {self.name} learns",
            "some of rpn, heads and segmentation, or alone classifier or attributes",
            self.learns,
        )
        checks.require(
            len(self.trainable) > 0 and all(isinstance(pattern, str) and pattern for pattern in self.trainable),
            f"train.stages {self.name} trainable",
            "at least one pattern",
            self.trainable,
        )
        checks.require(
            self.proposals_of in ("", *earlier),
            f"train.stages {self.name} proposals_of",
            f"an earlier stage of {', '.join(earlier) or 'none'}",
            self.proposals_of,
        )
        checks.require(
            self.proposals_of == "" or "heads" in self.learns,
            f"train.stages {self.name} proposals_of",
            f"none where learns {self.learns} is without heads",
            self.proposals_of,
        )


@dataclasses.dataclass(slots=True)
class Optimizer:
    """By which rule a gradient becomes a step."""

    name: str = "adamw"  # or adam, sgd (Nesterov), lamb, ranger (RectifiedAdam in Lookahead)
    momentum: float = 0.9  # of sgd
    beta_1: float = 0.9  # of all others, as are beta_2 and epsilon
    beta_2: float = 0.999
    epsilon: float = 1e-7
    slow_steps: int = 6  # of ranger: after so many steps the slow weights move
    slow_share: float = 0.5  # by this share of the way to the fast ones

    def validate(self):
        """Raises ValueError for a rule that is unknown or numbers that make no sense."""
        checks.choice("train.optimizer.name", self.name, OPTIMIZERS)
        for name in ("momentum", "beta_1", "beta_2"):
            value = getattr(self, name)
            checks.require(0 <= value < 1, f"train.optimizer.{name}", "in [0, 1)", value)
        checks.require(self.epsilon > 0, "train.optimizer.epsilon", "> 0", self.epsilon)
        checks.require(self.slow_steps >= 1, "train.optimizer.slow_steps", ">= 1", self.slow_steps)
        checks.require(0 < self.slow_share <= 1, "train.optimizer.slow_share", "in (0, 1]", self.slow_share)


@dataclasses.dataclass(slots=True)
class Schedule:
    """How the learning rate falls in each stage, after a linear warm-up; see training/schedules.py."""

    name: str = "cosine"  # or constant, exponential, polynomial, piecewise, cyclical, plateau
    end: float = 0.0  # share of the peak that is left at the end: of cosine, exponential (> 0) and polynomial
    power: float = 0.9  # of polynomial
    boundaries: tuple = (0.6, 0.9)  # of piecewise: shares of the stage at which the rate is multiplied by `factor`
    factor: float = 0.1  # of piecewise and plateau
    floor: float = 0.1  # of cyclical: share of the peak from which the rate goes up to it and down again
    half_cycle_steps: int = 500  # of cyclical: from the floor to the peak
    patience: int = 3  # of plateau: evaluations without a better metric before the rate is multiplied by `factor`

    def validate(self):
        """Raises ValueError for a schedule that is unknown or numbers that make no sense."""
        name = "train.schedule"
        checks.choice(f"{name}.name", self.name, SCHEDULES)
        checks.share(f"{name}.end", self.end)
        checks.require(self.end > 0 or self.name != "exponential", f"{name}.end", "> 0 for exponential", self.end)
        checks.require(self.power > 0, f"{name}.power", "> 0", self.power)
        good = all(isinstance(share, int | float) and 0 < share < 1 for share in self.boundaries)
        rises = good and list(self.boundaries) == sorted(set(self.boundaries))
        checks.require(rises, f"{name}.boundaries", "rising shares in (0, 1)", self.boundaries)
        checks.require(0 < self.factor < 1, f"{name}.factor", "in (0, 1)", self.factor)
        checks.share(f"{name}.floor", self.floor)
        for field in ("half_cycle_steps", "patience"):
            checks.require(getattr(self, field) >= 1, f"{name}.{field}", ">= 1", getattr(self, field))


@dataclasses.dataclass(slots=True)
class Average:
    """A mean of the weights over the steps, which is what is evaluated and exported; see training/averaging.py."""

    name: str = "none"  # or ema (exponentially forgetting), swa (of equal parts)
    decay: float = 0.999  # of ema: what it keeps of itself in a step
    begin: float = 0.75  # of swa: share of the training after which it begins
    every: int = 10  # of swa: steps between two parts of the mean

    def validate(self):
        """Raises ValueError for a mean that is unknown or numbers that make no sense."""
        checks.choice("train.average.name", self.name, AVERAGES)
        checks.require(0 <= self.decay < 1, "train.average.decay", "in [0, 1)", self.decay)
        checks.require(0 <= self.begin < 1, "train.average.begin", "in [0, 1)", self.begin)
        checks.require(self.every >= 1, "train.average.every", ">= 1", self.every)


@dataclasses.dataclass(slots=True)
class Evaluation:
    """Whole held-out volumes while the network trains, and what follows from them."""

    steps: int = 0  # between two evaluations, and one at the end; 0: none
    split: str = "val"
    max_volumes: int = 16
    metric: str = "mask_ap50"  # of those of evaluation/evaluate.py `scalars`; the higher the better
    patience: int = 0  # evaluations without a better metric before the run ends; 0: it goes on to its last step
    pictures: int = 2  # volumes that wandb and TensorBoard show
    final_split: str = ""  # evaluated in full by the best checkpoint when the run has ended: test, say

    def validate(self, splits):
        """Raises ValueError for an unknown split or counts that make no sense."""
        for name, least in (("steps", 0), ("max_volumes", 1), ("patience", 0), ("pictures", 0)):
            value = getattr(self, name)
            checks.require(value >= least, f"train.evaluation.{name}", f">= {least}", value)
        checks.choice("train.evaluation.split", self.split, splits)
        if self.final_split:
            checks.choice("train.evaluation.final_split", self.final_split, splits)
        checks.require(self.metric != "", "train.evaluation.metric", "the name of a metric", self.metric)


@dataclasses.dataclass(slots=True)
class Train:
    """Optimisation."""

    batch_size: int = 2  # volumes per step over all replicas
    accumulation: int = 1  # parts of a batch that are gone through one after the other, for less memory
    steps: int = 2000
    steps_per_loop: int = 20  # steps inside one tf.function call; logging happens between calls
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    learning_rate: float = 1e-3  # at the peak
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    warmup_steps: int = 100
    weight_decay: float = 1e-4  # decoupled from the gradient; not of biases and normalisation; adam has none
    clip_norm: float = 20.0  # global gradient norm
    precision: str = "float32"  # or mixed_bfloat16, mixed_float16 (with loss scaling)
    average: Average = dataclasses.field(default_factory=Average)
    recompute: bool = False  # the backbone's activations, when their gradient is due: less memory, more time
    on_non_finite: str = "stop"  # at a loss or gradient that is not finite; or skip: the step changes nothing
    max_non_finite: int = 10  # such steps that may be skipped in a run; more stop it
    checkpoint_steps: int = 500
    keep_checkpoints: int = 3
    keep_hours: float = 0.0  # beside the newest ones, one is kept for good after every so many hours; 0: none
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    inspect_steps: int = 0  # between two looks at what trains, in TensorBoard and wandb: histograms, pictures; 0: none
    seed: int = 0  # of the first weights, the order of the data, augmentation and sampling
    loss_weights: LossWeights = dataclasses.field(default_factory=LossWeights)
    init_weights: str = ""  # a run's folder, a checkpoint or a Keras .h5 file of a 2D ResNet to begin with
    inflate: str = "centre"  # 2D kernels become 3D: the middle slice alone, or repeat: every slice an equal share
    # Stages one after the other instead of `steps` and `learning_rate`; empty: everything jointly.
    stages: tuple = dataclasses.field(default=(), metadata={"of": Stage})
    classifier_crop: tuple = (32, 32, 32)  # voxels around an object, for stages that learn the classifier

    def validate(self, splits):
        """Raises ValueError where counts or rates make no sense."""
        self._validate_numbers()
        checks.choice("train.inflate", self.inflate, INFLATIONS)
        checks.choice("train.precision", self.precision, PRECISIONS)
        checks.choice("train.on_non_finite", self.on_non_finite, ON_NON_FINITE)
        checks.triple("train.classifier_crop", self.classifier_crop)
        for section in (self.optimizer, self.schedule, self.average, self.loss_weights):
            section.validate()
        self.evaluation.validate(splits)
        for name, waits in (("a patience", self.evaluation.patience > 0), ("plateau", self.schedule.name == "plateau")):
            is_fed = self.evaluation.steps > 0 or not waits
            checks.require(is_fed, "train.evaluation.steps", f">= 1 with {name}", self.evaluation.steps)
        self._validate_stages()

    def _validate_numbers(self):
        for name in ("batch_size", "accumulation", "steps", "steps_per_loop", "checkpoint_steps", "keep_checkpoints"):
            checks.require(getattr(self, name) >= 1, f"train.{name}", ">= 1", getattr(self, name))
        for name in ("learning_rate", "clip_norm"):
            checks.require(getattr(self, name) > 0, f"train.{name}", "> 0", getattr(self, name))
        for name in ("weight_decay", "max_non_finite", "keep_hours", "inspect_steps"):
            checks.require(getattr(self, name) >= 0, f"train.{name}", ">= 0", getattr(self, name))
        parts = self.accumulation
        is_whole = self.batch_size % parts == 0
        checks.require(is_whole, "train.batch_size", f"a multiple of train.accumulation {parts}", self.batch_size)
        # The numbers of steps and examples are folded into it, in int32.
        checks.require(0 <= self.seed < 2**30, "train.seed", "in [0, 2^30)", self.seed)

    def _validate_stages(self):
        earlier = []
        for stage in self.stages:
            checks.require(isinstance(stage, Stage), "train.stages", "a tuple of Stage", stage)
            checks.types(f"train.stages {stage.name} ", stage)
            stage.validate(earlier)
            earlier.append(stage.name)
        for stage in self.as_stages():
            expected = f"in [0, {stage.steps}), the steps of stage {stage.name}"
            checks.require(0 <= self.warmup_steps < stage.steps, "train.warmup_steps", expected, self.warmup_steps)

    def as_stages(self):
        """The stages; one of everything where none are given."""
        return self.stages or (Stage("joint", self.steps, self.learning_rate),)

    def without_effect(self):
        """One line for every setting that was changed and, as the others are, does nothing."""
        decays = self.weight_decay == Train().weight_decay or self.optimizer.name != "adam"
        lines = (
            [] if decays else [f"train.weight_decay {self.weight_decay} has no effect with train.optimizer.name adam"]
        )
        return lines + [
            f"train.{name} {getattr(self, name)} has no effect beside train.stages, which have their own"
            for name in ("steps", "learning_rate")
            if self.stages and getattr(self, name) != getattr(Train(), name)
        ]
