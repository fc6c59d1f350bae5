import importlib
import pathlib
import re

import pytest

from configs import command_line, shapes_small

FOLDER = pathlib.Path(command_line.__file__).parent
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.py") if "def get_config" in path.read_text())


class ExperimentsTest:
    def test_default_is_one_of_them(self):
        assert pathlib.Path(command_line.DEFAULT_CONFIG).stem in EXPERIMENTS

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_is_valid_and_named_after_its_file(self, name):
        module = importlib.import_module(f"configs.{name}")
        config = module.get_config().validate()
        assert config.name == name
        assert config.data.records == f"runs/{name}/records"
        assert module.get_config() is not config

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_opens_with_command_hardware_time_and_result(self, name):
        text = importlib.import_module(f"configs.{name}").__doc__
        for heading in ("Command:", "Hardware:", "Time:", "Result:"):
            stated = re.search(rf"^{heading} +(\S.{{9,}})$", text, re.MULTILINE)
            assert stated, f"{heading} says nothing"
            assert "TBD" not in stated[1]


class ShapesSmallTest:
    def test_alternating_takes_as_many_steps(self):
        joint, found = shapes_small.get_config(), shapes_small.get_config("alternating").validate()
        assert [stage.name for stage in found.train.stages] == ["rpn", "heads", "rpn_again", "heads_again"]
        assert sum(stage.steps for stage in found.train.stages) == joint.train.steps
        assert {stage.learning_rate for stage in found.train.stages} == {joint.train.learning_rate}
        assert found.train.without_effect() == []

    def test_cascade_takes_longer(self):
        joint, found = shapes_small.get_config(), shapes_small.get_config("cascade").validate()
        assert found.train.steps == 2 * joint.train.steps
        assert found.model.box_head.cascade_ious == (0.4, 0.6, 0.75)
        assert found.data == joint.data

    def test_2d_sees_one_slice_alone(self):
        model = shapes_small.get_config("2d").validate().model
        assert {model.style.kernel, *model.backbone.stage_kernels} == {(1, 3, 3)}
        assert model.backbone.stem_kernel == (1, 5, 5)

    def test_another_form_is_refused(self):
        with pytest.raises(
            ValueError, match="form of shapes_small: expected one of joint, cascade, alternating, 2d, came '4d'"
        ):
            shapes_small.get_config("4d")
