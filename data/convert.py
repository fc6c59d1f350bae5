"""Sources of annotated volumes to sharded TFRecords, or to a folder of files."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import tqdm

from data import engine, instance_table, records, resample, shards, sources, statistics, synthetic, tfds
from data.atomic import replacing, replacing_folder
from data.cases import SPLITS
from data.errors import InputError
from data.tally import Tally
from data.writers import write_volume


def convert(data_config, output, *, patch_size=None, workers=1, runner="", runner_options=(), progress=True):
    """Writes a source as sharded records with a manifest, or goes on where a killed conversion ended.

    Cases are found and dealt out to shards; cases larger than a chunk are made ready; shards are written, each by one
    worker; the manifest is written last, so a folder without one is unfinished. An error leaves the shards that were
    complete by then, with which the same command continues, or nothing where there was none.

    Args:
      data_config: the `data` section of a Config.
      output: a folder that does not exist, is empty, or holds an unfinished conversion with the same settings (a
        finished one is left as it is).
      patch_size: [3] voxels of the patches that will be trained on, each of which lies whole in a chunk; needed where a
        case is larger than data.chunk_size.
      workers, runner, runner_options: see data/engine.py.
      progress: shows bars.

    Returns:
      The manifest, as in manifest.json: format_version, project_version, source, settings (of the config, on which
      the records depend), chunk_size and patch_size, classes, labels, attributes, keypoints, channels, num_attributes,
      num_cases {split: n}, num_instances {split: {class: n}}, largest_shape [3] voxels, max_instances of one volume,
      spacing_median [3] mm, intensity {split: {statistic: [C]}}, dropped {reason: instances, or values of attributes
      and landmarks that are unknown or unlisted in the config}, cases {split: [{name, source, shape, chunks}]}, shards
      {split: [{file, records, bytes, sha256}]}.

    Raises:
      InputError: the source cannot be used, a case does not fit, or the output is a file, holds other files or a
        conversion with other settings, which are named.
    """
    found = sources.find(data_config)
    planned = shards.plan(found, data_config, patch_size)
    folder = Path(output)
    with _continuing(folder, _conversion(data_config, patch_size, planned)):
        if (folder / records.MANIFEST).exists():
            return records.read_manifest(folder)
        run = functools.partial(
            engine.run, workers=workers, runner=runner, runner_options=runner_options, progress=progress
        )
        prepare = functools.partial(shards.prepare, folder=folder, data_config=data_config)
        run(prepare, _unprepared(shards.large(planned), planned, folder), label="prepare")
        write = functools.partial(shards.write, folder=folder, data_config=data_config, patch_size=patch_size)
        run(write, planned)
        return _finish(folder, planned, data_config, patch_size)


def write_files(data_config, output, *, progress=True):
    """Writes a source as `images/`, `labels/` (.nii.gz, with what is known as JSON beside) and `split.json`.

    Read back with `labels="instances"`, the folder gives the cases of the source again. Voxels and spacing are kept;
    the place in the world is not. One case is in memory at a time.

    Args:
      data_config: the `data` section of a Config.
      output: a folder that does not exist or is empty; it appears when all of it is there.
      progress: shows a bar.

    Returns:
      dict: the fields of the manifest that tell about cases.

    Raises:
      InputError: as `convert`.
    """
    found = sources.find(data_config)
    with replacing_folder(output) as folder:
        tally = Tally(data_config)
        names = {split: [] for split in SPLITS}
        for source in tqdm.tqdm(found, desc="convert", mininterval=1, disable=not progress):
            case, left_out = load(source, data_config)
            tally.add(source.split, shards.describe(case, left_out, statistics.of_array(case.volume.array), 1))
            names[source.split].append(case.name)
            _write_case(folder, case, data_config)
        (folder / "split.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    return {**_header(data_config), **tally.totals()}


def ensure_records(data_config, patch_size=None):
    """The manifest of the config's records, which are drawn first where they are missing and the source is synthetic.

    Args:
      data_config: the `data` section of a Config.
      patch_size: [3] voxels, see `convert`.

    Raises:
      InputError: there are no records of another source, or those that are there were made with other settings.
    """
    folder = data_config.records
    missing = not os.path.exists(os.path.join(folder, records.MANIFEST)) and "://" not in str(folder)
    if missing and synthetic.kind_of(data_config.source):
        try:
            return convert(data_config, folder, patch_size=patch_size)
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
    for source in sources.find(data_config):
        yield source.split, *load(source, data_config)


def load(source, data_config):
    """A whole case as its records will hold it, and what was left out {reason: number}."""
    case, left_out = sources.load(source, data_config)
    case, vanished = resample.whole_case(case, data_config.target_spacing, data_config.image_interpolation)
    return case, {**left_out, **vanished}


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
        if reason.startswith(("voxels ", "boxes ", "hits ", "energy ")):  # It says what is counted.
            lines.append(f"left out: {number:.10g} {reason}")
            continue
        things = "values" if reason.startswith(("attribute ", "keypoint ")) else "instances"
        lines.append(f"left out: {number} {things} ({reason})")
    return "\n".join(lines)


@contextlib.contextmanager
def _continuing(folder, conversion):
    """Makes the folder of a conversion with its settings, or checks those that it was begun with."""
    path = folder / records.CONVERSION
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: expected a new or empty output folder, got a file")
    if path.exists():
        _check_conversion(folder, json.loads(path.read_text(encoding="utf-8")), conversion)
    else:
        if folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir()):
            raise InputError(f"{folder}: expected a new or empty output folder, got one with files in it")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(conversion, indent=1) + "\n", encoding="utf-8")
    try:
        yield
    except Exception:
        # Shards that are complete are of use to the next run; without any, nothing stays.
        if not any(folder.glob("*.index.json")):
            shutil.rmtree(folder / shards.SCRATCH, ignore_errors=True)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Another process may write there too.
                folder.rmdir()
        raise


def _check_conversion(folder, begun, mine):
    changed = [name for name in mine if begun.get(name) != mine[name]]
    if changed:
        pairs = ", ".join(f"{name}: {begun.get(name)} -> {mine[name]}" for name in changed)
        raise InputError(
            f"{folder}: expected the settings that its conversion was begun with, came others ({pairs}); "
            "choose another output"
        )


def _conversion(data_config, patch_size, planned):
    """All that the shards depend on, as JSON reads it back; of the cases, names and places as one checksum."""
    places = [[shard.file, [[p.source.name, p.first, p.last, p.count] for p in shard.pieces]] for shard in planned]
    return {
        **_header(data_config),
        "chunk_size": list(data_config.chunk_size),
        "patch_size": patch_size and list(patch_size),
        "shard_megabytes": data_config.shard_megabytes,
        "cases": hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16],
    }


def _unprepared(large, planned, folder):
    """Those of the large cases that a shard still waits for."""
    waiting = [shard for shard in planned if not shards.index_path(folder, shard.file).exists()]
    names = {piece.source.name for shard in waiting for piece in shard.pieces}
    return [source for source in large if source.name in names]


def _finish(folder, planned, data_config, patch_size):
    """Writes what describes the records, the manifest last, and removes what only the conversion needed."""
    tally, listed = Tally(data_config), {split: [] for split in SPLITS}
    for shard in planned:
        split, index = shard.pieces[0].source.split, shards.read_index(folder, shard.file)
        for described in index["cases"]:
            tally.add(split, described)
        entry = {name: index[name] for name in ("file", "bytes", "sha256")}
        listed[split].append({**entry, "records": len(index["records"])})
    manifest = {
        **_header(data_config),
        "chunk_size": list(data_config.chunk_size),
        "patch_size": patch_size and list(patch_size),
        **tally.totals(),
        "shards": listed,
    }
    for name, content in tfds.descriptions(manifest).items():
        _write_json(folder / name, content)
    shutil.rmtree(folder / shards.SCRATCH, ignore_errors=True)
    for left in folder.glob(".????????.*"):  # what killed processes were writing
        left.unlink()
    _write_json(folder / records.MANIFEST, manifest)
    return manifest


def _write_json(path, content):
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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
    kind = synthetic.kind_of(source)
    if kind:
        settings = synthetic.settings_of(kind, data_config.synthetic)
    else:
        settings = {"labels": data_config.labels}
        for name in ("channel_suffixes", "folds", "fold", "part_longer_than"):
            if getattr(data_config, name):
                settings[name] = getattr(data_config, name)
        if data_config.labels == "boxes":
            settings["box_unit"] = data_config.box_unit
        if data_config.labels == "hits":
            settings["hits"] = dataclasses.asdict(data_config.hits)
    settings["min_voxels"] = data_config.min_voxels
    if data_config.target_spacing:
        settings["target_spacing"] = data_config.target_spacing
        settings["image_interpolation"] = data_config.image_interpolation
    return json.loads(json.dumps(settings))


def _check_settings(folder, manifest, data_config):
    """Refuses records that were made with other settings than the config's."""
    drawn = synthetic.kind_of(manifest["source"]) is not None
    if drawn and not synthetic.kind_of(data_config.source):
        return  # The config says nothing about how to draw.
    mine = _settings(data_config, manifest["source"])
    theirs = manifest["settings"]
    changed = {name: theirs.get(name) for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)}
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
