import numpy as np
import pytest
import tensorflow as tf

from model.mask_head import MaskHead, select_class
from tests import tiny
from tests.model import head_cases, networks

SETTINGS = {
    "num_classes": 3,
    "channels": 4,
    "num_convs": 2,
    "fine_channels": 0,
    "class_agnostic": False,
    "style": head_cases.GROUP,
}


def make(**changes):
    tf.keras.utils.set_random_seed(0)
    return MaskHead(**{**SETTINGS, **changes})


class MaskHeadTest:
    @pytest.mark.parametrize(("class_agnostic", "masks"), [(False, 3), (True, 1)])
    def test_masks_have_twice_the_resolution_on_every_axis(self, class_agnostic, masks):
        head = make(class_agnostic=class_agnostic)
        assert head(head_cases.pooled()).shape == (2, 5, 4, 6, 8, masks)
        tower = 27 * 7 * 4 + 2 * 4 + 27 * 4 * 4 + 2 * 4
        assert head.count_params() == tower + 8 * 4 * 4 + 4 + 4 * masks + masks

    def test_each_roi_is_seen_alone(self):
        head, pooled = make(), head_cases.pooled()
        np.testing.assert_allclose(head(pooled[:1, 2:3])[0, 0], head(pooled)[0, 2], atol=1e-5)

    @pytest.mark.parametrize(
        "changes", [{}, {"class_agnostic": True}, {"num_convs": 0}, {"num_convs": 4, "style": head_cases.PRELU}]
    )
    def test_a_gradient_reaches_every_weight(self, changes):
        assert head_cases.silent_weights(make(**changes)) == []

    @head_cases.PERMUTATIONS
    def test_permuted_axes(self, axes):
        head_cases.assert_permuted_axes_permute_the_answer(make(), axes, leading=2)

    def test_half_precision(self):
        head_cases.assert_half_precision_answers_in_float32(make)

    def test_unknown_batch_equals_eager(self):
        head, pooled = make(), head_cases.pooled()
        function = tf.function(head, input_signature=[tf.TensorSpec([None, *head_cases.POOLED[1:]])])
        np.testing.assert_allclose(function(pooled), head(pooled), atol=1e-6)


class FineTest:
    VOXELS = (2, 5, 4, 6, 8, 2)  # of two channels

    def voxels(self):
        return np.random.default_rng(1).normal(size=self.VOXELS).astype(np.float32)

    def test_one_convolution_more_sees_the_volume(self):
        head = make(fine_channels=6)
        assert head(head_cases.pooled(), self.voxels()).shape == (2, 5, 4, 6, 8, 3)
        without = make()
        without(head_cases.pooled())
        more = 27 * (4 + 2) * 6 + 6 + 3 * (6 - 4)  # the convolution, and what the last one reads
        assert head.count_params() == without.count_params() + more

    def test_a_voxel_is_seen_where_it_is(self):
        head, voxels = make(fine_channels=6), self.voxels()
        before = head(head_cases.pooled(), voxels).numpy()
        voxels[1, 2, 1, 4, 6] += 10.0
        changed = np.argwhere((head(head_cases.pooled(), voxels).numpy() != before).any(axis=-1))
        np.testing.assert_array_equal(changed.min(axis=0), [1, 2, 0, 3, 5])
        np.testing.assert_array_equal(changed.max(axis=0), [1, 2, 2, 5, 7])

    def test_a_gradient_reaches_every_weight(self):
        head, voxels = make(fine_channels=6), self.voxels()
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(head(head_cases.pooled(), voxels, training=True) ** 2)
        assert all(np.any(gradient) for gradient in tape.gradient(loss, head.trainable_variables))

    def test_the_network_reads_the_middle_of_every_bin(self, monkeypatch):
        config = tiny.config()
        config.model.mask_head.fine_channels = 3
        model = tiny.model(config)
        seen = []
        monkeypatch.setattr(model, "mask_head", lambda pooled, fine, training: seen.append(fine))
        volume = np.random.default_rng(2).normal(size=(1, *model.patch_size, 1)).astype(np.float32)
        box = np.float32([[[1, 2, 3, 5, 8, 11]]])
        model._masks(model._look(volume, training=False), box, (2, 3, 4), training=False)
        np.testing.assert_allclose(seen[0][0, 0], volume[0, 1:5, 2:8, 3:11], rtol=1e-5, atol=1e-6)

    def test_answers_may_be_finer_than_what_is_learnt(self):
        """As those of a network of the same weights that learns so fine, while the losses stay what they are."""
        coarse, mixed, fine = (networks.config({"model.mask_head.fine_channels": 3}) for _ in range(3))
        mixed.model.mask_head.answer_roi_size = fine.model.mask_head.roi_size = (5, 3, 4)
        models = [tiny.model(settings) for settings in (coarse, mixed, fine)]
        for model in models:
            networks.randomize(model, seed=3)
        batch = networks.batch(coarse)
        ours, theirs = (model(batch["volume"]) for model in models[1:])
        assert ours["masks"].shape[2:] == (10, 6, 8)
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
        before, after = (model.compute_losses(batch, tf.constant([0, 1])) for model in models[:2])
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)


class SelectClassTest:
    @pytest.mark.parametrize(("class_id", "channel"), [(0, 0), (1, 0), (2, 1), (3, 2)])
    def test_reads_the_channel_of_the_class(self, class_id, channel):
        logits = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 5, 3)).astype(np.float32)
        chosen = select_class(logits, np.full((2, 3), class_id, np.int32))
        np.testing.assert_array_equal(chosen, logits[..., channel])

    def test_rois_of_different_classes(self):
        logits = np.random.default_rng(0).normal(size=(1, 3, 2, 4, 5, 3)).astype(np.float32)
        chosen = select_class(logits, np.int32([[3, 0, 2]]))
        for roi, channel in enumerate((2, 0, 1)):
            np.testing.assert_array_equal(chosen[0, roi], logits[0, roi, ..., channel])

    def test_one_mask_serves_all_classes(self):
        logits = np.random.default_rng(0).normal(size=(1, 4, 2, 4, 5, 1)).astype(np.float32)
        np.testing.assert_array_equal(select_class(logits, np.int32([[0, 1, 2, 9]])), logits[..., 0])
