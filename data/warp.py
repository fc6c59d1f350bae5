"""Bent patches: rotation, scale, shear and elastic displacement in a single resampling.

The point p of the patch shows the point q = corner + c + A (p - c) + u(p) of the case, where c is the patch's middle, A
an affine matrix and u a cubic B-spline; all in voxels, a voxel's centre being its index + 1/2.
"""

import math

import numpy as np
import tensorflow as tf

# Voxels that are resampled at a time: the intermediate arrays stay in the processor's cache (measured: 2^16 to 2^17).
_SLAB_VOXELS = 2**17
# Steps of the fixed point that inverts the displacement of landmarks.
_INVERSION_STEPS = 20


def random_affine(settings, spacing, seed):
    """Draws A.

    Args:
      settings: `input.augment.affine`.
      spacing: [3] float32, mm.
      seed: int32 [2].

    Returns:
      [3, 3] float32, see `affine_matrix`.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    low, high = np.radians(np.array(settings.rotation, np.float32)).T
    angles = low + (high - low) * tf.random.stateless_uniform([3], seeds[0])
    scale = tf.random.stateless_uniform([1 if settings.isotropic else 3], seeds[1], *settings.scale)
    shear = tf.random.stateless_uniform([3], seeds[2], *settings.shear)
    return affine_matrix(angles, tf.broadcast_to(scale, [3]), shear, spacing)


def affine_matrix(angles, scale, shear, spacing):
    """A, which looks up for a place of the patch the place of the case that is shown there.

    What is seen is scaled, sheared and turned about x, y and z, in this order and in mm: A is the inverse of that.

    Args:
      angles: [3] float32, radians about z, y and x; a positive one turns y to x, x to z and z to y respectively.
      scale: [3] float32 > 0.
      shear: [3] float32: of z by y, z by x and y by x.
      spacing: [3] float32, mm.

    Returns:
      [3, 3] float32, (z, y, x) columns, voxels to voxels; exactly the identity for no rotation, scale 1 and no shear.
    """
    (cz, cy, cx), (sz, sy, sx) = (tf.unstack(f(angles)) for f in (tf.cos, tf.sin))
    about_z = _matrix([1.0, 0.0, 0.0], [0.0, cz, -sz], [0.0, sz, cz])
    about_y = _matrix([cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy])
    about_x = _matrix([cx, -sx, 0.0], [sx, cx, 0.0], [0.0, 0.0, 1.0])
    zy, zx, yx = tf.unstack(shear)
    sheared = _matrix([1.0, zy, zx], [0.0, 1.0, yx], [0.0, 0.0, 1.0])
    shown = about_z @ about_y @ about_x @ sheared @ tf.linalg.diag(scale)
    return tf.linalg.inv(shown) * spacing / spacing[:, tf.newaxis]


def random_control(settings, patch_size, seed):
    """Draws the control points of u.

    Args:
      settings: `input.augment.elastic`.
      patch_size: (z, y, x).
      seed: int32 [2].

    Returns:
      [3, kz, ky, kx] float32, voxels along z, y, x; |u| is at most the largest of them (a B-spline's weights add to 1).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    magnitude = tf.random.stateless_uniform([], seeds[0], *settings.magnitude)
    shape = control_shape(patch_size, settings.grid)
    return magnitude * tf.random.stateless_uniform([3, *shape], seeds[1], -1.0, 1.0)


def control_shape(patch_size, grid):
    """(kz, ky, kx): control points at (j - 1) * grid voxels, j = 0, 1, ..., that reach past both ends of the patch."""
    return tuple(math.ceil(p / g) + 3 for p, g in zip(patch_size, grid, strict=True))


def warp(example, corner, patch_size, affine, control, grid):
    """Shows a bent part of a case.

    Args:
      example: dict with volume [Z, Y, X, C] float32, instance_ids [Z, Y, X] int32, less than 2^31 voxels; keypoints
        [N, L, 3] float32 voxels; other keys pass through.
      corner: [3] int32, first voxel of the patch before it is bent.
      patch_size: (z, y, x).
      affine: A, [3, 3] float32, invertible.
      control: [3, kz, ky, kx] float32, see `control_shape`.
      grid: (z, y, x) voxels between control points.

    Returns:
      The example with volume [*patch_size, C], interpolated linearly; instance_ids [*patch_size], those of the nearest
      voxel at the same places; both 0 where a place lies outside of the case; keypoints where the patch shows them. A
      landmark solves p = c + A^-1 (q - corner - c - u(p)) by 20 fixed-point steps: exact without displacement, and to
      0.001 voxels for random displacements of up to 0.4 of the grid, where they begin to fold; outside of the patch u
      goes on constantly.
    """
    middle = tf.constant(patch_size, tf.float32) / 2
    origin = tf.cast(corner, tf.float32) + middle
    rows, columns = _factors(patch_size, affine, origin - 0.5, control, grid)
    volume, ids = _sample(example["volume"], example["instance_ids"], rows, columns)
    offsets = example["keypoints"] - origin
    return {
        **example,
        "volume": tf.reshape(volume, [*patch_size, example["volume"].shape[3]]),
        "instance_ids": tf.reshape(ids, patch_size),
        "keypoints": _inverse(offsets, patch_size, affine, control, grid),
    }


def reach(affine, elastic, patch_size, spacing):
    """Size of a window, with the patch in its middle, that no bent patch leaves.

    Args:
      affine: `input.augment.affine`.
      elastic: `input.augment.elastic`.
      patch_size: (z, y, x).
      spacing: [3] float32, mm.

    Returns:
      [3] int32 voxels, an upper bound over all draws; `patch_size` if nothing is ever bent.
    """
    lengths = tf.constant(patch_size, tf.float32)
    if affine.probability > 0:
        matrix = _largest_matrix(affine).astype(np.float32) * spacing / spacing[:, tf.newaxis]
        lengths = tf.linalg.matvec(matrix, lengths)
    if elastic.probability > 0:
        lengths += 2 * elastic.magnitude[1]
    # Rounded up to a whole voxel on each side; the rounding of float32 is no reason for another one.
    grown = tf.math.ceil((lengths - tf.constant(patch_size, tf.float32)) / 2 - 1e-3)
    return tf.constant(patch_size) + 2 * tf.cast(tf.maximum(grown, 0.0), tf.int32)


def _largest_matrix(settings):
    """[3, 3]: each entry at least as large as that of any |A|, for equal spacings."""
    # A = scale^-1 shear^-1 about_x^T about_y^T about_z^T, and |B C| <= |B| |C|.
    bound = np.eye(3) / settings.scale[0]
    shear = max(abs(value) for value in settings.shear)
    bound = bound @ [[1, shear, shear + shear**2], [0, 1, shear], [0, 0, 1]]
    for (low, high), (a, b) in zip(settings.rotation[::-1], [(0, 1), (0, 2), (1, 2)], strict=True):
        angles = np.radians(np.linspace(low, high, 1001))
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.abs(np.cos(angles)).max()
        turn[a, b] = turn[b, a] = np.abs(np.sin(angles)).max()
        bound = bound @ turn
    return bound


def _matrix(*rows):
    return tf.stack([tf.stack(row) for row in rows])


def _factors(patch_size, affine, origin, control, grid):
    """The indices of the case that all voxels show, as a product: rows [3, Z, Y, k + 2] times columns [k + 2, X].

    Splines are separable, and so is an affine map: that along x, 1 and x take the place of two further basis functions.
    """
    points = [tf.range(p, dtype=tf.float32) + 0.5 for p in patch_size]
    bases = [_basis(p, k, g) for p, k, g in zip(points, control.shape[1:], grid, strict=True)]
    bent = tf.einsum("dzyx,az,by->dabx", control, bases[0], bases[1], optimize="optimal")
    z, y, x = (p - size / 2 for p, size in zip(points, patch_size, strict=True))
    shown = affine[:, 0, tf.newaxis, tf.newaxis] * z[:, tf.newaxis] + affine[:, 1, tf.newaxis, tf.newaxis] * y
    constant = (shown + origin[:, tf.newaxis, tf.newaxis])[..., tf.newaxis]
    slope = tf.broadcast_to(affine[:, 2, tf.newaxis, tf.newaxis, tf.newaxis], tf.shape(constant))
    columns = tf.concat([tf.transpose(bases[2]), tf.ones_like(x)[tf.newaxis], x[tf.newaxis]], axis=0)
    return tf.concat([bent, constant, slope], axis=-1), columns


def _basis(points, count, distance):
    """[..., count]: cubic B-splines centred on (j - 1) * distance, at points [...]."""
    t = tf.abs(points[..., tf.newaxis] / distance - tf.range(-1.0, count - 1))
    inner, outer = 2 / 3 - t**2 + t**3 / 2, tf.maximum(2.0 - t, 0.0) ** 3 / 6
    return tf.where(t < 1, inner, outer)


def _sample(volume, ids, rows, columns):
    """Reads volume and ids at the places `rows @ columns`, a slab of z at a time: [slabs, n, C] and [slabs, n]."""
    depth, height, basis = rows.shape[1:]
    most = max(_SLAB_VOXELS // (height * columns.shape[1]), 1)
    thickness = max(d for d in range(1, depth + 1) if depth % d == 0 and d <= most)
    slabs = tf.reshape(rows, [3, depth // thickness, thickness * height, basis])
    shape, channels = tf.shape(ids), volume.shape[3]
    flat_volume, flat_ids = tf.reshape(volume, [-1, channels]), tf.reshape(ids, [-1])

    def read(slab):
        places = [tf.reshape(tf.matmul(slab[axis], columns), [-1]) for axis in range(3)]
        return _read(flat_volume, flat_ids, shape, places)

    types = volume.dtype, ids.dtype
    # One at a time: the next slab would push this one out of the cache.
    return tf.map_fn(read, tf.transpose(slabs, [1, 0, 2, 3]), fn_output_signature=types, parallel_iterations=1)


def _read(volume, ids, shape, places):
    """Values [n, C] and nearest ids [n] at three float arrays [n] of indices, 0 further than 1/2 outside."""
    strides = (shape[1] * shape[2], shape[2], 1)
    last = tf.reduce_prod(shape) - 1
    inside = tf.constant(True)
    first, nearest, weights = 0, 0, []
    for axis, place in enumerate(places):
        # Up to the border's half voxel the border's value goes on.
        clipped = tf.clip_by_value(place, 0.0, tf.cast(shape[axis] - 1, tf.float32))
        inside &= tf.abs(place - clipped) <= 0.5
        low = tf.cast(clipped, tf.int32)
        weights.append((clipped - tf.cast(low, tf.float32))[:, tf.newaxis])
        first += low * strides[axis]
        nearest += tf.cast(clipped + 0.5, tf.int32) * strides[axis]

    def between(axis, offset):
        if axis == 3:  # Past the end of an axis the weight is 0: it only has to be a voxel.
            return tf.gather(volume, tf.minimum(first + offset, last))
        low = between(axis + 1, offset)
        return low + (between(axis + 1, offset + strides[axis]) - low) * weights[axis]

    values = tf.where(inside[:, tf.newaxis], between(0, 0), 0.0)
    return values, tf.where(inside, tf.gather(ids, nearest), 0)


def _inverse(offsets, patch_size, affine, control, grid):
    """Points p of the patch that show the places at `offsets` [N, L, 3] from what its middle shows without u."""
    size = tf.constant(patch_size, tf.float32)
    back = tf.linalg.inv(affine)

    def displacement(points):
        inside = tf.clip_by_value(points, 0.0, size)
        bases = [_basis(inside[..., a], control.shape[a + 1], grid[a]) for a in range(3)]
        return tf.einsum("dzyx,nlz,nly,nlx->nld", control, *bases, optimize="optimal")

    points = size / 2 + tf.einsum("de,nle->nld", back, offsets)
    for _ in range(_INVERSION_STEPS):
        points = size / 2 + tf.einsum("de,nle->nld", back, offsets - displacement(points))
    return points
