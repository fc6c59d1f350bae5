import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from configs import schema
from data import convert, pipeline, records, volumes
from data.errors import InputError
from data.writers import write_volume

SHAPE, SPACING = (31, 26, 37), (2.0, 1.0, 0.5)
PATCH, CHUNK = (6, 8, 10), (12, 16, 20)


def write_source(folder, *, suffix=".nii", channels=0, count=2, semantic=False, seed=0):
    """Volumes with boxes that may touch; of ids 5, 15, 25, ... or of classes 1..2."""
    rng = np.random.default_rng(seed)
    for name in ["a_train", "b_val", "c_train"][:count]:
        ids = np.zeros(SHAPE, np.uint16)
        for i in range(30):
            low = rng.integers(0, np.array(SHAPE) - 2)
            size = rng.integers(1, 9, 3)
            region = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
            ids[region] = 1 + i % 2 if semantic else 5 + 10 * i
        image = rng.integers(-1000, 2000, (*SHAPE, *([channels] if channels else []))).astype(np.int16)
        write_volume(folder / "images" / f"{name}{suffix}", image, SPACING)
        write_volume(folder / "labels" / f"{name}{suffix}", ids, SPACING)
        if not semantic:
            table = {
                str(5 + 10 * i): {"class": ["cell", "wall"][i % 2], "energy": i, "keypoints": {"tip": [i, 2.5, 4]}}
                for i in range(30)
            }
            (folder / "labels" / f"{name}.json").write_text(json.dumps(table))


def config_of(folder, **changes):
    known = {"attributes": ("energy",), "keypoints": ("tip",)} if changes.get("labels") != "semantic" else {}
    settings = {"min_voxels": 4, "stratify": False, **known, **changes}
    return schema.Data(source=str(folder), classes=("cell", "wall"), **settings)


def whole_volumes(folder, channels=1):
    manifest = records.read_manifest(folder)
    config = schema.Input(patch_size=PATCH, rotate_planes=(), channels=channels)
    return [
        volume
        for split, cases in manifest["num_cases"].items()
        if cases
        for volume in volumes.of_split(folder, manifest, split, config)
    ]


def assert_chunks_equal_the_whole(source, out, **changes):
    """Converts cut and not cut, and compares manifests, whole volumes and every record with its region."""
    whole = convert.convert(config_of(source, **changes), out / "whole", progress=False)
    cut_config = config_of(source, chunk_size=CHUNK, **changes)
    cut = convert.convert(cut_config, out / "cut", patch_size=PATCH, progress=False)
    for key in ("num_cases", "num_instances", "max_instances", "largest_shape", "dropped", "spacing_median"):
        assert cut[key] == whole[key], key
    for split, intensity in whole["intensity"].items():
        for name, values in intensity.items():
            np.testing.assert_allclose(cut["intensity"][split][name], values, rtol=1e-5)
    assert {case["chunks"] for cases in cut["cases"].values() for case in cases} != {1}
    assert not (out / "cut" / ".prepared").exists()
    channels = whole["channels"]
    pairs = zip(whole_volumes(out / "whole", channels), whole_volumes(out / "cut", channels), strict=True)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        assert len(ours["class_ids"]) > 3
        for key, value in ours.items():
            if isinstance(value, str):
                assert theirs[key] == value
            else:
                np.testing.assert_allclose(theirs[key], value, atol=1e-5, err_msg=key)
    return cut


class ChunkedConversionTest:
    @pytest.mark.parametrize("labels", ["instances", "semantic"])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_equals_the_uncut_one(self, tmp_path, labels, suffix):
        write_source(tmp_path / "in", suffix=suffix, semantic=labels == "semantic")
        assert_chunks_equal_the_whole(tmp_path / "in", tmp_path, labels=labels)

    def test_with_channels(self, tmp_path):
        write_source(tmp_path / "in", channels=2)
        assert assert_chunks_equal_the_whole(tmp_path / "in", tmp_path)["channels"] == 2

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("interpolation", ["linear", "spline"])
    def test_resampled(self, tmp_path, suffix, interpolation):
        write_source(tmp_path / "in", suffix=suffix, count=1)
        changes = {"target_spacing": (2.5, 1.5, 1.0), "image_interpolation": interpolation, "min_voxels": 1}
        cut = assert_chunks_equal_the_whole(tmp_path / "in", tmp_path, **changes)
        assert cut["largest_shape"] == [25, 17, 19]
        assert cut["spacing_median"] == [2.5, 1.5, 1.0]
        assert cut["dropped"]["vanished in resampling"] >= 1

    def test_every_record_tells_its_place(self, tmp_path):
        write_source(tmp_path / "in")
        config = config_of(tmp_path / "in", chunk_size=CHUNK)
        manifest = convert.convert(config, tmp_path / "out", patch_size=PATCH, progress=False)
        (whole,) = [volume for volume in whole_volumes(tmp_path / "out") if volume["name"] == "a_train"]
        entry = manifest["shards"]["train"][0]
        index = json.loads((tmp_path / "out" / f"{entry['file']}.index.json").read_text())
        content = (tmp_path / "out" / entry["file"]).read_bytes()
        assert len(index["records"]) == entry["records"] == manifest["cases"]["train"][0]["chunks"] == 4 * 3 * 3
        for number, place in enumerate(index["records"]):
            example = content[place["offset"] : place["offset"] + place["length"]]
            assert tf.strings.to_hash_bucket_fast(example, 2**62).numpy() == place["hash"]
            record = {key: value.numpy() for key, value in records.parse(example).items()}
            assert (place["case"], place["chunk"], record["chunk"], record["num_chunks"]) == (
                "a_train",
                number,
                number,
                36,
            )
            np.testing.assert_array_equal(record["case_shape"], SHAPE)
            region = tuple(slice(a, a + n) for a, n in zip(record["origin"], CHUNK, strict=True))
            table = np.concatenate([[0], record["instance_numbers"]])
            np.testing.assert_array_equal(table[record["instance_ids"]], whole["instance_ids"][region])
            rows = record["instance_numbers"] - 1
            np.testing.assert_array_equal(record["class_ids"], whole["class_ids"][rows])
            assert place["instances"] == {
                "cell": np.sum(record["class_ids"] == 1),
                "wall": np.sum(record["class_ids"] == 2),
            }
            np.testing.assert_allclose(record["keypoints"] + record["origin"], whole["keypoints"][rows])
            # The first voxel of the chunk and that voxel of the case lie at one place of the world.
            world = record["affine"] @ [0, 0, 0, 1]
            np.testing.assert_allclose(world, whole["affine"] @ [*record["origin"], 1], atol=1e-4)

    def test_training_with_larger_patches_is_refused(self, tmp_path):
        write_source(tmp_path / "in")
        config = config_of(tmp_path / "in", chunk_size=CHUNK)
        manifest = convert.convert(config, tmp_path / "out", patch_size=PATCH, progress=False)
        settings = schema.Input(patch_size=(6, 8, 11), rotate_planes=())
        with pytest.raises(
            InputError, match=r"chunks made for input.patch_size \[6, 8, 11\], came those for \[6, 8, 10\]"
        ):
            pipeline.train_batches(tmp_path / "out", manifest, settings, batch_size=1, seed=0)

    def test_a_large_case_without_a_patch_size_is_refused(self, tmp_path):
        write_source(tmp_path / "in")
        with pytest.raises(InputError, match="case a_train: expected a patch size to cut it by"):
            convert.convert(config_of(tmp_path / "in", chunk_size=CHUNK), tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()

    def test_bad_labels_of_a_large_case_leave_nothing(self, tmp_path):
        write_source(tmp_path / "in", semantic=True)
        config = config_of(tmp_path / "in", labels="semantic", chunk_size=CHUNK)
        config.classes = ("cell",)
        with pytest.raises(InputError, match=r"labels 0..1 for the classes \('cell',\), got 2"):
            convert.convert(config, tmp_path / "out", patch_size=PATCH, progress=False)
        assert not (tmp_path / "out").exists()


SCRIPT = """
import sys
from configs import schema
from data import convert
source, output, labels = sys.argv[1:]
config = schema.Data(source=source, classes=("cell",), labels=labels, chunk_size=(96, 96, 96), stratify=False)
config.shard_megabytes = 64
def peak():
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
manifest = convert.convert(config, output, patch_size=(16, 16, 16), progress=False)
print(before, peak(), manifest["max_instances"], sum(case["chunks"] for case in manifest["cases"]["train"]))
"""


def peak_megabytes(source, output, labels):
    """Of a conversion in a process of its own: before and at the peak; instances and chunks."""
    command = [sys.executable, "-c", SCRIPT, str(source), str(output), labels]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def write_sparse(folder, size):
    """A uint16 volume of size³, made without holding it: a few bright boxes, one as long as the volume."""
    for kind, dtype in (("images", np.uint16), ("labels", np.uint8)):
        (folder / kind).mkdir(parents=True)
        path = folder / kind / "a_train.npy"
        array = np.lib.format.open_memmap(path, "w+", dtype, (size, size, size))
        array[:, 5:9, 7:12] = 1
        for corner in range(20, size - 10, size // 5):
            array[corner : corner + 6, corner : corner + 7, corner + 3 : corner + 8] = 1
        del array


class MemoryTest:
    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    @pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc")
    @pytest.mark.parametrize("labels", ["semantic", "instances"])
    def test_does_not_grow_with_the_volume(self, tmp_path, labels):
        peaks = {}
        for size in (256, 1024):  # 34 MB and 2.1 GB
            write_sparse(tmp_path / str(size), size)
            before, peak, instances, chunks = peak_megabytes(tmp_path / str(size), tmp_path / f"out_{size}", labels)
            peaks[size] = peak - before
            assert instances == (len(range(20, size - 10, size // 5)) + 1 if labels == "semantic" else 1)
            assert chunks == (-(-(size - 15) // 81)) ** 3
        assert peaks[1024] < peaks[256] + 100
        assert peaks[1024] < 400
