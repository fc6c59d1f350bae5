"""Pictures of detections: three slices through a volume with masks, boxes and names."""

import colorsys
import dataclasses

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from data.atomic import replacing

AXES = "zyx"
_DPI = 110
# Inches: of all panels side by side, of one panel at most and at least, and of the margins.
_PANELS_WIDTH, _PANEL_HEIGHT, _SMALLEST = 12.0, 7.0, (1.6, 0.6)
_SIDE, _BETWEEN, _TOP, _ABOVE, _BELOW = 0.9, 0.65, 0.4, 0.3, 0.5
_FILL = 0.28  # opacity of a mask
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601
_MISSED = (1.0, 1.0, 1.0)  # colour of a truth that no detection covers


def draw_slices(path, volume, labels, boxes, names, *, spacing=(1, 1, 1), centre=None, truth=None, title=""):
    """Draws the three orthogonal slices through a point as a PNG file.

    Each panel shows the image in grey, every mask as a tint within an outline along the voxels'
    edges, every box that the slice crosses, its name, and dotted lines where the other two slices
    lie. Colours tell instances apart. A second row shows the truth: each true instance in the
    colour of the detection that covers most of it, or in white where none does.

    Args:
      path: of the file, which is replaced as a whole.
      volume: [Z, Y, X] float, one channel; shown between its 1st and 99.5th percentile.
      labels: [Z, Y, X] int32, i + 1 in the mask of detection i, else 0.
      boxes: [D, 6] float, voxels; D may be 0.
      names: D strings, such as "cuboid 0.93".
      spacing: mm per voxel along z, y, x: the aspect of the panels. A panel that would be too thin to
        read is stretched, and says so.
      centre: (z, y, x) voxels, the point; the centre of the first box by default, or of the volume
        where there is none. A point outside is moved onto the border.
      truth: [Z, Y, X] int32, 0 background, or None for no second row.
      title: of the picture.

    Raises:
      ValueError: the arguments disagree in shape or count.
    """
    figure = slices_figure(volume, labels, boxes, names, spacing=spacing, centre=centre, truth=truth, title=title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def slices_figure(volume, labels, boxes, names, *, spacing, centre, truth, title):
    """The picture of `draw_slices`, with its arguments, as a matplotlib figure."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 6)
    _check(volume, labels, boxes, names, truth)
    if centre is None:
        centre = (boxes[0, :3] + boxes[0, 3:]) / 2 if len(boxes) else np.array(volume.shape) / 2
    # Voxel i covers [i, i + 1): the slice through a point is the floor of its coordinate.
    point = np.clip(np.floor(centre), 0, np.array(volume.shape) - 1).astype(int)
    colours = detection_colours(len(boxes))
    rows = [Row("detected" if len(boxes) else "nothing detected", labels, colours, boxes, names)]
    if truth is not None:
        colours = truth_colours(truth, labels, len(boxes))
        rows.append(Row("truth (white: missed)", truth, colours, np.zeros((0, 6)), []))
    return rows_figure(volume, rows, point, np.asarray(spacing, np.float64), title)


def detection_colours(num_detections):
    """Bright colours, far apart for neighbouring numbers.

    Args:
      num_detections: int D.

    Returns:
      [D + 1, 3] float64 RGB in [0, 1]; row 0 is for the background, and black.
    """
    # Steps of the golden ratio spread any number of hues evenly; two saturations tell apart most of
    # those that come close.
    hues = (0.09 + 0.618034 * np.arange(num_detections)) % 1.0
    bright = [colorsys.hsv_to_rgb(hue, 0.85 if i % 2 else 0.65, 1.0) for i, hue in enumerate(hues)]
    return np.array([(0.0, 0.0, 0.0), *bright])


def truth_colours(truth, labels, num_detections):
    """Colour of each true instance: that of the detection that covers most of it, else white.

    Args:
      truth: [Z, Y, X] int32, 0 background.
      labels: [Z, Y, X] int32, i + 1 in the mask of detection i.
      num_detections: int D.

    Returns:
      [truth.max() + 1, 3] float64 RGB in [0, 1]; row 0 is for the background.
    """
    num_labels = num_detections + 1
    both = (truth > 0) & (labels > 0)
    pairs = truth[both].astype(np.int64) * num_labels + labels[both]
    shared = np.bincount(pairs, minlength=(int(truth.max()) + 1) * num_labels).reshape(-1, num_labels)
    colours = detection_colours(num_detections)
    return np.where(shared.any(axis=1)[:, None], colours[shared.argmax(axis=1)], _MISSED)


def outlines(plane):
    """Edges between pixels of unlike labels, for each label that is not 0.

    Args:
      plane: [rows, columns] int32.

    Returns:
      dict of label to [N, 2, 2] float64: segments from (x, y) to (x, y), where pixel (row, column)
      covers x from column to column + 1 and y from row to row + 1.
    """
    padded = np.pad(plane, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    across = _segments(columns - 1, rows, columns, rows)
    across_labels = padded[rows, columns], padded[rows + 1, columns]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    down = _segments(columns, rows - 1, columns, rows)
    down_labels = padded[rows, columns], padded[rows, columns + 1]
    segments = np.concatenate([across, across, down, down])
    labels = np.concatenate([*across_labels, *down_labels])
    return {int(label): segments[labels == label] for label in np.unique(labels[labels > 0])}


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """What one row of panels shows beside the volume.

    name: at its side.
    ids: [Z, Y, X] int32, tinted and outlined in their colours where not 0.
    colours: [N, 3] RGB in [0, 1], of every id; box i has that of id i + 1.
    boxes: [D, 6] voxels.
    names: of the boxes; or none, [].
    """

    name: str
    ids: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray
    names: list


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    """A plane through the volume: across `axis` at voxel `index`, seen as rows `down`, columns `right`."""

    axis: int
    index: int

    @property
    def down(self):
        return 1 if self.axis == 0 else 0

    @property
    def right(self):
        return 1 if self.axis == 2 else 2

    def of(self, array):
        return np.take(array, self.index, axis=self.axis)

    def crosses(self, box):
        return box[self.axis] <= self.index + 0.5 < box[self.axis + 3]


def rows_figure(volume, rows, point, spacing, title):
    """Three orthogonal slices through a point, once for every `Row`, as a matplotlib figure.

    Args:
      volume: [Z, Y, X] float.
      rows: list of Row.
      point: [3] int, a voxel of the volume.
      spacing: [3] float64, mm per voxel.
      title: of the picture.
    """
    slices = [_Slice(axis, int(point[axis])) for axis in range(3)]
    sizes = _panel_sizes(np.array(volume.shape) * spacing, slices)
    row_height = sizes[:, 1].max() + _ABOVE + _BELOW
    figure_size = np.array([_SIDE + (sizes[:, 0] + _BETWEEN).sum(), _TOP + len(rows) * row_height])
    figure = Figure(figsize=figure_size, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    window = grey_window(volume)
    for number, row in enumerate(rows):
        top = figure_size[1] - _TOP - number * row_height - _ABOVE
        left = _SIDE
        for plane, size in zip(slices, sizes, strict=True):
            rectangle = np.array([left, top - size[1], *size]) / np.tile(figure_size, 2)
            panel = figure.add_axes(rectangle, aspect="auto")
            _draw_panel(panel, volume, window, row, plane, slices)
            _label(panel, volume.shape, plane, _is_stretched(size, plane, volume.shape * spacing))
            _draw_names(figure, panel, row, plane)
            left += size[0] + _BETWEEN
        middle = top - sizes[:, 1].max() / 2
        place = 0.2 / figure_size[0], middle / figure_size[1]
        figure.text(*place, row.name, rotation=90, fontsize=11, fontweight="bold", ha="center", va="center")
    place = 0.5, 1 - 0.25 / figure_size[1]
    figure.text(*place, title, fontsize=13, fontweight="bold", ha="center", va="center", parse_math=False)
    return figure


def _panel_sizes(size_mm, slices):
    """[3, 2] width and height of the panels in inches, at one scale as far as `_SMALLEST` allows."""
    sizes = np.array([[size_mm[plane.right], size_mm[plane.down]] for plane in slices])
    scale = min(_PANELS_WIDTH / sizes[:, 0].sum(), _PANEL_HEIGHT / sizes[:, 1].max())
    return np.maximum(sizes * scale, _SMALLEST)


def _is_stretched(size, plane, size_mm):
    return not np.isclose(size[0] / size[1], size_mm[plane.right] / size_mm[plane.down])


def _draw_panel(panel, volume, window, row, plane, slices):
    grey, ids = plane.of(volume), plane.of(row.ids)
    num_rows, num_columns = grey.shape
    extent = (0, num_columns, num_rows, 0)
    tint = np.concatenate([row.colours[ids], np.where(ids > 0, _FILL, 0.0)[..., None]], axis=-1)
    panel.imshow(
        grey, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, aspect="auto", interpolation="nearest"
    )
    panel.imshow(tint, extent=extent, aspect="auto", interpolation="nearest")
    for label, segments in outlines(ids).items():
        panel.add_collection(LineCollection(segments, colors=[row.colours[label]], linewidths=1.1, capstyle="round"))
    for box, colour in zip(row.boxes, row.colours[1:], strict=False):
        if plane.crosses(box):
            _draw_box(panel, box, colour, plane)
    for other in slices:
        if other.axis == plane.down:
            panel.axhline(other.index + 0.5, color="white", linewidth=0.6, linestyle=":", alpha=0.6)
        if other.axis == plane.right:
            panel.axvline(other.index + 0.5, color="white", linewidth=0.6, linestyle=":", alpha=0.6)


def _draw_box(panel, box, colour, plane):
    corner = box[plane.right], box[plane.down]
    width, height = box[plane.right + 3] - corner[0], box[plane.down + 3] - corner[1]
    # A dark line beneath keeps the box visible on bright tissue.
    for line_colour, line_width in (((0, 0, 0, 0.6), 2.6), (colour, 1.3)):
        panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=line_colour, linewidth=line_width))


def _label(panel, shape, plane, is_stretched):
    num_rows, num_columns = shape[plane.down], shape[plane.right]
    panel.set_xlim(0, num_columns)
    panel.set_ylim(num_rows, 0)
    panel.set_xlabel(f"{AXES[plane.right]} [voxels]", fontsize=9)
    panel.set_ylabel(f"{AXES[plane.down]} [voxels]", fontsize=9)
    scale = ", not to scale" if is_stretched else ""
    panel.set_title(f"{AXES[plane.axis]} = {plane.index} of {shape[plane.axis]}{scale}", fontsize=10, loc="left")
    panel.tick_params(labelsize=8)
    for axis, length in ((panel.xaxis, num_columns), (panel.yaxis, num_rows)):
        axis.set_major_locator(MaxNLocator(nbins=6 if length > 6 else 2, integer=True))


def _draw_names(figure, panel, row, plane):
    """Puts each name at the corner of its box where it hides least of the names before it."""
    renderer = figure.canvas.get_renderer()
    frame = panel.get_window_extent(renderer)
    taken = []
    for box, colour, name in zip(row.boxes, row.colours[1:], row.names, strict=False):
        if not plane.crosses(box):
            continue
        ink = "white" if colour @ _LUMINANCE < 0.45 else "black"
        # Class names are the user's: a dollar sign in one must not be taken for a formula.
        text = panel.text(0, 0, name, fontsize=7.5, color=ink, zorder=5, parse_math=False)
        text.set_bbox({"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 1.2})
        best = min(_places(box, plane), key=lambda place: _clutter(text, place, renderer, frame, taken))
        _move(text, best)
        taken.append(_patch_extent(text, renderer))


def _places(box, plane):
    """Corners of the box, each as (x, y, horizontal, vertical alignment), the preferred first."""
    left, top, right, bottom = (box[i] for i in (plane.right, plane.down, plane.right + 3, plane.down + 3))
    return [
        (left, top, "left", "bottom"),
        (left, bottom, "left", "top"),
        (right, top, "right", "bottom"),
        (right, bottom, "right", "top"),
        (left, top, "left", "top"),
        (right, bottom, "right", "bottom"),
        (left, top, "right", "top"),
        (right, top, "left", "top"),
    ]


def _clutter(text, place, renderer, frame, taken):
    """Pixels of a name that would lie on other names or outside of the panel."""
    _move(text, place)
    patch = _patch_extent(text, renderer)
    area = patch.width * patch.height
    return sum(_shared(patch, other) for other in taken) + area - _shared(patch, frame)


def _move(text, place):
    x, y, horizontal, vertical = place
    text.set(x=x, y=y, ha=horizontal, va=vertical)


def _patch_extent(text, renderer):
    return text.get_window_extent(renderer).padded(2.0)


def _shared(a, b):
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)


def _segments(x0, y0, x1, y1):
    return np.stack([np.stack([x0, y0], -1), np.stack([x1, y1], -1)], axis=1).astype(np.float64)


def grey_window(volume):
    """Darkest and brightest value shown; non-finite voxels are left out of the count."""
    finite = volume[np.isfinite(volume)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, (1.0, 99.5))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _check(volume, labels, boxes, names, truth):
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"volume must be [Z, Y, X] with voxels in it, got shape {volume.shape}")
    for name, ids in (("labels", labels), ("truth", truth)):
        if ids is not None and ids.shape != volume.shape:
            raise ValueError(f"{name} must have the volume's shape {volume.shape}, got {ids.shape}")
    if len(names) != len(boxes):
        raise ValueError(f"names must be one per box ({len(boxes)}), got {len(names)}")
    if labels.min() < 0 or labels.max() > len(boxes):
        raise ValueError(f"labels must be 0..{len(boxes)}, got {labels.min()}..{labels.max()}")
    if truth is not None and truth.min() < 0:
        raise ValueError(f"truth must be 0 or more, got {truth.min()}")
