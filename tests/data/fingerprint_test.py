import numpy as np
import pytest

from data import fingerprint, statistics
from data.errors import InputError
from tests.planning import records_folder


class ClassWeightsTest:
    def test_balance_0_leaves_all_alike(self):
        assert fingerprint.class_weights({"a": 90, "b": 10}, 0.0) == (1.0, 1.0, 1.0)

    def test_balance_1_gives_classes_equal_shares_by_hand(self):
        background, a, b, absent = fingerprint.class_weights({"a": 90, "b": 10, "absent": 0}, 1.0)
        # Two classes that weigh half of 100 objects each.
        assert (a, b) == pytest.approx((50 / 90, 50 / 10))
        assert (background, absent) == (1.0, 1.0)

    @pytest.mark.parametrize("balance", [0.3, 0.5, 1.0])
    def test_mean_over_the_objects_is_1_and_rare_classes_weigh_more(self, balance):
        counts = {"a": 7, "b": 31, "c": 2}
        weights = fingerprint.class_weights(counts, balance)[1:]
        assert sum(w * n for w, n in zip(weights, counts.values(), strict=True)) == pytest.approx(40)
        assert weights[2] > weights[0] > 1 > weights[1]
        assert weights[2] / weights[1] == pytest.approx((31 / 2) ** balance)

    def test_no_objects_at_all(self):
        assert fingerprint.class_weights({"a": 0, "b": 0}, 1.0) == (1.0, 1.0, 1.0)


class OfRecordsTest:
    def test_boxes_classes_voxels_and_intensities_by_hand(self, tmp_path):
        first = records_folder.chunk(
            "a", (4, 6, 8), [(0, 0, 0, 1, 2, 3), (2, 1, 4, 4, 5, 8)], [2, 1], spacing=(3, 1, 1)
        )
        second = records_folder.chunk("b", (5, 6, 7), [], [])
        manifest = records_folder.write(tmp_path, [first, second])
        found = fingerprint.of_records(tmp_path, manifest)
        assert found.classes == ("ellipsoid", "cuboid", "pyramid")
        assert found.boxes.tolist() == [[0, 0, 0, 1, 2, 3], [2, 1, 4, 4, 5, 8]]
        assert found.sizes.tolist() == [[1, 2, 3], [2, 4, 4]]
        assert found.class_ids.tolist() == [2, 1]
        assert found.counts() == {"ellipsoid": 1, "cuboid": 1, "pyramid": 0}
        assert found.voxels.tolist() == [6, 32]
        assert found.cases.tolist() == [0, 0]
        assert found.shapes.tolist() == [[4, 6, 8], [5, 6, 7]]
        assert found.spacings.tolist() == [[3, 1, 1], [1, 1, 1]]
        mean, most = statistics.NAMES.index("mean"), statistics.NAMES.index("max")
        assert found.intensities[0, 0, 0, mean] == pytest.approx((154 + 6 * 10 + 32 * 20) / 192)
        assert found.intensities[0, 1, 0, mean] == pytest.approx((6 * 10 + 32 * 20) / 38)
        assert found.intensities[0, :, 0, most].tolist() == [20, 20]
        assert found.intensities[1, 0, 0, mean] == 1
        assert np.isnan(found.intensities[1, 1]).all()

    def test_an_instance_in_two_chunks_is_one_with_the_box_around_both(self, tmp_path):
        whole = (6, 8, 20)
        parts = [
            records_folder.chunk("a", (6, 8, 12), [(1, 2, 3, 4, 5, 12)], [3], numbers=[7], case_shape=whole),
            records_folder.chunk(
                "a",
                (6, 8, 12),
                [(1, 2, 0, 4, 6, 7), (0, 0, 9, 1, 1, 11)],
                [3, 1],
                origin=(0, 0, 8),
                numbers=[7, 9],
                case_shape=whole,
            ),
        ]
        manifest = records_folder.write(tmp_path, parts)
        found = fingerprint.of_records(tmp_path, manifest)
        assert found.boxes.tolist() == [[1, 2, 3, 4, 6, 15], [0, 0, 17, 1, 1, 19]]
        assert found.class_ids.tolist() == [3, 1]
        assert found.voxels.tolist() == [84, 2]  # of the chunk that shows more: 3 x 4 x 7 against 3 x 3 x 9
        assert found.cases.tolist() == [0, 0]
        assert found.shapes.tolist() == [[6, 8, 20]]

    def test_no_instances_at_all(self, tmp_path):
        manifest = records_folder.write(tmp_path, [records_folder.chunk("a", (4, 5, 6), [], [])])
        found = fingerprint.of_records(tmp_path, manifest)
        assert found.boxes.shape == (0, 6)
        assert found.counts() == {"ellipsoid": 0, "cuboid": 0, "pyramid": 0}

    def test_a_split_without_cases_and_a_cut_shard_are_refused(self, tmp_path):
        manifest = records_folder.write(tmp_path, [records_folder.chunk("a", (4, 5, 6), [], [])])
        with pytest.raises(InputError, match="expected cases in the split 'val', came none"):
            fingerprint.of_records(tmp_path, manifest, "val")
        shard = tmp_path / "train.tfrecord"
        shard.write_bytes(shard.read_bytes()[:-10])
        with pytest.raises(InputError, match="expected a shard of"):
            fingerprint.of_records(tmp_path, manifest)
