"""What --help prints: the docstring of a command with its examples, its flags, and the keys of the config at hand."""

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from iadjax.config import listing

__all__ = ["as_called", "asked", "text"]

_WORDS = ("help", "helpshort", "h", "?")
_SHARED = "iadjax.experiment.cli"


def asked(argv: Sequence[str]) -> bool:
    """Whether the words ask for help; --helpfull is absl's."""
    return any(word.startswith("-") and word.lstrip("-") in _WORDS for word in argv[1:])


def as_called(text: str, name: str) -> str:
    """Text that names scripts, with the console commands instead where those were called."""
    if name.endswith(".py"):
        return text
    return re.sub(r"(?:python )?scripts/(\w+)\.py", lambda found: f"iadjax {found[1].replace('_', '-')}", text)


def text(main: Callable, name: str, config: ConfigDict | None = None, arguments: Sequence[str] = ()) -> str:
    """The help of a command.

    Args:
      main: its function; the docstring is that of its module.
      name: how it was called: the path of a script, or "iadjax train".
      config: the config at hand, whose keys are listed; None: it takes none.
      arguments: names of the words that it takes without a flag.
    """
    module = sys.modules[main.__module__]
    doc = as_called((module.__doc__ or "").strip(), name)
    call = f"python {name}" if name.endswith(".py") else name
    head = " ".join([call, *arguments, "[FLAGS]"])
    own = main.__module__ if main.__module__ != "__main__" else sys.argv[0]
    parts = [head, "", doc, "", "flags:", *_flags(own, Path(name).stem), *_flags(_SHARED)]
    if config is not None:
        parts += ["", "keys of this config, each a flag --config.KEY=VALUE:", listing(config)]
    return "\n".join(parts)


def _flags(*modules: str) -> list[str]:
    """The lines of the flags that the modules define."""
    found = {}
    for module, each in flags.FLAGS.flags_by_module_dict().items():
        if module in modules:
            found |= {flag.name: flag for flag in each if not flag.name.startswith("config.")}
    lines = []
    for name, flag in sorted(found.items()):
        shown = f"  --[no]{name}" if flag.boolean else f"  --{name}={_default(flag)}"
        lines += [
            shown,
            textwrap.fill(" ".join((flag.help or "").split()), 120, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return lines


def _default(flag: flags.Flag) -> str:
    default = flag.default
    if isinstance(default, list):
        default = ",".join(default)
    return flag.name.rpartition(".")[2].upper() if default in (None, "") else str(default)
