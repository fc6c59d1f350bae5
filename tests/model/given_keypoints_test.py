import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.model import networks

NAMES = ("nose", "tail", "ear")
SEED = tf.constant([0, 1])


@pytest.fixture(name="settings", scope="module")
def fixture_settings():
    return tiny.exhaustive(networks.config({"data.keypoints": NAMES, "model.keypoint_head.enabled": True}))


@pytest.fixture(name="model", scope="module")
def fixture_model(settings):
    tf.keras.utils.set_random_seed(0)
    return tiny.model(settings)


def batch(settings, *, known=(True, True, False)):
    """Truths whose landmarks lie at shares of their boxes; those that are not known are 0, as of padding."""
    truths = tiny.batch(settings, seed=0)
    lo, hi = np.split(truths["boxes"][:, :, np.newaxis], 2, axis=-1)
    shares = np.float32([[0.25, 0.5, 0.75], [0.75, 0.25, 0.5], [0.5, 0.75, 0.25]])
    valid = truths["valid"][..., np.newaxis] & np.array(known)
    points = np.where(valid[..., np.newaxis], lo + shares * (hi - lo), 0).astype(np.float32)
    return networks.as_tensors(truths | {"keypoints": points, "keypoints_valid": valid})


def logits_gradient(model, truths):
    """Gradient of the last kernel, whose last axis is that of landmarks, by their loss, and that loss."""
    with tf.GradientTape() as tape:
        loss = model.compute_losses(truths, SEED)["keypoint"]
    return tape.gradient(loss, model.keypoint_head.logits.kernel), loss.numpy()


class GivenKeypointsTest:
    def test_there_are_as_many_heat_maps_as_names(self, settings, model):
        found = model(tiny.batch(settings, seed=0)["volume"])
        num = settings.model.detections.max_detections
        assert found["keypoints"].shape == (2, num, 3, 3)
        assert found["keypoint_scores"].shape == (2, num, 3)
        assert model.keypoint_head.logits.kernel.shape[-1] == 3

    def test_a_step_is_finite_and_lowers_the_loss(self, settings):
        tf.keras.utils.set_random_seed(0)
        model, truths = tiny.model(settings), batch(settings)
        optimizer = tf.keras.optimizers.Adam(3e-3)

        @tf.function
        def step():
            losses, gradients = networks.losses_and_gradients(model, truths, SEED)
            optimizer.apply_gradients(zip(gradients.values(), model.trainable_variables, strict=True))
            return losses, gradients

        losses, gradients = step()
        assert all(np.isfinite(loss).all() for loss in losses.values())
        assert all(np.isfinite(gradient).all() for gradient in gradients.values())
        for _ in range(5):
            last, _ = step()
        assert np.all(last["keypoint"] < losses["keypoint"])

    def test_known_landmarks_count(self, settings, model):
        bins = np.prod([2 * size for size in settings.model.keypoint_head.roi_size])
        _, loss = logits_gradient(model, batch(settings))
        # A head that knows nothing is no further off than where every bin is equally likely.
        assert np.all((loss > 1) & (loss < np.log(bins) + 0.05))

    def test_unknown_landmarks_give_no_gradient(self, settings, model):
        gradient, _ = logits_gradient(model, batch(settings))
        size = np.abs(gradient).reshape(-1, 3).max(axis=0)
        assert size[0] > 1e-4
        assert size[1] > 1e-4
        assert size[2] == 0
        gradient, loss = logits_gradient(model, batch(settings, known=(False,) * 3))
        assert not np.any(gradient)
        np.testing.assert_array_equal(loss, [0, 0])

    def test_places_of_unknown_landmarks_do_not_matter(self, settings, model):
        truths = batch(settings)
        _, expected = logits_gradient(model, truths)
        elsewhere = tf.where(truths["keypoints_valid"][..., tf.newaxis], truths["keypoints"], 5.5)
        _, loss = logits_gradient(model, truths | {"keypoints": elsewhere})
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_landmarks_beyond_their_rois_do_not_count(self, settings, model):
        truths = batch(settings)
        _, loss = logits_gradient(model, truths | {"keypoints": truths["keypoints"] - 1000.0})
        np.testing.assert_array_equal(loss, [0, 0])

    def test_without_the_head_given_landmarks_change_nothing(self):
        settings = networks.config({"data.keypoints": NAMES})
        model = tiny.model(settings)
        assert model.keypoint_head is None
        assert "keypoint" not in model.compute_losses(batch(settings), SEED)
        assert "keypoints" not in model(tiny.batch(settings, seed=0)["volume"])

    def test_landmarks_of_masks_do_not_need_given_ones(self):
        settings = networks.config({"model.keypoint_head.enabled": True})
        model = tiny.model(settings)
        assert model.keypoint_head.logits.kernel.shape[-1] == 7
        assert np.all(model.compute_losses(networks.batch(settings), SEED)["keypoint"] > 0)
