"""A plan as a file: settings with their values and reasons, readable, and read back with care."""

import dataclasses

import yaml

from data.atomic import replacing
from data.errors import InputError

_MAX_BYTES = 2**20
_HEADER = """\
# Written by plan_main.py. train_main.py --plan=FILE takes `value` of everything below `settings`; what is deleted here
# keeps the value of the config, and --config.x=y on the command line comes before both. `advice` is not taken: it
# concerns the records, and has to be followed before.
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A dotted field of the config, its planned value, why, and the value before."""

    name: str
    value: object
    reason: str
    before: object


def write(path, settings, facts):
    """Writes a plan as YAML; the file appears as a whole.

    Args:
      path: of the file, which is replaced.
      settings: list of Setting.
      facts: {heading: dict, list or scalar}, what else the reader should know; plain values.
    """
    listed = {s.name: {"value": s.value, "before": s.before, "reason": s.reason} for s in settings}
    text = yaml.dump({"settings": listed, **facts}, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    with replacing(path) as temporary:
        temporary.write_text(_HEADER + text, encoding="utf-8")


def read(path):
    """The settings of a plan's file: {dotted name: value}, lists as tuples.

    Raises:
      InputError: the file is missing, too large, no YAML, or has not the form that `write` gives it.
    """
    document = _load(path)
    listed = document.get("settings") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        raise InputError(f"plan {path}: expected a file of plan_main.py with `settings`, came something else")
    for name, setting in listed.items():
        if not isinstance(setting, dict) or "value" not in setting:
            raise InputError(f"plan {path}: expected {name} to have a `value`, came {setting!r}")
    return {str(name): _tuples(setting["value"]) for name, setting in listed.items()}


def apply(config, values, keep=()):
    """Sets fields of a config in place.

    Args:
      config: a Config, or any dataclass of dataclasses.
      values: {dotted name: value}.
      keep: dotted names that are left as they are, with all that lies below or above them.

    Returns:
      list of the names that were left for `keep`'s sake.

    Raises:
      InputError: a name is no field of the config, or one of its sections.
    """
    kept = [name for name in values if any(_overlap(name, other) for other in keep)]
    for name, value in values.items():
        *path, field = name.split(".")
        section = config
        for part in path:
            section = _field(section, part, name)
        if dataclasses.is_dataclass(_field(section, field, name)):
            raise InputError(f"plan: expected single settings, came the section {name}")
        if name not in kept:
            setattr(section, field, value)
    return kept


def _field(section, name, whole):
    known = [field.name for field in dataclasses.fields(section)] if dataclasses.is_dataclass(section) else []
    if name not in known:
        raise InputError(f"plan: expected settings of this version's config, came {whole}")
    return getattr(section, name)


def _overlap(name, other):
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.") or other.startswith(f"{name}[")


def _load(path):
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise InputError(f"plan {path}: expected at most {_MAX_BYTES} characters, came more")
        # A few lines of references to references would stand for any number of values.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise InputError(f"plan {path}: expected plain values, came references (*name)")
        return yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"--plan={path}: expected a file of plan_main.py: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"plan {path}: expected YAML, came something else: {error}") from error


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Tuples in one line, numbers without noise, and no references to what occurs twice."""

    def ignore_aliases(self, data):
        del data
        return True


_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
