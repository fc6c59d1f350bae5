"""Sources of annotated volumes to sharded TFRecords, or to a folder of files; one case in memory at a time."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import tqdm

from data import instance_table, records, synthetic
from data.atomic import replacing_folder
from data.cases import SPLITS, Case, find_cases, load_case, unknown
from data.errors import InputError
from data.readers import Volume, spacing_affine
from data.tally import Tally
from data.writers import write_volume

SYNTHETIC = "synthetic:shapes"


def convert(data_config, output, *, progress=True):
    """Writes a source as sharded records with a manifest; the folder appears when all of it is there.

    Args:
      data_config: the `data` section of a Config.
      output: a folder that does not exist or is empty.
      progress: shows a bar.

    Returns:
      The manifest, as in manifest.json: format_version, project_version, source, settings (of the config, on which
      the records depend: of synthetic sources how they are drawn, of folders labels and min_voxels), classes, labels,
      attributes, keypoints, channels, num_attributes, num_cases {split: n}, num_instances {split: {class: n}},
      largest_shape [3] voxels, max_instances of one volume, spacing_median [3] mm, dropped {reason: instances, or
      values of attributes and landmarks that are unknown or unlisted in the config}, shards {split: [{file, records,
      bytes, sha256}]}.

    Raises:
      InputError: the source cannot be used, a case does not fit, or the output is a file or a folder with files in it.
    """
    with replacing_folder(output) as folder:
        tally = Tally(data_config)
        writers = {split: records.ShardWriter(folder, split, data_config.shard_megabytes * 10**6) for split in SPLITS}
        for split, case, dropped in _counted(data_config, progress):
            tally.add(split, case, dropped)
            writers[split].write(records.to_example(case))
        manifest = {
            **_header(data_config),
            **tally.totals(),
            "shards": {split: writer.close() for split, writer in writers.items()},
        }
        (folder / records.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def write_files(data_config, output, *, progress=True):
    """Writes a source as `images/`, `labels/` (.nii.gz, with what is known as JSON beside) and `split.json`.

    Read back with `labels="instances"`, the folder gives the cases of the source again. Voxels and spacing are kept;
    the place in the world is not.

    Args and raises: as `convert`.

    Returns:
      dict: the fields of the manifest that tell about cases.
    """
    with replacing_folder(output) as folder:
        tally = Tally(data_config)
        names = {split: [] for split in SPLITS}
        for split, case, dropped in _counted(data_config, progress):
            tally.add(split, case, dropped)
            names[split].append(case.name)
            _write_case(folder, case, data_config)
        (folder / "split.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    return {**_header(data_config), **tally.totals()}


def ensure_records(data_config):
    """The manifest of the config's records, which are drawn first where they are missing and the source is synthetic.

    Raises:
      InputError: there are no records of another source, or those that are there were made with other settings.
    """
    folder = data_config.records
    missing = not os.path.exists(os.path.join(folder, records.MANIFEST)) and "://" not in str(folder)
    if missing and data_config.source == SYNTHETIC:
        try:
            return convert(data_config, folder)
        except (OSError, InputError):
            # Another worker of this machine may have been faster.
            if not os.path.exists(os.path.join(folder, records.MANIFEST)):
                raise
    manifest = records.read_manifest(folder)
    _check_settings(folder, manifest, data_config)
    return manifest


def cases(data_config):
    """Yields (split, Case, dropped {reason: number of instances}) for every case of a source, by name within a folder.

    Raises:
      InputError: no such source, or a case that cannot be read or does not fit the config.
    """
    for split, load in _jobs(data_config):
        yield split, *load()


def summary(totals):
    """A few lines for people about what `convert` or `write_files` returned."""
    lines = []
    for split, count in totals["num_cases"].items():
        per_class = totals["num_instances"][split]
        line = f"{split}: {count} cases, {sum(per_class.values())} instances"
        line += f" ({', '.join(f'{name} {number}' for name, number in per_class.items())})"
        if "shards" in totals:
            shards = totals["shards"][split]
            line += f", {sum(shard['bytes'] for shard in shards) / 1e6:.1f} MB in {len(shards)} shard(s)"
        lines.append(line)
    lines.append(
        f"largest volume {totals['largest_shape']} voxels, median spacing {totals['spacing_median']} mm (z, y, x), "
        f"at most {totals['max_instances']} instances in one"
    )
    for reason, number in totals["dropped"].items():
        things = "values" if reason.startswith(("attribute ", "keypoint ")) else "instances"
        lines.append(f"left out: {number} {things} ({reason})")
    return "\n".join(lines)


def _jobs(data_config):
    """A list of (split, function that returns a Case and what was dropped)."""
    if data_config.source.startswith("synthetic:"):
        return _synthetic_jobs(data_config)
    found = find_cases(Path(data_config.source))
    drawn = iter(_drawn_splits(sum(files.split is None for files in found), data_config))

    def load(files):
        return load_case(
            files,
            labels=data_config.labels,
            classes=tuple(data_config.classes),
            min_voxels=data_config.min_voxels,
            attributes=tuple(data_config.attributes),
            keypoints=tuple(data_config.keypoints),
        )

    return [(files.split or next(drawn), lambda files=files: load(files)) for files in found]


def _synthetic_jobs(data_config):
    if data_config.source != SYNTHETIC:
        raise InputError(f"data.source: expected a folder or {SYNTHETIC}, came {data_config.source!r}")
    if set(data_config.classes) != set(synthetic.SHAPES):
        raise InputError(
            f"data.classes: expected those of {SYNTHETIC}, {synthetic.SHAPES}, came {tuple(data_config.classes)}"
        )
    settings = data_config.synthetic
    counts = dict(zip(SPLITS, (settings.num_train, settings.num_val, settings.num_test), strict=True))
    splits = [split for split, count in counts.items() for _ in range(count)]
    return [(split, lambda index=index: _draw(data_config, index)) for index, split in enumerate(splits)]


def _draw(data_config, index):
    """Case `index` of the synthetic source, of which no attributes or landmarks are known, and what was dropped."""
    settings = data_config.synthetic
    image, ids, class_ids = synthetic.shapes(
        settings.seed,
        index,
        shape=settings.shape,
        count=settings.count,
        base_size=settings.base_size,
        contrast=settings.contrast,
    )
    kept = np.bincount(ids.ravel(), minlength=len(class_ids) + 1)[1:] >= data_config.min_voxels
    ids = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)[ids]
    order = np.array([0] + [1 + list(data_config.classes).index(name) for name in synthetic.SHAPES], np.int32)
    class_ids = order[class_ids[kept]]
    volume = Volume(image, np.ones(3), spacing_affine(np.ones(3)))
    name = f"shapes_{settings.seed}_{index:05d}"
    values, points = unknown(len(class_ids), data_config.attributes, data_config.keypoints)
    case = Case(name, volume, ids, class_ids, values, points, SYNTHETIC)
    return case, {"below_min_voxels": int(np.sum(~kept))}


def _drawn_splits(count, data_config):
    """Splits of `count` cases that have none, in random order, in numbers as near to split_fractions as can be."""
    shares = np.array(data_config.split_fractions) * count
    numbers = np.floor(shares + 1e-9).astype(int)
    for split in np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]:
        numbers[split] += 1
    splits = np.repeat(SPLITS, numbers)
    return np.random.default_rng(data_config.split_seed).permutation(splits).tolist()


def _counted(data_config, progress):
    """`cases` with a progress bar; InputError where there are none."""
    total = len(_jobs(data_config))
    if total == 0:
        raise InputError(f"data.source {data_config.source}: expected at least one case, came none")
    return tqdm.tqdm(cases(data_config), total=total, desc="convert", mininterval=1, disable=not progress)


def _write_case(folder, case, data_config):
    array = case.volume.array
    if array.dtype == np.float16:  # NIfTI has no half precision.
        array = array.astype(np.float32)
    ids = case.instance_ids.astype(np.min_scalar_type(int(case.instance_ids.max())))
    write_volume(folder / "images" / f"{case.name}.nii.gz", array, case.volume.spacing)
    write_volume(folder / "labels" / f"{case.name}.nii.gz", ids, case.volume.spacing)
    names = [data_config.classes[i - 1] for i in case.class_ids]
    known = data_config.attributes, case.attributes, data_config.keypoints, case.keypoints
    instance_table.write(folder / "labels" / f"{case.name}.json", names, *known)


def _header(data_config):
    return {
        "format_version": records.FORMAT_VERSION,
        "project_version": records.project_version(),
        "source": str(data_config.source),
        "settings": _settings(data_config, data_config.source),
        "classes": list(data_config.classes),
        "attributes": list(data_config.attributes),
        "keypoints": list(data_config.keypoints),
        "labels": data_config.labels,
    }


def _settings(data_config, source):
    """What the records of a source depend on, as JSON reads it back."""
    if source == SYNTHETIC:
        settings = {**dataclasses.asdict(data_config.synthetic), "min_voxels": data_config.min_voxels}
    else:
        settings = {"labels": data_config.labels, "min_voxels": data_config.min_voxels}
    return json.loads(json.dumps(settings))


def _check_settings(folder, manifest, data_config):
    """Refuses records that were made with other settings than the config's."""
    drawn = manifest["source"] == SYNTHETIC
    if drawn and data_config.source != SYNTHETIC:
        return  # The config says nothing about how to draw.
    mine = _settings(data_config, manifest["source"])
    # Only what the manifest states: those of folders stated nothing once.
    changed = {name: value for name, value in manifest["settings"].items() if value != mine.get(name)}
    if changed and drawn:
        pairs = ", ".join(f"{name}: {value} -> {mine.get(name)}" for name, value in changed.items())
        raise InputError(
            f"{folder}: expected records of the config's data.synthetic, came others ({pairs}); "
            "choose another data.records"
        )
    if changed:
        expected = ", ".join(f"data.{name}={mine.get(name)}" for name in changed)
        came = ", ".join(f"{name}={value}" for name, value in changed.items())
        raise InputError(
            f"{folder}: expected records made with the config's {expected}, came {came}; "
            f"convert {manifest['source']} again into another data.records, or set the config to what came"
        )
