"""One cube in a volume of noise, solid or with a hole through it: a set on which a wrong answer cannot hide."""

import numpy as np

from data.errors import InputError

CLASSES = ("cube", "hollow")
ATTRIBUTES = ()
_LEVELS = 255  # stand for 1


def draw(rng, settings):
    """Draws a volume of uniform noise with one object in it.

    The object is a cube of an edge uniform in `edge`, along the axes of the volume, at a uniform place at which it
    lies whole inside; with equal chances it is solid ("cube") or has a square hole along z, through both ends, around
    which a wall of `wall` voxels stays ("hollow"). The noise is uniform in 0..1; `step` is added to it in the
    object's voxels, to which the hole does not belong, and the sum clipped to 1.

    Args and returns: as `data.synthetic.draw`. The image is uint8: 255 stands for 1; the spacing is 1 mm.

    Raises:
      InputError: the shape has no room for the longest edge.
    """
    own = settings.cubes
    if min(settings.shape) < own.edge[1]:
        raise InputError(
            f"data.synthetic.shape: expected room for cubes of edge {own.edge[1]} (data.synthetic.cubes.edge), "
            f"came {tuple(settings.shape)}"
        )
    image = rng.integers(_LEVELS + 1, size=settings.shape, dtype=np.uint8)
    ids = np.zeros(settings.shape, np.int32)
    edge = int(rng.integers(own.edge[0], own.edge[1], endpoint=True))
    start = rng.integers(np.array(settings.shape) - edge, endpoint=True)
    kind = int(rng.integers(len(CLASSES)))
    box = tuple(slice(a, a + edge) for a in start)
    ids[box] = 1
    if CLASSES[kind] == "hollow":
        ids[box][:, own.wall : -own.wall, own.wall : -own.wall] = 0
    solid = ids[box] > 0
    raised = np.minimum(image[box][solid].astype(int) + round(own.step * _LEVELS), _LEVELS)
    image[box][solid] = raised
    return image, ids, np.array([kind + 1], np.int32), np.zeros((1, 0), np.float32), np.ones(3)
