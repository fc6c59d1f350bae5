import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from configs import train_schema, training_forms
from data.errors import InputError
from model import targets
from model.mask_rcnn import MaskRCNN
from tests import tiny
from tests.model import networks
from training import restore, stages, strategy

ROOT = pathlib.Path(__file__).parents[2]
# A third level, made by a convolution that proposals alone are read from.
EXTRA = {
    "model.fpn.extra": "conv",
    "model.anchors.sizes": (((3.0, 4.0, 5.0),), ((5.0, 8.0, 10.0),), ((8.0, 12.0, 16.0),)),
}


class World:
    """A run of stages of the tiny network, what its variables were after each, and what is done at some steps."""

    def __init__(self, folder, *forms, overrides=()):
        self.config = networks.config(dict(overrides))
        self.config.train = train_schema.Train(warmup_steps=0, steps_per_loop=2, stages=forms)
        self.config.validate()
        self.folder = folder
        self.strategy = strategy.make("one_device")
        tf.keras.utils.set_random_seed(3)
        with self.strategy.scope():
            self.state = restore.make_state(self.config)
        self.model, self.optimizer = self.state.model, self.state.optimizer
        self.logs, self.seen, self.at = [], {0: self.values()}, {}

    def values(self):
        return {v.name.split("/", 1)[1]: v.numpy() for v in self.model.variables}

    def train(self):
        truths = networks.with_attributes(tiny.batch(self.config, seed=0), self.config)
        batches = iter(tf.data.Dataset.from_tensors(truths).repeat())
        stages.train(
            self.config,
            self.folder,
            self.strategy,
            self.state,
            batches,
            ends=lambda step: [],
            on_loop=self.after_loop,
        )
        return self

    def after_loop(self, step, scalars):
        self.logs.append((step, scalars))
        if step in stages.stage_ends(self.config.train):
            self.seen[step] = self.values()
        if step in self.at:
            self.at[step]()

    def moved(self, before, after):
        """Parts of the network of which a variable changed between two steps."""
        old, new = self.seen[before], self.seen[after]
        return {name.split("/")[0] for name in new if (new[name] != old[name]).any()}


class GraphTest:
    def test_each_kind_of_stage_and_the_proposals_of_an_earlier_network(self, tmp_path, monkeypatch):
        proposals = []
        real = MaskRCNN.propose
        monkeypatch.setattr(MaskRCNN, "propose", lambda self, volume: proposals.append(self) or real(self, volume))
        classifier, _ = training_forms.pretrained(classifier_steps=2, steps=2)
        world = World(tmp_path, classifier, *training_forms.alternating(steps=2)[:2]).train()
        assert world.moved(0, 2) == {"backbone", "classifier"}
        assert world.moved(2, 4) == {"backbone", "fpn", "rpn_head"}
        assert world.moved(4, 6) == {"backbone", "fpn", "box_head", "mask_head"}
        (proposer,) = set(proposals)
        assert proposer is not world.model
        kept = {v.name.split("/", 1)[1]: v.numpy() for v in proposer.variables}
        for name, value in world.seen[4].items():
            np.testing.assert_array_equal(kept[name], value, err_msg=name)

    def test_attributes_of_what_is_found_move_their_head_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(targets, "FOUND_MASK_IOU", 0.0)  # of nothing else is anything found so early
        monkeypatch.setattr(targets, "FOUND_BOX_IOU", 0.0)
        forms = train_schema.Stage("joint", 2), train_schema.Stage("attributes", 4, learns=("attributes",))
        overrides = {"data.attributes": ("volume",), "model.attribute_head.sums": "linear"}
        world = World(tmp_path, *forms, overrides=overrides).train()
        assert world.moved(2, 6) == {"attribute_head"}
        losses = [scalars["attribute"] for step, scalars in world.logs if step > 2]
        assert 0.0 < losses[-1] < losses[0]


@pytest.mark.usefixtures("eagerly")
class TrainTest:
    def test_alternating_moves_what_each_step_says(self, tmp_path, capsys):
        world = World(tmp_path, *training_forms.alternating(steps=2)).train()
        shared, heads = {"backbone", "fpn"}, {"box_head", "mask_head"}
        assert [world.moved(step, step + 2) for step in (0, 2, 4, 6)] == [
            shared | {"rpn_head"},
            shared | heads,
            {"rpn_head"},
            heads,
        ]
        losses = [
            [name for name in scalars if name in train_schema.LossWeights.__dataclass_fields__]
            for _, scalars in world.logs
        ]
        rpn, roi = ["rpn_class", "rpn_box"], ["roi_class", "roi_box", "mask", "mask_dice"]
        assert losses == [rpn, roi, rpn, roi]
        assert capsys.readouterr().out.splitlines() == [
            "stage rpn: to step 2",
            "stage heads: to step 4",
            "stage rpn_again: to step 6",
            "stage heads_again: to step 8",
        ]
        assert all(layer.trainable for layer in world.model.layers)  # as it was

    def test_classifier_trains_the_backbone_alone(self, tmp_path):
        world = World(tmp_path, *training_forms.pretrained(classifier_steps=4, steps=2)).train()
        assert world.moved(0, 4) == {"backbone", "classifier"}
        assert world.moved(4, 6) == {"backbone", "fpn", "rpn_head", "box_head", "mask_head"}
        assert [name for name in world.logs[0][1] if name == "classifier"] == ["classifier"]

    def test_unfreezing(self, tmp_path):
        forms = list(training_forms.unfreezing(steps=(2, 2, 2)))
        forms[1].trainable = ("3+",)  # the tiny backbone ends with C3
        world = World(tmp_path, *forms).train()
        behind = {"fpn", "rpn_head", "box_head", "mask_head"}
        assert world.moved(0, 2) == behind
        assert world.moved(2, 4) == world.moved(4, 6) == behind | {"backbone"}
        frozen = [name for name in world.seen[4] if (world.seen[4][name] == world.seen[2][name]).all()]
        assert {name.split("/")[1] for name in frozen} == {"stem", "c2_0"}

    def test_goes_on_in_the_middle_of_a_stage(self, tmp_path):
        forms = training_forms.alternating(steps=4)[:2]
        whole = World(tmp_path, *forms)
        checkpoint = tf.train.Checkpoint(model=whole.model, optimizer=whole.optimizer)
        whole.at[6] = lambda: checkpoint.write(str(tmp_path / "killed"))
        whole.train()
        second = World(tmp_path, *forms)
        tf.train.Checkpoint(model=second.model, optimizer=second.optimizer).restore(str(tmp_path / "killed"))
        second.train()
        assert [step for step, _ in second.logs] == [8]
        for name, value in whole.values().items():
            np.testing.assert_allclose(second.values()[name], value, atol=1e-6, err_msg=name)

    def test_killed_at_the_checkpoint_between_two_stages(self, tmp_path):
        forms = training_forms.alternating(steps=2)[:2]
        first = World(tmp_path, *forms)
        checkpoint = tf.train.Checkpoint(model=first.model, optimizer=first.optimizer)

        def killed():
            checkpoint.write(str(tmp_path / "killed"))
            raise InterruptedError

        first.at[2] = killed
        with pytest.raises(InterruptedError):
            first.train()
        second = World(tmp_path, *forms)
        tf.train.Checkpoint(model=second.model, optimizer=second.optimizer).restore(str(tmp_path / "killed"))
        second.train()
        assert [step for step, _ in second.logs] == [4]

    @pytest.mark.parametrize(
        ("learns", "trainable", "l2"),
        [(("rpn",), "roi_heads", 0.0), (("heads",), "fpn/extra", 0.1), (("classifier",), "fpn", 0.1)],
    )
    def test_stage_that_learns_nothing_is_found_before_the_first_one(self, tmp_path, learns, trainable, l2):
        forms = (train_schema.Stage("a", 2), train_schema.Stage("b", 2, learns=learns, trainable=(trainable,)))
        world = World(tmp_path, *forms, overrides={**EXTRA, "model.style.l2": l2})
        with pytest.raises(InputError) as raised:
            world.train()
        assert str(raised.value) == (
            f"train.stages b trainable: expected some of what {learns[0]} learns, came ('{trainable}',)"
        )
        assert world.logs == []

    def test_l2_is_of_kernels_that_train_and_leaves_alone_what_a_stage_does_not_learn(self, tmp_path):
        forms = (train_schema.Stage("rpn", 2, learns=("rpn",)), train_schema.Stage("norms", 2, trainable=("norm",)))
        world = World(tmp_path, *forms, overrides={"model.style.l2": 0.1}).train()
        assert world.moved(0, 2) == {"backbone", "fpn", "rpn_head"}
        assert world.logs[0][1]["l2"] > 0.0
        assert world.moved(2, 4) == {"backbone", "box_head", "mask_head"}
        assert world.logs[1][1]["l2"] == 0.0

    def test_settings_without_effect_are_warned_of(self, tmp_path, capsys):
        world = World(tmp_path, train_schema.Stage("a", 2))
        world.config.train.steps = 70
        world.train()
        expected = "warning: train.steps 70 has no effect beside train.stages, which have their own\n"
        assert capsys.readouterr().out == expected

    def test_unknown_pattern_is_found_before_the_first_stage(self, tmp_path):
        world = World(tmp_path, train_schema.Stage("a", 2), train_schema.Stage("b", 2, trainable=("haeds",)))
        with pytest.raises(InputError, match=r"^stage b: train\.stages trainable: expected part of a name .* 'haeds'"):
            world.train()
        assert world.logs == []

    def test_lost_network_of_an_earlier_stage(self, tmp_path):
        world = World(tmp_path, *training_forms.alternating(steps=2)[:2])
        world.optimizer.iterations.assign(2)
        with pytest.raises(InputError, match=r"stages/rpn: expected the network of stage rpn, came none"):
            world.train()


@pytest.mark.slow
class TwoDevicesTest:
    @pytest.fixture(name="result", scope="class")
    def fixture_result(self, tmp_path_factory):
        command = [sys.executable, "-m", "tests.training.stages_two_devices", str(tmp_path_factory.mktemp("runs"))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    def test_synchronised_normalisation_sees_the_whole_batch(self, result):
        found = result["synchronised"]
        for name, value in found["one"].items():
            np.testing.assert_allclose(found["two"][name], value, rtol=1e-3, err_msg=name)
        ((two,), (one,)) = found["means"]
        assert one > 0.0
        np.testing.assert_allclose(two, one, rtol=1e-4)
        assert found["apart"] == 0.0

    def test_heads_on_the_proposals_of_an_earlier_stage_in_half_precision(self, result):
        found = result["proposed"]
        assert len(found["totals"]) == 2
        assert np.isfinite(found["totals"]).all()
        assert found["moved"] == ["backbone", "box_head", "fpn", "mask_head", "rpn_head"]
        assert found["apart"] == 0.0


@pytest.mark.usefixtures("eagerly")
class EndingTest:
    def test_what_is_called_after_a_loop_ends_all_stages(self, tmp_path):
        world = World(tmp_path, *(train_schema.Stage(name, 4, learns=("rpn",)) for name in "abc"))
        stages.train(
            world.config,
            world.folder,
            world.strategy,
            world.state,
            iter(tf.data.Dataset.from_tensors(tiny.batch(world.config, seed=0)).repeat()),
            ends=lambda step: [step + 3 - step % 3],
            on_loop=lambda step, scalars: world.logs.append(step) or step == 6,
        )
        assert world.logs == [2, 3, 4, 6]


class LastStepTest:
    def test_stages_add_up(self):
        assert stages.last_step(train_schema.Train(steps=70)) == 70
        assert stages.last_step(train_schema.Train(stages=training_forms.alternating(steps=30))) == 120
