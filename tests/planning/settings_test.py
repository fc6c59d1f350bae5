import pytest

from configs import schema
from data.errors import InputError
from planning import settings

PLANNED = [
    settings.Setting("input.patch_size", (32, 64, 96), "covers: the volume", (64, 64, 64)),
    settings.Setting("model.anchors.sizes", (((4.5, 5.0, 6.0),), ((8.0, 9.0, 9.0),)), "they fit", ((9.0,), (18.0,))),
    settings.Setting("model.box_head.class_weights", (), "none", ()),
]


class FileTest:
    def test_what_is_written_is_read(self, tmp_path):
        settings.write(tmp_path / "plan.yaml", PLANNED, {"cases": 3})
        text = (tmp_path / "plan.yaml").read_text()
        assert "  input.patch_size:\n    value: [32, 64, 96]\n    before: [64, 64, 64]\n" in text
        assert "cases: 3" in text
        assert settings.read(tmp_path / "plan.yaml") == {setting.name: setting.value for setting in PLANNED}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: [1, 2", "expected YAML, came something else"),
            ("- 1", "expected a file of plan_main.py with `settings`"),
            ("settings: {input.noise: 3}", "expected input.noise to have a `value`, came 3"),
            ("settings: {input.noise: {value: !!python/tuple [1]}}", "expected YAML"),
            ("a: &a [1]\nb: *a\nsettings: {}", "came references"),
            ("[" * 1500, "expected YAML"),
            ("#" * (2**20 + 1), "came more"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, text, words):
        (tmp_path / "plan.yaml").write_text(text)
        with pytest.raises(InputError) as error:
            settings.read(tmp_path / "plan.yaml")
        assert words in str(error.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="No such file"):
            settings.read(tmp_path / "absent.yaml")


class ApplyTest:
    def test_sets_fields_and_leaves_those_that_are_kept(self):
        config = schema.Config()
        values = {"input.patch_size": (16, 32, 32), "model.rpn.nms_iou": 0.5, "train.stages": ()}
        left = settings.apply(config, values, keep=["model.rpn.nms_iou", "train.stages[0].steps"])
        assert config.input.patch_size == (16, 32, 32)
        assert config.model.rpn.nms_iou == schema.Config().model.rpn.nms_iou
        assert left == ["model.rpn.nms_iou", "train.stages"]

    @pytest.mark.parametrize("name", ["model.rpn.nms", "modle.rpn.nms_iou", "input.patch_size.z", "__class__"])
    def test_unknown_names_are_refused(self, name):
        with pytest.raises(InputError, match=f"expected settings of this version's config, came {name}"):
            settings.apply(schema.Config(), {name: 1})

    def test_sections_are_refused(self):
        with pytest.raises(InputError, match=r"came the section model\.rpn"):
            settings.apply(schema.Config(), {"model.rpn": {"nms_iou": 0.5}})
