import numpy as np
import pytest

from configs.synthetic_schema import Cubes, Synthetic
from data import synthetic
from data.errors import InputError

SHAPE = (36, 40, 45)


def drawn(index, shape=SHAPE, **own):
    image, ids, class_ids, _, _ = synthetic.draw("cubes", Synthetic(shape=shape, cubes=Cubes(**own)), index)
    return image, ids, synthetic.CLASSES["cubes"][class_ids.item() - 1]


def box_of(ids):
    points = np.argwhere(ids > 0)
    return points.min(axis=0), points.max(axis=0) + 1


class CubesTest:
    def test_edges_are_equal_and_cover_16_to_31(self):
        edges = set()
        for index in range(250):
            lo, hi = box_of(drawn(index)[1])
            assert len(set(hi - lo)) == 1
            edges.add(int((hi - lo)[0]))
        assert edges == set(range(16, 32))

    def test_classes_are_even(self):
        hollow = sum(drawn(index)[2] == "hollow" for index in range(120))
        assert 40 <= hollow <= 80

    def test_places_reach_every_border(self):
        boxes = [box_of(drawn(index, shape=(31, 33, 35))[1]) for index in range(200)]
        np.testing.assert_array_equal(np.min([lo for lo, _ in boxes], axis=0), [0, 0, 0])
        np.testing.assert_array_equal(np.max([hi for _, hi in boxes], axis=0), [31, 33, 35])

    def test_hollow_one_has_a_wall_of_4_around_a_hole_through_z(self):
        seen = set()
        for index in range(12):
            _, ids, name = drawn(index)
            lo, hi = box_of(ids)
            cube = ids[tuple(map(slice, lo, hi))]
            expected = np.ones_like(cube)
            if name == "hollow":
                for y in range(cube.shape[1]):
                    for x in range(cube.shape[2]):
                        to_wall = min(y, x, cube.shape[1] - 1 - y, cube.shape[2] - 1 - x)
                        expected[:, y, x] = to_wall < 4
                assert not cube[:, 4, 4].any()  # through both ends
                assert cube[:, 3, 3].all()
            np.testing.assert_array_equal(cube, expected)
            seen.add(name)
        assert seen == {"cube", "hollow"}

    def test_object_is_brighter_by_0_4_and_clipped_at_1(self):
        image, ids, _ = drawn(1)
        inside, outside = image[ids > 0], image[ids == 0]
        assert (inside.min(), inside.max()) == (102, 255)  # 0.4 and 1
        assert (outside.min(), outside.max()) == (0, 255)
        # Uniform noise: 60 % of the values are moved, 40 % clipped to 1.
        assert (inside == 255).mean() == pytest.approx(0.4, abs=0.03)
        assert inside.mean() / 255 == pytest.approx(0.6 * 0.7 + 0.4 * 1.0, abs=0.01)
        assert outside.mean() / 255 == pytest.approx(0.5, abs=0.01)

    def test_settings_are_used(self):
        image, ids, name = drawn(0, shape=(5, 9, 7), edge=(5, 5), wall=1, step=1.0)
        lo, hi = box_of(ids)
        np.testing.assert_array_equal(hi - lo, [5, 5, 5])
        assert (ids > 0).sum() == {"cube": 125, "hollow": 5 * 16}[name]
        assert (image[ids > 0] == 255).all()

    def test_no_room(self):
        words = r"data.synthetic.shape: expected room for cubes of edge 31 .*, came \(30, 40, 50\)"
        with pytest.raises(InputError, match=words):
            drawn(0, shape=(30, 40, 50))
