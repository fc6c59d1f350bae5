"""What reaches what: losses their parts and no others, volumes their own answers, hard truths finite numbers."""

import types

import numpy as np
import pytest
import tensorflow as tf

from configs import training_forms
from model import losses as model_losses
from tests import tiny
from tests.model import networks

SEED = tf.constant([0, 1])
TRUNK = {"backbone", "fpn"}
BOX_HEADS = {"box_head1", "box_head2", "box_head3"}
HEADS = BOX_HEADS | {"mask_head", "attribute_head", "keypoint_head"}
OF_LOSSES = {
    "rpn_class": {"rpn_head"},
    "rpn_box": {"rpn_head"},
    "roi_class": BOX_HEADS,
    "roi_box": BOX_HEADS,
    "mask": {"mask_head"},
    "mask_dice": {"mask_head"},
    "attribute": {"attribute_head"},
    "keypoint": {"keypoint_head"},
}


@pytest.fixture(name="world", scope="module")
def fixture_world():
    """A network with every head, in which chance draws nothing; its batch."""
    tf.keras.utils.set_random_seed(0)
    settings = networks.config(networks.EVERY_HEAD)
    settings.train.stages = training_forms.pretrained()
    settings.train.classifier_crop = (4, 8, 8)
    settings = tiny.exhaustive(settings)
    return types.SimpleNamespace(settings=settings, model=tiny.model(settings), batch=networks.batch(settings))


def parts(gradients):
    """Names of the parts of the network with a variable that a gradient reaches, and of those that one does not."""
    reached = {name.split("/")[1] for name, gradient in gradients.items() if gradient is not None}
    return reached, {name.split("/")[1] for name, gradient in gradients.items() if gradient is None}


class GradientTest:
    @pytest.mark.parametrize(
        ("learns", "expected"),
        [
            (("rpn",), TRUNK | {"rpn_head"}),
            (("heads",), TRUNK | HEADS),
            (("rpn", "heads"), TRUNK | {"rpn_head"} | HEADS),
            (("classifier",), {"backbone", "classifier"}),
            (("attributes",), {"attribute_head"}),
        ],
    )
    def test_parts_learn_from_their_losses(self, world, learns, expected):
        losses, gradients = networks.losses_and_gradients(world.model, world.batch, SEED, learns=learns)
        assert list(losses) == world.model.loss_names(learns)
        reached, left_out = parts(gradients)
        assert reached == expected  # every variable of these, and none of the others:
        assert left_out == (TRUNK | HEADS | {"rpn_head", "classifier"}) - expected

    def test_each_loss_reaches_its_own_head(self, world):
        variables = world.model.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            losses = world.model.compute_losses(world.batch, SEED)
        assert list(losses) == list(OF_LOSSES)
        for name, loss in losses.items():
            gradients = {v.name: g for v, g in zip(variables, tape.gradient(loss, variables), strict=True)}
            reached, _ = parts(gradients)
            assert reached == TRUNK | OF_LOSSES[name], name
            assert parts({n: g if g is not None and np.any(g) else None for n, g in gradients.items()})[0] == reached

    def test_a_proposer_learns_nothing_and_is_asked(self, world):
        proposer = tiny.model(world.settings)
        networks.randomize(proposer, seed=3)
        with tf.GradientTape() as tape:
            losses = world.model.compute_losses(world.batch, SEED, learns=("heads",), proposer=proposer)
            total = tf.add_n(list(losses.values()))
        ours, theirs = world.model.trainable_variables, proposer.trainable_variables
        gradients = tape.gradient(total, ours + theirs)
        assert all(gradient is None for gradient in gradients[len(ours) :])
        reached, _ = parts({v.name: g for v, g in zip(ours, gradients, strict=False)})
        assert reached == TRUNK | HEADS
        own = world.model.compute_losses(world.batch, SEED, learns=("heads",))
        assert np.abs(own["roi_class"] - losses["roi_class"]).max() > 1e-3

    def test_a_later_stage_of_a_cascade_leaves_the_earlier_heads_alone(self, world, monkeypatch):
        monkeypatch.setattr(model_losses, "sum_stages", lambda stages: stages[-1])
        _, gradients = networks.losses_and_gradients(world.model, world.batch, SEED, learns=("heads",))
        assert parts(gradients)[0] & BOX_HEADS == {"box_head3"}

    def test_frozen_batch_normalisation_is_of_the_backbone_alone(self):
        settings = networks.config(networks.EVERY_HEAD | {"model.style.norm": "frozen_batch"})
        model = tiny.model(settings)
        names = {v.name for v in model.variables}
        assert {name.split("/")[1] for name in names if "/norm/" in name} == {"backbone"}
        assert {name for name in names if "/tower/conv1/" in name} == {
            f"mask_rcnn/{head}/tower/conv1/conv/{weight}:0"
            for head in (*BOX_HEADS, "mask_head", "keypoint_head")
            for weight in ("kernel", "bias")
        }
        frozen = names - {v.name for v in model.trainable_variables}
        assert len(frozen) > 0
        assert all("/norm/" in name for name in frozen)

    def test_what_is_frozen_gets_none(self):
        settings = networks.config({"model.style.norm": "frozen_batch"})
        model = tiny.model(settings)
        model.backbone.trainable = False
        before = [variable.numpy() for variable in model.variables]
        _, gradients = networks.losses_and_gradients(model, networks.batch(settings), SEED)
        reached, left_out = parts(gradients)
        assert reached == {"fpn", "rpn_head", "box_head", "mask_head"}
        assert left_out == set()
        assert not any("norm" in name for name in gradients)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value, err_msg=variable.name)


class BatchTest:
    def test_losses_of_a_volume_do_not_depend_on_its_neighbour(self, world):
        together = world.model.compute_losses(world.batch, SEED)
        for item in range(2):
            alone = world.model.compute_losses({n: x[item : item + 1] for n, x in world.batch.items()}, SEED)
            for name, value in alone.items():
                np.testing.assert_allclose(value[0], together[name][item], rtol=1e-4, err_msg=name)

    def test_one_at_a_time_equals_a_batch_of_two(self, world):
        model = tiny.model(world.settings)
        networks.randomize(model, seed=1)
        together = model(world.batch["volume"])
        assert np.all(together["num_detections"] > 1)
        for item in range(2):
            for name, value in model(world.batch["volume"][item : item + 1]).items():
                np.testing.assert_allclose(together[name][item], value[0], rtol=1e-4, atol=1e-4, err_msg=name)

    @pytest.mark.parametrize("learns", [("rpn", "heads"), ("classifier",)])
    def test_what_stands_in_invalid_slots_changes_no_loss(self, world, learns):
        """In a network in which chance draws nothing: truths join the proposals slot by slot, and every proposal has a
        number drawn, so that with more slots other rois would be drawn, as good ones.
        """
        batch = {name: value.numpy() for name, value in world.batch.items()}
        padded, slots = dict(batch), batch["valid"].shape[1]
        for name in ("boxes", "class_ids", "attributes", "valid"):
            padded[name] = np.pad(batch[name], [(0, 0), (0, 3)] + [(0, 0)] * (batch[name].ndim - 2))
        padded["boxes"][:, slots:] = [[1, 2, 3, 4, 5, 6], [-1e6, 0, 0, 1e6, 5, 5], [np.nan] * 6]
        padded["class_ids"][:, slots:] = 2
        padded["attributes"][:, slots:] = np.nan
        if learns == ("classifier",):  # whose draw is one number for each slot: with as many, then
            for name in ("boxes", "class_ids", "attributes"):
                clean = np.where(padded["valid"].reshape(2, -1, *[1] * (batch[name].ndim - 2)), padded[name], 0)
                batch[name] = clean.astype(batch[name].dtype)
            batch["valid"] = padded["valid"]
        ours, theirs = (
            world.model.compute_losses(networks.as_tensors(truths), SEED, learns=learns) for truths in (batch, padded)
        )
        for name, value in ours.items():
            np.testing.assert_allclose(theirs[name], value, rtol=1e-4, err_msg=name)


HARD = {
    "default": {},
    "every head": networks.EVERY_HEAD | {"model.attribute_head.sums": "linear"},
    "ATSS": {"model.rpn.assignment": "atss", "model.rpn.box_loss": "ciou", "model.box_head.box_loss": "giou"},
    "focal": {
        "model.rpn.class_loss": "focal",
        "model.box_head.class_loss": "focal",
        "model.mask_head.losses": ("focal",),
        "model.style.norm": "instance",
    },
}


class HardTruthsTest:
    @pytest.fixture(scope="class", params=HARD)
    def hard(self, request):
        tf.keras.utils.set_random_seed(0)
        settings = networks.config(HARD[request.param] | {"input.max_instances": 500})
        return types.SimpleNamespace(settings=settings, model=tiny.model(settings))

    @pytest.mark.parametrize("kind", ["none", "one voxel", "many", "touching"])
    def test_losses_and_gradients_are_finite(self, hard, kind):
        truths = networks.crowd(hard.settings, kind)
        assert np.all(truths["valid"].numpy().sum(1) == {"none": 0, "one voxel": 1, "many": 500, "touching": 24}[kind])
        losses, gradients = networks.losses_and_gradients(hard.model, truths, SEED)
        for name, value in losses.items():
            assert np.all(np.isfinite(value)), name
            is_empty = kind == "none" and name not in ("rpn_class", "roi_class")
            # ATSS gives a truth no anchor whose centre lies outside it, and the centres lie between all of these.
            is_missed = name == "rpn_box" and hard.settings.model.rpn.assignment == "atss"
            assert np.all((value.numpy() == 0.0) == (is_empty or is_missed)), name
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())

    def test_attributes_that_nobody_knows(self, hard):
        truths = networks.crowd(hard.settings, "touching")
        truths["attributes"] = tf.fill(tf.shape(truths["attributes"]), np.nan)
        losses, gradients = networks.losses_and_gradients(hard.model, truths, SEED)
        np.testing.assert_array_equal(losses.get("attribute", [0, 0]), [0, 0])
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())

    @pytest.mark.parametrize("overrides", [{}, networks.EVERY_HEAD])
    def test_no_proposals(self, overrides):
        settings = networks.config(overrides | {"model.rpn.min_size": 100.0, "model.rois.add_truths": False})
        model, truths = tiny.model(settings), networks.batch(settings)
        losses, gradients = networks.losses_and_gradients(model, truths, SEED)
        for name, value in losses.items():
            assert np.all((value.numpy() > 0.0) == name.startswith("rpn")), name
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())
        found = model(truths["volume"])
        networks.check_detections(found, settings, 2)
        np.testing.assert_array_equal(found["num_detections"], [0, 0])
