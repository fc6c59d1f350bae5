import math

import numpy as np
import pytest
import tensorflow as tf

from debugging import fixed, shuffled_labels
from tests import tiny
from tests.debugging import conftest


def paint(examples):
    """The examples with the class of each object written over its voxels: 1 bright, 2 dark."""
    table = np.concatenate([np.zeros_like(examples["class_ids"][:, :1]), examples["class_ids"]], axis=1)
    volume = np.stack([row[ids] for row, ids in zip(table, examples["instance_ids"], strict=True)])
    return {**examples, "volume": np.array([0.0, 2.0, -2.0], np.float32)[volume][..., np.newaxis]}


class ShufflingTest:
    def test_classes_are_permuted_over_true_objects(self):
        examples = tiny.batch(tiny.config(), 3, num_objects=(3, 2, 3, 3))
        found = shuffled_labels.with_shuffled_classes(examples, 0)
        valid = examples["valid"]
        assert not np.array_equal(found["class_ids"], examples["class_ids"])
        assert sorted(found["class_ids"][valid]) == sorted(examples["class_ids"][valid])
        assert not found["class_ids"][~valid].any()
        for name in set(examples) - {"class_ids"}:
            np.testing.assert_array_equal(found[name], examples[name])

    def test_truths_go_to_the_next_volume(self):
        examples = tiny.batch(tiny.config(), 3, num_objects=(3, 2, 1))
        found = shuffled_labels.with_exchanged_truths(examples, 0)
        np.testing.assert_array_equal(found["volume"], examples["volume"])
        for name in ("instance_ids", "boxes", "class_ids", "valid"):
            np.testing.assert_array_equal(found[name][1], examples[name][0], err_msg=name)
            np.testing.assert_array_equal(found[name][0], examples[name][2], err_msg=name)


class ChanceTest:
    def test_of_classes_is_the_largest_share(self):
        examples = {
            "class_ids": np.array([[1, 2, 2], [2, 0, 0]]),
            "valid": np.array([[True, True, True], [True, False, False]]),
        }
        # 3 of 4, and 3 sqrt(3/4 x 1/4 / 4)
        assert shuffled_labels.chance_of_classes(examples) == pytest.approx((0.75, 0.75 + 3 * math.sqrt(0.046875)))

    def test_of_masks_is_the_ap_of_other_truths(self):
        settings = tiny.config()
        examples = tiny.batch(settings, 3, num_objects=(3, 2))
        examples["class_ids"] = examples["valid"].astype(np.int32)
        assert shuffled_labels.chance_of_masks(examples, examples) == 1.0
        elsewhere = {**examples, "instance_ids": np.zeros_like(examples["instance_ids"])}
        assert shuffled_labels.chance_of_masks(elsewhere, examples) == 0.0


class JudgeTest:
    @pytest.mark.parametrize(
        ("shuffled", "right", "passed"),
        [(0.5, 0.7, [True, True]), (0.61, 0.7, [False, True]), (0.5, 0.6, [True, None])],
    )
    def test_chance_bounds_the_one_and_is_below_the_other(self, shuffled, right, passed):
        found = shuffled_labels.judge({"shuffled": shuffled, "right": right}, 0.5, 0.6, "accuracy")
        assert [verdict.passed for verdict in found] == passed
        assert found[0].expected == "at most 0.600 (chance 0.500)"


class ClassAccuracyTest:
    def test_the_share_of_right_boxes(self, monkeypatch):
        examples = tiny.batch(tiny.config(), 3, num_objects=(3, 2))
        model = tiny.model(tiny.config())
        said = tf.one_hot(tf.fill([1, 5], 2), 3)  # always class 2
        monkeypatch.setattr(model, "classify", lambda volume, boxes: said, raising=True)
        expected = np.mean(examples["class_ids"][examples["valid"]] == 2)
        assert shuffled_labels.class_accuracy(model, examples) == pytest.approx(expected)
        assert 0 < expected < 1

    def test_the_network_is_asked_about_true_boxes(self):
        examples = tiny.batch(tiny.config(), 3)
        model = tiny.model(tiny.config())
        model.box_heads[0].logits.bias.assign([9.0, 0.0, 5.0])  # background, then class 2, whatever there is
        expected = np.mean(examples["class_ids"][examples["valid"]] == 2)
        assert shuffled_labels.class_accuracy(model, examples) == pytest.approx(expected)


class CheckTest:
    def test_nothing_to_validate_by_is_not_judged(self, tmp_path):
        settings = tiny.config()
        manifest = conftest.write(tmp_path / "records", settings, num_val=0)
        (found,) = shuffled_labels.check(settings, manifest, tmp_path, tf.distribute.get_strategy())
        assert found.passed is None

    @pytest.mark.usefixtures("eagerly")
    def test_too_little_training_is_not_judged(self, made, tmp_path):
        found = shuffled_labels.check(*made, tmp_path / "out", tf.distribute.get_strategy(), steps=2)
        assert [verdict.passed for verdict in found] == [True, None]
        assert "too little is learnt" in found[1].came
        assert (tmp_path / "out" / "shuffled_labels.png").stat().st_size > 5000

    @pytest.mark.slow
    def test_with_one_class_masks_are_judged(self, tmp_path):
        settings = tiny.config()
        settings.data.classes = ("plate",)
        manifest = conftest.write(tmp_path / "records", settings.validate())
        found = shuffled_labels.check(settings, manifest, tmp_path / "out", tf.distribute.get_strategy(), steps=2)
        assert [verdict.name.split(":")[0] for verdict in found] == ["shuffled", "right"]
        assert "mask AP at IoU 0.5 of held-out patches" in found[0].name
        assert [verdict.passed for verdict in found] == [True, None]

    @pytest.mark.slow
    def test_labels_that_leak_into_the_volume_fail(self, tmp_path, monkeypatch):
        settings = tiny.config(learning_rate=2e-3, warmup_steps=0)
        manifest = conftest.write(tmp_path / "records", settings, num_train=20, num_val=20)
        examples, shuffle = fixed.examples, shuffled_labels.with_shuffled_classes
        monkeypatch.setattr(fixed, "examples", lambda *args: paint(examples(*args)))
        monkeypatch.setattr(shuffled_labels, "with_shuffled_classes", lambda *args: paint(shuffle(*args)))
        found = shuffled_labels.check(settings, manifest, tmp_path / "out", tf.distribute.get_strategy(), steps=700)
        assert [verdict.passed for verdict in found] == [False, True], found
