"""The console command `iadjax NAME ...`; `scripts/NAME.py` are the same functions.

A command is a module of this package. It defines its flags when it is imported and has a function `main(*words)`. `ARGUMENTS`
names the words that it takes without a flag, `CONFIG` the default of its flag --config.
"""

import importlib
import sys

from iadjax.errors import UserError, did_you_mean
from iadjax.experiment import cli

__all__ = ["COMMANDS", "main", "run"]

COMMANDS = {
    "train": "fits a detector, evaluates it and writes the report",
    "evaluate": "metrics of a fitted run, or of any tool's files, without fitting",
    "predict": "scores any images with a fitted detector, without a data set",
    "export": "writes a fitted detector as one file that runs without its configs",
    "sweep": "one run for every config, category and seed, and their table",
    "table": "tables of any runs, with published figures beside them",
    "configs": "lists the shipped configs, prints the keys of one, or copies it out for editing",
    "prepare-data": "checks a published data set and writes it as ArrayRecord files",
    "inspect-data": "looks at a data set: contact sheets, counts, sizes, masks",
    "submission": "writes what the server of MVTec AD 2 takes",
}
"""{command: its line}; the module has underscores for dashes."""

_HELP = ("help", "--help", "-help", "-h", "--helpshort")


def run(name: str) -> None:
    """Runs a command with the flags in `sys.argv`; only its own module is imported."""
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    cli.run(module.main, getattr(module, "CONFIG", None), getattr(module, "ARGUMENTS", ()))


def main() -> None:
    """The console command: `sys.argv[1]` is the name of a command. Without one, the list; of an unknown one, status 2."""
    words = sys.argv[1:]
    if not words or words[0] in _HELP:
        print(_listing())
        return
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        error = UserError(f"there is no command {words[0]!r}; {did_you_mean(name, COMMANDS)}")
        print(f"{_listing()}\n\nerror: {error}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"iadjax {name}", *words[1:]]
    run(name)


def _listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(["iadjax COMMAND --help has the examples and flags of a command.", "", *lines])
