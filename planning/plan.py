"""From a fingerprint of the records to the settings of the network, each with its reason."""

import copy
import dataclasses
import math

import numpy as np

from data import fingerprint as fingerprints
from data.errors import InputError
from ops.anchors import anchor_shapes
from planning import anchors, memory, network, settings

_BALANCE_FROM, _BALANCE = 1.5, 0.5  # classes whose counts differ by such a factor, or more, get weights
_SLACK, _STEP = 1.25, 8  # of counts: so many times the most that was seen, rounded up to such a multiple
_PROPOSALS = 4  # for every instance of a patch, at least


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was planned.

    config: the config with all settings of the plan, not yet validated.
    settings: list of settings.Setting, also of what stays as it was.
    truths: the anchors.Truths that the anchors were fitted to.
    levels: {"before", "start of the search", "refined"}: levels as in planning/anchors.py.
    bytes: (resident, within) of a training step, see planning/memory.py.
    """

    config: object
    settings: list
    truths: anchors.Truths
    levels: dict
    bytes: tuple


def make(config, found, *, memory_bytes, sees):
    """Plans a network for the data.

    Args:
      config: a validated Config: what is not planned, and the number of levels and anchors, stay as they are.
      found: data.fingerprint.Fingerprint of the training split.
      memory_bytes: what a training step may take on one device, with all of `train.batch_size`.
      sees: f(config) -> [(z, y, x) voxels] that each level of the pyramid sees, finest first.

    Returns:
      Plan.

    Raises:
      InputError: no instances.
    """
    if not len(found.boxes):
        raise InputError("plan: expected instances in the split train, came none")
    planner = _Planner(config, found)
    planner.grid(memory_bytes)
    planner.rois()
    levels = planner.anchors(sees)
    planner.counts()
    planner.classes()
    changed = planner.config
    needed = memory.step_bytes(
        changed.model, changed.input.patch_size, len(changed.data.classes), changed.train.batch_size
    )
    return Plan(changed, planner.settings, planner.truths(), levels, needed)


def target_spacing(found):
    """The spacing that all cases should have, rounded to 4 digits: ((z, y, x) mm, reason)."""
    target = tuple(float(f"{edge:.4g}") for edge in network.target_spacing(found.spacings, found.shapes))
    off = np.abs(np.log(found.spacings / np.array(target))).max(axis=1) > math.log(1.1)
    reason = f"{off.sum()} of {len(off)} cases differ from it by more than a tenth along some axis"
    if off.any():
        reason += "; resample the cases when they are converted, and plan again"
    return target, reason


class _Planner:
    """A copy of the config that is changed setting by setting."""

    def __init__(self, config, found):
        self.before, self.config, self.found, self.settings = config, copy.deepcopy(config), found, []
        self.mosaic = np.array(config.input.mosaic)
        self.spacing = np.median(found.spacings, axis=0)

    def put(self, name, value, reason):
        """Sets a field and keeps the reason."""
        section = self.before
        for part in name.split("."):
            section = getattr(section, part)
        settings.apply(self.config, {name: value})
        self.settings.append(settings.Setting(name, value, reason, section))

    def truths(self):
        """The boxes as the planned patches show them."""
        return anchors.truths(self.found.boxes, self.config.input.patch_size, self.config.input.rotate_planes)

    def grid(self, memory_bytes):
        """Strides, kernels, patch, and what depends on the patch alone."""
        self.put(
            "model.mask_head.roi_size",
            network.mask_roi_size(self.found.sizes),
            "a mask has twice as many bins as its roi, and as many as the median object has voxels, "
            f"{_text(np.median(self.found.sizes, axis=0))}, from 8 to 28",
        )
        extents = np.array(self.config.input.tile_size or np.median(self.found.shapes, axis=0)) * self.mosaic
        least = np.percentile(self.found.sizes, network.COVERED, axis=0)
        size, patch = extents, None
        # Fewer strides take more memory, and a smaller patch allows fewer strides: both only ever shrink.
        while patch is None or (np.array(patch) < size).any():
            size = extents if patch is None else np.minimum(size, patch)
            backbone = _strided(self.config.model.backbone, self.spacing, size)
            self.config.model.backbone = backbone
            stride = backbone.strides()[max(backbone.strides())]
            multiple = network.common_multiple(stride, self.config.input.mosaic)
            patch = network.patch_size(extents, least, multiple, lambda p: self._needs(p) <= memory_bytes)
        self._put_grid(backbone, patch, extents, least, memory_bytes)

    def _needs(self, patch):
        return sum(memory.step_bytes(self.config.model, patch, len(self.found.classes), self.config.train.batch_size))

    def _put_grid(self, backbone, patch, extents, least, memory_bytes):
        why = f"spacing {_text(self.spacing)} mm, patch {_text(patch)}: an axis is {{}} {{}}"
        strided = why.format("strided while its spacing is less than 2 times the finest", "and 4 cells remain")
        mixed = why.format("convolved over", "while its spacing is less than 2 times the finest")
        if backbone.kind == "resnet":
            self.put("model.backbone.stem_kernel", backbone.stem_kernel, mixed)
            self.put("model.backbone.stem_stride", backbone.stem_stride, strided)
            self.put("model.backbone.stem_pool", backbone.stem_pool, strided)
        self.put("model.backbone.stage_kernels", backbone.stage_kernels, mixed)
        self.put("model.backbone.stage_strides", backbone.stage_strides, strided)
        strides = backbone.strides()
        levels = self.before.model.fpn.levels
        useful = tuple(level for level in levels if level == levels[0] or strides[level] != strides[level - 1])
        self.put("model.fpn.levels", useful, f"strides {', '.join(_text(strides[level]) for level in useful)}")

        needed, held = self._needs(patch) / 1e9, memory_bytes / 1e9
        growth = math.prod(patch) / math.prod(self.before.input.patch_size)
        reason = (
            f"median volume {_text(extents)}{' with the mosaic' * bool(self.mosaic.max() > 1)}, {network.COVERED} % of "
            f"the objects within {_text(least)}; batch {self.config.train.batch_size} takes about {needed:.2g} GB of "
            f"{held:g}; {growth:.2g} times the voxels, and time of a step, of before"
        )
        if needed > held:
            reason += "; more than that, as a smaller patch would cut objects: lower train.batch_size or the widths"
        self.put("input.patch_size", patch, reason)
        self.put(
            "input.rotate_planes",
            network.turnable_planes(self.before.input.rotate_planes, patch, self.spacing),
            "those of before whose axes have one length in the patch and about one spacing",
        )
        overlap = tuple(int(min(math.ceil(edge), p // 2)) for edge, p in zip(least, patch, strict=True))
        self.put(
            "inference.overlap",
            overlap,
            f"{network.COVERED} % of the objects are found whole in some tile, if no longer than half a patch",
        )

    def rois(self):
        """Bins of rois, and where they read the pyramid."""
        head, sizes = self.before.model.box_head, self.found.sizes
        stride = self.config.model.strides()[0]
        bins = network.roi_size(sizes, stride, max(head.roi_size))
        cells = np.median(sizes, axis=0) / stride
        self.put(
            "model.box_head.roi_size",
            bins,
            f"in proportion to the median object, {_text(cells)} cells of the finest level",
        )
        self.put(
            "model.rois.canonical_size",
            tuple(round(edge, 1) for edge in network.canonical_size(sizes, stride, bins)),
            f"the median object, {_text(np.median(sizes, axis=0))} voxels, within one and two cells of {_text(stride)} "
            "per bin; up to twice this the finest level is read",
        )

    def anchors(self, sees):
        """Sizes of anchors; {"before", "start of the search", "refined"}: levels."""
        before, changed, truths = self.before.model, self.config.model, self.truths()
        old = _levels(before)
        strides, number = changed.strides(), len(old[0][1])
        changed.anchors.sizes = before.anchors.sizes[: len(strides)]
        limits = sees(self.config)
        same = [(stride, shapes) for stride, (_, shapes) in zip(strides, old, strict=False)]
        starts = [same] if len(strides) == len(old) else []
        begin, end = anchors.best(strides, number, truths, limits, starts)
        fits = {"before": anchors.fit(old, truths), "planned": anchors.fit(end, truths)}
        shares = ", ".join(
            f"{name} {fit.share_50:.0%} and {fit.share_70:.0%} (mean {fit.mean:.2f})" for name, fit in fits.items()
        )
        served = zip(strides, anchors.served(end, truths), strict=True)
        served = ", ".join(f"{share:.0%} at stride {_text(stride)}" for stride, share in served)
        self.put(
            "model.anchors.sizes",
            tuple(tuple(tuple(float(edge) for edge in shape) for shape in shapes) for _, shapes in end),
            f"truths whose best anchor has IoU 0.5 and 0.7: {shares}; the best anchor is for {served}",
        )
        self.put("model.anchors.aspects", ((1.0, 1.0, 1.0),), "the sizes are triples")
        return {"before": old, "start of the search": begin, "refined": end}

    def counts(self):
        """How many objects a patch and a volume may have."""
        patch, tiles = np.array(self.config.input.patch_size), int(self.mosaic.prod())
        most = tiles * network.most_in_a_patch(
            self.found.boxes, self.found.cases, self.found.shapes, np.minimum(patch, self.config.input.tile())
        )
        in_volume = tiles * int(np.bincount(self.found.cases).max())
        slots = _with_slack(most)
        self.put("input.max_instances", slots, f"a patch around an object shows up to {most}, and a quarter more")
        before = self.before.model.detections.max_detections
        self.put("model.detections.max_detections", max(before, slots), "no fewer than input.max_instances")
        for name in ("train_post_nms_top_k", "post_nms_top_k"):
            proposals = max(getattr(self.before.model.rpn, name), _with_slack(_PROPOSALS * most / _SLACK))
            self.put(f"model.rpn.{name}", proposals, f"at least {_PROPOSALS} for each of {most} objects of a patch")
        detections = max(self.before.inference.max_detections, _with_slack(in_volume))
        self.put("inference.max_detections", detections, f"a volume has up to {in_volume} objects, and a quarter more")

    def classes(self):
        """Weights of the classes."""
        counts = self.found.counts()
        seen = [count for count in counts.values() if count]
        ratio = max(seen) / min(seen)
        balance = _BALANCE if ratio >= _BALANCE_FROM else 0.0
        reason = f"{_counted(counts)}: {ratio:.1f} to 1, "
        reason += f"weights are frequency ** -{balance}" if balance else "about equal"
        weights = tuple(round(w, 4) for w in fingerprints.class_weights(counts, balance)) if balance else ()
        self.put("model.box_head.class_balance", balance, reason)
        self.put("model.box_head.class_weights", weights, "background, then the classes; none: all 1")


def _strided(backbone, spacing, patch):
    """A copy of the backbone whose strides and kernels suit the spacing."""
    backbone = copy.deepcopy(backbone)
    stem = 2 if backbone.kind == "resnet" else 0
    steps, kernels = backbone.stage_strides, backbone.stage_kernels
    if stem:
        steps = (backbone.stem_stride, backbone.stem_pool, *steps)
        kernels = (backbone.stem_kernel, (3, 3, 3), *kernels)
    steps, kernels = network.strides_and_kernels(steps, kernels, spacing, patch)
    if stem:
        backbone.stem_stride, backbone.stem_pool, backbone.stem_kernel = steps[0], steps[1], kernels[0]
    backbone.stage_strides, backbone.stage_kernels = steps[stem:], kernels[stem:]
    return backbone


def _levels(model):
    """The levels of a config's anchors, as in planning/anchors.py."""
    shapes = [anchor_shapes(sizes, model.anchors.aspects).astype(np.float64) for sizes in model.anchors.sizes]
    return list(zip(model.strides(), shapes, strict=True))


def _with_slack(count):
    return _STEP * max(1, math.ceil(_SLACK * count / _STEP))


def _counted(counts):
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _text(values):
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
