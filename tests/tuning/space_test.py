import pathlib

import optuna
import pytest
import yaml

from data.errors import InputError
from tuning import space

METRIC = {"name": "val/mask_ap50", "goal": "maximize"}
kinds = optuna.distributions


def write(folder, parameters, metric=METRIC):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"parameters": parameters, "metric": metric}))
    return path


class ReadTest:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"values": [0.1, 0.2]}, kinds.CategoricalDistribution([0.1, 0.2])),
            ({"value": "sgd"}, kinds.CategoricalDistribution(["sgd"])),
            ({"min": 0, "max": 1.5}, kinds.FloatDistribution(0, 1.5)),
            ({"distribution": "uniform", "min": -1, "max": 1}, kinds.FloatDistribution(-1, 1)),
            (
                {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
                kinds.FloatDistribution(1e-4, 1e-2, log=True),
            ),
            ({"distribution": "int_uniform", "min": 2, "max": 5}, kinds.IntDistribution(2, 5)),
            ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, kinds.FloatDistribution(0, 1, step=0.25)),
        ],
    )
    def test_distributions(self, tmp_path, given, expected):
        assert space.read(write(tmp_path, {"a.b": given})) == ({"a.b": expected}, "mask_ap50")

    @pytest.mark.parametrize(
        "given",
        [
            3,
            {},
            {"values": []},
            {"values": [[1]]},
            {"min": 1},
            {"min": 2, "max": 1},
            {"min": "a", "max": "b"},
            {"min": 0, "max": float("inf"), "distribution": "q_uniform", "q": 1},
            {"min": True, "max": False},
            {"distribution": "normal", "min": 0, "max": 1},
            {"distribution": "log_uniform_values", "min": 0, "max": 1},
            {"distribution": "int_uniform", "min": 0.5, "max": 1},
            {"distribution": "q_uniform", "min": 0, "max": 1},
        ],
    )
    def test_what_is_no_distribution(self, tmp_path, given):
        with pytest.raises(InputError, match=r"sweep\.yaml: a: expected values, or min and max .*, came "):
            space.read(write(tmp_path, {"a": given}))

    @pytest.mark.parametrize("text", ["[", "- a", "parameters: {}", "parameters: 3", ""])
    def test_what_is_no_space(self, tmp_path, text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=r"sweep\.yaml: expected (a YAML file of what to search|a section param)"):
            space.read(path)

    @pytest.mark.parametrize("metric", [None, "mask_ap50", {"name": "loss", "goal": "minimize"}, {"goal": "maximize"}])
    def test_what_is_no_metric(self, tmp_path, metric):
        with pytest.raises(InputError, match="expected metric with a name and goal: maximize"):
            space.read(write(tmp_path, {"a": {"values": [1]}}, metric))

    def test_lost_file(self, tmp_path):
        with pytest.raises(InputError, match=r"expected a YAML file of what to search, came: .*No such file"):
            space.read(tmp_path / "none.yaml")

    def test_the_shipped_one(self):
        found, metric = space.read(pathlib.Path(__file__).parents[2] / "configs" / "sweep.yaml")
        assert metric == "mask_ap50"
        assert found["config.model.rois.negative_iou"].choices == (0.2, 0.3, 0.4)
        assert found["config.train.learning_rate"].log


class GridTest:
    def test_values_alone(self):
        found = {"a": kinds.CategoricalDistribution([1, 2]), "b": kinds.CategoricalDistribution(["x"])}
        assert space.grid(found) == {"a": [1, 2], "b": ["x"]}

    def test_a_range(self):
        with pytest.raises(
            InputError, match=r"--sampler=grid: expected values for every parameter, came a range for b"
        ):
            space.grid({"a": kinds.CategoricalDistribution([1]), "b": kinds.IntDistribution(1, 2)})
