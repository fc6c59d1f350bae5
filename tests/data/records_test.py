import contextlib
import hashlib
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from data import chunks, records, statistics
from data.cases import Case
from data.errors import InputError
from data.readers import Volume, spacing_affine

SHAPE = (5, 7, 11)


def make_case(array=None, *, num_instances=2, num_attributes=0, num_keypoints=0, name="a"):
    """A case whose instances are z slices."""
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if array is None else array
    spacing = np.array([2.5, 0.7, 0.3])
    affine = spacing_affine(spacing)
    affine[:3, 3] = [-10, 20, 30.5]
    ids = np.zeros(array.shape[:3], np.int32)
    for i in range(num_instances):
        ids[i] = i + 1
    attributes = np.arange(num_instances * num_attributes, dtype=np.float32).reshape(num_instances, num_attributes)
    class_ids = np.arange(num_instances, dtype=np.int32) % 3 + 1
    keypoints = np.arange(num_instances * num_keypoints * 3, dtype=np.float32).reshape(num_instances, num_keypoints, 3)
    return Case(name, Volume(array, spacing, affine), ids, class_ids, attributes, keypoints, "/some/folder/a.nii.gz")


def to_example(case):
    return records.to_example(chunks.whole(case, statistics_of(case)))


def statistics_of(case):
    channels = 1 if case.volume.array.ndim == 3 else case.volume.array.shape[3]
    return np.arange(channels * len(statistics.NAMES), dtype=np.float32).reshape(channels, -1)


def parsed(case):
    return {key: value.numpy() for key, value in tf.function(records.parse)(to_example(case)).items()}


def write_manifest(folder, **changes):
    shard = {"file": "train-00000-of-00001.tfrecord", "records": 2, "bytes": 0, "sha256": ""}
    with tf.io.TFRecordWriter(str(folder / shard["file"])) as writer:
        for name in "ab":
            writer.write(to_example(make_case(name=name)))
    shard["bytes"] = (folder / shard["file"]).stat().st_size
    manifest = {
        "format_version": records.FORMAT_VERSION,
        "classes": ["cell", "nucleus"],
        "channels": 1,
        "num_cases": {"train": 2, "val": 0, "test": 0},
        "shards": {"train": [shard], "val": [], "test": []},
        **changes,
    }
    (folder / records.MANIFEST).write_text(json.dumps(manifest))
    return manifest


class RoundTripTest:
    @pytest.mark.parametrize(
        "dtype", ["uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", ">i2", ">f4"]
    )
    def test_voxels_come_back_from_their_own_dtype(self, dtype):
        array = (np.arange(np.prod(SHAPE)) % 127 - (0 if "u" in dtype else 60)).astype(dtype).reshape(SHAPE)
        record = tf.train.Example.FromString(to_example(make_case(array)))
        stored = record.features.feature["volume_dtype"].bytes_list.value[0].decode()
        assert stored == np.dtype(dtype).newbyteorder("=").name
        np.testing.assert_array_equal(parsed(make_case(array))["volume"], array[..., np.newaxis].astype(np.float32))

    @pytest.mark.parametrize(
        ("array", "stored"),
        [
            (np.ones(SHAPE, bool), "uint8"),
            (np.full(SHAPE, 70000, np.uint32), "int32"),
            (np.full(SHAPE, 2**32 - 1, np.uint32), "int64"),
            (np.full(SHAPE, 2**40, np.uint64), "int64"),
            (np.full(SHAPE, 0.5, np.longdouble), "float64"),
        ],
    )
    def test_other_dtypes_become_one_that_holds_them(self, array, stored):
        record = tf.train.Example.FromString(to_example(make_case(array)))
        assert record.features.feature["volume_dtype"].bytes_list.value[0].decode() == stored
        assert parsed(make_case(array))["volume"][1, 2, 3, 0] == np.float32(array[1, 2, 3])

    @pytest.mark.parametrize(
        "array",
        [np.full(SHAPE, 2**63 + 5, np.uint64), np.full(SHAPE, np.longdouble(1) / 3), np.full(SHAPE, 1j)],
    )
    def test_a_dtype_without_a_lossless_stand_in_is_refused(self, array):
        with pytest.raises(InputError, match=rf"case a: expected voxels of uint8, .* came {array.dtype}"):
            to_example(make_case(array))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
    def test_voxels_beyond_float32_are_refused(self, value):
        array = np.zeros(SHAPE)
        array[1, 2, 3] = value
        with pytest.raises(InputError, match="case a: expected finite voxels within float32"):
            to_example(make_case(array))

    def test_channels_are_kept(self):
        array = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
        np.testing.assert_array_equal(parsed(make_case(array))["volume"], array)

    def test_everything_else_comes_back(self):
        case = make_case(num_instances=4, num_attributes=2, num_keypoints=3)
        case.attributes[1, 0] = case.keypoints[2, 1] = np.nan  # unknown
        found = parsed(case)
        np.testing.assert_array_equal(found["instance_ids"], case.instance_ids)
        np.testing.assert_array_equal(found["class_ids"], [1, 2, 3, 1])
        np.testing.assert_array_equal(found["attributes"], case.attributes)
        np.testing.assert_array_equal(found["keypoints"], case.keypoints)
        np.testing.assert_array_equal(found["spacing"], np.float32([2.5, 0.7, 0.3]))
        np.testing.assert_array_equal(found["affine"], case.volume.affine.astype(np.float32))
        np.testing.assert_array_equal(found["origin"], [0, 0, 0])
        np.testing.assert_array_equal(found["case_shape"], SHAPE)
        assert (found["chunk"], found["num_chunks"]) == (0, 1)
        np.testing.assert_array_equal(found["instance_numbers"], [1, 2, 3, 4])
        np.testing.assert_array_equal(found["intensity"], statistics_of(case))
        assert (found["name"], found["source"]) == (b"a", b"a.nii.gz")
        kinds = {key: str(value.dtype) for key, value in found.items() if isinstance(value, np.ndarray)}
        assert kinds == {
            "volume": "float32",
            "instance_ids": "int32",
            "class_ids": "int32",
            "attributes": "float32",
            "keypoints": "float32",
            "spacing": "float32",
            "affine": "float32",
            "origin": "int32",
            "case_shape": "int32",
            "instance_numbers": "int32",
            "intensity": "float32",
        }

    @pytest.mark.parametrize("largest", [1, 255, 256, 65535, 65536, 2**31 - 1])
    def test_ids_of_any_size_come_back(self, largest):
        case = make_case()
        case.instance_ids[4, 6, 10] = largest
        np.testing.assert_array_equal(parsed(case)["instance_ids"], case.instance_ids)

    @pytest.mark.parametrize(("num_attributes", "num_keypoints"), [(0, 0), (3, 2)])
    def test_no_instances(self, num_attributes, num_keypoints):
        case = make_case(num_instances=0, num_attributes=num_attributes, num_keypoints=num_keypoints)
        found = parsed(case)
        assert found["class_ids"].shape == (0,)
        assert found["attributes"].shape == (0, num_attributes)
        assert found["keypoints"].shape == (0, num_keypoints, 3)
        assert found["instance_ids"].max() == 0

    def test_a_record_beyond_two_gigabytes_is_refused(self, monkeypatch):
        monkeypatch.setattr(records, "_MAX_RECORD_BYTES", 700)
        with pytest.raises(InputError, match=r"case a: expected a volume below 2 GB with its ids, came 0\.0 GB"):
            to_example(make_case())

    def test_compressed_ids_count_towards_two_gigabytes(self, monkeypatch):
        case = make_case()
        monkeypatch.setattr(records, "_MAX_RECORD_BYTES", case.volume.array.nbytes)
        with pytest.raises(InputError, match="below 2 GB with its ids"):
            to_example(case)

    def test_all_of_a_record_counts_towards_two_gigabytes(self, monkeypatch):
        size = len(to_example(make_case()))
        monkeypatch.setattr(records, "_MAX_RECORD_BYTES", size)
        assert len(to_example(make_case())) == size
        monkeypatch.setattr(records, "_MAX_RECORD_BYTES", size - 1)
        with pytest.raises(InputError, match="below 2 GB with its ids"):
            to_example(make_case())


class ReadingTest:
    def foreign(self):
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[3]))
        return tf.train.Example(features=tf.train.Features(feature={"other": feature})).SerializeToString()

    def changed(self, **features):
        example = tf.train.Example.FromString(to_example(make_case()))
        for name, value in features.items():
            example.features.feature[name].bytes_list.value[0] = value
        return example.SerializeToString()

    def test_records_that_are_not_ours_end_in_one_line(self):
        for record in (
            b"nonsense",
            self.foreign(),
            self.changed(volume_dtype=b"bfloat16"),
            self.changed(volume=b"cut"),
        ):
            words = r"^x.tfrecord: expected records of convert_main.py"
            with pytest.raises(InputError, match=words) as caught, records.reading("x.tfrecord"):
                records.parse(record)
            assert "\n" not in str(caught.value)

    def test_other_errors_pass(self):
        with pytest.raises(KeyError), records.reading("x"):
            raise KeyError("mine")


class ManifestTest:
    def test_missing_folder_says_how_to_make_it(self, tmp_path):
        with pytest.raises(InputError, match=r"no records at .*none; make them with convert_main.py --output="):
            records.read_manifest(tmp_path / "none")

    @pytest.mark.parametrize("version", [0, records.FORMAT_VERSION + 1, None])
    def test_another_format_version_is_refused(self, tmp_path, version):
        write_manifest(tmp_path, format_version=version)
        with pytest.raises(InputError, match=f"expected format version {records.FORMAT_VERSION}, came {version}"):
            records.read_manifest(tmp_path)

    @pytest.mark.parametrize(("text", "words"), [("{", "cannot be read as a manifest"), ("[]", "came None")])
    def test_a_damaged_manifest_is_refused(self, tmp_path, text, words):
        (tmp_path / records.MANIFEST).write_text(text)
        with pytest.raises(InputError, match=words):
            records.read_manifest(tmp_path)

    def test_whole_shards_pass(self, tmp_path):
        manifest = write_manifest(tmp_path)
        assert records.read_manifest(tmp_path) == manifest
        records.check_shards(tmp_path, manifest)

    def test_a_missing_shard_is_named(self, tmp_path):
        manifest = write_manifest(tmp_path)
        (tmp_path / "train-00000-of-00001.tfrecord").unlink()
        with pytest.raises(InputError, match=r"train-00000-of-00001.tfrecord: expected a shard of .* no such file"):
            records.check_shards(tmp_path, manifest)

    def test_a_shard_cut_anywhere_is_named_with_both_sizes(self, tmp_path):
        manifest = write_manifest(tmp_path)
        path = tmp_path / "train-00000-of-00001.tfrecord"
        whole = path.read_bytes()
        at_a_boundary = len(whole) // 2  # Two records of equal size.
        assert len(list(tf.data.TFRecordDataset(str(path)))) == 2
        for size in (0, at_a_boundary, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match=rf"expected a shard of {len(whole)} bytes, came {size};"):
                records.check_shards(tmp_path, manifest)
        path.write_bytes(whole[:at_a_boundary])
        assert len(list(tf.data.TFRecordDataset(str(path)))) == 1  # TensorFlow itself says nothing.

    def test_shard_paths(self, tmp_path):
        manifest = write_manifest(tmp_path)
        assert records.shard_paths(tmp_path, manifest, "train") == [str(tmp_path / "train-00000-of-00001.tfrecord")]
        with pytest.raises(InputError, match="expected a split out of train, val, test, came 'dev'"):
            records.shard_paths(tmp_path, manifest, "dev")
        with pytest.raises(InputError, match=r"'val', came none \(cases: train 2, val 0, test 0\)"):
            records.shard_paths(tmp_path, manifest, "val")

    def test_other_classes_or_channels_are_refused(self, tmp_path):
        manifest = write_manifest(tmp_path)
        assert records.check_matches(manifest, ("cell", "nucleus"), 1) is None
        with pytest.raises(InputError, match=r"classes \['nucleus', 'cell'\], came \['cell', 'nucleus'\]"):
            records.check_matches(manifest, ("nucleus", "cell"), 1)
        with pytest.raises(InputError, match=r"the config's 2 channel\(s\), came 1"):
            records.check_matches(manifest, ("cell", "nucleus"), 2)

    @pytest.mark.parametrize("kind", ["attributes", "keypoints"])
    def test_other_attributes_or_landmarks_are_refused(self, tmp_path, kind):
        manifest = write_manifest(tmp_path, **{kind: ["energy", "charge"]})
        assert records.check_matches(manifest, ("cell", "nucleus"), 1, **{kind: ("energy", "charge")}) is None
        for mine in ((), ("energy",), ("charge", "energy")):
            with pytest.raises(InputError) as caught:
                records.check_matches(manifest, ("cell", "nucleus"), 1, **{kind: mine})
            assert str(caught.value) == (
                f"records: expected the config's {kind} {list(mine)}, came ['energy', 'charge']"
            )

    @pytest.mark.parametrize("kind", ["attributes", "keypoints"])
    def test_a_manifest_that_names_none_has_none(self, tmp_path, kind):
        manifest = write_manifest(tmp_path)
        assert kind not in manifest
        assert records.check_matches(manifest, ("cell", "nucleus"), 1, **{kind: ()}) is None
        with pytest.raises(InputError, match=rf"the config's {kind} \['energy'\], came \[\]"):
            records.check_matches(manifest, ("cell", "nucleus"), 1, **{kind: ("energy",)})


class WriteShardTest:
    def chunks(self, count):
        return (chunks.whole(make_case(name=f"case{i}"), statistics_of(make_case())) for i in range(count))

    def test_the_index_leads_to_every_record(self, tmp_path):
        path = tmp_path / "val-00000-of-00001.tfrecord"
        entry = records.write_shard(path, self.chunks(3), ("cell", "nucleus", "wall"))
        content = path.read_bytes()
        assert (entry["file"], entry["bytes"]) == (path.name, len(content))
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        stored = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        for i, (place, example) in enumerate(zip(entry["records"], stored, strict=True)):
            assert content[place["offset"] : place["offset"] + place["length"]] == example
            assert place["hash"] == int(tf.strings.to_hash_bucket_fast(example, 2**62))
            assert (place["case"], place["chunk"]) == (f"case{i}", 0)
            assert place["instances"] == {"cell": 1, "nucleus": 1, "wall": 0}

    def test_an_error_on_the_way_leaves_nothing(self, tmp_path):
        def failing():
            yield from self.chunks(2)
            raise InputError("the third is damaged")

        with pytest.raises(InputError, match="the third is damaged"):
            records.write_shard(tmp_path / "a.tfrecord", failing(), ("cell", "nucleus", "wall"))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without space")
    def test_a_full_disk_is_an_os_error(self, tmp_path, monkeypatch):
        @contextlib.contextmanager
        def full(path):
            yield "/dev/full"

        monkeypatch.setattr(records, "replacing", full)
        with pytest.raises(OSError, match="No space left on device"):
            records.write_shard(tmp_path / "a.tfrecord", self.chunks(1), ("cell", "nucleus", "wall"))

    def test_equal_chunks_give_equal_bytes(self, tmp_path):
        for name in ("a", "b"):
            records.write_shard(tmp_path / name, self.chunks(2), ("cell", "nucleus", "wall"))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class CheckPatchTest:
    def manifest(self, chunks):
        return {"patch_size": [6, 8, 10], "cases": {"train": [{"chunks": 1}], "val": [{"chunks": chunks}]}}

    def test_larger_patches_are_refused_where_cases_are_cut(self):
        records.check_patch(self.manifest(4), (6, 8, 10))
        records.check_patch(self.manifest(1), (60, 80, 100))
        with pytest.raises(
            InputError, match=r"patch_size \[6, 9, 10\], came those for \[6, 8, 10\]; convert the source"
        ):
            records.check_patch(self.manifest(4), (6, 9, 10))

    def test_a_conversion_that_has_not_ended_is_no_set_of_records(self, tmp_path):
        (tmp_path / records.CONVERSION).write_text("{}")
        with pytest.raises(InputError, match="expected finished records, came a conversion that was not"):
            records.read_manifest(tmp_path)
