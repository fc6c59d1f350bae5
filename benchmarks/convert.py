"""Conversion against reading the same sources and doing nothing: `python -m benchmarks.convert`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import medians
from benchmarks.report import Limit, limit_table
from configs import schema
from data import convert, sources
from data.readers import read_volume
from data.writers import write_volume

SHAPE = (96, 256, 256)
SUFFIXES = (".nii.gz", ".nii")


def write_source(folder, suffix, count=4):
    """CT-like int16 volumes with 40 balls; blurred noise, which compresses about as CT does."""
    rng = np.random.default_rng(0)
    grid = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    for number in range(count):
        ids = np.zeros(SHAPE, np.uint8)
        for i in range(40):
            centre, radius = rng.uniform(0, SHAPE), rng.uniform(4, 14)
            ids[sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2] = i + 1
        image = (rng.normal(40, 15, SHAPE) + 100 * (ids > 0)).astype(np.int16)
        name = f"case{number}_train"
        write_volume(folder / "images" / f"{name}{suffix}", image, (1.0, 1.0, 1.0))
        write_volume(folder / "labels" / f"{name}{suffix}", ids, (1.0, 1.0, 1.0))
        classes = {str(i): "lesion" for i in range(1, 41)}
        (folder / "labels" / f"{name}.json").write_text(json.dumps(classes))


def measure():
    """Limit rows: seconds of a conversion by one process over those of reading every image and label file."""
    rows = []
    for suffix in SUFFIXES:
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "source", Path(folder) / "out"
            write_source(source, suffix)
            config = schema.Data(source=str(source), classes=("lesion",))

            def read(config=config):
                for case in sources.find(config):
                    for path in (*case.files.images, case.files.labels):
                        read_volume(path)

            def write(config=config, output=output):
                shutil.rmtree(output, ignore_errors=True)
                convert.convert(config, output, progress=False)

            seconds, reading = medians(write, read, repeats=5)
            megabytes = 4 * np.prod(SHAPE) * 3 / 1e6
            work = f"conversion of {suffix}, {megabytes / seconds:.0f} MB/s, against reading the files"
            rows.append(Limit(work, seconds / reading, 1 / 0.7, "x its time"))
    return rows


def main():
    """Prints the table."""
    print(limit_table(measure()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
