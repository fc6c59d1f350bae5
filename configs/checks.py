"""Checks of single settings; each raises ValueError with the field, what was expected and what came."""

import dataclasses


def require(condition, name, expected, value):
    """Raises ValueError, naming the field, what was expected and what came, unless the condition holds."""
    if not condition:
        raise ValueError(f"config {name}: expected {expected}, came {value!r}")


def choice(name, value, choices):
    """One of several strings."""
    require(value in choices, name, "one of " + ", ".join(choices), value)


def share(name, value):
    """A number in [0, 1]."""
    require(0 <= value <= 1, name, "a number in [0, 1]", value)


def integers(name, value, least):
    """Integers of at least so much."""
    require(all(type(v) is int and v >= least for v in value), name, f"integers >= {least}", value)


def triple(name, value, least=1):
    """Three integers of at least so much."""
    good = isinstance(value, tuple) and len(value) == 3 and all(type(v) is int and v >= least for v in value)
    require(good, name, f"three integers >= {least} (z, y, x)", value)


def axes(name, value):
    """Whether each of three axes does."""
    good = len(value) == 3 and all(isinstance(v, bool) for v in value)
    require(good, name, "three booleans (z, y, x)", value)


def positive_triple(name, value):
    """Three numbers > 0."""
    good = isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, int | float) and v > 0 for v in value)
    require(good, name, "three numbers > 0 (z, y, x)", value)


def pair(name, value):
    """A tuple of two; returned."""
    require(isinstance(value, tuple) and len(value) == 2, name, "pairs", value)
    return value


def interval(name, value):
    """(low, high)."""
    good = len(value) == 2 and all(isinstance(v, int | float) for v in value) and 0 <= value[0] <= value[1]
    require(good, name, "(low, high) with 0 <= low <= high", value)


def types(prefix, section):
    """Every field of a dataclass, and of those within, has a value of its annotation; an int passes as a float."""
    for field in dataclasses.fields(section):
        value, name = getattr(section, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            require(isinstance(value, field.type), name, field.type.__name__, value)
            types(f"{name}.", value)
            continue
        accepted = (int, float) if field.type is float else field.type
        is_wrong_bool = isinstance(value, bool) and field.type is not bool
        require(isinstance(value, accepted) and not is_wrong_bool, name, field.type.__name__, value)
