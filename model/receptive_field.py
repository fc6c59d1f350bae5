"""How much of the input one output of each level can see, from the windows that the layers state themselves.

Of a residual block this is the way through its convolutions. What a pyramid adds from coarser levels is left out: it
has their resolution, not that of the level.
"""


def receptive_field(windows):
    """Extent of the input that one output depends on (Araujo et al. 2019).

    Args:
      windows: [(kernel, stride)] from the input on, each a triple (z, y, x).

    Returns:
      (z, y, x) voxels; (1, 1, 1) without windows.
    """
    field, step = (1, 1, 1), (1, 1, 1)
    for kernel, stride in windows:
        field = tuple(f + (k - 1) * s for f, k, s in zip(field, kernel, step, strict=True))
        step = tuple(s * t for s, t in zip(step, stride, strict=True))
    return field


def receptive_fields(levels, head=()):
    """Receptive field of every level.

    Args:
      levels: {level: [(kernel, stride)] from the input on}: a backbone's `windows`, or FPN.windows(backbone.windows).
      head: [(kernel, stride)] that follow on each level: the convolution of the proposal network, say.

    Returns:
      {level: (z, y, x) voxels}.
    """
    return {level: receptive_field([*windows, *head]) for level, windows in levels.items()}


def warnings(fields, anchors):
    """What to tell the user where an anchor cannot be seen whole.

    Args:
      fields: {level: (z, y, x) voxels}.
      anchors: {level: [(z, y, x) voxels]}; its levels are among those of the fields.

    Returns:
      One line per anchor that is longer than its level's receptive field along some axis.
    """
    return [
        f"level {level}: anchor of {_text(anchor)} outgrows the receptive field {_text(fields[level])}"
        for level, shapes in anchors.items()
        for anchor in shapes
        if _outgrows(anchor, fields[level])
    ]


def table(fields, strides, anchors):
    """The receptive fields as text, one line per level below a heading, with a mark where an anchor outgrows its own.

    Args:
      fields: {level: (z, y, x) voxels}.
      strides: {level: (z, y, x) voxels}.
      anchors: {level: [(z, y, x) voxels]}.

    Returns:
      list of str.
    """
    rows = [("level", "stride", "sees", "anchors (z, y, x voxels; ! outgrows what its level sees)")]
    for level, field in fields.items():
        shown = [_text(anchor) + " !" * _outgrows(anchor, field) for anchor in anchors[level]]
        rows.append((f"P{level}", _text(strides[level]), _text(field), ", ".join(shown)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def _outgrows(anchor, field):
    return any(size > limit for size, limit in zip(anchor, field, strict=True))


def _text(sizes):
    return "(" + ", ".join(f"{size:g}" for size in sizes) + ")"
