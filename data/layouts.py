"""Which files of a folder are images, channels and labels, by their names."""

from pathlib import Path

from data.errors import InputError
from data.objects import TABLES, file_stem, some
from data.readers import volume_suffix

_NOTES = ("", ".json", ".txt", ".md", ".csv")  # What may lie beside the volumes.


def in_two_folders(source: Path, labels: str, suffixes: tuple[str, ...]) -> tuple[dict, dict]:
    """The images and label files of `images/` and `labels/`, which have equal names.

    Args:
      source: the folder that holds both.
      labels: what the label files are, see `data.cases.load_case`.
      suffixes: of the channels; ("",) where an image is one file.

    Returns:
      {case: {suffix: path}} of images, not all of whose channels may be there, and {case: path} of label files.

    Raises:
      InputError: one of the folders is missing, or holds a file of another format or two of one name, or an image's
        name ends with no suffix.
    """
    images = _by_channel(_volumes(source / "images"), "", suffixes)
    paths = _tables(source / "labels") if labels == "boxes" else _volumes(source / "labels")
    return images, unique((file_stem(path), path) for path in paths)


def side_by_side(folder: Path, labels: str, suffixes: tuple[str, ...]) -> tuple[dict, dict]:
    """The files `<case>_image<suffix>` and `<case>_labels` of a folder; otherwise as `in_two_folders`."""
    endings = [f"_image{suffix}" for suffix in suffixes]
    # Folders of other names and tables that are no labels (split.json, say) may lie there too.
    paths = [p for p in _volumes(folder) if p.is_file() or file_stem(p).endswith((*endings, "_labels"))]
    label_paths = [path for path in paths if file_stem(path).endswith("_labels")]
    images = [path for path in paths if path not in label_paths]
    for path in images:
        if not file_stem(path).endswith(tuple(endings)):
            wanted = " or ".join(f"<case>{ending}" for ending in (*endings, "_labels"))
            raise InputError(f"{path}: expected the name {wanted}")
    if labels == "boxes":
        for path in label_paths:
            raise _no_table(path)
        label_paths = [path for path in _visible(folder) if _is_table(path) and file_stem(path).endswith("_labels")]
    named = [(file_stem(path).removesuffix("_labels"), path) for path in label_paths]
    return _by_channel(images, "_image", suffixes), unique(named)


def case_folders(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The folders of a source that holds one for each case, by name; none where it is laid out in another way.

    Such a source holds nothing but folders, beside hidden files and notes, and none of them is an image or labels by
    its name, as a DICOM series or a .zarr folder side by side with others is.

    Raises:
      InputError: no such folder, or a file in it that is of another format than volumes and notes.
    """
    paths = _volumes(source)
    taken = ("_labels", *(f"_image{suffix}" for suffix in suffixes))
    if (source / "labels").is_dir() or any(path.is_file() or file_stem(path).endswith(taken) for path in paths):
        return []
    return paths


def in_case_folder(folder: Path, labels: str, suffixes: tuple[str, ...]) -> tuple[tuple[Path, ...], Path]:
    """The channels of the case in a folder, in the order of their suffixes, and its one other file, the labels.

    Args:
      folder: the case's.
      labels: what the label file is, see `data.cases.load_case`.
      suffixes: what the names of the channels are or end with.

    Raises:
      InputError: no file or several for a channel or for the labels, or a file of another format.
    """
    others = [path for path in _visible(folder) if labels == "boxes" and _is_table(path)]
    channels = {suffix: [] for suffix in suffixes}
    volumes = _volumes(folder)
    for path in volumes:
        channels.get(_channel(path, "", suffixes), others).append(path)
    for suffix, paths in channels.items():
        if len(paths) != 1:
            wanted = f"expected one file whose name ends with {suffix} (data.channel_suffixes)"
            raise InputError(f"{folder}: {wanted}, got {_named(paths or volumes)}")
    if len(others) != 1:
        wanted = f"expected one file, the labels, beside the channels {', '.join(suffixes)}"
        raise InputError(f"{folder}: {wanted}, got {_named(others)}")
    if labels == "boxes" and not _is_table(others[0]):
        raise _no_table(others[0])
    return tuple(path for (path,) in channels.values()), others[0]


def existing(folder: Path) -> Path:
    """The folder, if there is one; InputError otherwise."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of volumes, got no such folder")
    return folder


def unique(named_paths) -> dict:
    """{key: path} of pairs; InputError where a key comes twice."""
    paths = {}
    for key, path in named_paths:
        if key in paths:
            raise InputError(f"{path}: expected one file for {file_stem(path)!r}, got {paths[key].name} too")
        paths[key] = path
    return paths


def _visible(folder):
    return [path for path in sorted(existing(folder).iterdir()) if not path.name.startswith(".")]


def _volumes(folder):
    """The volume files and folders of a folder; hidden ones and notes are passed over, other files are refused."""
    paths = [path for path in _visible(folder) if path.is_dir() or path.suffix.lower() not in _NOTES]
    for path in paths:
        volume_suffix(path)
    return paths


def _tables(folder):
    """The tables of boxes of a folder; notes are passed over, other files are refused."""
    paths = _visible(folder)
    for path in paths:
        if not _is_table(path) and path.suffix.lower() not in _NOTES:
            raise _no_table(path)
    return [path for path in paths if _is_table(path)]


def _is_table(path):
    return path.suffix.lower() in TABLES


def _no_table(path):
    return InputError(f"{path}: expected a table of boxes ({', '.join(TABLES)}), got {path.name!r}")


def _by_channel(paths, marker, suffixes):
    """{case: {channel suffix: path}} of images called <case><marker><channel suffix>."""
    found = []
    for path in paths:
        suffix = _channel(path, marker, suffixes)
        if suffix is None:
            raise InputError(f"{path}: expected a name that ends with {' or '.join(suffixes)} (data.channel_suffixes)")
        found.append(((file_stem(path).removesuffix(marker + suffix), suffix), path))
    images = {}
    for (name, suffix), path in unique(found).items():
        images.setdefault(name, {})[suffix] = path
    return images


def _channel(path, marker, suffixes):
    return next((suffix for suffix in suffixes if file_stem(path).endswith(marker + suffix)), None)


def _named(paths):
    return some([path.name for path in paths]) or "none"
