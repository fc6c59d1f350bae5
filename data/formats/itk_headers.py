"""The headers of NIfTI, NRRD and MetaImage: where the voxels lie, and what SimpleITK would mend without a word.

It fills the missing part of a truncated NIfTI file, or of a damaged compressed MetaImage, with whatever is in memory,
turns a size of 0 or a spacing or an origin of NaN into another number, and takes a negative spacing for a flipped axis.
"""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import InputError
from data.formats.geometry import check_sizes, check_spacing
from data.lazy import check_bytes

_LONGEST_HEADER = _PART = 2**20  # bytes


class Stored(NamedTuple):
    """Voxels that lie in a file as they are: C order, the axis that varies slowest first."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


# https://nifti.nimh.nih.gov/nifti-1; "codes" of the qform and the sform, "forms" their numbers.
_NIFTI_HEADER = np.dtype(
    {
        "names": ["size", "dim", "type", "bitpix", "pixdim", "vox_offset", "scale", "codes", "forms", "magic"],
        "formats": ["i4", "8i2", "i2", "i2", "8f4", "f4", "2f4", "2i2", "18f4", "S4"],
        "offsets": [0, 40, 70, 72, 76, 108, 112, 252, 256, 344],
        "itemsize": 348,
    }
)
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def nifti(path: Path) -> Stored | None:
    """Checks a NIfTI-1 file to its end, which makes gzip compare its checksum; None where it is compressed or scaled.

    Raises:
      InputError: not such a file, truncated, or sizes, a spacing or an orientation that are none.
    """
    compressed = path.name.lower().endswith(".gz")
    with (gzip.open if compressed else open)(path, "rb") as stream:
        header, byteorder = _nifti_header(path, stream.read(_NIFTI_HEADER.itemsize))
        num_bytes = stream.seek(0, io.SEEK_END)
    sizes = header["dim"][1 : 1 + header["dim"][0]].tolist()
    check_sizes(path, sizes[::-1])
    check_bytes(path, int(header["vox_offset"]) + math.prod(sizes) * int(header["bitpix"]) // 8, num_bytes)
    check_spacing(path, header["pixdim"][1 : 1 + min(3, len(sizes))][::-1])
    for code, form in zip(header["codes"], np.split(header["forms"], [6]), strict=True):
        if code > 0 and not np.all(np.isfinite(form)):
            raise InputError(f"{path}: expected a finite orientation, got {form.tolist()}")
    kind = _NIFTI_TYPES.get(int(header["type"]))
    if compressed or kind is None or header["scale"].tolist() not in ([0, 0], [1, 0]):
        return None
    return Stored(path, np.dtype(byteorder + kind), tuple(sizes[::-1]), int(header["vox_offset"]))


def _nifti_header(path, data):
    for order in "<>":
        dtype = _NIFTI_HEADER.newbyteorder(order)
        header = np.frombuffer(data, dtype)[0] if len(data) == dtype.itemsize else None
        if header is not None and (header["size"], header["magic"]) == (348, b"n+1"):
            return header, order
    raise InputError(f"{path}: expected a NIfTI-1 file, got something else")


# https://teem.sourceforge.net/nrrd/format.html; every spelling of the C types.
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_SPATIAL = ("domain", "space")


def nrrd(path: Path) -> Stored | None:
    """Checks the header of an NRRD file; None where its voxels are not stored plainly.

    Raises:
      InputError: not such a file, an axis of size 0, data in several files or outside the header's folder, or
        fewer bytes than it promises.
    """
    fields, end = _nrrd_fields(path)
    sizes = _integers(path, "sizes", fields.get("sizes", ""))
    check_sizes(path, sizes[::-1])
    name = fields.get("data file", fields.get("datafile"))
    data_path, offset = (path, end) if name is None else (_beside(path, name), 0)
    skip = int(fields.get("byte skip", fields.get("byteskip", 0)))
    lines = int(fields.get("line skip", fields.get("lineskip", 0)))
    kind = _NRRD_TYPES.get(fields.get("type", "").lower())
    kinds = fields.get("kinds", "domain " * len(sizes)).lower().split()
    others = [i for i, kind_of_axis in enumerate(kinds) if kind_of_axis not in _SPATIAL]
    # SimpleITK moves an axis of components that is not the fastest.
    if fields.get("encoding", "").lower() != "raw" or kind is None or lines or others not in ([], [0]):
        return None
    dtype = np.dtype({"big": ">", "little": "<"}.get(fields.get("endian", "").lower(), "=") + kind)
    num_bytes = math.prod(sizes) * dtype.itemsize
    # -1 counts from the end of the file.
    offset = data_path.stat().st_size - num_bytes if skip == -1 else offset + skip
    check_bytes(data_path, max(offset, 0) + num_bytes, data_path.stat().st_size)
    return Stored(data_path, dtype, tuple(sizes[::-1]), offset)


def _nrrd_fields(path):
    """The fields of an NRRD header, and the number of bytes up to its end."""
    with path.open("rb") as stream:
        if not stream.readline(_LONGEST_HEADER).startswith(b"NRRD000"):
            raise InputError(f"{path}: expected an NRRD file, got something else")
        fields = {}
        for line in iter(lambda: stream.readline(_LONGEST_HEADER), b""):
            text = line.decode("utf-8", "replace").strip()
            if not text:
                break
            key, colon, value = text.partition(": ")
            if colon and not text.startswith("#") and ":=" not in key:
                fields[key.strip().lower()] = value.strip()
        return fields, stream.tell()


# https://itk.org/Wiki/MetaIO/Documentation
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_META_NUMBERS = ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation")


def meta(path: Path) -> Stored | None:
    """Checks the header of a MetaImage file; None where its voxels are not stored plainly.

    Raises:
      InputError: as `nrrd`, or a spacing or an orientation that is none.
    """
    fields, end = _meta_fields(path)
    sizes = _integers(path, "DimSize", fields["DimSize"])
    check_sizes(path, sizes[::-1])
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields:
            check_spacing(path, [float(value) for value in fields[name].split()][:3][::-1])
    for name in _META_NUMBERS:
        if not np.all(np.isfinite([float(value) for value in fields.get(name, "0").split()])):
            raise InputError(f"{path}: expected a finite {name}, got {fields[name]}")
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data_path, offset = (path, end) if local else (_beside(path, fields["ElementDataFile"]), 0)
    num_channels = int(fields.get("ElementNumberOfChannels", 1))
    kind = _META_TYPES.get(fields.get("ElementType"))
    if kind is not None and _is_true(fields, "CompressedData"):
        _check_compressed(data_path, offset, math.prod(sizes) * num_channels * np.dtype(kind).itemsize)
        return None
    if kind is None or not _is_true(fields, "BinaryData", "True"):
        return None
    big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    shape = tuple(sizes[::-1]) if num_channels == 1 else (*sizes[::-1], num_channels)
    dtype = np.dtype((">" if big else "<") + kind)
    skip, num_bytes = int(fields.get("HeaderSize", 0)), math.prod(shape) * dtype.itemsize
    # -1 counts from the end of the file.
    offset = data_path.stat().st_size - num_bytes if skip == -1 else offset + skip
    check_bytes(data_path, max(offset, 0) + num_bytes, data_path.stat().st_size)
    return Stored(data_path, dtype, shape, offset)


def _meta_fields(path):
    """The fields of a MetaImage header, of which ElementDataFile is the last, and the number of bytes up to its end."""
    fields = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(_LONGEST_HEADER)
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if not equals:
                raise InputError(f"{path}: expected a MetaImage header up to ElementDataFile, got {key.strip()[:40]!r}")
            fields[key.strip()] = value.strip()
        end = stream.tell()
    if "DimSize" not in fields:
        raise InputError(f"{path}: expected a MetaImage header with DimSize, got {sorted(fields)}")
    return fields, end


def _check_compressed(path, offset, expected):
    """Decompresses what SimpleITK would take as it is, up to the first byte that is damaged."""
    stream, num_bytes = zlib.decompressobj(wbits=47), 0  # zlib or gzip, as the data begin
    with path.open("rb") as file:
        file.seek(offset)
        while not stream.eof and (part := stream.unconsumed_tail or file.read(_PART)):
            num_bytes += len(stream.decompress(part, _PART))
    if not stream.eof:
        raise InputError(f"{path}: truncated: expected {expected} bytes of voxels, got {num_bytes}")
    check_bytes(path, expected, num_bytes)


def _is_true(fields, name, default="False"):
    return fields.get(name, default).lower() in ("true", "t", "1")


def _integers(path, name, text):
    values = text.split()
    if not values or not all(value.lstrip("-").isdecimal() for value in values):
        raise InputError(f"{path}: expected {name} of whole numbers, got {text!r}")
    return [int(value) for value in values]


def _beside(path, name):
    """The data file of a detached header; only one, and only below the header's own folder."""
    folder = path.parent.resolve()
    data_path = (folder / name).resolve()
    if name.upper().startswith("LIST") or "%" in name or not data_path.is_relative_to(folder):
        raise InputError(f"{path}: expected one data file in its own folder, got {name!r}")
    if not data_path.is_file():
        raise InputError(f"{path}: expected the data file {name!r} beside it, got no such file")
    return data_path
