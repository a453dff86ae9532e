"""What the scripts share: flags, and errors that end with one sentence and status 2."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from iadjax.config import load_config
from iadjax.errors import UserError, did_you_mean
from iadjax.fit import Stopped

__all__ = ["define_config", "run"]

INTERRUPTED = 130


def define_config(default: str | None) -> flags.FlagHolder:
    """The flag --config=FILE.py[:ARGUMENT] with its overrides --config.key=value."""
    return config_flags.DEFINE_config_file("config", default, "FILE.py or FILE.py:ARGUMENT", lock_config=True)


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main` after parsing the flags; a user's mistake ends with one sentence and status 2."""
    try:
        app.run(lambda _: _guard(main), flags_parser=_parse)
    except UserError as error:
        _fail(error)


def _guard(main: Callable[[], None]) -> None:
    # Orbax writes thirty lines about every checkpoint
    logging.set_verbosity(logging.WARNING)
    try:
        main()
    except UserError as error:
        _fail(error)
    except (Stopped, KeyboardInterrupt) as error:
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _fail(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        _check_keys(argv)
        rest = flags.FLAGS(argv)
    except UserError as error:
        _fail(error)
    except (flags.Error, TypeError, ValueError) as error:
        _fail(UserError(f"{error}; --help lists the flags"))
    if len(rest) > 1:
        _fail(UserError(f"unexpected argument {rest[1]!r}: every option is a flag like --workdir=DIR"))
    return rest


def _check_keys(argv: Sequence[str]) -> None:
    """Refuses an override of a key that the config file does not have, with the nearest valid names."""
    overrides = [argument.lstrip("-")[len("config.") :] for argument in argv[1:] if argument.lstrip("-").startswith("config.")]
    files = [argument.partition("=")[2] for argument in argv[1:] if argument.lstrip("-").startswith("config=")]
    holder = flags.FLAGS["config"] if "config" in flags.FLAGS else None
    path = files[-1] if files else (holder.default if holder else None)
    if holder is None or path is None:
        return
    config = load_config(path if isinstance(path, str) else holder.default_config_path)
    for override in overrides:
        node = config
        for depth, key in enumerate(parts := override.partition("=")[0].split(".")):
            if not isinstance(node, ConfigDict) or key not in node:
                known = [".".join([*parts[:depth], name]) for name in (node if isinstance(node, ConfigDict) else config)]
                raise UserError(f"the config has no key {'.'.join(parts)!r}; {did_you_mean('.'.join(parts[: depth + 1]), known)}")
            node = node[key]
