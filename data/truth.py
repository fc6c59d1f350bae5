"""The truth of a patch: the instances that it shows, in a fixed number of slots."""

import tensorflow as tf

from ops import masks


def of_patch(example, max_instances, min_visible_voxels):
    """The instances that a patch shows, in slots.

    An instance counts if it has `min_visible_voxels` voxels, or fewer but lies whole inside the patch. Where there are
    more than G, the largest are kept. All others become background.

    Args:
      example: dict with instance_ids [Z, Y, X] int32, ids 1..N, any of which may be absent; class_ids [N] int32,
        attributes [N, T] float32, keypoints [N, L, 3] float32 voxels.
      max_instances: G.
      min_visible_voxels: for instances that touch the patch's border.

    Returns:
      dict: instance_ids [Z, Y, X] int32 where slot g has id g + 1; boxes [G, 6] float32 voxels, class_ids [G] int32,
      attributes [G, T] float32, keypoints [G, L, 3] float32, all 0 in empty slots; valid [G] bool. Slots are in
      descending order of size.
    """
    ids, num_instances = example["instance_ids"], tf.shape(example["class_ids"])[0]
    boxes, voxels = masks.instance_boxes(ids, num_instances)
    shape = tf.cast(tf.shape(ids), tf.float32)
    cut = tf.reduce_any((boxes[:, :3] <= 0.0) | (boxes[:, 3:] >= shape), axis=-1)
    sizes = tf.where(cut & (voxels < min_visible_voxels), 0, voxels)
    # Empty rows behind the instances, so that G slots can always be filled.
    sizes, rows = tf.math.top_k(tf.pad(sizes, [[0, max_instances]]), max_instances)
    valid = sizes > 0
    slots = tf.where(valid, tf.range(1, max_instances + 1), 0)
    table = tf.scatter_nd(rows[:, tf.newaxis] + 1, slots, [num_instances + max_instances + 1])

    def in_slots(values):
        padding = [[0, max_instances]] + [[0, 0]] * (values.shape.rank - 1)
        chosen = tf.gather(tf.pad(values, padding), rows)
        return tf.where(tf.reshape(valid, [-1] + [1] * (values.shape.rank - 1)), chosen, tf.zeros_like(chosen))

    return {
        "instance_ids": tf.gather(table, ids),
        "boxes": in_slots(boxes),
        **{name: in_slots(example[name]) for name in ("class_ids", "attributes", "keypoints")},
        "valid": valid,
    }


def with_known_keypoints(found):
    """What `of_patch` returns with 0 in the place of unknown landmarks, and keypoints_valid [G, L], which are known."""
    points = found["keypoints"]
    valid = found["valid"][:, tf.newaxis] & tf.reduce_all(tf.math.is_finite(points), axis=-1)
    return {**found, "keypoints": tf.where(valid[..., tf.newaxis], points, 0.0), "keypoints_valid": valid}
