"""Draws a reference picture of every synthetic set, docs/synthetic_<kind>.png: python -m docs.pictures"""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from configs import cubes, digits, nuclei_synthetic, shapes_small, showers
from data import synthetic
from data.atomic import replacing
from evaluation import report

FOLDER = pathlib.Path(__file__).parent
# Of each set its experiment and the volume that is shown.
SHOWN = {
    "shapes": (shapes_small, 0),
    "cubes": (cubes, 0),
    "digits": (digits, 106),
    "nuclei": (nuclei_synthetic, 0),
    "showers": (showers, 26),
}
_PROJECTED = ("digits", "showers")  # of which no slice shows much
_CUBES_SHAPE = (40, 48, 56)  # 256^3 voxels of noise would be megabytes of picture
_DPI = 75
_WIDTH = 9.0  # inches


def draw(kind, path):
    """Draws a volume of a set along z, y and x: above what is measured, below the truth.

    Shown are the slices through the largest object; of digits and showers the brightest voxel along each line of
    sight.
    """
    experiment, index = SHOWN[kind]
    settings = experiment.get_config().data.synthetic
    if kind == "cubes":
        settings.shape = _CUBES_SHAPE
    image, ids, class_ids, attributes, spacing = synthetic.draw(kind, settings, index)
    window = np.percentile(image, (1.0, 99.9)) if kind != "showers" else (0.0, np.percentile(image, 99.9))
    names = [_name(kind, class_id, row) for class_id, row in zip(class_ids, attributes, strict=True)]
    colours = report.detection_colours(len(names))
    how = "brightest along each line of sight" if kind in _PROJECTED else "slices"
    figure, panels = _frame(image.shape * spacing, f"synthetic:{kind}, seed {settings.seed}, volume {index}: {how}")
    if len(synthetic.CLASSES[kind]) > 1:
        lines = [Line2D([], [], color=colour) for colour in colours[1:]]
        figure.legend(lines, names, loc="outside lower center", ncols=4, fontsize=8)
    for axis, (above, below) in enumerate(panels.T):
        flat, flat_ids = _flat(kind, image, ids, axis)
        rows, columns = (other for other in range(3) if other != axis)
        for panel in (above, below):
            aspect = spacing[rows] / spacing[columns]
            panel.imshow(flat, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
            panel.set(xlabel="zyx"[columns], ylabel="zyx"[rows])
            panel.tick_params(labelsize=7)
        _outline(below, flat_ids, colours)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _frame(size, title):
    """A figure of two rows of three panels for a volume of so many mm along z, y and x."""
    scale = (_WIDTH - 1.8) / (2.0 * size[2] + size[1])
    height = 2.0 * scale * max(size[0], size[1]) + 1.3
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(2, 3, width_ratios=[size[2], size[2], size[1]])


def _flat(kind, image, ids, axis):
    """Two [rows, columns] arrays: what of image and ids is shown along an axis."""
    if kind in _PROJECTED:
        where = np.expand_dims(image.argmax(axis=axis), axis)
        return tuple(np.take_along_axis(array, where, axis).squeeze(axis) for array in (image, ids))
    largest = np.argwhere(ids == np.bincount(ids[ids > 0]).argmax())
    middle = (largest.min(axis=0)[axis] + largest.max(axis=0)[axis]) // 2
    return np.take(image, middle, axis), np.take(ids, middle, axis)


def _outline(panel, flat_ids, colours):
    for number, segments in report.outlines(flat_ids).items():
        # In a picture a pixel's centre is where its number is.
        panel.add_collection(LineCollection(segments - 0.5, colors=[colours[number]], linewidths=1.2))


def _name(kind, class_id, values):
    """Class of an object, and the energy of a shower."""
    name = synthetic.CLASSES[kind][class_id - 1]
    return f"{name} {values[0]:.0f} GeV" if kind == "showers" else name


if __name__ == "__main__":
    for kind in SHOWN:
        draw(kind, FOLDER / f"synthetic_{kind}.png")
        print(FOLDER / f"synthetic_{kind}.png")
