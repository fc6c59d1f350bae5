import dataclasses
import importlib
import json
import math
import pathlib
import re

import numpy as np
import pytest

from configs import augment_schema, model_schema, schema, train_schema
from ops import anchors as anchor_ops
from tests import tiny

FOLDER = pathlib.Path(schema.__file__).parent
NOT_EXPERIMENTS = (
    "schema",
    *(path.stem for path in FOLDER.glob("*_schema.py")),
    "checks",
    "command_line",
    "backbones",
    "training_forms",
)
EXPERIMENTS = sorted({path.stem for path in FOLDER.glob("*.py")} - {"__init__", *NOT_EXPERIMENTS})
TRIPLE = "three integers >= 1 (z, y, x)"
NUMBERS = "three numbers > 0 (z, y, x)"
SHARE = "a number in [0, 1]"
COARSEST = ((2, 2, 2), (2, 2, 2), (2, 2, 2))

# Field, value, what the message expects, and, where the message names something else, that name and that value.
WRONG = [
    # Types.
    ("name", 3, "str"),
    ("data", {}, "Data"),
    ("train.steps", 2.5, "int"),
    ("train.steps", True, "int"),
    ("train.learning_rate", "fast", "float"),
    ("train.learning_rate", False, "float"),
    ("input.patch_size", [64, 64, 64], "tuple"),
    # data
    ("data.classes", (), "at least one class"),
    ("data.classes", ("a", "a"), "different, non-empty names"),
    ("data.classes", ("a", ""), "different, non-empty names"),
    ("data.classes", ("cell", "mean"), "names other than pooled, mean (the metrics use these)"),
    ("data.classes", ("pooled",), "names other than pooled, mean (the metrics use these)"),
    ("data.split_seed", -1, ">= 0"),
    ("data.labels", "masks", "one of instances, semantic, boxes, dicom_seg, hits"),
    ("data.box_unit", "cm", "one of voxels, mm"),
    ("data.part_longer_than", -1.0, "0 (none), or with data.labels semantic a finite number of mm"),
    ("data.part_longer_than", 40.0, "0 (none), or with data.labels semantic a finite number of mm"),
    ("data.channel_suffixes", ("_0", "_0"), "different, non-empty ends of names, none of them the end of another"),
    ("data.channel_suffixes", ("_1", "_1_1"), "different, non-empty ends of names, none of them the end of another"),
    ("data.channel_suffixes", ("",), "different, non-empty ends of names, none of them the end of another"),
    ("data.folds", 1, "0 (none) or >= 2"),
    ("data.folds", -2, "0 (none) or >= 2"),
    ("data.fold", 1, "in [0, 1) of data.folds"),
    ("data.hits.unit", "m", "one of mm, cm"),
    ("data.min_voxels", 0, ">= 1"),
    ("data.shard_megabytes", 0, ">= 1"),
    ("data.split_fractions", (0.8, 0.1), "three fractions (train, val, test) that add up to 1"),
    ("data.split_fractions", (0.8, 0.1, 0.2), "three fractions (train, val, test) that add up to 1"),
    ("data.split_fractions", (1.5, -0.5, 0.0), "three fractions (train, val, test) that add up to 1"),
    ("data.split_fractions", ("a", "b", "c"), "three fractions (train, val, test) that add up to 1"),
    ("data.synthetic.shape", (8, 8), TRIPLE),
    ("data.synthetic.count", (5, 3), "(low, high) with 0 <= low <= high"),
    ("data.synthetic.count", (5, "many"), "(low, high) with 0 <= low <= high"),
    ("data.synthetic.contrast", (-0.1, 0.3), "(low, high) with 0 <= low <= high"),
    ("data.synthetic.count", (1, 2.5), "integers >= 0"),
    ("data.synthetic.base_size", 0.0, "> 0"),
    ("data.synthetic.num_val", -1, ">= 0"),
    ("data.synthetic.seed", -1, ">= 0"),
    # input
    ("input.patch_size", (64, 64), TRIPLE),
    ("input.patch_size", (64, 64.0, 64), TRIPLE),
    ("input.patch_size", (64, 0, 64), TRIPLE),
    ("input.mosaic", (1, 1, 0), TRIPLE),
    ("input.tile_size", (64, 64), TRIPLE),
    ("input.tile_size", (64, 64, 64), "() without an input.mosaic"),
    ("input.channels", 0, ">= 1"),
    ("input.max_instances", 0, ">= 1"),
    ("input.min_visible_voxels", 0, ">= 1"),
    ("input.num_readers", 0, ">= 1"),
    ("input.num_augmenters", 0, ">= 1"),
    ("input.augment.blur.probability", -0.1, SHARE),
    ("input.normalization", "robust", "one of zscore, minmax, percentile, window, dataset, none"),
    ("input.window", (3.0, 3.0), "two finite numbers (low, high), low < high"),
    ("input.window", (0.0, math.inf), "two finite numbers (low, high), low < high"),
    ("input.intensity_mean", (1.0, 2.0), "() or a finite number for each of 1 channel(s)"),
    ("input.intensity_mean", (1.0,), "numbers >= 0, as many as input.intensity_mean", "input.intensity_std", ()),
    ("input.foreground_by", "volume", "one of instance, class"),
    ("input.on_corrupt", "ignore", "one of fail, skip"),
    ("input.max_corrupt", -1, ">= 0"),
    ("input.foreground", 1.5, SHARE),
    ("input.flip_axes", (True, True), "three booleans (z, y, x)"),
    ("input.flip_axes", (True, True, 1), "three booleans (z, y, x)"),
    ("input.rotate_planes", ((0, 0),), "pairs of different axes 0, 1, 2", "input.rotate_planes", (0, 0)),
    ("input.rotate_planes", ((0, 3),), "pairs of different axes 0, 1, 2", "input.rotate_planes", (0, 3)),
    ("input.rotate_planes", ((0, 1.0),), "pairs of different axes 0, 1, 2", "input.rotate_planes", (0, 1.0)),
    ("input.rotate_planes", (([0], 1),), "pairs of different axes 0, 1, 2", "input.rotate_planes", ([0], 1)),
    ("input.rotate_planes", (0, 1), "pairs", "input.rotate_planes", 0),
    ("input.mosaic", (1, 3, 1), "a multiple of input.mosaic (1, 3, 1)", "input.patch_size", (64, 64, 64)),
    # model.backbone
    ("model.backbone.stem_stride", (2, 2), TRIPLE),
    ("model.backbone.stem_channels", 0, ">= 1"),
    ("model.backbone.stem_kernel", (3, 3, 0), TRIPLE),
    ("model.backbone.stage_channels", (32, 64, "x"), "integers >= 1"),
    ("model.backbone.stage_channels", (32, 64, 0), "integers >= 1"),
    ("model.backbone.stage_channels", (32, 64.0, 64), "integers >= 1"),
    ("model.backbone.stage_blocks", (1, 0, 1), "integers >= 1"),
    ("model.backbone.stage_blocks", (1, 1.5, 1), "integers >= 1"),
    ("model.backbone.stage_blocks", (1, True, 1), "integers >= 1"),
    ("model.backbone.stage_channels", (), "at least one stage"),
    ("model.backbone.stage_blocks", (1, 2), "3 entries, one per stage"),
    ("model.backbone.stage_strides", COARSEST[:2], "3 entries, one per stage"),
    ("model.backbone.stage_strides", (2, 2, 2), TRIPLE, "model.backbone.stage_strides", 2),
    ("model.backbone.stage_kernels", COARSEST[:2], "3 entries, one per stage"),
    ("model.backbone.kind", "vgg", "one of resnet, plain"),
    ("model.backbone.block", "wide", "one of basic, bottleneck"),
    ("model.backbone.cardinality", 2, "1 without bottleneck blocks"),
    ("model.backbone.bottleneck_ratio", 0, ">= 1"),
    ("model.backbone.width_multiplier", 0.0, "> 0"),
    ("model.backbone.dropout", 1.0, "a number in [0, 1)"),
    ("model.backbone.stochastic_depth", -0.1, "a number in [0, 1)"),
    # model.style
    ("model.style.norm", "weight", "one of group, batch, sync_batch, frozen_batch, instance, layer, none"),
    ("model.style.norm_groups", 0, ">= 1"),
    ("model.style.activation", "tanh", "one of relu, leaky_relu, prelu"),
    ("model.style.kernel", (3, 3), TRIPLE),
    ("model.style.initializer", "zeros", "one of he_normal, he_uniform, glorot_normal, glorot_uniform"),
    ("model.style.l2", -1.0, ">= 0"),
    # model.fpn
    ("model.fpn.channels", 0, ">= 1"),
    ("model.fpn.levels", (3, 2), "consecutive levels of the backbone's (1, 2, 3, 4)"),
    ("model.fpn.levels", (4, 5), "consecutive levels of the backbone's (1, 2, 3, 4)"),
    ("model.fpn.levels", (), "consecutive levels of the backbone's (1, 2, 3, 4)"),
    ("model.fpn.extra", "both", "one of none, pool, conv"),
    ("model.fpn.upsampling", "cubic", "one of nearest, trilinear"),
    # model
    ("model.anchors.sizes", ((8.0,),), "3 entries, one per level of the pyramid"),
    ("model.anchors.sizes", ((), (), ()), "a non-empty tuple of sizes for every level", "model.anchors.sizes", ()),
    (
        "model.anchors.sizes",
        ((8.0,), (8.0, 9.0), (8.0,)),
        "1 sizes on every level, as on the first (the levels share one head)",
        "model.anchors.sizes",
        (8.0, 9.0),
    ),
    ("model.anchors.sizes", ((8.0,), (0.0,), (8.0,)), NUMBERS, "model.anchors.sizes", (0.0, 0.0, 0.0)),
    ("model.anchors.sizes", ((8.0,), ((1, 2),), (8.0,)), NUMBERS, "model.anchors.sizes", (1, 2)),
    ("model.anchors.aspects", (), "at least one aspect"),
    ("model.anchors.aspects", ((1.0, -1.0, 1.0),), NUMBERS, "model.anchors.aspects", (1.0, -1.0, 1.0)),
    ("model.fpn.extra_stride", (2, 2), TRIPLE),
    ("model.rpn.positive_iou", 1.2, SHARE),
    ("model.rpn.negative_iou", -0.2, SHARE),
    ("model.rpn.positive_fraction", 2.0, SHARE),
    ("model.rpn.nms_iou", 7, SHARE),
    ("model.rpn.negative_iou", 0.9, "<= positive_iou {positive_iou}"),
    ("model.rpn.channels", 0, ">= 1"),
    ("model.rpn.num_samples", -1, ">= 0"),
    ("model.rpn.focal_prior", 0.0, "a number in (0, 1)"),
    ("model.rpn.focal_prior", 1.0, "a number in (0, 1)"),
    ("model.rpn.pre_nms_top_k", 0, ">= 1"),
    ("model.rpn.post_nms_top_k", 0, ">= 1"),
    ("model.rpn.train_pre_nms_top_k", 0, ">= 1"),
    ("model.rpn.train_post_nms_top_k", 0, ">= 1"),
    ("model.rpn.atss_candidates", 0, ">= 1"),
    ("model.rpn.hard_negative_pool", 0, ">= 1"),
    ("model.rpn.min_size", -1.0, ">= 0"),
    ("model.rpn.objectness", "both", "one of sigmoid, softmax"),
    ("model.rpn.class_loss", "hinge", "one of cross_entropy, focal"),
    ("model.rpn.focal_alpha", 1.5, SHARE),
    ("model.rpn.focal_gamma", -1.0, ">= 0"),
    ("model.rpn.beta", 0.0, "> 0"),
    ("model.rpn.box_loss", "l2", "one of smooth_l1, giou, diou, ciou"),
    ("model.rpn.assignment", "all", "one of iou, atss"),
    ("model.rpn.sampling", "all", "one of balanced, hard_negative"),
    ("model.rois.num_samples", 0, ">= 1"),
    ("model.rois.positive_fraction", -1.0, SHARE),
    ("model.rois.positive_iou", 1.1, SHARE),
    ("model.rois.sampling_ratio", 0, ">= 1"),
    ("model.rois.canonical_size", (1.0, 0.0, 1.0), NUMBERS),
    ("model.box_head.roi_size", (7, 7), TRIPLE),
    ("model.box_head.hidden", 0, ">= 1"),
    ("model.box_head.num_convs", -1, ">= 0"),
    ("model.box_head.dropout", 1.0, "a number in [0, 1)"),
    ("model.box_head.class_loss", "hinge", "one of cross_entropy, focal"),
    ("model.box_head.focal_gamma", -0.5, ">= 0"),
    ("model.box_head.beta", -1.0, "> 0"),
    ("model.box_head.box_loss", "l2", "one of smooth_l1, giou, diou, ciou"),
    ("model.box_head.class_weights", (1.0, 2.0), "none or 4 numbers >= 0, background first"),
    ("model.box_head.class_weights", (1.0, 2.0, -1.0, 1.0), "none or 4 numbers >= 0, background first"),
    ("model.box_head.cascade_ious", (0.6, 0.5), "rising numbers between 0 and 1"),
    ("model.box_head.cascade_ious", (0.0, 0.5), "rising numbers between 0 and 1"),
    ("model.attribute_head.scale", "sqrt", "one of log, linear"),
    ("model.attribute_head.loss", "l1", "one of smooth_l1, linex"),
    ("model.attribute_head.sums", "cosh", "one of none, linear, sinh"),
    ("model.attribute_head.sums_by_layer", True, "False with model.attribute_head.sums none"),
    ("model.attribute_head.hidden", 0, ">= 1"),
    ("model.attribute_head.num_dense", -1, ">= 0"),
    ("model.attribute_head.beta", 0.0, "> 0"),
    ("model.keypoint_head.roi_size", (7, 7), TRIPLE),
    ("model.keypoint_head.channels", 0, ">= 1"),
    ("model.keypoint_head.num_convs", -1, ">= 0"),
    ("model.detections.suppression", "all", "one of nms, soft_linear, soft_gaussian"),
    ("model.detections.soft_sigma", 0.0, "> 0"),
    ("model.mask_head.roi_size", (7, 7, 0), TRIPLE),
    ("model.mask_head.answer_roi_size", (7, 0, 7), TRIPLE),
    ("model.mask_head.answer_roi_size", (7, 7), TRIPLE),
    ("model.mask_head.margin", (0, -1, 0), "three integers >= 0 (z, y, x)"),
    ("model.mask_head.margin", (0, 1, 0), "(0, 0, 0) without model.detections.boxes masks"),
    ("model.mask_head.channels", 0, ">= 1"),
    ("model.mask_head.losses", (), "one or more of cross_entropy, focal, dice, each once"),
    ("model.mask_head.losses", ("dice", "dice"), "one or more of cross_entropy, focal, dice, each once"),
    ("model.mask_head.losses", ("hinge",), "one or more of cross_entropy, focal, dice, each once"),
    ("model.mask_head.focal_alpha", -0.1, SHARE),
    ("model.mask_head.focal_gamma", -2.0, ">= 0"),
    ("model.mask_head.num_convs", -1, ">= 0"),
    ("model.detections.score_threshold", 1.5, SHARE),
    ("model.detections.nms_iou", -0.5, SHARE),
    ("model.detections.mask_threshold", 3.0, SHARE),
    ("model.detections.boxes", "both", "one of head, masks"),
    ("model.segmentation.channels", -1, ">= 0"),
    ("train.loss_weights.segmentation", -1.0, ">= 0"),
    ("model.detections.max_detections", 0, ">= 1"),
    # train
    ("train.batch_size", 0, ">= 1"),
    ("train.steps", 0, ">= 1"),
    ("train.steps_per_loop", 0, ">= 1"),
    ("train.checkpoint_steps", 0, ">= 1"),
    ("train.keep_checkpoints", 0, ">= 1"),
    ("train.learning_rate", 0.0, "> 0"),
    ("train.clip_norm", 0.0, "> 0"),
    ("train.weight_decay", -1e-4, ">= 0"),
    ("train.seed", -1, "in [0, 2^30)"),
    ("train.seed", 2**30, "in [0, 2^30)"),
    ("train.warmup_steps", -1, "in [0, {steps}), the steps of stage joint"),
    ("train.warmup_steps", 99999, "in [0, {steps}), the steps of stage joint"),
    ("train.precision", "float64", "one of float32, mixed_bfloat16, mixed_float16"),
    ("train.inflate", "mirror", "one of centre, repeat"),
    ("train.classifier_crop", (8, 8), TRIPLE),
    ("train.stages", ("joint",), "a tuple of Stage", "train.stages", "joint"),
    ("data.attributes", ("a", "a"), "different, non-empty names other than class and keypoints"),
    ("data.attributes", ("class",), "different, non-empty names other than class and keypoints"),
    ("data.attributes", ("keypoints",), "different, non-empty names other than class and keypoints"),
    ("data.keypoints", ("a", "a"), "different, non-empty names other than class and data.attributes"),
    ("data.keypoints", ("a", ""), "different, non-empty names other than class and data.attributes"),
    ("data.keypoints", ("class",), "different, non-empty names other than class and data.attributes"),
    ("train.loss_weights.mask", -1.0, ">= 0"),
    ("train.optimizer.name", "adagrad", "one of adamw, adam, sgd, lamb, ranger"),
    ("train.optimizer.momentum", 1.0, "in [0, 1)"),
    ("train.optimizer.beta_2", -0.1, "in [0, 1)"),
    ("train.optimizer.epsilon", 0.0, "> 0"),
    ("train.optimizer.slow_steps", 0, ">= 1"),
    ("train.optimizer.slow_share", 0.0, "in (0, 1]"),
    (
        "train.schedule.name",
        "step",
        "one of cosine, constant, exponential, polynomial, piecewise, cyclical, plateau",
    ),
    ("train.schedule.end", 1.5, SHARE),
    ("train.schedule.power", 0.0, "> 0"),
    ("train.schedule.boundaries", (0.9, 0.6), "rising shares in (0, 1)"),
    ("train.schedule.boundaries", (0.5, 1.0), "rising shares in (0, 1)"),
    ("train.schedule.factor", 1.0, "in (0, 1)"),
    ("train.schedule.floor", -0.1, SHARE),
    ("train.schedule.half_cycle_steps", 0, ">= 1"),
    ("train.schedule.patience", 0, ">= 1"),
    ("train.schedule.name", "plateau", ">= 1 with plateau", "train.evaluation.steps", 0),
    ("train.schedule.name", "exponential", "> 0 for exponential", "train.schedule.end", 0.0),
    ("train.average.name", "mean", "one of none, ema, swa"),
    ("train.average.decay", 1.0, "in [0, 1)"),
    ("train.average.begin", 1.0, "in [0, 1)"),
    ("train.average.every", 0, ">= 1"),
    ("train.evaluation.steps", -1, ">= 0"),
    ("train.evaluation.split", "all", "one of train, val, test"),
    ("train.evaluation.final_split", "all", "one of train, val, test"),
    ("train.evaluation.max_volumes", 0, ">= 1"),
    ("train.evaluation.metric", "", "the name of a metric"),
    ("train.evaluation.patience", 2, ">= 1 with a patience", "train.evaluation.steps", 0),
    ("train.on_non_finite", "ignore", "one of stop, skip"),
    ("train.max_non_finite", -1, ">= 0"),
    ("train.keep_hours", -1.0, ">= 0"),
    ("train.inspect_steps", -1, ">= 0"),
    ("train.accumulation", 0, ">= 1"),
    ("train.accumulation", 4, "a multiple of train.accumulation 4", "train.batch_size", 2),
    ("train.loss_weights.l2", float("nan"), ">= 0"),
    # inference
    ("inference.flip_axes", (True, 0, True), "three booleans (z, y, x)"),
    ("inference.overlap", (64, 0, 0), "three integers in [0, patch_size (64, 64, 64))"),
    ("inference.overlap", (16.0, 16, 16), "three integers in [0, patch_size (64, 64, 64))"),
    ("inference.overlap", ("a", 1, 2), "three integers in [0, patch_size (64, 64, 64))"),
    ("inference.overlap", (8, 8), "three integers in [0, patch_size (64, 64, 64))"),
    ("inference.merge_iou", 1.5, SHARE),
    ("inference.max_detections", 0, ">= 1"),
]


def parent_of(config, field):
    """The section that holds a dotted field, and the field's own name."""
    *path, last = field.split(".")
    for name in path:
        config = getattr(config, name)
    return config, last


class ValidateTest:
    @pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[0]}={case[1]}")
    def test_message_names_field_expectation_and_what_came(self, case):
        field, value, expected, *named = case
        name, came = named or (field, value)
        config = schema.Config()
        section, last = parent_of(config, field)
        expected = expected.replace("{steps}", str(config.train.steps))
        expected = expected.replace("{positive_iou}", str(config.model.rpn.positive_iou))
        setattr(section, last, value)
        with pytest.raises(ValueError, match="config") as raised:
            config.validate()
        assert str(raised.value) == f"config {name}: expected {expected}, came {came!r}"

    def test_defaults_are_valid(self):
        config = schema.Config()
        assert config.validate() is config

    @pytest.mark.parametrize(("norm", "depth"), [("group", 0.1), ("batch", 0.0), ("sync_batch", 0.0)])
    def test_what_is_computed_again_has_to_come_out_the_same(self, norm, depth):
        config = schema.Config()
        config.train.recompute = True
        config.validate()
        config.model.style.norm, config.model.backbone.stochastic_depth = norm, depth
        with pytest.raises(ValueError, match=r"config train\.recompute: expected False with .*, came True") as raised:
            config.validate()
        assert f"norm {norm} and model.backbone.stochastic_depth {depth}" in str(raised.value)

    def test_linex_is_of_logarithms(self):
        config = schema.Config()
        config.model.attribute_head.loss = "linex"
        config.validate()
        config.model.attribute_head.scale = "linear"
        words = "expected smooth_l1 with model.attribute_head.scale linear, came 'linex'"
        with pytest.raises(ValueError, match=words):
            config.validate()

    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            ("input.flip_axes", (False, True, True), (True, False, False)),
            ("inference.flip_axes", (False, True, True), (True, False, False)),
            ("input.rotate_planes", ((1, 2),), ((0, 2),)),
            ("input.mosaic", (1, 2, 2), (2, 1, 1)),
        ],
    )
    def test_layers_that_are_summed_by_themselves_stay_where_they_are(self, field, good, bad):
        config = schema.Config()
        config.input.flip_axes, config.input.rotate_planes = (False, True, True), ((1, 2),)
        config.model.attribute_head.sums, config.model.attribute_head.sums_by_layer = "linear", True
        section, name = field.split(".")
        setattr(getattr(config, section), name, good)
        config.validate()
        setattr(getattr(config, section), name, bad)
        words = re.escape(f"sums_by_layer: expected False with {field} {bad}, which moves layers along z, came True")
        with pytest.raises(ValueError, match=words):
            config.validate()

    @pytest.mark.parametrize("kind", schema.NORMALIZATIONS)
    def test_a_sinh_is_of_what_all_volumes_have_alike(self, kind):
        config = schema.Config()
        config.model.attribute_head.sums, config.input.normalization = "sinh", kind
        if kind in ("window", "dataset", "none"):
            config.validate()
        else:
            words = f"config model.attribute_head.sums: expected none or linear with input.normalization {kind}, which"
            with pytest.raises(ValueError, match=words):
                config.validate()
        config.model.attribute_head.sums = "linear"
        config.validate()

    def test_a_segmentation_is_learnt_where_there_is_one(self):
        config = schema.Config()
        config.train.stages = (train_schema.Stage("voxels", learns=("rpn", "segmentation")),)
        words = "config train.stages voxels learns: expected no segmentation without model.segmentation.channels, came"
        with pytest.raises(ValueError, match=words):
            config.validate()
        config.model.segmentation.channels = 8
        config.validate()

    def test_adam_has_no_weight_decay(self):
        config = schema.Config()
        config.train.optimizer.name = "adam"
        assert config.without_effect() == []
        config.train.weight_decay = 0.1
        assert config.without_effect() == ["train.weight_decay 0.1 has no effect with train.optimizer.name adam"]

    def test_integers_pass_as_floats(self):
        config = schema.Config()
        config.train.learning_rate, config.model.rpn.min_size = 1, 2
        assert config.validate().train.learning_rate == 1

    @pytest.mark.parametrize(
        ("section", "field", "value"),
        [
            ("backbone", "stem_channels", 20),
            ("backbone", "stage_channels", (32, 20, 64)),
            ("box_head", "channels", 20),
            ("mask_head", "channels", 20),
        ],
    )
    def test_channels_that_do_not_fall_into_groups(self, section, field, value):
        config = schema.Config()
        setattr(getattr(config.model, section), field, value)
        expected = r"config model.* expected a multiple of model\.style\.norm_groups 8, came 20"
        with pytest.raises(ValueError, match=expected):
            config.validate()
        config.model.style.norm = "batch"
        assert config.validate() is config

    @pytest.mark.parametrize("field", ["model.backbone.stage_channels", "model.keypoint_head.channels"])
    def test_channels_that_nothing_normalises_need_no_groups(self, field):
        config = schema.Config()
        if "backbone" in field:  # inside a bottleneck there would be 6, 12 and 24
            config.model.backbone.kind, config.model.backbone.block = "plain", "bottleneck"
            config.model.fpn.levels, value = (1, 2, 3), (24, 48, 96)
        else:
            value = 20
        section, last = parent_of(config, field)
        setattr(section, last, value)
        assert config.validate() is config
        config.model.backbone.kind, config.model.keypoint_head.enabled = "resnet", True
        with pytest.raises(ValueError, match=r"expected a multiple of model\.style\.norm_groups 8, came (6|20)"):
            config.validate()

    def test_no_anchor_inside_the_patch(self):
        config = schema.Config()
        config.input.patch_size, config.input.rotate_planes = (8, 64, 64), ()
        config.inference.overlap = (4, 16, 16)
        config.model.anchors.sizes = ((8.0,), (16.0,), ((5.0, 16.0, 16.0),))  # the centre of a cell is at 8 or beyond
        assert config.validate() is config
        config.model.rpn.cross_boundary = False
        words = r"config model\.rpn\.cross_boundary: expected True, as no anchor lies inside the patch \(8, 64, 64\)"
        with pytest.raises(ValueError, match=f"{words}, came False"):
            config.validate()
        config.model.anchors.aspects = ((1.0, 1.0, 1.0), (0.25, 1.0, 1.0))
        assert config.validate() is config

    @pytest.mark.parametrize("seed", range(30))
    def test_an_anchor_is_inside_where_the_list_of_all_has_one(self, seed):
        rng = np.random.default_rng(seed)
        strides = [tuple(int(s) for s in rng.integers(1, 9, 3)) for _ in range(2)]
        patch = tuple(int(n) for n in rng.integers(4, 30, 3))
        sizes = tuple(tuple(tuple(float(e) for e in rng.uniform(3, 25, 3)) for _ in range(2)) for _ in strides)
        anchors = model_schema.Anchors(sizes=sizes, aspects=((1.0, 1.0, 1.0), (0.5, 1.5, 1.0)))
        inside = False
        for stride, level in zip(strides, sizes, strict=True):
            grid = [-(-n // s) for n, s in zip(patch, stride, strict=True)]
            boxes = anchor_ops.level_anchors(grid, stride, anchor_ops.anchor_shapes(level, anchors.aspects))
            inside |= not np.all(anchor_ops.crosses_boundary(boxes, patch))
        assert anchors.fit(strides, patch) == inside

    def test_delta_weights_are_six(self):
        config = schema.Config()
        for weights in ((1.0,) * 5, (1.0,) * 7, (0.0,) * 6):
            config.model.box_head.delta_weights = weights
            with pytest.raises(
                ValueError, match=r"config model\.box_head\.delta_weights .*: expected three numbers > 0"
            ):
                config.validate()

    def test_planes_of_unequal_sides_cannot_be_rotated(self):
        config = schema.Config()
        config.input.patch_size = (32, 64, 64)
        with pytest.raises(ValueError, match=r"expected axes of equal patch_size \(32, 64, 64\), came \(0, 1\)"):
            config.validate()
        config.input.rotate_planes = ((1, 2),)
        assert config.validate() is config

    def test_a_landmark_with_the_name_of_an_attribute(self):
        config = schema.Config()
        config.data.attributes, config.data.keypoints = ("energy", "tip"), ("tip", "root")
        with pytest.raises(ValueError, match=r"data.keypoints: expected different, .* came \('tip', 'root'\)"):
            config.validate()
        config.data.keypoints = ("peak", "root")
        assert config.validate() is config

    def test_misspelt_field(self):
        with pytest.raises(AttributeError, match="nms_iuo"):
            schema.Config().model.rpn.nms_iuo = 0.5


class StridesTest:
    def test_steps_of_each_axis_multiply(self):
        backbone = model_schema.Backbone(stem_stride=(1, 2, 2), stage_strides=((1, 1, 1), (2, 2, 3), (1, 2, 1)))
        assert backbone.strides() == {1: (1, 2, 2), 2: (1, 2, 2), 3: (2, 4, 6), 4: (2, 8, 6)}

    def test_stem_pool_counts_from_the_first_stage_on(self):
        backbone = model_schema.Backbone(stem_stride=(1, 2, 2), stem_pool=(1, 2, 2), stage_strides=((1, 1, 1),) * 3)
        assert backbone.strides() == {1: (1, 2, 2), 2: (1, 4, 4), 3: (1, 4, 4), 4: (1, 4, 4)}

    def test_plain_backbone_has_no_stem(self):
        backbone = model_schema.Backbone(kind="plain", stage_strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
        assert backbone.strides() == {1: (1, 1, 1), 2: (1, 2, 2), 3: (2, 4, 4)}

    def test_extra_level_of_the_pyramid_is_coarser_by_its_stride(self):
        model = model_schema.Model()
        model.fpn.levels, model.fpn.extra = (3, 4), "pool"
        assert model.strides() == [(8, 8, 8), (16, 16, 16), (32, 32, 32)]
        model.fpn.extra_stride = (1, 2, 3)
        assert model.strides()[-1] == (16, 32, 48)


class WithoutEffectTest:
    @pytest.mark.parametrize(
        ("changes", "lines"),
        [
            ({}, []),
            ({"model.backbone.kind": "plain"}, []),
            (
                {
                    "model.backbone.kind": "plain",
                    "model.backbone.stem_stride": (1, 2, 2),
                    "model.backbone.stochastic_depth": 0.2,
                },
                [
                    "model.backbone.stem_stride (1, 2, 2) has no effect with kind plain",
                    "model.backbone.stochastic_depth 0.2 has no effect with kind plain",
                ],
            ),
            (
                {"model.backbone.stride_in_pointwise": True, "model.backbone.stochastic_depth": 0.2},
                ["model.backbone.stride_in_pointwise True has no effect with block basic"],
            ),
            ({"model.backbone.block": "bottleneck", "model.backbone.stride_in_pointwise": True}, []),
            (
                {"model.attribute_head.loss": "linex", "model.attribute_head.beta": 0.2},
                ["model.attribute_head.beta 0.2 has no effect with loss linex"],
            ),
            ({"model.attribute_head.beta": 0.2}, []),
            (
                {"model.attribute_head.sums": "linear"},
                ["model.attribute_head.sums linear has no effect without data.attributes"],
            ),
            ({"model.attribute_head.sums": "linear", "data.attributes": ("energy",)}, []),
            (
                {"data.keypoints": ("tip", "root")},
                ["data.keypoints ('tip', 'root') have no effect without model.keypoint_head.enabled"],
            ),
            ({"data.keypoints": ("tip", "root"), "model.keypoint_head.enabled": True}, []),
            (
                {"train.stages": (train_schema.Stage(),), "train.steps": 7},
                ["train.steps 7 has no effect beside train.stages, which have their own"],
            ),
        ],
    )
    def test_settings_that_were_changed_for_nothing_are_named(self, changes, lines):
        config = schema.Config()
        for field, value in changes.items():
            section, last = parent_of(config, field)
            setattr(section, last, value)
        assert config.without_effect() == lines


class SumsThatChangeTest:
    @pytest.mark.parametrize(
        ("sums", "steps", "expected"),
        [
            ("sinh", ("blur", "noise"), "blur, noise"),
            ("sinh", ("brightness", "affine"), "affine, brightness"),
            ("linear", ("blur", "noise", "elastic", "low_resolution", "contrast"), "elastic, contrast"),
            ("linear", ("blur", "noise"), None),
            ("none", ("blur", "affine"), None),
            ("sinh", (), None),
        ],
    )
    def test_augmentation_that_changes_what_is_summed_up_is_named(self, sums, steps, expected):
        config = schema.Config()
        config.data.attributes, config.model.attribute_head.sums = ("energy",), sums
        config.input.augment = augment_schema.none()
        for step in steps:
            getattr(config.input.augment, step).probability = 0.1
        lines = [
            f"input.augment.{expected} change what model.attribute_head.sums {sums} adds up, and attributes stay as "
            "they are: their probability should be 0"
        ]
        assert config.warnings() == (lines if expected else [])

    def test_not_without_attributes(self):
        config = schema.Config()
        config.model.attribute_head.sums = "linear"
        assert config.warnings() == config.without_effect()


LEARNS = "train.stages b learns: expected some of rpn, heads and segmentation, or alone classifier or attributes, came"


class StagesTest:
    def test_without_stages_everything_is_learnt_jointly(self):
        stages = schema.Train(steps=70, learning_rate=0.5).as_stages()
        assert stages == (train_schema.Stage("joint", 70, 0.5, ("rpn", "heads"), ("all",), ""),)

    @pytest.mark.parametrize(
        ("stage", "words"),
        [
            ({"name": ""}, "train.stages name: expected a new name of letters, digits, _ and -, came ''"),
            ({"name": "a"}, "train.stages name: expected a new name of letters, digits, _ and -, came 'a'"),
            ({"name": "../b"}, "train.stages name: expected a new name of letters, digits, _ and -, came '../b'"),
            ({"name": "b\n"}, "train.stages name: expected a new name of letters, digits, _ and -, came 'b\\n'"),
            ({"steps": 0}, "train.stages b steps: expected >= 1, came 0"),
            ({"steps": 2.5}, "train.stages b steps: expected int, came 2.5"),
            ({"learning_rate": 0.0}, "train.stages b learning_rate: expected > 0, came 0.0"),
            (
                {"learns": ()},
                f"{LEARNS} ()",
            ),
            (
                {"learns": ("rpn", "classifier")},
                f"{LEARNS} ('rpn', 'classifier')",
            ),
            (
                {"learns": ("heads", "attributes")},
                f"{LEARNS} ('heads', 'attributes')",
            ),
            (
                {"learns": ("attributes",)},
                "train.stages b learns: expected no attributes without data.attributes, came ('attributes',)",
            ),
            ({"trainable": ()}, "train.stages b trainable: expected at least one pattern, came ()"),
            ({"proposals_of": "c"}, "train.stages b proposals_of: expected an earlier stage of a, came 'c'"),
            (
                {"learns": ("rpn",), "proposals_of": "a"},
                "train.stages b proposals_of: expected none where learns ('rpn',) is without heads, came 'a'",
            ),
            ({"steps": 50}, "train.warmup_steps: expected in [0, 50), the steps of stage b, came 100"),
        ],
    )
    def test_message_names_the_stage(self, stage, words):
        config = schema.Config()
        config.train.stages = (train_schema.Stage("a"), train_schema.Stage(**{"name": "b", **stage}))
        with pytest.raises(ValueError, match=f"^{re.escape(f'config {words}')}$"):
            config.validate()

    def test_changed_settings_that_stages_have_of_their_own(self):
        stages = (train_schema.Stage("from_c4"),)
        assert schema.Train(steps=70, learning_rate=0.5).without_effect() == []
        assert schema.Train(stages=stages).without_effect() == []
        assert schema.Train(stages=stages, steps=70, learning_rate=0.5).without_effect() == [
            "train.steps 70 has no effect beside train.stages, which have their own",
            "train.learning_rate 0.5 has no effect beside train.stages, which have their own",
        ]

    def test_json_keeps_stages(self):
        config = schema.Config()
        config.train.stages = (train_schema.Stage("a"), train_schema.Stage("b", learns=("heads",), proposals_of="a"))
        assert schema.from_json(schema.to_json(config)).train.stages == config.train.stages


class JsonTest:
    def test_round_trip(self):
        config = tiny.config(steps=77)
        again = schema.from_json(schema.to_json(config))
        assert again == config
        assert schema.differences(again, config) == []
        assert again.model.anchors.sizes == config.model.anchors.sizes  # tuples again

    def test_text_is_plain_and_ends_with_a_line(self):
        text = schema.to_json(tiny.config())
        assert text.endswith("}\n")
        assert json.loads(text)["model"]["backbone"]["stem_stride"] == [1, 2, 2]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "Expecting property name"),
            ("[1, 2]", "'int' object has no attribute 'items'"),
            ('{"train": 3}', "'int' object has no attribute 'items'"),
            ('{"optimiser": {}}', "unexpected keyword argument 'optimiser'"),
            ('{"train": {"momentum": 0.9}}', "unexpected keyword argument 'momentum'"),
        ],
    )
    def test_text_of_another_version(self, text, words):
        with pytest.raises(ValueError, match=f"expected a config written by this version, came: .*{words}"):
            schema.from_json(text)

    def test_values_are_checked(self):
        with pytest.raises(ValueError, match=r"config train\.steps: expected >= 1, came 0"):
            schema.from_json('{"train": {"steps": 0}}')


class DifferencesTest:
    def test_names_and_both_values(self):
        ours, theirs = schema.Config(), schema.Config()
        ours.train.loss_weights.mask, ours.name = 2.0, "b"
        ours.model.backbone.stem_stride = (1, 2, 2)
        assert schema.differences(ours, theirs) == [
            "name: shapes -> b",
            "model.backbone.stem_stride: (2, 2, 2) -> (1, 2, 2)",
            "train.loss_weights.mask: 1.0 -> 2.0",
        ]

    def test_every_field_is_looked_at(self):
        fields = list(schema._flatten("", schema.Config()))
        assert len(fields) == len(set(fields)) > 60
        assert not any(dataclasses.is_dataclass(value) for value in schema._flatten("", schema.Config()).values())


class ConfigFilesTest:
    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_experiment_is_valid_and_has_a_folder_of_its_own(self, name):
        config = importlib.import_module(f"configs.{name}").get_config()
        assert config.validate() is config
        assert config.name == name
        assert config.data.records == f"runs/{name}/records"
