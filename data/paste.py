"""Instances of one case copied into a patch of another.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021. In a
picture what is pasted hides what lies behind it; in a volume nothing lies behind, so a place is looked for instead at
which (nearly) nothing is covered, and the patch's own instances all stay.
"""

import tensorflow as tf

# Places that are drawn for an instance before it is left out.
_ATTEMPTS = 10


def paste(example, donor, settings, seed):
    """Copies instances, each whole, to places drawn uniformly from those where it lies inside the patch.

    An instance, drawn uniformly from the donor's, is left out where it is longer than the patch, or where none of 10
    places drawn covers at most the share `max_covered` of each instance that is there.

    Args:
      example: the patch: volume [Z, Y, X, C] float32, instance_ids [Z, Y, X] int32, class_ids [N] int32, attributes
        [N, T] float32, keypoints [N, L, 3] float32 voxels; other keys pass through.
      donor: likewise, of any size, M instances; M may be 0.
      settings: `input.augment.paste`.
      seed: int32 [2].

    Returns:
      The example with `count` more instances behind its own, ids N + 1 and on; what was left out has no voxels.
    """
    num_donors = tf.shape(donor["class_ids"])[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, settings.count))
    for instance_seed in seeds:
        example = tf.cond(
            num_donors > 0,
            lambda example=example, seed=instance_seed: _paste_one(example, donor, num_donors, settings, seed),
            lambda example=example: example,
        )
    return example


def _paste_one(example, donor, num_donors, settings, seed):
    seeds = tf.random.experimental.stateless_split(seed, 2)
    row = tf.random.stateless_uniform([], seeds[0], maxval=num_donors, dtype=tf.int32)
    voxels = tf.cast(tf.where(donor["instance_ids"] == row + 1), tf.int32)  # [v, 3]
    first, last = tf.reduce_min(voxels, axis=0), tf.reduce_max(voxels, axis=0)
    # Without voxels nothing is written, wherever that is; the extremes of nothing are the largest integers.
    first, length = tf.cond(
        tf.size(voxels) > 0, lambda: (first, last - first + 1), lambda: (tf.zeros(3, tf.int32),) * 2
    )
    room = tf.shape(example["instance_ids"]) - length
    corner, fits = _place(example, voxels - first, room, settings.max_covered, seeds[1])
    # Nothing is written where it does not fit.
    voxels = voxels[: tf.where(fits, tf.shape(voxels)[0], 0)]
    offsets = voxels - first
    targets = offsets + corner
    values = tf.gather_nd(donor["volume"], voxels)
    if settings.blend > 0:
        share = _share_inside(offsets, length, settings.blend)[:, tf.newaxis]
        values = share * values + (1 - share) * tf.gather_nd(example["volume"], targets)
    numbers = tf.fill(tf.shape(voxels)[:1], tf.shape(example["class_ids"])[0] + 1)
    shift = tf.cast(corner - first, tf.float32)
    return {
        **example,
        "volume": tf.tensor_scatter_nd_update(example["volume"], targets, values),
        "instance_ids": tf.tensor_scatter_nd_update(example["instance_ids"], targets, numbers),
        **{name: _with_row(example[name], donor[name][row]) for name in ("class_ids", "attributes")},
        "keypoints": _with_row(example["keypoints"], donor["keypoints"][row] + shift),
    }


def _place(example, offsets, room, max_covered, seed):
    """A corner [3] int32 at which voxels at `offsets` [v, 3] from it may be pasted, and whether there is one."""
    ids, slots = example["instance_ids"], tf.shape(example["class_ids"])[0] + 1
    seeds = tf.random.experimental.stateless_split(seed, _ATTEMPTS)

    def count(numbers):
        return tf.cast(tf.math.bincount(numbers, minlength=slots, maxlength=slots)[1:], tf.float32)

    # A Python number: nothing is counted where nothing may be covered.
    allowed = max_covered * count(tf.reshape(ids, [-1])) if max_covered > 0 else None

    def is_free(corner):
        under = tf.gather_nd(ids, offsets + corner)
        if allowed is None:
            return tf.reduce_all(under == 0)
        return tf.reduce_all(count(under) <= allowed)

    def attempt(number, corner, _):
        place = tf.random.stateless_uniform([3], seeds[number])
        corner = tf.minimum(tf.cast(place * tf.cast(room + 1, tf.float32), tf.int32), room)
        return number + 1, corner, is_free(corner)

    def goes_on(number, corner, found):
        return (number < _ATTEMPTS) & ~found & tf.reduce_all(room >= 0)

    _, corner, found = tf.while_loop(goes_on, attempt, (0, tf.zeros(3, tf.int32), tf.constant(False)))
    return corner, found


def _share_inside(offsets, length, width):
    """The share of the cube of 2 * width + 1 voxels around each voxel, at `offsets` [v, 3], that is of them: [v].

    `length` [3] int32 is that of the box around all.
    """
    mask = tf.scatter_nd(offsets + width, tf.ones(tf.shape(offsets)[:1]), length + 2 * width)
    share = tf.nn.avg_pool3d(mask[tf.newaxis, ..., tf.newaxis], 2 * width + 1, 1, "VALID")[0, ..., 0]
    return tf.gather_nd(share, offsets)


def _with_row(rows, row):
    return tf.concat([rows, row[tf.newaxis]], axis=0)
