import json

import numpy as np
import pytest
import tensorflow as tf

from configs import train_schema
from ops.keypoints import KEYPOINTS
from tests import tiny
from tests.training.weights_test import assert_complete, load, make, save, values

# Variables about classes, and how many entries each class has in them; logits of boxes begin with background.
BOX_LOGITS = ("box_heads/0/logits/kernel", "box_heads/0/logits/bias")
DELTAS = ("box_heads/0/deltas/kernel", "box_heads/0/deltas/bias")
MASK_LOGITS = ("mask_head/logits/kernel", "mask_head/logits/bias")
KEYPOINT_LOGITS = ("keypoint_head/logits/kernel", "keypoint_head/logits/bias")
OF_CLASSES = (*BOX_LOGITS, *DELTAS, *MASK_LOGITS)


def settings_of(*classes, agnostic=False, attributes=(), keypoints=None):
    """The tiny Config; keypoints None for no head for landmarks, () for those derived from masks."""
    settings = tiny.config()
    settings.data.classes, settings.data.attributes = classes, attributes
    settings.data.keypoints, settings.model.keypoint_head.enabled = keypoints or (), keypoints is not None
    settings.model.box_head.class_agnostic = settings.model.mask_head.class_agnostic = agnostic
    return settings.validate()


def transfer(folder, theirs, ours, **kwargs):
    """Report, the model's variables before and after, and those of the run."""
    trained, model = make(theirs, seed=0), make(ours, seed=1)
    before = values(model)
    names = {"classes": ours.data.classes, "attributes": ours.data.attributes}
    names["keypoints"] = ours.data.keypoints or KEYPOINTS
    report = load(save(folder, theirs, trained), model, **{**names, **kwargs})
    assert_complete(report, model)
    return report, before, values(model), values(trained)


def entries(name, classes):
    """(class, ...) -> where its entries are on the last axis of a variable."""
    if name in BOX_LOGITS:
        return [1 + index for index in classes]
    if name in DELTAS:
        return [6 * index + i for index in classes for i in range(6)]
    return list(classes)


class FromCheckpointTest:
    def test_classes_in_another_order(self, tmp_path):
        report, _, after, theirs = transfer(tmp_path, settings_of("plate", "rod"), settings_of("rod", "plate"))
        assert (report.partly, report.missing, report.skipped, report.notes) == ([], [], [], [])
        for name in OF_CLASSES:
            for here, there in ((0, 1), (1, 0)):
                np.testing.assert_array_equal(
                    after[name][..., entries(name, [here])], theirs[name][..., entries(name, [there])]
                )
        for name in BOX_LOGITS:
            np.testing.assert_array_equal(after[name][..., 0], theirs[name][..., 0])
        assert not np.array_equal(after[MASK_LOGITS[1]], theirs[MASK_LOGITS[1]])

    def test_the_maps_of_a_segmentation_in_another_order(self, tmp_path):
        settings = settings_of("plate", "rod"), settings_of("rod", "plate")
        for each in settings:
            each.model.segmentation.channels = 4
        _, _, after, theirs = transfer(tmp_path, *settings)
        name = "segmentation/maps/kernel"
        np.testing.assert_array_equal(after[name][..., ::-1], theirs[name])
        assert not np.array_equal(after[name], theirs[name])

    def test_more_classes(self, tmp_path):
        ours = settings_of("disc", "rod", "cone", "plate")
        report, before, after, theirs = transfer(tmp_path, settings_of("plate", "rod"), ours)
        with_background = "background, rod, plate from the file, disc, cone fresh"
        assert report.partly == [
            *((name, with_background) for name in BOX_LOGITS),
            *((name, "rod, plate from the file, disc, cone fresh") for name in (*DELTAS, *MASK_LOGITS)),
        ]
        assert report.missing == report.skipped == report.notes == []
        for name in OF_CLASSES:
            np.testing.assert_array_equal(
                after[name][..., entries(name, [1, 3])], theirs[name][..., entries(name, [1, 0])]
            )
            np.testing.assert_array_equal(
                after[name][..., entries(name, [0, 2])], before[name][..., entries(name, [0, 2])]
            )

    def test_fewer_classes(self, tmp_path):
        report, _, after, theirs = transfer(tmp_path, settings_of("plate", "rod", "disc"), settings_of("disc"))
        assert report.notes == ["classes of the file that the model does not have: plate, rod"]
        assert set(OF_CLASSES) <= set(report.loaded)
        for name in OF_CLASSES:
            np.testing.assert_array_equal(after[name][..., entries(name, [0])], theirs[name][..., entries(name, [2])])

    def test_as_many_classes_of_other_names(self, tmp_path):
        report, before, after, theirs = transfer(tmp_path, settings_of("plate", "rod"), settings_of("disc", "cone"))
        assert report.partly == [(name, "background from the file, disc, cone fresh") for name in BOX_LOGITS]
        reason = "of plate, rod in the file, of disc, cone in the model"
        assert report.skipped == [(name, reason) for name in sorted((*DELTAS, *MASK_LOGITS))]
        assert report.missing == [(name, reason) for name in (*DELTAS, *MASK_LOGITS)]
        for name in (*DELTAS, *MASK_LOGITS):
            np.testing.assert_array_equal(after[name], before[name])
        for name in BOX_LOGITS:
            np.testing.assert_array_equal(after[name][..., 0], theirs[name][..., 0])
            np.testing.assert_array_equal(after[name][..., 1:], before[name][..., 1:])

    def test_a_class_called_background(self, tmp_path):
        report, _, after, theirs = transfer(tmp_path, settings_of("rod", "background"), settings_of("background"))
        name = BOX_LOGITS[1]
        np.testing.assert_array_equal(after[name], theirs[name][[0, 2]])
        assert name in report.loaded

    @pytest.mark.parametrize("classes", [("disc",), ("disc", "cone")])
    def test_one_box_and_mask_for_all_classes(self, tmp_path, classes):
        theirs, ours = settings_of("plate", agnostic=True), settings_of(*classes, agnostic=True)
        report, _, after, theirs = transfer(tmp_path, theirs, ours)
        fresh = ", ".join(classes)
        assert report.partly == [(name, f"background from the file, {fresh} fresh") for name in BOX_LOGITS]
        assert report.skipped == report.missing == []
        for name in (*DELTAS, *MASK_LOGITS):
            np.testing.assert_array_equal(after[name], theirs[name])

    def test_one_box_for_all_becomes_one_for_each(self, tmp_path):
        report, *_ = transfer(tmp_path, settings_of("plate", "rod", agnostic=True), settings_of("plate", "rod"))
        assert ("box_heads/0/deltas/bias", "shape [6] in the file, [12] in the model") in report.skipped
        assert {name for name, _ in report.missing} == {*DELTAS, *MASK_LOGITS}

    @pytest.mark.parametrize(
        ("section", "field", "theirs", "ours", "variables"),
        [
            ("rpn", "objectness", "sigmoid", "softmax", {"rpn_head/objectness/kernel", "rpn_head/objectness/bias"}),
            (
                "box_head",
                "roi_size",
                (2, 3, 4),
                (4, 3, 2),
                {"box_heads/0/dense/layers/0/0/kernel", "attribute_head/dense/layers/0/0/kernel"},
            ),
            (
                "attribute_head",
                "scale",
                "log",
                "linear",
                {"attribute_head/values/kernel", "attribute_head/values/bias"},
            ),
            (
                "attribute_head",
                "sums",
                "linear",
                "sinh",
                {f"attribute_head/{name}/kernel" for name in ("values", "factors", "powers")},
            ),
        ],
    )
    def test_settings_that_give_the_same_shapes_another_meaning(
        self, tmp_path, section, field, theirs, ours, variables
    ):
        settings = [settings_of("plate", attributes=("energy",)) for _ in range(2)]
        for config, value in zip(settings, (theirs, ours), strict=True):
            setattr(getattr(config.model, section), field, value)
        # Two anchors of a sigmoid have as many logits as one of a softmax.
        if field == "objectness":
            settings[0].model.anchors.aspects = ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0))
        report, before, after, trained = transfer(tmp_path, *settings)
        shown = [list(value) if isinstance(value, tuple) else value for value in (theirs, ours)]
        reason = f"model.{section}.{field} {shown[0]} in the file, {shown[1]} in the model"
        broken = {(name, reason) for name in variables}
        assert broken <= set(report.skipped)
        assert broken <= set(report.missing)
        for name in variables:
            assert before[name].shape == trained[name].shape
            np.testing.assert_array_equal(after[name], before[name])

    def test_roi_that_the_outputs_read_themselves(self, tmp_path):
        settings = [settings_of("plate") for _ in range(2)]
        for config, size in zip(settings, ((2, 3, 4), (4, 3, 2)), strict=True):
            config.model.box_head.num_dense, config.model.box_head.roi_size = 0, size
        report, *_ = transfer(tmp_path, *settings)
        assert {name for name, _ in report.missing} == {"box_heads/0/logits/kernel", "box_heads/0/deltas/kernel"}

    @pytest.mark.parametrize(
        ("name", "ours", "shown"),
        [
            ("anchors.sizes", (((4.0, 4.0, 5.0),), ((5.0, 8.0, 11.0),)), "[[[4.0, 4.0, 5.0]], [[5.0, 8.0, 11.0]]]"),
            ("box_head.delta_weights", (1.0,) * 6, "[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]"),
            ("mask_head.roi_size", (4, 3, 2), "[4, 3, 2]"),
            ("rois.canonical_size", (5.0, 8.0, 8.0), "[5.0, 8.0, 8.0]"),
            ("backbone.stage_strides", ((1, 1, 1), (1, 2, 2)), "[[1, 1, 1], [1, 2, 2]]"),
        ],
    )
    def test_other_settings_are_noted(self, tmp_path, name, ours, shown):
        settings = settings_of("plate")
        section, field = name.split(".")
        setattr(getattr(settings.model, section), field, ours)
        report, *_ = transfer(tmp_path, settings_of("plate"), settings)
        (note,) = report.notes
        assert note.startswith(f"model.{name} [")
        assert note.endswith(f" in the file, {shown} in the model; what is loaded learnt the former")
        assert report.missing == report.partly == report.skipped == []

    def test_settings_that_the_file_does_not_know_count_as_equal(self, tmp_path):
        settings = settings_of("plate")
        trained, model = make(settings, seed=0), make(settings, seed=1)
        config = save(tmp_path, settings, trained) / "config.json"
        older = json.loads(config.read_text())
        del older["model"]["rpn"]["objectness"], older["model"]["rois"]
        config.write_text(json.dumps(older))
        report = load(tmp_path, model, classes=("plate",))
        assert report.notes == report.missing == report.skipped == []

    def test_every_stage_of_a_cascade(self, tmp_path):
        theirs, ours = settings_of("plate", "rod"), settings_of("rod", "disc")
        theirs.model.box_head.cascade_ious = ours.model.box_head.cascade_ious = (0.5, 0.6)
        report, before, after, theirs = transfer(tmp_path, theirs, ours)
        for stage in range(2):
            name = f"box_heads/{stage}/logits/bias"
            np.testing.assert_array_equal(after[name], [*theirs[name][[0, 2]], before[name][2]])
        assert len(report.partly) == 10

    def test_a_cascade_begins_with_the_one_head_there_was(self, tmp_path):
        theirs, ours = settings_of("plate", "rod"), settings_of("plate", "rod")
        ours.model.box_head.cascade_ious = (0.5, 0.6)
        report, _, after, theirs = transfer(tmp_path, theirs, ours)
        np.testing.assert_array_equal(after["box_heads/0/logits/bias"], theirs["box_heads/0/logits/bias"])
        assert {name[: len("box_heads/1")] for name, _ in report.missing} == {"box_heads/1"}

    def test_attributes(self, tmp_path):
        theirs = settings_of("plate", attributes=("energy", "time"))
        ours = settings_of("plate", attributes=("angle", "energy"))
        report, before, after, theirs = transfer(tmp_path, theirs, ours)
        name = "attribute_head/values/bias"
        np.testing.assert_array_equal(after[name], [before[name][0], theirs[name][0]])
        assert (name, "energy from the file, angle fresh") in report.partly
        assert report.notes == ["attributes of the file that the model does not have: time"]

    def test_landmarks(self, tmp_path):
        theirs = settings_of("plate", keypoints=("nose", "tail", "ear"))
        ours = settings_of("plate", keypoints=("fin", "tail"))
        report, before, after, theirs = transfer(tmp_path, theirs, ours)
        for name in KEYPOINT_LOGITS:
            np.testing.assert_array_equal(after[name][..., 0], before[name][..., 0])
            np.testing.assert_array_equal(after[name][..., 1], theirs[name][..., 1])
        assert report.partly == [(name, "tail from the file, fin fresh") for name in KEYPOINT_LOGITS]
        assert report.missing == []
        assert report.notes == ["keypoints of the file that the model does not have: nose, ear"]

    def test_landmarks_of_the_data_are_none_of_those_derived_from_masks(self, tmp_path):
        names = tuple("abcdefg")  # as many as there are of those
        report, before, after, _ = transfer(
            tmp_path, settings_of("plate", keypoints=()), settings_of("plate", keypoints=names)
        )
        reason = f"of {', '.join(KEYPOINTS)} in the file, of a, b, c, d, e, f, g in the model"
        assert report.missing == [(name, reason) for name in KEYPOINT_LOGITS]
        for name in KEYPOINT_LOGITS:
            np.testing.assert_array_equal(after[name], before[name])

    def test_landmarks_of_a_run_without_a_head_for_them_are_no_loss(self, tmp_path):
        theirs, ours = settings_of("plate"), settings_of("plate", keypoints=("fin",))
        theirs.data.keypoints = ("nose",)
        report, *_ = transfer(tmp_path, theirs, ours)
        assert report.notes == report.skipped == []
        assert all(name.startswith("keypoint_head/") for name, _ in report.missing)

    def test_landmarks_derived_from_masks_also_of_runs_that_knew_no_others(self, tmp_path):
        settings = settings_of("plate", keypoints=())
        trained, model = make(settings, seed=0), make(settings, seed=1)
        config = save(tmp_path, settings, trained) / "config.json"
        older = json.loads(config.read_text())
        del older["data"]["keypoints"]
        config.write_text(json.dumps(older))
        report = load(tmp_path, model, classes=("plate",), keypoints=KEYPOINTS)
        assert report.notes == report.missing == report.partly == []
        for name in KEYPOINT_LOGITS:
            np.testing.assert_array_equal(values(model)[name], values(trained)[name])

    def test_classifier(self, tmp_path):
        theirs, ours = settings_of("plate", "rod"), settings_of("rod", "disc")
        for settings in (theirs, ours):
            settings.train.stages = (train_schema.Stage(learns=("classifier",)),)
            settings.train.classifier_crop = (4, 8, 8)
        report, before, after, theirs = transfer(tmp_path, theirs, ours)
        name = "classifier/logits/bias"
        np.testing.assert_array_equal(after[name], [theirs[name][0], theirs[name][2], before[name][2]])
        assert (name, "background, rod from the file, disc fresh") in report.partly

    def test_without_a_config_order_counts_and_the_report_says_so(self, tmp_path):
        settings = settings_of("plate", "rod")
        trained, model = make(settings, seed=0), make(settings, seed=1)
        (save(tmp_path, settings, trained) / "config.json").unlink()
        report = load(tmp_path, model, classes=("rod", "plate"))
        assert report.notes == [
            "no config beside the checkpoint: its classes are taken for those of the model, in order"
        ]
        np.testing.assert_array_equal(values(model)[MASK_LOGITS[1]], values(trained)[MASK_LOGITS[1]])

    def test_classes_of_the_model_not_given(self, tmp_path):
        report, _, after, theirs = transfer(tmp_path, settings_of("plate"), settings_of("rod"), classes=None)
        assert report.notes == report.partly == []
        np.testing.assert_array_equal(after[MASK_LOGITS[1]], theirs[MASK_LOGITS[1]])

    def test_network_kept_at_the_end_of_a_stage(self, tmp_path):
        theirs, ours = settings_of("plate", "rod"), settings_of("rod", "plate")
        trained, model = make(theirs, seed=0), make(ours, seed=1)
        save(tmp_path, theirs, trained)
        prefix = tf.train.Checkpoint(model=trained).write(str(tmp_path / "stages" / "first"))
        report = load(prefix, model, classes=ours.data.classes)
        assert len(report.loaded) == len(model.variables)
        np.testing.assert_array_equal(values(model)[MASK_LOGITS[1]], values(trained)[MASK_LOGITS[1]][::-1])

    @pytest.mark.parametrize("channels", [1, 2])
    def test_other_input_channels(self, tmp_path, channels):
        ours = settings_of("plate")
        ours.input.channels = channels
        report, *_ = transfer(tmp_path, settings_of("plate"), ours)
        name = "backbone/stem/conv/kernel"
        reason = "shape [3, 3, 3, 1, 8] in the file, [3, 3, 3, 2, 8] in the model"
        assert report.skipped == report.missing == ([] if channels == 1 else [(name, reason)])
