"""Counts of the cases of a source, for the manifest of its records."""

import collections

import numpy as np

from data.cases import SPLITS
from data.statistics import NAMES


class Tally:
    """Counts what the manifest tells about the cases."""

    def __init__(self, data_config):
        self._classes = tuple(data_config.classes)
        self._attributes, self._keypoints = tuple(data_config.attributes), tuple(data_config.keypoints)
        self._num_cases = dict.fromkeys(SPLITS, 0)
        self._instances = {split: np.zeros(len(self._classes), int) for split in SPLITS}
        self._cases = {split: [] for split in SPLITS}
        self._shapes, self._spacings, self._max_instances = [], [], 0
        self._intensities = {split: [] for split in SPLITS}
        self._dropped = collections.Counter()

    def add(self, split, described):
        """Counts one case, of which data.shards.describe tells."""
        self._num_cases[split] += 1
        self._instances[split] += np.bincount(described["class_ids"], minlength=len(self._classes) + 1).astype(int)[1:]
        self._cases[split].append({name: described[name] for name in ("name", "source", "shape", "chunks")})
        self._shapes.append(described["shape"])
        self._spacings.append(described["spacing"])
        self._intensities[split].append(described["intensity"])
        self._max_instances = max(self._max_instances, len(described["class_ids"]))
        self._dropped.update(described["left_out"])
        for name, number in zip(self._attributes, described["unknown_attributes"], strict=True):
            self._dropped[f"attribute {name} unknown"] += number
        for name, number in zip(self._keypoints, described["unknown_keypoints"], strict=True):
            self._dropped[f"keypoint {name} unknown"] += number

    def totals(self):
        """The counts, JSON-ready."""
        some = next(values[0] for values in self._intensities.values() if values)
        return {
            "channels": len(some),
            "num_attributes": len(self._attributes),
            "num_cases": self._num_cases,
            "num_instances": {
                split: dict(zip(self._classes, counts.tolist(), strict=True))
                for split, counts in self._instances.items()
            },
            "largest_shape": np.max(self._shapes, axis=0).tolist(),
            "max_instances": self._max_instances,
            "spacing_median": np.median(self._spacings, axis=0).tolist(),
            "intensity": {split: self._intensity(split) for split in SPLITS},
            "dropped": dict(self._dropped),
            "cases": self._cases,
        }

    def _intensity(self, split):
        """{name: [C]} of all voxels of a split; percentiles are means of those of its cases; {} where it has none."""
        if not self._intensities[split]:
            return {}
        values = np.moveaxis(np.array(self._intensities[split], np.float64), -1, 0)  # [S, cases, C]
        found = dict(zip(NAMES, values, strict=True))
        voxels = np.array([np.prod(case["shape"], dtype=float) for case in self._cases[split]])
        pooled = {name: value.mean(axis=0) for name, value in found.items() if name.startswith("p")}
        mean = np.average(found["mean"], axis=0, weights=voxels)
        variance = np.average(found["std"] ** 2 + (found["mean"] - mean) ** 2, axis=0, weights=voxels)
        pooled.update(mean=mean, std=np.sqrt(variance), min=found["min"].min(axis=0), max=found["max"].max(axis=0))
        return {name: pooled[name].tolist() for name in NAMES if name in pooled}
