"""Evaluates a fitted run again, on any of its splits or with other evaluation settings, without fitting.

    python scripts/evaluate.py --workdir=runs/mine
    python scripts/evaluate.py --workdir=runs/mine --eval_size=256 --output=DIR
"""

import dataclasses
from pathlib import Path

from absl import flags

import iadjax
from iadjax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a fitted run.", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; the workdir by default.")
_EVAL_SIZE = flags.DEFINE_integer("eval_size", None, "Side of the maps and masks for pixel metrics; 0 = the masks' own.")


def main() -> None:
    run = iadjax.load(_WORKDIR.value)
    if _EVAL_SIZE.value is not None:
        run = dataclasses.replace(run, config={**run.config, "evaluate": {**run.config["evaluate"], "eval_size": _EVAL_SIZE.value}})
    output = Path(_OUTPUT.value or _WORKDIR.value)
    iadjax.print_metrics(iadjax.evaluate(run, _SPLIT.value, output))
    print(f"report: {output / 'report' / 'index.html'}")


if __name__ == "__main__":
    cli.run(main)
