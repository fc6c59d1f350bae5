"""Energies of showers as the network tells them, and as the true cells would."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data.atomic import replacing
from data.errors import InputError
from data.synthetic import calorimeter
from data.synthetic import showers as synthetic
from evaluation import metrics

EDGES = (10.0, 30.0, 60.0, 120.0, 300.0)  # GeV
ABSORBED = ("photon", "pion")  # classes that leave their energy in the calorimeter; a muon goes through it
LEAST = 10  # objects of which a resolution is told
ESTIMATES = {"energy": "network", "cells": "sum of true cells", "layers": "true cells, weighted by layer"}


class Objects(NamedTuple):
    """M objects that the network found.

    energies: [M] float64, true, GeV. class_ids: [M] int, true, 1..K. estimates: {of ESTIMATES: [M] float64, GeV}.
    """

    energies: np.ndarray
    class_ids: np.ndarray
    estimates: dict


def measure(trained, evaluation, unseen):
    """Bias and resolution of the energies of matched objects (mask IoU 0.5, whatever the class).

    The network is compared with two sums over the cells of each object's true mask, which no network knows: of what
    they measured (cells), and of that times what a minimum-ionising particle loses in their layer (layers), as layers
    of different thickness need it. Each is multiplied by a factor for the object's true class, the one of least
    squares of the relative error on all objects of the split train.

    Args:
      trained: measuring.Trained.
      evaluation: evaluate.Evaluation of the split that is measured.
      unseen: folder of the records whose split test that is; None: val of those of the config.

    Returns:
      {name: float}. Of energy, cells and layers each: energy_bias and energy_resolution, mean and standard deviation of
      found / true - 1, and energy_resolution68, half the width of its central 68 %. num_objects; resolution_ratio and
      resolution_ratio_layers, the network's resolution over that of cells and of layers, unless that is 0. All of these
      also for bins of true energy, as energy_bias_010_030 (10 to 30 GeV), for classes, as energy_bias_photon, and for
      those that are `ABSORBED`, as energy_bias_absorbed. What has fewer than `LEAST` objects has only their number.

    Raises:
      InputError: the split train lacks a class.
    """
    objects = _objects(trained, evaluation, unseen)
    classes = list(enumerate(trained.config.data.classes, start=1))
    groups = {"": np.ones(len(objects.energies), bool)}
    groups |= {f"_{low:03.0f}_{high:03.0f}": _between(objects, low, high) for low, high in itertools.pairwise(EDGES)}
    groups |= {f"_{name}": objects.class_ids == k for k, name in classes}
    groups["_absorbed"] = np.isin(objects.class_ids, [k for k, name in classes if name in ABSORBED])
    return {name + group: value for group, chosen in groups.items() for name, value in _scores(objects, chosen).items()}


def draw(trained, evaluation, unseen, path):
    """Draws the resolution against the true energy, of all objects and of each class, as a PNG file.

    Args:
      trained, evaluation, unseen: as `measure`.
      path: of the file, which is replaced as a whole.

    Raises:
      InputError: as `measure`.
    """
    objects = _objects(trained, evaluation, unseen)
    classes = trained.config.data.classes
    figure = Figure(figsize=(3.2 * (1 + len(classes)), 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(classes), sharey=True)
    for k, (panel, title) in enumerate(zip(panels, ("all", *classes), strict=True)):
        for name, label in ESTIMATES.items():
            points = _points(objects, (objects.class_ids == k) | (k == 0), f"{name}_resolution")
            panel.plot(points[:, 0], 100 * points[:, 1], marker="o", label=label)
        panel.set(title=title, xlabel="true energy, GeV", xscale="log", xlim=(EDGES[0], EDGES[-1]))
        panel.set_xticks(EDGES, [f"{edge:.0f}" for edge in EDGES])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="resolution, %", ylim=(0, None))
    panels[0].legend(fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _objects(trained, evaluation, unseen):
    factors = _factors(trained)
    column = trained.config.data.attributes.index("energy")
    energies, class_ids, found = [np.zeros(0)], [np.zeros(0, int)], [np.zeros((0, len(ESTIMATES)))]
    truths = _raw_truths(trained, "test" if unseen else "val", unseen)
    for match, truth in zip(evaluation.matches, truths, strict=True):
        detections, taken = metrics.matched(match)
        class_ids.append(truth["class_ids"][taken])
        energies.append(truth["attributes"][taken, column])
        calibrated = _sums(truth, trained.config.data)[taken] * factors[class_ids[-1] - 1]
        found.append(np.column_stack([match.attributes[detections, column], calibrated]))
    estimates = dict(zip(ESTIMATES, np.concatenate(found).astype(np.float64).T, strict=True))
    return Objects(np.concatenate(energies).astype(np.float64), np.concatenate(class_ids), estimates)


def _factors(trained):
    """[K, 2] GeV per unit of `_sums`: the f of least sum over the objects of (f * sum / energy - 1)^2."""
    config = trained.config.data
    column = config.attributes.index("energy")
    class_ids, ratios = [], []
    for truth in _raw_truths(trained, "train", None):
        class_ids.append(truth["class_ids"])
        ratios.append(_sums(truth, config) / truth["attributes"][:, column, None])
    class_ids, ratios = np.concatenate(class_ids), np.concatenate(ratios)
    for k, name in enumerate(config.classes, start=1):
        if k not in class_ids:
            raise InputError(f"{config.records}: expected some {name} in the split train, came none")
    of_class = [ratios[class_ids == k] for k in range(1, len(config.classes) + 1)]
    return np.array([chosen.sum(axis=0) / (chosen**2).sum(axis=0) for chosen in of_class])


def _raw_truths(trained, split, folder):
    """What `Trained.truths` gives, its volumes as they were measured."""
    config = trained.config
    config = dataclasses.replace(config, input=dataclasses.replace(config.input, normalization="none"))
    return dataclasses.replace(trained, config=config).truths(split, folder)


def _sums(truth, data_config):
    """[N, 2] float64 over the cells of each object: MIP, and the GeV that a minimum-ionising particle loses for it."""
    own = data_config.synthetic.showers
    signal = synthetic.measured(truth["volume"][..., 0].astype(np.float64), own)
    losses = calorimeter.build(own.sections, own.cell, len(signal)).mip[:, None, None]
    ids, count = truth["instance_ids"].ravel(), len(truth["class_ids"]) + 1
    sums = [np.bincount(ids, weights=cells.ravel(), minlength=count)[1:] for cells in (signal, signal * losses)]
    return np.stack(sums, axis=-1)


def _between(objects, low, high):
    return (objects.energies >= low) & (objects.energies < high)


def _scores(objects, chosen):
    """Of the chosen [M] bool objects: what `measure` returns, without the names of groups."""
    scores = {"num_objects": float(chosen.sum())}
    if scores["num_objects"] < LEAST:
        return scores
    for name, found in objects.estimates.items():
        errors = found[chosen] / objects.energies[chosen] - 1.0
        low, high = np.percentile(errors, (16, 84))
        scores[f"{name}_bias"] = float(errors.mean())
        scores[f"{name}_resolution"] = float(errors.std())
        scores[f"{name}_resolution68"] = float((high - low) / 2)
    for ratio, name in (("resolution_ratio", "cells"), ("resolution_ratio_layers", "layers")):
        if scores[f"{name}_resolution"] > 0:
            scores[ratio] = scores["energy_resolution"] / scores[f"{name}_resolution"]
    return scores


def _points(objects, chosen, name):
    """[P, 2]: mean energy, and a score, of each bin that has enough of the chosen objects."""
    points = []
    for low, high in itertools.pairwise(EDGES):
        inside = chosen & _between(objects, low, high)
        if inside.sum() >= LEAST:
            points.append((objects.energies[inside].mean(), _scores(objects, inside)[name]))
    return np.array(points).reshape(-1, 2)
