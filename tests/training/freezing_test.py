import re

import pytest
import tensorflow as tf

from configs import train_schema
from tests import tiny
from tests.model import networks
from training import freezing


@pytest.fixture(name="model", scope="module")
def fixture_model():
    return tiny.model(tiny.config())


def trainable(model, *patterns):
    """Names of the variables that train, without the model's own."""
    freezing.set_trainable(model, patterns)
    return {v.name.split("/", 1)[1] for v in model.trainable_variables}


def parts(names):
    return {name.split("/")[0] for name in names}


class SetTrainableTest:
    def test_all(self, model):
        everything = trainable(model, "all")
        assert len(everything) == len(model.variables)
        assert parts(everything) == {"backbone", "fpn", "rpn_head", "box_head", "mask_head"}

    def test_heads_are_everything_but_the_backbone(self, model):
        assert parts(trainable(model, "heads")) == {"fpn", "rpn_head", "box_head", "mask_head"}

    def test_roi_heads(self, model):
        assert parts(trainable(model, "roi_heads")) == {"box_head", "mask_head"}

    @pytest.mark.parametrize(
        ("pattern", "levels"), [("1+", {"stem", "c2_0", "c3_0"}), ("2+", {"c2_0", "c3_0"}), ("3+", {"c3_0"})]
    )
    def test_from_a_level_on(self, model, pattern, levels):
        names = trainable(model, pattern)
        assert {name.split("/")[1] for name in names if name.startswith("backbone/")} == levels
        assert parts(names) == {"backbone", "fpn", "rpn_head", "box_head", "mask_head"}

    def test_part_of_a_name_and_several_patterns(self, model):
        names = trainable(model, "rpn_head/conv", "c3_0/first")
        assert names == {
            "rpn_head/conv/kernel:0",
            "rpn_head/conv/bias:0",
            "backbone/c3_0/first/conv/kernel:0",
            "backbone/c3_0/first/norm/gamma:0",
            "backbone/c3_0/first/norm/beta:0",
        }

    def test_a_number_is_meant_whole(self):
        config = tiny.config()
        config.model.backbone.stage_blocks = (1, 12)
        model = tiny.model(config.validate())
        assert {name.split("/")[1] for name in trainable(model, "c3_1")} == {"c3_1"}
        assert {name.split("/")[1] for name in trainable(model, "1/first")} == {"c3_1"}
        assert len({name.split("/")[1] for name in trainable(model, "c3_")}) == 12

    def test_a_later_call_forgets_the_earlier_one(self, model):
        trainable(model, "mask_head")
        assert parts(trainable(model, "fpn")) == {"fpn"}

    @pytest.mark.parametrize("pattern", ["rnp_head", "9.", "attribute_head"])
    def test_pattern_that_matches_nothing(self, model, pattern):
        expected = "expected part of a name below backbone, box_head, fpn, mask_head, rpn_head, came"
        with pytest.raises(ValueError, match=f"{expected} '{pattern}'"):
            freezing.set_trainable(model, ("all", pattern))

    @pytest.mark.parametrize("pattern", ["0+", "4+", "9+"])
    def test_level_that_the_backbone_does_not_have(self, model, pattern):
        expected = rf"train\.stages trainable: expected a level of c1, c2, c3, came '{re.escape(pattern)}'$"
        with pytest.raises(ValueError, match=expected):
            freezing.set_trainable(model, ("all", pattern))

    def test_frozen_batch_norm_keeps_its_statistics(self):
        config = tiny.config()
        config.model.style.norm = "batch"
        model = tiny.model(config)
        freezing.set_trainable(model, ("roi_heads",))
        before = {v.name: v.numpy() for v in model.variables if "moving" in v.name}
        model.compute_losses(tiny.batch(config, 0), tf.constant([0, 1]))
        moved = {
            v.name.split("/")[1] for v in model.variables if v.name in before and (v.numpy() != before[v.name]).any()
        }
        assert moved == {"box_head", "mask_head"}


class LearntTest:
    @pytest.fixture(name="everything", scope="class")
    def fixture_everything(self):
        """A network with all parts there are, and a batch for it."""
        config = networks.config(
            {
                **networks.EVERY_HEAD,
                "model.segmentation.channels": 4,
                "model.fpn.bottom_up": True,
                "model.style.activation": "prelu",
            }
        )
        config.model.fpn.extra = "conv"
        config.model.anchors.sizes += (((8.0, 12.0, 16.0),),)
        config.train.stages = (train_schema.Stage("classifier", learns=("classifier",)),)
        config.train.classifier_crop = (4, 8, 12)
        return tiny.model(config.validate()), networks.batch(config)

    @pytest.mark.parametrize(
        "learns",
        [
            ("rpn",),
            ("heads",),
            ("rpn", "heads"),
            ("segmentation",),
            ("rpn", "segmentation"),
            ("classifier",),
            ("attributes",),
        ],
    )
    def test_what_has_a_gradient(self, everything, learns):
        model, batch = everything
        freezing.set_trainable(model, ("all",))
        _, gradients = networks.losses_and_gradients(model, batch, tf.constant([0, 1]), learns=learns)
        reached = {name for name, gradient in gradients.items() if gradient is not None}
        assert {v.name for v in freezing.learnt(model, learns)} == reached
        assert 0 < len(reached) < len(gradients)

    def test_of_that_only_what_trains(self, model):
        freezing.set_trainable(model, ("box_head", "c3_0/first/norm"))
        assert {v.name.split("/", 1)[1] for v in freezing.learnt(model, ("rpn",))} == {
            "backbone/c3_0/first/norm/gamma:0",
            "backbone/c3_0/first/norm/beta:0",
        }
