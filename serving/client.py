"""Finds the objects in a file with nothing but the SavedModel: an example to copy, which needs no code of this project.

python client.py --model=SAVED_MODEL --input=scan.nii.gz --output=answers

Needs numpy and tensorflow; SimpleITK for NIfTI, tifffile for TIFF, matplotlib for the picture.
"""

import argparse
import json
import os
import pathlib
import sys
from xml.etree import ElementTree

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import tensorflow as tf

# The order of the landmarks of a model whose data gave none: the centroid, then the two ends along each axis.
KEYPOINTS = ("centroid", "z_min", "z_max", "y_min", "y_max", "x_min", "x_max")


def main():
    """Reads the volume, asks the model, writes labels, JSON and a picture, prints a table."""
    parser = argparse.ArgumentParser(description="Finds the objects in a volume.")
    parser.error = fail  # one line, as for every other error
    parser.add_argument("--model", required=True, type=pathlib.Path, help="folder of the SavedModel")
    parser.add_argument("--input", required=True, type=pathlib.Path, help=f"volume: {', '.join(READERS)}")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="folder for the answers")
    parser.add_argument("--min_score", default=0.5, type=float, help="objects that score less are left out")
    args = parser.parse_args()

    volume, write_labels = read(args.input)
    model, names = load(args.model, volume.shape[-1])
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--output={args.output}: expected a folder: {error.strerror}")
    found, rows = ask(model, names, volume, args.min_score)
    suffix = suffix_of(args.input)
    stem = args.output / args.input.name[: -len(suffix)]
    write(f"{stem}_labels{suffix}", lambda path: write_labels(path, found["labels"]))
    write(f"{stem}.json", lambda path: path.write_text(json.dumps(rows, indent=2) + "\n"))
    write(f"{stem}.png", lambda path: draw(path, volume[..., 0], found["labels"], rows))
    for row in rows:
        print(f"{row['id']:4d}  {row['class']:<16} {row['score']:.3f}  {row['voxels']:8d} voxels  box {row['box']}")
    print(f"{len(rows)} object(s) in {stem}_labels{suffix}")


def load(path, num_channels):
    """The model, which owns the weights and must be held, and the names of its classes, attributes and landmarks."""
    try:
        data = json.loads((path / "assets" / "config.json").read_text())["data"]
        names = {"classes": data["classes"], "attributes": data.get("attributes", [])}
        names["keypoints"] = data.get("keypoints") or list(KEYPOINTS)
        model = tf.saved_model.load(str(path))
        expected = model.signatures["serving_default"].structured_input_signature[1]["volume"].shape[-1]
    except (OSError, ValueError, KeyError) as error:
        fail(f"--model={path}: expected a SavedModel of this project: {error}")
    if num_channels != expected:
        fail(f"expected {expected} channel(s), came {num_channels}")
    return model, names


def ask(model, names, volume, min_score):
    """The model's answer as a dict of arrays, and one dict per object."""
    segment = model.signatures["serving_default"]
    found = {name: value.numpy() for name, value in segment(volume=tf.constant(volume)).items()}
    # Best first, and what is worse never covers what is better: leaving out the tail changes no other label.
    count = int(np.sum(found["valid"] & (found["scores"] >= min_score)))
    found["labels"][found["labels"] > count] = 0
    voxels = np.bincount(found["labels"].ravel(), minlength=count + 1)
    rows = [
        {
            "id": i + 1,  # the value of its voxels in the label volume; class 0 is the background
            "class": names["classes"][found["class_ids"][i] - 1],
            "score": round(float(found["scores"][i]), 4),
            "box": [round(float(edge), 1) for edge in found["boxes"][i]],  # z0, y0, x0, z1, y1, x1 in voxels
            "voxels": int(voxels[i + 1]),
            **measured(found, i, names["attributes"], names["keypoints"]),
        }
        for i in range(count)
    ]
    return found, rows


def measured(found, i, attributes, keypoints):
    """What models with heads for it say of object i beside: its attributes and its landmarks."""
    row = {}
    if attributes:
        values = [float(f"{value:.6g}") for value in found["attributes"][i]]
        row["attributes"] = dict(zip(attributes, values, strict=True))
    if "keypoints" in found:
        points = [[round(float(at), 2) for at in point] for point in found["keypoints"][i]]  # z, y, x in voxels
        scores = [round(float(score), 4) for score in found["keypoint_scores"][i]]
        row["keypoints"] = dict(zip(keypoints, points, strict=True))
        row["keypoint_scores"] = dict(zip(keypoints, scores, strict=True))
    return row


def read(path):
    """Voxels [Z, Y, X, C] float32, and a function (path, labels) that writes labels on the same grid."""
    if not path.is_file():
        fail(f"--input={path}: expected a file, found none")
    try:
        array, write_labels = READERS[suffix_of(path)](path)
    except Exception as error:  # a damaged file raises whatever its library trips over
        fail(f"--input={path}: cannot be read: {error}")
    if array.ndim not in (3, 4) or array.size == 0 or array.dtype.kind not in "biuf":
        fail(f"--input={path}: expected numbers [z, y, x] or [z, y, x, channel], came {array.dtype} {array.shape}")
    volume = array.astype(np.float32).reshape(*array.shape[:3], -1)
    if not np.isfinite(volume).all():
        fail(f"--input={path}: expected finite voxels, came {np.count_nonzero(~np.isfinite(volume))} that are not")
    return volume, write_labels


def read_nifti(path):
    """A fourth axis is one of channels; labels lie in the world where the scan lies."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetDimension() == 4:
        array, image = np.moveaxis(array, 0, -1), image[:, :, :, 0]

    def write_labels(target, labels):
        result = SimpleITK.GetImageFromArray(labels.astype(np.uint16))
        result.CopyInformation(image)
        SimpleITK.WriteImage(result, str(target), useCompression=True)

    return array, write_labels


def read_tiff(path):
    """ImageJ, OME or plain; labels keep what the file says about the size of a voxel, and where it says it."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            raise ValueError(f"expected one image series, came {len(tiff.series)}")
        axes, array = tiff.series[0].get_axes(squeeze=False), tiff.series[0].asarray(squeeze=False)
        sizes = dict(tiff.imagej_metadata or {})
        if tiff.is_ome:
            sizes = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels").attrib
        tags, style = tiff.pages[0].tags, {"ome": tiff.is_ome, "imagej": tiff.is_imagej and not tiff.is_ome}
        style["resolution"] = [tags.valueof(name, default=(1, 1)) for name in ("XResolution", "YResolution")]
        style["resolutionunit"] = tags.valueof("ResolutionUnit", default=1)
    kept = {name: size for name, size in sizes.items() if name in ("spacing", "unit") or "PhysicalSize" in name}

    def write_labels(target, labels):
        tifffile.imwrite(target, labels.astype(np.uint16), metadata={"axes": "ZYX", **kept}, **style)

    return by_name(array, axes, trusted=style["ome"]), write_labels


def by_name(array, axes, trusted):
    """The axes z, y, x and one of channels by their letters, of which only OME's always tell slices from channels."""
    kept = [i for i, axis in enumerate(axes) if axis in "ZQYX" or array.shape[i] > 1]
    stacks = [i for i in kept if axes[i] not in "YXS"]
    if not trusted and len(stacks) == 2 and "Z" in axes and array.shape[axes.index("Z")] == 1:
        kept.remove(axes.index("Z"))  # one slice of many channels or frames: these are the slices
        stacks.remove(axes.index("Z"))
    names = ["Z" if [i] == stacks else axes[i] for i in kept]
    rest = [name for name in names if name not in "ZYX"]
    if sorted(names) != sorted(["Z", "Y", "X", *rest]) or len(rest) > 1:
        sizes = [array.shape[i] for i in kept]
        raise ValueError(f"expected the axes z, y, x and at most one more, came {''.join(names)} of sizes {sizes}")
    array = array.reshape([array.shape[i] for i in kept])
    return array.transpose([names.index(name) for name in ["Z", "Y", "X", *rest]])


def read_npz(path):
    """The array `image`; labels keep its `spacing`, if there is one."""
    with np.load(path, allow_pickle=False) as archive:
        image = archive["image"]
        kept = {name: archive[name] for name in archive.files if name == "spacing"}
    return image, lambda target, labels: np.savez_compressed(target, labels=labels, **kept)


READERS = {".nii.gz": read_nifti, ".nii": read_nifti, ".tiff": read_tiff, ".tif": read_tiff, ".npz": read_npz}


def suffix_of(path):
    """The file's format by its name."""
    for suffix in READERS:
        if path.name.lower().endswith(suffix):
            return suffix
    return fail(f"--input={path}: expected {', '.join(READERS)}")


def write(path, write_to):
    """Writes under another name first: a file that has its name is whole."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}")
    try:
        write_to(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError is SimpleITK's
        temporary.unlink(missing_ok=True)
        fail(f"{path}: cannot be written: {error}")


def draw(path, volume, labels, rows):
    """Writes three slices through the best object, or the middle, with the labels in colour, as a PNG."""
    from matplotlib.figure import Figure

    box = np.array(rows[0]["box"] if rows else [0, 0, 0, *volume.shape])
    centre = np.minimum((box[:3] + box[3:]) // 2, np.array(volume.shape) - 1).astype(int)
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for axis, panel in enumerate(figure.subplots(1, 3)):
        grey, ids = (np.take(array, centre[axis], axis) for array in (volume, labels))
        panel.imshow(grey, cmap="gray")
        panel.imshow(np.ma.masked_equal(ids, 0), cmap="hsv", vmin=1, vmax=len(rows) + 1, alpha=0.4)
        panel.set(title=f"{'zyx'[axis]} = {centre[axis]}", ylabel="yzz"[axis], xlabel="xxy"[axis])
    figure.savefig(path)


def fail(message):
    """Ends the program with one line."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
