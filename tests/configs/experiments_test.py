import importlib
import pathlib
import re

import pytest

from configs import command_line

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
