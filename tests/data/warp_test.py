import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from configs import augment_schema
from data import augment, warp

GRID = (4, 5, 6)
ONE_MM = (1.0, 1.0, 1.0)


def make_example(shape, keypoints=((0.0, 0.0, 0.0),), channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "volume": tf.constant(rng.normal(size=(*shape, channels)).astype(np.float32)),
        "instance_ids": tf.constant(rng.integers(0, 4, shape).astype(np.int32)),
        "class_ids": tf.ones(3, tf.int32),
        "keypoints": tf.constant([keypoints], tf.float32),
        "name": tf.constant("kept"),
    }


def matrix(angles=(0, 0, 0), scale=(1, 1, 1), shear=(0, 0, 0), spacing=ONE_MM):
    degrees = tf.constant(np.radians(angles), tf.float32)
    parts = (tf.constant(part, tf.float32) for part in (scale, shear, spacing))
    return warp.affine_matrix(degrees, *parts)


def still(size, grid=GRID):
    return tf.zeros([3, *warp.control_shape(size, grid)])


def bent(size, magnitude, seed=0, grid=GRID):
    settings = augment_schema.Elastic(1.0, grid, (magnitude, magnitude))
    return warp.random_control(settings, size, tf.constant([seed, 1]))


def warped(example, corner, size, affine=None, control=None, grid=GRID):
    affine = tf.eye(3) if affine is None else affine
    control = still(size, grid) if control is None else control
    return warp.warp(example, tf.constant(corner), size, affine, control, grid)


def spline(t):
    """The cubic B-spline from its recursive definition, on knots -2 .. 2."""

    def piece(first, degree):
        if degree == 0:
            return float(first <= t < first + 1)
        return (
            (t - first) * piece(first, degree - 1) + (first + degree + 1 - t) * piece(first + 1, degree - 1)
        ) / degree

    return piece(-2, 3)


def shown_places(corner, size, affine, control, grid):
    """q of every voxel's centre, from the formula at the top of data/warp.py: [3, Z, Y, X]."""
    middle = np.array(size) / 2
    bases = [
        [[spline((i + 0.5) / grid[a] - (j - 1)) for j in range(control.shape[a + 1])] for i in range(size[a])]
        for a in range(3)
    ]
    displacement = np.einsum("dzyx,az,by,cx->dabc", control, *bases)
    offsets = np.moveaxis(np.indices(size) + 0.5, 0, 3) - middle
    return np.moveaxis(np.array(corner) + middle + offsets @ affine.T, 3, 0) + displacement


class AffineMatrixTest:
    def test_nothing_is_exactly_the_identity(self):
        np.testing.assert_array_equal(matrix(spacing=(3.0, 0.7, 0.7)), np.eye(3))

    def test_quarter_turns_by_hand(self):
        # A finds the source: what is shown at +x comes from +y when y turns to x.
        np.testing.assert_allclose(matrix((90, 0, 0)) @ [[0.0], [0.0], [1.0]], [[0], [1], [0]], atol=1e-6)
        np.testing.assert_allclose(matrix((0, 90, 0)) @ [[1.0], [0.0], [0.0]], [[0], [0], [1]], atol=1e-6)
        np.testing.assert_allclose(matrix((0, 0, 90)) @ [[0.0], [1.0], [0.0]], [[1], [0], [0]], atol=1e-6)

    def test_scale_and_shear_by_hand(self):
        np.testing.assert_allclose(matrix(scale=(2, 4, 5)), np.diag([0.5, 0.25, 0.2]), atol=1e-7)
        sheared = [[1, -0.5, 0.5 * 0.2 - 0.25], [0, 1, -0.2], [0, 0, 1]]
        np.testing.assert_allclose(matrix(shear=(0.5, 0.25, 0.2)), sheared, atol=1e-6)

    def test_rotation_is_in_millimetres(self):
        # 30 degrees about y in a grid of 5 mm slices and 1 mm pixels: shown one slice (5 mm) up, the source lies
        # 5 cos 30 mm up, which is 0.866 slices, and 5 sin 30 mm along x, which is 2.5 pixels.
        found = matrix((0, 30, 0), spacing=(5.0, 2.0, 1.0)) @ [[1.0], [0.0], [0.0]]
        np.testing.assert_allclose(found, [[math.cos(math.pi / 6)], [0], [2.5]], atol=1e-6)

    def test_a_turn_keeps_lengths_in_millimetres(self):
        spacing = np.array([5.0, 2.0, 0.5])
        turn = matrix((20, -35, 50), spacing=spacing).numpy() * spacing[:, None] / spacing
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-5)


class RandomAffineTest:
    def test_draws_stay_in_their_ranges(self):
        settings = augment_schema.Affine(1.0, ((-10, 10), (0, 0), (0, 0)), (0.8, 1.25), False, (0.0, 0.0))
        drawn = [warp.random_affine(settings, tf.ones(3), tf.constant([i, 0])).numpy() for i in range(50)]
        scales = np.array([1 / np.linalg.norm(m, axis=1) for m in drawn])
        assert scales.min() >= 0.8 - 1e-5
        assert scales.max() <= 1.25 + 1e-5
        assert scales.std(axis=0).min() > 0.05
        angles = np.degrees([math.atan2(m[1, 2], m[1, 1]) for m in drawn])
        assert -10.01 <= angles.min() < -5 < 5 < angles.max() <= 10.01

    def test_isotropic_scale(self):
        settings = augment_schema.Affine(1.0, ((0, 0),) * 3, (0.5, 2.0), True, (0.0, 0.0))
        found = warp.random_affine(settings, tf.ones(3), tf.constant([1, 0])).numpy()
        np.testing.assert_allclose(found, found[0, 0] * np.eye(3), atol=1e-7)
        assert found[0, 0] != 1

    def test_same_seed_same_matrix(self):
        settings = augment_schema.Affine()
        a, b, c = (warp.random_affine(settings, tf.ones(3), tf.constant([i, 0])).numpy() for i in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


class WarpTest:
    @pytest.mark.parametrize("size", [(5, 7, 11), (4, 3, 6)])
    def test_identity_gives_the_voxels_back(self, size):
        example = make_example((5, 7, 11), [(1.0, 2.5, 3.0)], channels=2)
        found = warped(example, (0, 0, 0), size)
        z, y, x = size
        np.testing.assert_array_equal(found["volume"], example["volume"][:z, :y, :x])
        np.testing.assert_array_equal(found["instance_ids"], example["instance_ids"][:z, :y, :x])
        np.testing.assert_allclose(found["keypoints"], example["keypoints"], atol=1e-6)
        assert found["name"].numpy() == b"kept"

    def test_translation_by_voxels_and_zeros_outside(self):
        example = make_example((5, 7, 11), [(1.0, 2.5, 3.0)])
        found = warped(example, (2, -3, 4), (5, 7, 11))
        expected = np.zeros((5, 7, 11), np.float32)
        expected[:3, 3:, :7] = example["volume"].numpy()[2:, :4, 4:, 0]
        np.testing.assert_array_equal(found["volume"][..., 0], expected)
        expected_ids = np.zeros((5, 7, 11), np.int32)
        expected_ids[:3, 3:, :7] = example["instance_ids"].numpy()[2:, :4, 4:]
        np.testing.assert_array_equal(found["instance_ids"], expected_ids)
        np.testing.assert_allclose(found["keypoints"], [[[-1.0, 5.5, -1.0]]], atol=1e-6)

    @pytest.mark.parametrize(
        ("angles", "shape", "axes"),
        [((90, 0, 0), (5, 7, 7), (1, 2)), ((0, 90, 0), (6, 5, 6), (2, 0)), ((0, 0, 90), (4, 4, 7), (0, 1))],
    )
    def test_a_quarter_turn_is_one(self, angles, shape, axes):
        example = make_example(shape)
        found = warped(example, (0, 0, 0), shape, matrix(angles))
        np.testing.assert_allclose(found["volume"][..., 0], np.rot90(example["volume"][..., 0], axes=axes), atol=1e-5)
        np.testing.assert_array_equal(found["instance_ids"], np.rot90(example["instance_ids"], axes=axes))

    def test_a_quarter_turn_is_one_of_rotate90(self):
        example = make_example((5, 7, 7))
        found = warped(example, (0, 0, 0), (5, 7, 7), matrix((90, 0, 0)))["instance_ids"].numpy()
        turned = [augment.rotate90(example, ((1, 2),), tf.constant([i, 0]))["instance_ids"].numpy() for i in range(20)]
        assert any((found == other).all() for other in turned)

    @pytest.mark.parametrize("size", [(5, 7, 6), (8, 3, 9)])
    def test_against_the_formula(self, size):
        example = make_example((9, 12, 10), channels=2)
        affine, control = matrix((20, -15, 30), (1.2, 0.9, 1), (0.1, 0, 0), (2, 1, 1.5)), bent(size, 1.5)
        corner = (2, 3, 1)
        found = warped(example, corner, size, affine, control)
        places = shown_places(corner, size, affine.numpy().astype(float), control.numpy(), GRID) - 0.5
        limits = np.array([9, 12, 10]).reshape(3, 1, 1, 1)
        inside = ((places >= -0.5) & (places <= limits - 0.5)).all(axis=0)
        assert 0.5 < inside.mean() <= 1
        for channel in range(2):
            expected = ndimage.map_coordinates(example["volume"].numpy()[..., channel], places, order=1, mode="nearest")
            np.testing.assert_allclose(found["volume"][..., channel], np.where(inside, expected, 0), atol=1e-4)
        nearest = np.clip(np.floor(places + 0.5).astype(int), 0, limits - 1)
        expected = np.where(inside, example["instance_ids"].numpy()[tuple(nearest)], 0)
        np.testing.assert_array_equal(found["instance_ids"], expected)

    def test_a_ramp_shows_its_places(self):
        shape, size, corner = (20, 24, 28), (8, 9, 10), (6, 7, 9)
        affine, control = matrix((10, 20, -10), (1.1,) * 3), bent(size, 1.0)
        ramps = np.stack(np.meshgrid(*[np.arange(s) + 0.5 for s in shape], indexing="ij"), axis=-1)
        example = make_example(shape) | {"volume": tf.constant(ramps, tf.float32)}
        found = warped(example, corner, size, affine, control)["volume"].numpy()
        places = shown_places(corner, size, affine.numpy().astype(float), control.numpy(), GRID)
        np.testing.assert_allclose(np.moveaxis(found, 3, 0), places, atol=1e-4)

    @pytest.mark.parametrize("magnitude", [0.0, 1.6])
    def test_landmarks_stay_where_they_are_seen(self, magnitude):
        # The ramp says which place of the case a place of the patch shows: at the landmark, the landmark's.
        shape, size, corner = (30, 30, 30), (16, 18, 20), (7, 6, 5)
        ramps = np.stack(np.meshgrid(*[np.arange(s) + 0.5 for s in shape], indexing="ij"), axis=-1)
        points = np.random.default_rng(0).uniform(11, 19, (40, 3))
        example = make_example(shape, points) | {"volume": tf.constant(ramps, tf.float32)}
        affine, control = matrix((15, -15, 15), (0.9, 1.1, 1)), bent(size, magnitude)
        found = warped(example, corner, size, affine, control)
        seen = found["keypoints"].numpy()[0]
        assert (seen > 0.5).all()
        assert (seen < np.array(size) - 0.5).all()
        shown = found["volume"].numpy()
        at = [ndimage.map_coordinates(shown[..., a], seen.T - 0.5, order=3) for a in range(3)]
        np.testing.assert_allclose(np.transpose(at), points, atol=0.02)

    def test_landmarks_are_exact_up_to_the_largest_displacement(self):
        # The elastic map forwards, from the formula, then the landmarks back.
        size, corner = (30, 32, 36), np.array([3, 4, 5])
        rng = np.random.default_rng(0)
        affine = matrix((20, -10, 15), (0.9, 1.1, 1.2))
        for i in range(3):
            control = bent(size, 8.0, i, (20,) * 3)
            voxels = rng.integers(0, size, (20, 3))
            places = shown_places(corner, size, affine.numpy().astype(float), control.numpy(), (20,) * 3)
            points = places[(slice(None), *voxels.T)].T
            found = warped(make_example((5, 7, 11), points), corner, size, affine, control, (20,) * 3)
            np.testing.assert_allclose(found["keypoints"][0], voxels + 0.5, atol=1e-3)

    def test_a_landmark_at_a_centroid_stays_there(self):
        shape, size, corner = (40, 44, 48), (30, 32, 36), (5, 6, 6)
        grid = np.stack(np.meshgrid(*[np.arange(s) + 0.5 for s in shape], indexing="ij"), axis=-1)
        centre = np.array([18.0, 24.0, 22.0])
        ids = (np.linalg.norm(grid - centre, axis=-1) < 7).astype(np.int32)
        example = make_example(shape, [centre]) | {"instance_ids": tf.constant(ids)}
        found = warped(
            example, corner, size, matrix((25, 10, -15), (1.1,) * 3), bent(size, 1.0, grid=(20,) * 3), (20,) * 3
        )
        centroid = np.argwhere(found["instance_ids"].numpy() == 1).mean(axis=0) + 0.5
        np.testing.assert_allclose(found["keypoints"][0, 0], centroid, atol=0.3)

    def test_unknown_landmarks_stay_unknown(self):
        example = make_example((5, 7, 11), [(np.nan, 1.0, 2.0), (1.0, 1.0, 1.0)])
        found = warped(example, (0, 0, 0), (5, 7, 6), matrix((10, 0, 0)), bent((5, 7, 6), 1.0))["keypoints"].numpy()
        assert np.isnan(found[0, 0]).any()
        assert np.isfinite(found[0, 1]).all()

    def test_no_new_ids(self):
        example = make_example((9, 12, 10))
        ids = tf.where(example["instance_ids"] == 2, 7, example["instance_ids"])
        found = warped(example | {"instance_ids": ids}, (0, 0, 0), (8, 9, 10), matrix((33, 20, 10)))["instance_ids"]
        assert set(np.unique(found)) <= {0, 1, 3, 7}

    def test_no_instances_and_no_landmarks(self):
        example = make_example((5, 7, 11)) | {"keypoints": tf.zeros([0, 2, 3]), "class_ids": tf.zeros([0], tf.int32)}
        found = warped(example, (0, 0, 0), (4, 5, 6), matrix((10, 0, 0)), bent((4, 5, 6), 1.0))
        assert found["keypoints"].shape == (0, 2, 3)
        assert np.abs(found["volume"]).max() > 0

    def test_a_volume_of_one_voxel(self):
        example = make_example((1, 1, 1)) | {"volume": tf.fill([1, 1, 1, 1], 5.0)}
        found = warped(example, (-1, -1, -1), (3, 3, 3), matrix((5, 5, 5)))["volume"].numpy()
        assert found[1, 1, 1, 0] == 5
        assert np.count_nonzero(found) == 1

    def test_static_shapes_of_unknown_cases_and_equal_to_eager(self):
        example = make_example((9, 12, 10))
        affine, control = matrix((20, 5, 0)), bent((4, 5, 6), 1.0)
        dataset = tf.data.Dataset.from_generator(
            lambda: [(example["volume"], example["instance_ids"])],
            output_signature=(tf.TensorSpec([None, None, None, 1]), tf.TensorSpec([None, None, None], tf.int32)),
        ).map(
            lambda v, i: warped(
                {"volume": v, "instance_ids": i, "keypoints": tf.zeros([0, 0, 3])},
                (1, 2, 3),
                (4, 5, 6),
                affine,
                control,
            )
        )
        assert dataset.element_spec["volume"].shape == (4, 5, 6, 1)
        assert dataset.element_spec["instance_ids"].shape == (4, 5, 6)
        found, eager = next(iter(dataset)), warped(example, (1, 2, 3), (4, 5, 6), affine, control)
        np.testing.assert_allclose(found["volume"], eager["volume"], atol=1e-5)
        np.testing.assert_array_equal(found["instance_ids"], eager["instance_ids"])


class RandomControlTest:
    def test_displacement_is_bounded_and_smooth(self):
        control = bent((12, 15, 18), 2.0).numpy()
        assert control.shape == (3, 6, 6, 6)
        assert 1.5 < np.abs(control).max() <= 2
        displacement = shown_places((0, 0, 0), (12, 15, 18), np.eye(3), control, GRID)
        displacement -= np.indices((12, 15, 18)) + 0.5
        assert 0.1 < np.abs(displacement).max() <= 2
        assert np.abs(np.diff(displacement, axis=3)).max() < 1

    def test_seeds(self):
        a, b, c = (bent((4, 5, 6), 2.0, seed).numpy() for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


class ReachTest:
    def found(self, affine, elastic, size, spacing):
        return tuple(warp.reach(affine, elastic, size, tf.constant(spacing)).numpy().tolist())

    def test_nothing_bent(self):
        off = augment_schema.Affine(probability=0.0), augment_schema.Elastic(probability=0.0)
        assert self.found(*off, (5, 7, 11), ONE_MM) == (5, 7, 11)

    def test_by_hand(self):
        affine = augment_schema.Affine(1.0, ((0, 0),) * 3, (0.5, 1.0), True, (0.0, 0.0))
        still_ = augment_schema.Elastic(probability=0.0)
        assert self.found(affine, still_, (4, 6, 10), ONE_MM) == (8, 12, 20)
        turned = augment_schema.Affine(1.0, ((90, 90), (0, 0), (0, 0)), (1.0, 1.0), True, (0.0, 0.0))
        assert self.found(turned, still_, (4, 6, 10), ONE_MM) == (4, 10, 10)
        # In mm the patch is 12 long in y and 10 in x.
        assert self.found(turned, still_, (4, 6, 10), (1.0, 2.0, 1.0)) == (4, 6, 12)
        off = augment_schema.Affine(probability=0.0)
        assert self.found(off, augment_schema.Elastic(1.0, GRID, (0.0, 1.5)), (4, 6, 10), ONE_MM) == (8, 10, 14)

    def test_no_patch_leaves_it(self):
        affine = augment_schema.Affine(1.0, ((-40, 40), (-10, 20), (0, 30)), (0.8, 1.1), False, (-0.1, 0.2))
        elastic = augment_schema.Elastic(1.0, GRID, (1.0, 1.5))
        size, spacing = (6, 8, 10), (2.0, 1.0, 0.8)
        reach = np.array(self.found(affine, elastic, size, spacing))
        inside = tf.ones([*reach, 1]), tf.ones(reach, tf.int32)
        example = {"volume": inside[0], "instance_ids": inside[1], "keypoints": tf.zeros([0, 0, 3])}
        for i in range(40):
            drawn = warp.random_affine(affine, tf.constant(spacing), tf.constant([i, 0]))
            found = warped(example, (reach - size) // 2, size, drawn, bent(size, 1.5, i))
            assert found["instance_ids"].numpy().min() == 1
            np.testing.assert_allclose(found["volume"], 1, atol=1e-6)
