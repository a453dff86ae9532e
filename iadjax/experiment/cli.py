"""What the commands share: flags, and errors that end with one sentence and status 2."""

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from iadjax.config import find_config, load_config, refuse_old_keys
from iadjax.cpu import allocator as malloc
from iadjax.errors import UserError, did_you_mean
from iadjax.experiment import help as helping
from iadjax.experiment.fit import Stopped
from iadjax.parallel import distributed

__all__ = ["define_config", "define_places", "define_processes", "one_process", "run"]

INTERRUPTED = 130

# errors of the operating system that users can mend
_OF_USERS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP),
)

_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Directory of compiled functions, so that the next run need not compile; '' for none. "
    "By default JAX_COMPILATION_CACHE_DIR, or ~/.cache/iadjax/jax.",
)


def define_config() -> flags.FlagHolder:
    """The flag --config=FILE.py[:ARGUMENT] with its overrides --config.key=value."""
    return config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:ARGUMENT", lock_config=True)


def define_places() -> Callable[[], dict[str, Any]]:
    """The flags that say where a run's images and weights are now; returns a function that gives the keywords of `load`."""
    largest = flags.DEFINE_integer(
        "data.max_pixels", None, "Pixels of an image at most; 0 = no limit; that of the run by default.", 0
    )
    root = flags.DEFINE_string("data.root", None, "Where the run's images are now, if they were moved; predicting needs none.")
    weights = flags.DEFINE_string("backbone.weights", None, "Where the backbone's weights are now, if the run lost them.")
    # as scripts/train.py and error messages write them
    for name in ("data.root", "backbone.weights", "data.max_pixels"):
        flags.DEFINE_alias(f"config.{name}", name)
    return lambda: {"data_root": root.value, "weights": weights.value, "max_pixels": largest.value}


def define_processes() -> Callable[[], None]:
    """The flags of a run of several processes; returns a function that joins them."""
    coordinator = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, for a run of several processes.")
    number = flags.DEFINE_integer("num_processes", 0, "How many processes; with --coordinator.")
    index = flags.DEFINE_integer("process_id", -1, "Which one this is, from 0; with --coordinator.")
    return lambda: distributed.start(coordinator.value, number.value, index.value)


def one_process(flag: str, default: Any) -> Any:
    """A default that serves one process only; several processes need the flag."""
    if distributed.process()[1] > 1:
        raise UserError(f"several processes need {flag}, the same for all and on a disk that they share")
    return default


def run(main: Callable[..., None], config: str | None = None, arguments: Sequence[str] = ()) -> None:
    """Runs a command's `main` after parsing the flags; a user's mistake ends with one sentence and status 2.

    Args:
      main: the command; called with the values of `arguments`.
      config: the default of --config, where the command defines that flag.
      arguments: names of the words that are given without a flag: "NAME", "[NAME]" if it may be left out, and as the last one
        "NAMES..." for any number of them.
    """
    parse = functools.partial(_parse, main, config, tuple(arguments))
    app.run(lambda words: _guard(functools.partial(main, *words[1:])), flags_parser=parse)


def _guard(main: Callable[[], None]) -> None:
    # Orbax writes thirty lines about every checkpoint
    logging.set_verbosity(logging.WARNING)
    malloc.keep_freed()
    _set_compile_cache()
    try:
        main()
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _OF_USERS:
            raise
        _fail(UserError(f"cannot use {error.filename or 'a file'} ({error.strerror}); free some space or give another place"))
    except (Stopped, KeyboardInterrupt) as error:
        print(str(error) or "interrupted", file=sys.stderr)
        _exit(INTERRUPTED)
    except Exception as error:
        if not _several():
            raise
        reason = str(error).strip().splitlines() or [""]
        print(
            f"error: process {jax.process_index()} stopped because another one or the network failed ({type(error).__name__}: "
            f"{reason[0][:200]}); start all of them again with --resume, in any number",
            file=sys.stderr,
        )
        _exit(1)


def _set_compile_cache() -> None:
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/iadjax/jax") if _CACHE.value is None else _CACHE.value
    if directory:
        jax.config.update("jax_compilation_cache_dir", str(Path(directory).expanduser()))
        # many of our functions compile in less than JAX's limit of one second
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _exit(status: int) -> None:
    """Ends the program. One of several processes does not wait for the others, because they may wait for it."""
    if _several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _fail(error: Exception) -> None:
    print(f"error: {helping.as_called(str(error), sys.argv[0])}", file=sys.stderr)
    _exit(2)


def _parse(main: Callable, config: str | None, arguments: Sequence[str], argv: Sequence[str]) -> list[str]:
    try:
        found = None
        if config is not None:
            # config_flags looks for --config in sys.argv, where it must come first
            found, argv = _with_config(config, argv)
            sys.argv = argv
        if helping.asked(argv):
            print(helping.text(main, argv[0], found, arguments))
            sys.exit(0)
        rest = flags.FLAGS(argv)
    except UserError as error:
        _fail(error)
    except (flags.Error, TypeError, ValueError) as error:
        _fail(UserError(f"{error}; --help lists the flags"))
    required = [name for name in arguments if not name.startswith("[")]
    if len(rest) > 1 + len(arguments) and not (arguments and arguments[-1].rstrip("]").endswith("...")):
        _fail(UserError(f"unexpected argument {rest[1 + len(arguments)]!r}: every option is a flag like --workdir=DIR"))
    if len(rest) < 1 + len(required):
        _fail(UserError(f"{required[len(rest) - 1]} is missing; --help lists what to give"))
    return rest


def _with_config(default: str, argv: Sequence[str]) -> tuple[ConfigDict, list[str]]:
    """The config, and the arguments with --config in front of its overrides, after a check that every overridden key exists."""
    argv = list(argv)
    path = default
    for i, argument in enumerate(argv[1:], start=1):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            # "--config FILE" in two words as well
            path = value if equals else "".join(argv[i + 1 : i + 2])
            del argv[i : i + (1 if equals else 2)]
            break
    file, given = find_config(path)
    path = f"{file}:{given}" if given else str(file)
    config = load_config(path)
    for argument in argv[1:]:
        key = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and key.startswith("config."):
            _check_key(config, key.split(".")[1:])
    return config, [argv[0], f"--config={path}", *argv[1:]]


def _check_key(config: ConfigDict, parts: Sequence[str]) -> None:
    refuse_old_keys({".".join(parts): None}, "the flag")
    node = config
    for depth, part in enumerate(parts):
        if part not in node:
            where = f" under {'.'.join(parts[:depth])!r}" if depth else ""
            raise UserError(f"the config has no key {'.'.join(parts)!r}{where}; {did_you_mean(part, node)}")
        node = node[part]
        if depth + 1 < len(parts) and not isinstance(node, ConfigDict):
            raise UserError(f"the config has no key {'.'.join(parts)!r}: {'.'.join(parts[: depth + 1])} is a value")
