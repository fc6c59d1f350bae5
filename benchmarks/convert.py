"""Conversion against reading the same sources and doing nothing: `python -m benchmarks.convert`.

Both by one process and by a pool of two that has started; with the sources in the page cache, and with their pages
given back before every run, so that they come from the disk. What is written goes to the page cache.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import concurrent.futures
import functools
import json
import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import medians
from benchmarks.report import Limit, limit_table
from configs import schema
from data import convert, shards, sources
from data.readers import read_volume
from data.writers import write_volume

SHAPE, COUNT = (96, 256, 256), 4
SUFFIXES = (".nii.gz", ".nii")
LIMIT = round(1 / 0.7, 2)  # times what reading takes: 70 % of its rate


def write_source(folder, suffix, shape=SHAPE):
    """CT-like int16 volumes with 40 balls; blurred noise, which compresses about as CT does."""
    rng = np.random.default_rng(0)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    for number in range(COUNT):
        ids = np.zeros(shape, np.uint8)
        for i in range(40):
            centre, radius = rng.uniform(0, shape), rng.uniform(4, 14)
            ids[sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2] = i + 1
        image = (rng.normal(40, 15, shape) + 100 * (ids > 0)).astype(np.int16)
        name = f"case{number}_train"
        write_volume(folder / "images" / f"{name}{suffix}", image, (1.0, 1.0, 1.0))
        write_volume(folder / "labels" / f"{name}{suffix}", ids, (1.0, 1.0, 1.0))
        classes = {str(i): "lesion" for i in range(1, 41)}
        (folder / "labels" / f"{name}.json").write_text(json.dumps(classes))


def measure(shape=SHAPE, repeats=5):
    """Limit rows: seconds of conversions over those of reading every image and label file."""
    rows, spawn = [], multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for suffix in SUFFIXES:
            with tempfile.TemporaryDirectory() as folder:
                write_source(Path(folder) / "source", suffix, shape)
                rows += _rows(suffix, Path(folder), pool, COUNT * np.prod(shape) * 3 / 1e6, repeats)
    return rows


def _rows(suffix, folder, pool, megabytes, repeats):
    # A shard for every case, so that two processes have something to do.
    config = schema.Data(source=str(folder / "source"), classes=("lesion",), shard_megabytes=1)
    found, output = sources.find(config), folder / "out"
    planned = shards.plan(found, config, None)
    write_one = functools.partial(shards.write, folder=output, data_config=config, patch_size=None)

    def one_converts():
        shutil.rmtree(output, ignore_errors=True)
        convert.convert(config, output, progress=False)

    def two_convert():
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        list(pool.map(write_one, planned))

    pairs = {
        "one process": (one_converts, lambda: list(map(_read, found))),
        "two processes": (two_convert, lambda: list(pool.map(_read, found))),
    }
    rows = []
    for workers, (write, read) in pairs.items():
        for place, before in (("page cache", lambda: None), ("disk", lambda: _forget(found))):
            _, seconds, _, reading = medians(before, write, before, read, repeats=repeats)
            work = f"conversion of {suffix} from the {place} by {workers}, {megabytes / seconds:.0f} MB/s"
            rows.append(Limit(f"{work}, against reading the files", seconds / reading, LIMIT, "x its time"))
    return rows


def _paths(case):
    return *case.files.images, case.files.labels


def _read(case):
    for path in _paths(case):
        read_volume(path)


def _forget(found):
    """Takes the files of cases out of the page cache."""
    for path in (path for case in found for path in _paths(case)):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())  # What has not been written cannot be given back.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    """Prints the table."""
    print(limit_table(measure()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
