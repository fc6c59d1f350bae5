"""Pictures of what was planned from: sizes and aspects per class, anchors over boxes, spacing and intensities."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data import statistics
from data.atomic import replacing
from planning import histograms

AXES = "zyx"
_MAX_CLASSES = 8  # rows of a picture, those with the most instances
_DPI = 100
_PANEL = (3.2, 2.3)  # inches
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_LOW, _MEDIAN, _HIGH = (statistics.NAMES.index(name) for name in ("p0.5", "p50", "p99.5"))


def draw_all(folder, found, levels, truths):
    """Draws sizes.png, aspects.png, anchors.png and cases.png.

    Args:
      folder: for the files, which are replaced.
      found: data.fingerprint.Fingerprint.
      levels: {name: levels as in planning/anchors.py}, what is compared.
      truths: planning.anchors.Truths, the boxes behind the anchors.

    Returns:
      list of the files' paths.
    """
    by_class = histograms.per_class(found.classes, found.class_ids, found.sizes)
    sizes = [*AXES, "mean edge"]
    figures = {
        "sizes.png": histogram_figure(by_class, sizes, "edges of boxes, voxels"),
        "aspects.png": histogram_figure(by_class, histograms.RATIOS, "ratios of edges"),
        "anchors.png": anchors_figure(levels, truths),
        "cases.png": cases_figure(found),
    }
    for name, figure in figures.items():
        with replacing(folder / name) as temporary:
            figure.savefig(temporary, format="png")
    return [folder / name for name in figures]


def histogram_figure(by_class, measures, title):
    """A row per class, a panel per measure, a line per bin count; dashed: the mean."""
    rows = sorted(by_class, key=lambda name: -_any(by_class[name][measures[0]]).count)[:_MAX_CLASSES]
    left_out = len(by_class) - len(rows)
    title += f" ({left_out} classes with fewer instances are left out)" if left_out else ""
    figure, panels = _panels(len(rows), len(measures), title)
    for row, name in zip(panels, rows, strict=True):
        for panel, measure in zip(row, measures, strict=True):
            _draw_histograms(panel, by_class[name][measure])
            panel.set_xlabel(measure)
        row[0].set_ylabel(f"{name}\nshare of {_any(by_class[name][measures[0]]).count}")
    panels[0][-1].legend(title="bins", fontsize=7, title_fontsize=7)
    return figure


def anchors_figure(levels, truths):
    """A row per set of anchors: boxes as dots, anchors as squares coloured by level; y over z, and x over y."""
    figure, panels = _panels(len(levels), 2, "anchors over the boxes as patches show them, voxels", (5.5, 4.2))
    for row, (name, of_name) in zip(panels, levels.items(), strict=True):
        for panel, (a, b) in zip(row, ((0, 1), (1, 2)), strict=True):
            panel.plot(truths.sizes[a], truths.sizes[b], ".", color="0.75", markersize=3, zorder=0)
            for (stride, shapes), colour in zip(of_name, _COLOURS, strict=False):
                label = "stride " + " ".join(map(str, stride))
                panel.plot(shapes[:, a], shapes[:, b], "s", color=colour, markersize=7, alpha=0.8, label=label)
            panel.set(xlabel=f"{AXES[a]}", ylabel=f"{name}: {AXES[b]}" if a == 0 else AXES[b])
            panel.set(xlim=(0, None), ylim=(0, None))
        row[-1].legend(fontsize=7)
    return figure


def cases_figure(found):
    """Spacing and size of the cases, and intensities of every channel, of all voxels and of the objects."""
    channels = found.intensities.shape[2]
    figure, panels = _panels(1, 2 + channels, f"{len(found.shapes)} cases")
    spacing, shapes, *intensities = panels[0]
    for panel, values, label in ((spacing, found.spacings, "spacing, mm"), (shapes, found.shapes, "size, voxels")):
        panel.boxplot(values, whis=(0, 100))
        panel.set_xticks([1, 2, 3], list(AXES))
        panel.set(ylabel=label, ylim=(0, None))
    for channel, panel in enumerate(intensities):
        for part, (label, colour) in enumerate((("all voxels", "0.4"), ("objects", "tab:red"))):
            values = found.intensities[:, part, channel]
            place = np.arange(len(values)) + 0.3 * part
            panel.vlines(place, values[:, _LOW], values[:, _HIGH], color=colour, lw=0.8, alpha=0.6)
            panel.plot(place, values[:, _MEDIAN], ".", color=colour, markersize=4, label=label)
        # Scanners differ by orders of magnitude, and intensities of CT are negative too.
        panel.set(xlabel="case", ylabel=f"channel {channel}: median, 0.5 to 99.5 %", yscale="symlog")
        panel.legend(fontsize=7)
    return figure


def _draw_histograms(panel, by_bins):
    for (bins, histogram), colour in zip(by_bins.items(), _COLOURS, strict=False):
        if histogram.count:
            panel.stairs(histogram.counts / histogram.count, histogram.edges, color=colour, label=str(bins))
    if _any(by_bins).count:
        panel.axvline(_any(by_bins).mean, color="0.3", ls="--", lw=0.8)


def _any(by_bins):
    """One of the histograms of a measure, for what does not depend on bins."""
    return next(iter(by_bins.values()))


def _panels(rows, columns, title, size=_PANEL):
    """A figure without pyplot, which would keep it, and its [rows][columns] panels."""
    figure = Figure(figsize=(columns * size[0], rows * size[1] + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.tick_params(labelsize=7)
        panel.xaxis.label.set_size(8)
        panel.yaxis.label.set_size(8)
    return figure, panels
