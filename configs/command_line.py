"""What every `*_main.py` shares: the `--config` flag, and errors of the user's making as one line with exit code 2."""

import logging
import os
import pathlib
import re
import sys

# TensorFlow reads these when it is first imported; a main imports this module before it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TFA_DISABLE_WARNINGS", "1")
# Its fast kernels, which it leaves off on processors without AVX-512: a step takes twelve times as long there then.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from configs.schema import Config, from_json
from data import remote
from data.errors import InputError

DEFAULT_CONFIG = "configs/shapes_small.py"
_ROOT = pathlib.Path(__file__).resolve().parents[1]


def define_config_flag():
    """Defines `--config=FILE.py` with its `--config.path.to.field=value` overrides."""
    # Without a default of its own: that would be loaded, and mistakes in overrides raised, before flags are parsed.
    flag = config_flags.DEFINE_config_file("config", None, f"experiment: what to do (default: {DEFAULT_CONFIG})")
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])  # so that --help shows it
    return flag


def resolve(flag, adjust=None):
    """The validated Config of a parsed `--config` flag.

    Args:
      flag: from `define_config_flag`.
      adjust: f(config, names), called before the config is validated, with the dotted names of the fields that were
        given on the command line; it changes the config in place.

    Raises:
      InputError: the file is missing, is no config, or a value is not what the schema expects.
    """
    try:
        config = flag.value
        if not isinstance(config, Config):
            hasattr(config, "name")  # a file that could not be read comes as an object that raises OSError here
            raise InputError(f"--config: expected get_config() to return a Config, came {type(config).__name__}")
        if adjust:
            adjust(config, list(config_flags.get_override_values(flags.FLAGS[flag.name])))
        return config.validate()
    except Exception as error:  # A config file is a program, which may fail in any way.
        raise InputError(_one_line(error)) from error


def read_config(text):
    """The Config of an earlier run from its JSON text; InputError where it is of another version."""
    try:
        return from_json(text)
    except ValueError as error:
        raise InputError(_one_line(error)) from error


def run(main):
    """Parses flags and runs `main()`; an error ends in one line on stderr.

    The process exits with 0; with 2 after what the user can mend in files and settings; with 1 after what the system
    refused (a full disk, say).
    """
    logging.captureWarnings(True)
    if "config" in flags.FLAGS and not any(re.match("--?config(=|$)", argument) for argument in sys.argv[1:]):
        sys.argv.insert(1, f"--config={_ROOT / DEFAULT_CONFIG}")  # found from any working directory
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        app.run(lambda argv: _guarded(main, argv), flags_parser=_parse_flags)
    except SystemExit as end:
        remote.leave(end.code)
        raise


def _guarded(main, argv):
    try:
        if len(argv) > 1:
            raise InputError(f"expected flags only, came {' '.join(argv[1:])!r}")
        return main()
    except InputError as error:
        _fail(error, 2)
    except OSError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse_flags(argv):
    """absl's parser, which loads the config too; a mistake in a flag or in the config ends in one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error, 2)
    except Exception as error:  # A config file is a program, which may fail in any way.
        _fail(InputError(f"--config: {_one_line(error)}"), 2)


def _fail(error, code):
    print(f"error: {_one_line(error)}", file=sys.stderr)
    sys.exit(code)


def _one_line(error):
    # A KeyError's str() is the repr of its message; a config file's error carries a whole traceback, its cause last.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if "Traceback" in text else " ".join(lines)
    # Texts of these are written for people; those of others may be no more than a key.
    is_clear = line and isinstance(error, flags.Error | OSError | ValueError)
    return line if is_clear else f"{type(error).__name__}: {line}".removesuffix(": ")
