import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ops import boxes as box_ops
from ops.nms3d import TILE, batched_nms3d, nms3d, overlapping_pairs
from tests import reference

SHAPE = (5, 7, 11)
PERMUTATIONS = [axes for axes in itertools.permutations(range(3)) if axes != (0, 1, 2)]
BOXES = np.array(
    [
        [0, 0, 0, 1, 1, 1],
        [0, 0.1, 0, 1, 1.1, 1],
        [0, -0.1, 0, 1, 0.9, 1],
        [0, 10, 0, 1, 11, 1],
        [0, 10.1, 0, 1, 11.1, 1],
        [0, 100, 0, 1, 101, 1],
    ],
    np.float32,
)
SCORES = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], np.float32)
SIGNATURE = [tf.TensorSpec([None, 6], tf.float32), tf.TensorSpec([None], tf.float32)]
# Run by itself: a fresh process has the two devices and its own high-water mark of memory.
TWO_DEVICES_AND_MANY_BOXES = """
import json, pathlib, numpy as np, tensorflow as tf
from ops.nms3d import nms3d

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
nms = tf.function(
    lambda boxes, scores: nms3d(boxes, scores, iou_threshold=0.5, max_outputs=1000),
    input_signature=[tf.TensorSpec([None, 6], tf.float32), tf.TensorSpec([None], tf.float32)],
)

def boxes(num):
    rng = np.random.default_rng(0)
    centre = rng.uniform(0, 256, (200, 3))[rng.integers(0, 200, num)] + rng.normal(0, 2, (num, 3))
    size = rng.uniform(8, 32, (num, 3))
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return tf.constant(corners, tf.float32), tf.constant(rng.random(num), tf.float32)

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
index = strategy.experimental_local_results(strategy.run(nms, boxes(2000)))
per_replica = [i.numpy().tolist() for i, _ in index]
alone = nms(*boxes(2000))[0].numpy().tolist()

def peak():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

many = boxes(100_000)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use
before = peak()
num_kept = int(tf.math.count_nonzero(nms(*many)[1]))
print(json.dumps({"per_replica": per_replica, "alone": alone, "num_kept": num_kept, "extra": peak() - before}))
"""


def kept(boxes, scores, *, max_outputs, **settings):
    """Runs the op, checks the form of its outputs and returns the kept indices as a list."""
    indices, valid = nms3d(
        np.reshape(boxes, (-1, 6)).astype(np.float32),
        np.asarray(scores, np.float32),
        max_outputs=max_outputs,
        **settings,
    )
    assert (indices.dtype, valid.dtype) == (tf.int32, tf.bool)
    assert indices.shape == valid.shape == (max_outputs,)
    count = int(np.sum(valid))
    np.testing.assert_array_equal(valid, np.arange(max_outputs) < count)
    np.testing.assert_array_equal(indices[count:], np.zeros(max_outputs - count))
    return indices[:count].numpy().tolist()


def clustered_boxes(rng, num, clusters):
    """Boxes [num, 6] jittered around few places, half of them at negative coordinates."""
    centre = rng.uniform(-60, 60, (clusters, 3))[rng.integers(0, clusters, num)]
    centre += rng.normal(0, 1.5, (num, 3))
    size = rng.uniform(3, 12, (num, 3))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1).astype(np.float32)


def chain(num):
    """Boxes of which each overlaps only its neighbours by IoU 1/3, best first along x."""
    lo = np.zeros((num, 3))
    lo[:, 2] = np.arange(num) * 2
    return np.concatenate([lo, lo + [1, 1, 4]], axis=-1), np.linspace(1, 0, num)


def pairs_of(matrix):
    return np.argwhere(matrix).tolist()


class OverlappingPairsTest:
    @pytest.mark.parametrize(("threshold", "expected"), [(0.0, [1, 2]), (0.1, [2]), (0.3, [2]), (1 / 3, []), (1.0, [])])
    def test_hand_values(self, threshold, expected):
        boxes = np.array([[0, 0, 0, 2, 2, 2]], np.float32)
        # Touching; sharing 1 of 15 voxels; sharing 4 of 12.
        others = np.array([[0, 0, 2, 2, 2, 4], [1, 1, 1, 3, 3, 3], [0, 0, 1, 2, 2, 3]], np.float32)
        assert overlapping_pairs(boxes, others, threshold).numpy().tolist() == [[0, j] for j in expected]

    @pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.7, 0.99, 1.0])
    @pytest.mark.parametrize(("centre", "scale"), [(0, 1), (-300, 1), (1e6, 1), (0, 1e6), (5, 1e-3)])
    def test_equals_the_whole_matrix(self, threshold, centre, scale):
        # Near copies of one box, which lie on either side of every threshold, and boxes long on one axis.
        rng = np.random.default_rng(1)
        size = rng.uniform(1, 2, (60, 3)) ** rng.choice([0.02, 1, 5], (60, 1))
        lo = rng.normal(0, 1, (60, 3)) * rng.choice([0.001, 0.1, 1], (60, 1))
        boxes = (np.concatenate([lo, lo + size], axis=1) * scale + centre).astype(np.float32)
        boxes[50:] = boxes[:10]
        expected = pairs_of(box_ops.iou_matrix(boxes, boxes[20:]).numpy() > np.float32(threshold))
        assert overlapping_pairs(boxes, boxes[20:], threshold).numpy().tolist() == expected
        assert (len(expected) > 0) == (threshold < 1)

    def test_equals_reference(self):
        rng = np.random.default_rng(2)
        boxes = reference.random_boxes(rng, 40, SHAPE, smallest=2)
        others = reference.random_boxes(rng, 30, SHAPE, smallest=2)
        expected = pairs_of(reference.iou_matrix(boxes, others) > 0.3)
        assert len(expected) > 50
        assert overlapping_pairs(boxes, others, 0.3).numpy().tolist() == expected

    def test_empty_inverted_and_infinite_boxes_are_in_no_pair(self):
        inf, nan = np.inf, np.nan
        boxes = [[0, 0, 0, 0, 0, 0], [3, 3, 3, 1, 1, 1], [-inf, -inf, -inf, inf, inf, inf], [nan, 0, 0, 1, 1, 1]]
        boxes = np.array([*boxes, [0, 0, 0, 4, 4, 4]], np.float32)
        assert overlapping_pairs(boxes, boxes, 0.0).numpy().tolist() == [[4, 4]]

    @pytest.mark.parametrize(("num", "others"), [(0, 3), (3, 0), (0, 0)])
    def test_nothing_pairs_with_nothing(self, num, others):
        assert overlapping_pairs(np.ones((num, 6)), np.ones((others, 6)), 0.5).shape == (0, 2)

    def test_errors_name_both_sides(self):
        with pytest.raises(
            ValueError, match=r"expected boxes \[I, 6\], others \[J, 6\]; came boxes \[2, 6\], others \[5\]"
        ):
            overlapping_pairs(np.ones((2, 6)), np.ones(5), 0.5)
        with pytest.raises(ValueError, match=r"expected iou_threshold in \[0, 1\], came -0.1"):
            overlapping_pairs(np.ones((2, 6)), np.ones((2, 6)), -0.1)


class Nms3dTest:
    @pytest.mark.parametrize(("max_outputs", "expected"), [(3, [3, 0, 5]), (2, [3, 0]), (1, [3]), (30, [3, 0, 5])])
    def test_hand_values(self, max_outputs, expected):
        assert kept(BOXES, SCORES, iou_threshold=0.5, max_outputs=max_outputs) == expected

    def test_ten_identical_boxes_leave_the_first(self):
        result = kept([BOXES[0]] * 10, [0.9] * 10, iou_threshold=0.5, max_outputs=5)
        assert result == [0]

    @pytest.mark.parametrize("max_outputs", [1, 7])
    def test_no_boxes(self, max_outputs):
        assert kept([], [], iou_threshold=0.5, max_outputs=max_outputs) == []

    @pytest.mark.parametrize("max_outputs", [1, 7])
    def test_one_box(self, max_outputs):
        assert kept(BOXES[:1], [0.1], iou_threshold=0.5, max_outputs=max_outputs) == [0]

    @pytest.mark.parametrize(("threshold", "expected"), [(0.5, [0, 1]), (0.499, [0]), (0.25, [0]), (0.75, [0, 1])])
    def test_pair_exactly_at_the_threshold_is_kept(self, threshold, expected):
        boxes = [[0, 0, 0, 2, 1, 1], [0, 0, 0, 1, 1, 1]]
        assert kept(boxes, [0.9, 0.8], iou_threshold=threshold, max_outputs=4) == expected

    def test_threshold_zero_lets_boxes_touch(self):
        boxes = [[0, 0, 0, 2, 2, 2], [2, 0, 0, 4, 2, 2], [3.75, 0, 0, 5, 2, 2]]
        assert kept(boxes, [0.9, 0.8, 0.7], iou_threshold=0.0, max_outputs=4) == [0, 1]

    def test_threshold_one_suppresses_nothing(self):
        boxes = [[1, 2, 3, 4, 6, 8]] * 3
        assert kept(boxes, [0.1, 0.3, 0.2], iou_threshold=1.0, max_outputs=4) == [1, 2, 0]

    def test_suppressed_box_suppresses_nothing(self):
        boxes, scores = chain(3)
        assert kept(boxes, scores, iou_threshold=0.3, max_outputs=4) == [0, 2]

    @pytest.mark.parametrize("num", [100, 255, 256, 257, 700])
    def test_long_chain_of_rivals_keeps_every_other(self, num):
        boxes, scores = chain(num)
        result = kept(boxes, scores, iou_threshold=0.3, max_outputs=num)
        assert result == list(range(0, num, 2))

    def test_equal_scores_go_by_lower_index(self):
        boxes = clustered_boxes(np.random.default_rng(0), 300, 10)
        scores = np.full(300, 0.5, np.float32)
        result = kept(boxes, scores, iou_threshold=0.2, max_outputs=300)
        assert result == reference.nms3d(boxes, scores, iou_threshold=0.2, max_outputs=300)
        assert result == sorted(result)

    def test_few_distinct_scores_equal_reference(self):
        rng = np.random.default_rng(1)
        boxes = clustered_boxes(rng, 400, 15)
        scores = (rng.integers(0, 4, 400) / 4).astype(np.float32)
        settings = {"iou_threshold": 0.25, "max_outputs": 400}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    @pytest.mark.parametrize("num", [2, 40, 256, 257, 600])
    @pytest.mark.parametrize("threshold", [0.1, 0.5])
    def test_random_boxes_equal_reference(self, num, threshold):
        rng = np.random.default_rng(num)
        boxes = reference.random_boxes(rng, num, (20, 30, 40), smallest=5)
        scores = rng.random(num).astype(np.float32)
        settings = {"iou_threshold": threshold, "max_outputs": 100}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    @pytest.mark.parametrize("max_outputs", [10, 256, 300, 2000])
    def test_many_clustered_boxes_equal_reference(self, max_outputs):
        rng = np.random.default_rng(2)
        boxes, scores = clustered_boxes(rng, 1300, 60), rng.random(1300).astype(np.float32)
        settings = {"iou_threshold": 0.3, "max_outputs": max_outputs}
        assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    def test_nothing_suppressed_over_several_tiles(self):
        rng = np.random.default_rng(3)
        lo = np.stack(np.unravel_index(np.arange(1100), (10, 11, 10)), axis=-1) * 2.0
        scores = rng.permutation(1100).astype(np.float32)
        result = kept(np.concatenate([lo, lo + 2], axis=-1), scores, iou_threshold=0.0, max_outputs=1100)
        assert result == np.argsort(-scores).tolist()

    def test_nan_scores_are_never_kept(self):
        scores = SCORES.copy()
        scores[[3, 5]] = np.nan
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=9) == [0, 4]

    @pytest.mark.parametrize("threshold", [None, 0.1])
    def test_all_nan_keeps_nothing(self, threshold):
        scores = np.full(6, np.nan)
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=3, score_threshold=threshold) == []

    def test_infinite_and_negative_scores_are_ordinary(self):
        scores = [-np.inf, np.nan, np.nan, np.inf, -2, -1]
        assert kept(BOXES, scores, iou_threshold=0.5, max_outputs=9) == [3, 5, 0]

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [(0.25, [3, 0, 5]), (0.3, [3, 0, 5]), (0.31, [3, 0]), (0.92, [3]), (0.99, [])],
    )
    def test_scores_below_the_threshold_are_never_kept(self, threshold, expected):
        result = kept(BOXES, SCORES, iou_threshold=0.5, max_outputs=9, score_threshold=threshold)
        assert result == expected

    def test_box_with_nan_score_suppresses_nothing(self):
        scores = [np.nan, 0.2, np.nan]
        assert kept([BOXES[0]] * 3, scores, iou_threshold=0.5, max_outputs=3) == [1]

    def test_empty_boxes_overlap_nothing(self):
        boxes = np.zeros((3, 6))
        assert kept(boxes, [0.1, 0.3, 0.2], iou_threshold=0.5, max_outputs=4) == [1, 2, 0]

    def test_other_classes_do_not_suppress(self):
        boxes = [BOXES[0]] * 4
        class_ids = np.array([1, 2, 1, 3], np.int32)
        result = kept(boxes, [0.6, 0.7, 0.8, 0.9], iou_threshold=0.5, max_outputs=9, class_ids=class_ids)
        assert result == [3, 2, 1]

    @pytest.mark.parametrize("offset", [-500.0, 0.0, 500.0])
    def test_classes_equal_reference_wherever_the_boxes_lie(self, offset):
        # Shifting boxes by a multiple of the class id goes wrong on negative coordinates.
        rng = np.random.default_rng(4)
        boxes = clustered_boxes(rng, 350, 12) + np.float32(offset)
        scores = rng.random(350).astype(np.float32)
        class_ids = rng.integers(1, 4, 350).astype(np.int32)
        settings = {"iou_threshold": 0.3, "max_outputs": 200, "score_threshold": 0.2}
        result = kept(boxes, scores, class_ids=class_ids, **settings)
        assert result == reference.nms3d(boxes, scores, class_ids=class_ids, **settings)

    @pytest.mark.parametrize("axes", PERMUTATIONS)
    def test_permuted_axes_change_nothing(self, axes):
        rng = np.random.default_rng(5)
        boxes = reference.random_boxes(rng, 60, SHAPE, smallest=2)
        scores = rng.random(60)
        settings = {"iou_threshold": 0.3, "max_outputs": 60}
        permuted = kept(reference.permute_boxes(boxes, axes), scores, **settings)
        assert permuted == kept(boxes, scores, **settings)

    def test_shuffled_boxes_keep_the_same_boxes(self):
        rng = np.random.default_rng(6)
        boxes, scores = clustered_boxes(rng, 300, 8), rng.permutation(300) / 300
        order = rng.permutation(300)
        settings = {"iou_threshold": 0.4, "max_outputs": 300}
        shuffled = kept(boxes[order], scores[order], **settings)
        assert order[shuffled].tolist() == kept(boxes, scores, **settings)

    def test_fewer_outputs_are_the_first_of_more(self):
        rng = np.random.default_rng(7)
        boxes, scores = clustered_boxes(rng, 700, 80), rng.random(700)
        many = kept(boxes, scores, iou_threshold=0.3, max_outputs=700)
        few = kept(boxes, scores, iou_threshold=0.3, max_outputs=50)
        assert few == many[:50]

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        rows=st.lists(
            st.tuples(
                st.tuples(*[st.integers(-6, 6)] * 3),
                st.tuples(*[st.integers(0, 6)] * 3),
                st.sampled_from([0.0, 0.25, 0.5, 0.75, float("nan")]),
                st.integers(1, 2),
            ),
            max_size=12,
        ),
        threshold=st.sampled_from([0.0, 0.25, 0.5]),
        score_threshold=st.sampled_from([None, 0.25, 0.6]),
    )
    def test_generated_boxes_equal_reference(self, rows, threshold, score_threshold):
        # Whole corners and dyadic thresholds: IoU meets the threshold exactly, without rounding.
        boxes = np.array([[*lo, *np.add(lo, size)] for lo, size, _, _ in rows], np.float32)
        boxes = boxes.reshape(-1, 6)
        scores = np.array([row[2] for row in rows], np.float32)
        class_ids = np.array([row[3] for row in rows], np.int32)
        for classes in (None, class_ids):
            settings = {
                "iou_threshold": threshold,
                "max_outputs": 8,
                "score_threshold": score_threshold,
                "class_ids": classes,
            }
            assert kept(boxes, scores, **settings) == reference.nms3d(boxes, scores, **settings)

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        rows=st.lists(
            st.tuples(
                st.tuples(*[st.sampled_from([-(10**6), -3, 0, 1, 2, 10**6])] * 3),
                st.tuples(*[st.sampled_from([-2, 0, 1, 2, 3, 5, 10])] * 3),
                st.sampled_from([0.0, 0.5, 0.9, -1.0, float("nan")]),
            ),
            max_size=40,
        ),
        threshold=st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9, 1.0]),
    )
    def test_generated_boxes_and_decimal_thresholds_equal_reference(self, rows, threshold):
        # Whole sizes: 3 / 10 is not larger than 0.3 in float32 nor in float64. Far-off and inverted boxes among them.
        boxes = np.array([[*lo, *np.add(lo, size)] for lo, size, _ in rows], np.float32).reshape(-1, 6)
        scores = np.array([score for _, _, score in rows], np.float32)
        indices, valid = self.any_threshold(boxes, scores, threshold)
        expected = reference.nms3d(boxes, scores, iou_threshold=threshold, max_outputs=8)
        assert indices.numpy()[valid.numpy()].tolist() == expected

    any_threshold = staticmethod(
        tf.function(
            lambda boxes, scores, threshold: nms3d(boxes, scores, iou_threshold=threshold, max_outputs=8),
            input_signature=[*SIGNATURE, tf.TensorSpec([], tf.float32)],
        )
    )

    @pytest.mark.parametrize("num", [TILE - 1, TILE, TILE + 1, 3 * TILE])
    def test_identical_boxes_leave_one_at_any_count(self, num):
        scores = np.random.default_rng(11).permutation(num).astype(np.float32)
        result = kept([BOXES[0]] * num, scores, iou_threshold=0.9, max_outputs=3)
        assert result == [np.argmax(scores)]

    @pytest.mark.parametrize("num_equal", [0, 1, 2 * TILE, 7 * TILE + 3])
    def test_many_alike_before_many_apart_are_all_looked_at(self, num_equal):
        # The equal ones make the search reach further, into more boxes than fit one tile; NaN and class 2 lie between.
        num_apart = 3 * TILE + 5
        lo = np.zeros((num_equal + num_apart, 3))
        lo[num_equal:, 1] = np.arange(1, num_apart + 1) * 4
        boxes = np.concatenate([lo, lo + [1, 2, 3]], axis=1)
        boxes[num_equal::3, 5] = boxes[num_equal::3, 2]  # empty, so that they would not even suppress themselves
        scores = np.linspace(1, 0, len(boxes))
        scores[-1] = np.nan
        class_ids = np.ones(len(boxes), np.int32)
        class_ids[num_equal // 2] = 2
        expected = sorted({0, num_equal // 2, *range(num_equal, len(boxes) - 1)})
        assert kept(boxes, scores, iou_threshold=0.5, max_outputs=2000, class_ids=class_ids) == expected

    def test_unknown_count_equals_eager(self):
        rng = np.random.default_rng(8)
        compiled = tf.function(
            lambda boxes, scores: nms3d(boxes, scores, iou_threshold=0.3, max_outputs=20),
            input_signature=[
                tf.TensorSpec([None, 6], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ],
        )
        for num in (0, 1, 50, 600):
            boxes, scores = clustered_boxes(rng, num, 30), rng.random(num).astype(np.float32)
            indices, valid = compiled(boxes, scores)
            assert indices.shape == valid.shape == (20,)
            expected = kept(boxes, scores, iou_threshold=0.3, max_outputs=20)
            assert indices.numpy()[valid.numpy()].tolist() == expected

    def test_saved_model_equals_eager(self, tmp_path):
        rng = np.random.default_rng(12)
        boxes, scores = clustered_boxes(rng, 800, 30), rng.random(800).astype(np.float32)
        module = tf.Module()
        module.nms = tf.function(
            lambda boxes, scores: nms3d(boxes, scores, iou_threshold=0.3, max_outputs=50), input_signature=SIGNATURE
        )
        tf.saved_model.save(module, str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path)).nms
        for num in (0, 800):
            indices, valid = loaded(boxes[:num], scores[:num])
            expected = kept(boxes[:num], scores[:num], iou_threshold=0.3, max_outputs=50)
            assert indices.numpy()[valid.numpy()].tolist() == expected

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_two_devices_agree_and_many_boxes_take_little_memory(self):
        command = [sys.executable, "-c", TWO_DEVICES_AND_MANY_BOXES]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["per_replica"] == [found["alone"]] * 2
        assert sum(found["alone"]) > 0
        assert found["num_kept"] == 1000
        assert found["extra"] < 200, "megabytes; one row of 100,000 x 100,000 bits is 12.5 kB, the matrix 1.25 GB"

    @pytest.mark.parametrize(
        ("shapes", "settings", "message"),
        [
            ([(4, 6), (5,)], {}, r"expected boxes \[N, 6\], scores \[N\].*; came boxes \[4, 6\], scores \[5\]"),
            ([(4, 7), (4,)], {}, r"came boxes \[4, 7\], scores \[4\]"),
            ([(1, 4, 6), (4,)], {}, r"came boxes \[1, 4, 6\], scores \[4\]"),
            ([(4, 6), (4, 1)], {}, r"came boxes \[4, 6\], scores \[4, 1\]"),
            ([(4, 6), (4,)], {"class_ids": np.ones(3, np.int32)}, r"scores \[4\], class_ids \[3\]"),
            ([(4, 6), (4,)], {"iou_threshold": 1.5}, r"expected iou_threshold in \[0, 1\], came 1.5"),
            ([(4, 6), (4,)], {"iou_threshold": -0.5}, r"expected iou_threshold in \[0, 1\], came -0.5"),
            ([(4, 6), (4,)], {"max_outputs": 0}, "expected max_outputs above 0, came 0"),
        ],
    )
    def test_errors_name_both_sides(self, shapes, settings, message):
        boxes, scores = (np.ones(shape, np.float32) for shape in shapes)
        with pytest.raises(ValueError, match=message):
            nms3d(boxes, scores, **{"iou_threshold": 0.5, "max_outputs": 3, **settings})

    def test_wrong_shape_raises_when_traced(self):
        compiled = tf.function(lambda boxes, scores: nms3d(boxes, scores, iou_threshold=0.5, max_outputs=3))
        with pytest.raises(ValueError, match=r"came boxes \[\?, 4\], scores \[\?\]"):
            compiled.get_concrete_function(tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.float32))


class BatchedNms3dTest:
    def test_every_row_equals_reference(self):
        rng = np.random.default_rng(9)
        boxes = np.stack([clustered_boxes(rng, 300, c) for c in (5, 20, 300, 40)])
        scores = rng.random((4, 300)).astype(np.float32)
        scores[1] = np.nan
        scores[2, ::2] = np.nan
        class_ids = rng.integers(1, 3, (4, 300)).astype(np.int32)
        settings = {"iou_threshold": 0.3, "max_outputs": 40, "score_threshold": 0.1}
        indices, valid = batched_nms3d(boxes, scores, class_ids=class_ids, **settings)
        assert indices.shape == valid.shape == (4, 40)
        assert (indices.dtype, valid.dtype) == (tf.int32, tf.bool)
        for row in range(4):
            expected = reference.nms3d(boxes[row], scores[row], class_ids=class_ids[row], **settings)
            assert indices[row].numpy()[valid[row].numpy()].tolist() == expected
            np.testing.assert_array_equal(indices[row].numpy()[~valid[row].numpy()], 0)

    def test_hand_values_without_classes(self):
        boxes, scores = np.stack([BOXES, BOXES]), np.stack([SCORES, SCORES[::-1]])
        indices, valid = batched_nms3d(boxes, scores, iou_threshold=0.5, max_outputs=4)
        np.testing.assert_array_equal(indices, [[3, 0, 5, 0], [2, 5, 4, 0]])
        np.testing.assert_array_equal(valid, [[True, True, True, False]] * 2)

    def test_no_boxes(self):
        indices, valid = batched_nms3d(tf.zeros([3, 0, 6]), tf.zeros([3, 0]), iou_threshold=0.5, max_outputs=4)
        np.testing.assert_array_equal(indices, np.zeros((3, 4)))
        np.testing.assert_array_equal(valid, np.zeros((3, 4), bool))

    def test_unknown_batch_and_count_equal_eager(self):
        rng = np.random.default_rng(10)
        settings = {"iou_threshold": 0.3, "max_outputs": 12}
        compiled = tf.function(
            lambda boxes, scores, class_ids: batched_nms3d(boxes, scores, class_ids=class_ids, **settings),
            input_signature=[
                tf.TensorSpec([None, None, 6], tf.float32),
                tf.TensorSpec([None, None], tf.float32),
                tf.TensorSpec([None, None], tf.int32),
            ],
        )
        for batch, num in [(2, 40), (1, 300), (3, 0), (2, 1)]:
            boxes = clustered_boxes(rng, batch * num, 9).reshape(batch, num, 6)
            scores = rng.random((batch, num)).astype(np.float32)
            class_ids = rng.integers(1, 3, (batch, num)).astype(np.int32)
            eager = batched_nms3d(boxes, scores, class_ids=class_ids, **settings)
            for a, b in zip(compiled(boxes, scores, class_ids), eager, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_errors_name_both_sides(self):
        with pytest.raises(ValueError, match=r"expected boxes \[B, N, 6\].*; came boxes \[4, 6\], scores \[4\]"):
            batched_nms3d(np.ones((4, 6)), np.ones(4), iou_threshold=0.5, max_outputs=3)
        with pytest.raises(ValueError, match=r"expected iou_threshold in \[0, 1\], came 2"):
            batched_nms3d(np.ones((2, 4, 6)), np.ones((2, 4)), iou_threshold=2, max_outputs=3)
        with pytest.raises(ValueError, match="expected max_outputs above 0, came -1"):
            batched_nms3d(np.ones((2, 4, 6)), np.ones((2, 4)), iou_threshold=0.5, max_outputs=-1)
