import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from debugging import fixed, trial
from tests import tiny
from tests.debugging import conftest


class RepeatedBatchesTest:
    def test_examples_come_again_with_other_numbers(self):
        examples = {"volume": np.arange(3.0), "number": np.array([7, 7, 7])}
        batches = list(pipeline.repeated_batches(examples, 2).take(3).as_numpy_iterator())
        assert [batch["volume"].tolist() for batch in batches] == [[0, 1], [2, 0], [1, 2]]
        assert [batch["number"].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5]]


class FixedTest:
    def test_examples_are_whole_records_as_they_are(self, made):
        settings, manifest = made
        settings.input.augment.noise.probability = 1.0
        found = fixed.examples(settings, manifest, "train", 20)
        assert len(found["volume"]) == conftest.NUM_TRAIN
        assert len(np.unique(found["rows"])) == conftest.NUM_TRAIN
        again = fixed.examples(settings, manifest, "train", 2)
        np.testing.assert_array_equal(again["volume"], found["volume"][:2])
        # Three objects at most: not mirrored, not turned, in the classes of the record.
        row = int(found["rows"][0, 0])
        case = conftest.chunk(settings, "a", row).case
        np.testing.assert_array_equal(found["instance_ids"][0] > 0, case.instance_ids > 0)
        assert settings.input.augment.noise.probability == 1.0

    def test_held_out_records_are_others(self, made):
        settings, manifest = made
        found = fixed.examples(settings, manifest, "val", 20)
        assert len(found["volume"]) == conftest.NUM_VAL
        shown = [conftest.chunk(settings, "a", 100 + i).case.instance_ids > 0 for i in range(conftest.NUM_VAL)]
        for ids, row in zip(found["instance_ids"], found["rows"], strict=True):
            np.testing.assert_array_equal(ids > 0, shown[int(row[0])])

    def test_a_split_without_records_gives_none(self, made):
        assert fixed.examples(*made, "test", 3) is None


class TrialTest:
    @pytest.mark.usefixtures("eagerly")
    def test_it_begins_anew(self):
        settings = tiny.config()
        examples = tiny.batch(settings, 0)
        made = trial.Trial(settings, tf.distribute.get_strategy(), trial.constant(1e-3))
        totals = []
        for _ in range(2):
            made.begin(examples)
            totals.append([made.train(1)["total"], made.train(3)["total"]])
        assert totals[0] == pytest.approx(totals[1], rel=1e-4)
        assert totals[0][0] != totals[0][1]
        assert int(made.optimizer.iterations) == 4

    def test_stages_and_parts_become_one(self):
        train = tiny.config(steps=7).train
        train.accumulation, train.average.name = 2, "ema"
        joint = trial.jointly(train)
        assert (joint.accumulation, joint.average.name, joint.warmup_steps) == (1, "none", 0)
        assert [stage.learns for stage in joint.as_stages()] == [("rpn", "heads")]
        assert (train.accumulation, train.warmup_steps) == (2, 2)  # as it was

    def test_a_constant_rate_is_constant(self):
        schedule = trial.constant(0.5)
        assert [float(schedule(step)) for step in (0, 1, 1000)] == [0.5, 0.5, 0.5]


class ClassifyTest:
    @pytest.mark.parametrize("ious", [(), (0.3, 0.4)])
    def test_probabilities_are_those_of_the_heads(self, ious):
        settings = tiny.config()
        settings.model.box_head.cascade_ious = ious
        model, examples = tiny.model(settings), tiny.batch(settings, 0)
        for stage, head in enumerate(model.box_heads):
            head.logits.kernel.assign(tf.zeros_like(head.logits.kernel))
            head.logits.bias.assign(tf.math.log([0.2, 0.5, 0.3] if stage == 0 else [0.4, 0.3, 0.3]))
        found = model.classify(tf.constant(examples["volume"]), tf.constant(examples["boxes"]))
        expected = [0.3, 0.4, 0.3] if ious else [0.2, 0.5, 0.3]
        np.testing.assert_allclose(found, np.tile(np.array(expected, np.float32), (2, 5, 1)), rtol=1e-5)
