import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from configs import augment_schema
from data import appearance

SHAPE = (5, 7, 11)


def make_volume(channels=1, shape=SHAPE):
    return tf.constant(np.random.default_rng(0).normal(size=(*shape, channels)).astype(np.float32))


def seed(i=0):
    return tf.constant([5, i], tf.int32)


def quiet():
    settings = augment_schema.Augment()
    for field in dataclasses.fields(settings):
        section = getattr(settings, field.name)
        if dataclasses.is_dataclass(section):
            section.probability = 0.0
    return settings


class ChangeTest:
    def test_nothing_drawn_gives_the_very_volume(self):
        volume = make_volume(2)
        np.testing.assert_array_equal(appearance.change(volume, quiet(), seed()), volume)

    def test_everything_drawn_keeps_the_static_shape_and_stays_finite(self):
        settings = quiet()
        settings.channel_drop = 1.0
        for name in ("blur", "low_resolution", "gamma", "contrast", "brightness", "noise"):
            getattr(settings, name).probability = 1.0
        run = tf.function(lambda volume: appearance.change(volume, settings, seed()))
        found = run(make_volume(2))
        assert found.shape == (*SHAPE, 2)
        assert np.isfinite(found).all()
        assert (found.numpy().any(axis=(0, 1, 2)) == [False, True]).all() or (
            found.numpy().any(axis=(0, 1, 2)) == [True, False]
        ).all()

    def test_switching_a_step_off_does_not_change_the_others(self):
        both, alone = quiet(), quiet()
        for settings in (both, alone):
            settings.brightness = augment_schema.Effect(1.0, (-1.0, 1.0))
        both.contrast = augment_schema.Effect(1.0, (0.5, 1.5))
        means = [float(tf.reduce_mean(appearance.change(make_volume(), s, seed()))) for s in (both, alone)]
        # Contrast keeps the mean, so that brightness alone moves it.
        assert means[0] == pytest.approx(means[1], abs=1e-6)
        assert abs(means[0] - np.mean(make_volume())) > 1e-3

    def test_seeds(self):
        settings = quiet()
        settings.noise = augment_schema.Effect(1.0, (0.1, 0.5))
        a, b, c = (appearance.change(make_volume(), settings, seed(i)).numpy() for i in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != c).all()


class SometimesTest:
    def test_share(self):
        for probability, low, high in ((0.0, 0, 0), (0.3, 40, 80), (1.0, 200, 200)):
            drawn = [appearance.sometimes(probability, lambda v, s: v + 1, tf.zeros([]), seed(i)) for i in range(200)]
            assert low <= int(sum(drawn)) <= high

    def test_what_is_not_drawn_is_not_computed(self):
        def fails(value, seed):
            with tf.control_dependencies([tf.debugging.Assert(value < 0, ["computed"])]):
                return tf.identity(value)

        run = tf.function(lambda value, s: appearance.sometimes(0.5, fails, value, s))
        outcomes = set()
        for i in range(20):
            try:
                outcomes.add(float(run(tf.constant(3.0), seed(i))))
            except tf.errors.InvalidArgumentError:
                outcomes.add("computed")
        assert outcomes == {3.0, "computed"}


class BlurTest:
    @pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
    def test_against_scipy(self, sigma):
        # Far from the border, where both count the same voxels.
        volume = make_volume(2, (15, 17, 19)).numpy()
        volume = np.pad(volume, [(12, 12)] * 3 + [(0, 0)])
        found = appearance.blur(tf.constant(volume), (sigma, sigma), seed()).numpy()
        for channel in range(2):
            expected = ndimage.gaussian_filter(volume[..., channel].astype(float), sigma, truncate=8, mode="constant")
            np.testing.assert_allclose(found[8:-8, 8:-8, 8:-8, channel], expected[8:-8, 8:-8, 8:-8], atol=1e-5)

    def test_by_hand_at_the_border(self):
        volume = tf.reshape(tf.constant([1.0, 0.0]), [1, 1, 2, 1])
        w = np.exp(-0.5)
        found = appearance.blur(volume, (1.0, 1.0), seed()).numpy().ravel()
        np.testing.assert_allclose(found, [1 / (1 + w), w / (1 + w)], rtol=1e-6)

    def test_a_constant_stays(self):
        np.testing.assert_allclose(appearance.blur(tf.fill([*SHAPE, 1], 3.0), (2.0, 2.0), seed()), 3.0, rtol=1e-5)


class LowResolutionTest:
    def test_half_by_hand(self):
        # Coarse voxels at 1, 3, 5 (in [0, 6)) show voxels 1, 3 and 5; between their centres it is linear.
        volume = tf.reshape(tf.constant([9.0, 4.0, 9.0, 8.0, 9.0, 0.0]), [1, 1, 6, 1])
        found = appearance.low_resolution(volume, (0.5, 0.5), (False, False, True), seed()).numpy().ravel()
        np.testing.assert_allclose(found, [4, 5, 7, 6, 2, 0], atol=1e-5)

    def test_one_axis_alone(self):
        volume = make_volume()
        found = appearance.low_resolution(volume, (0.4, 0.4), (True, False, False), seed()).numpy()
        # Two coarse voxels: slices 1 and 3 (their middles, 1.25 and 3.75), and what is linear between.
        z = make_volume().numpy()
        np.testing.assert_allclose(found[0], z[1], atol=1e-6)
        np.testing.assert_allclose(found[2], (z[1] + z[3]) / 2, atol=1e-6)
        np.testing.assert_allclose(found[4], z[3], atol=1e-6)

    def test_full_resolution_and_no_axes_change_nothing(self):
        volume = make_volume(2)
        np.testing.assert_array_equal(appearance.low_resolution(volume, (1.0, 1.0), (True,) * 3, seed()), volume)
        np.testing.assert_array_equal(appearance.low_resolution(volume, (0.5, 0.5), (False,) * 3, seed()), volume)

    @pytest.mark.parametrize("size", [1, 2, 3, 96, 97])
    @pytest.mark.parametrize("zoom", [0.05, 0.3, 0.51, 0.99])
    def test_a_constant_stays_at_any_zoom(self, size, zoom):
        found = appearance.low_resolution(tf.fill([1, 1, size, 1], 3.0), (zoom, zoom), (False, False, True), seed())
        np.testing.assert_allclose(found, 3.0, rtol=1e-6)


class GammaTest:
    def test_by_hand(self):
        volume = tf.reshape(tf.constant([-1.0, 0.0, 1.0, 3.0]), [1, 1, 4, 1])
        # Scaled 0, .25, .5, 1; squared 0, .0625, .25, 1; times 4, minus 1.
        found = appearance.gamma(volume, (2.0, 2.0), 0.0, seed())
        np.testing.assert_allclose(found.numpy().ravel(), [-1, -0.75, 0, 3], atol=1e-5)

    def test_inverted_by_hand(self):
        volume = tf.reshape(tf.constant([-1.0, 0.0, 1.0, 3.0]), [1, 1, 4, 1])
        # 1 minus the scaled: 1, .75, .5, 0; squared 1, .5625, .25, 0; 1 minus: 0, .4375, .75, 1.
        found = appearance.gamma(volume, (2.0, 2.0), 1.0, seed())
        np.testing.assert_allclose(found.numpy().ravel(), [-1, 0.75, 2, 3], atol=1e-5)

    def test_a_constant_channel_stays(self):
        np.testing.assert_array_equal(
            appearance.gamma(tf.fill([*SHAPE, 1], 2.5), (0.5, 0.7), 0.5, seed()), np.full((*SHAPE, 1), 2.5)
        )

    def test_an_exponent_of_one_changes_nothing(self):
        np.testing.assert_allclose(appearance.gamma(make_volume(2), (1.0, 1.0), 0.5, seed()), make_volume(2), atol=1e-5)


class LevelsTest:
    def test_contrast_by_hand(self):
        volume = tf.reshape(tf.constant([0.0, 2.0, 4.0]), [1, 1, 3, 1])
        np.testing.assert_allclose(
            appearance.contrast(volume, (1.5, 1.5), seed()).numpy().ravel(), [-1, 2, 5], atol=1e-6
        )

    def test_brightness_by_hand(self):
        found = appearance.brightness(tf.zeros([1, 2, 3, 2]), (0.25, 0.25), seed())
        np.testing.assert_array_equal(found, np.full((1, 2, 3, 2), 0.25))

    def test_channels_draw_on_their_own(self):
        found = appearance.brightness(tf.zeros([1, 2, 3, 2]), (-1.0, 1.0), seed()).numpy()
        assert len(np.unique(found[..., 0])) == len(np.unique(found[..., 1])) == 1
        assert found[0, 0, 0, 0] != found[0, 0, 0, 1]

    def test_draws_fill_their_interval(self):
        drawn = [float(appearance.brightness(tf.zeros([1, 1, 1, 1]), (-0.5, 1.0), seed(i))) for i in range(100)]
        assert -0.5 <= min(drawn) < -0.3
        assert 0.8 < max(drawn) <= 1.0

    def test_noise(self):
        added = appearance.noise(tf.ones([20, 30, 40, 1]), (0.5, 0.5), seed()).numpy() - 1
        assert abs(added.mean()) < 0.02
        assert added.std() == pytest.approx(0.5, rel=0.03)
        np.testing.assert_array_equal(appearance.noise(make_volume(), (0.0, 0.0), seed()), make_volume())


class ChannelDropTest:
    def test_one_of_three(self):
        lost = []
        for i in range(30):
            empty = ~appearance.channel_drop(make_volume(3), seed(i)).numpy().any(axis=(0, 1, 2))
            assert empty.sum() == 1
            lost.append(int(empty.argmax()))
        assert set(lost) == {0, 1, 2}

    def test_the_only_channel_stays(self):
        np.testing.assert_array_equal(appearance.channel_drop(make_volume(), seed()), make_volume())
