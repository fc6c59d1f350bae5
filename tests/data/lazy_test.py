import functools
import multiprocessing
import pathlib
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import h5py
import numpy as np
import pytest
import tensorstore

from data import lazy
from data.errors import InputError
from data.readers import read_volume
from tests.data.formats.ome_zarr_test import multiscales, write_attributes
from tests.data.formats.volumes import SHAPE, ramp

ROOT = pathlib.Path(__file__).parents[2]
NOMINAL = (1024, 1024, 2048)  # 2 GB of uint8
REGION = (slice(500, 520), slice(600, 640), slice(1500, 1560))


def read_from(array, region):
    return array[region]


def over(array):
    return lazy.LazyArray(pathlib.Path("a.x"), array.shape, array.dtype, functools.partial(read_from, array))


def sparse_npy(folder):
    header = np.lib.format.header_data_from_array_1_0(np.empty(0, np.uint8)) | {"shape": NOMINAL}
    with (folder / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(NOMINAL)))
    np.load(folder / "a.npy", mmap_mode="r+")[REGION] = 7
    return folder / "a.npy"


def sparse_hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", NOMINAL, "u1", chunks=(64, 64, 64), compression="gzip")[REGION] = 7
    return folder / "a.h5"


def sparse_zarr(folder):
    path = folder / "a.zarr"
    write_attributes(path, multiscales("zyx", [{"type": "scale", "scale": [1, 1, 1]}]), "0.4")
    metadata = {"shape": NOMINAL, "chunks": [64, 64, 64], "dtype": "|u1"}
    kvstore = {"driver": "file", "path": f"{path}/0/"}
    store = tensorstore.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "create": True}).result()
    store[REGION].write(7).result()
    return path


def sparse_meta(folder):
    size = " ".join(map(str, NOMINAL[::-1]))
    header = f"NDims = 3\nDimSize = {size}\nElementType = MET_UCHAR\nBinaryData = True\nElementDataFile = LOCAL\n"
    with (folder / "a.mha").open("wb") as file:
        file.write(header.encode())
        offset = file.tell()
        file.truncate(offset + int(np.prod(NOMINAL)))
    np.memmap(folder / "a.mha", np.uint8, "r+", offset, NOMINAL)[REGION] = 7
    return folder / "a.mha"


# The peak of the resident memory, which counts the pages of a map too, in a process that reads nothing else.
MEASURE = """
import sys
from concurrent.futures import ProcessPoolExecutor
import tensorstore
from data.readers import read_volume

def megabytes():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

before = megabytes()
volume = read_volume(sys.argv[1], lazy=True)
region = volume.array[500:520, 600:640, 1500:1560]
print(volume.array.shape, region.shape, region.min(), region.max(), megabytes() - before, sep="|")
"""


def total(array):
    return int(array[REGION].sum())


class LargerThanMemoryTest:
    def test_other_processes_read_the_regions_they_are_told(self, tmp_path):
        arrays = [read_volume(write(tmp_path), lazy=True).array for write in (sparse_zarr, sparse_hdf5, sparse_npy)]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert list(pool.map(total, arrays)) == [7 * 20 * 40 * 60] * 3

    @pytest.mark.parametrize("write", [sparse_npy, sparse_hdf5, sparse_zarr, sparse_meta])
    def test_a_region_of_two_gigabytes_takes_little_memory(self, tmp_path, write):
        path = write(tmp_path)
        command = [sys.executable, "-c", MEASURE, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shape, region, low, high, megabytes = done.stdout.strip().split("|")
        assert (shape, region, low, high) == (str(NOMINAL), "(20, 40, 60)", "7", "7")
        assert float(megabytes) < 100

    @pytest.mark.parametrize("write", [sparse_hdf5, sparse_zarr])
    def test_what_does_not_fit_in_memory_is_refused_before_it_is_allocated(self, tmp_path, monkeypatch, write):
        path = write(tmp_path)
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}  # A machine with 1.1 GB.
        monkeypatch.setattr(lazy.os, "sysconf", pages.get)
        words = r"expected voxels that fit in 1.1 GB of memory, got sizes \(1024, 1024, 2048\) of uint8, 2.1 GB"
        with pytest.raises(InputError, match=words):
            read_volume(path)
        array = read_volume(path, lazy=True).array
        with pytest.raises(InputError, match=words):
            np.asarray(array)
        assert array[REGION].min() == 7


class LazyArrayTest:
    @pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 2)])
    @pytest.mark.parametrize(
        "key",
        [
            slice(None),
            slice(1, 3),
            (slice(1, 3), slice(None)),
            (slice(None), slice(2, 99), slice(-4, -1)),
            (slice(3, 3), slice(None), slice(None)),
            (slice(4, 2), slice(None), slice(None)),
            (slice(99, 100), slice(None), slice(None)),
        ],
    )
    def test_slices_as_numpy_takes_them(self, key, shape):
        array = ramp("int16", shape)
        found = over(array)[key]
        np.testing.assert_array_equal(found, array[key])
        assert found.shape == array[key].shape
        assert found.flags.c_contiguous

    @pytest.mark.parametrize("key", [0, (slice(None, None, 2),), (slice(None),) * 4, ..., (slice(0, 1), 0), None])
    def test_other_keys(self, key):
        with pytest.raises(TypeError, match=r"expected up to three slices of step 1 \(z, y, x\), got "):
            over(ramp("int16"))[key]

    def test_all_of_it(self):
        array = over(ramp("int16"))
        assert array.ndim == 3
        np.testing.assert_array_equal(np.asarray(array), ramp("int16"))
        assert np.asarray(array, np.float32).dtype == np.float32
        np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(array))), ramp("int16"))

    def test_bytes_become_native(self):
        array = lazy.LazyArray(pathlib.Path("a"), SHAPE, np.dtype("i2"), functools.partial(read_from, ramp(">i2")))
        assert array[:1].dtype.isnative
        np.testing.assert_array_equal(array[:1], ramp("i2")[:1])

    def test_a_reader_that_gives_less_than_was_asked_for(self):
        array = lazy.LazyArray(pathlib.Path("a.x"), (6, 7, 11), np.dtype("i2"), over(ramp("i2")).read)
        with pytest.raises(InputError, match=r"a.x: expected \(6, 7, 11\) voxels at .*, got \(5, 7, 11\)"):
            np.asarray(array)

    def test_library_errors_become_one_line(self):
        def fail(region):
            raise RuntimeError("in library.cc:\n  the disk is gone")

        array = lazy.LazyArray(pathlib.Path("a.x"), SHAPE, np.dtype("i2"), fail)
        with pytest.raises(InputError, match=r"^a.x: cannot be read as a volume: +the disk is gone$"):
            array[:1]


class MappedTest:
    def test_offset_and_axes(self, tmp_path):
        path = tmp_path / "a.raw"
        path.write_bytes(b"head" + ramp(">i2", (2, 5, 7, 11)).tobytes())
        array = lazy.mapped(path, np.dtype(">i2"), (2, 5, 7, 11), 4, (1, 2, 3, 0))
        assert (array.shape, array.dtype) == ((5, 7, 11, 2), np.dtype("i2"))
        np.testing.assert_array_equal(np.asarray(array), np.moveaxis(ramp("i2", (2, 5, 7, 11)), 0, -1))

    def test_truncated(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(bytes(773))
        with pytest.raises(InputError, match=r"a.raw: truncated: expected 774 bytes, got 773"):
            lazy.mapped(tmp_path / "a.raw", np.dtype("i2"), SHAPE, 4, (0, 1, 2))
