"""Counts of the cases of a source, for the manifest of its records."""

import collections

import numpy as np

from data.cases import SPLITS
from data.errors import InputError


class Tally:
    """Counts what the manifest tells about the cases."""

    def __init__(self, data_config):
        self._classes = tuple(data_config.classes)
        self._attributes, self._keypoints = tuple(data_config.attributes), tuple(data_config.keypoints)
        self._num_cases = dict.fromkeys(SPLITS, 0)
        self._instances = {split: np.zeros(len(self._classes), int) for split in SPLITS}
        self._shapes, self._spacings, self._max_instances = [], [], 0
        self._dropped = collections.Counter()
        self._form = None  # (channels, attributes), and the case that set it

    def add(self, split, case, dropped):
        """Counts one case; InputError where it has other channels or attributes than the first."""
        array = case.volume.array
        form = (array.shape[3] if array.ndim == 4 else 1, case.attributes.shape[1])
        first, name = self._form or (form, case.name)
        if form != first:
            raise InputError(
                f"case {case.name}: expected {first[0]} channel(s) and {first[1]} attributes as in case {name}, "
                f"came {form[0]} and {form[1]}"
            )
        self._form = (first, name)
        self._num_cases[split] += 1
        self._instances[split] += np.bincount(case.class_ids, minlength=len(self._classes) + 1)[1:]
        self._shapes.append(array.shape[:3])
        self._spacings.append(case.volume.spacing)
        self._max_instances = max(self._max_instances, len(case.class_ids))
        self._dropped.update(dropped)
        for name, values in zip(self._attributes, case.attributes.T, strict=True):
            self._dropped[f"attribute {name} unknown"] += int(np.isnan(values).sum())
        for name, points in zip(self._keypoints, case.keypoints.transpose(1, 0, 2), strict=True):
            self._dropped[f"keypoint {name} unknown"] += int(np.isnan(points).any(axis=-1).sum())

    def totals(self):
        """The counts, JSON-ready."""
        channels, num_attributes = self._form[0]
        return {
            "channels": channels,
            "num_attributes": num_attributes,
            "num_cases": self._num_cases,
            "num_instances": {
                split: dict(zip(self._classes, counts.tolist(), strict=True))
                for split, counts in self._instances.items()
            },
            "largest_shape": np.max(self._shapes, axis=0).tolist(),
            "max_instances": self._max_instances,
            "spacing_median": np.median(self._spacings, axis=0).tolist(),
            "dropped": dict(self._dropped),
        }
