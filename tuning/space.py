"""What is searched: a file as `wandb sweep` reads it."""

import math
import pathlib

import optuna
import yaml

from data.errors import InputError

EXPECTED = "values, or min and max with a distribution uniform, log_uniform_values, int_uniform or q_uniform (and q)"


def read(path):
    """The search space of a sweep file.

    Args:
      path: YAML with a section `parameters` of flags of train_main.py, and a `metric` name; see configs/sweep.yaml.

    Returns:
      space: {flag: optuna distribution}.
      metric: name of what is to become large, without the split before it.

    Raises:
      InputError: no such file, or other things in it.
    """
    try:
        found = yaml.safe_load(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: expected a YAML file of what to search, came: {reason}") from error
    parameters = found.get("parameters") if isinstance(found, dict) else None
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(f"{path}: expected a section parameters, came {parameters!r}")
    metric = found.get("metric") or {}
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str) or metric.get("goal") != "maximize":
        raise InputError(f"{path}: expected metric with a name and goal: maximize, came {metric!r}")
    space = {str(name): _distribution(f"{path}: {name}", given) for name, given in parameters.items()}
    return space, metric["name"].split("/")[-1]


def grid(space):
    """{flag: list} of a space of `values` alone; InputError for another."""
    endless = [
        name for name, kind in space.items() if not isinstance(kind, optuna.distributions.CategoricalDistribution)
    ]
    if endless:
        raise InputError(f"--sampler=grid: expected values for every parameter, came a range for {', '.join(endless)}")
    return {name: list(kind.choices) for name, kind in space.items()}


def _distribution(where, given):
    kinds = optuna.distributions
    if isinstance(given, dict) and "value" in given:
        given = {"values": [given["value"]]}
    if isinstance(given, dict) and isinstance(given.get("values"), list) and given["values"]:
        if all(isinstance(value, str | int | float | bool) for value in given["values"]):
            return kinds.CategoricalDistribution(given["values"])
    elif isinstance(given, dict) and _is_range(given):
        low, high, kind = given["min"], given["max"], given.get("distribution", "uniform")
        if kind == "uniform":
            return kinds.FloatDistribution(low, high)
        if kind == "log_uniform_values" and low > 0:
            return kinds.FloatDistribution(low, high, log=True)
        if kind == "int_uniform" and isinstance(low, int) and isinstance(high, int):
            return kinds.IntDistribution(low, high)
        if kind == "q_uniform" and isinstance(given.get("q"), int | float) and given["q"] > 0:
            return kinds.FloatDistribution(low, high, step=given["q"])
    raise InputError(f"{where}: expected {EXPECTED}, came {given!r}")


def _is_range(given):
    ends = given.get("min"), given.get("max")
    are_numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends)
    return are_numbers and ends[0] <= ends[1]
