import pytest
import tensorflow as tf

from tests import tiny
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

    def test_a_later_call_forgets_the_earlier_one(self, model):
        trainable(model, "mask_head")
        assert parts(trainable(model, "fpn")) == {"fpn"}

    @pytest.mark.parametrize("pattern", ["rnp_head", "9.", "attribute_head"])
    def test_pattern_that_matches_nothing(self, model, pattern):
        expected = "expected part of a name below backbone, box_head, fpn, mask_head, rpn_head, came"
        with pytest.raises(ValueError, match=f"{expected} '{pattern}'"):
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
