import math

import numpy as np
import pytest
import tensorflow as tf

from configs.train_schema import Schedule, Stage
from training import schedules


def staged(*stages, warmup_steps, **settings):
    peaks = [Stage(f"s{number}", steps, peak) for number, (peak, steps) in enumerate(stages)]
    return schedules.Staged(peaks, Schedule(**settings), warmup_steps)


def rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


class CosineTest:
    @pytest.mark.parametrize(
        ("step", "share"),
        [
            (0, 0.25),
            (1, 0.5),
            (3, 1.0),
            (4, 1.0),
            (6, 0.5 * (1 + math.cos(math.pi / 4))),
            (8, 0.5),
            (12, 0.0),
            (20, 0.0),
        ],
    )
    def test_hand_values(self, step, share):
        np.testing.assert_allclose(rates(staged((0.4, 12), warmup_steps=4), [step]), 0.4 * share, atol=1e-7)

    def test_no_warm_up(self):
        np.testing.assert_allclose(rates(staged((0.4, 10), warmup_steps=0), [0, 5, 10]), [0.4, 0.2, 0.0], atol=1e-7)

    def test_ends_above_zero(self):
        schedule = staged((0.4, 10), warmup_steps=0, end=0.25)
        np.testing.assert_allclose(rates(schedule, [0, 5, 10]), [0.4, 0.4 * (0.25 + 0.75 * 0.5), 0.1], rtol=1e-6)

    def test_rises_then_falls(self):
        found = rates(staged((1.0, 31), warmup_steps=7), range(32))
        assert np.argmax(found) == 6
        assert np.all(np.diff(found[:7]) > 0)
        assert np.all(np.diff(found[7:]) < 0)

    @pytest.mark.parametrize(
        ("step", "rate"), [(0, 0.2), (1, 0.4), (2, 0.4), (9, 0.4 * 0.5 * (1 + math.cos(math.pi * 7 / 8)))]
    )
    def test_stages_each_begin_anew(self, step, rate):
        schedule = staged((0.1, 5), (0.4, 10), (0.2, 3), warmup_steps=2)
        np.testing.assert_allclose(rates(schedule, [5 + step]), rate, atol=1e-7)
        np.testing.assert_allclose(rates(schedule, [0, 1, 15, 18]), [0.05, 0.1, 0.1, 0.0], atol=1e-7)


class OtherShapesTest:
    # A peak of 0.5 over 10 steps, of which 2 are the warm-up: 8 steps are left to fall.
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"name": "constant"}, {2: 0.5, 6: 0.5, 10: 0.5}),
            ({"name": "plateau"}, {2: 0.5, 6: 0.5, 10: 0.5}),
            ({"name": "exponential", "end": 0.01}, {2: 0.5, 6: 0.05, 10: 0.005}),
            ({"name": "polynomial", "end": 0.0, "power": 2.0}, {2: 0.5, 6: 0.125, 10: 0.0, 15: 0.0}),
            ({"name": "polynomial", "end": 0.2, "power": 1.0}, {2: 0.5, 6: 0.3, 10: 0.1}),
            ({"name": "piecewise", "boundaries": (0.5, 0.75), "factor": 0.1}, {2: 0.5, 6: 0.5, 7: 0.05, 9: 0.005}),
            ({"name": "cyclical", "floor": 0.2, "half_cycle_steps": 2}, {2: 0.1, 3: 0.3, 4: 0.5, 5: 0.3, 6: 0.1}),
        ],
    )
    def test_hand_values(self, settings, expected):
        schedule = staged((0.5, 10), warmup_steps=2, **settings)
        np.testing.assert_allclose(rates(schedule, expected), list(expected.values()), rtol=1e-5, atol=1e-7)
        # Of the warm-up and the shape, the lower.
        np.testing.assert_allclose(rates(schedule, [0]), min(0.25, expected[2]), rtol=1e-6)

    def test_factor_multiplies(self):
        factor = tf.Variable(1.0)
        schedule = schedules.Staged([Stage("a", 10, 0.5)], Schedule(name="plateau"), 0, factor)
        compiled = tf.function(schedule)
        assert float(compiled(tf.constant(3, tf.int64))) == 0.5
        factor.assign(0.25)
        assert float(compiled(tf.constant(3, tf.int64))) == 0.125
