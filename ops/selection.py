"""What the ways to select boxes have in common: as many outputs as are asked for, and batches of volumes."""

import tensorflow as tf

from ops import checks


def padded(values, size):
    """Values [n, ...], n <= size, with zeros (False) behind them: [size, ...]."""
    padding = [[0, size - tf.shape(values)[0]]] + [[0, 0]] * (values.shape.rank - 1)
    return tf.ensure_shape(tf.pad(values, padding), [size, *values.shape[1:]])


def of_each_volume(select, boxes, scores, class_ids, *, max_outputs, dtypes):
    """Selects in every volume of a batch.

    Args:
      select: of boxes [N, 6], scores [N], class_ids [N] and max_outputs, by these names, gives tensors [max_outputs].
      boxes: [B, N, 6] float32, voxels.
      scores: [B, N] float32.
      class_ids: [B, N] int32, or None, which select is not given.
      max_outputs: size of the results.
      dtypes: of the results.

    Returns:
      One tensor [B, max_outputs] for each of the dtypes.

    Raises:
      ValueError: other shapes, max_outputs not above 0, or as select.
    """
    checks.shapes("boxes [B, N, 6], scores [B, N], class_ids [B, N]", boxes, scores, class_ids)
    checks.positive("max_outputs", max_outputs)
    boxes, scores = checks.float32("boxes", boxes), checks.float32("scores", scores)
    volumes = {"boxes": boxes, "scores": scores} | ({} if class_ids is None else {"class_ids": class_ids})
    signature = tuple(tf.TensorSpec([max_outputs], dtype) for dtype in dtypes)
    return tf.map_fn(lambda volume: select(**volume, max_outputs=max_outputs), volumes, fn_output_signature=signature)
