import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from configs import augment_schema, schema
from data import convert, instance_table, pipeline, records, volumes
from data.errors import InputError
from data.writers import write_volume
from ops import masks

SHAPE = (9, 11, 14)
PATCH = (6, 8, 4)


def optimise(wanted):
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not wanted})


@pytest.fixture(scope="module", autouse=True)
def unoptimised():
    """Graphs as they are written: what each is used for here takes less time than to optimise it."""
    optimise(False)
    yield
    optimise(True)


@pytest.fixture(name="optimised")
def fixture_optimised():
    """Graphs as a training runs them."""
    optimise(True)
    yield
    optimise(False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of 5 + 3 synthetic cases with its manifest; the training split is in several shards."""
    folder = tmp_path_factory.mktemp("made") / "records"
    return folder, make_records(folder, num_train=5, num_val=3, one_shard_each=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return make_measured_records(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def cases(made):
    """The whole volumes of the validation split."""
    return list(volumes.of_split(*made, "val", input_config()))


def make_records(folder, *, num_train, num_val=0, one_shard_each=False, **settings):
    settings = {"shape": SHAPE, "count": (1, 4), "base_size": 2.0, **settings}
    synthetic = schema.Synthetic(num_train=num_train, num_val=num_val, num_test=0, **settings)
    # A shard has one record at least, however low the limit.
    config = schema.Data(synthetic=synthetic, shard_megabytes=0 if one_shard_each else 1)
    return convert.convert(config, folder, progress=False)


def input_config(**changes):
    settings = {
        "patch_size": PATCH,
        "max_instances": 5,
        "min_visible_voxels": 3,
        "rotate_planes": (),
    }
    found = schema.Input(**{"augment": quiet(), **settings, **changes})
    found.validate()
    return found


def plain(**changes):
    return input_config(flip_axes=(False,) * 3, **changes)


def quiet():
    """`input.augment` with every step switched off."""
    settings = augment_schema.Augment()
    for field in dataclasses.fields(settings):
        section = getattr(settings, field.name)
        if dataclasses.is_dataclass(section):
            section.probability = 0.0
    return settings


def first(dataset, count):
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset.take(count)]


def assert_equal_batches(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def make_measured_records(folder):
    """Records of 3 + 3 cases, of whose instances not all is known.

    The first attribute of an instance is its intensity, the second is known of even ones. The first landmark is the
    centre of a voxel of its own, 100 brighter than the instance; the second is known of odd ones, where it is the same.
    """
    intensity = itertools.count(1)
    for name in ("a_train", "b_train", "c_train", "d_val", "e_val", "f_val"):
        ids = np.zeros(SHAPE, np.uint8)
        ids[1:4, 1:5, 2:6], ids[5:8, 6:10, 7:13] = 1, 2
        one, two = next(intensity), next(intensity)
        image = np.float32([0, one, two])[ids]
        image[2, 4, 4] += 100
        image[6, 6, 8] += 100
        write_volume(folder / "files" / f"{name}_image.nii.gz", image, (1, 1, 1))
        write_volume(folder / "files" / f"{name}_labels.nii.gz", ids, (1, 1, 1))
        values = np.array([[one, np.nan], [two, 10 * two]])
        points = np.array([[[2.5, 4.5, 4.5]] * 2, [[6.5, 6.5, 8.5], [np.nan] * 3]])
        path = folder / "files" / f"{name}_labels.json"
        instance_table.write(path, ["cell"] * 2, ("light", "energy"), values, ("peak", "tip"), points)
    config = schema.Data(source=str(folder / "files"), classes=("cell",))
    config.attributes, config.keypoints = ("light", "energy"), ("peak", "tip")
    return folder / "records", convert.convert(config, folder / "records", progress=False)


def assert_measured(ids, volume, attributes, keypoints):
    """The rows of attributes and landmarks belong to ids 1..N, as `make_measured_records` made them.

    Returns:
      Number of landmarks that the volume shows.
    """
    shown = 0
    for instance, ((light, energy), (peak, tip)) in enumerate(zip(attributes, keypoints, strict=True), start=1):
        inside = volume[ids == instance]
        assert set(np.unique(inside).tolist()) <= {light, light + 100}
        np.testing.assert_array_equal(energy, np.nan if light % 2 else 10 * light)
        np.testing.assert_array_equal(tip, peak if light % 2 else np.full(3, np.nan))
        if inside.max() > light:
            np.testing.assert_array_equal(peak - 0.5, np.argwhere((ids == instance) & (volume[..., 0] > 100))[0])
            shown += 1
    return shown


class TrainBatchesTest:
    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (3, 2, 2)])
    def test_static_shapes(self, made, mosaic):
        batches = pipeline.train_batches(*made, input_config(mosaic=mosaic), batch_size=2, seed=0)
        spec = {key: (tuple(value.shape), value.dtype.name) for key, value in batches.element_spec.items()}
        assert spec == {
            "volume": ((2, *PATCH, 1), "float32"),
            "instance_ids": ((2, *PATCH), "int32"),
            "boxes": ((2, 5, 6), "float32"),
            "class_ids": ((2, 5), "int32"),
            "attributes": ((2, 5, 0), "float32"),
            "keypoints": ((2, 5, 0, 3), "float32"),
            "keypoints_valid": ((2, 5, 0), "bool"),
            "valid": ((2, 5), "bool"),
            "number": ((2,), "int64"),
            "rows": ((2, math.prod(mosaic)), "int32"),
        }

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (1, 2, 1)])
    def test_numbers_and_rows_tell_which_examples_and_records_these_are(self, made, mosaic):
        size = [edge * count for edge, count in zip(SHAPE, mosaic, strict=True)]
        config = plain(patch_size=tuple(size), foreground=0.0, normalization="none", mosaic=mosaic)
        images = [records.parse(r)["volume"].numpy() for r in self.serialized(made)]
        batches = first(pipeline.train_batches(*made, config, batch_size=2, seed=0, start=6, stop=12), 3)
        assert [batch["number"].tolist() for batch in batches] == [[6, 7], [8, 9], [10, 11]]
        for batch in batches:
            for volume, rows in zip(batch["volume"], batch["rows"], strict=True):
                expected = np.concatenate([images[row] for row in rows], axis=1)
                np.testing.assert_array_equal(np.sort(volume, None), np.sort(expected, None))

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (1, 2, 1)])
    def test_truths_agree_with_the_ids(self, made, mosaic):
        config = input_config(mosaic=mosaic, patch_size=(6, 8, 6), rotate_planes=((0, 2),))
        num_truths = 0
        for batch in first(pipeline.train_batches(*made, config, batch_size=2, seed=0), 20):
            for ids, boxes, class_ids, valid in zip(
                batch["instance_ids"], batch["boxes"], batch["class_ids"], batch["valid"], strict=True
            ):
                np.testing.assert_array_equal(boxes, masks.instance_boxes(tf.constant(ids), 5)[0])
                assert set(np.unique(ids)) - {0} == set(np.flatnonzero(valid) + 1)
                assert ((class_ids >= 1) == valid).all()
                num_truths += valid.sum()
        assert num_truths > 20

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (1, 2, 2)])
    def test_another_seed_gives_other_batches(self, made, mosaic):
        config = input_config(mosaic=mosaic)
        ours, other = (first(pipeline.train_batches(*made, config, batch_size=2, seed=seed), 5) for seed in (3, 4))
        assert all((a["volume"] != b["volume"]).any() for a, b in zip(ours, other, strict=True))

    def test_an_epoch_holds_every_case_once_and_comes_in_a_new_order(self, made):
        config = plain(patch_size=SHAPE, foreground=0.0, normalization="none")
        sums = [
            float(b["volume"].sum()) for b in first(pipeline.train_batches(*made, config, batch_size=1, seed=0), 20)
        ]
        epochs = [sums[i : i + 5] for i in range(0, 20, 5)]
        images = [records.parse(r)["volume"].numpy().sum() for r in self.serialized(made)]
        assert all(sorted(epoch) == sorted(map(float, images)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1

    def serialized(self, made):
        return tf.data.TFRecordDataset(records.shard_paths(*made, "train"))

    def test_patches_are_normalised_by_their_whole_volume(self, made):
        config = plain(patch_size=SHAPE)
        for batch in first(pipeline.train_batches(*made, config, batch_size=1, seed=0), 5):
            assert abs(batch["volume"].mean()) < 1e-4
            assert batch["volume"].std() == pytest.approx(1.0, abs=1e-4)

    def test_foreground_as_asked(self, made):
        def share(foreground):
            config = input_config(patch_size=(2, 2, 2), foreground=foreground, min_visible_voxels=1)
            batches = first(pipeline.train_batches(*made, config, batch_size=10, seed=0), 8)
            return np.mean([batch["valid"].any(axis=1) for batch in batches])

        assert share(1.0) == 1.0
        assert share(0.0) < 0.6

    def test_volumes_smaller_than_the_patch(self, made):
        config = input_config(patch_size=(12, 16, 16), rotate_planes=((1, 2),))
        for batch in first(pipeline.train_batches(*made, config, batch_size=2, seed=0), 3):
            assert batch["valid"].any(axis=1).all()
            assert (batch["instance_ids"] > 0).any()

    def test_volumes_without_instances(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=2, count=(0, 0))
        for mosaic in ((1, 1, 1), (2, 2, 1)):
            batches = pipeline.train_batches(
                tmp_path / "out", manifest, input_config(mosaic=mosaic), batch_size=2, seed=0
            )
            batch = first(batches, 1)[0]
            assert not batch["valid"].any()
            assert not batch["boxes"].any()
            assert not batch["instance_ids"].any()

    def test_more_instances_than_slots(self, made):
        config = plain(patch_size=SHAPE, max_instances=1)
        for batch in first(pipeline.train_batches(*made, config, batch_size=1, seed=0), 5):
            assert batch["valid"].tolist() == [[True]]
            assert set(np.unique(batch["instance_ids"])) == {0, 1}

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (2, 1, 2)])
    def test_attributes_and_landmarks_go_with_their_instances_and_unknown_ones_stay_unknown(self, measured, mosaic):
        config = input_config(
            patch_size=(12, 10, 12), mosaic=mosaic, max_instances=9, normalization="none", rotate_planes=((0, 2),)
        )
        batches = pipeline.train_batches(*measured, config, batch_size=2, seed=0)
        assert batches.element_spec["keypoints"].shape == (2, 9, 2, 3)
        assert batches.element_spec["keypoints_valid"].shape == (2, 9, 2)
        unknown = shown = 0
        keys = ("instance_ids", "volume", "attributes", "keypoints", "keypoints_valid", "valid")
        for batch in first(batches, 5):
            assert batch["attributes"].shape == (2, 9, 2)
            assert not batch["attributes"][~batch["valid"]].any()
            assert np.isfinite(batch["keypoints"]).all()
            assert not batch["keypoints"][~batch["keypoints_valid"]].any()
            assert not batch["keypoints_valid"][~batch["valid"]].any()
            for ids, volume, attributes, keypoints, known, valid in zip(*(batch[key] for key in keys), strict=True):
                places = np.where(known[..., np.newaxis], keypoints, np.nan)
                shown += assert_measured(ids, volume, attributes[valid], places[valid])
                unknown += np.isnan(attributes[valid, 1]).sum()
        assert unknown > 5
        assert shown > 5

    @pytest.mark.parametrize(("one_shard_each", "workers"), [(True, 2), (False, 3)])
    def test_workers_share_every_epoch_and_see_what_one_would(self, tmp_path, one_shard_each, workers):
        manifest = make_records(tmp_path / "out", num_train=6, one_shard_each=one_shard_each)
        config = plain(patch_size=SHAPE, foreground=0.0, normalization="none")

        def epochs(batch_size, **share):
            batches = pipeline.train_batches(
                tmp_path / "out", manifest, config, batch_size=batch_size, seed=0, start=6, **share
            )
            sums = np.concatenate([batch["volume"].sum((1, 2, 3, 4)) for batch in first(batches, 4)])
            return sums.reshape(4, batch_size).tolist()

        shares = [epochs(2, num_input_pipelines=workers, input_pipeline_id=worker) for worker in range(workers)]
        alone = epochs(2 * workers)
        for step in range(4):
            assert sorted(np.ravel([share[step] for share in shares])) == sorted(alone[step])
        steps = 6 // workers  # of one example each: an epoch
        for epoch in range(8 // steps):
            seen = [np.ravel(share)[epoch * steps : (epoch + 1) * steps].tolist() for share in shares]
            assert len(set(np.ravel(seen))) == 6

    @pytest.mark.parametrize(("mosaic", "tile_size"), [((1, 1, 1), ()), ((1, 2, 2), ()), ((1, 2, 2), SHAPE)])
    def test_a_run_that_goes_on_sees_what_it_would_have_seen(self, made, mosaic, tile_size, optimised):
        """Also: the same seed gives the same batches, with every step of augmentation and any number of readers."""
        config = input_config(mosaic=mosaic, tile_size=tile_size, patch_size=(6, 8, 6), rotate_planes=((0, 2),))
        if mosaic == (1, 1, 1):
            config.augment = augment_schema.Augment()
            config.augment.paste.probability = 1.0
        config.augment.contrast.probability = 1.0
        whole = first(pipeline.train_batches(*made, config, batch_size=2, seed=3), 7)
        config.num_readers, config.num_augmenters = 3, 2
        rest = first(pipeline.train_batches(*made, config, batch_size=2, seed=3, start=4), 5)
        assert_equal_batches(whole[2:], rest)

    @pytest.mark.parametrize("by", ["instance", "class"])
    def test_patches_are_cut_of_mosaics_of_whole_tiles(self, made, by, optimised):
        tiles = {"mosaic": (1, 2, 1), "normalization": "none", "foreground": 1.0, "foreground_by": by}
        whole = plain(patch_size=(SHAPE[0], 2 * SHAPE[1], SHAPE[2]), max_instances=10, **tiles)
        parts = plain(patch_size=PATCH, tile_size=SHAPE, max_instances=10, **tiles)
        mosaics, patches = (
            first(pipeline.train_batches(*made, config, batch_size=1, seed=2), 12) for config in (whole, parts)
        )
        corners = []
        for mosaic, patch in zip(mosaics, patches, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(mosaic["volume"][0, ..., 0], PATCH)
            shown = np.lib.stride_tricks.sliding_window_view(mosaic["instance_ids"][0] > 0, PATCH).any((3, 4, 5))
            places = np.argwhere((windows == patch["volume"][0, ..., 0]).all((3, 4, 5)) & shown)
            corners.append(places[0])
            np.testing.assert_array_equal(patch["rows"], mosaic["rows"])
        starts = np.array(corners)[:, 1]
        assert (starts < SHAPE[1] - PATCH[1]).any()  # of one tile
        assert ((starts > SHAPE[1] - PATCH[1]) & (starts < SHAPE[1])).any()  # of two

    def test_instances_of_other_cases_are_pasted(self, made):
        config = plain(patch_size=SHAPE, max_instances=20, normalization="none")
        config.augment.paste.max_covered = 1.0
        before = first(pipeline.train_batches(*made, config, batch_size=5, seed=0), 1)[0]
        config.augment.paste.probability = 1.0
        after = first(pipeline.train_batches(*made, config, batch_size=5, seed=0), 1)[0]
        assert (after["valid"].sum(axis=1) >= before["valid"].sum(axis=1)).all()
        assert after["valid"].sum() > before["valid"].sum()

    def test_a_bent_patch_is_cut_from_as_much_as_it_shows(self, made):
        """What is cut out beforehand is as good as the whole case."""
        config = plain(patch_size=PATCH, foreground=1.0)
        config.augment.affine.probability = config.augment.elastic.probability = 1.0
        config.augment.affine.rotation = ((-40, 40),) * 3
        config.augment.elastic.magnitude = (2.0, 3.0)
        cut = first(pipeline.train_batches(*made, config, batch_size=4, seed=1), 4)
        # So that a whole case is kept; it is never drawn.
        config.augment.mosaic = augment_schema.Mosaic(probability=1e-30, grid=(1, 1, 1))
        whole = first(pipeline.train_batches(*made, config, batch_size=4, seed=1), 4)
        for ours, theirs in zip(cut, whole, strict=True):
            np.testing.assert_array_equal(ours["instance_ids"], theirs["instance_ids"])
            np.testing.assert_allclose(ours["volume"], theirs["volume"], atol=1e-4)

    def test_cases_are_drawn_by_weight(self, made, tmp_path):
        weights = tmp_path / "weights.json"
        weights.write_text('{"shapes_0_00000": 0, "shapes_0_00001": 6, "shapes_0_00003": 0}')
        config = plain(patch_size=SHAPE, foreground=0.0, normalization="none", case_weights=str(weights))
        batches = first(pipeline.train_batches(*made, config, batch_size=50, seed=0), 4)
        sums = np.concatenate([batch["volume"].sum((1, 2, 3, 4)) for batch in batches])
        cases = {float(records.parse(r)["volume"].numpy().sum()): n for n, r in enumerate(self.serialized(made))}
        counts = np.bincount([min(cases.items(), key=lambda case: abs(case[0] - s))[1] for s in sums], minlength=5)
        assert counts[0] == counts[3] == 0
        # 200 draws, each with probability 6 / 8: four standard deviations.
        assert abs(counts[1] - 150) < 4 * (200 * 0.75 * 0.25) ** 0.5
        assert counts[2] > 0
        assert counts[4] > 0

    def damaged(self, tmp_path, byte=300):
        """Records of five cases in one shard, of which the third is damaged; and the byte at which its frame begins."""
        manifest = make_records(tmp_path / "out", num_train=5)
        (shard,) = manifest["shards"]["train"]
        path = tmp_path / "out" / shard["file"]
        begin = json.loads((tmp_path / "out" / f"{shard['file']}.index.json").read_text())["records"][2]["offset"] - 12
        data = bytearray(path.read_bytes())
        data[begin + byte] ^= 255
        path.write_bytes(data)
        return tmp_path / "out", manifest, begin

    @pytest.mark.parametrize("byte", [3, 300])
    def test_a_damaged_record_names_its_shard_and_offset(self, tmp_path, byte):
        folder, manifest, begin = self.damaged(tmp_path, byte)
        with pytest.raises(tf.errors.InvalidArgumentError) as raised:
            first(pipeline.train_batches(folder, manifest, input_config(), batch_size=1, seed=0), 5)
        assert pipeline.damage(raised.value) == (
            f"{folder}/train-00000-of-00001.tfrecord: expected a whole record of case shapes_0_00002 at byte {begin}, "
            "came something damaged or that cannot be read"
        )
        assert pipeline.damage(tf.errors.InvalidArgumentError(None, None, "another [error: in it]")) is None

    def test_a_record_in_another_place_is_damage_too(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=2, one_shard_each=True)
        ours, theirs = (tmp_path / "out" / shard["file"] for shard in manifest["shards"]["train"])
        theirs.write_bytes(ours.read_bytes())
        manifest["shards"]["train"][1]["bytes"] = ours.stat().st_size
        with pytest.raises(tf.errors.InvalidArgumentError, match="case shapes_0_00001 at byte 0"):
            first(pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0), 2)

    def test_damaged_records_are_skipped_and_counted_once_an_epoch(self, tmp_path):
        folder, manifest, _ = self.damaged(tmp_path)
        config = plain(patch_size=SHAPE, normalization="none", on_corrupt="skip")
        batches = first(pipeline.train_batches(folder, manifest, config, batch_size=1, seed=0), 20)
        skipped = np.concatenate([batch["skipped"] for batch in batches])
        assert [skipped[i : i + 5].sum() for i in range(0, 20, 5)] == [1, 1, 1, 1]
        assert len({float(batch["volume"].sum()) for batch in batches}) == 4
        assert skipped.dtype == np.int32

    def test_nothing_but_damage_ends_even_where_it_is_skipped(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=1)
        path = tmp_path / "out" / manifest["shards"]["train"][0]["file"]
        path.write_bytes(b"\0" * path.stat().st_size)
        config = input_config(on_corrupt="skip")
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected a whole record of case shapes_0_00000"):
            first(pipeline.train_batches(tmp_path / "out", manifest, config, batch_size=1, seed=0), 1)

    def test_a_data_service_makes_every_example_once(self, made):
        service = tf.data.experimental.service
        dispatcher = service.DispatchServer(service.DispatcherConfig(port=0, protocol="grpc"))
        workers = [
            service.WorkerServer(service.WorkerConfig(dispatcher_address=dispatcher.target.split("://")[1]))
            for _ in range(2)
        ]
        config = plain(patch_size=SHAPE, foreground=0.0, normalization="none")
        served = pipeline.train_batches(*made, config, batch_size=1, seed=0, data_service=dispatcher.target, stop=5)
        alone = first(pipeline.train_batches(*made, config, batch_size=1, seed=0, stop=5), 6)
        sums = [sorted(float(batch["volume"].sum()) for batch in batches) for batches in (first(served, 6), alone)]
        assert len(sums[0]) == 5
        assert sums[0] == sums[1]
        assert all(worker._server.num_tasks() > 0 for worker in workers)

    def test_damaged_folders_are_refused_at_once(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=2, one_shard_each=True)
        path = tmp_path / "out" / "train-00001-of-00002.tfrecord"
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(InputError, match=r"train-00001-of-00002.tfrecord: expected a shard of \d+ bytes, came"):
            pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0)
        path.unlink()
        with pytest.raises(InputError, match="no such file"):
            pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0)
        path.write_bytes(whole)
        index = tmp_path / "out" / f"{path.name}.index.json"
        index.write_text('{"records": []}')
        with pytest.raises(InputError, match=r"tfrecord.index.json: expected 1 records, came 0"):
            pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0)
        index.unlink()
        with pytest.raises(InputError, match=r"tfrecord.index.json: expected an index of records, cannot be read"):
            pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0)

    def test_a_split_without_cases(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=0, num_val=1)
        with pytest.raises(InputError, match="expected cases in the split 'train', came none"):
            pipeline.train_batches(tmp_path / "out", manifest, input_config(), batch_size=1, seed=0)


class VolumesTest:
    def test_whole_volumes_in_order(self, made, cases):
        folder, manifest = made
        assert [volume["name"] for volume in cases] == [f"shapes_0_{i:05d}" for i in (5, 6, 7)]
        serialized = tf.data.TFRecordDataset(records.shard_paths(folder, manifest, "val"))
        for volume, record in zip(cases, serialized, strict=True):
            source = {key: value.numpy() for key, value in records.parse(record).items()}
            expected = (source["volume"] - source["volume"].mean()) / source["volume"].std()
            np.testing.assert_allclose(volume["volume"], expected, atol=1e-4)
            for key in ("instance_ids", "class_ids", "attributes", "keypoints", "spacing", "affine"):
                np.testing.assert_array_equal(volume[key], source[key])
            for i, box in enumerate(volume["boxes"]):
                places = np.argwhere(source["instance_ids"] == i + 1)
                np.testing.assert_array_equal(box, [*places.min(0), *(places.max(0) + 1)])
            assert volume["boxes"].shape == (len(source["class_ids"]), 6)

    def test_mosaics_lose_no_case_and_are_the_same_every_time(self, made, cases):
        folder, manifest = made
        size = SHAPE
        config = input_config(patch_size=(size[0], 2 * size[1], size[2]), mosaic=(1, 2, 1))
        found = list(volumes.of_split(folder, manifest, "val", config))
        assert [volume["name"] for volume in found] == ["mosaic_00000", "mosaic_00001"]
        num_instances = [len(case["class_ids"]) for case in cases]
        assert [len(v["class_ids"]) for v in found] == [num_instances[0] + num_instances[1], num_instances[2]]
        for n, case in enumerate(cases):
            tile = found[n // 2]["volume"][:, n % 2 * size[1] : (n % 2 + 1) * size[1]]
            flips = itertools.product((1, -1), repeat=3)
            assert sum(np.array_equal(tile[::a, ::b, ::c], case["volume"]) for a, b, c in flips) == 1
        assert not found[1]["volume"][:, size[1] :].any()
        for volume in found:
            number = len(volume["class_ids"])
            assert set(np.unique(volume["instance_ids"])) - {0} == set(range(1, number + 1))
            boxes = masks.instance_boxes(tf.constant(volume["instance_ids"]), number)[0]
            np.testing.assert_array_equal(volume["boxes"], boxes)
            assert volume["affine"].shape == (4, 4)
            np.testing.assert_array_equal(volume["spacing"], [1, 1, 1])
        for ours, theirs in zip(found, volumes.of_split(folder, manifest, "val", config), strict=True):
            assert_equal_batches([ours], [theirs])

    def test_mosaics_of_tiles_are_larger_than_patches(self, made):
        config = input_config(patch_size=PATCH, mosaic=(1, 2, 1), tile_size=SHAPE)
        whole = input_config(patch_size=(SHAPE[0], 2 * SHAPE[1], SHAPE[2]), mosaic=(1, 2, 1))
        found, expected = (list(volumes.of_split(*made, "val", settings)) for settings in (config, whole))
        assert_equal_batches(found, expected)

    def test_mosaic_classes_go_with_their_instances(self, made, cases):
        folder, manifest = made
        config = input_config(patch_size=(SHAPE[0], 3 * SHAPE[1], SHAPE[2]), mosaic=(1, 3, 1))
        (found,) = volumes.of_split(folder, manifest, "val", config)
        kinds = set()
        for case in cases:
            sizes = np.bincount(case["instance_ids"].ravel())[1:]
            kinds |= set(zip(case["class_ids"].tolist(), sizes.tolist(), strict=True))
        sizes = np.bincount(found["instance_ids"].ravel())[1:]
        assert set(zip(found["class_ids"].tolist(), sizes.tolist(), strict=True)) == kinds

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (1, 2, 1)])
    def test_attributes_and_landmarks_go_with_their_instances_and_unknown_ones_stay_unknown(self, measured, mosaic):
        patch_size = tuple(m * size for m, size in zip(mosaic, SHAPE, strict=True))
        config = input_config(patch_size=patch_size, mosaic=mosaic, normalization="none")
        found = list(volumes.of_split(*measured, "val", config))
        for volume in found:
            measured = (volume[key] for key in ("instance_ids", "volume", "attributes", "keypoints"))
            assert assert_measured(*measured) == len(volume["class_ids"]) > 0
        lights = np.concatenate([volume["attributes"][:, 0] for volume in found])
        assert sorted(lights.tolist()) == [7, 8, 9, 10, 11, 12]

    def test_records_that_know_no_landmarks_give_none(self, made):
        folder, manifest = made
        older = {name: value for name, value in manifest.items() if name != "keypoints"}
        ours = first(pipeline.train_batches(folder, older, input_config(), batch_size=2, seed=0), 1)
        assert_equal_batches(ours, first(pipeline.train_batches(*made, input_config(), batch_size=2, seed=0), 1))
        assert next(volumes.of_split(folder, older, "val", input_config()))["keypoints"].shape[1:] == (0, 3)

    @pytest.mark.parametrize("mosaic", [(1, 1, 1), (1, 2, 1)])
    def test_no_instances(self, tmp_path, mosaic):
        manifest = make_records(tmp_path / "out", num_train=1, count=(0, 0))
        (found,) = volumes.of_split(tmp_path / "out", manifest, "train", input_config(mosaic=mosaic))
        assert found["boxes"].shape == (0, 6)
        assert found["class_ids"].shape == (0,)
        assert not found["instance_ids"].any()

    def test_wrong_splits_are_refused_before_iterating(self, made):
        with pytest.raises(InputError, match="expected a split out of train, val, test, came 'dev'"):
            volumes.of_split(*made, "dev", input_config())
        with pytest.raises(InputError, match="'test', came none"):
            volumes.of_split(*made, "test", input_config())

    def test_a_damaged_record_names_its_shard(self, tmp_path):
        manifest = make_records(tmp_path / "out", num_train=3, one_shard_each=True)
        path = tmp_path / "out" / "train-00001-of-00003.tfrecord"
        data = bytearray(path.read_bytes())
        data[100] ^= 255
        path.write_bytes(data)
        found = volumes.of_split(tmp_path / "out", manifest, "train", input_config())
        assert next(found)["name"] == "shapes_0_00000"
        with pytest.raises(InputError, match=r"train-00001-of-00003.tfrecord: expected records of convert_main.py"):
            next(found)

    def test_another_number_of_channels_is_refused(self, made):
        config = dataclasses.replace(input_config(), channels=2)
        with pytest.raises(InputError, match=r"expected records of convert_main.py"):
            next(volumes.of_split(*made, "val", config))
