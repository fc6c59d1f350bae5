import types

import numpy as np
import pytest
import tensorflow as tf

from model import losses as model_losses
from model import targets
from model.mask_head import select_class
from ops import boxes as box_ops
from ops import masks as mask_ops
from ops.roi_sum3d import roi_sum3d
from tests import tiny
from tests.model import networks

LOSSES = ["rpn_class", "rpn_box", "roi_class", "roi_box", "mask", "mask_dice"]
SEED = tf.constant([0, 1])


def specs(batch):
    """Signature of a batch of any size."""
    return {name: tf.TensorSpec([None, *x.shape[1:]], tf.as_dtype(x.dtype)) for name, x in batch.items()}


@pytest.fixture(name="world", scope="module")
def fixture_world():
    """A config that draws nothing at random, its network, a batch, and the compiled loss with its gradients."""
    tf.keras.utils.set_random_seed(0)
    config = tiny.exhaustive(tiny.config())
    config.model.detections.score_threshold = 0.01  # after 15 steps background still scores best
    model = tiny.model(config)
    batch = tiny.batch(config, seed=0)

    @tf.function(input_signature=[specs(batch), tf.TensorSpec([2], tf.int32)])
    def losses_and_gradients(batch, seed):
        with tf.GradientTape() as tape:
            losses = model.compute_losses(batch, seed)
            total = tf.add_n([tf.reduce_mean(loss) for loss in losses.values()])
        return losses, tape.gradient(total, model.trainable_variables)

    return types.SimpleNamespace(config=config, model=model, batch=batch, losses_and_gradients=losses_and_gradients)


@pytest.fixture(name="trained", scope="module")
def fixture_trained(world):
    """The total loss of 15 steps on one batch, and the compiled network after them."""
    optimizer = tf.keras.optimizers.Adam(3e-3)
    totals = []
    for step in range(15):
        losses, gradients = world.losses_and_gradients(world.batch, [0, step])
        optimizer.apply_gradients(zip(gradients, world.model.trainable_variables, strict=True))
        totals.append(float(sum(tf.reduce_mean(loss) for loss in losses.values())))
    detect = tf.function(world.model, input_signature=[specs(world.batch)["volume"]])
    return types.SimpleNamespace(totals=totals, detect=detect)


def one_volume(config, ids, class_ids):
    """A batch of one volume whose intensity is 1 where there is an instance."""
    padded = np.zeros((1, config.input.max_instances), np.int32)
    padded[0, : len(class_ids)] = class_ids
    return tiny.truth((ids[np.newaxis, ..., np.newaxis] > 0).astype(np.float32), ids[np.newaxis], padded)


class ComputeLossesTest:
    def test_one_finite_value_per_loss_and_volume(self, world):
        losses, _ = world.losses_and_gradients(world.batch, SEED)
        assert list(losses) == LOSSES
        for value in losses.values():
            assert value.shape == (2,)
            assert np.all(np.isfinite(value) & (value.numpy() > 0.0))

    def test_every_variable_gets_a_gradient(self, world):
        _, gradients = world.losses_and_gradients(world.batch, SEED)
        names = [variable.name for variable in world.model.trainable_variables]
        missing = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
        assert missing == []
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
        silent = [n for n, gradient in zip(names, gradients, strict=True) if not np.any(gradient)]
        assert silent == []

    def test_untrained_classifiers_are_undecided(self, world):
        fresh = tiny.model(world.config)
        losses = fresh.compute_losses(world.batch, SEED)
        np.testing.assert_allclose(losses["rpn_class"], [np.log(2.0)] * 2, atol=0.1)
        np.testing.assert_allclose(losses["roi_class"], [np.log(3.0)] * 2, atol=0.1)

    def test_the_seed_decides_what_is_drawn(self, world):
        model = tiny.model(tiny.config())

        def values(seed):
            losses = model.compute_losses(world.batch, tf.constant(seed))
            return np.stack([losses["rpn_class"], losses["roi_class"]])

        first = values([0, 1])
        np.testing.assert_allclose(values([0, 1]), first, rtol=1e-5)
        assert np.abs(values([0, 2]) - first).max() > 1e-4

    def test_empty_truth(self, world):
        ids = np.zeros(world.config.input.patch_size, np.int32)
        losses, gradients = world.losses_and_gradients(one_volume(world.config, ids, []), SEED)
        values = {name: float(loss[0]) for name, loss in losses.items()}
        assert [values[name] for name in ("rpn_box", "roi_box", "mask", "mask_dice")] == [0.0] * 4
        assert values["rpn_class"] > 0.0
        assert values["roi_class"] > 0.0
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)

    def test_truth_of_one_voxel(self, world):
        ids = np.zeros(world.config.input.patch_size, np.int32)
        ids[7, 0, 23] = 1
        batch = one_volume(world.config, ids, [2])
        np.testing.assert_array_equal(batch["boxes"][0, 0], [7, 0, 23, 8, 1, 24])
        losses, gradients = world.losses_and_gradients(batch, SEED)
        assert all(np.isfinite(loss[0]) and loss[0] > 0.0 for loss in losses.values())
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)

    def test_all_truth_slots_in_use(self, world):
        ids = np.zeros(world.config.input.patch_size, np.int32)
        for slot in range(5):
            ids[slot : slot + 2, 3 * slot : 3 * slot + 3, 4 * slot : 4 * slot + 6] = slot + 1
        batch = one_volume(world.config, ids, [1, 2, 1, 2, 2])
        assert batch["valid"].all()
        losses, _ = world.losses_and_gradients(batch, SEED)
        assert all(np.isfinite(loss[0]) and loss[0] > 0.0 for loss in losses.values())

    def test_more_padding_in_the_truth_changes_no_loss(self, world):
        batch = world.batch
        padded = dict(batch)
        for name in ("boxes", "class_ids", "attributes", "valid"):
            padded[name] = np.pad(batch[name], [(0, 0), (0, 3)] + [(0, 0)] * (batch[name].ndim - 2))
        # What stands in an invalid slot must not matter either.
        padded["boxes"][:, 5:] = [1, 2, 3, 4, 5, 6]
        padded["class_ids"][:, 5:] = 2
        ours, theirs = (world.model.compute_losses(truth, SEED) for truth in (batch, padded))
        for name in LOSSES:
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, err_msg=name)

    def test_losses_of_a_volume_do_not_depend_on_its_neighbour(self, world):
        together, _ = world.losses_and_gradients(world.batch, SEED)
        for item in range(2):
            alone, _ = world.losses_and_gradients({n: x[item : item + 1] for n, x in world.batch.items()}, SEED)
            for name in LOSSES:
                np.testing.assert_allclose(alone[name][0], together[name][item], rtol=1e-4, err_msg=name)

    @pytest.mark.parametrize("norm", ["batch", "none"])
    def test_other_normalisations(self, world, norm):
        config = tiny.config()
        config.model.style.norm = norm
        model = tiny.model(config.validate())
        before = [variable.numpy() for variable in model.non_trainable_variables]
        losses = model.compute_losses(world.batch, SEED)
        assert all(np.all(np.isfinite(loss)) for loss in losses.values())
        moved = [np.any(v.numpy() != old) for v, old in zip(model.non_trainable_variables, before, strict=True)]
        # Two running moments of each of the eight layers: the stem, two in C2, three in C3, one in each head.
        assert sum(moved) == (16 if norm == "batch" else 0)

    def test_head_masks_are_asked_of_the_positives_alone(self, world, monkeypatch):
        seen = {}

        def watch(ids, rois, size):
            seen["rois"], seen["size"] = rois.boxes.shape, size
            return real(ids, rois, size)

        real = targets.roi_masks
        monkeypatch.setattr(targets, "roi_masks", watch)
        tiny.model(tiny.config()).compute_losses(world.batch, SEED)
        assert seen == {"rois": (2, 4, 6), "size": (4, 6, 8)}  # at most a third of the 12 rois


class CallTest:
    def test_shapes_are_static(self, trained):
        outputs = trained.detect.get_concrete_function().structured_outputs
        shapes = {name: value.shape.as_list() for name, value in outputs.items()}
        assert shapes == {
            "boxes": [None, 6, 6],
            "scores": [None, 6],
            "class_ids": [None, 6],
            "masks": [None, 6, 4, 6, 8],
            "valid": [None, 6],
            "num_detections": [None],
        }

    def test_detections_are_ordered_padded_and_inside_the_volume(self, world, trained):
        found = {name: value.numpy() for name, value in trained.detect(world.batch["volume"]).items()}
        valid = found["valid"]
        np.testing.assert_array_equal(found["num_detections"], valid.sum(1))
        assert np.all(valid.sum(1) > 0)
        assert np.all(np.diff(valid.astype(int)) <= 0)
        assert np.all(np.diff(found["scores"]) <= 0)
        for name in ("boxes", "scores", "class_ids", "masks"):
            assert not found[name][~valid].any(), name
        assert set(found["class_ids"][valid]) <= {1, 2}
        assert np.all(found["boxes"] >= 0)
        assert np.all(found["boxes"] <= (8, 16, 24, 8, 16, 24))
        assert np.all((found["masks"][valid] > 0.0) & (found["masks"][valid] < 1.0))

    @pytest.mark.usefixtures("trained")
    def test_boxes_may_be_what_their_masks_show(self, world, monkeypatch):
        monkeypatch.setattr(world.model.config.detections, "mask_threshold", 0.2)
        of_head = world.model(world.batch["volume"])
        monkeypatch.setattr(world.model.config.detections, "boxes", "masks")
        found = world.model(world.batch["volume"])
        boxes, masks = mask_ops.shrink(
            of_head["masks"], of_head["boxes"], of_head["boxes"], world.model.patch_size, 0.2
        )
        np.testing.assert_array_equal(found["boxes"], boxes)
        assert np.any(found["boxes"] != of_head["boxes"])
        np.testing.assert_array_equal(found["masks"][found["valid"]], masks[found["valid"]])
        for name in ("scores", "class_ids", "valid", "num_detections"):
            np.testing.assert_array_equal(found[name], of_head[name])

    @pytest.mark.usefixtures("trained")
    def test_masks_may_reach_beyond_their_boxes(self, world, monkeypatch):
        monkeypatch.setattr(world.model.config.detections, "mask_threshold", 0.2)
        within = world.model(world.batch["volume"])
        monkeypatch.setattr(world.model.config.mask_head, "margin", (1, 2, 3))
        beyond = world.model(world.batch["volume"])
        np.testing.assert_array_equal(beyond["boxes"], within["boxes"])
        windows = box_ops.grow(within["boxes"], (1, 2, 3), world.model.patch_size)
        monkeypatch.setattr(world.model.config.detections, "boxes", "masks")
        found = world.model(world.batch["volume"])
        boxes, masks = mask_ops.shrink(beyond["masks"], windows, within["boxes"], world.model.patch_size, 0.2)
        valid = found["valid"].numpy()
        np.testing.assert_array_equal(found["boxes"][valid], boxes[valid])
        np.testing.assert_array_equal(found["masks"][valid], masks[valid])
        assert np.any(np.abs(beyond["masks"] - within["masks"])[valid] > 1e-3)

    def test_masks_are_learnt_where_they_reach(self, world, monkeypatch):
        margin, learnt = (1, 2, 3), []

        def spy(ids, rois, size):
            learnt.append(rois.boxes)
            return roi_masks(ids, rois, size)

        roi_masks = targets.roi_masks
        monkeypatch.setattr(targets, "roi_masks", spy)
        within = world.model.compute_losses(world.batch, SEED)
        monkeypatch.setattr(world.model.config.mask_head, "margin", margin)
        beyond = world.model.compute_losses(world.batch, SEED)
        np.testing.assert_array_equal(learnt[1], box_ops.grow(learnt[0], margin, world.model.patch_size))
        for name, loss in beyond.items():
            assert np.any(loss != within[name]) == name.startswith("mask"), name

    def test_one_at_a_time_equals_a_batch_of_two(self, world, trained):
        together = trained.detect(world.batch["volume"])
        for item in range(2):
            alone = trained.detect(world.batch["volume"][item : item + 1])
            for name, value in alone.items():
                np.testing.assert_allclose(together[name][item], value[0], atol=1e-4, err_msg=name)

    def test_eager_equals_compiled(self, world, trained):
        eager, compiled = world.model(world.batch["volume"]), trained.detect(world.batch["volume"])
        for name, value in eager.items():
            np.testing.assert_allclose(compiled[name], value, atol=1e-4, err_msg=name)

    def test_empty_volume(self, world, trained):
        found = trained.detect(np.zeros_like(world.batch["volume"]))
        for name, value in found.items():
            assert np.all(np.isfinite(value.numpy().astype(float))), name
        np.testing.assert_array_equal(found["num_detections"], found["valid"].numpy().sum(1))

    def test_no_detections_where_nothing_scores_enough(self, world):
        config = tiny.config()
        config.model.detections.score_threshold = 1.0
        found = tiny.model(config)(world.batch["volume"])
        for name, value in found.items():
            assert not value.numpy().any(), name


class KernelTest:
    def test_one_slice_alone_is_seen_where_no_kernel_is_longer(self):
        settings = tiny.config()
        settings.model.style.kernel = settings.model.backbone.stem_kernel = (1, 3, 3)
        settings.model.backbone.stage_kernels = ((1, 3, 3), (1, 3, 3))
        settings.model.fpn.extra, settings.model.fpn.bottom_up = "none", True
        model = tiny.model(settings.validate())
        kernels = {v.name: v.shape[:3] for v in model.variables if v.shape.rank == 5 and "upsample" not in v.name}
        assert {tuple(shape) for shape in kernels.values()} == {(1, 1, 1), (1, 3, 3)}
        fields, *_ = model.receptive_fields()
        assert [field[0] for field in fields.values()] == [1, 1]


class AnchorsTest:
    def test_grids_of_all_levels_in_order(self, world):
        assert list(world.model.anchors_per_level) == [8 * 8 * 12, 4 * 4 * 6]
        assert world.model.anchors.shape == (864, 6)
        np.testing.assert_allclose(world.model.anchors[0], [-1, -1, -1.5, 2, 3, 3.5])
        np.testing.assert_allclose(world.model.anchors[-1], [7 - 2.5, 14 - 4, 22 - 5, 7 + 2.5, 14 + 4, 22 + 5])

    def test_anchors_that_outgrow_what_their_level_sees(self, world):
        assert world.model.outgrown_anchors() == []
        config = tiny.config()
        config.model.anchors.sizes = (((3.0, 4.0, 5.0),), ((5.0, 80.0, 10.0),))
        (line,) = tiny.model(config.validate()).outgrown_anchors()
        assert line.startswith("level 3: anchor of (5, 80, 10) outgrows the receptive field (")


class LearningTest:
    def test_loss_falls_within_fifteen_steps(self, trained):
        assert trained.totals[-1] < 0.6 * trained.totals[0]

    def test_checkpoint_gives_the_same_detections(self, world, trained, tmp_path):
        path = tf.train.Checkpoint(model=world.model).save(str(tmp_path / "ckpt"))
        other = tiny.model(world.config)
        tf.train.Checkpoint(model=other).restore(path).assert_consumed()
        expected = trained.detect(world.batch["volume"])
        for name, value in other(world.batch["volume"]).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)

    @pytest.mark.slow
    def test_one_volume_is_learnt_by_heart(self):
        tf.keras.utils.set_random_seed(1)
        config = tiny.config()  # with draws, as in training
        model = tiny.model(config)
        batch = {name: x[:1] for name, x in tiny.batch(config, seed=0).items()}
        optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(5e-3, 1000))

        @tf.function
        def step(seed):
            with tf.GradientTape() as tape:
                total = tf.add_n([tf.reduce_mean(loss) for loss in model.compute_losses(batch, seed).values()])
            gradients = tape.gradient(total, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return total

        totals = [float(step(tf.constant([0, number]))) for number in range(1000)]
        assert np.mean(totals[-10:]) < 0.1 * totals[0]
        found = model(batch["volume"])
        good = found["scores"][0].numpy() > 0.5
        assert good.sum() == batch["valid"].sum()
        order = np.lexsort(found["boxes"][0].numpy()[good].round().T[::-1])
        truth_order = np.lexsort(batch["boxes"][0][batch["valid"][0]].T[::-1])
        np.testing.assert_allclose(
            found["boxes"][0].numpy()[good][order], batch["boxes"][0][batch["valid"][0]][truth_order], atol=1.0
        )
        np.testing.assert_array_equal(
            found["class_ids"][0].numpy()[good][order], batch["class_ids"][0][batch["valid"][0]][truth_order]
        )


class SumsTest:
    """A head that adds nothing to log(1 + sum) says what the objects' voxels sum up to."""

    @pytest.fixture(name="summing", scope="class", params=[("linear", False), ("sinh", False), ("sinh", True)], ids=str)
    def fixture_summing(self, request):
        """A Config, its network with random weights, a batch, and what each of its voxels measured."""
        tf.keras.utils.set_random_seed(0)
        kind, by_layer = request.param
        changes = {
            "data.attributes": ("energy",),
            "model.attribute_head.sums": kind,
            "model.attribute_head.sums_by_layer": by_layer,
            "input.flip_axes": (False, True, True),
            "input.rotate_planes": (),
            "input.normalization": "dataset",
            "input.intensity_mean": (0.5,),
            "input.intensity_std": (2.0,),
        }
        config = tiny.exhaustive(networks.config(changes))
        model, batch = tiny.model(config), networks.batch(config)
        networks.randomize(model, seed=0)
        for layer in (model.attribute_head.values, model.attribute_head.factors, model.attribute_head.powers):
            layer.set_weights([0 * weight for weight in layer.get_weights()])
        volume = batch["volume"].numpy()
        measured = {"linear": volume + 0.5 / 2.0, "sinh": np.sinh(2.0 * volume + 0.5)}[kind]
        return types.SimpleNamespace(config=config, model=model, batch=batch, measured=measured)

    def test_attributes_are_the_sums_over_the_masks_that_are_found(self, summing):
        found = {name: value.numpy() for name, value in summing.model(summing.batch["volume"]).items()}
        assert found["num_detections"].min() > 0
        bins = roi_sum3d(summing.measured, found["boxes"], output_size=summing.model.mask_size).numpy()
        sums = (found["masks"] * bins[..., 0]).sum(axis=(2, 3, 4))
        expected = np.where(found["valid"], np.maximum(sums, 0.01) / 1000, 0.0)
        np.testing.assert_allclose(found["attributes"][..., 0], expected, rtol=1e-3)

    def test_in_training_the_mask_is_that_of_the_true_class(self, summing, monkeypatch):
        model, batch, seen = summing.model, summing.batch, []
        losses = model_losses.attribute_loss

        def attribute_loss(values, attributes, rois, **kwargs):
            seen.append((values, rois))
            return losses(values, attributes, rois, **kwargs)

        monkeypatch.setattr(model_losses, "attribute_loss", attribute_loss)
        model.compute_losses(batch, SEED)
        ((values, rois),) = seen
        seen, size = model._look(batch["volume"], training=True), model.config.mask_head.roi_size
        logits = model._masks(seen, rois.boxes, size, training=True)
        masks = tf.sigmoid(select_class(logits, rois.class_ids)).numpy()
        bins = roi_sum3d(summing.measured, rois.boxes, output_size=model.mask_size).numpy()
        sums = (masks * bins[..., 0]).sum(axis=(2, 3, 4))
        np.testing.assert_allclose(np.expm1(values[..., 0]), np.maximum(sums, 0.01) / 1000, rtol=1e-3)
        assert set(rois.class_ids.numpy().ravel()) >= {1, 2}

    def test_what_is_found_teaches_as_it_is_told(self, summing, monkeypatch):
        """With random weights hardly anything is found: here whatever is told of a place is of the truth there."""
        model, batch, seen = summing.model, summing.batch, []
        losses = model_losses.attribute_loss

        def attribute_loss(values, attributes, rois, **kwargs):
            seen.append((values.numpy(), rois.slots.numpy()))
            return losses(values, attributes, rois, **kwargs)

        monkeypatch.setattr(model_losses, "attribute_loss", attribute_loss)
        monkeypatch.setattr(targets, "FOUND_MASK_IOU", 0.0)
        monkeypatch.setattr(targets, "FOUND_BOX_IOU", 0.0)
        loss = model.compute_losses(batch, SEED, learns=("attributes",))
        ((values, slots),) = seen
        told = model.find(batch["volume"])["attributes"].numpy()[:, : values.shape[1]]
        teaches = slots >= 0
        assert teaches.sum() >= 2
        np.testing.assert_allclose(np.expm1(values[teaches]), told[teaches], rtol=1e-5)
        for own, truths in zip(slots, batch["valid"].numpy(), strict=True):
            own = own[own >= 0]
            assert len(set(own)) == len(own)  # of every object once
            assert truths[own].all()
        known = np.take_along_axis(batch["attributes"].numpy(), np.maximum(slots, 0)[..., None], axis=1)
        distance = np.abs(values - np.log1p(known))[..., 0]
        beta = summing.config.model.attribute_head.beta
        each = np.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)
        # The sum over objects, by what is the same for all volumes.
        np.testing.assert_allclose(loss["attribute"], (each * teaches).sum(axis=1) / slots.shape[1], rtol=1e-4)

    def test_what_shows_no_truth_teaches_nothing(self, summing, monkeypatch):
        monkeypatch.setattr(targets, "FOUND_MASK_IOU", 1.0)
        loss = summing.model.compute_losses(summing.batch, SEED, learns=("attributes",))
        np.testing.assert_array_equal(loss["attribute"], 0)
