"""Output that is either complete or absent, also when the run is killed half-way."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from data.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block succeeds.

    The block writes a file, or makes a folder, at the yielded path. An error inside the block deletes
    it and leaves `path` as it was. Missing parent folders are made.

    Args:
      path: a file, or a folder that does not exist or is empty.

    Yields:
      A path in the same folder, whose name ends like that of `path` (".nii.gz" too).

    Raises:
      InputError: `path` is a folder that holds something, or lies below a file.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path}: expected a new or empty output folder, got one with files in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        above = next(parent for parent in path.parents if os.path.lexists(parent))
        raise InputError(f"{path}: expected {above} to be a folder, got a file") from error
    # Same folder, so that the final step is a rename; hidden, so that no listing takes it for data.
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def check_folder(output):
    """InputError unless the folder, or else the nearest one above it, is there and can be written: makes nothing."""
    path = Path(output).absolute()
    nearest = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    if not nearest.is_dir():
        raise InputError(f"--output={output}: expected a folder, came the file {nearest}")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(f"--output={output}: expected a folder that can be written, came {nearest} without permission")


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a new temporary folder that takes the place of `path` when the block succeeds, see `replacing`.

    Raises:
      InputError: as `replacing`, or `path` is a file.
    """
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"{path}: expected a new or empty output folder, got a file")
    with replacing(path) as folder:
        folder.mkdir()
        yield folder


def _remove(path):
    """Deletes a file or a folder; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
